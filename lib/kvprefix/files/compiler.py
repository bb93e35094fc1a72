"""Load the compiler of the inner loops without what these do not need."""

import sys

_NOT_NEEDED = "scipy", "cffi"  # numba's linear algebra and calls of C functions


def load_compiler():
    """Import numba, and what it loads before a compiled loop first runs, without scipy and cffi.

    numba imports both if they are there, and no inner loop uses them: a quarter of a short command's time. To be called
    by a program, before anything imports numba; code that the process compiles has no ``np.cov``, ``np.corrcoef`` and
    C functions of cffi.
    """
    if "numba" in sys.modules:
        return
    hidden = [name for name in _NOT_NEEDED if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # as if they were not installed
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]
