"""What a notebook is made of, by content: its own text, and the files of this library that it imports or names.

Times of files tell nothing: a clone, a checkout or a copy gives new times to equal files.
"""

import ast
import functools
import hashlib
import json
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def hash_sources(notebook):
    """Return the SHA-256 of a notebook's cells and of each file that it is made of, in hexadecimal.

    Of what is no notebook, or not Python, it is that of the bytes: running it says what is wrong.
    """
    try:
        cells = json.loads(Path(notebook).read_bytes())["cells"]
        cells = [[cell["cell_type"], "".join(cell["source"])] for cell in cells]
        files = list_sources("\n".join(text for kind, text in cells if kind == "code"))
    except OSError:
        return ""
    except (ValueError, LookupError, TypeError, SyntaxError):
        return _hash(Path(notebook))
    listed = [[file.relative_to(PACKAGE).as_posix(), _hash(file)] for file in files]
    return hashlib.sha256(json.dumps([cells, listed]).encode()).hexdigest()


def list_sources(code):
    """Return the library's files that some Python code is made of, sorted.

    These are the modules that it imports, those that they import, wherever in their text, and what is no module (words,
    page, tables) if one of these has its name as a text, or the name's beginning up to a ``_``.

    Parameters
    ----------
    code : str
        Python; lines of IPython's own (``%``, ``!``) are passed over.
    """
    code = re.sub(r"^\s*[%!].*$", "", code, flags=re.M)
    found, new = set(), _resolve(ast.parse(code), ())
    named = _list_texts(code)
    while new:
        found |= new
        named = named.union(*(_list_texts(_read(file)) for file in new))
        imported = set().union(*(_list_imported(file) for file in new if file.suffix == ".py"))
        new = (imported | {file for file in _list_others() if _is_named(file, named)}) - found
    return sorted(found)


@functools.cache
def _read(file):
    return file.read_text(encoding="utf-8")


@functools.cache
def _hash(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _list_texts(code):
    """Return the words with which texts in some code begin."""
    return frozenset(re.findall(r"[\"'](?:\w+/)*(\w+)", code))


def _is_named(file, texts):
    name = file.name.partition(".")[0]
    return name in texts or any(text.endswith("_") and name.startswith(text) for text in texts)


@functools.cache
def _list_others():
    return [file for file in PACKAGE.rglob("*.*") if file.suffix != ".py" and "__pycache__" not in file.parts]


@functools.cache
def _list_imported(file):
    """Return the modules that a module imports, with the packages around them."""
    return _resolve(ast.parse(_read(file)), file.relative_to(PACKAGE.parent).with_suffix("").parts[:-1])


def _resolve(tree, package):
    """Return the library's files that a syntax tree imports; `package` are the names of the package that it is in."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, (start, node.module)))
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    parts = [name.split(".") for name in names if name.split(".")[0] == PACKAGE.name]
    every = {tuple(one[1:n]) for one in parts for n in range(1, len(one) + 1)}
    paths = [PACKAGE.joinpath(*one) for one in every]
    return {file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()}
