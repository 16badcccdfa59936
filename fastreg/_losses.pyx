"""Losses with their gradients, activations and boxes."""
cimport numpy as np
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t
from numpy cimport ndarray

import numpy

from fastreg._arrays cimport (
    INDEX_ORDER, MEMORY_ORDER, as_floating, as_floating_like, as_output, as_output_of, as_type, axis_of, check_broadcasts,
    check_length, check_shape, dtype_of, elementwise, finished, fraction, in_index_order, integer, nonnegative, overlap,
    over_items, positive, viewed,
)
from fastreg.fastreg_runtime cimport FASTREG_CHUNK, FASTREG_F32

np.import_array()


cdef extern from "fastreg.h":
    enum:
        KERNEL_binary_cross_entropy_with_logits
        KERNEL_combine_partials
        KERNEL_cross_entropy
        KERNEL_huber_loss
        KERNEL_l1_loss
        KERNEL_log_softmax
        KERNEL_log_softmax_backward
        KERNEL_mse_loss
        KERNEL_sigmoid
        KERNEL_sigmoid_backward
        KERNEL_smooth_l1_loss
        KERNEL_softmax
        KERNEL_softmax_backward

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

    # sigmoid and sigmoid_backward: operands alone.
    ctypedef struct sigmoid_args:
        const void *x

    ctypedef struct sigmoid_backward_args:
        const void *grad

    # log_softmax and log_softmax_backward have the same.
    ctypedef struct softmax_args:
        const void *x
        void *out
        int64_t width

    ctypedef struct softmax_backward_args:
        const void *grad
        const void *y
        void *out
        int64_t width

    ctypedef struct cross_entropy_args:
        const void *x
        const int64_t *index
        const void *probabilities
        const void *weight
        void *grad
        double *losses
        int64_t width
        int64_t ignore
        double smoothing
        double scale


cdef enum:
    NONE, MEAN, SUM
    # Sums of calls up to this many chunks fit on the stack.
    FEW_PARTIALS = 64
    # Bytes of a gradient from which it is written past the caches: it and two operands as large leave them anyway (measured).
    STREAM_FROM = 1 << 23


# What the parameter of a loss may be at most, and from where on it has a finite reciprocal.
cdef double largest(ndarray X) noexcept:
    return (2.0 - 2.0 ** -23) * 2.0 ** 127 if dtype_of(X) == FASTREG_F32 else (2.0 - 2.0 ** -52) * 2.0 ** 1023


cdef double smallest_normal(ndarray X) noexcept:
    return 2.0 ** -126 if dtype_of(X) == FASTREG_F32 else 2.0 ** -1022


cdef ndarray as_wide_as(ndarray X, ndarray Y):
    """`X`, as float64 where `Y` has another dtype than it."""
    return X if np.PyArray_TYPE(X) == np.PyArray_TYPE(Y) else as_type(X, np.NPY_DOUBLE)


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
    X = as_wide_as(X, Y)
    Y = as_wide_as(Y, X)
    cdef ndarray W = weight_like(weight, X, "weight")
    cdef ndarray E = weight_like(each, X, "pos_weight")
    cdef ndarray G = None
    cdef ndarray L = None
    if param > largest(X):
        raise ValueError(f"{param_name}: got {param}; a number within the range of {(<object>X).dtype} is needed")
    if kernel == KERNEL_smooth_l1_loss and param < smallest_normal(X):
        kernel = KERNEL_l1_loss
    elif kernel == KERNEL_smooth_l1_loss and param == 1:
        kernel = KERNEL_huber_loss  # the same bits for one product less
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


def binary_cross_entropy_with_logits(
    input, target, *, pos_weight=None, weight=None, reduction="mean", bint return_grad=False, out=None,
):
    r"""Binary cross-entropy of logits: p·t·log(1 + e⁻ˣ) + (1 − t)·log(1 + eˣ), for logits x, labels t.

    The negative log likelihood of t under the probability sigmoid(x); the slope by x is (1 − t)·sigmoid(x) −
    p·t·sigmoid(−x), which without `pos_weight` p is sigmoid(x) − t, and has no kink. Computed from exp(−\|x\|), so that no
    logit overflows; an infinite logit on the right side costs 0, and its slope there is 0.

    Parameters
    ----------
    input : array_like
        Logits, any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    target : array_like
        Labels or probabilities in [0, 1], of the shape of `input`.
    pos_weight : array_like, optional
        The weight p of positives, taken in the dtype of the data; broadcasts to `input`.
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
        Summed in double precision, float32 terms after two additions of their own: of terms of one sign, whatever their
        number, a float32 sum is within 2⁻²³ of itself. The mean of no elements is NaN.
    grad : ndarray
        With `return_grad`: of the reduced loss by `input`; with ``reduction="none"``, of each loss by its own element.
        NaN stays NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `target` has another shape than `input`, `weight` or `pos_weight` does not broadcast to it, `reduction` is
        unknown, or `out` has another shape, is read-only, or no result is an array.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> x, t = np.array([-2.0, 0.0, 1000.0]), np.array([0.0, 1.0, 1.0])
    >>> fastreg.binary_cross_entropy_with_logits(x, t, reduction="none").round(4)
    array([0.1269, 0.6931, 0.    ])
    """
    return pass_over(
        KERNEL_binary_cross_entropy_with_logits, 0.0, "param", input, target, pos_weight, weight, reduction, return_grad,
        out,
    )


