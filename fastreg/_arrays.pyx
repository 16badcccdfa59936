"""The one place where arguments are checked, outputs are made and layouts are met.

Everything here runs before the first element is written: when it raises, nothing has changed. Each error names
the argument, what came and what is allowed.
"""
from cpython.float cimport PyFloat_CheckExact, PyFloat_AsDouble
from cpython.long cimport PyLong_AsUnsignedLongLong
from cpython.ref cimport PyObject
from libc.math cimport INFINITY
from libc.string cimport strlen
cimport numpy as np
from numpy cimport ndarray

import operator

import numpy

from fastreg.fastreg_runtime cimport (
    FASTREG_F32, FASTREG_F64, FASTREG_MAX_DIMS, fastreg_slices, fastreg_walk, roles_of, run_elementwise, run_items,
)

np.import_array()

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewLikeArray(ndarray prototype, np.NPY_ORDER order, void *dtype, int subok)

cdef enum:
    MAX_OPERANDS = 6


# ---- text for errors --------------------------------------------------------------------------------------------

cdef str shape_text(ndarray x):
    return str((<object>x).shape)


cdef object wrong_type(str name, str came, str allowed):
    return TypeError(f"{name}: got {came}; {allowed}")


cdef object wrong_value(str name, object came, str allowed):
    return ValueError(f"{name}: got {came}; {allowed}")


# ---- arrays in --------------------------------------------------------------------------------------------------

cdef inline bint is_native_floating(ndarray x) noexcept:
    cdef int t = np.PyArray_TYPE(x)
    return (t == np.NPY_FLOAT or t == np.NPY_DOUBLE) and np.PyArray_ISNOTSWAPPED(x)


cdef ndarray as_floating(object x, str name):
    """`x` as a native, aligned float32 or float64 array, itself where it is one already.

    bool and integers become float64, float16 becomes float32; whatever numpy.asarray or numpy.from_dlpack can
    view comes in without a copy.
    """
    if np.PyArray_CheckExact(x) and is_native_floating(x) and np.PyArray_ISALIGNED(x):
        return x
    return converted(x, name)


cdef object viewed(object x):
    """An array over what NumPy or DLPack can see, or of what NumPy can read."""
    if hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
        return numpy.from_dlpack(x)
    return numpy.asarray(x)


cdef ndarray converted(object x, str name):
    if isinstance(x, numpy.ma.MaskedArray):
        raise wrong_type(name, "a masked array", "its mask would be lost: pass x.filled(value) or x.data")
    try:
        a = viewed(x)
    except Exception as error:
        raise wrong_type(name, type(x).__name__, f"it cannot be viewed as an array ({error})") from error
    dtype = a.dtype
    if dtype.kind in "biu":
        wanted = numpy.float64
    elif dtype.kind == "f" and dtype.itemsize <= 4:
        wanted = numpy.float32
    elif dtype.char == "d":
        wanted = numpy.float64
    else:
        raise wrong_type(name, f"dtype {dtype}", "bool, integers, float16, float32 and float64 are allowed")
    a = a.astype(wanted, order="K", copy=False, subok=False)
    if not a.flags.aligned:
        a = a.copy(order="K")
    return a


cdef ndarray as_type(ndarray x, int typenum):
    if np.PyArray_TYPE(x) == typenum:
        return x
    return (<object>x).astype(numpy.float32 if typenum == np.NPY_FLOAT else numpy.float64, order="K")


cdef ndarray as_floating_like(object x, ndarray like, str name):
    """For parameters such as weights, which are taken in the dtype of the data."""
    return as_type(as_floating(x, name), np.PyArray_TYPE(like))


cdef ndarray as_updated(object x, str name):
    """An array that is updated in place: native float32 or float64, writeable, no element twice."""
    if not isinstance(x, ndarray):
        raise wrong_type(name, type(x).__name__, "it is updated in place: a NumPy array is needed")
    if not np.PyArray_CheckExact(x) and isinstance(x, numpy.ma.MaskedArray):
        raise wrong_type(name, "a masked array", "its mask would be ignored: pass x.data")
    cdef ndarray a = x
    if not is_native_floating(a):
        raise wrong_type(name, f"dtype {x.dtype}", "it is updated in place: native float32 or float64 is needed")
    if not np.PyArray_ISWRITEABLE(a):
        raise wrong_type(name, "a read-only array", "it is updated in place: a writeable one is needed")
    if overlaps_itself(a):
        raise wrong_value(name, "an array whose elements share memory", "it is updated in place: distinct elements are needed")
    return a


