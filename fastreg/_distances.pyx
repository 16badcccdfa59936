"""Norms, similarities and distances."""
cimport numpy as np
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.math cimport INFINITY, frexp, ldexp
from libc.stdint cimport int64_t, uintptr_t
from numpy cimport ndarray

import numpy

from fastreg._arrays cimport (
    INDEX_ORDER, as_floating, as_output, as_output_of, as_type, axes_of, axis_of, check_shape, dtype_of, elementwise,
    finished, in_index_order, nonnegative, overlap, over_items, real,
)
from fastreg.fastreg_runtime cimport FASTREG_CHUNK, FASTREG_F32

np.import_array()


cdef extern from "fastreg.h":
    enum:
        KERNEL_cdist
        KERNEL_cdist_pack
        KERNEL_cosine_similarity
        KERNEL_norm
        KERNEL_norm_columns
        KERNEL_norm_columns_finish
        KERNEL_norm_combine
        KERNEL_norm_partials
        KERNEL_normalize
        KERNEL_normalize_backward

    ctypedef struct norm_partials_args:
        double *partials
        double p
        double by
        double then
        int kind
        int far

    ctypedef struct norm_combine_args:
        const double *partials
        double *result
        int64_t count
        int64_t exponent
        double p
        int kind

    ctypedef struct norm_args:
        const void *x
        void *out
        int64_t width
        double p
        int kind

    ctypedef struct norm_columns_args:
        const void *x
        const double *largest
        double *partials
        int64_t rows
        int64_t inner
        double p
        int kind

    ctypedef struct norm_columns_finish_args:
        const double *partials
        const double *largest
        double *norms
        void *out
        int64_t rows
        int64_t inner
        double p
        int kind

    ctypedef struct normalize_args:
        const void *x
        void *out
        int64_t width
        double p
        double eps
        int kind

    ctypedef struct normalize_backward_args:
        const void *grad
        const void *x
        void *out
        int64_t width
        double p
        double eps
        int kind

    ctypedef struct cosine_similarity_args:
        const void *x
        const void *y
        void *out
        int64_t width
        double eps

    ctypedef struct cdist_pack_args:
        const void *y
        void *packed
        int64_t width
        int64_t points

    ctypedef struct cdist_args:
        const void *x
        const void *y
        const void *packed
        void *out
        int64_t width
        int64_t rows
        int64_t points
        double p
        int metric
        int mirrored
        int narrow


# As in distances.inc.
cdef enum:
    COUNT, ABSOLUTE, SQUARES, LARGEST, SMALLEST, SCALED_SQUARES, POWERS

cdef enum:
    EUCLIDEAN, SQEUCLIDEAN, MANHATTAN, CHEBYSHEV, MINKOWSKI, COSINE, DOT

cdef enum:
    TILE_ROWS = 32
    LINE = 64
    COLUMN_BLOCK = 256
    FEW_PARTIALS = 64
    FAR_FROM = 16 << 20  # bytes of an array that is read from memory


cdef int kind_of(object p, double *value) except -1:
    """How the norm of this p is put together."""
    value[0] = real(p, "p")
    if value[0] == 0:
        return COUNT
    if value[0] == 1:
        return ABSOLUTE
    if value[0] == 2:
        return SQUARES
    if value[0] == INFINITY:
        return LARGEST
    if value[0] == -INFINITY:
        return SMALLEST
    if not value[0] > 0:
        raise ValueError(f'p: got {p!r}; a number >= 0, inf, -inf, "fro" or "nuc" is allowed')
    return POWERS


cdef ndarray rows_of(ndarray X, tuple axes):
    """`X` with `axes` last and made one, in C order: a vector to a row."""
    cdef int ndim = np.PyArray_NDIM(X), count = <int>len(axes)
    cdef tuple last = tuple(range(ndim - count, ndim))
    if axes != last:
        X = numpy.moveaxis(X, axes, last)
    return in_index_order(X)


cdef int64_t rows_per_block(int64_t width) noexcept:
    """As many as have the elements of a block of elementwise work."""
    return 1 if width > 8 * FASTREG_CHUNK else 8 * FASTREG_CHUNK // (width if width else 1)


