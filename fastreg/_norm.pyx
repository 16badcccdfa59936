"""Normalisation: subtract a mean, divide by a standard deviation, scale and shift."""
from libc.stdint cimport int64_t, intptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset
cimport numpy as np
from numpy cimport ndarray

import numpy

from fastreg._arrays cimport (
    apart_from, as_floating, as_floating_like, as_output, as_slices, as_state, axis_of, check_disjoint, check_length,
    check_shape, dtype_of, finished, fraction, in_index_order, nonnegative, over_items, overlap,
)
from fastreg.fastreg_runtime cimport fastreg_slices

np.import_array()


cdef extern from "fastreg.h":
    enum:
        NORM_BLOCK
        NORM_ROWS
        NORM_TILE
        NORM_GROUP
        NORM_SHORT
        KERNEL_batch_norm
        KERNEL_batch_norm_start
        KERNEL_batch_norm_sums
        KERNEL_batch_norm_finish
        KERNEL_batch_norm_apply
        KERNEL_batch_norm_backward
        KERNEL_batch_norm_backward_start
        KERNEL_batch_norm_backward_sums
        KERNEL_batch_norm_backward_finish
        KERNEL_batch_norm_backward_apply

    ctypedef struct batch_norm_args:
        const fastreg_slices *x
        const fastreg_slices *out
        const void *weight
        const void *bias
        void *running_mean
        void *running_var
        intptr_t running_mean_stride
        intptr_t running_var_stride
        void *mean
        void *rstd
        void *hi
        void *lo
        void *scale
        void *shift
        double *provisional
        double *sums
        unsigned char *pending
        double momentum
        double eps
        int64_t count
        int64_t width
        int64_t blocks
        int columns
        int training
        int relu
        int stream
        int wide
        int last_pass

    ctypedef struct batch_norm_step_args "batch_norm_sums_args":
        const batch_norm_args *job

    ctypedef struct batch_norm_backward_args:
        const fastreg_slices *x
        const fastreg_slices *grad
        const fastreg_slices *out
        const void *mean
        const void *rstd
        const void *weight
        const void *bias
        void *grad_weight
        void *grad_bias
        void *hi
        void *lo
        void *scale
        void *shift
        void *g_hi
        void *g_lo
        void *slope
        double *sums
        int64_t count
        int64_t width
        int64_t blocks
        int columns
        int training
        int relu
        int stream
        int only_mean

    ctypedef struct batch_norm_backward_step_args "batch_norm_backward_sums_args":
        const batch_norm_backward_args *job


# A slice that fits in the second-level cache beside its result is read from memory once.
cdef enum:
    CACHED = 1 << 20  # bytes
    # Runs shorter than this are not worth reading on their own: a sweep through all channels for the statistics and
    # another for the result is faster, though it reads twice.
    LONG_RUN = 1 << 12  # bytes
    # Where the result is larger than the caches, it goes past them.
    STREAM_FROM = 1 << 24  # bytes
    STREAM_RUN = 1 << 11
    TASK = 1 << 14  # elements worth handing to a thread


cdef int relu_of(object activation) except -1:
    if activation is None:
        return 0
    if isinstance(activation, str) and activation == "relu":
        return 1
    raise ValueError(f'activation: got {activation!r}; None and "relu" are allowed')


cdef ndarray per_channel(object values, int64_t channels, ndarray x, str name):
    """None, or a contiguous vector of a value for each channel in the dtype of x."""
    if values is None:
        return None
    cdef ndarray v = as_floating_like(values, x, name)
    check_length(v, channels, name)
    return in_index_order(v)


cdef inline const void *data_of(ndarray x) noexcept:
    return NULL if x is None else np.PyArray_DATA(x)


cdef ndarray new_vector(int64_t length, ndarray like):
    cdef np.npy_intp n = length
    return np.PyArray_EMPTY(1, &n, np.PyArray_TYPE(like), 0)




cdef int64_t ceil_div(int64_t a, int64_t b) noexcept:
    return (a + b - 1) // b


cdef int64_t inner_of(ndarray x, int axis) noexcept:
    cdef int d
    cdef int64_t inner = 1
    for d in range(axis + 1, np.PyArray_NDIM(x)):
        inner *= np.PyArray_DIM(x, d)
    return inner


