/* Elementwise work on operands of any layout.
 *
 * Operands that are contiguous in the order of the walk are handed to the kernel as they are. The others are
 * gathered, a piece at a time, into a buffer that stays in the first-level cache, and scattered from it: no
 * temporary as large as an operand, and the kernel's loop, hence its bits, are the same for every layout. */
#include <string.h>

#include "core.h"

enum { MAX_ARGS = 256, LEAST_BLOCK = 8, MOST_BLOCK = 32 /* chunks */, ITEM = 8, PIECE_BYTES = 8192, CACHE_LINE = 64 };

/* Arguments of which the first members are the operands' pointers. */
typedef union {
    char *operand[FASTREG_MAX_OPERANDS];
    char bytes[MAX_ARGS];
} arguments;

/* An operand's elements in the order of the walk: axes of length 1 dropped, neighbours merged. */
typedef struct {
    int ndim;
    intptr_t shape[FASTREG_MAX_DIMS], stride[FASTREG_MAX_DIMS];
} layout;

static int is_read_only(char role) { return role == 'r' || role == 'b'; }

static intptr_t magnitude(intptr_t x) { return x < 0 ? -x : x; }

/* The first operand that is written, and present; else the first. */
static int written_operand(const fastreg_walk *w)
{
    const char *roles = fastreg_roles(w->kernel);
    const arguments *given = w->args;
    for (int k = 0; roles[k]; k++)
        if (!is_read_only(roles[k]) && given->operand[k])
            return k;
    return 0;
}

/* The order of the axes. Where order is free, memory order of the operand that is written (insertion sort from
 * the longest stride down, axes of equal stride left as they are); `ordered` work keeps the index order. */
static void axis_order(const fastreg_walk *w, int order[FASTREG_MAX_DIMS])
{
    for (int d = 0; d < w->ndim; d++)
        order[d] = d;
    if (w->ordered)
        return;
    const intptr_t *stride = w->strides[written_operand(w)];
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
    else if (itemsize == 1 && step == 0 && to_buffer)
        memset(buffer, *run, (size_t)n); /* a channel's decision, for all of its elements */
    else if (itemsize == 4)
        COPY_RUN(4);
    else if (itemsize == 8)
        COPY_RUN(8);
    else
        COPY_RUN(1);
}

