"""Threads, instruction sets and what this build is.

The C core is linked into this module and no other. Its file name begins with ``fastreg`` because threadpoolctl
finds libraries by their prefix.
"""
import operator
import os
import platform
import sys

import numpy as np


cdef extern from "fastreg.h" nogil:
    void fastreg_elementwise(fastreg_walk *walks, int64_t count)
    void fastreg_items(int kernel, int dtype, const void *args, int64_t n, int64_t per_block, int64_t elements)
    const char *fastreg_roles(int kernel)
    int fastreg_select_isa(const char *cap)
    const char *fastreg_isa()
    const char *fastreg_isa_built(int index)
    const char *fastreg_compiler()
    const char *fastreg_kernel_name(int kernel)
    int fastreg_get_num_threads()
    void fastreg_set_num_threads(int n)
    void fastreg_ignore_cutoffs(int ignore)
    int fastreg_workers_started()
    enum:
        FASTREG_KERNELS


cdef void run_elementwise(fastreg_walk *walks, int64_t count) noexcept nogil:
    fastreg_elementwise(walks, count)


cdef void run_items(
    int kernel, int dtype, const void *args, int64_t n, int64_t per_block, int64_t elements
) noexcept nogil:
    fastreg_items(kernel, dtype, args, n, per_block, elements)


cdef const char *roles_of(int kernel) noexcept nogil:
    return fastreg_roles(kernel)


def set_num_threads(n):
    """Set how many threads a call may use, the calling one included.

    Results do not depend on it, to the last bit. The default is the number of CPUs this process may use, or the
    environment variable ``FASTREG_NUM_THREADS`` where that is set.

    Parameters
    ----------
    n : int
        At least 1. Values above 512 count as 512.

    Raises
    ------
    TypeError
        `n` is not an integer.
    ValueError
        `n` is less than 1.

    Examples
    --------
    >>> import fastreg
    >>> before = fastreg.get_num_threads()
    >>> fastreg.set_num_threads(1)
    >>> fastreg.get_num_threads()
    1
    >>> fastreg.set_num_threads(before)
    """
    if isinstance(n, bool):
        raise TypeError("n: got a bool; an int of at least 1 is allowed")
    try:
        n = operator.index(n)
    except TypeError:
        raise TypeError(f"n: got {type(n).__name__}; an int of at least 1 is allowed") from None
    if n < 1:
        raise ValueError(f"n: got {n}; an int of at least 1 is allowed")
    fastreg_set_num_threads(min(n, 1 << 20))


def get_num_threads():
    """Return how many threads a call may use, the calling one included.

    Returns
    -------
    int

    Examples
    --------
    >>> import fastreg
    >>> fastreg.get_num_threads() >= 1
    True
    """
    return fastreg_get_num_threads()


def isas_built():
    names = []
    while fastreg_isa_built(<int>len(names)) is not NULL:
        names.append(fastreg_isa_built(<int>len(names)).decode())
    return names


def show_config(mode="print"):
    """Say what was built and what runs: the first thing to paste into a bug report.

    Parameters
    ----------
    mode : {"print", "dicts"}
        Print it, or return it.

    Returns
    -------
    None or dict
        With ``mode="dicts"``: ``version``, ``compiler``, ``isas_built``, ``isa`` (in use), ``threads``, ``numpy``,
        ``python``, ``platform``.

    Raises
    ------
    ValueError
        `mode` is neither of the two.

    Examples
    --------
    >>> import fastreg
    >>> config = fastreg.show_config(mode="dicts")
    >>> config["isa"] in config["isas_built"]
    True
    """
    if mode not in ("print", "dicts"):
        raise ValueError(f'mode: got {mode!r}; "print" and "dicts" are allowed')
    config = {
        "version": sys.modules["fastreg"].__version__,
        "compiler": fastreg_compiler().decode(),
        "isas_built": isas_built(),
        "isa": fastreg_isa().decode(),
        "threads": fastreg_get_num_threads(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    if mode == "dicts":
        return config
    width = max(map(len, config))
    for key, value in config.items():
        print(f"{key:<{width}}  {', '.join(value) if isinstance(value, list) else value}")


# ---- for the tests ----------------------------------------------------------------------------------------------

def _use_isa(name):
    """Run on the instruction set `name` from now on; False where this machine lacks it."""
    return fastreg_select_isa(name.encode()) == 0


def _ignore_cutoffs(bint ignore):
    """Make every call of two blocks or more a job of the pool, so that small arrays test it."""
    fastreg_ignore_cutoffs(ignore)


def _workers_started():
    return fastreg_workers_started()


def _kernels():
    """The registry: {name: roles}."""
    return {fastreg_kernel_name(k).decode(): fastreg_roles(k).decode() for k in range(FASTREG_KERNELS)}


# ---- once, at import --------------------------------------------------------------------------------------------

def _configure(environ):
    cap = environ.get("FASTREG_ISA", "")
    answer = fastreg_select_isa(cap.encode())
    if answer == -1:
        raise ImportError(f"FASTREG_ISA: got {cap!r}; baseline, avx2 and avx512 are allowed")
    if answer == -2:
        raise ImportError(f"FASTREG_ISA: {cap!r} is not supported by this machine, or not by this build of fastreg")
    threads = environ.get("FASTREG_NUM_THREADS", "")
    if threads:
        if not (threads.isascii() and threads.isdigit() and int(threads) >= 1):
            raise ImportError(f"FASTREG_NUM_THREADS: got {threads!r}; an integer of at least 1 is allowed")
        set_num_threads(int(threads))


_configure(os.environ)