cdef double norm_of_all(ndarray X, int kind, double p) except? -1.0:
    """The norm of all elements, in a pass over any layout with as many threads as there are."""
    cdef norm_partials_args a
    cdef double result[2]
    cdef double few[FEW_PARTIALS]
    cdef int64_t n = np.PyArray_SIZE(X), chunks = (n + FASTREG_CHUNK - 1) // FASTREG_CHUNK
    cdef norm_combine_args c
    cdef int e = 0
    if n == 0:
        return INFINITY if kind == SMALLEST else 0.0
    a.partials = few
    if chunks > FEW_PARTIALS:
        a.partials = <double *>PyMem_Malloc(chunks * sizeof(double))
        if a.partials is NULL:
            raise MemoryError
    a.p = c.p = p
    a.by = a.then = 1.0
    a.far = np.PyArray_NBYTES(X) >= FAR_FROM
    c.partials = a.partials
    c.result = result
    c.count = chunks
    try:
        a.kind = LARGEST if kind == POWERS else kind
        while True:
            c.kind = a.kind
            c.exponent = e
            elementwise(KERNEL_norm_partials, &a, sizeof(a), INDEX_ORDER, X)
            over_items(KERNEL_norm_combine, 0, &c, 1, 1, 1)
            # Squares of float64 that may have been lost, or overflowed: again, scaled by the largest.
            if a.kind == SQUARES and kind == SQUARES and dtype_of(X) != FASTREG_F32 \
                    and not (result[0] >= 2.0 ** -960 and result[0] < INFINITY) and result[0] == result[0]:
                kind = SCALED_SQUARES
                a.kind = LARGEST
            elif a.kind == LARGEST and kind != LARGEST and 0 < result[0] < INFINITY:
                frexp(result[0], &e)
                e = max(e, -1021)
                a.kind = kind
                a.by = ldexp(1.0, -(e // 2))
                a.then = ldexp(1.0, -(e - e // 2))
            else:
                return result[1]
    finally:
        if a.partials is not few:
            PyMem_Free(a.partials)


def norm(x, p=2, *, axis=None, keepdims=False):
    r"""Norm of a vector: (Σ\|x_i\|^p)^(1/p), of all elements or along axes.

    Nothing overflows or vanishes on the way that the result does not: elements of 1e200 or 1e-200 are fine. Sums are in
    double precision whatever the dtype; for p = 1 and 2 of float32, vectors of 64 elements or more have four terms added in
    their own first, which costs a sum at most 3 units of 2^-24, and a root of it half of that.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    p : float or {"fro", "nuc"}
        Any real p > 0; 0 counts the elements that are not 0; ``inf`` and ``-inf`` take the largest and the smallest
        \|x_i\|. ``"fro"`` is p = 2 over the two axes of a matrix, ``"nuc"`` the sum of its singular values.
    axis : int or tuple of int, optional
        The axes whose elements are one vector (for ``"fro"`` and ``"nuc"`` a pair); all of them by default.
    keepdims : bool
        Keep those axes with length 1.

    Returns
    -------
    float or ndarray
        A Python float over all elements, else an array in the dtype of `x`. The norm of no elements is 0 (inf for
        ``-inf``). NaN where an element is NaN.

    Raises
    ------
    TypeError
        `x` is complex, longdouble or not numeric, or `p` is no number.
    ValueError
        `p` is negative, NaN or an unknown name, an axis does not exist, or ``"nuc"`` or ``"fro"`` get other than a pair.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.norm(np.full(4, 1e200))
    2e+200
    >>> fastreg.norm(np.array([[3.0, -4.0], [0.0, 2.0]]), 1, axis=1)
    array([7., 2.])
    """
    cdef ndarray X = as_floating(x, "x")
    cdef double order
    cdef int kind
    cdef ndarray Y
    cdef tuple axes
    cdef int ndim = np.PyArray_NDIM(X)
    if isinstance(p, str):
        if p not in ("fro", "nuc"):
            raise ValueError(f'p: got {p!r}; a number >= 0, inf, -inf, "fro" or "nuc" is allowed')
        axes = axes_of(axis, ndim, "axis")
        if len(axes) != 2 and (axis is not None or p == "nuc"):
            raise ValueError(f'axis: got {axis!r} for an array of {ndim} dimensions; p="{p}" needs a pair of axes')
        if p == "nuc":
            values = numpy.linalg.svd(numpy.moveaxis(X, axes, (-2, -1)), compute_uv=False)
            return norm(values.reshape(-1), 1) if axis is None and not keepdims else nuclear(values, axes, ndim, keepdims)
        p = 2
    kind = kind_of(p, &order)
    if axis is None and not keepdims:
        return norm_of_all(X, kind, order)
    axes = axes_of(axis, ndim, "axis")
    Y = norm_along(X, axes, kind, order)
    return finished(numpy.expand_dims(Y, axes) if keepdims else Y, None)


cdef ndarray norm_along(ndarray X, tuple axes, int kind, double p):
    """The norm along axes, of the shape of the other axes."""
    cdef norm_args a
    cdef int d, ndim = np.PyArray_NDIM(X), count = <int>len(axes)
    cdef list lengths = []
    for d in range(ndim):
        if d not in axes:
            lengths.append(np.PyArray_DIM(X, d))
    cdef ndarray Y = as_output_of(None, tuple(lengths), np.PyArray_TYPE(X))
    a.width = 1
    for d in axes:
        a.width *= np.PyArray_DIM(X, d)
    if a.width == 0 or np.PyArray_SIZE(Y) == 0:
        (<object>Y).fill(INFINITY if kind == SMALLEST else 0.0)
        return Y
    # By the shape alone, since the layout must not change a bit.
    if count and axes[count - 1] < ndim - 1 and axes[count - 1] - axes[0] == count - 1:
        norm_of_columns(in_index_order(X), axes[count - 1], a.width, kind, p, Y)
        return Y
    cdef ndarray R = rows_of(X, axes)
    a.x = np.PyArray_DATA(R)
    a.out = np.PyArray_DATA(Y)
    a.kind = kind
    a.p = p
    over_items(KERNEL_norm, dtype_of(X), &a, np.PyArray_SIZE(Y), rows_per_block(a.width), np.PyArray_SIZE(X))
    return Y


cdef int norm_of_columns(ndarray X, int last, int64_t rows, int kind, double p, ndarray Y) except -1:
    """The norm of X, which is in C order, over `rows` elements along neighbouring axes of which `last` is the last."""
    cdef norm_columns_args a
    cdef norm_columns_finish_args f
    cdef int64_t columns = np.PyArray_SIZE(Y), blocks = (rows + COLUMN_BLOCK - 1) // COLUMN_BLOCK
    cdef int dtype = dtype_of(X)
    a.rows = f.rows = rows
    a.inner = f.inner = 1
    for d in range(last + 1, np.PyArray_NDIM(X)):
        a.inner *= np.PyArray_DIM(X, d)
    f.inner = a.inner
    a.x = np.PyArray_DATA(X)
    a.p = f.p = p
    cdef int64_t items = columns // a.inner * blocks
    cdef ndarray partials = numpy.empty(items * a.inner)
    cdef ndarray norms = numpy.empty(columns)
    cdef ndarray largest = None
    a.partials = <double *>np.PyArray_DATA(partials)
    f.partials = a.partials
    a.largest = f.largest = NULL
    a.kind = f.kind = LARGEST if kind == POWERS else kind
    while True:
        f.norms = <double *>np.PyArray_DATA(norms)
        f.out = np.PyArray_DATA(Y)
        over_items(
            KERNEL_norm_columns, dtype, &a, items, 1 + 8 * FASTREG_CHUNK // (a.inner * min(rows, COLUMN_BLOCK)),
            np.PyArray_SIZE(X),
        )
        over_items(KERNEL_norm_columns_finish, dtype, &f, columns, 1 + 8 * FASTREG_CHUNK // blocks, items * a.inner)
        if a.kind == POWERS or a.kind == SCALED_SQUARES or a.kind == LARGEST and kind == LARGEST:
            return 0
        if a.kind == LARGEST:
            a.kind = f.kind = kind
            largest = norms
            norms = numpy.empty(columns)
            a.largest = f.largest = <double *>np.PyArray_DATA(largest)
        elif a.kind == SQUARES and dtype != FASTREG_F32 and (<object>norms).min() < 0:
            kind = SCALED_SQUARES
            a.kind = f.kind = LARGEST
        else:
            return 0


cdef object nuclear(object values, tuple axes, int ndim, bint keepdims):
    result = norm(values, 1, axis=-1)
    return numpy.expand_dims(result, axes) if keepdims else result


cdef ndarray place_of_rows(ndarray Y, bint last, ndarray R, ndarray S):
    """Where to write results for rows R (and S, or None) that are to come to lie in Y: Y itself if it can be."""
    if not last or not np.PyArray_ISCARRAY(Y) or overlap(Y, R) and np.PyArray_DATA(Y) != np.PyArray_DATA(R) \
            or S is not None and overlap(Y, S) and np.PyArray_DATA(Y) != np.PyArray_DATA(S):
        return numpy.empty((<object>R).shape, (<object>R).dtype)
    return Y


def normalize(x, p=2, *, axis=-1, eps=1e-12, out=None):
    r"""Vectors of norm 1: x/max(‖x‖_p, eps) along an axis.

    Parameters
    ----------
    x : array_like
        One dimension or more. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    p : float
        Which norm, see `norm`.
    axis : int
        The axis along which the elements are one vector.
    eps : float
        The smallest divisor, >= 0: it keeps a zero vector zero.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`.

    Raises
    ------
    TypeError
        `x` is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `p` or `eps` is negative or NaN, `axis` does not exist, or `out` has another shape than `x` or is read-only.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    cdef normalize_args a
    cdef ndarray X = as_floating(x, "x")
    a.kind = kind_of(p, &a.p)
    a.eps = nonnegative(eps, "eps")
    cdef int k = axis_of(axis, np.PyArray_NDIM(X), "axis")
    cdef ndarray Y = as_output(out, X)
    cdef ndarray R = rows_of(X, (k,))
    cdef ndarray place = place_of_rows(Y, k == np.PyArray_NDIM(X) - 1, R, None)
    a.x = np.PyArray_DATA(R)
    a.out = np.PyArray_DATA(place)
    a.width = np.PyArray_DIM(X, k)
    cdef int64_t n = np.PyArray_SIZE(X)
    if n:
        over_items(KERNEL_normalize, dtype_of(X), &a, n // a.width, rows_per_block(a.width), n)
    if place is not Y:
        numpy.copyto(Y, numpy.moveaxis(place, -1, k))
    return finished(Y, out)


def normalize_backward(grad, x, p=2, *, axis=-1, eps=1e-12):
    r"""Gradient of `normalize` by x.

    With m = max(‖x‖, eps) and y = x/m: (grad − s·Σ grad·y)/m, where s is the gradient of the norm, sign(x)·\|y\|^(p−1),
    and 0 where the norm is not above eps. For p = ±inf it is shared among equal largest (smallest) elements.

    Parameters
    ----------
    grad : array_like
        Gradient by the result of `normalize`, of the shape of `x`.
    x : array_like
        What `normalize` was given.
    p, axis, eps
        As for `normalize`.

    Returns
    -------
    ndarray
        Shape of `x`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric.
    ValueError
        The shapes differ, `p` or `eps` is negative or NaN, or `axis` does not exist.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.normalize_backward(np.array([1.0, 0.0]), np.array([3.0, 4.0])).round(4)
    array([ 0.128, -0.096])
    """
    cdef normalize_backward_args a
    cdef ndarray G = as_floating(grad, "grad")
    cdef ndarray X = as_floating(x, "x")
    check_shape(G, X, "grad", "x")
    if np.PyArray_TYPE(X) != np.PyArray_TYPE(G):
        X = as_type(X, np.NPY_DOUBLE)
        G = as_type(G, np.NPY_DOUBLE)
    a.kind = kind_of(p, &a.p)
    a.eps = nonnegative(eps, "eps")
    cdef int k = axis_of(axis, np.PyArray_NDIM(X), "axis")
    cdef ndarray Y = as_output(None, X)
    cdef ndarray R = rows_of(X, (k,))
    G = rows_of(G, (k,))
    cdef ndarray place = place_of_rows(Y, k == np.PyArray_NDIM(X) - 1, R, G)
    a.grad = np.PyArray_DATA(G)
    a.x = np.PyArray_DATA(R)
    a.out = np.PyArray_DATA(place)
    a.width = np.PyArray_DIM(X, k)
    cdef int64_t n = np.PyArray_SIZE(X)
    if n:
        over_items(KERNEL_normalize_backward, dtype_of(X), &a, n // a.width, rows_per_block(a.width), n)
    if place is not Y:
        numpy.copyto(Y, numpy.moveaxis(place, -1, k))
    return finished(Y, None)


def cosine_similarity(x, y, *, axis=-1, eps=1e-8):
    r"""Cosine of the angle between vectors: Σ xy/(max(‖x‖₂, eps)·max(‖y‖₂, eps)) along an axis.

    Parameters
    ----------
    x, y : array_like
        Arrays that broadcast to one shape. float32 and float64 are kept (float64 if they differ), float16 is computed as
        float32, bool and integers as float64.
    axis : int
        The axis, of the common shape, along which the elements are one vector.
    eps : float
        A bound from below for each norm, >= 0: the similarity to a zero vector is 0.

    Returns
    -------
    ndarray
        The common shape without `axis`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric.
    ValueError
        `x` and `y` do not broadcast, `axis` does not exist, or `eps` is negative or NaN.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.cosine_similarity(np.array([[1.0, 0.0], [3.0, 4.0]]), np.array([3e200, 4e200]))
    array([0.6, 1. ])
    """
    cdef cosine_similarity_args a
    cdef ndarray X = as_floating(x, "x")
    cdef ndarray Y = as_floating(y, "y")
    if np.PyArray_TYPE(X) != np.PyArray_TYPE(Y):
        X = as_type(X, np.NPY_DOUBLE)
        Y = as_type(Y, np.NPY_DOUBLE)
    try:
        X, Y = numpy.broadcast_arrays(X, Y)
    except ValueError:
        raise ValueError(
            f"y: got shape {(<object>Y).shape}; one that broadcasts with that of x, {(<object>X).shape}, is needed"
        ) from None
    cdef int k = axis_of(axis, np.PyArray_NDIM(X), "axis")
    a.eps = nonnegative(eps, "eps")
    cdef ndarray R = rows_of(X, (k,))
    cdef ndarray S = rows_of(Y, (k,))
    shape = (<object>X).shape[:k] + (<object>X).shape[k + 1:]
    cdef ndarray Z = as_output_of(None, shape, np.PyArray_TYPE(X))
    a.x = np.PyArray_DATA(R)
    a.y = np.PyArray_DATA(S)
    a.out = np.PyArray_DATA(Z)
    a.width = np.PyArray_DIM(X, k)
    over_items(KERNEL_cosine_similarity, dtype_of(X), &a, np.PyArray_SIZE(Z), rows_per_block(a.width), np.PyArray_SIZE(X))
    return finished(Z, None)


cdef dict METRICS = {
    "euclidean": EUCLIDEAN, "sqeuclidean": SQEUCLIDEAN, "manhattan": MANHATTAN, "chebyshev": CHEBYSHEV,
    "minkowski": MINKOWSKI, "cosine": COSINE, "dot": DOT,
}


cdef ndarray points_of(object x, str name):
    cdef ndarray X = as_floating(x, name)
    if np.PyArray_NDIM(X) != 2:
        raise ValueError(f"{name}: got shape {(<object>X).shape}; (points, dimensions) is needed")
    return X


def cdist(x, y=None, *, metric="euclidean", p=2, out=None):
    r"""Distance of each point of x from each point of y.

    Differences are taken coordinate by coordinate, never by the expansion \|x\|² − 2xy + \|y\|², whose terms cancel for
    near points: a distance is right to a few units in its last place, and d(x, x) is 0.
    The cosine distance is that of unit vectors in double precision, ½Σ(x̂ − ŷ)²; of float32 vectors that are not nearly
    parallel it is 1 − Σx̂ŷ, right to one unit in its last place.

    Parameters
    ----------
    x : array_like
        Shape (n, d). float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    y : array_like, optional
        Shape (m, d); x itself by default, which takes half the work. float64 if the dtypes differ.
    metric : {"euclidean", "sqeuclidean", "manhattan", "chebyshev", "minkowski", "cosine", "dot"}
        √Σd², Σd², Σ\|d\|, max \|d\| and (Σ\|d\|^p)^(1/p) with d = x − y; 1 − cos of the angle (1 from a zero vector,
        whatever the other holds); and the inner product Σxy, no distance.
    p : float
        Of ``"minkowski"``, > 0 or inf.
    out : ndarray, optional
        Where to put the result.

    Returns
    -------
    ndarray
        Shape (n, m).

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `x` or `y` is no matrix, their dimensions differ, `metric` is unknown, `p` is not positive, or `out` has another
        shape or is read-only.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.cdist(np.array([[0.0, 0.0], [3.0, 4.0]]), metric="manhattan")
    array([[0., 7.],
           [7., 0.]])
    """
    cdef cdist_args a
    cdef cdist_pack_args pack
    if not isinstance(metric, str) or metric not in METRICS:
        raise ValueError(f"metric: got {metric!r}; {', '.join(METRICS)} are allowed")
    a.metric = METRICS[metric]
    a.p = real(p, "p")
    if not a.p > 0:
        raise ValueError(f"p: got {p!r}; a number > 0 is allowed")
    if a.metric == MINKOWSKI and a.p in (1, 2, INFINITY):
        a.metric = MANHATTAN if a.p == 1 else EUCLIDEAN if a.p == 2 else CHEBYSHEV
    cdef ndarray X = points_of(x, "x")
    cdef ndarray Y = X if y is None else points_of(y, "y")
    if np.PyArray_DIM(X, 1) != np.PyArray_DIM(Y, 1):
        raise ValueError(f"y: got points of {np.PyArray_DIM(Y, 1)} dimensions; those of x have {np.PyArray_DIM(X, 1)}")
    if np.PyArray_TYPE(X) != np.PyArray_TYPE(Y):
        X = as_type(X, np.NPY_DOUBLE)
        Y = as_type(Y, np.NPY_DOUBLE)
    a.mirrored = X is Y
    a.width = np.PyArray_DIM(X, 1)
    a.rows = np.PyArray_DIM(X, 0)
    a.points = np.PyArray_DIM(Y, 0)
    cdef ndarray Z = as_output_of(out, (a.rows, a.points), np.PyArray_TYPE(X))
    cdef ndarray U = in_index_order(X)
    cdef ndarray V = U if a.mirrored else in_index_order(Y)
    zero_x = zero_y = None
    if a.metric == COSINE:
        # Unit vectors in double; of a zero vector, zeros.
        zero_x = zero_y = <object>norm_along(U, (1,), LARGEST, 0.0) == 0
        U = normalize(as_type(U, np.NPY_DOUBLE), eps=5e-324)
        if a.mirrored:
            V = U
        else:
            zero_y = <object>norm_along(V, (1,), LARGEST, 0.0) == 0
            V = normalize(as_type(V, np.NPY_DOUBLE), eps=5e-324)
    cdef int itemsize = np.PyArray_ITEMSIZE(U)
    cdef int lanes = 128 // itemsize
    cdef int64_t blocks = (a.points + lanes - 1) // lanes
    cdef int64_t tiles = (a.rows + TILE_ROWS - 1) // TILE_ROWS
    # Begins with a line of the cache, for which there is one more: else every vector of it would lie in two.
    cdef ndarray room = numpy.empty(blocks * lanes * a.width + LINE // itemsize, (<object>U).dtype)
    cdef char *packed = <char *>np.PyArray_DATA(room)
    packed += -<uintptr_t>packed % LINE
    cdef ndarray place = Z
    if not np.PyArray_ISCARRAY(Z) or overlap(Z, U) or overlap(Z, V):
        place = numpy.empty((a.rows, a.points), (<object>Z).dtype)
    a.narrow = np.PyArray_TYPE(U) != np.PyArray_TYPE(Z)
    pack.y = np.PyArray_DATA(V)
    pack.packed = packed
    pack.width = a.width
    pack.points = a.points
    a.x = np.PyArray_DATA(U)
    a.y = np.PyArray_DATA(V)
    a.packed = packed
    a.out = np.PyArray_DATA(place)
    cdef int dtype = dtype_of(U)
    if a.rows and a.points:
        over_items(KERNEL_cdist_pack, dtype, &pack, blocks, 1 + 256 // (1 + a.width), a.points * a.width)
        over_items(KERNEL_cdist, dtype, &a, tiles, 1, a.rows * a.points * (1 + a.width // 16))
    if zero_x is not None:
        (<object>place)[zero_x] = 1.0
        (<object>place)[:, zero_y] = 1.0
    if place is not Z:
        numpy.copyto(Z, place)
    return finished(Z, out)
