"""Execute notebooks with parameters through papermill: each whole or not at all, a failed copy kept as evidence.

If one fails, the others still run, and its section of the report says why it failed.
"""

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

from jupyter_core.utils import ensure_event_loop
from tqdm import tqdm

from kvprefix.conversations.load import list_data
from kvprefix.files.csv_cells import VARIABLE as CSV_SAFE
from kvprefix.files.escape import one_line
from kvprefix.files.paths import (
    InputError,
    check_output_file,
    explain_os_errors,
    plain_text,
    resolve_input,
    tell,
    write_bytes,
)
from kvprefix.files.sealed import expect_unchanged, seal_key, stamp_file
from kvprefix.plan.setup import read_setup
from kvprefix.report.kernels import start_preloading
from kvprefix.report.parameters import list_assigned, write_parameters
from kvprefix.report.section_files import LEFT_OUT, begin_section, mark_failed, write_section
from kvprefix.report.sources import hash_sources
from kvprefix.report.written import WRITES
from kvprefix.studies.experiment import find_kind, holds_sessions

FAILED = 2  # what the command returns then
MADE_OF = "made_of"  # in the metadata of an executed copy
REASONS = {
    "tokens": "the data list block ids, and it needs texts or tokens",
    "sessions": "it is of agents' sessions, and the data are chats without tools",
}


def execute_notebooks(sources, parameters, output_dir, *, jobs=1, only_stale=False):
    """Execute notebooks, several at a time; the last one when the others are done.

    Parameters
    ----------
    sources : sequence of pathlib.Path
        The executed copies are `output_dir/notebooks/NAME.ipynb`.
    parameters : Parameters
        All of them are written to `output_dir/parameters.json`.
    output_dir : pathlib.Path
    jobs : int
        Notebooks at a time.
    only_stale : bool
        Skip a notebook whose executed copy was made of the same: its text, the library's files that it is made of (see
        `sources`), the parameters, the data, the packages' versions. The last one is skipped only if all are.

    Returns
    -------
    int
        0, or FAILED if a notebook failed; the next call with `only_stale` runs that one and the last again.

    Raises
    ------
    InputError
        As `execute_notebook`; if data or times change before the last notebook runs.
    """
    targets = {source: output_dir / "notebooks" / source.name for source in sources}
    *others, last = sources
    if not (only_stale and targets[last].exists()):
        start_preloading()  # while this process reads what notebooks are made of
    files = [*list_data(parameters.data), *map(resolve_input, parameters.timing_files())]
    stamps = [stamp_file(file) for file in files]  # all notebooks must see the same files
    known = [parameters.as_dict(), [stamp.sha256 for stamp in stamps], os.environ.get(CSV_SAFE), _list_versions()]
    made_of = {source: seal_key([hash_sources(source), *known]) for source in sources}
    stale = [one for one in others if not only_stale or _read_made_of(targets[one]) != made_of[one]]
    if not stale and only_stale and _read_made_of(targets[last]) == made_of[last]:
        return 0
    start_preloading()
    for source in (*stale, last):
        read_declared(source)
    write_parameters(output_dir, parameters)
    misfits = [one for one in sources if find_misfit(one, parameters)]
    written = {name for one in sources if one not in misfits for name in WRITES.get(one.stem, ())}
    _list_left_out(output_dir, [name for one in misfits for name in WRITES.get(one.stem, ()) if name not in written])

    def execute(source):
        alone = jobs == 1 or source == last
        return execute_notebook(
            source, targets[source], parameters, output_dir, in_turn=alone, made_of=made_of[source]
        )

    failed = _execute_in_turn(execute, stale, last, jobs, stamps)
    if failed:
        listed = f"{len(failed)} of {len(sources)} notebooks failed: {', '.join(sorted(failed))}"
        tell(f"{listed}; the next run is of these and the last one", sys.stderr)
    return FAILED if failed else 0


def _list_left_out(output_dir, names):
    """Write the names of the files that a report does not have, or no file."""
    if names:
        write_bytes(output_dir / LEFT_OUT, "".join(f"{name}\n" for name in names))
    else:
        (output_dir / LEFT_OUT).unlink(missing_ok=True)


def _execute_in_turn(execute, others, last, jobs, stamps):
    """Execute the other notebooks, `jobs` at a time, and then the last one; return the names of those that failed.

    Several at a time start from the last ones, which measure more: so all processes end at about the same time.
    """
    bar = tqdm(total=len(others) + 1, unit="notebook", leave=False, disable=True if jobs == 1 else None)
    failed, ended = [], threading.Event()

    def execute_one(source):
        try:
            if not ended.is_set() and execute(source):
                failed.append(source.stem)
        finally:
            ensure_event_loop().close()  # of this thread
        bar.update()

    with bar, ThreadPoolExecutor(jobs) as pool:
        try:
            with expect_unchanged(*stamps):
                list(pool.map(execute_one, others if jobs == 1 else others[::-1]))
            pool.submit(execute_one, last).result()
        except BaseException:
            ended.set()  # start nothing more
            raise
    return failed


def _list_versions():
    """Return the versions of Python and of all installed packages."""
    return [sys.version, *sorted(f"{one.name} {one.version}" for one in metadata.distributions())]


def _read_made_of(target):
    """Return what an executed copy says that it was made of; None if there is no whole one."""
    try:
        return json.loads(target.read_text(encoding="utf-8"))["metadata"].get(MADE_OF)
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None