cdef ndarray as_state(object x, ndarray like, str name):
    """An array that is updated in place: as `as_updated`, with the dtype and shape of `like`."""
    cdef ndarray a = as_updated(x, name)
    if np.PyArray_TYPE(a) != np.PyArray_TYPE(like):
        raise wrong_type(name, f"dtype {x.dtype}", f"it is updated in place: {(<object>like).dtype} is needed")
    check_shape(a, like, name, "the array it belongs to")
    return a


cdef ndarray scalar_or_each(object value, ndarray like, str name, double *scalar):
    """A real number (None is returned) or an array of them that broadcasts to `like`, in its dtype."""
    if PyFloat_CheckExact(value) or not np.PyArray_Check(value) and not isinstance(value, (list, tuple)) \
            and not hasattr(value, "__array__") and not hasattr(value, "__dlpack__"):
        scalar[0] = real(value, name)
        return None
    cdef ndarray each = as_floating_like(value, like, name)
    if np.PyArray_NDIM(each) == 0:
        scalar[0] = real(each.item(), name)
        return None
    check_broadcasts(each, like, name, "x")
    scalar[0] = 0.0
    return each


cdef enum:
    FEW = 16384  # elements that are looked at sooner than NumPy is called


cdef bint at_least(ndarray x, double floor) except -1:
    """Whether all elements are; NaN is not."""
    cdef np.npy_intp i, n = np.PyArray_SIZE(x)
    cdef const float *f
    cdef const double *d
    cdef int below = 0
    if n > FEW or not np.PyArray_IS_C_CONTIGUOUS(x):
        # The minimum is NaN where any element is.
        return (<object>x).min() >= floor
    if np.PyArray_TYPE(x) == np.NPY_FLOAT:
        f = <const float *>np.PyArray_DATA(x)
        for i in range(n):
            below |= not f[i] >= floor
    else:
        d = <const double *>np.PyArray_DATA(x)
        for i in range(n):
            below |= not d[i] >= floor
    return not below


cdef ndarray nonnegative_each(object value, ndarray like, str name, double *scalar):
    """A scalar >= 0 (None is returned) or an array of them that broadcasts to `like`, in its dtype."""
    cdef ndarray each = scalar_or_each(value, like, name, scalar)
    if each is None:
        if not scalar[0] >= 0:
            raise wrong_value(name, scalar[0], "a number >= 0 is allowed")
    elif not at_least(each, 0.0):
        raise wrong_value(name, "negative or NaN elements", "all must be >= 0")
    return each


cdef ndarray bound_each(object value, ndarray like, str name, double *scalar):
    """A bound: any number but NaN (None is returned), or an array of them that broadcasts to `like`, in its dtype."""
    cdef ndarray each = scalar_or_each(value, like, name, scalar)
    if each is None:
        if scalar[0] != scalar[0]:
            raise wrong_value(name, scalar[0], "a number is needed")
    elif not at_least(each, -INFINITY):
        raise wrong_value(name, "NaN elements", "numbers are needed")
    return each


# ---- scalars in -------------------------------------------------------------------------------------------------

cdef double real(object value, str name) except? -1.0:
    if PyFloat_CheckExact(value):
        return PyFloat_AsDouble(value)
    if isinstance(value, ndarray) and value.ndim:
        raise wrong_type(name, f"an array of shape {value.shape}", "a real number is needed")
    # float() would take the real part of NumPy's complex numbers, and read its text.
    if isinstance(value, (ndarray, numpy.generic)) and value.dtype.kind not in "biuf":
        raise wrong_type(name, f"dtype {value.dtype}", "a real number is needed")
    try:
        return PyFloat_AsDouble(value)
    except (TypeError, ValueError):
        raise wrong_type(name, type(value).__name__, "a real number is needed") from None
    except OverflowError:
        raise wrong_value(name, "an integer beyond the range of a double", "a real number is needed") from None


