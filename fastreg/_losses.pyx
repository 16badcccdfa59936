"""Losses with their gradients, activations and boxes."""
cimport numpy as np
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t
from numpy cimport ndarray

from fastreg._arrays cimport (
    INDEX_ORDER, MEMORY_ORDER, as_floating, as_floating_like, as_output, as_type, check_broadcasts, check_shape,
    dtype_of, elementwise, finished, nonnegative, overlap, over_items,
)
from fastreg.fastreg_runtime cimport FASTREG_CHUNK, FASTREG_F32

np.import_array()


cdef extern from "fastreg.h":
    enum:
        KERNEL_combine_partials
        KERNEL_huber_loss
        KERNEL_l1_loss
        KERNEL_mse_loss
        KERNEL_smooth_l1_loss

    ctypedef struct combine_partials_args:
        const double *partials
        int64_t count
        double divisor
        double *total

    # Every elementwise loss has these arguments.
    ctypedef struct smooth_l1_loss_args:
        double *partials
        double param
        double cap
        double scale
        int stream


cdef enum:
    NONE, MEAN, SUM
    # Sums of calls up to this many chunks fit on the stack.
    FEW_PARTIALS = 64
    # Bytes of a gradient from which it is written past the caches (measured).
    STREAM_FROM = 1 << 24


# What the parameter of a loss may be at most, and from where on it has a finite reciprocal.
cdef double largest(ndarray X) noexcept:
    return (2.0 - 2.0 ** -23) * 2.0 ** 127 if dtype_of(X) == FASTREG_F32 else (2.0 - 2.0 ** -52) * 2.0 ** 1023


cdef double smallest_normal(ndarray X) noexcept:
    return 2.0 ** -126 if dtype_of(X) == FASTREG_F32 else 2.0 ** -1022


cdef int reduction_of(object reduction) except -1:
    if reduction == "mean":
        return MEAN
    if reduction == "sum":
        return SUM
    if reduction == "none":
        return NONE
    raise ValueError(f'reduction: got {reduction!r}; "none", "mean" and "sum" are allowed')


cdef ndarray weight_like(object weight, ndarray X, str name):
    if weight is None:
        return None
    cdef ndarray W = as_floating_like(weight, X, name)
    check_broadcasts(W, X, name, "input")
    return W


cdef object pass_over(
    int kernel, double param, str param_name, object input, object target, object each, object weight, object reduction,
    bint return_grad, object out,
):
    """What every elementwise loss does but for its formula, which is `kernel`."""
    cdef smooth_l1_loss_args a
    cdef int how = reduction_of(reduction)
    cdef ndarray X = as_floating(input, "input")
    cdef ndarray Y = as_floating(target, "target")
    check_shape(Y, X, "target", "input")
    if np.PyArray_TYPE(X) != np.PyArray_TYPE(Y):
        X = as_type(X, np.NPY_DOUBLE)
        Y = as_type(Y, np.NPY_DOUBLE)
    cdef ndarray W = weight_like(weight, X, "weight")
    cdef ndarray E = weight_like(each, X, "pos_weight")
    cdef ndarray G = None
    cdef ndarray L = None
    if param > largest(X):
        raise ValueError(f"{param_name}: got {param}; a number within the range of {(<object>X).dtype} is needed")
    if kernel == KERNEL_smooth_l1_loss and param < smallest_normal(X):
        kernel = KERNEL_l1_loss
    a.param = param
    a.cap = 1.0
    a.partials = NULL
    a.stream = False
    if how == NONE:
        a.scale = 1.0
        L = as_output(out, X)
        if not return_grad:
            elementwise(kernel, &a, sizeof(a), MEMORY_ORDER, X, Y, W, E, G, L)
            return finished(L, out)
        G = as_output(None, X)
        elementwise(kernel, &a, sizeof(a), MEMORY_ORDER, X, Y, W, E, G, L)
        return finished(L, out), finished(G, None)

    if return_grad:
        G = as_output(out, X)
        # Where the gradient replaces an operand its memory is in the cache already.
        a.stream = np.PyArray_NBYTES(G) >= STREAM_FROM and np.PyArray_IS_C_CONTIGUOUS(G) \
            and not overlap(G, X) and not overlap(G, Y)
    elif out is not None:
        raise ValueError(f'out: reduction="{reduction}" without return_grad gives no array; out=None is needed')
    cdef double few[FEW_PARTIALS]
    cdef int64_t n = np.PyArray_SIZE(X)
    cdef int64_t chunks = (n + FASTREG_CHUNK - 1) // FASTREG_CHUNK
    a.partials = few
    if chunks > FEW_PARTIALS:
        a.partials = <double *>PyMem_Malloc(chunks * sizeof(double))
        if a.partials is NULL:
            raise MemoryError
    a.scale = 1.0 / n if how == MEAN and n else 1.0
    cdef double total
    cdef combine_partials_args c = [a.partials, chunks, <double>n if how == MEAN else 1.0, &total]
    try:
        elementwise(kernel, &a, sizeof(a), INDEX_ORDER, X, Y, W, E, G, L)
        over_items(KERNEL_combine_partials, 0, &c, 1, 1, 1)
    finally:
        if a.partials is not few:
            PyMem_Free(a.partials)
    if return_grad:
        return total, finished(G, out)
    return total


