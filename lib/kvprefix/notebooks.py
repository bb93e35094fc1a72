"""Execute notebooks with parameters through papermill: each whole or not at all, a failed copy kept as evidence."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from jupyter_core.utils import ensure_event_loop
from tqdm import tqdm

from kvprefix.conversations import locate_data
from kvprefix.files import (
    InputError,
    check_output_file,
    expect_unchanged,
    explain_os_errors,
    resolve_input,
    stamp_file,
)
from kvprefix.kernels import start_preloading

OWN_PARAMETERS = {"output_dir"}


def execute_notebooks(sources, parameters, output_dir, *, jobs=1, newer_than=None):
    """Execute notebooks, several at a time; the last one when the others are done.

    After a failed one no other is started.

    Parameters
    ----------
    sources : sequence of pathlib.Path
        The executed copies are `output_dir/notebooks/NAME.ipynb`.
    parameters : Parameters
    output_dir : pathlib.Path
    jobs : int
        Notebooks at a time.
    newer_than : pathlib.Path, optional
        Leave out what was executed after this file and the notebook itself changed; the last one only if all were.

    Returns
    -------
    int
        0, or 1 where a cell failed.

    Raises
    ------
    InputError
        As `execute_notebook`; data or times that change between two notebooks, before the last one runs.
    """
    targets = {source: output_dir / "notebooks" / source.name for source in sources}
    *others, last = sources
    stale = [source for source in others if _is_stale(source, targets[source], newer_than)]
    if not stale and not _is_stale(last, targets[last], newer_than):
        return 0
    start_preloading()
    for source in (*stale, last):
        read_declared(source)

    files = [locate_data(parameters.data), *map(resolve_input, parameters.timing_files())]
    stamps = [stamp_file(file) for file in files]  # all notebooks are to see the same
    bar = tqdm(total=len(stale) + 1, unit="notebook", leave=False, disable=True if jobs == 1 else None)
    failed = threading.Event()

    def execute(source):
        try:
            alone = jobs == 1 or source == last
            if not failed.is_set() and execute_notebook(source, targets[source], parameters, output_dir, in_turn=alone):
                failed.set()
        finally:
            ensure_event_loop().close()  # of this thread
        bar.update()

    with bar, ThreadPoolExecutor(jobs) as pool:
        try:
            with expect_unchanged(*stamps):
                list(pool.map(execute, stale))
            pool.submit(execute, last).result()
        except BaseException:
            failed.set()  # nothing more is started
            raise
    return int(failed.is_set())


def _is_stale(source, target, newer_than):
    if newer_than is None or not target.exists():
        return True
    return target.stat().st_mtime < max(source.stat().st_mtime, newer_than.stat().st_mtime)


def execute_notebook(source, target, parameters, output_dir, *, in_turn=True):
    """Execute a notebook; return 0, or 1 where a cell failed.

    Parameters
    ----------
    source, target : pathlib.Path
        The notebook and its executed copy. On failure the partly executed copy is `NAME.failed.ipynb` beside it.
    parameters : Parameters
        Those of them that the notebook declares are passed.
    output_dir : pathlib.Path
        The report folder, passed as `output_dir`.
    in_turn : bool
        Show a bar of the notebook's cells: no other one runs meanwhile.

    Raises
    ------
    InputError
        A notebook that is not there, or declares no parameters.
    """
    declared = read_declared(source)
    values = {**parameters.as_dict(), "output_dir": str(output_dir.resolve())}
    chosen = {name: values[name] for name in declared if name in values}
    if chosen.get("max_conversations", 1) is None:
        chosen["max_conversations"] = "all"
    failed = target.with_suffix(".failed.ipynb")
    check_output_file(target)
    with explain_os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        failed.unlink(missing_ok=True)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    manager = start_preloading()
    import papermill
    from papermill.exceptions import PapermillExecutionError

    tqdm.write(f"{source.name}: running")
    try:
        with explain_os_errors(failed):
            papermill.execute_notebook(
                source, failed, chosen, kernel_name="python3", kernel_manager_class=manager,
                progress_bar={"desc": source.stem, "leave": False} if in_turn and sys.stderr.isatty() else False,
                extra_arguments=["--IPKernelApp.log_level=50"],
            )  # fmt: skip
    except PapermillExecutionError as error:
        if error.ename == "KeyboardInterrupt":
            raise KeyboardInterrupt from None
        print(f"error: {source.name}: cell {error.exec_count}: {error.ename}: {error.evalue}", file=sys.stderr)
        print(f"the partly executed notebook is {failed}", file=sys.stderr)
        return 1
    os.replace(failed, target)
    tqdm.write(f"{source.name}: done")
    return 0


def read_declared(source):
    """Return the names that a notebook's `parameters` cell assigns, in order."""
    import nbformat  # two seconds, while the first kernel's imports are under way

    try:
        with explain_os_errors(source):
            notebook = nbformat.read(source, as_version=4)
    except InputError:
        raise
    except Exception as error:  # nbformat has many: no JSON, no notebook, of another version
        raise InputError(f"{source}: is no notebook that can be read ({type(error).__name__})") from error
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(f"{source}: has {len(cells)} cells tagged `parameters`; expected one")
    lines = [line.partition("=")[0].strip() for line in cells[0].source.splitlines()]
    return [name for name in lines if name.isidentifier()]
