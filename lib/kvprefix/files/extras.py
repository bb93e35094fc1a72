"""Packages that only parts of the library need: the optional dependencies in its pyproject.toml, and transformers."""

import os
from importlib.util import find_spec

from kvprefix.files.paths import InputError

EXTRAS = {
    "report": ("matplotlib", "seaborn", "IPython", "markdown_it", "ipykernel", "nbformat", "papermill"),
    "cluster": ("dask", "distributed"),
}
_FOR = {"report": "figures, tables and notebooks", "cluster": "a Dask cluster"}


def need(extra):
    """Raise InputError if modules of an extra (`report` or `cluster`) are not installed; import none of them."""
    missing = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if missing:
        raise InputError(f"{_FOR[extra]}: needs {', '.join(missing)}; install it: pip install 'kvprefix[{extra}]'")


def import_transformers():
    """Import transformers without its warnings about missing model libraries."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import transformers

    return transformers
