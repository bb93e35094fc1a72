"""Set an environment variable for a while; processes started meanwhile see it too."""

import contextlib
import os


@contextlib.contextmanager
def variable_set(name, value):
    """Set a variable, and restore it at the end; None leaves it as it is.

    >>> with variable_set("KVPREFIX_EXAMPLE", "true"):
    ...     os.environ["KVPREFIX_EXAMPLE"]
    'true'
    >>> "KVPREFIX_EXAMPLE" in os.environ
    False
    """
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        if value is not None:
            del os.environ[name]
            os.environ |= {name: before} if before is not None else {}