cdef double positive(object value, str name) except? -1.0:
    cdef double v = nonnegative(value, name)
    if v == 0:
        raise ValueError(f"{name}: got {v}; a number > 0 is allowed")
    return v


def huber_loss(
    input, target, *, delta=1.0, weight=None, reduction="mean", bint return_grad=False, out=None,
):
    r"""Huber loss: ½d² where \|d\| < delta, else delta·(\|d\| − ½delta), with d = input − target.

    ½ the squared error for small residuals, but an outlier pulls no harder than delta: the slope by the input is d
    clipped to ±delta. It is ``delta * smooth_l1_loss(beta=delta)``.

    Parameters
    ----------
    input, target : array_like
        Arrays of one shape. float32 and float64 are kept (float64 if they differ), float16 is computed as float32,
        bool and integers as float64.
    delta : float
        Where the loss turns from quadratic to linear, in the units of `input`; > 0 and finite in their dtype.
    weight : array_like, optional
        Factors of the unreduced losses, taken in their dtype; broadcasts to `input`.
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides the sum by the number of elements, whatever the weights are.
    return_grad : bool
        Also return the gradient by `input`, from the same pass over memory.
    out : ndarray, optional
        Where to put the array among the results: the gradient of a reduced loss, the losses that are not reduced. It
        may be `input` or `target` itself.

    Returns
    -------
    loss : float or ndarray
        Terms of either dtype are summed in double precision. The mean of no elements is NaN.
    grad : ndarray
        With `return_grad`: of the reduced loss by `input`; with ``reduction="none"``, of each loss by its own element.
        NaN stays NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `target` has another shape than `input`, `weight` does not broadcast to it, `delta` is not positive, or too large,
        `reduction` is unknown, or `out`
        has another shape, is read-only, or no result is an array.

    References
    ----------
    .. [1] P. J. Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 35, 1964.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> loss, grad = fastreg.huber_loss(np.array([0.5, 4.0]), np.zeros(2), delta=2.0, return_grad=True)
    >>> loss  # (0.125 + 6) / 2
    3.0625
    >>> grad
    array([0.25, 1.  ])
    """
    return pass_over(KERNEL_huber_loss, positive(delta, "delta"), "delta", input, target, None, weight, reduction, return_grad, out)


def l1_loss(
    input, target, *, weight=None, reduction="mean", bint return_grad=False, out=None,
):
    r"""L1 loss, the absolute error: \|d\| with d = input − target.

    Its minimiser is the median, which an outlier does not move; its slope does not fade near the minimum.

    Parameters
    ----------
    input, target : array_like
        Arrays of one shape. float32 and float64 are kept (float64 if they differ), float16 is computed as float32,
        bool and integers as float64.
    weight : array_like, optional
        Factors of the unreduced losses, taken in their dtype; broadcasts to `input`.
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides the sum by the number of elements, whatever the weights are.
    return_grad : bool
        Also return the gradient by `input`, from the same pass over memory.
    out : ndarray, optional
        Where to put the array among the results: the gradient of a reduced loss, the losses that are not reduced. It
        may be `input` or `target` itself.

    Returns
    -------
    loss : float or ndarray
        Terms of either dtype are summed in double precision. The mean of no elements is NaN.
    grad : ndarray
        With `return_grad`: of the reduced loss by `input`; with ``reduction="none"``, of each loss by its own element.
        At d = 0 it is 0. NaN stays NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `target` has another shape than `input`, `weight` does not broadcast to it, `reduction` is unknown, or `out`
        has another shape, is read-only, or no result is an array.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.l1_loss(np.array([1.0, -2.0]), np.array([0.0, 2.0]), return_grad=True)
    (2.5, array([ 0.5, -0.5]))
    """
    return pass_over(KERNEL_l1_loss, 0.0, "param", input, target, None, weight, reduction, return_grad, out)


