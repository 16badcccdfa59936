"""Dropout and its masks. The way from (seed, offset, index) to a decision is docs/dropout-mapping.md."""
cimport numpy as np
from libc.math cimport rint
from libc.stdint cimport int64_t, uint8_t, uint64_t
from numpy cimport ndarray

import numpy

from fastreg._arrays cimport (
    INDEX_ORDER, MEMORY_ORDER, apart_from, as_floating, as_floating_like, as_output, axes_of, check_length, dtype_of,
    elementwise, finished, fraction, in_index_order, integer, over_items, unsigned64,
)
from fastreg.fastreg_runtime cimport FASTREG_CHUNK, FASTREG_F64

np.import_array()


cdef extern from "fastreg.h":
    enum:
        KERNEL_dropout
        KERNEL_dropout_shared
        KERNEL_dropout_runs
        KERNEL_dropout_mask

    ctypedef struct fastreg_draws:
        uint64_t seed
        uint64_t offset
        uint64_t start
        uint64_t threshold

    ctypedef struct dropout_args:
        double scale
        fastreg_draws draws

    ctypedef struct dropout_shared_args:
        double scale

    ctypedef struct dropout_runs_args:
        const void *x
        const uint8_t *kept
        void *out
        double scale
        int64_t length

    ctypedef struct dropout_mask_args:
        uint8_t *out
        int packed
        fastreg_draws draws


cdef enum:
    BLOCK = 8 * FASTREG_CHUNK  # elements of a mask that one thread takes at a time
    WEIGHTS = 1 << 19          # elements of a masked weight matrix that are held at a time


cdef int draw(fastreg_draws *draws, double p, object seed, object offset, object start) except -1:
    draws.threshold = <uint64_t>rint(p * 4294967296.0)
    draws.seed = unsigned64(seed, "seed")
    draws.offset = unsigned64(offset, "offset")
    draws.start = 0
    if start is not 0:
        draws.start = <uint64_t>integer(start, "start")
        if draws.start >> 63:
            raise ValueError(f"start: got {start}; an integer in [0, 2**63) is allowed")
    return 0


cdef int check_end(fastreg_draws *draws, int64_t n) except -1:
    """The last index is below 2**63: the upper half of the counters is where ties are resolved."""
    if draws.start + <uint64_t>n > <uint64_t>1 << 63:
        raise ValueError(f"start: got {draws.start}; with {n} decisions it must stay below 2**63")
    return 0