cdef double nonnegative(object value, str name) except? -1.0:
    cdef double v = real(value, name)
    if not v >= 0:
        raise wrong_value(name, v, "a number >= 0 is allowed")
    return v


cdef double positive(object value, str name) except? -1.0:
    cdef double v = real(value, name)
    if not v > 0:
        raise wrong_value(name, v, "a number > 0 is allowed")
    return v


cdef double fraction(object value, str name) except? -1.0:
    cdef double v = real(value, name)
    if not (0 <= v <= 1):
        raise wrong_value(name, v, "a number in [0, 1] is allowed")
    return v


cdef int64_t integer(object value, str name) except? -1:
    if isinstance(value, (bool, numpy.bool_)):
        raise wrong_type(name, "a bool", "an integer is needed")
    try:
        value = operator.index(value)
    except TypeError:
        raise wrong_type(name, type(value).__name__, "an integer is needed") from None
    if not -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        raise wrong_value(name, value, "a 64-bit integer is needed")
    return value


cdef uint64_t unsigned64(object value, str name) except? 0:
    if type(value) is int:
        try:
            return <uint64_t>PyLong_AsUnsignedLongLong(value)
        except OverflowError:
            raise wrong_value(name, value, "an integer in [0, 2**64) is allowed") from None
    if isinstance(value, (bool, numpy.bool_)):
        raise wrong_type(name, "a bool", "an integer in [0, 2**64) is needed")
    try:
        value = operator.index(value)
    except TypeError:
        raise wrong_type(name, type(value).__name__, "an integer in [0, 2**64) is needed") from None
    if not 0 <= value < 0x10000000000000000:
        raise wrong_value(name, value, "an integer in [0, 2**64) is allowed")
    return value


cdef int axis_of(object axis, int ndim, str name) except -1:
    cdef int64_t a = integer(axis, name)
    if not -ndim <= a < ndim:
        raise wrong_value(name, a, f"the array has {ndim} dimension{'s' if ndim != 1 else ''}")
    return <int>(a + ndim if a < 0 else a)


cdef tuple axes_of(object axis, int ndim, str name):
    """None (all of them), an int or a tuple of ints, as a sorted tuple without repetition."""
    if axis is None:
        return tuple(range(ndim))
    if not isinstance(axis, (tuple, list)):
        return (axis_of(axis, ndim, name),)
    cdef list found = []
    for a in axis:
        found.append(axis_of(a, ndim, name))
    found.sort()
    if len(set(found)) != len(found):
        raise wrong_value(name, axis, "each axis may be named once")
    return tuple(found)


# ---- relations between arguments --------------------------------------------------------------------------------

cdef bint same_shape(ndarray a, ndarray b) noexcept:
    cdef int d, ndim = np.PyArray_NDIM(a)
    if np.PyArray_NDIM(b) != ndim:
        return False
    for d in range(ndim):
        if np.PyArray_DIM(a, d) != np.PyArray_DIM(b, d):
            return False
    return True


cdef int check_shape(ndarray x, ndarray like, str name, str like_name) except -1:
    if not same_shape(x, like):
        raise wrong_value(name, f"shape {shape_text(x)}", f"that of {like_name}, {shape_text(like)}, is needed")
    return 0


cdef int check_length(ndarray x, int64_t length, str name) except -1:
    if np.PyArray_NDIM(x) != 1 or np.PyArray_DIM(x, 0) != length:
        raise wrong_value(name, f"shape {shape_text(x)}", f"({length},) is needed")
    return 0


cdef int check_broadcasts(ndarray x, ndarray to, str name, str to_name) except -1:
    cdef int d, lead = np.PyArray_NDIM(to) - np.PyArray_NDIM(x)
    cdef bint fits = lead >= 0
    if fits:
        for d in range(np.PyArray_NDIM(x)):
            if np.PyArray_DIM(x, d) != 1 and np.PyArray_DIM(x, d) != np.PyArray_DIM(to, d + lead):
                fits = False
    if not fits:
        raise wrong_value(name, f"shape {shape_text(x)}", f"one that broadcasts to {to_name}, {shape_text(to)}, is needed")
    return 0


