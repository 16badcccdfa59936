"""Thresholds, proximal operators and projections."""
cimport numpy as np
from numpy cimport ndarray

from fastreg._arrays cimport MEMORY_ORDER, as_floating, as_output, elementwise, finished, nonnegative_each

np.import_array()


cdef extern from "fastreg.h":
    enum:
        KERNEL_soft_threshold

    ctypedef struct soft_threshold_args:
        double lam


def soft_threshold(x, lam, *, out=None):
    r"""Soft threshold, sign(x)·max(\|x\| − lam, 0).

    The proximal operator of lam·‖x‖₁: it shrinks every element towards zero by `lam`, and those within `lam` of
    zero become exactly +0.0. This is how an L1 penalty gives weights that are exactly zero; its subgradient never
    does.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    lam : float or array_like
        The threshold, >= 0; an array that broadcasts to `x` gives each element, or feature, its own. Taken in the
        dtype of `x`.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. NaN stays NaN, ±inf stays ±inf for finite `lam`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `lam` is negative or NaN, does not broadcast to `x`, or `out` has another shape than `x` or is read-only.

    References
    ----------
    .. [1] D. L. Donoho, "De-noising by soft-thresholding", IEEE Transactions on Information Theory 41, 1995.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.soft_threshold(np.array([-3.0, -0.5, 0.0, 1.0, 2.5]), 1.0)
    array([-2. ,  0. ,  0. ,  0. ,  1.5])
    """
    cdef soft_threshold_args a
    cdef ndarray X = as_floating(x, "x")
    cdef ndarray L = nonnegative_each(lam, X, "lam", &a.lam)
    cdef ndarray Y = as_output(out, X)
    elementwise(KERNEL_soft_threshold, &a, sizeof(a), MEMORY_ORDER, X, L, Y)
    return finished(Y, out)