cdef void channel_slices(fastreg_slices *s, ndarray x, int axis, bint columns) noexcept:
    as_slices(
        s, x, <const intptr_t *>np.PyArray_DIMS(x), <const intptr_t *>np.PyArray_STRIDES(x), np.PyArray_NDIM(x), axis,
        not columns,
    )


cdef int64_t blocks_of(fastreg_slices *s, bint columns) noexcept:
    """As norm.inc cuts a channel."""
    if columns:
        return ceil_div(s.outer, NORM_ROWS)
    if s.inner > NORM_BLOCK:
        return s.outer * ceil_div(s.inner, NORM_BLOCK)
    return ceil_div(s.outer, NORM_BLOCK // s.inner)


cdef int sum_blocks(int kernel, int dtype, const void *step, fastreg_slices *s, bint columns, int64_t blocks, int64_t size) except -1:
    cdef int64_t tiles = ceil_div(s.inner, NORM_TILE) if columns else ceil_div(s.channels, NORM_GROUP)
    return over_items(kernel, dtype, step, blocks * tiles, 1, size)


cdef int apply(int kernel, int dtype, const void *step, fastreg_slices *s, bint columns, int64_t size) except -1:
    cdef int64_t items = s.outer, each = s.inner
    if not columns:
        items = s.outer * s.channels * ceil_div(s.inner, NORM_BLOCK)
        each = min(s.inner, <int64_t>NORM_BLOCK)
    return over_items(kernel, dtype, step, items, max(<int64_t>1, TASK // each), size)


cdef bint one_pass(fastreg_slices *s, int64_t channel_bytes, int64_t size) noexcept:
    """Whether channels are items of one kernel: each fits in the cache, its runs are long, and there are enough of them
    for the threads; or the work is too small for threads."""
    return channel_bytes <= CACHED and s.channels >= 16 and s.inner * s.itemsize >= LONG_RUN or size <= 2 * TASK


cdef bint streams(fastreg_slices *out, ndarray y) noexcept:
    return out.direct and np.PyArray_NBYTES(y) >= STREAM_FROM and out.inner * out.itemsize >= STREAM_RUN


def batch_norm(
    x, running_mean=None, running_var=None, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5, axis=1,
    activation=None, out=None, return_stats=False,
):
    r"""Batch normalisation, y = (x − mean)/√(var + eps)·weight + bias, a channel at a time.

    In training, mean and (population) variance are those of the batch, over all axes but the channels', and the
    running arrays move towards them. Otherwise the running arrays are the statistics.

    Parameters
    ----------
    x : array_like
        (N, C, …), or channels-last with ``axis=-1``. float32 and float64 are kept, float16 is computed as float32,
        bool and integers as float64.
    running_mean, running_var : ndarray of shape (C,), optional
        In training each that is given is updated in place, r ← (1 − momentum)·r + momentum·new, and must have the
        dtype of the result; the new variance is the unbiased one, n/(n − 1)·var. Without `training` both are needed
        and are only read. An empty batch leaves them alone.
    weight, bias : array_like of shape (C,), optional
        Scale and shift; 1 and 0 where absent. Taken in the dtype of `x`.
    training : bool, optional
        Normalise by the statistics of the batch.
    momentum : float in [0, 1], optional
        The weight of the new value, PyTorch's convention: Keras's and ONNX's 0.9, the weight of the old one, is 0.1
        here.
    eps : float >= 0, optional
        Added to the variance.
    axis : int, optional
        The axis of the channels.
    activation : {None, "relu"}, optional
        "relu" fuses max(y, 0); NaN stays NaN.
    out : ndarray, optional
        Where to put y: shape of `x` and dtype of the result. It may be `x` itself.
    return_stats : bool, optional
        Return (y, mean, rstd), what the backward pass needs; rstd = 1/√(var + eps).

    Returns
    -------
    ndarray, or tuple of ndarray
        y, of the shape of `x`; with `return_stats` also mean and rstd of shape (C,).

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric; a running array cannot be updated; `out` has another dtype
        than the result.
    ValueError
        A shape does not fit, no running arrays without `training`, one value a channel in training, an unknown
        activation, `momentum` outside [0, 1], `eps` negative or NaN. Nothing has been changed then.

    Notes
    -----
    The variance is summed in double from a provisional mean that lies near the mean, so it neither cancels nor becomes
    negative; a mean of 10⁶ standard deviations costs no accuracy. A constant channel gives exactly the bias (for
    eps > 0).

    References
    ----------
    .. [1] S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal
       covariate shift", ICML 2015.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> fastreg.batch_norm(x, training=True, eps=0)
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> mean, var = np.zeros(2), np.ones(2)
    >>> y = fastreg.batch_norm(x, mean, var, training=True)
    >>> mean
    array([0.2, 2. ])
    >>> fastreg.batch_norm(x, mean, var).shape
    (2, 2)
    """
    cdef batch_norm_args a
    cdef batch_norm_step_args step
    cdef fastreg_slices x_slices, out_slices
    cdef ndarray X = as_floating(x, "x")
    cdef int channel_axis = axis_of(axis, np.PyArray_NDIM(X), "axis")
    cdef int64_t channels = np.PyArray_DIM(X, channel_axis), size = np.PyArray_SIZE(X), columns, item
    cdef ndarray W = per_channel(weight, channels, X, "weight"), B = per_channel(bias, channels, X, "bias")
    cdef ndarray M = None, R = None, RM = None, RV = None
    cdef int dtype = dtype_of(X)
    cdef bint stats = return_stats
    cdef char *work
    a.training = bool(training)
    a.momentum = fraction(momentum, "momentum")
    a.eps = nonnegative(eps, "eps")
    a.relu = relu_of(activation)
    if stats or a.training:
        M, R = new_vector(channels, X), new_vector(channels, X)
    a.running_mean_stride = a.running_var_stride = 0
    if a.training:
        if size == channels and size:
            raise ValueError(
                "x: got one value a channel, whose variance is 0; more are needed in training: use eval mode "
                "(training=False), layer_norm or group_norm"
            )
        if running_mean is not None:
            RM = as_state(running_mean, M, "running_mean")
            a.running_mean_stride = np.PyArray_STRIDE(RM, 0)
        if running_var is not None:
            RV = as_state(running_var, M, "running_var")
            a.running_var_stride = np.PyArray_STRIDE(RV, 0)
    else:
        RM = per_channel(running_mean, channels, X, "running_mean")
        RV = per_channel(running_var, channels, X, "running_var")
        if RM is None or RV is None:
            raise ValueError(
                f"running_{'mean' if RM is None else 'var'}: got None; eval mode (training=False) normalises by running "
                "statistics: pass both, or training=True, or use layer_norm or group_norm"
            )
    cdef ndarray Y = as_output(out, X)
    if a.training:
        if RM is not None and RV is not None:
            check_disjoint(RM, RV, "running_mean", "running_var")
        for name, state in (("running_mean", RM), ("running_var", RV)):
            if state is not None:
                check_disjoint(state, Y, name, "out")
                X = apart(X, state)
                W = apart(W, state)
                B = apart(B, state)
    X = apart_from(X, Y)
    W = apart(W, Y)
    B = apart(B, Y)
    if not a.training:
        RM = apart(RM, Y)
        RV = apart(RV, Y)
    if size == 0 and (a.training or not stats):
        if stats:
            (<object>M).fill(numpy.nan)
            (<object>R).fill(numpy.nan)
            return finished(Y, out), M, R
        return finished(Y, out)

    a.columns = inner_of(X, channel_axis) < NORM_SHORT
    channel_slices(&x_slices, X, channel_axis, a.columns)
    channel_slices(&out_slices, Y, channel_axis, a.columns)
    a.x = &x_slices
    a.out = &out_slices
    # No elements: the statistics are asked for nevertheless.
    columns = x_slices.inner if a.columns and size else channels
    a.width = columns // channels if channels else 1
    a.count = size // channels if channels else 0
    a.blocks = blocks_of(&x_slices, a.columns) if size else 0
    a.stream = streams(&out_slices, Y)
    a.wide = a.last_pass = 0
    a.weight = data_of(W)
    a.bias = data_of(B)
    a.running_mean = <void *>data_of(RM)
    a.running_var = <void *>data_of(RV)
    step.job = &a

    item = np.PyArray_ITEMSIZE(X)
    work = <char *>malloc(<size_t>(8 * columns * (1 + 2 * a.blocks) * a.training + 4 * item * columns + (2 * item + 1) * channels + 1))
    if work is NULL:
        raise MemoryError()
    try:
        a.provisional = <double *>work
        a.sums = a.provisional + columns * a.training
        a.hi = a.sums + 2 * columns * a.blocks * a.training
        a.lo = <char *>a.hi + item * columns
        a.scale = <char *>a.lo + item * columns
        a.shift = <char *>a.scale + item * columns
        a.mean = <char *>a.shift + item * columns
        a.rstd = <char *>a.mean + item * channels
        a.pending = <unsigned char *>a.rstd + item * channels
        if M is not None:
            a.mean = np.PyArray_DATA(M)
            a.rstd = np.PyArray_DATA(R)
        if a.training and not a.columns and one_pass(&x_slices, a.count * item, size):
            over_items(KERNEL_batch_norm, dtype, &a, channels, max(<int64_t>1, channels // 16), size)
        else:
            if a.training:
                memset(a.pending, 1, <size_t>channels)
                over_items(KERNEL_batch_norm_start, dtype, &step, channels, 1024, columns * 8)
                for turn in range(3):
                    a.wide = turn > 0
                    a.last_pass = turn == 2
                    sum_blocks(KERNEL_batch_norm_sums, dtype, &step, &x_slices, a.columns, a.blocks, size)
                    finish(KERNEL_batch_norm_finish, dtype, &step, channels, a.width, a.blocks)
                    if not any_of(a.pending, channels):
                        break
            else:
                finish(KERNEL_batch_norm_finish, dtype, &step, channels, a.width, 1)
            if size:
                apply(KERNEL_batch_norm_apply, dtype, &step, &x_slices, a.columns, size)
    finally:
        free(work)
    if stats:
        return finished(Y, out), M, R
    return finished(Y, out)


cdef ndarray apart(ndarray x, ndarray written):
    """`x`, or a copy where it shares memory with what is written."""
    if x is not None and overlap(x, written):
        return np.PyArray_NewCopy(x, np.NPY_KEEPORDER)
    return x


cdef bint any_of(const unsigned char *flags, int64_t n) noexcept:
    cdef int64_t i
    for i in range(n):
        if flags[i]:
            return True
    return False


cdef int finish(int kernel, int dtype, const void *step, int64_t channels, int64_t width, int64_t blocks) except -1:
    return over_items(
        kernel, dtype, step, channels, max(<int64_t>1, min(NORM_TILE // width, TASK // (width * blocks))),
        channels * width * blocks,
    )


def batch_norm_backward(grad, x, mean, rstd, weight=None, *, bias=None, axis=1, activation=None, training=True):
    r"""The gradients of `batch_norm`; with g = grad and x̂ = (x − mean)·rstd, sums over all but the channels:

        grad_bias = Σ g,    grad_weight = Σ g·x̂
        grad_x = weight·rstd·(g − grad_bias/n − x̂·grad_weight/n)

    The last two terms are the way through mean and variance; without `training` those are constants and grad_x is
    weight·rstd·g.

    Parameters
    ----------
    grad : array_like
        The gradient by y: shape of `x`. Taken in the dtype of `x`.
    x : array_like
        The input of the forward pass. Only it, `mean` and `rstd` are kept between the passes.
    mean, rstd : array_like of shape (C,)
        What the forward pass returned with ``return_stats=True``. What rounding took from a mean is found again from
        `x` in training.
    weight : array_like of shape (C,), optional
        As in the forward pass.
    bias : array_like of shape (C,), optional
        As in the forward pass; only the fused ReLU depends on it.
    axis : int, optional
        The axis of the channels.
    activation : {None, "relu"}, optional
        As in the forward pass: where y was not positive, g is 0.
    training : bool, optional
        As in the forward pass.

    Returns
    -------
    grad_x : ndarray
        Shape of `x`.
    grad_weight, grad_bias : ndarray of shape (C,)
        Given also where the forward pass had no weight or bias.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric.
    ValueError
        A shape does not fit, or the activation is unknown.

    References
    ----------
    .. [1] S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal
       covariate shift", ICML 2015, section 3.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0]])
    >>> y, mean, rstd = fastreg.batch_norm(x, training=True, return_stats=True)
    >>> grad_x, grad_weight, grad_bias = fastreg.batch_norm_backward(np.ones_like(x), x, mean, rstd)
    >>> grad_bias
    array([3., 3.])
    """
    cdef batch_norm_backward_args a
    cdef batch_norm_backward_step_args step
    cdef fastreg_slices x_slices, grad_slices, out_slices
    cdef ndarray X = as_floating(x, "x")
    cdef ndarray G = as_floating_like(grad, X, "grad")
    check_shape(G, X, "grad", "x")
    cdef int channel_axis = axis_of(axis, np.PyArray_NDIM(X), "axis")
    cdef int64_t channels = np.PyArray_DIM(X, channel_axis), size = np.PyArray_SIZE(X), columns, item
    cdef ndarray M = per_channel(mean, channels, X, "mean"), R = per_channel(rstd, channels, X, "rstd")
    cdef ndarray W = per_channel(weight, channels, X, "weight"), B = per_channel(bias, channels, X, "bias")
    cdef int dtype = dtype_of(X)
    cdef char *work
    if M is None or R is None:
        raise TypeError(f"{'mean' if M is None else 'rstd'}: got None; what batch_norm returned is needed")
    a.training = bool(training)
    a.relu = relu_of(activation)
    cdef ndarray GX = as_output(None, X), GW = new_vector(channels, X), GB = new_vector(channels, X)
    if size == 0:
        (<object>GW).fill(0)
        (<object>GB).fill(0)
        return GX, GW, GB
    a.columns = inner_of(X, channel_axis) < NORM_SHORT
    channel_slices(&x_slices, X, channel_axis, a.columns)
    channel_slices(&grad_slices, G, channel_axis, a.columns)
    channel_slices(&out_slices, GX, channel_axis, a.columns)
    a.x = &x_slices
    a.grad = &grad_slices
    a.out = &out_slices
    columns = x_slices.inner if a.columns else channels
    a.width = columns // channels
    a.count = size // channels
    a.blocks = blocks_of(&x_slices, a.columns)
    a.stream = streams(&out_slices, GX)
    a.mean = np.PyArray_DATA(M)
    a.rstd = np.PyArray_DATA(R)
    a.weight = data_of(W)
    a.bias = data_of(B)
    a.grad_weight = np.PyArray_DATA(GW)
    a.grad_bias = np.PyArray_DATA(GB)
    step.job = &a

    item = np.PyArray_ITEMSIZE(X)
    work = <char *>malloc(<size_t>(8 * 3 * columns * a.blocks + 7 * item * columns))
    if work is NULL:
        raise MemoryError()
    try:
        a.sums = <double *>work
        a.hi = a.sums + 3 * columns * a.blocks
        a.lo = <char *>a.hi + item * columns
        a.scale = <char *>a.lo + item * columns
        a.shift = <char *>a.scale + item * columns
        a.g_hi = <char *>a.shift + item * columns
        a.g_lo = <char *>a.g_hi + item * columns
        a.slope = <char *>a.g_lo + item * columns
        if not a.columns and one_pass(&x_slices, a.count * item, size):
            a.only_mean = 0
            over_items(KERNEL_batch_norm_backward, dtype, &a, channels, max(<int64_t>1, channels // 16), size)
        else:
            over_items(KERNEL_batch_norm_backward_start, dtype, &step, channels, 1024, columns)
            # The ReLU's mask depends on the whole mean, which has to be found first.
            for a.only_mean in range(1 if a.relu and a.training else 0, -1, -1):
                sum_blocks(KERNEL_batch_norm_backward_sums, dtype, &step, &x_slices, a.columns, a.blocks, size)
                finish(KERNEL_batch_norm_backward_finish, dtype, &step, channels, a.width, a.blocks)
            apply(KERNEL_batch_norm_backward_apply, dtype, &step, &x_slices, a.columns, size)
    finally:
        free(work)
    return GX, GW, GB