static intptr_t offset(const layout *l, int64_t element)
{
    intptr_t bytes = 0;
    for (int d = l->ndim - 1; d >= 0; d--) {
        bytes += (intptr_t)(element % l->shape[d]) * l->stride[d];
        element /= l->shape[d];
    }
    return bytes;
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

/* Elements before the first that begins a line of the cache. Vectors of a written operand that straddle two lines cost a
 * fifth of the time of a pass over memory, and NumPy's large arrays begin 16 bytes into a line; any partition of
 * elementwise work gives the same bits. */
static int64_t before_line(const char *data, int itemsize)
{
    return (int64_t)(-(uintptr_t)data % CACHE_LINE) / itemsize;
}

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

/* After how many elements an operand begins again, as a weight a feature does with each row; 0: it does not. */
static int64_t period(const layout *l)
{
    if (l->ndim == 0 || l->stride[0] != 0)
        return 0;
    int64_t n = 1;
    for (int d = 1; d < l->ndim; d++)
        n *= l->shape[d];
    return n;
}

/* The length of the runs in which an operand is contiguous; 0: it is not. */
static int64_t run_length(const layout *l, const char *data, int itemsize)
{
    int last = l->ndim - 1;
    uintptr_t apart = (uintptr_t)data;
    for (int d = 0; d < last; d++)
        apart |= (uintptr_t)l->stride[d];
    return last < 0 || l->stride[last] != itemsize || apart % (uintptr_t)itemsize ? 0 : l->shape[last];
}

typedef enum { DIRECT, IN_ROWS, KEPT, GATHERED } way;

/* A walk over operands of which some are not contiguous. */
typedef struct {
    fastreg_kernel *kernel;
    int operands, size[FASTREG_MAX_OPERANDS], reads[FASTREG_MAX_OPERANDS], writes[FASTREG_MAX_OPERANDS];
    way way[FASTREG_MAX_OPERANDS];
    layout layouts[FASTREG_MAX_OPERANDS];
    arguments given, args;
    _Alignas(CACHE_LINE) double buffers[FASTREG_MAX_OPERANDS][FASTREG_CHUNK * ITEM / sizeof(double)];
} strided;

/* `again`: what is kept is in its buffer. */
static void run_piece(strided *s, int64_t first, int64_t n, int again)
{
    int scatters = 0;
    for (int k = 0; k < s->operands; k++) {
        char *data = s->given.operand[k];
        if (!data || (again && s->way[k] == KEPT))
            continue;
        if (s->way[k] == DIRECT)
            s->args.operand[k] = data + first * s->size[k];
        else if (s->way[k] == IN_ROWS)
            s->args.operand[k] = data + offset(&s->layouts[k], first);
        else {
            s->args.operand[k] = (char *)s->buffers[k];
            scatters |= s->writes[k];
            if (s->reads[k])
                copy_elements(&s->layouts[k], data, s->args.operand[k], first, n, s->size[k], 1);
        }
    }
    s->kernel(&s->args, first, n);
    for (int k = 0; scatters && k < s->operands; k++)
        if (s->given.operand[k] && s->way[k] == GATHERED && s->writes[k])
            copy_elements(&s->layouts[k], s->given.operand[k], s->args.operand[k], first, n, s->size[k], 0);
}

/* In pieces. Where only elements matter, not their chunks, a piece is whole periods, and what repeats is gathered once; of
 * periods too long for a buffer, and of long rows, a piece is what is left, where it is. A piece of three operands leaves
 * room in the first-level cache, if one period does. */
static void run_strided(const fastreg_walk *w, int64_t first, int64_t n)
{
    strided s;
    const char *roles = fastreg_roles(w->kernel);
    const int64_t item = item_size('r', w->dtype), end = first + n;
    int64_t longest = 0, row = 0, piece = FASTREG_CHUNK, repeats[FASTREG_MAX_OPERANDS], length[FASTREG_MAX_OPERANDS];
    int order[FASTREG_MAX_DIMS], gathered = 0, k;

    s.kernel = fastreg_lookup(w->kernel, w->dtype);
    memcpy(s.given.bytes, w->args, w->args_size);
    s.args = s.given;
    axis_order(w, order);
    for (k = 0; roles[k]; k++) {
        char *data = s.given.operand[k];
        if (!data)
            continue;
        s.size[k] = item_size(roles[k], w->dtype);
        s.writes[k] = !is_read_only(roles[k]);
        s.reads[k] = !s.writes[k] || roles[k] == 'u';
        lay_out(&s.layouts[k], w, k, order);
        s.way[k] = is_direct(&s.layouts[k], data, s.size[k]) ? DIRECT : GATHERED;
        repeats[k] = s.writes[k] ? 0 : period(&s.layouts[k]);
        length[k] = run_length(&s.layouts[k], data, s.size[k]);
        if (s.way[k] == DIRECT || w->ordered)
            continue;
        if (repeats[k] <= FASTREG_CHUNK * ITEM / item && repeats[k] > longest)
            longest = repeats[k];
        if (length[k] >= FASTREG_CHUNK && (row == 0 || length[k] < row))
            row = length[k];
    }
    s.operands = k;
    if (longest > 0) {
        piece = PIECE_BYTES / item / longest * longest;
        piece = piece > 0 ? piece : longest;
        row = 0;
    }
    for (k = 0; roles[k]; k++) {
        if (!s.given.operand[k] || s.way[k] == DIRECT)
            continue;
        if (repeats[k] > 0 && piece % repeats[k] == 0)
            s.way[k] = KEPT;
        else if (row > 0 && length[k] == row)
            s.way[k] = IN_ROWS;
        else
            gathered = 1;
    }
    if (row > 0 && !gathered)
        piece = row;

    int written = written_operand(w), again = 0;
    int64_t lead = 0;
    if (!w->ordered && row == 0 && n >= 2 * FASTREG_CHUNK && s.given.operand[written] && s.way[written] == DIRECT)
        lead = before_line(s.given.operand[written] + first * s.size[written], s.size[written]);
    for (; first < end; first += n) {
        n = end - first < piece ? end - first : piece;
        if (row > 0 && n > row - first % row)
            n = row - first % row;
        if (lead && lead < n)
            n = lead;
        run_piece(&s, first, n, again);
        again = !lead;
        lead = 0;
    }
}

static int64_t unaligned_lead(const fastreg_walk *w)
{
    if (w->ndim || w->ordered || w->n < 2 * FASTREG_CHUNK)
        return 0;
    int k = written_operand(w);
    const arguments *given = w->args;
    return before_line(given->operand[k], item_size(fastreg_roles(w->kernel)[k], w->dtype));
}

/* Chunks from …  to … − 1 of a walk, which begin where a cache line does, but for the first. */
static void run(const fastreg_walk *w, int64_t from, int64_t to)
{
    int64_t lead = unaligned_lead(w), first = from * FASTREG_CHUNK, end = to * FASTREG_CHUNK + lead;
    if (end > w->n)
        end = w->n;
    if (w->ndim) {
        run_strided(w, first, end - first);
        return;
    }
    if (lead && first == 0)
        run_contiguous(w, 0, lead);
    first += lead;
    if (first < end)
        run_contiguous(w, first, end - first);
}

static int64_t chunks_of(const fastreg_walk *w) { return (w->n + FASTREG_CHUNK - 1) / FASTREG_CHUNK; }

typedef struct {
    const fastreg_walk *walks;
    int64_t count, chunks, per_block;
} job;

/* A block is a run of chunks, over as many of the walks as it takes. */
static void run_block(const void *context, int64_t block)
{
    const job *j = context;
    int64_t chunk = block * j->per_block, end = chunk + j->per_block;
    if (end > j->chunks)
        end = j->chunks;
    /* The last walk that begins at the chunk or before. */
    int64_t low = 0, high = j->count;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (j->walks[middle].begin <= chunk)
            low = middle;
        else
            high = middle;
    }
    for (const fastreg_walk *w = &j->walks[low]; chunk < end; w++) {
        int64_t from = chunk - w->begin, to = chunks_of(w);
        if (to > end - w->begin)
            to = end - w->begin;
        if (from < to)
            run(w, from, to);
        chunk = w->begin + to;
    }
}

