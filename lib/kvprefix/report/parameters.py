"""The parameters of a report, for its notebooks: a notebook declares those that it uses, a file holds all.

`notebooks` writes `parameters.json` into the report's folder. A notebook that runs elsewhere, as in JupyterLab, has no
such file: what it does not declare has its default.
"""

import json

from kvprefix.files.paths import InputError, explain_os_errors, resolve_output, write_bytes
from kvprefix.traces.parameters import Parameters, refuse_unknown
from kvprefix.traces.table import TABLE

FILE = "parameters.json"
OWN_PARAMETERS = ("output_dir",)  # of a notebook, beside those of a report
DECLARES = "# Parameters"  # how a cell that declares them begins; this is the first line of papermill's own


def write_parameters(folder, parameters):
    """Write all parameters of a report into its folder."""
    write_bytes(folder / FILE, json.dumps(parameters.as_dict(), indent=1) + "\n")


def pick_parameters(names):
    """Make the Parameters of a notebook: its declared values, else those of the report's folder, else the defaults.

    Parameters
    ----------
    names : dict
        The notebook's `globals()`. A text that stands for a number or for true or false, as `papermill -r` gives it, is
        replaced there by that value.

    Returns
    -------
    Parameters

    >>> given = {"block_size": "32", "frame": None}
    >>> pick_parameters(given).block_size, given["block_size"]
    (32, 32)

    Raises
    ------
    InputError
        As Parameters; if papermill gave an unknown name.
    """
    declared = _list_declared(names.get("In", []), names)
    for name in declared:
        if isinstance(names[name], str):
            names[name] = TABLE[name].parse(names[name])
    report = _read_parameters(names["output_dir"]) if "output_dir" in names else {}
    return Parameters(**report | {name: names[name] for name in declared})


def _list_declared(cells, names):
    """Return the parameters that the notebook's and papermill's declaring cells set; without such cells, all given.

    Other cells may use the names of parameters for something else.
    """
    declaring = [cell for cell in cells if cell.startswith(DECLARES) or "output_dir" in list_assigned(cell)]
    injected = [cell for cell in declaring if cell.partition("\n")[0] == DECLARES]
    own = {name for cell in declaring if cell not in injected for name in list_assigned(cell)}
    given = {name for cell in injected for name in list_assigned(cell)}
    refuse_unknown(given - own, (*TABLE, *OWN_PARAMETERS))
    declared = own | given if declaring else names
    return [name for name in TABLE if name in declared and name in names]


def _read_parameters(folder):
    """Return the parameters that a report's folder holds; none if it has no such file."""
    path = resolve_output(folder) / FILE
    if not path.exists():
        return {}
    try:
        with explain_os_errors(path):
            values = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: holds no JSON object of parameters; make the report again") from error
    refuse_unknown(values)
    return values


def list_assigned(code):
    """Return the names that lines of the form ``name = value`` assign, in order."""
    lines = [line.partition("=")[0].strip() for line in code.splitlines()]
    return [name for name in lines if name.isidentifier()]
