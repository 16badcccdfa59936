# What the families use to check their arguments, make their outputs and run their kernels.
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, intptr_t, uint64_t
from numpy cimport ndarray

from fastreg.fastreg_runtime cimport fastreg_slices, fastreg_walk


# ---- arguments in ----
cdef object viewed(object x)
cdef ndarray as_floating(object x, str name)
cdef ndarray as_floating_like(object x, ndarray like, str name)
cdef ndarray as_type(ndarray x, int typenum)
cdef ndarray as_updated(object x, str name)
cdef ndarray as_state(object x, ndarray like, str name)
cdef ndarray nonnegative_each(object value, ndarray like, str name, double *scalar)
cdef ndarray bound_each(object value, ndarray like, str name, double *scalar)

cdef double real(object value, str name) except? -1.0
cdef double nonnegative(object value, str name) except? -1.0
cdef double positive(object value, str name) except? -1.0
cdef double fraction(object value, str name) except? -1.0
cdef int64_t integer(object value, str name) except? -1
cdef uint64_t unsigned64(object value, str name) except? 0
cdef int axis_of(object axis, int ndim, str name) except -1
cdef tuple axes_of(object axis, int ndim, str name)

cdef bint same_shape(ndarray a, ndarray b) noexcept
cdef int check_shape(ndarray x, ndarray like, str name, str like_name) except -1
cdef int check_length(ndarray x, int64_t length, str name) except -1
cdef int check_broadcasts(ndarray x, ndarray to, str name, str to_name) except -1
cdef ndarray apart_from(ndarray x, ndarray out)
cdef int check_disjoint(ndarray a, ndarray b, str a_name, str b_name) except -1

# ---- results out ----
cdef ndarray as_output(object out, ndarray like)
cdef ndarray as_output_of(object out, tuple shape, int typenum)
cdef object finished(ndarray result, object out)

# ---- work ----
cdef enum:
    MEMORY_ORDER = 0  # whatever order suits the operands' layouts
    INDEX_ORDER = 1   # C order: where an element's index or the order of a sum matters
    SMALL = 4096      # elements below which releasing the GIL costs more than it gives

cdef int dtype_of(ndarray x) noexcept
cdef void extent(ndarray x, char **low, char **high) noexcept
cdef bint overlap(ndarray a, ndarray b) noexcept
cdef ndarray in_index_order(ndarray x)

cdef void as_slices(
    fastreg_slices *s, ndarray x, const intptr_t *shape, const intptr_t *stride, int ndim, int outer_ndim, bint channels
) noexcept
cdef object plan(
    fastreg_walk *walk, intptr_t *strides, int kernel, void *args, size_t size, int order, PyObject **operands, int count
)
cdef int elementwise(
    int kernel, void *args, size_t size, int order, ndarray a,
    ndarray b=*, ndarray c=*, ndarray d=*, ndarray e=*, ndarray f=*,
) except -1
cdef int over_items(
    int kernel, int dtype, const void *args, int64_t n, int64_t per_block, int64_t elements
) except -1
