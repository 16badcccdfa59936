/* Elementwise work on operands of any layout.
 *
 * Operands that are contiguous in the order of the walk are handed to the kernel as they are. The others are
 * gathered, a chunk at a time, into a buffer that stays in the first-level cache, and scattered from it: no
 * temporary as large as an operand, and the kernel's loop, hence its bits, are the same for every layout. */
#include <string.h>

#include "core.h"

enum { MAX_ARGS = 256, BLOCK = 8 * FASTREG_CHUNK, ITEM = 8 };

/* An operand's elements in the order of the walk: axes of length 1 dropped, neighbours merged. */
typedef struct {
    int ndim;
    intptr_t shape[FASTREG_MAX_DIMS], stride[FASTREG_MAX_DIMS];
} layout;

static intptr_t magnitude(intptr_t x) { return x < 0 ? -x : x; }

/* The order of the axes. Where order is free, memory order of the operand that is written (insertion sort from
 * the longest stride down, axes of equal stride left as they are); `ordered` work keeps the index order. */
static void axis_order(const fastreg_walk *w, const char *roles, int order[FASTREG_MAX_DIMS])
{
    int lead = 0;
    for (int k = 0; roles[k]; k++)
        if (roles[k] != 'r' && roles[k] != 'b')
            lead = k;
    for (int d = 0; d < w->ndim; d++)
        order[d] = d;
    if (w->ordered)
        return;
    const intptr_t *stride = w->strides[lead];
    for (int d = 1; d < w->ndim; d++)
        for (int e = d; e > 0 && magnitude(stride[order[e - 1]]) < magnitude(stride[order[e]]); e--) {
            int swap = order[e];
            order[e] = order[e - 1];
            order[e - 1] = swap;
        }
}

static void lay_out(layout *l, const fastreg_walk *w, int operand, const int *order)
{
    l->ndim = 0;
    for (int d = 0; d < w->ndim; d++) {
        intptr_t length = w->shape[order[d]], stride = w->strides[operand][order[d]];
        if (length == 1)
            continue;
        if (l->ndim && l->stride[l->ndim - 1] == stride * length) {
            l->shape[l->ndim - 1] *= length;
            l->stride[l->ndim - 1] = stride;
        }
        else {
            l->shape[l->ndim] = length;
            l->stride[l->ndim] = stride;
            l->ndim++;
        }
    }
}

static int is_direct(const layout *l, const char *data, int itemsize)
{
    return (uintptr_t)data % (uintptr_t)itemsize == 0 && (l->ndim == 0 || (l->ndim == 1 && l->stride[0] == itemsize));
}

/* Copies n items between a run of stride `step` and the buffer. memcpy of a constant size is one move, and the only
 * one that C allows for items that are not aligned. */
#define COPY_RUN(size)                                         \
    do {                                                       \
        if (to_buffer)                                         \
            for (intptr_t i = 0; i < n; i++)                   \
                memcpy(buffer + i * size, run + i * step, size); \
        else                                                   \
            for (intptr_t i = 0; i < n; i++)                   \
                memcpy(run + i * step, buffer + i * size, size); \
    } while (0)

static void copy_run(char *run, intptr_t step, char *buffer, intptr_t n, int itemsize, int to_buffer)
{
    if (step == itemsize) {
        if (to_buffer)
            memcpy(buffer, run, (size_t)n * (size_t)itemsize);
        else
            memcpy(run, buffer, (size_t)n * (size_t)itemsize);
    }
    else if (itemsize == 4)
        COPY_RUN(4);
    else if (itemsize == 8)
        COPY_RUN(8);
    else
        COPY_RUN(1);
}

/* Gathers elements first … first+n−1 into the buffer, or scatters them from it. */
static void copy_elements(const layout *l, char *data, char *buffer, int64_t first, int64_t n, int itemsize, int to_buffer)
{
    intptr_t index[FASTREG_MAX_DIMS];
    int last = l->ndim - 1;
    if (last < 0) {
        memcpy(to_buffer ? buffer : data, to_buffer ? data : buffer, (size_t)itemsize);
        return;
    }
    for (int d = last; d >= 0; d--) {
        index[d] = (intptr_t)(first % l->shape[d]);
        first /= l->shape[d];
        data += index[d] * l->stride[d];
    }
    while (n > 0) {
        intptr_t run = l->shape[last] - index[last];
        if (run > n)
            run = (intptr_t)n;
        copy_run(data, l->stride[last], buffer, run, itemsize, to_buffer);
        buffer += run * itemsize;
        n -= run;
        /* On to the next run: back to the start of this one, then carry. */
        data -= index[last] * l->stride[last];
        index[last] = 0;
        for (int d = last - 1; d >= 0; d--) {
            data += l->stride[d];
            if (++index[d] < l->shape[d])
                break;
            data -= index[d] * l->stride[d];
            index[d] = 0;
        }
    }
}

/* Arguments of which the first members are the operands' pointers. */
typedef union {
    char *operand[FASTREG_MAX_OPERANDS];
    char bytes[MAX_ARGS];
} arguments;