cdef void extent(ndarray x, char **low, char **high) noexcept:
    """The bytes that x may touch; high is one past the end, and low for an empty array."""
    cdef int d
    cdef np.npy_intp span
    low[0] = np.PyArray_BYTES(x)
    high[0] = low[0] + np.PyArray_ITEMSIZE(x)
    for d in range(np.PyArray_NDIM(x)):
        if np.PyArray_DIM(x, d) == 0:
            high[0] = low[0] = np.PyArray_BYTES(x)
            return
        span = (np.PyArray_DIM(x, d) - 1) * np.PyArray_STRIDE(x, d)
        if span < 0:
            low[0] += span
        else:
            high[0] += span


cdef bint overlap(ndarray a, ndarray b) noexcept:
    """Whether the two may share memory: exact for contiguous arrays, on the safe side for interleaved ones."""
    cdef char *a_low
    cdef char *a_high
    cdef char *b_low
    cdef char *b_high
    extent(a, &a_low, &a_high)
    extent(b, &b_low, &b_high)
    return a_low < b_high and b_low < a_high


cdef bint overlaps_itself(ndarray x) noexcept:
    """Whether two elements may share memory: axes taken from the shortest stride up must each clear those before."""
    cdef int ndim = np.PyArray_NDIM(x), d, best
    cdef np.npy_intp reach = np.PyArray_ITEMSIZE(x), stride, shortest
    cdef bint taken[FASTREG_MAX_DIMS]
    if np.PyArray_IS_C_CONTIGUOUS(x) or np.PyArray_IS_F_CONTIGUOUS(x) or np.PyArray_SIZE(x) == 0:
        return False
    for d in range(ndim):
        taken[d] = np.PyArray_DIM(x, d) == 1
    while True:
        best = -1
        shortest = 0
        for d in range(ndim):
            stride = np.PyArray_STRIDE(x, d)
            if stride < 0:
                stride = -stride
            if not taken[d] and (best < 0 or stride < shortest):
                best = d
                shortest = stride
        if best < 0:
            return False
        if shortest < reach:
            return True
        reach += shortest * (np.PyArray_DIM(x, best) - 1)
        taken[best] = True


cdef bint same_elements(ndarray a, ndarray b) noexcept:
    """The same memory in the same layout: an elementwise kernel may read one while it writes the other."""
    cdef int d
    if np.PyArray_BYTES(a) != np.PyArray_BYTES(b) or not same_shape(a, b):
        return False
    for d in range(np.PyArray_NDIM(a)):
        if np.PyArray_STRIDE(a, d) != np.PyArray_STRIDE(b, d):
            return False
    return np.PyArray_ITEMSIZE(a) == np.PyArray_ITEMSIZE(b)


cdef ndarray apart_from(ndarray x, ndarray out):
    """`x`, or a copy where writing `out` would change what is still to be read: `out` may be `x` itself, element for
    element, but not overlap it in any other way."""
    if overlap(x, out) and not same_elements(x, out):
        return np.PyArray_NewCopy(x, np.NPY_KEEPORDER)
    return x


cdef int check_disjoint(ndarray a, ndarray b, str a_name, str b_name) except -1:
    if overlap(a, b):
        raise ValueError(f"{a_name} and {b_name}: both are updated in place, yet they share memory")
    return 0


# ---- results out ------------------------------------------------------------------------------------------------

cdef ndarray as_output(object out, ndarray like):
    """A new array in the layout of `like`, or `out` if it has its shape and dtype and can be written."""
    if out is None:
        return PyArray_NewLikeArray(like, np.NPY_KEEPORDER, NULL, 0)
    check_output(out, np.PyArray_TYPE(like))
    if not same_shape(out, like):
        raise wrong_value("out", f"shape {shape_text(out)}", f"that of the result, {shape_text(like)}, is needed")
    return writeable_native(out)


