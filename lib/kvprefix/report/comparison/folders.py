"""Which folders are compared and where the comparison goes; a folder appears whole or not at all."""

import contextlib
import json
import os
import shutil
from pathlib import Path

from kvprefix.files.escape import one_line
from kvprefix.files.paths import InputError, check_path, explain_os_errors, find_project, hold_lock

RESULT = "comparison.json"  # by which a folder is known as a comparison
KIND = "comparison"


def find_report(given):
    """Return the folder of a report: a path, or a name below the project's `reports/`.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    check_path(given, "report", "a report's folder, or its name below reports/")
    path = Path(given)
    if not path.is_dir() and (_reports() / path).is_dir():
        path = _reports() / path
    if not path.is_dir():
        what = "is a file" if path.exists() else "there is no such folder, nor one of that name below reports/"
        raise InputError(f"{given}: {what}; expected a report's folder (make report NAME=... writes one)")
    return path


def name_reports(folders):
    """Return a label per folder: its name, numbered if an earlier one has it.

    >>> name_reports([Path("a/x"), Path("b/x"), Path("y")])
    ['x', 'x (2)', 'y']
    """
    labels = []
    for folder in folders:
        name = label = one_line(_name(folder))
        k = 2
        while label in labels:
            label, k = f"{name} ({k})", k + 1
        labels.append(label)
    return labels


def choose_output(folders):
    """Return the comparison's usual folder, `reports/A-vs-B` in the project, else below the working folder."""
    return _reports() / "-vs-".join(map(_name, folders))


def check_output(out, folders):
    """Return the comparison's folder, symbolic links resolved, if it may be written.

    Raises
    ------
    InputError
        If it is one of the reports or lies in one, or holds anything but an earlier comparison.
    """
    check_path(out, "--out", "a folder for the comparison")
    with explain_os_errors(out):
        path = Path(out).resolve()
        for folder in folders:
            report = folder.resolve()
            if path == report or report in path.parents:
                where = "is" if path == report else "lies in"
                raise InputError(f"{out}: {where} one of the compared reports; give the comparison a folder of its own")
        if path.exists() and not path.is_dir():
            raise InputError(f"{out}: is no folder; give the comparison a folder of its own")
        if path.is_dir() and any(path.iterdir()) and not is_comparison(path):
            raise InputError(f"{out}: holds something else than an earlier comparison; give another folder")
    return path


def is_comparison(folder):
    """Say whether a folder holds a comparison."""
    try:
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("kind") == KIND


@contextlib.contextmanager
def replace_folder(path):
    """Yield an empty folder beside `path`, which takes its place at the end, and is removed if anything fails.

    One run at a time writes there. What a killed run left is removed, and the folder that it set aside put back.
    """
    path = Path(path)
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        making = path.parent / f".{path.name}.making"
        new, old = making / "new", making / "old"
        busy = f"{path}: another run is writing there; wait for it, or give another folder"
        with hold_lock(path.parent / f".{path.name}.lock", busy):
            try:
                _clear(making, old, path)
                new.mkdir(parents=True)
                yield new
                if path.exists():
                    os.replace(path, old)
                os.replace(new, path)
            finally:
                _clear(making, old, path)


def _clear(making, old, path):
    if old.exists() and not path.exists():
        os.replace(old, path)
    if making.exists():
        shutil.rmtree(making)


def _name(folder):
    return folder.name if folder.name not in ("", "..") else folder.resolve().name or str(folder)


def _reports():
    return (find_project() or Path()) / "reports"
