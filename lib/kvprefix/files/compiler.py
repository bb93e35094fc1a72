"""Load the compiler of the inner loops without what these do not need."""

import sys


def load_compiler():
    """Import numba, and what it loads before a compiled loop first runs, without scipy.

    numba imports scipy for linear algebra, which no inner loop uses: a quarter of a short command's time. To be called
    by a program, before anything imports numba; in such a process, compiled code has no ``np.cov`` and ``np.corrcoef``.
    """
    if "numba" in sys.modules or "scipy" in sys.modules:
        return
    sys.modules["scipy"] = None  # as if it was not installed
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules["scipy"]
