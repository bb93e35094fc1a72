"""Arrays in files: mapped read-only, read when touched, and released after use.

They may be larger than memory. This module does not know what they hold.
"""

import mmap
import os

import numpy as np


def map_array(path, dtype):
    """Return a file's content as a read-only one-dimensional array; nothing is read before it is touched."""
    if not path.stat().st_size:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, "r").view(np.ndarray)


def read_only(array):
    """Return a read-only view: arrays in memory and in files then share one compiled function."""
    array = array.view()
    array.flags.writeable = False
    return array


def locate(array):
    """Return (path, byte offset) of a contiguous array in a mapped file; None for any other array."""
    base = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    if not isinstance(base, np.memmap) or not array.flags.c_contiguous or not array.size:
        return None
    start = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return os.path.realpath(base.filename), base.offset + start


def map_again(path, offset, dtype, shape):
    """Map an array that `locate` found, in any process that sees the file."""
    return np.memmap(path, dtype, "r", offset, shape).view(np.ndarray)


def release(array):
    """Release the memory of an array in a mapped file; when it is touched again, it is read again.

    An array in no file keeps its memory.
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
