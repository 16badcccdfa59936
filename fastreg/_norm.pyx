"""Normalisation: subtract a mean, divide by a standard deviation, scale and shift."""
from libc.stdint cimport int64_t, intptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
cimport numpy as np
from numpy cimport ndarray

import numpy

from fastreg._arrays cimport (
    apart_from, as_floating, as_floating_like, as_output, as_slices, as_state, as_type, axis_of, check_disjoint, check_length,
    check_shape, dtype_of, finished, fraction, in_index_order, integer, nonnegative, over_items, overlap,
)
from fastreg.fastreg_runtime cimport FASTREG_MAX_DIMS, fastreg_slices

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
        KERNEL_layer_norm
        KERNEL_layer_norm_backward
        KERNEL_layer_norm_backward_finish

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
        double *hi
        double *lo
        double *scale
        double *shift
        double *provisional
        double *sums
        double *wide_mean
        double *wide_var
        void *line
        unsigned char *pending
        double momentum
        double eps
        int64_t count
        int64_t channels
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
        double *k
        double *hi
        double *lo
        double *scale
        double *shift
        double *g_mean
        double *slope
        double *sums
        void *line
        int64_t count
        int64_t channels
        int64_t width
        int64_t blocks
        int columns
        int training
        int relu
        int stream
        int wide
        int only_mean

    ctypedef struct batch_norm_backward_step_args "batch_norm_backward_sums_args":
        const batch_norm_backward_args *job

    ctypedef struct layer_norm_args:
        const fastreg_slices *x
        const fastreg_slices *out
        const void *weight
        const void *bias
        void *mean
        void *rstd
        double *wide_mean
        double *wide_var
        double eps
        int64_t segment
        int rms
        int stream

    ctypedef struct layer_norm_backward_args:
        const fastreg_slices *x
        const fastreg_slices *grad
        const fastreg_slices *out
        const void *mean
        const void *rstd
        const void *weight
        void *grad_weight
        void *grad_bias
        double *sums
        int64_t segment
        int64_t rows
        int64_t chunk
        int64_t blocks
        int64_t parameters
        int64_t width
        int training
        int stream

    ctypedef struct layer_norm_backward_finish_args:
        const layer_norm_backward_args *job


# A slice that fits in the second-level cache beside its result is read from memory once.
cdef enum:
    CACHED = 1 << 20  # bytes
    # Runs shorter than this are not worth reading on their own: a sweep through all channels for the statistics and
    # another for the result is faster, though it reads twice.
    LONG_RUN = 1 << 12  # bytes
    LINE = 64  # bytes of the cache
    FEW = 32  # values a channel, below which every term of a sum is widened
    # Where the result is larger than the caches, it goes past them.
    STREAM_FROM = 1 << 24  # bytes
    STREAM_RUN = 1 << 11
    TASK = 1 << 14  # elements worth handing to a thread
    BLOCK = 1 << 16  # elements of a block of samples


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


cdef ndarray statistic(object values, int64_t channels, ndarray x, str name):
    """As `per_channel`; those of float64 stay what they are for float32 data: a mean has digits that matter."""
    if values is None:
        return None
    cdef ndarray v = as_floating(values, name)
    if np.PyArray_TYPE(x) == np.NPY_DOUBLE:
        v = as_type(v, np.NPY_DOUBLE)
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


