"""Execute a notebook with parameters through papermill: whole or not at all, a failed copy kept as evidence."""

import os
import sys

import nbformat

from kvprefix.files import InputError, explain_os_errors

OWN_PARAMETERS = {"output_dir"}


def execute_notebook(source, target, parameters, output_dir):
    """Execute a notebook; return 0, or 1 where a cell failed.

    Parameters
    ----------
    source, target : pathlib.Path
        The notebook and its executed copy. On failure the partly executed copy is `NAME.failed.ipynb` beside it.
    parameters : Parameters
        Those of them that the notebook declares are passed.
    output_dir : pathlib.Path
        The report folder, passed as `output_dir`.

    Raises
    ------
    InputError
        A notebook that is not there, or declares no parameters.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    declared = read_declared(source)
    values = {**parameters.as_dict(), "output_dir": str(output_dir.resolve())}
    chosen = {name: values[name] for name in declared if name in values}
    if chosen.get("max_conversations", 1) is None:
        chosen["max_conversations"] = "all"
    failed = target.with_suffix(".failed.ipynb")
    with explain_os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        failed.unlink(missing_ok=True)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    try:
        papermill.execute_notebook(
            source, failed, chosen, kernel_name="python3",
            progress_bar=sys.stderr.isatty(), extra_arguments=["--IPKernelApp.log_level=50"],
        )  # fmt: skip
    except PapermillExecutionError as error:
        print(f"error: {source.name}: cell {error.exec_count}: {error.ename}: {error.evalue}", file=sys.stderr)
        print(f"the partly executed notebook is {failed}", file=sys.stderr)
        return 1
    os.replace(failed, target)
    print(f"{source.name}: done")
    return 0


def read_declared(source):
    """Return the names that a notebook's `parameters` cell assigns, in order."""
    with explain_os_errors(source):
        notebook = nbformat.read(source, as_version=4)
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(f"{source}: has {len(cells)} cells tagged `parameters`; expected one")
    lines = [line.partition("=")[0].strip() for line in cells[0].source.splitlines()]
    return [name for name in lines if name.isidentifier()]
