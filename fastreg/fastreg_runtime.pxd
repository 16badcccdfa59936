# The C core as the other compiled modules see it: they cimport these functions instead of linking csrc/ again,
# so that a process has one table of kernels and one pool.
from libc.stdint cimport int64_t, intptr_t


cdef extern from "fastreg.h" nogil:
    enum:
        FASTREG_F32
        FASTREG_F64
        FASTREG_MAX_OPERANDS
        FASTREG_MAX_DIMS
        FASTREG_CHUNK

    ctypedef struct fastreg_walk:
        int kernel
        int dtype
        int ordered
        int ndim
        int64_t n
        const void *args
        size_t args_size
        const intptr_t *shape
        const intptr_t *strides[8]

    ctypedef struct fastreg_slices:
        char *data
        int itemsize
        int direct
        int64_t outer
        int64_t channels
        int64_t inner
        intptr_t channel_stride
        int outer_ndim
        int inner_ndim
        intptr_t outer_shape[FASTREG_MAX_DIMS]
        intptr_t outer_stride[FASTREG_MAX_DIMS]
        intptr_t inner_shape[FASTREG_MAX_DIMS]
        intptr_t inner_stride[FASTREG_MAX_DIMS]


cdef void run_elementwise(fastreg_walk *walks, int64_t count) noexcept nogil
cdef void run_items(
    int kernel, int dtype, const void *args, int64_t n, int64_t per_block, int64_t elements
) noexcept nogil
cdef const char *roles_of(int kernel) noexcept nogil