cdef ndarray as_output_of(object out, tuple shape, int typenum):
    """A new C-contiguous array, or `out` if it has that shape and dtype and can be written."""
    cdef object dtype = np.PyArray_DescrFromType(typenum)
    if out is None:
        return numpy.empty(shape, dtype)
    check_output(out, typenum)
    if out.shape != shape:
        raise wrong_value("out", f"shape {shape_text(out)}", f"that of the result, {shape}, is needed")
    return writeable_native(out)


cdef int check_output(object out, int typenum) except -1:
    if not np.PyArray_Check(out):
        raise wrong_type("out", type(out).__name__, "a NumPy array is needed")
    if np.PyArray_TYPE(out) != typenum:
        raise wrong_type("out", f"dtype {out.dtype}", f"that of the result, {np.PyArray_DescrFromType(typenum)}, is needed")
    if not np.PyArray_ISWRITEABLE(out):
        raise wrong_value("out", "a read-only array", "a writeable one is needed")
    if overlaps_itself(out):
        raise wrong_value("out", "an array whose elements share memory", "distinct elements are needed")
    return 0


cdef ndarray writeable_native(ndarray out):
    """`out`, or for a byte-swapped one an array from which `finished` fills it."""
    if np.PyArray_ISNOTSWAPPED(out):
        return out
    return (<object>out).astype((<object>out).dtype.newbyteorder("="), order="K")


cdef object finished(ndarray result, object out):
    """What a function returns: `out` if it was given, a scalar for a 0-d result, else the result."""
    if out is None:
        if np.PyArray_NDIM(result) == 0:
            return result[()]
        return result
    if <PyObject *>result != <PyObject *>out:
        numpy.copyto(out, result)
    return out


# ---- work -------------------------------------------------------------------------------------------------------

cdef int dtype_of(ndarray x) noexcept:
    return FASTREG_F32 if np.PyArray_TYPE(x) == np.NPY_FLOAT else FASTREG_F64


cdef ndarray in_index_order(ndarray x):
    """`x`, or a C-contiguous copy."""
    if np.PyArray_ISCARRAY_RO(x):
        return x
    return np.PyArray_NewCopy(x, np.NPY_CORDER)


cdef int merge_axes(
    const intptr_t *shape, const intptr_t *stride, int ndim, intptr_t *merged_shape, intptr_t *merged_stride
) noexcept:
    cdef int d, n = 0
    for d in range(ndim):
        if shape[d] == 1:
            continue
        if n and merged_stride[n - 1] == stride[d] * shape[d]:
            merged_shape[n - 1] *= shape[d]
            merged_stride[n - 1] = stride[d]
        else:
            merged_shape[n] = shape[d]
            merged_stride[n] = stride[d]
            n += 1
    return n


cdef void as_slices(
    fastreg_slices *s, ndarray x, const intptr_t *shape, const intptr_t *stride, int ndim, int outer_ndim, bint channels
) noexcept:
    """See `x`, of this logical shape and these strides, as slices: the first `outer_ndim` axes, then one of channels
    (if `channels`), then the inner ones."""
    cdef int d, inner = outer_ndim + channels
    s.data = <char *>np.PyArray_DATA(x)
    s.itemsize = <int>np.PyArray_ITEMSIZE(x)
    s.outer = s.inner = 1
    for d in range(outer_ndim):
        s.outer *= shape[d]
    for d in range(inner, ndim):
        s.inner *= shape[d]
    s.channels = shape[outer_ndim] if channels else 1
    s.channel_stride = stride[outer_ndim] if channels else 0
    s.outer_ndim = merge_axes(shape, stride, outer_ndim, s.outer_shape, s.outer_stride)
    if s.outer_ndim == 0:
        s.outer_ndim = 1
        s.outer_shape[0] = 1
        s.outer_stride[0] = 0
    s.inner_ndim = merge_axes(shape + inner, stride + inner, ndim - inner, s.inner_shape, s.inner_stride)
    s.direct = np.PyArray_ISALIGNED(x) and (s.inner_ndim == 0 or s.inner_ndim == 1 and s.inner_stride[0] == s.itemsize)


cdef intptr_t ONE = 1