void fastreg_elementwise(fastreg_walk *walks, int64_t count)
{
    int64_t chunks = 0, elements = 0;
    for (int64_t k = 0; k < count; k++) {
        walks[k].begin = chunks;
        chunks += chunks_of(&walks[k]);
        elements += walks[k].n;
    }
    if (chunks == 0)
        return;
    /* A block costs some 60 ns, and one of the cheapest kernels takes a microsecond: so where one thread does it all is
     * one block, and where several share it, eight each keep them busy to the end. */
    int threads = fastreg_get_num_threads();
    int64_t per_block = chunks / (8 * threads);
    if (threads == 1 || (!fastreg_cutoffs_ignored() && elements < fastreg_cutoff(walks->kernel)))
        per_block = chunks;
    else
        per_block = per_block < LEAST_BLOCK ? LEAST_BLOCK : per_block > MOST_BLOCK ? MOST_BLOCK : per_block;
    job j = {walks, count, chunks, per_block};
    fastreg_parallel(run_block, &j, (chunks + j.per_block - 1) / j.per_block);
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
    if (fastreg_get_num_threads() == 1 || (!fastreg_cutoffs_ignored() && elements < fastreg_cutoff(kernel)))
        j.per_block = n;
    fastreg_parallel(run_items, &j, (n + j.per_block - 1) / j.per_block);
}
