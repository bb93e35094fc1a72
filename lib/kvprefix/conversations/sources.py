"""Find the files of a source: a file, a folder or a glob, in sorted order, one by one."""

import glob
import os
from pathlib import Path

from kvprefix.files.paths import InputError, check_path, resolve_input

_MARKS = frozenset("*?[")


def find_files(source):
    """Return the files of a source, and what to take from their paths to show them: None for a single file.

    Parameters
    ----------
    source : path-like
        A file, a folder (with all below it) or a glob such as ``logs/**/*.jsonl``.

    Returns
    -------
    iterator of pathlib.Path
    pathlib.Path or None

    Raises
    ------
    InputError
        There is no such file.
    """
    check_path(source, "data", "a file, a folder or a glob")
    path = resolve_input(source)
    if path.is_dir():
        return _walk(path), path
    if not is_pattern(source):
        if not path.exists():
            raise InputError(f"{path}: no such file; expected a data file, a folder, a glob or `bundled`")
        return iter([path]), None
    pattern = str(path)
    found = sorted(Path(name) for name in glob.iglob(pattern, recursive=True, include_hidden=False))
    files = [one for one in found if not one.is_dir()]
    if not files:
        raise InputError(f"{source}: no file fits this pattern")
    return iter(files), Path(os.path.commonpath([one.parent for one in files]))


def is_pattern(source):
    """Say whether a source is a glob: no file has its name, and it has marks of one."""
    return bool(_MARKS & set(str(source))) and not resolve_input(source).exists()


def _walk(folder):
    """Yield the files of a folder and of those below it, by name; links to folders are not followed."""
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    for name, is_folder in names:
        if is_folder:
            yield from _walk(Path(folder, name))
        else:
            yield Path(folder, name)