def execute_notebook(source, target, parameters, output_dir, *, in_turn=True, made_of=None):
    """Execute a notebook; return 0, or FAILED if a cell failed or the kernel died.

    Parameters
    ----------
    source, target : pathlib.Path
        The notebook and its executed copy. On failure the partly executed copy is `NAME.failed.ipynb` beside it, and
        the notebook's section is marked.
    parameters : Parameters
        The notebook gets those that it declares; it reads the others from the report folder.
    output_dir : pathlib.Path
        The report folder, passed as `output_dir`.
    in_turn : bool
        Whether no other notebook runs at the same time; then a bar of its cells is shown.
    made_of : str, optional
        Written into the executed copy, for the next call.

    Raises
    ------
    InputError
        If the notebook does not exist, or declares no parameters, or a parameter is no valid UTF-8.
    """
    chosen = _choose_values(source, parameters, output_dir)
    if reason := find_misfit(source, parameters):
        return _leave_out(source, target, output_dir, reason, made_of)
    failed = target.with_suffix(".failed.ipynb")
    check_output_file(target)
    with explain_os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        for old in (target, failed):
            old.unlink(missing_ok=True)
    begin_section(output_dir, source.stem)
    tell(f"{source.name}: running")
    reason = _run_papermill(source, failed, chosen, shows=in_turn and sys.stderr.isatty())
    if reason is None:
        _write_made_of(failed, made_of)
        os.replace(failed, target)
        tell(f"{source.name}: done")
        return 0
    mark_failed(output_dir, source.stem, _read_title(source), one_line(reason, 300))
    tell(f"error: {source.name}: {reason[:1000]}", sys.stderr)
    tell(f"the partly executed notebook is {failed}", sys.stderr)
    return FAILED


def find_misfit(source, parameters):
    """Return why a notebook has nothing to say of the data, in words; None if it has.

    What it needs stands in its metadata, as `needs` of `kvprefix`: `tokens`, `sessions`, or `pool`, a card that holds
    the model; most need none.
    """
    needs = _read_notebook(source).metadata.get("kvprefix", {}).get("needs")
    if needs == "pool":
        return _find_lack(parameters)
    holds = {"tokens": lambda: find_kind(parameters) == "tokens", "sessions": lambda: holds_sessions(parameters)}
    return None if needs is None or holds[needs]() else REASONS[needs]


def _find_lack(parameters):
    """Return why there is no pool of blocks, None if there is one."""
    try:
        return read_setup(parameters).pool() and None
    except InputError as error:
        return str(error)


def _leave_out(source, target, output_dir, reason, made_of):
    """Write the notebook as it is, and a section with the reason alone; none if it is for other data than chats."""
    begin_section(output_dir, source.stem)
    if reason != REASONS["sessions"]:
        title = _read_title(source)
        write_section(output_dir, source.stem, title, [{"kind": "absent", "text": f"{title} is left out: {reason}."}])
    write_bytes(target, source.read_bytes())
    _write_made_of(target, made_of)
    tell(f"{source.name}: left out: {reason}")
    return 0


def _write_made_of(path, made_of):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["metadata"][MADE_OF] = made_of
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _choose_values(source, parameters, output_dir):
    """Return the values of the parameters that a notebook declares."""
    values = {**parameters.as_dict(), "output_dir": str(output_dir.resolve())}
    chosen = {name: values[name] for name in read_declared(source) if name in values}
    if chosen.get("max_conversations", 1) is None:
        chosen["max_conversations"] = "all"
    for name, value in values.items():
        if str(value).encode(errors="replace").decode() != str(value):
            raise InputError(f"{name} is {value!r}: a notebook holds no name that is not UTF-8; rename the file")
    return chosen


def _run_papermill(source, target, values, *, shows):
    """Execute a notebook as `target`; return None, or why it failed. `shows` shows a bar of its cells."""
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    manager = start_preloading()
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        with explain_os_errors(target):
            papermill.execute_notebook(
                source, target, values, kernel_name="python3", kernel_manager_class=manager,
                progress_bar={"desc": plain_text(source.stem), "leave": False} if shows else False,
                extra_arguments=["--IPKernelApp.log_level=50"],
            )  # fmt: skip
    except PapermillExecutionError as error:
        if error.ename == "KeyboardInterrupt":
            raise KeyboardInterrupt from None
        return f"cell {error.exec_count}: {error.ename}: {error.evalue}"
    except DeadKernelError:
        return f"cell {_count_started(target)}: its kernel died, as it does if memory runs out"
    return None


def _count_started(path):
    """Return how many code cells of a partly executed notebook were started."""
    cells = _read_notebook(path).cells
    states = [cell.metadata.get("papermill", {}).get("status") for cell in cells if cell.cell_type == "code"]
    return sum(state in ("running", "completed", "failed") for state in states)


def _read_title(source):
    first = _read_notebook(source).cells[0].source.partition("\n")[0]
    return first.removeprefix("# ") if first.startswith("# ") else source.stem


def read_declared(source):
    """Return the names that a notebook's `parameters` cell assigns, in order."""
    cells = [cell for cell in _read_notebook(source).cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(f"{source}: has {len(cells)} cells tagged `parameters`; expected one")
    return list_assigned(cells[0].source)


def _read_notebook(path):
    import nbformat  # two seconds, while the first kernel's imports are under way

    try:
        with explain_os_errors(path):
            return nbformat.read(path, as_version=4)
    except InputError:
        raise
    except Exception as error:  # nbformat has many: no JSON, no notebook, of another version
        raise InputError(f"{path}: is no notebook that can be read ({type(error).__name__})") from error