cdef object plan(
    fastreg_walk *walk, intptr_t *strides, int kernel, void *args, size_t size, int order, PyObject **operands, int count
):
    """Fill in `walk`, and the pointers of the operands in `args`.

    The first operand gives the shape, the others have it or broadcast to it; NULL is absent. `strides` has room for
    count x FASTREG_MAX_DIMS. An operand that is read and shares memory with one that is written, other than element
    for element, is replaced by a copy: what is returned keeps those alive and must outlive the work.
    """
    cdef const char *roles = roles_of(kernel)
    cdef ndarray shape_of = <ndarray>operands[0]
    cdef ndarray x
    cdef list copies = None
    cdef int k, j, d, lead, ndim = np.PyArray_NDIM(shape_of)
    cdef np.npy_intp n = np.PyArray_SIZE(shape_of)
    cdef bint c_order = True, f_order = order == MEMORY_ORDER
    for k in range(count):
        if operands[k] is NULL:
            (<void **>args)[k] = NULL
            continue
        x = <ndarray>operands[k]
        if roles[k] == c'r' or roles[k] == c'b':
            for j in range(count):
                if operands[j] is NULL or roles[j] == c'r' or roles[j] == c'b' or operands[j] is operands[k]:
                    continue
                if overlap(x, <ndarray>operands[j]) and not same_elements(x, <ndarray>operands[j]):
                    x = np.PyArray_NewCopy(x, np.NPY_KEEPORDER)
                    operands[k] = <PyObject *>x
                    if copies is None:
                        copies = []
                    copies.append(x)
                    break
        (<void **>args)[k] = np.PyArray_DATA(x)
        if np.PyArray_SIZE(x) != n or not np.PyArray_ISALIGNED(x):
            c_order = f_order = False
        else:
            c_order = c_order and np.PyArray_IS_C_CONTIGUOUS(x)
            f_order = f_order and np.PyArray_IS_F_CONTIGUOUS(x) and np.PyArray_NDIM(x) == ndim
    walk.kernel = kernel
    walk.dtype = dtype_of(shape_of)
    walk.ordered = order
    walk.n = n
    walk.args = args
    walk.args_size = size
    walk.ndim = 0
    if c_order or f_order:
        return copies
    # A misaligned 0-d array has an axis of length 1 here: ndim = 0 says contiguous to the core.
    walk.ndim = ndim if ndim else 1
    walk.shape = <const intptr_t *>np.PyArray_DIMS(shape_of) if ndim else &ONE
    for k in range(count):
        if operands[k] is NULL:
            continue
        x = <ndarray>operands[k]
        walk.strides[k] = strides + k * FASTREG_MAX_DIMS
        lead = walk.ndim - np.PyArray_NDIM(x)
        for d in range(walk.ndim):
            if d < lead or np.PyArray_DIM(x, d - lead) == 1:
                strides[k * FASTREG_MAX_DIMS + d] = 0
            else:
                strides[k * FASTREG_MAX_DIMS + d] = np.PyArray_STRIDE(x, d - lead)
    return copies


cdef inline PyObject *present(ndarray x) noexcept:
    return NULL if x is None else <PyObject *>x


cdef int elementwise(
    int kernel, void *args, size_t size, int order, ndarray a,
    ndarray b=None, ndarray c=None, ndarray d=None, ndarray e=None, ndarray f=None,
) except -1:
    """Run a kernel over its operands, given in the order of its roles; see `plan`."""
    cdef fastreg_walk walk
    cdef intptr_t strides[MAX_OPERANDS * FASTREG_MAX_DIMS]
    cdef PyObject *operands[MAX_OPERANDS]
    operands[:] = [present(a), present(b), present(c), present(d), present(e), present(f)]
    _copies = plan(&walk, strides, kernel, args, size, order, operands, <int>strlen(roles_of(kernel)))
    if walk.n < SMALL:
        run_elementwise(&walk, 1)
    else:
        with nogil:
            run_elementwise(&walk, 1)
    return 0


cdef int over_items(
    int kernel, int dtype, const void *args, int64_t n, int64_t per_block, int64_t elements
) except -1:
    if elements < SMALL:
        run_items(kernel, dtype, args, n, per_block, elements)
    else:
        with nogil:
            run_items(kernel, dtype, args, n, per_block, elements)
    return 0
