"""The same values in every memory layout that a user can hold."""

import ctypes
import mmap
import sys
from collections.abc import Callable

import numpy as np

MPROTECT = None if sys.platform == "win32" else ctypes.CDLL(None).mprotect


def _into(view: np.ndarray, x: np.ndarray) -> np.ndarray:
    view[...] = x
    return view


def fortran(x):
    return np.array(x, order="F")


def permuted(x):
    """The axes in another order in memory, neither C nor F for three axes and more."""
    axes = np.roll(np.arange(x.ndim), 1)
    return _into(np.empty(np.array(x.shape, int)[axes], x.dtype).transpose(np.argsort(axes)), x)


def exchanged(x):
    """The first two axes in the other order in memory, the last one contiguous: where arrays are too large for all."""
    return x.swapaxes(0, 1).copy().swapaxes(0, 1) if x.ndim > 1 else x


def negative(x):
    flip = (..., *(slice(None, None, -1),) * x.ndim)
    return _into(np.empty_like(x)[flip], x)


def stepped(x):
    step = (..., *(slice(None, None, 2),) * x.ndim)
    return _into(np.full([2 * n for n in x.shape], 7, x.dtype)[step], x)


def misaligned(x):
    memory = np.empty(x.nbytes + 1, np.uint8)[1:]
    return _into(np.ndarray(x.shape, x.dtype, memory), x)


def offset(x):
    """Aligned to its items, to no vector register."""
    return _into(np.empty(x.size + 1, x.dtype)[1:].reshape(x.shape), x)


def swapped(x):
    return x.astype(x.dtype.newbyteorder("S"))


def new_axis(x):
    """A view through an axis that was added and taken away again."""
    return _into(np.empty_like(x)[..., np.newaxis], x[..., np.newaxis])[..., 0]


def fenced(x):
    """The memory behind its last byte cannot be touched: reads and writes beyond an array end the process."""
    size = -(-x.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    fence = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + size
    if MPROTECT:
        assert MPROTECT(ctypes.c_void_p(fence), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    inside = np.frombuffer(memory, np.uint8)[size - x.nbytes : size]
    return _into(inside.view(x.dtype).reshape(x.shape), x)


# Arrays that are updated in place may be any of these; byte-swapped ones are refused.
NATIVE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    f.__name__: f for f in (fortran, permuted, negative, stepped, misaligned, offset, new_axis, fenced)
}
LAYOUTS = NATIVE | {"swapped": swapped}
