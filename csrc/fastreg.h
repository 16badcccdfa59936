/* What Cython sees of the C core, and nothing else.
 *
 * A kernel is a plain loop over n elements (or items) of which the first has index `first`:
 *
 *     void kernel(const void *args, int64_t first, int64_t n);
 *
 * Its arguments are a struct declared by its line in kernels.def. Elementwise kernels find the pointers of
 * their operands first in that struct, already advanced to element `first` and contiguous; fastreg_elementwise()
 * sees to that for operands of any layout. All other kernels are cut by fastreg_items() into ranges of items
 * (channels, rows, tensors) and find their pointers as the caller set them. */
#ifndef FASTREG_H
#define FASTREG_H

#include <stddef.h>
#include <stdint.h>

enum { FASTREG_F32, FASTREG_F64 };

enum {
    FASTREG_MAX_OPERANDS = 8,
    FASTREG_MAX_DIMS = 64, /* NumPy 2's own limit */
    /* Everything that depends on an order of elements (sums, random numbers) is defined on chunks of this
     * many; blocks are whole chunks, so no block, thread or layout changes a bit. */
    FASTREG_CHUNK = 2048
};

/* Which random decisions: those of elements start … in the stream (seed, offset), dropped below t = round(p·2³²). */
typedef struct {
    uint64_t seed, offset, start, threshold;
} fastreg_draws;

/* An array of any layout as slices (outer, channels, inner) of its C order, for kernels that sum over some axes and
 * not others. Where `direct`, the `inner` elements of a run (outer, channel) are adjacent and aligned; otherwise kernels
 * gather them, a buffer at a time. */
typedef struct {
    char *data;
    int itemsize, direct;
    int64_t outer, channels, inner;
    intptr_t channel_stride; /* bytes, as all strides */
    int outer_ndim, inner_ndim;
    intptr_t outer_shape[FASTREG_MAX_DIMS], outer_stride[FASTREG_MAX_DIMS];
    intptr_t inner_shape[FASTREG_MAX_DIMS], inner_stride[FASTREG_MAX_DIMS];
} fastreg_slices;

/* The units of norm.inc's sums, by which _norm.pyx allocates their results. */
enum {
    NORM_BLOCK = 8192, /* elements of a channel whose sum is made on its own */
    NORM_ROWS = 256,   /* rows of columns, likewise */
    NORM_TILE = 512,   /* columns taken together: their sums stay in the first-level cache */
    NORM_GROUP = 64,   /* channels taken together, where their runs are short */
    NORM_SHORT = 16    /* runs shorter than this are taken as columns */
};

/* One struct and one number a kernel. */
#define KERNEL(name, roles, cutoff, ...) typedef struct { __VA_ARGS__; } name##_args;
#include "kernels.def"
#undef KERNEL

enum {
#define KERNEL(name, roles, cutoff, ...) KERNEL_##name,
#include "kernels.def"
#undef KERNEL
    FASTREG_KERNELS
};

/* ---- work: elementwise ----------------------------------------------------------------------------------- */

typedef struct {
    int kernel;
    int dtype;
    int ordered;     /* the index of an element matters: walk in C order, never in memory order */
    int ndim;        /* 0: every operand is contiguous, in one order; shape and strides are not read */
    int64_t n;
    int64_t begin;   /* chunks of the walks before it: set by fastreg_elementwise */
    const void *args;
    size_t args_size;
    const intptr_t *shape;
    const intptr_t *strides[FASTREG_MAX_OPERANDS]; /* bytes, one per axis of shape; 0 where it is broadcast */
} fastreg_walk;

/* Runs `count` elementwise calls of one kernel as one job of the pool. Cannot fail and allocates nothing on the heap. */
void fastreg_elementwise(fastreg_walk *walks, int64_t count);

/* ---- work: items ----------------------------------------------------------------------------------------- */

/* Runs a kernel over items 0 … n−1, `per_block` at a time; `elements` (in all) decides whether threads pay. */
void fastreg_items(int kernel, int dtype, const void *args, int64_t n, int64_t per_block, int64_t elements);

/* ---- runtime --------------------------------------------------------------------------------------------- */

/* Picks the best instruction set that the CPU, the OS and `cap` ("" for no cap) allow.
 * 0: done; -1: no such name; -2: this machine or this build does not have it. */
int fastreg_select_isa(const char *cap);
const char *fastreg_isa(void);            /* in use */
const char *fastreg_isa_built(int index); /* NULL past the end */
const char *fastreg_compiler(void);
const char *fastreg_kernel_name(int kernel);
const char *fastreg_roles(int kernel);

/* Exported under these names for threadpoolctl. */
int fastreg_get_num_threads(void);
void fastreg_set_num_threads(int n);
/* For tests: 1 makes every call that has two blocks a job of the pool, whatever its cut-off. */
void fastreg_ignore_cutoffs(int ignore);
int fastreg_workers_started(void);

#endif