cdef int sum_blocks(
    int kernel, int dtype, const void *step, fastreg_slices *s, bint columns, int64_t blocks, int64_t size
) except -1:
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
        and are only read, float64 with all their digits. An empty batch leaves them alone.
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
    Squares of float64 deviations beyond 10¹⁵⁴ are infinite, as their variance would be; float32 has no such limit.

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
        RM = statistic(running_mean, channels, X, "running_mean")
        RV = statistic(running_var, channels, X, "running_var")
        if RM is not None and RV is not None and np.PyArray_TYPE(RM) != np.PyArray_TYPE(RV):
            RM, RV = as_type(RM, np.NPY_DOUBLE), as_type(RV, np.NPY_DOUBLE)
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

    columns = divide_channels(&a, &x_slices, X, channel_axis, channels)
    channel_slices(&out_slices, Y, channel_axis, a.columns)
    a.out = &out_slices
    a.stream = streams(&out_slices, Y)
    a.wide = a.count < FEW if a.training else np.PyArray_TYPE(RM) != np.PyArray_TYPE(X)
    a.last_pass = 0
    a.wide_mean = a.wide_var = NULL
    a.weight = data_of(W)
    a.bias = data_of(B)
    a.running_mean = <void *>data_of(RM)
    a.running_var = <void *>data_of(RV)
    step.job = &a

    item = np.PyArray_ITEMSIZE(X)
    work = <char *>malloc(work_size(&a, columns, item))
    if work is NULL:
        raise MemoryError()
    try:
        divide_work(&a, work, columns, item)
        if M is not None:
            a.mean = np.PyArray_DATA(M)
            a.rstd = np.PyArray_DATA(R)
        if a.training and not a.columns and one_pass(&x_slices, a.count * item, size):
            over_items(KERNEL_batch_norm, dtype, &a, channels, max(<int64_t>1, channels // 16), size)
        else:
            if a.training:
                find_statistics(&a, &step, dtype, &x_slices, channels, columns, size)
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


cdef int64_t divide_channels(batch_norm_args *a, fastreg_slices *slices, ndarray x, int axis, int64_t channels) noexcept:
    """Sees x as channels, and returns how many columns or else channels have sums of their own. There may be no elements:
    the statistics of inference are asked for nevertheless."""
    cdef int64_t size = np.PyArray_SIZE(x), columns
    a.columns = inner_of(x, axis) < NORM_SHORT
    channel_slices(slices, x, axis, a.columns)
    a.x = slices
    a.channels = channels
    columns = slices.inner if a.columns and size else channels
    a.width = columns // channels if channels else 1
    a.count = size // channels if channels else 0
    a.blocks = blocks_of(slices, a.columns) if size else 0
    return columns


cdef size_t work_size(const batch_norm_args *a, int64_t columns, int64_t item) noexcept:
    """What `divide_work` divides."""
    return <size_t>(
        8 * columns * (1 + 2 * a.blocks) * a.training + (8 + item) * 4 * columns + (2 * item + 1) * a.channels + LINE
    )


cdef void divide_work(batch_norm_args *a, char *work, int64_t columns, int64_t item) noexcept:
    """What vectors are loaded from begins with a line of the cache."""
    a.line = line_of_cache(work)
    a.hi = <double *>(<char *>a.line + 4 * item * columns)
    a.lo = a.hi + columns
    a.scale = a.lo + columns
    a.shift = a.scale + columns
    a.provisional = a.shift + columns
    a.sums = a.provisional + columns * a.training
    a.mean = a.sums + 2 * columns * a.blocks * a.training
    a.rstd = <char *>a.mean + item * a.channels
    a.pending = <unsigned char *>a.rstd + item * a.channels


cdef void *line_of_cache(void *work) noexcept:
    return <void *>((<size_t>work + LINE - 1) // LINE * LINE)


cdef int find_statistics(
    batch_norm_args *a, batch_norm_step_args *step, int dtype, fastreg_slices *x, int64_t channels, int64_t columns,
    int64_t size,
) except -1:
    """In steps: provisional means, sums of blocks, statistics; again for channels whose provisional mean was poor."""
    memset(a.pending, 1, <size_t>channels)
    over_items(KERNEL_batch_norm_start, dtype, step, channels, 1024, columns * 8)
    for turn in range(3):
        a.wide = turn > 0 or a.count < FEW
        a.last_pass = turn == 2
        sum_blocks(KERNEL_batch_norm_sums, dtype, step, x, a.columns, a.blocks, size)
        finish(KERNEL_batch_norm_finish, dtype, step, channels, a.width, a.blocks)
        if not any_of(a.pending, channels):
            break
    return 0


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
    cdef double *work
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
    a.channels = channels
    a.wide = a.count < FEW
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
    work = <double *>malloc(<size_t>(8 * columns * (4 * a.blocks + 7) + 5 * item * columns + 2 * LINE))
    if work is NULL:
        raise MemoryError()
    try:
        a.line = line_of_cache(work)
        a.k = <double *>line_of_cache(<char *>a.line + 5 * item * columns)
        a.hi = a.k + columns
        a.lo = a.hi + columns
        a.scale = a.lo + columns
        a.shift = a.scale + columns
        a.g_mean = a.shift + columns
        a.slope = a.g_mean + columns
        a.sums = a.slope + columns
        if not a.columns and one_pass(&x_slices, 2 * a.count * item, size):
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


# ---- statistics of parts ----------------------------------------------------------------------------------------

def batch_norm_stats(x, *, axis=1):
    r"""Count, mean and population variance of each channel: what `merge_stats` combines.

    Parameters
    ----------
    x : array_like
        (N, C, …), or channels-last with ``axis=-1``.
    axis : int, optional
        The axis of the channels.

    Returns
    -------
    count : int
        Values a channel.
    mean, var : ndarray of shape (C,)
        float64 whatever the dtype of `x`, so that nothing is rounded before parts are merged; 0 where `count` is 0.

    Raises
    ------
    TypeError
        `x` is complex, longdouble or not numeric.
    ValueError
        `x` has no such axis.

    See Also
    --------
    merge_stats : combines the statistics of two parts.

    Examples
    --------
    Batch normalisation of data in parts, on one machine or on many, by the statistics of all of it:

    >>> import functools
    >>> import numpy as np, fastreg
    >>> x = np.arange(24.0).reshape(6, 4)
    >>> parts = x[:2], x[2:]
    >>> n, mean, var = functools.reduce(fastreg.merge_stats, map(fastreg.batch_norm_stats, parts))
    >>> y = np.concatenate([fastreg.batch_norm(part, mean, var) for part in parts])
    >>> bool(np.allclose(y, fastreg.batch_norm(x, training=True)))
    True
    """
    cdef batch_norm_args a
    cdef batch_norm_step_args step
    cdef fastreg_slices slices
    cdef ndarray X = as_floating(x, "x")
    cdef int channel_axis = axis_of(axis, np.PyArray_NDIM(X), "axis")
    cdef int64_t channels = np.PyArray_DIM(X, channel_axis), size = np.PyArray_SIZE(X), columns
    cdef int64_t item = np.PyArray_ITEMSIZE(X)
    cdef ndarray M = numpy.zeros(channels), V = numpy.zeros(channels)
    cdef char *work
    if size == 0:
        return 0, M, V
    memset(&a, 0, sizeof(a))
    a.training = 1
    columns = divide_channels(&a, &slices, X, channel_axis, channels)
    a.wide_mean = <double *>np.PyArray_DATA(M)
    a.wide_var = <double *>np.PyArray_DATA(V)
    step.job = &a
    work = <char *>malloc(work_size(&a, columns, item))
    if work is NULL:
        raise MemoryError()
    try:
        divide_work(&a, work, columns, item)
        find_statistics(&a, &step, dtype_of(X), &slices, channels, columns, size)
    finally:
        free(work)
    return a.count, M, V


def merge_stats(a, b):
    r"""The statistics of two parts together, from those of each; in any order and nesting, to rounding.

    With δ = mean_b − mean_a and n = n_a + n_b,

        mean = mean_a + δ·n_b/n,    var = (n_a·var_a + n_b·var_b)/n + δ²·n_a·n_b/n².

    Parameters
    ----------
    a, b : tuple of (int, array_like, array_like)
        Count, mean and population variance, as from `batch_norm_stats`. A part without values (count 0) changes nothing.

    Returns
    -------
    count : int
    mean, var : ndarray
        float64.

    Raises
    ------
    TypeError
        `a` or `b` is not such a triple.
    ValueError
        A count is negative, or shapes differ.

    References
    ----------
    .. [1] T. F. Chan, G. H. Golub and R. J. LeVeque, "Algorithms for computing the sample variance: analysis and
       recommendations", The American Statistician 37, 1983.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.merge_stats((1, np.array([2.0]), np.array([0.0])), (1, np.array([4.0]), np.array([0.0])))
    (2, array([3.]), array([1.]))
    """
    n_a, mean_a, var_a = statistics_of(a, "a")
    n_b, mean_b, var_b = statistics_of(b, "b")
    if mean_a.shape != mean_b.shape:
        raise ValueError(f"b: got shape {mean_b.shape}; that of a, {mean_a.shape}, is needed")
    n = n_a + n_b
    if n_a == 0 or n_b == 0:
        return (n, mean_b.copy(), var_b.copy()) if n_a == 0 else (n, mean_a.copy(), var_a.copy())
    part = n_b / n
    delta = mean_b - mean_a
    return n, mean_a + delta * part, var_a + (var_b - var_a) * part + delta * delta * (part * (n_a / n))


cdef tuple statistics_of(object part, str name):
    try:
        count, mean, var = part
    except (TypeError, ValueError):
        raise TypeError(f"{name}: got {type(part).__name__}; (count, mean, var) is needed") from None
    cdef int64_t n = integer(count, name)
    cdef ndarray M = as_type(as_floating(mean, name), np.NPY_DOUBLE), V = as_type(as_floating(var, name), np.NPY_DOUBLE)
    check_shape(V, M, name, "its mean")
    if n < 0:
        raise ValueError(f"{name}: got a count of {n}; one >= 0 is allowed")
    return n, M, V


def fold_batch_norm(weight, bias, mean, var, gamma=None, beta=None, eps=1e-5):
    r"""Batch normalisation at inference folded into the linear or convolutional layer before it.

    With s = gamma/√(var + eps), the layer weight·s, (bias − mean)·s + beta gives in one step what
    ``batch_norm(layer(x), mean, var, gamma, beta)`` gives in two.

    Parameters
    ----------
    weight : array_like of shape (C, …)
        Of a linear layer, (out_features, in_features), or a convolution, (out_channels, …).
    bias : array_like of shape (C,) or None
        Of the layer.
    mean, var : array_like of shape (C,)
        The running statistics.
    gamma, beta : array_like of shape (C,), optional
        Scale and shift of the normalisation, its `weight` and `bias`.
    eps : float >= 0, optional
        As in `batch_norm`.

    Returns
    -------
    weight, bias : ndarray
        In the dtype of `weight`, rounded once from float64.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric.
    ValueError
        A shape does not fit, or `eps` is negative or NaN.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.fold_batch_norm(np.eye(2), None, np.array([1.0, 2.0]), np.array([4.0, 1.0]), eps=0)
    (array([[0.5, 0. ],
           [0. , 1. ]]), array([-0.5, -2. ]))
    """
    cdef ndarray W = as_floating(weight, "weight")
    if np.PyArray_NDIM(W) < 1:
        raise ValueError("weight: got a scalar; the first axis is that of the channels")
    cdef int64_t channels = np.PyArray_DIM(W, 0)
    cdef double e = nonnegative(eps, "eps")
    given = {"bias": bias, "mean": mean, "var": var, "gamma": gamma, "beta": beta}
    wide = {}
    for name, values in given.items():
        if values is None:
            if name in ("mean", "var"):
                raise TypeError(f"{name}: got None; an array of shape ({channels},) is needed")
            wide[name] = numpy.full(channels, 1.0 if name == "gamma" else 0.0)
        else:
            v = as_type(as_floating(values, name), np.NPY_DOUBLE)
            check_length(v, channels, name)
            wide[name] = v
    scale = wide["gamma"] / numpy.sqrt(wide["var"] + e)
    dtype = (<object>W).dtype
    folded = (<object>W).astype(numpy.float64) * scale.reshape((-1,) + (1,) * (np.PyArray_NDIM(W) - 1))
    shifted = (wide["bias"] - wide["mean"]) * scale + wide["beta"]
    return folded.astype(dtype, copy=False), shifted.astype(dtype, copy=False)


# ---- layer, RMS, group and instance norm ------------------------------------------------------------------------

cdef int last_axes(ndarray x, object normalized_shape) except -1:
    """How many axes `normalized_shape` names; they must be the last ones of x."""
    if not isinstance(normalized_shape, (tuple, list)):
        normalized_shape = (normalized_shape,)
    cdef list lengths = []
    for n in normalized_shape:
        lengths.append(integer(n, "normalized_shape"))
    cdef tuple wanted = tuple(lengths)
    cdef int k = len(wanted)
    shape = (<object>x).shape
    if k == 0 or k > len(shape) or shape[len(shape) - k:] != wanted:
        raise ValueError(f"normalized_shape: got {wanted}; the last lengths of x, whose shape is {shape}, are needed")
    return k


cdef ndarray per_element(object values, tuple shape, ndarray x, str name):
    """None, or a contiguous array of this shape in the dtype of x."""
    if values is None:
        return None
    cdef ndarray v = as_floating_like(values, x, name)
    if (<object>v).shape != shape:
        raise ValueError(f"{name}: got shape {(<object>v).shape}; {shape} is needed")
    return in_index_order(v)


cdef object normalise_slices(
    ndarray X, int outer_ndim, int64_t groups, ndarray W, ndarray B, double eps, bint rms, object out, bint stats,
    ndarray wide_mean, ndarray wide_var,
):
    """The result, or with its statistics: slices are the axes from `outer_ndim` on, or (with groups) the axes from 1 on
    in so many parts."""
    cdef layer_norm_args a
    cdef fastreg_slices x_slices, out_slices
    cdef ndarray Y = as_output(out, X), M = None, R = None
    cdef int64_t size = np.PyArray_SIZE(X), items, inner
    X = apart_from(X, Y)
    W = apart(W, Y)
    B = apart(B, Y)
    if stats:
        shape = (<object>X).shape[:outer_ndim] + ((groups,) if groups else ())
        dtype = (<object>X).dtype
        R = numpy.empty(shape, dtype)
        if not rms:
            M = numpy.empty(shape, dtype)
    if size:
        slices(&x_slices, X, outer_ndim, groups)
        slices(&out_slices, Y, outer_ndim, groups)
        a.x = &x_slices
        a.out = &out_slices
        a.segment = 1
        if groups:
            inner = inner_of(X, 1)
            if inner < NORM_SHORT:
                W = each_element(W, inner)
                B = each_element(B, inner)
            else:
                a.segment = inner
        a.weight = data_of(W)
        a.bias = data_of(B)
        a.mean = <void *>data_of(M)
        a.rstd = <void *>data_of(R)
        a.wide_mean = <double *>data_of(wide_mean)
        a.wide_var = <double *>data_of(wide_var)
        a.eps = eps
        a.rms = rms
        a.stream = streams(&out_slices, Y)
        items = x_slices.outer * x_slices.channels
        over_items(KERNEL_layer_norm, dtype_of(X), &a, items, max(<int64_t>1, TASK // x_slices.inner), size)
    elif stats:
        R.fill(numpy.nan)
        if not rms:
            M.fill(numpy.nan)
    if not stats:
        return finished(Y, out)
    if rms:
        return finished(Y, out), finished(R, None)
    return finished(Y, out), finished(M, None), finished(R, None)


cdef ndarray each_element(ndarray values, int64_t inner):
    """A channel's value for each of its elements, where these are few."""
    return values if values is None or inner == 1 else numpy.repeat(values, inner)


cdef void slices(fastreg_slices *s, ndarray x, int outer_ndim, int64_t groups) noexcept:
    cdef intptr_t shape[FASTREG_MAX_DIMS + 1]
    cdef intptr_t stride[FASTREG_MAX_DIMS + 1]
    cdef int d, ndim = np.PyArray_NDIM(x)
    if not groups:
        as_slices(
            s, x, <const intptr_t *>np.PyArray_DIMS(x), <const intptr_t *>np.PyArray_STRIDES(x), ndim, outer_ndim, False
        )
        return
    # The channels' axis as (groups, channels of a group).
    for d in range(ndim):
        shape[d + (d > 1)] = np.PyArray_DIM(x, d)
        stride[d + (d > 1)] = np.PyArray_STRIDE(x, d)
    shape[1], shape[2] = groups, np.PyArray_DIM(x, 1) // groups
    stride[1], stride[2] = shape[2] * np.PyArray_STRIDE(x, 1), np.PyArray_STRIDE(x, 1)
    as_slices(s, x, shape, stride, ndim + 1, 1, True)


cdef tuple slice_gradients(
    ndarray G, ndarray X, ndarray M, ndarray R, ndarray W, int outer_ndim, int64_t groups, tuple parameters, bint training,
):
    """(grad_x, grad_weight, grad_bias); without M, of RMS norm."""
    cdef layer_norm_backward_args a
    cdef layer_norm_backward_finish_args step
    cdef fastreg_slices x_slices, grad_slices, out_slices
    cdef ndarray GX = as_output(None, X), GW = numpy.zeros(parameters, (<object>X).dtype)
    cdef ndarray GB = numpy.zeros(parameters, (<object>X).dtype) if M is not None else None
    cdef int64_t size = np.PyArray_SIZE(X), own = np.PyArray_SIZE(GW), inner, sample, items
    cdef int dtype = dtype_of(X)
    cdef double *work
    if size == 0:
        return GX, GW, GB
    slices(&x_slices, X, outer_ndim, groups)
    slices(&grad_slices, G, outer_ndim, groups)
    slices(&out_slices, GX, outer_ndim, groups)
    a.x = &x_slices
    a.grad = &grad_slices
    a.out = &out_slices
    a.segment = a.width = 1
    a.rows = 64
    if groups:
        inner = inner_of(X, 1)
        if inner < NORM_SHORT:
            W = each_element(W, inner)
            a.width = inner
        else:
            a.segment = inner
            # Blocks of 2^16 elements, whole samples where these are smaller: few enough sums beside the data.
            sample = x_slices.inner * x_slices.channels
            a.rows = max(<int64_t>1, BLOCK // sample)
            a.chunk = x_slices.channels if sample < BLOCK else max(<int64_t>1, BLOCK // 2 // x_slices.inner)
    a.parameters = own * a.width
    a.blocks = ceil_div(x_slices.outer, a.rows)
    items = a.blocks * (x_slices.channels if a.segment == 1 else ceil_div(x_slices.channels, a.chunk))
    a.mean = data_of(M)
    a.rstd = data_of(R)
    a.weight = data_of(W)
    a.grad_weight = np.PyArray_DATA(GW)
    a.grad_bias = <void *>data_of(GB)
    a.training = training
    a.stream = streams(&out_slices, GX)
    # Runs of neighbours are put together before they go past the caches, and two arrays are read beside the result.
    if a.segment > 1 and x_slices.direct and grad_slices.direct and np.PyArray_IS_C_CONTIGUOUS(GX):
        a.stream = 3 * np.PyArray_NBYTES(GX) >= 2 * STREAM_FROM
    step.job = &a
    work = <double *>malloc(<size_t>(16 * a.parameters * a.blocks))
    if work is NULL:
        raise MemoryError()
    try:
        a.sums = work
        over_items(KERNEL_layer_norm_backward, dtype, &a, items, 1, size)
        over_items(
            KERNEL_layer_norm_backward_finish, dtype, &step, own, max(<int64_t>1, NORM_TILE // a.width),
            2 * a.parameters * a.blocks,
        )
    finally:
        free(work)
    return GX, GW, GB


cdef ndarray statistics(object values, tuple shape, ndarray x, str name):
    if values is None:
        raise TypeError(f"{name}: got None; what the forward pass returned is needed")
    return per_element(values, shape, x, name)


cdef object normalise_last(
    ndarray X, object normalized_shape, object weight, object bias, double eps, bint rms, object out, bint stats
):
    """`normalise_slices` over the last axes."""
    cdef int outer = np.PyArray_NDIM(X) - last_axes(X, normalized_shape)
    shape = (<object>X).shape[outer:]
    cdef ndarray W = per_element(weight, shape, X, "weight"), B = per_element(bias, shape, X, "bias")
    return normalise_slices(X, outer, 0, W, B, eps, rms, out, stats, None, None)


cdef tuple last_gradients(object grad, object x, object mean, object rstd, object weight, bint rms):
    """`slice_gradients` of the last axes: those that the statistics do not have."""
    cdef ndarray X = as_floating(x, "x"), G = as_floating_like(grad, X, "grad"), M = None
    check_shape(G, X, "grad", "x")
    cdef int outer = outer_axes(X, rstd, "rstd") if rms else outer_axes(X, mean, "mean")
    shape = (<object>X).shape
    if not rms:
        M = statistics(mean, shape[:outer], X, "mean")
    cdef ndarray R = statistics(rstd, shape[:outer], X, "rstd"), W = per_element(weight, shape[outer:], X, "weight")
    return slice_gradients(G, X, M, R, W, outer, 0, shape[outer:], True)


def layer_norm(x, normalized_shape, weight=None, bias=None, *, eps=1e-5, out=None, return_stats=False):
    r"""Layer normalisation, y = (x − mean)/√(var + eps)·weight + bias, over the last axes.

    Parameters
    ----------
    x : array_like
        float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    normalized_shape : int or tuple of int
        The lengths of the last axes of `x`, over which mean and (population) variance are taken.
    weight, bias : array_like of shape `normalized_shape`, optional
        Scale and shift of each element; 1 and 0 where absent. Taken in the dtype of `x`.
    eps : float >= 0, optional
        Added to the variance.
    out : ndarray, optional
        Where to put y: shape of `x` and dtype of the result. It may be `x` itself.
    return_stats : bool, optional
        Return (y, mean, rstd), what the backward pass needs; rstd = 1/√(var + eps).

    Returns
    -------
    ndarray, or tuple of ndarray
        y, of the shape of `x`; with `return_stats` also mean and rstd, of the shape of `x` without the last axes.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        A shape does not fit, or `eps` is negative or NaN.

    References
    ----------
    .. [1] J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer normalization", arXiv:1607.06450, 2016.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.layer_norm(np.array([[1.0, 3.0], [10.0, 30.0]]), 2, eps=0)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    return normalise_last(as_floating(x, "x"), normalized_shape, weight, bias, nonnegative(eps, "eps"), False, out, return_stats)


def layer_norm_backward(grad, x, mean, rstd, weight=None):
    r"""The gradients of `layer_norm`; with g = grad·weight and x̂ = (x − mean)·rstd, means over the last axes:

        grad_x = rstd·(g − mean(g) − x̂·mean(g·x̂))
        grad_weight = Σ grad·x̂,    grad_bias = Σ grad

    the sums being over all other axes.

    Parameters
    ----------
    grad : array_like
        The gradient by y: shape of `x`. Taken in the dtype of `x`.
    x : array_like
        The input of the forward pass.
    mean, rstd : array_like
        What the forward pass returned with ``return_stats=True``; their shape says which axes were normalised.
    weight : array_like, optional
        As in the forward pass.

    Returns
    -------
    grad_x : ndarray
        Shape of `x`.
    grad_weight, grad_bias : ndarray
        Of the normalised shape, given also where the forward pass had no weight or bias.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric.
    ValueError
        A shape does not fit.

    References
    ----------
    .. [1] J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer normalization", arXiv:1607.06450, 2016.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> x = np.array([[1.0, 3.0, 8.0], [10.0, 30.0, 50.0]])
    >>> y, mean, rstd = fastreg.layer_norm(x, 3, return_stats=True)
    >>> grad_x, grad_weight, grad_bias = fastreg.layer_norm_backward(np.ones_like(x), x, mean, rstd)
    >>> grad_bias
    array([2., 2., 2.])
    """
    return last_gradients(grad, x, mean, rstd, weight, False)


cdef int outer_axes(ndarray x, object statistic, str name) except -1:
    if statistic is None:
        raise TypeError(f"{name}: got None; what the forward pass returned is needed")
    cdef int outer = np.PyArray_NDIM(as_floating(statistic, name))
    if outer >= np.PyArray_NDIM(x):
        raise ValueError(
            f"{name}: got {outer} dimensions; x, of shape {(<object>x).shape}, has the normalised axes as well"
        )
    return outer


def rms_norm(x, normalized_shape, weight=None, *, eps=None, out=None, return_stats=False):
    r"""Root mean square normalisation, y = x/√(mean(x²) + eps)·weight, over the last axes.

    Parameters
    ----------
    x : array_like
        float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    normalized_shape : int or tuple of int
        The lengths of the last axes of `x`, over which the mean is taken.
    weight : array_like of shape `normalized_shape`, optional
        Scale of each element. Taken in the dtype of `x`.
    eps : float >= 0, optional
        Added to the mean square; by default the machine epsilon of the dtype, as in PyTorch.
    out : ndarray, optional
        Where to put y: shape of `x` and dtype of the result. It may be `x` itself.
    return_stats : bool, optional
        Return (y, rstd), what the backward pass needs; rstd = 1/√(mean(x²) + eps).

    Returns
    -------
    ndarray, or tuple of ndarray
        y, of the shape of `x`; with `return_stats` also rstd, of the shape of `x` without the last axes.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        A shape does not fit, or `eps` is negative or NaN.

    References
    ----------
    .. [1] B. Zhang and R. Sennrich, "Root mean square layer normalization", NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.rms_norm(np.array([[3.0, -3.0], [5.0, 5.0]]), 2, eps=0)
    array([[ 1., -1.],
           [ 1.,  1.]])
    """
    cdef ndarray X = as_floating(x, "x")
    if eps is None:
        eps = 2.0 ** -23 if np.PyArray_TYPE(X) == np.NPY_FLOAT else 2.0 ** -52
    return normalise_last(X, normalized_shape, weight, None, nonnegative(eps, "eps"), True, out, return_stats)


def rms_norm_backward(grad, x, rstd, weight=None):
    r"""The gradients of `rms_norm`; with g = grad·weight and x̂ = x·rstd, means over the last axes:

        grad_x = rstd·(g − x̂·mean(g·x̂)),    grad_weight = Σ grad·x̂

    Parameters
    ----------
    grad : array_like
        The gradient by y: shape of `x`. Taken in the dtype of `x`.
    x : array_like
        The input of the forward pass.
    rstd : array_like
        What the forward pass returned with ``return_stats=True``; its shape says which axes were normalised.
    weight : array_like, optional
        As in the forward pass.

    Returns
    -------
    grad_x : ndarray
        Shape of `x`.
    grad_weight : ndarray
        Of the normalised shape, given also where the forward pass had no weight.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric.
    ValueError
        A shape does not fit.

    References
    ----------
    .. [1] B. Zhang and R. Sennrich, "Root mean square layer normalization", NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> x = np.array([[3.0, -3.0], [5.0, 5.0]])
    >>> y, rstd = fastreg.rms_norm(x, 2, eps=0, return_stats=True)
    >>> grad_x, grad_weight = fastreg.rms_norm_backward(np.ones_like(x), x, rstd)
    >>> grad_weight
    array([2., 0.])
    """
    return last_gradients(grad, x, None, rstd, weight, True)[:2]


cdef int64_t channels_of(ndarray x) except -1:
    if np.PyArray_NDIM(x) < 2:
        raise ValueError(f"x: got shape {(<object>x).shape}; (N, C, ...) is needed")
    return np.PyArray_DIM(x, 1)


def group_norm(x, num_groups, weight=None, bias=None, *, eps=1e-5, out=None, return_stats=False):
    r"""Group normalisation: each sample's channels in groups, y = (x − mean)/√(var + eps)·weight + bias over a group.

    Parameters
    ----------
    x : array_like
        (N, C, …). float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    num_groups : int
        Into how many groups of neighbours the channels are divided.
    weight, bias : array_like of shape (C,), optional
        Scale and shift of each channel; 1 and 0 where absent. Taken in the dtype of `x`.
    eps : float >= 0, optional
        Added to the variance.
    out : ndarray, optional
        Where to put y: shape of `x` and dtype of the result. It may be `x` itself.
    return_stats : bool, optional
        Return (y, mean, rstd), what the backward pass needs; rstd = 1/√(var + eps).

    Returns
    -------
    ndarray, or tuple of ndarray
        y, of the shape of `x`; with `return_stats` also mean and rstd of shape (N, num_groups).

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        A shape does not fit, the channels cannot be divided so, or `eps` is negative or NaN.

    References
    ----------
    .. [1] Y. Wu and K. He, "Group normalization", ECCV 2018.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.group_norm(np.array([[1.0, 3.0, 10.0, 30.0]]), 2, eps=0)
    array([[-1.,  1., -1.,  1.]])
    """
    cdef ndarray X = as_floating(x, "x")
    cdef int64_t channels = channels_of(X), groups = integer(num_groups, "num_groups")
    check_groups(groups, channels, "num_groups")
    cdef ndarray W = per_channel(weight, channels, X, "weight"), B = per_channel(bias, channels, X, "bias")
    return normalise_slices(X, 1, groups, W, B, nonnegative(eps, "eps"), False, out, return_stats, None, None)


cdef int check_groups(int64_t groups, int64_t channels, str name) except -1:
    if groups < 1 or channels % groups:
        raise ValueError(f"{name}: got {groups} groups; a divisor of the {channels} channels is needed")
    return 0


def group_norm_backward(grad, x, mean, rstd, weight=None):
    r"""The gradients of `group_norm`; with g = grad·weight and x̂ = (x − mean)·rstd, means over a group:

        grad_x = rstd·(g − mean(g) − x̂·mean(g·x̂))
        grad_weight = Σ grad·x̂,    grad_bias = Σ grad

    the sums being over all axes but the channels.

    Parameters
    ----------
    grad : array_like
        The gradient by y: shape of `x`. Taken in the dtype of `x`.
    x : array_like
        The input of the forward pass, (N, C, …).
    mean, rstd : array_like of shape (N, num_groups)
        What the forward pass returned with ``return_stats=True``.
    weight : array_like of shape (C,), optional
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
        A shape does not fit.

    References
    ----------
    .. [1] Y. Wu and K. He, "Group normalization", ECCV 2018.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> x = np.arange(12.0).reshape(2, 6)
    >>> y, mean, rstd = fastreg.group_norm(x, 2, return_stats=True)
    >>> grad_x, grad_weight, grad_bias = fastreg.group_norm_backward(np.ones_like(x), x, mean, rstd)
    >>> grad_bias
    array([2., 2., 2., 2., 2., 2.])
    """
    return group_gradients(grad, x, mean, rstd, weight, True)


cdef tuple group_gradients(object grad, object x, object mean, object rstd, object weight, bint training):
    cdef ndarray X = as_floating(x, "x"), G = as_floating_like(grad, X, "grad")
    check_shape(G, X, "grad", "x")
    cdef int64_t channels = channels_of(X)
    if mean is None:
        raise TypeError("mean: got None; what the forward pass returned is needed")
    cdef ndarray given = as_floating(mean, "mean")
    if np.PyArray_NDIM(given) != 2:
        raise ValueError(f"mean: got shape {(<object>given).shape}; (N, number of groups) is needed")
    cdef int64_t groups = np.PyArray_DIM(given, 1)
    check_groups(groups, channels, "mean")
    shape = (np.PyArray_DIM(X, 0), groups)
    cdef ndarray M = statistics(mean, shape, X, "mean"), R = statistics(rstd, shape, X, "rstd")
    cdef ndarray W = per_channel(weight, channels, X, "weight")
    return slice_gradients(G, X, M, R, W, 1, groups, (channels,), training)


cdef void move_towards(ndarray state, ndarray values, double momentum, double factor) noexcept:
    """state ← (1 − momentum)·state + momentum·factor·(mean over the samples). Nothing that can fail: what was
    normalised has been written."""
    cdef int64_t samples = np.PyArray_DIM(values, 0), channels = np.PyArray_DIM(values, 1), i, c
    cdef const double *value = <const double *>np.PyArray_DATA(values)
    cdef char *place = np.PyArray_BYTES(state)
    cdef double total, old
    cdef float single
    for c in range(channels):
        total = 0
        for i in range(samples):
            total += value[i * channels + c]
        total = momentum * (total / samples * factor)
        if np.PyArray_TYPE(state) == np.NPY_FLOAT:
            memcpy(&single, place, sizeof(float))
            single = <float>((1 - momentum) * single + total)
            memcpy(place, &single, sizeof(float))
        else:
            memcpy(&old, place, sizeof(double))
            old = (1 - momentum) * old + total
            memcpy(place, &old, sizeof(double))
        place += np.PyArray_STRIDE(state, 0)


cdef void repeat_rows(ndarray rows, ndarray row) noexcept:
    """Each of the rows becomes this one; both are contiguous."""
    cdef int64_t i, n = np.PyArray_DIM(rows, 0), size = np.PyArray_DIM(rows, 1) * np.PyArray_ITEMSIZE(rows)
    for i in range(n):
        memcpy(np.PyArray_BYTES(rows) + i * size, np.PyArray_DATA(row), <size_t>size)


def instance_norm(
    x, running_mean=None, running_var=None, weight=None, bias=None, *, use_input_stats=True, momentum=0.1, eps=1e-5,
    out=None, return_stats=False,
):
    r"""Instance normalisation: each channel of each sample, y = (x − mean)/√(var + eps)·weight + bias.

    Parameters
    ----------
    x : array_like
        (N, C, …). float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    running_mean, running_var : ndarray of shape (C,), optional
        With `use_input_stats` each that is given is updated in place towards the mean over the samples of their means
        and unbiased variances, as `batch_norm` does. Without, both are needed and are the statistics.
    weight, bias : array_like of shape (C,), optional
        Scale and shift of each channel; 1 and 0 where absent. Taken in the dtype of `x`.
    use_input_stats : bool, optional
        Normalise by the statistics of the input.
    momentum : float in [0, 1], optional
        The weight of the new value.
    eps : float >= 0, optional
        Added to the variance.
    out : ndarray, optional
        Where to put y: shape of `x` and dtype of the result. It may be `x` itself.
    return_stats : bool, optional
        Return (y, mean, rstd), what the backward pass needs; rstd = 1/√(var + eps).

    Returns
    -------
    ndarray, or tuple of ndarray
        y, of the shape of `x`; with `return_stats` also mean and rstd of shape (N, C).

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric; a running array cannot be updated; `out` has another dtype
        than the result.
    ValueError
        A shape does not fit, no running arrays without `use_input_stats`, one value a channel with it, `momentum`
        outside [0, 1], `eps` negative or NaN. Nothing has been changed then.

    References
    ----------
    .. [1] D. Ulyanov, A. Vedaldi and V. Lempitsky, "Instance normalization: the missing ingredient for fast
       stylization", arXiv:1607.08022, 2016.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.instance_norm(np.array([[[1.0, 3.0], [10.0, 30.0]]]), eps=0)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    cdef ndarray X = as_floating(x, "x")
    cdef int64_t channels = channels_of(X), size = np.PyArray_SIZE(X)
    cdef double m = fraction(momentum, "momentum")
    cdef ndarray W, B, Y, like, means = None, variances = None, kept_mean = None, kept_var = None
    cdef double n
    if not use_input_stats:
        if return_stats:
            means = numpy.empty(((<object>X).shape[0], channels), (<object>X).dtype)
            variances = numpy.empty_like(means)
        y, mean, rstd = batch_norm(X, running_mean, running_var, weight, bias, eps=eps, out=out, return_stats=True)
        if not return_stats:
            return y
        repeat_rows(means, mean)
        repeat_rows(variances, rstd)
        return y, means, variances
    W, B = per_channel(weight, channels, X, "weight"), per_channel(bias, channels, X, "bias")
    nonnegative(eps, "eps")
    if size and inner_of(X, 1) == 1:
        raise ValueError(
            "x: got one value a channel of a sample, whose variance is 0; more are needed: use eval mode "
            "(use_input_stats=False), layer_norm or group_norm"
        )
    if running_mean is not None or running_var is not None:
        like = new_vector(channels, X)
        means, variances = numpy.empty((<object>X).shape[:2]), numpy.empty((<object>X).shape[:2])
        if running_mean is not None:
            kept_mean = as_state(running_mean, like, "running_mean")
        if running_var is not None:
            kept_var = as_state(running_var, like, "running_var")
        if out is not None:
            Y = as_output(out, X)
            for kept, name in ((kept_mean, "running_mean"), (kept_var, "running_var")):
                if kept is not None:
                    check_disjoint(kept, Y, name, "out")
        if kept_mean is not None and kept_var is not None:
            check_disjoint(kept_mean, kept_var, "running_mean", "running_var")
    result = normalise_slices(X, 1, max(channels, 1), W, B, eps, False, out, return_stats, means, variances)
    if size:
        n = inner_of(X, 1)
        if kept_mean is not None:
            move_towards(kept_mean, means, m, 1)
        if kept_var is not None:
            move_towards(kept_var, variances, m, n / (n - 1.0))
    return result


def instance_norm_backward(grad, x, mean, rstd, weight=None, *, use_input_stats=True):
    r"""The gradients of `instance_norm`: those of `group_norm` with a group for each channel.

    Parameters
    ----------
    grad : array_like
        The gradient by y: shape of `x`. Taken in the dtype of `x`.
    x : array_like
        The input of the forward pass, (N, C, …).
    mean, rstd : array_like of shape (N, C)
        What the forward pass returned with ``return_stats=True``.
    weight : array_like of shape (C,), optional
        As in the forward pass.
    use_input_stats : bool, optional
        As in the forward pass; without it the statistics are constants and grad_x is weight·rstd·grad.

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
        A shape does not fit.

    References
    ----------
    .. [1] D. Ulyanov, A. Vedaldi and V. Lempitsky, "Instance normalization: the missing ingredient for fast
       stylization", arXiv:1607.08022, 2016.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> x = np.arange(12.0).reshape(2, 2, 3)
    >>> y, mean, rstd = fastreg.instance_norm(x, return_stats=True)
    >>> grad_x, grad_weight, grad_bias = fastreg.instance_norm_backward(np.ones_like(x), x, mean, rstd)
    >>> grad_bias
    array([6., 6.])
    """
    cdef ndarray X = as_floating(x, "x")
    check_shape(X, as_floating(grad, "grad"), "x", "grad")
    channels_of(X)
    cdef ndarray M = statistics(mean, (<object>X).shape[:2], X, "mean")
    return group_gradients(grad, X, M, rstd, weight, bool(use_input_stats))