def mse_loss(
    input, target, *, weight=None, reduction="mean", bint return_grad=False, out=None,
):
    r"""Squared error: d² with d = input − target (no ½); the slope by the input is 2d.

    Its minimiser is the mean, and an outlier's pull grows with its distance.

    Parameters
    ----------
    input, target : array_like
        Arrays of one shape. float32 and float64 are kept (float64 if they differ), float16 is computed as float32,
        bool and integers as float64.
    weight : array_like, optional
        Factors of the unreduced losses, taken in their dtype; broadcasts to `input`.
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides the sum by the number of elements, whatever the weights are.
    return_grad : bool
        Also return the gradient by `input`, from the same pass over memory.
    out : ndarray, optional
        Where to put the array among the results: the gradient of a reduced loss, the losses that are not reduced. It
        may be `input` or `target` itself.

    Returns
    -------
    loss : float or ndarray
        Terms of either dtype are summed in double precision. The mean of no elements is NaN.
    grad : ndarray
        With `return_grad`: of the reduced loss by `input`; with ``reduction="none"``, of each loss by its own element.
        NaN stays NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `target` has another shape than `input`, `weight` does not broadcast to it, `reduction` is unknown, or `out`
        has another shape, is read-only, or no result is an array.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.mse_loss(np.array([1.0, -2.0]), np.array([0.0, 2.0]), return_grad=True)
    (8.5, array([ 1., -4.]))
    """
    return pass_over(KERNEL_mse_loss, 0.0, "param", input, target, None, weight, reduction, return_grad, out)


def smooth_l1_loss(
    input, target, *, beta=1.0, weight=None, reduction="mean", bint return_grad=False, out=None,
):
    r"""Smooth L1 loss: ½d²/beta where \|d\| < beta, else \|d\| − ½beta, with d = input − target.

    Squared error for small residuals, but an outlier pulls no harder than 1: the slope by the input is d/beta, clipped
    to ±1. It is ``huber_loss(delta=beta) / beta``, and ``beta=0`` is ``l1_loss``.

    Parameters
    ----------
    input, target : array_like
        Arrays of one shape. float32 and float64 are kept (float64 if they differ), float16 is computed as float32,
        bool and integers as float64.
    beta : float
        Where the loss turns from quadratic to linear, in the units of `input`; >= 0 and finite in their dtype.
        One below its smallest normal number counts as 0.
    weight : array_like, optional
        Factors of the unreduced losses, taken in their dtype; broadcasts to `input`.
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides the sum by the number of elements, whatever the weights are.
    return_grad : bool
        Also return the gradient by `input`, from the same pass over memory.
    out : ndarray, optional
        Where to put the array among the results: the gradient of a reduced loss, the losses that are not reduced. It
        may be `input` or `target` itself.

    Returns
    -------
    loss : float or ndarray
        Terms of either dtype are summed in double precision. The mean of no elements is NaN.
    grad : ndarray
        With `return_grad`: of the reduced loss by `input`; with ``reduction="none"``, of each loss by its own element.
        At a kink (d = 0 where beta = 0) it is 0. NaN stays NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `target` has another shape than `input`, `weight` does not broadcast to it, `beta` is negative, NaN or too large,
        `reduction` is unknown, or `out` has another shape, is read-only, or no result is an array.

    References
    ----------
    .. [1] R. Girshick, "Fast R-CNN", ICCV 2015.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> loss, grad = fastreg.smooth_l1_loss(np.array([0.5, 4.0]), np.zeros(2), return_grad=True)
    >>> loss  # (0.125 + 3.5) / 2
    1.8125
    >>> grad
    array([0.25, 0.5 ])
    """
    return pass_over(
        KERNEL_smooth_l1_loss, nonnegative(beta, "beta"), "beta", input, target, None, weight, reduction, return_grad, out,
    )