cdef ndarray mask_of(fastreg_draws *draws, tuple shape, int64_t n, bint packed):
    cdef dropout_mask_args a
    if packed and draws.start & 7:
        return numpy.packbits(mask_of(draws, shape, n, False))
    cdef ndarray kept = numpy.empty((n + 7) // 8, numpy.uint8) if packed else numpy.empty(shape, numpy.bool_)
    check_end(draws, n)
    a.out = <uint8_t *>np.PyArray_DATA(kept)
    a.packed = packed
    a.draws = draws[0]
    # Packed bits that are the generator's own take a tenth of the time of others: larger blocks, a later second thread.
    if packed and draws.threshold == <uint64_t>1 << 31:
        over_items(KERNEL_dropout_mask, FASTREG_F64, &a, n, 8 * BLOCK, n >> 6)
    else:
        over_items(KERNEL_dropout_mask, FASTREG_F64, &a, n, BLOCK, n)
    return kept


cdef tuple drawn_shape(tuple shape, object axis):
    """Length 1 along the axes that share a decision."""
    cdef tuple axes = axes_of(axis, <int>len(shape), "axis")
    cdef list drawn = list(shape)
    for d in range(len(shape)):
        if d not in axes:
            drawn[d] = 1
    return tuple(drawn)


cdef int64_t size_of(tuple shape) except -1:
    n = 1
    for length in shape:
        n *= length
    if n >> 63:
        raise ValueError(f"shape: got {shape}; fewer than 2**63 elements are allowed")
    return n


cdef bint is_vanilla(object mode) except -1:
    if mode == "inverted":
        return False
    if mode == "vanilla":
        return True
    raise ValueError(f"mode: got {mode!r}; 'inverted' and 'vanilla' are allowed")


cdef bint in_runs(tuple drawn, tuple shape) except -1:
    """Whether elements that share a decision are neighbours in index order: none is shared along an axis before one
    along which decisions are drawn."""
    cdef bint shared = False
    for d in range(len(shape)):
        if shape[d] != drawn[d]:
            shared = True
        elif shared and shape[d] != 1:
            return False
    return True


cdef bint is_plain(ndarray x) noexcept:
    return np.PyArray_IS_C_CONTIGUOUS(x) and np.PyArray_ISALIGNED(x)


cdef object drop(
    object x, str name, object p, object seed, object offset, object training, object mode, object axis, object start,
    object out,
):
    cdef ndarray X = as_floating(x, name)
    cdef double probability = fraction(p, "p")
    cdef bint vanilla = is_vanilla(mode), trains = bool(training)
    cdef dropout_args a
    cdef dropout_shared_args shared
    cdef dropout_runs_args runs
    cdef int64_t count
    cdef ndarray kept = None
    cdef tuple shape, drawn
    draw(&a.draws, probability, seed, offset, start)
    a.scale = 1.0
    if trains and not vanilla and probability < 1:
        a.scale = 1.0 / (1.0 - probability)
    elif vanilla and not trains:
        a.scale = 1.0 - probability
    if axis is not None:
        shape = (<object>X).shape
        drawn = drawn_shape(shape, axis)
        if trains and drawn != shape:
            kept = mask_of(&a.draws, drawn, size_of(drawn), False)
    if kept is None:
        check_end(&a.draws, np.PyArray_SIZE(X))
    cdef ndarray Y = as_output(out, X)
    if not trains:
        a.draws.threshold = 0
        elementwise(KERNEL_dropout, &a, sizeof(a), MEMORY_ORDER, X, Y)
    elif kept is None:
        elementwise(KERNEL_dropout, &a, sizeof(a), INDEX_ORDER, X, Y)
    elif in_runs(drawn, shape) and is_plain(X) and is_plain(Y) and apart_from(X, Y) is X:
        runs.x = np.PyArray_DATA(X)
        runs.kept = <uint8_t *>np.PyArray_DATA(kept)
        runs.out = np.PyArray_DATA(Y)
        runs.scale = a.scale
        count = np.PyArray_SIZE(kept)
        runs.length = np.PyArray_SIZE(X) // count if count else 0
        over_items(KERNEL_dropout_runs, dtype_of(X), &runs, count, 1 + BLOCK // (1 + runs.length), np.PyArray_SIZE(X))
    else:
        shared.scale = a.scale
        elementwise(KERNEL_dropout_shared, &shared, sizeof(shared), MEMORY_ORDER, X, kept, Y)
    return finished(Y, out)


def dropout(x, p=0.5, *, seed, offset=0, training=True, mode="inverted", axis=None, start=0, out=None):
    r"""Drop each element with probability p, and scale what is kept.

    In training, element i becomes x_i·m_i/(1 − p), where m_i is 0 with probability `p` and 1 otherwise; otherwise it
    is left alone. The expectation of a training pass is therefore the other pass.

    There is no state and no stored mask: m_i is a pure function of (`seed`, `offset`, i), with i the index of the
    element in C order, so that `dropout_backward` draws it again. The same numbers give the same mask for every dtype,
    layout, instruction set and number of threads, and in every later version. Use one `seed` for a run and another
    `offset` for every call: masks of different offsets are independent.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    p : float
        The probability of being dropped, in [0, 1] (not of being kept), exact to 2\ :sup:`-32`.
    seed : int
        In [0, 2**64): the key of the random numbers.
    offset : int
        In [0, 2**64): which of the seed's streams.
    training : bool
        If false, nothing is dropped.
    mode : {"inverted", "vanilla"}
        "inverted" scales by 1/(1 − p) in training. "vanilla" does not, and multiplies by 1 − p when `training` is
        false.
    axis : int or tuple of int, optional
        The axes along which decisions are drawn; along the others they are shared. ``axis=(0, 1)`` of an array
        (N, C, H, W) drops whole channels. None draws one for each element.
    start : int
        The index of the first decision: for a part of a larger array, how many decisions come before it.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. A dropped element is +0.0 whatever it was, NaN and inf included.

    Raises
    ------
    TypeError
        An argument has a type that is not allowed, or `out` has another dtype than the result.
    ValueError
        `p` is not in [0, 1], `seed`, `offset` or `start` is out of range, `mode` is unknown, `axis` does not fit, or
        `out` has another shape than `x` or is read-only.

    See Also
    --------
    dropout_backward, dropout_mask

    References
    ----------
    .. [1] N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple way to prevent
       neural networks from overfitting", Journal of Machine Learning Research 15, 2014.
    .. [2] J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    .. [3] Y. Gal, Z. Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty in deep learning",
       ICML 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import fastreg
    >>> fastreg.dropout(np.arange(1.0, 9.0), p=0.5, seed=1)
    array([0., 4., 6., 8., 0., 0., 0., 0.])
    >>> fastreg.dropout(np.arange(1.0, 9.0), p=0.5, seed=1, training=False)
    array([1., 2., 3., 4., 5., 6., 7., 8.])

    Monte-Carlo dropout [3]_: one input, many offsets. The answers' mean is the prediction, and their spread says how
    much the units disagree about it; here it is √(p/((1 − p)·100)). ``examples/mc_dropout.py`` draws it for a network.

    >>> units, weight = np.ones(100), np.full(100, 0.01)
    >>> answers = [fastreg.dropout(units, p=0.2, seed=3, offset=k) @ weight for k in range(2000)]
    >>> print(f"{np.mean(answers):.2f} ± {np.std(answers):.2f}")
    1.00 ± 0.05
    """
    return drop(x, "x", p, seed, offset, training, mode, axis, start, out)


def dropout_backward(grad, p=0.5, *, seed, offset=0, training=True, mode="inverted", axis=None, start=0, out=None):
    r"""The gradient of `dropout` by its input.

    Dropout multiplies each element by m_i/(1 − p), so its gradient is the same product: the mask is drawn again from
    the (`seed`, `offset`) of the forward pass.

    Parameters
    ----------
    grad : array_like
        The gradient by the output of `dropout`.
    p, seed, offset, training, mode, axis, start
        Those of the forward pass.
    out : ndarray, optional
        Where to put the result: shape of `grad` and dtype of the result. It may be `grad` itself.

    Returns
    -------
    ndarray
        Shape of `grad`; `out` if it was given.

    Raises
    ------
    TypeError, ValueError
        As `dropout`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastreg
    >>> x, grad = np.ones(5), np.arange(5.0)
    >>> y = fastreg.dropout(x, p=0.25, seed=7, offset=3)
    >>> np.array_equal(fastreg.dropout_backward(grad, p=0.25, seed=7, offset=3), y * grad)
    True
    """
    return drop(grad, "grad", p, seed, offset, training, mode, axis, start, out)


def dropout_mask(shape, p=0.5, *, seed, offset=0, axis=None, packed=False, start=0):
    r"""The decisions that `dropout` draws for an array of a shape.

    Parameters
    ----------
    shape : int or tuple of int
        Of the array.
    p : float
        The probability of being dropped, in [0, 1].
    seed, offset : int
        In [0, 2**64): the stream of random numbers.
    axis : int or tuple of int, optional
        The axes along which decisions are drawn; along the others they are shared. None draws one for each element.
    packed : bool
        Pack eight decisions to the byte.
    start : int
        The index of the first decision: for a part of a larger array, how many decisions come before it. The masks of
        the parts are the parts of the mask.

    Returns
    -------
    ndarray
        bool, of `shape`: True where an element is kept. With `packed`, uint8 of length ceil(n/8), in C order, the
        first element in the highest bit as `numpy.packbits` has it, and zeros after the last.

    Raises
    ------
    TypeError
        An argument has a type that is not allowed.
    ValueError
        `p` is not in [0, 1], `seed`, `offset` or `start` is out of range, a length is negative, or `axis` does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastreg
    >>> mask = fastreg.dropout_mask((2, 4), p=0.5, seed=0)
    >>> packed = fastreg.dropout_mask((2, 4), p=0.5, seed=0, packed=True)
    >>> np.array_equal(np.packbits(mask), packed)
    True

    A mask in two parts, as two machines would make it:

    >>> parts = [fastreg.dropout_mask((1, 4), p=0.5, seed=0, start=start) for start in (0, 4)]
    >>> np.array_equal(np.concatenate(parts), mask)
    True
    """
    cdef fastreg_draws draws
    cdef ndarray kept
    cdef bint pack = bool(packed)
    if hasattr(shape, "__index__"):
        shape = (shape,)
    try:
        shape = list(shape)
    except TypeError:
        raise TypeError(f"shape: got {type(shape).__name__}; an int or a tuple of ints is needed") from None
    for d in range(len(shape)):
        shape[d] = integer(shape[d], "shape")
    shape = tuple(shape)
    if shape and min(shape) < 0:
        raise ValueError(f"shape: got {shape}; lengths >= 0 are allowed")
    drawn = drawn_shape(shape, axis)
    draw(&draws, fraction(p, "p"), seed, offset, start)
    size_of(shape)
    if drawn == shape:
        return mask_of(&draws, drawn, size_of(drawn), pack)
    kept = mask_of(&draws, drawn, size_of(drawn), False)
    whole = numpy.broadcast_to(kept, shape)
    return numpy.packbits(whole) if pack else whole.copy()


# ---- DropConnect: a linear layer whose weights are dropped ---------------------------------------------------------
#
# The masked weights are made by blocks of rows, each as the product is about to need it, and never as a whole: 2 MB of
# f32, near the caches and large enough for BLAS to share among its threads. Forward and backward of 64 samples and
# 4096 × 4096 weights take 21.9 and 46.4 ms on one core, 20.9 and 36.1 on two; with blocks of half the size 22.7, 48.3,
# 25.0 and 40.2, of twice 21.7, 46.7, 18.9 and 34.1 (but for 1024 × 1024 weights a sixth more). The products are BLAS's,
# through NumPy, of operands that are always C-contiguous, so that a layout changes no bit.


cdef ndarray linear_input(object x, str name):
    cdef ndarray X = as_floating(x, name)
    if np.PyArray_NDIM(X) != 2:
        raise ValueError(f"{name}: got shape {(<object>X).shape}; a matrix, one row a sample, is needed")
    return in_index_order(X)


cdef ndarray linear_weight(object weight, ndarray X, int64_t columns):
    cdef ndarray W = as_floating_like(weight, X, "weight")
    if np.PyArray_NDIM(W) != 2 or np.PyArray_DIM(W, 1) != columns:
        raise ValueError(f"weight: got shape {(<object>W).shape}; (out_features, {columns}) is needed")
    return in_index_order(W)


def row_blocks(rows, columns):
    """Slices of as many rows as WEIGHTS elements are."""
    step = max(1, WEIGHTS // max(1, columns))
    blocks = []
    for row in range(0, rows, step):
        blocks.append(slice(row, min(row + step, rows)))
    return blocks


def dropconnect(x, weight, bias=None, p=0.5, *, seed, offset=0, training=True):
    r"""A linear layer each of whose weights is dropped with probability p: x @ (mask∘weight)ᵀ/(1 − p) + bias.

    Where dropout drops an input for all units, DropConnect drops each connection of its own. The mask is
    ``dropout_mask(weight.shape, p, seed=seed, offset=offset)``; it is not stored, and no more than a block of masked
    weights is ever held.

    Parameters
    ----------
    x : array_like
        (n, in_features): a sample a row. float32 and float64 are kept, float16 is computed as float32, bool and
        integers as float64.
    weight : array_like
        (out_features, in_features), taken in the dtype of `x`.
    bias : array_like, optional
        (out_features,), taken in the dtype of `x`. It is not dropped.
    p : float
        The probability of a weight's being dropped, in [0, 1].
    seed, offset : int
        In [0, 2**64): the stream of random numbers, as of `dropout`.
    training : bool
        If false, nothing is dropped: x @ weightᵀ + bias.

    Returns
    -------
    ndarray
        (n, out_features).

    Raises
    ------
    TypeError
        An argument has a type that is not allowed.
    ValueError
        A shape does not fit, `p` is not in [0, 1], or `seed` or `offset` is out of range.

    See Also
    --------
    dropconnect_backward, dropout_mask

    References
    ----------
    .. [1] L. Wan, M. Zeiler, S. Zhang, Y. LeCun, R. Fergus, "Regularization of neural networks using DropConnect",
       ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> import fastreg
    >>> x, weight = np.ones((1, 3)), np.arange(6.0).reshape(2, 3)
    >>> mask = fastreg.dropout_mask((2, 3), p=0.5, seed=4)
    >>> y = fastreg.dropconnect(x, weight, p=0.5, seed=4)
    >>> np.array_equal(y, x @ (2 * mask * weight).T)
    True
    """
    cdef ndarray X = linear_input(x, "x")
    cdef ndarray W = linear_weight(weight, X, np.PyArray_DIM(X, 1))
    cdef ndarray B = None
    cdef fastreg_draws draws
    cdef int64_t columns = np.PyArray_DIM(W, 1)
    cdef double probability = fraction(p, "p")
    draw(&draws, probability, seed, offset, 0)
    if bias is not None:
        B = as_floating_like(bias, X, "bias")
        check_length(B, np.PyArray_DIM(W, 0), "bias")
    rows = (<object>W).shape[0]
    y = numpy.empty((X.shape[0], rows), (<object>X).dtype)
    if not training:
        numpy.matmul(X, (<object>W).T, out=y)
    else:
        blocks = row_blocks(rows, columns)
        held = numpy.empty((blocks[0].stop if blocks else 0, columns), (<object>X).dtype)
        for block in blocks:
            masked = held[: block.stop - block.start]
            dropout(W[block], probability, seed=seed, offset=offset, start=block.start * columns, out=masked)
            numpy.matmul(X, masked.T, out=y[:, block])
    if B is not None:
        y += B
    return y


def dropconnect_backward(grad, x, weight, p=0.5, *, seed, offset=0):
    r"""The gradients of `dropconnect` by its input, weight and bias.

    With M = mask/(1 − p), drawn again from (`seed`, `offset`): by x it is grad @ (M∘weight), by weight M∘(gradᵀ @ x),
    by bias the sum of grad over the samples.

    Parameters
    ----------
    grad : array_like
        (n, out_features): the gradient by the output.
    x : array_like
        (n, in_features): the input of the forward pass.
    weight : array_like
        (out_features, in_features): the weights of the forward pass.
    p, seed, offset
        Those of the forward pass.

    Returns
    -------
    grad_x, grad_weight, grad_bias : ndarray
        In the dtype of `x`, with the shapes of `x`, `weight` and (out_features,).

    Raises
    ------
    TypeError, ValueError
        As `dropconnect`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastreg
    >>> x, weight, grad = np.ones((1, 3)), np.arange(6.0).reshape(2, 3), np.ones((1, 2))
    >>> grad_x, grad_weight, grad_bias = fastreg.dropconnect_backward(grad, x, weight, p=0.5, seed=4)
    >>> np.array_equal(grad_weight, 2.0 * fastreg.dropout_mask((2, 3), p=0.5, seed=4))
    True
    """
    cdef ndarray X = linear_input(x, "x")
    cdef ndarray W = linear_weight(weight, X, np.PyArray_DIM(X, 1))
    cdef ndarray G = in_index_order(as_floating_like(grad, X, "grad"))
    cdef fastreg_draws draws
    cdef int64_t columns = np.PyArray_DIM(W, 1)
    cdef double probability = fraction(p, "p")
    draw(&draws, probability, seed, offset, 0)
    rows = (<object>W).shape[0]
    if (<object>G).shape != (X.shape[0], rows):
        raise ValueError(f"grad: got shape {(<object>G).shape}; {(X.shape[0], rows)} is needed")
    dtype = (<object>X).dtype
    grad_x, grad_weight = numpy.zeros((X.shape[0], columns), dtype), numpy.empty((rows, columns), dtype)
    # Summed in float64, as all sums here.
    grad_bias = numpy.add.reduce(G, axis=0, dtype=numpy.float64).astype(dtype)
    blocks = row_blocks(rows, columns)
    held = numpy.empty((blocks[0].stop if blocks else 0, columns), dtype)
    for block in blocks:
        masked = held[: block.stop - block.start]
        stream = {"seed": seed, "offset": offset, "start": block.start * columns}
        dropout(W[block], probability, out=masked, **stream)
        grad_x += numpy.matmul(G[:, block], masked)
        numpy.matmul((<object>G)[:, block].T, X, out=grad_weight[block])
        dropout(grad_weight[block], probability, out=grad_weight[block], **stream)
    return grad_x, grad_weight, grad_bias