def huber_loss(
    input, target, *, delta=1.0, weight=None, reduction="mean", bint return_grad=False, out=None,
):
    r"""Huber loss: ½d² where \|d\| < delta, else delta·(\|d\| − ½delta), with d = input − target.

    ½ the squared error for small residuals, but an outlier pulls no harder than delta: the slope by the input is d
    clipped to ±delta, the same from both sides at \|d\| = delta. It is ``delta * smooth_l1_loss(beta=delta)``.

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
        Summed in double precision, float32 terms after two additions of their own: of terms of one sign, whatever their
        number, a float32 sum is within 2⁻²³ of itself. The mean of no elements is NaN.
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
    r"""L1 loss, the absolute error: \|d\| with d = input − target; the slope by the input is sign(d), 0 at the kink d = 0.

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
        Summed in double precision, float32 terms after two additions of their own: of terms of one sign, whatever their
        number, a float32 sum is within 2⁻²³ of itself. The mean of no elements is NaN.
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
    r"""Squared error: d² with d = input − target (no ½); the slope by the input is 2d, without a kink.

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
        Summed in double precision, float32 terms after two additions of their own: of terms of one sign, whatever their
        number, a float32 sum is within 2⁻²³ of itself. The mean of no elements is NaN.
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
    to ±1, the same from both sides at \|d\| = beta. It is ``huber_loss(delta=beta) / beta``, and ``beta=0`` is
    ``l1_loss``, of which the slope at d = 0 is 0.

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
        Summed in double precision, float32 terms after two additions of their own: of terms of one sign, whatever their
        number, a float32 sum is within 2⁻²³ of itself. The mean of no elements is NaN.
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


cdef ndarray rows_of(ndarray X, int axis):
    """`X` with `axis` last, in C order: itself where it is so already."""
    if axis != np.PyArray_NDIM(X) - 1:
        X = numpy.moveaxis(X, axis, -1)
    return in_index_order(X)


cdef ndarray place_of_rows(ndarray Y, int axis, ndarray R, ndarray S):
    """Where to write results for rows R (and S, or None) that are to come to lie in Y: Y itself if it can be."""
    if axis != np.PyArray_NDIM(Y) - 1 or not np.PyArray_ISCARRAY(Y) \
            or overlap(Y, R) and np.PyArray_DATA(Y) != np.PyArray_DATA(R) \
            or S is not None and overlap(Y, S) and np.PyArray_DATA(Y) != np.PyArray_DATA(S):
        return numpy.empty((<object>R).shape, (<object>R).dtype)
    return Y


cdef object rows_to(ndarray place, ndarray Y, int axis, object out):
    if place is not Y:
        numpy.copyto(Y, numpy.moveaxis(place, -1, axis))
    return finished(Y, out)


def cross_entropy(
    input, target, *, weight=None, label_smoothing=0.0, ignore_index=-100, reduction="mean", bint return_grad=False,
    out=None,
):
    r"""Cross-entropy of logits: −Σ_c q_c·log softmax(x)_c, with q the target's probabilities.

    For a class index y, q_c = w_c·((1 − s)·[c = y] + s/C), for probabilities t, q_c = w_c·((1 − s)·t_c + s/C), with class
    weights w and label smoothing s; the gradient by x is (Σ q)·softmax(x) − q, without a kink. A class of which q is 0
    does not count, though its logit be −inf.

    Parameters
    ----------
    input : array_like
        Logits, shape (N, C) or (N, C, d1, …): classes on axis 1.
    target : array_like
        Class indices, integers of shape (N,) or (N, d1, …), or probabilities, floats of the shape of `input`.
    weight : array_like, optional
        A factor for each class, shape (C,), taken in the dtype of the data.
    label_smoothing : float
        The share s of each target that goes to all classes alike, in [0, 1].
    ignore_index : int
        Targets of this index cost nothing and have no gradient.
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides the sum by the summed weights of the target classes (PyTorch's convention), or for
        probabilities by the number of targets.
    return_grad : bool
        Also return the gradient by `input`.
    out : ndarray, optional
        Where to put the array among the results: the gradient of a reduced loss, the losses that are not reduced. It
        may be `input` itself.

    Returns
    -------
    loss : float or ndarray
        Unreduced losses have shape (N,) or (N, d1, …). The mean over no targets is NaN.
    grad : ndarray
        With `return_grad`: of the reduced loss by `input`; with ``reduction="none"``, of each loss by its own logits.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `input` has fewer than two dimensions, `target` another shape, an index is neither in [0, C) nor `ignore_index`,
        `weight` has another shape than (C,), `label_smoothing` is outside [0, 1], or `reduction` or `out` do not fit.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> x = np.array([[2.0, 0.0, 0.0], [0.0, 1000.0, 0.0]])
    >>> fastreg.cross_entropy(x, np.array([0, 1]), reduction="none").round(4)
    array([0.2395, 0.    ])
    """
    cdef cross_entropy_args a
    cdef int how = reduction_of(reduction)
    cdef ndarray X = as_floating(input, "input")
    if np.PyArray_NDIM(X) < 2:
        raise ValueError(f"input: got shape {(<object>X).shape}; (N, C) or (N, C, d1, …) is needed")
    if not isinstance(target, ndarray):
        target = as_indices_or_floating(target)
    cdef bint indices = target.dtype.kind in "iu"
    cdef ndarray P = None
    cdef ndarray Y = None
    cdef ndarray G = None
    cdef ndarray L = None
    cdef ndarray W = None
    cdef ndarray place = None
    cdef tuple shape = (<object>X).shape
    cdef tuple targets = shape[:1] + shape[2:]
    a.smoothing = fraction(label_smoothing, "label_smoothing")
    a.ignore = integer(ignore_index, "ignore_index")
    a.width = np.PyArray_DIM(X, 1)
    if indices:
        if target.shape != targets:
            raise ValueError(f"target: got indices of shape {target.shape}; {targets} is needed")
        Y = in_index_order(target.astype(numpy.int64, copy=False))
    else:
        P = as_floating(target, "target")
        check_shape(P, X, "target", "input")
        X = as_wide_as(X, P)
        P = as_wide_as(P, X)
    if weight is not None:
        W = in_index_order(as_floating_like(weight, X, "weight"))
        check_length(W, a.width, "weight")
    cdef int64_t n = np.PyArray_SIZE(Y) if indices else np.PyArray_SIZE(X) // a.width if a.width else 0
    cdef double counted = check_indices(Y, W, a.width, a.ignore) if indices else <double>n
    if how == NONE:
        L = as_output_of(out, targets, np.PyArray_TYPE(X))
    elif out is not None and not return_grad:
        raise ValueError(f'out: reduction="{reduction}" without return_grad gives no array; out=None is needed')
    cdef ndarray R = rows_of(X, 1)
    if P is not None:
        P = rows_of(P, 1)
    if return_grad:
        G = as_output(None if how == NONE else out, X)
        place = place_of_rows(G, 1, R, None)
        if P is not None and overlap(place, P) or W is not None and overlap(place, W) or Y is not None and overlap(place, Y):
            place = numpy.empty((<object>R).shape, (<object>R).dtype)
    cdef ndarray losses = numpy.empty(targets)
    cdef double total
    cdef combine_partials_args c = [<double *>np.PyArray_DATA(losses), n, counted if how == MEAN else 1.0, &total]
    a.x = np.PyArray_DATA(R)
    a.index = NULL
    if Y is not None:  # in one expression Cython loses the const
        a.index = <const int64_t *>np.PyArray_DATA(Y)
    a.probabilities = NULL if P is None else np.PyArray_DATA(P)
    a.weight = NULL if W is None else np.PyArray_DATA(W)
    a.grad = NULL if place is None else np.PyArray_DATA(place)
    a.losses = <double *>np.PyArray_DATA(losses)
    a.scale = 1.0 / counted if how == MEAN and counted != 0 else 1.0
    over_items(KERNEL_cross_entropy, dtype_of(X), &a, n, rows_per_block(a.width), np.PyArray_SIZE(X))
    if how == NONE:
        numpy.copyto(L, losses, casting="same_kind")
        loss = finished(L, out)
        out = None
    else:
        over_items(KERNEL_combine_partials, 0, &c, 1, 1, 1)
        loss = total
    if return_grad:
        return loss, rows_to(place, G, 1, out)
    return loss


cdef object as_indices_or_floating(object target):
    try:
        a = viewed(target)
        if a.dtype.kind in "iu":
            return a
    except Exception:
        pass  # as_floating says what is wrong with it
    return as_floating(target, "target")


cdef int64_t rows_per_block(int64_t width) noexcept:
    """As many as have the elements of a block of elementwise work."""
    return 1 if width > 8 * FASTREG_CHUNK else 8 * FASTREG_CHUNK // (width if width else 1)


cdef double check_indices(ndarray Y, ndarray W, int64_t width, int64_t ignore) except? -1.0:
    """The summed weights of the target classes, of those that are not ignored."""
    cdef const int64_t *y = <const int64_t *>np.PyArray_DATA(Y)
    cdef int64_t i, n = np.PyArray_SIZE(Y)
    cdef double sum = 0.0
    for i in range(n):
        if y[i] == ignore:
            continue
        if not 0 <= y[i] < width:
            raise ValueError(f"target: got index {y[i]}; [0, {width}) or ignore_index ({ignore}) is allowed")
        if W is None:
            sum += 1.0
        elif np.PyArray_TYPE(W) == np.NPY_FLOAT:
            sum += (<const float *>np.PyArray_DATA(W))[y[i]]
        else:
            sum += (<const double *>np.PyArray_DATA(W))[y[i]]
    return sum


# ---- activations ------------------------------------------------------------------------------------------------

cdef object over_rows(int kernel, object x, object axis, object out):
    cdef softmax_args a
    cdef ndarray X = as_floating(x, "x")
    cdef int k = axis_of(axis, np.PyArray_NDIM(X), "axis")
    cdef ndarray Y = as_output(out, X)
    cdef ndarray R = rows_of(X, k)
    cdef ndarray place = place_of_rows(Y, k, R, None)
    a.x = np.PyArray_DATA(R)
    a.out = np.PyArray_DATA(place)
    a.width = np.PyArray_DIM(X, k)
    cdef int64_t n = np.PyArray_SIZE(X)
    if n:
        over_items(kernel, dtype_of(X), &a, n // a.width, rows_per_block(a.width), n)
    return rows_to(place, Y, k, out)


cdef object over_rows_backward(int kernel, object grad, object y, object axis, object out):
    cdef softmax_backward_args a
    cdef ndarray X = as_floating(grad, "grad")
    cdef ndarray V = as_floating(y, "y")
    check_shape(V, X, "y", "grad")
    X = as_wide_as(X, V)
    V = as_wide_as(V, X)
    cdef int k = axis_of(axis, np.PyArray_NDIM(X), "axis")
    cdef ndarray Y = as_output(out, X)
    cdef ndarray R = rows_of(X, k)
    V = rows_of(V, k)
    cdef ndarray place = place_of_rows(Y, k, R, V)
    a.grad = np.PyArray_DATA(R)
    a.y = np.PyArray_DATA(V)
    a.out = np.PyArray_DATA(place)
    a.width = np.PyArray_DIM(X, k)
    cdef int64_t n = np.PyArray_SIZE(X)
    if n:
        over_items(kernel, dtype_of(X), &a, n // a.width, rows_per_block(a.width), n)
    return rows_to(place, Y, k, out)


def sigmoid(x, *, out=None):
    r"""Logistic function 1/(1 + e⁻ˣ).

    No overflow, and small results keep their precision: within 2.5 ulp for float32 (every one of them was tried), 3 for
    float64, over the whole range, and the same bits on every machine.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    out : ndarray, optional
        Where to put the result: its shape and dtype. It may be an input itself.

    Returns
    -------
    ndarray
        Shape of `x`, in [0, 1]. NaN stays NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `out` has another shape or is read-only.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.sigmoid(np.array([-1000.0, 0.0, 2.0])).round(4)
    array([0.    , 0.5   , 0.8808])
    """
    cdef sigmoid_args a
    cdef ndarray X = as_floating(x, "x")
    cdef ndarray Y = as_output(out, X)
    elementwise(KERNEL_sigmoid, &a, 2 * sizeof(void *), MEMORY_ORDER, X, Y)
    return finished(Y, out)


def sigmoid_backward(grad, y, *, out=None):
    r"""Gradient of `sigmoid` by its input: grad·y·(1 − y).

    Parameters
    ----------
    grad : array_like
        Gradient by the result.
    y : array_like
        The result of the forward pass.
    out : ndarray, optional
        Where to put the result: its shape and dtype. It may be an input itself.

    Returns
    -------
    ndarray
        Shape of `grad`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        The shapes differ, or `out` has another shape or is read-only.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.sigmoid_backward(np.array([1.0]), np.array([0.5]))
    array([0.25])
    """
    cdef sigmoid_backward_args a
    cdef ndarray X = as_floating(grad, "grad")
    cdef ndarray V = as_floating(y, "y")
    check_shape(V, X, "y", "grad")
    X = as_wide_as(X, V)
    V = as_wide_as(V, X)
    cdef ndarray Y = as_output(out, X)
    elementwise(KERNEL_sigmoid_backward, &a, 3 * sizeof(void *), MEMORY_ORDER, X, V, Y)
    return finished(Y, out)


def softmax(x, axis=-1, *, out=None):
    r"""Softmax exp(x − max)/Σ exp(x − max) along an axis.

    No finite input overflows. A row that has a NaN, +inf, or nothing but −inf is NaN. A float32 result of n in a row is
    within (8 + \|x − max\| + log n)·2⁻²⁴ of itself, or half the smallest subnormal: x − max is rounded, which exp makes
    an error of \|x − max\| as large, of the mean term at most log n; exp has two, as has the sum of terms. For float64 it is
    (12 + \|x − max\| + log n + n/64)·2⁻⁵³.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    axis : int
        The axis along which the results are one distribution.
    out : ndarray, optional
        Where to put the result: its shape and dtype. It may be an input itself.

    Returns
    -------
    ndarray
        Shape of `x`; positive, and sums to 1 along `axis`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `axis` does not exist, or `out` has another shape or is read-only.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.softmax(np.array([0.0, np.log(3.0), -np.inf])).round(4)
    array([0.25, 0.75, 0.  ])
    """
    return over_rows(KERNEL_softmax, x, axis, out)


def softmax_backward(grad, y, axis=-1, *, out=None):
    r"""Gradient of `softmax` by its input: y·(grad − Σ grad·y).

    Parameters
    ----------
    grad : array_like
        Gradient by the result.
    y : array_like
        The result of the forward pass.
    axis : int
        The axis along which the results are one distribution.
    out : ndarray, optional
        Where to put the result: its shape and dtype. It may be an input itself.

    Returns
    -------
    ndarray
        Shape of `grad`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `axis` does not exist, the shapes differ, or `out` has another shape or is read-only.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.softmax_backward(np.array([1.0, 0.0]), np.array([0.25, 0.75]))
    array([ 0.1875, -0.1875])
    """
    return over_rows_backward(KERNEL_softmax_backward, grad, y, axis, out)


def log_softmax(x, axis=-1, *, out=None):
    r"""Logarithm of softmax, (x − max) − log Σ exp(x − max), along an axis.

    Unlike the logarithm of `softmax` it keeps its precision where that is small: a float32 result of n in a row errs by
    (5 + log n)·2⁻²⁴ and half an ulp at most, a float64 one by (9 + log n + n/64)·2⁻⁵³ and two ulp of x − max or the
    result. A row that has a NaN, +inf, or nothing but −inf is NaN.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    axis : int
        The axis along which the results are one distribution.
    out : ndarray, optional
        Where to put the result: its shape and dtype. It may be an input itself.

    Returns
    -------
    ndarray
        Shape of `x`; at most 0.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `axis` does not exist, or `out` has another shape or is read-only.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.log_softmax(np.array([0.0, 1000.0]))
    array([-1000.,     0.])
    """
    return over_rows(KERNEL_log_softmax, x, axis, out)


def log_softmax_backward(grad, y, axis=-1, *, out=None):
    r"""Gradient of `log_softmax` by its input: grad − exp(y)·Σ grad.

    Parameters
    ----------
    grad : array_like
        Gradient by the result.
    y : array_like
        The result of the forward pass.
    axis : int
        The axis along which the results are one distribution.
    out : ndarray, optional
        Where to put the result: its shape and dtype. It may be an input itself.

    Returns
    -------
    ndarray
        Shape of `grad`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `axis` does not exist, the shapes differ, or `out` has another shape or is read-only.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.log_softmax_backward(np.array([1.0, 0.0]), np.log(np.array([0.25, 0.75]))).round(4)
    array([ 0.75, -0.75])
    """
    return over_rows_backward(KERNEL_log_softmax_backward, grad, y, axis, out)