static int item_size(char role, int dtype) { return role == 'b' || role == 'B' ? 1 : dtype == FASTREG_F32 ? 4 : 8; }

static void run_contiguous(const fastreg_walk *w, int64_t first, int64_t n)
{
    fastreg_kernel *kernel = fastreg_lookup(w->kernel, w->dtype);
    if (first == 0) {
        kernel(w->args, 0, n);
        return;
    }
    const char *roles = fastreg_roles(w->kernel);
    arguments args;
    memcpy(args.bytes, w->args, w->args_size);
    for (int k = 0; roles[k]; k++)
        if (args.operand[k])
            args.operand[k] += first * item_size(roles[k], w->dtype);
    kernel(&args, first, n);
}

static void run_strided(const fastreg_walk *w, int64_t first, int64_t n)
{
    fastreg_kernel *kernel = fastreg_lookup(w->kernel, w->dtype);
    const char *roles = fastreg_roles(w->kernel);
    int order[FASTREG_MAX_DIMS], direct[FASTREG_MAX_OPERANDS];
    layout layouts[FASTREG_MAX_OPERANDS];
    arguments given, args;
    double buffers[FASTREG_MAX_OPERANDS][FASTREG_CHUNK * ITEM / sizeof(double)];

    memcpy(given.bytes, w->args, w->args_size);
    args = given;
    axis_order(w, roles, order);
    for (int k = 0; roles[k]; k++) {
        if (!given.operand[k])
            continue;
        lay_out(&layouts[k], w, k, order);
        direct[k] = is_direct(&layouts[k], given.operand[k], item_size(roles[k], w->dtype));
    }
    for (int64_t end = first + n; first < end; first += n) {
        n = end - first < FASTREG_CHUNK ? end - first : FASTREG_CHUNK;
        for (int k = 0; roles[k]; k++) {
            if (!given.operand[k])
                continue;
            int size = item_size(roles[k], w->dtype);
            if (direct[k]) {
                args.operand[k] = given.operand[k] + first * size;
                continue;
            }
            args.operand[k] = (char *)buffers[k];
            if (roles[k] == 'r' || roles[k] == 'u' || roles[k] == 'b')
                copy_elements(&layouts[k], given.operand[k], args.operand[k], first, n, size, 1);
        }
        kernel(&args, first, n);
        for (int k = 0; roles[k]; k++)
            if (given.operand[k] && !direct[k] && roles[k] != 'r' && roles[k] != 'b')
                copy_elements(&layouts[k], given.operand[k], args.operand[k], first, n, item_size(roles[k], w->dtype), 0);
    }
}

static void run(const fastreg_walk *w, int64_t first, int64_t n)
{
    if (w->ndim == 0)
        run_contiguous(w, first, n);
    else
        run_strided(w, first, n);
}

typedef struct {
    const fastreg_walk *walks;
    int64_t count;
} job;

static int64_t blocks_of(const fastreg_walk *w) { return (w->n + BLOCK - 1) / BLOCK; }

static void run_block(const void *context, int64_t block)
{
    const job *j = context;
    const fastreg_walk *w = j->walks;
    for (; block >= blocks_of(w); w++)
        block -= blocks_of(w);
    int64_t first = block * BLOCK;
    run(w, first, w->n - first < BLOCK ? w->n - first : BLOCK);
}

static void run_all(const void *context, int64_t block)
{
    (void)block;
    const job *j = context;
    for (int64_t k = 0; k < j->count; k++)
        if (j->walks[k].n)
            run(&j->walks[k], 0, j->walks[k].n);
}

void fastreg_elementwise(const fastreg_walk *walks, int64_t count)
{
    job j = {walks, count};
    int64_t blocks = 0, elements = 0;
    for (int64_t k = 0; k < count; k++) {
        blocks += blocks_of(&walks[k]);
        elements += walks[k].n;
    }
    if (blocks == 0)
        return;
    if (blocks > 1 && (fastreg_cutoffs_ignored() || elements >= fastreg_cutoff(walks->kernel)))
        fastreg_parallel(run_block, &j, blocks);
    else
        fastreg_parallel(run_all, &j, 1);
}

/* ---- items ------------------------------------------------------------------------------------------------ */

typedef struct {
    fastreg_kernel *kernel;
    const void *args;
    int64_t n, per_block;
} item_job;

static void run_items(const void *context, int64_t block)
{
    const item_job *j = context;
    int64_t first = block * j->per_block;
    j->kernel(j->args, first, j->n - first < j->per_block ? j->n - first : j->per_block);
}

void fastreg_items(int kernel, int dtype, const void *args, int64_t n, int64_t per_block, int64_t elements)
{
    if (n <= 0)
        return;
    item_job j = {fastreg_lookup(kernel, dtype), args, n, per_block};
    if (!fastreg_cutoffs_ignored() && elements < fastreg_cutoff(kernel))
        j.per_block = n;
    fastreg_parallel(run_items, &j, (n + j.per_block - 1) / j.per_block);
}
