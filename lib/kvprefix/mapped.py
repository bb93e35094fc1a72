"""Arrays that live in files: mapped read-only, read when they are touched, and let go of when they are done with.

What is mapped may be larger than memory. What the arrays hold is not known here.
"""

import mmap

import numpy as np


def map_array(path, dtype):
    """Return a file's content as a read-only array of one dimension; nothing is read before it is touched."""
    if not path.stat().st_size:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, "r").view(np.ndarray)


def release(array):
    """Let go of the memory that an array of a mapped file holds; when it is touched again, it is read again.

    Of an array that is in no file, nothing is let go.
    """
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    start = array.__array_interface__["data"][0] - np.frombuffer(base, np.uint8).__array_interface__["data"][0]
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = start + array.nbytes - first
    if length > 0:
        base.madvise(mmap.MADV_DONTNEED, first, length)
