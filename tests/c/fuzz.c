/* Differential fuzzer of the kernels and of the walk, in the manner of simdjson's: the same bytes through every
 * instruction set of this machine and through kernels compiled without vectorisation; results must be equal to the last bit.
 *
 *     fuzz [cases] [first seed]      cases of consecutive seeds
 *     fuzz - < file                  the seeds in a file
 *
 * A case is a function of its seed. Of every 64 one goes through fastreg_elementwise(): layouts, threads, chunks. */
#include <sys/mman.h>
#include <unistd.h>

#include "calls.h"

extern const fastreg_table fastreg_table_scalar;

static const struct {
    const char *name;
    const fastreg_table *table;
} targets[] = {
    {"scalar", &fastreg_table_scalar},
    {"baseline", &fastreg_table_baseline},
#if defined(__x86_64__)
    {"avx2", &fastreg_table_avx2},
    {"avx512", &fastreg_table_avx512},
#endif
};
enum { ALL = sizeof targets / sizeof targets[0], MOST_SUMS = 8 * (LONGEST / FASTREG_CHUNK + 1) };
static int usable[ALL];
static uint64_t executions, walks, elements, by_kernel[FASTREG_KERNELS];

/* ---- room: every array ends or begins at a page that cannot be touched ------------------------------------------- */

typedef struct {
    char *low, *high;
} room;

static room make_room(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    bytes = (bytes + page - 1) / page * page;
    char *all = mmap(NULL, bytes + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all, page, PROT_NONE) || mprotect(all + page + bytes, page, PROT_NONE))
        FAIL("no memory");
    return (room){all + page, all + page + bytes};
}

static room inputs[FASTREG_MAX_OPERANDS], outputs[ALL][FASTREG_MAX_OPERANDS], sum_rooms[ALL];

/* `bytes` of a room: at its end (reads and writes beyond it trap), or a little before, on any alignment of its items. */
static char *place(room r, size_t bytes, size_t gap) { return r.high - bytes - gap; }

/* ---- one kernel ------------------------------------------------------------------------------------------------- */

static void mismatch(uint64_t seed, const call *c, int target, const char *what, int64_t at, const char *isa)
{
    (void)target;
    FAIL("seed %llu: %s of %s (%s, n = %lld, first = %lld) differs on %s at element %lld", (unsigned long long)seed, what,
         registry[c->kernel].name, c->dtype == FASTREG_F32 ? "f32" : "f64", (long long)c->n, (long long)c->first, isa,
         (long long)at);
}

static void fill(const call *c, int k, char *to)
{
    memcpy(to, values[c->dtype] + c->window[k], (size_t)c->n * (size_t)item_of(c, k));
}

static void direct_case(uint64_t seed, source *s, int kernel)
{
    call c;
    int64_t n = (int64_t)(below(s, 16) ? below(s, 131) : below(s, 16) ? below(s, 700) : below(s, 3 * FASTREG_CHUNK));
    make_call(&c, s, kernel, n);
    size_t gap[FASTREG_MAX_OPERANDS];
    char *out[ALL][FASTREG_MAX_OPERANDS];
    for (int k = 0; k < c.operands; k++)
        gap[k] = below(s, 2) * below(s, 16) * (size_t)item_of(&c, k);
    for (int t = 0; t < ALL; t++) {
        if (!usable[t])
            continue;
        for (int k = 0; k < c.operands; k++) {
            size_t bytes = (size_t)n * (size_t)item_of(&c, k);
            c.args.operand[k] = NULL;
            if (!c.present[k])
                continue;
            if (is_written(&c, k)) {
                out[t][k] = c.args.operand[k] = place(outputs[t][k], bytes, gap[k]);
                memset(out[t][k] - GUARD, 0xA5, bytes + GUARD + gap[k]);
                if (registry[kernel].roles[k] == 'u')
                    fill(&c, k, out[t][k]);
            }
            else if (t == 0)
                fill(&c, k, c.args.operand[k] = place(inputs[k], bytes, gap[k]));
            else
                c.args.operand[k] = place(inputs[k], bytes, gap[k]);
        }
        for (int k = 0; k < c.operands; k++)
            if (c.alias[k] >= 0)
                fill(&c, k, c.args.operand[k] = c.args.operand[c.alias[k]]);
        int64_t count = sums_of(&c);
        double *sums = (double *)(void *)place(sum_rooms[t], (size_t)count * sizeof(double), 0);
        memcpy(sums, values[FASTREG_F64], (size_t)count * sizeof(double)); /* some are read */
        set_sums(&c, sums);
        targets[t].table->kernel[kernel][c.dtype](&c.args, c.first, n);
        executions++;
        by_kernel[kernel]++;
        elements += (uint64_t)n;
        int64_t at = t ? differs(sums, place(sum_rooms[0], (size_t)count * sizeof(double), 0), count, 8) : -1;
        if (at >= 0)
            mismatch(seed, &c, t, "a sum", at, targets[t].name);
        for (int k = 0; k < c.operands; k++) {
            if (!c.present[k] || !is_written(&c, k))
                continue;
            int item = item_of(&c, k);
            for (int g = 1; g <= GUARD; g++)
                if ((unsigned char)out[t][k][-g] != 0xA5)
                    mismatch(seed, &c, t, "the memory before a result", -g, targets[t].name);
            for (size_t g = 0; g < gap[k]; g++)
                if ((unsigned char)out[t][k][n * item + (int64_t)g] != 0xA5)
                    mismatch(seed, &c, t, "the memory after a result", n, targets[t].name);
            if (t && (at = differs(out[t][k], out[0][k], n, item)) >= 0)
                mismatch(seed, &c, t, c.members.member[k].name, at, targets[t].name);
        }
    }
}

/* ---- the walk --------------------------------------------------------------------------------------------------- */

typedef struct {
    intptr_t stride[FASTREG_MAX_DIMS];
    char *data; /* element (0, 0, …) */
} view;

/* Strides for `shape` in a room: axes in any order in memory, backwards, with gaps, broadcast (reads only). */
static view make_view(source *s, room r, int ndim, const intptr_t *shape, int item, int may_broadcast, int misaligned)
{
    view v;
    int order[FASTREG_MAX_DIMS];
    for (int d = 0; d < ndim; d++)
        order[d] = d;
    if (below(s, 2))
        for (int d = ndim - 1; d > 0; d--) {
            int e = (int)below(s, (uint64_t)d + 1), swap = order[d];
            order[d] = order[e];
            order[e] = swap;
        }
    intptr_t step = item, lowest = 0, highest = 0;
    for (int e = ndim - 1; e >= 0; e--) {
        int d = order[e];
        if (may_broadcast && below(s, 4) == 0) {
            v.stride[d] = 0;
            continue;
        }
        if (below(s, 4) == 0)
            step += item;
        v.stride[d] = below(s, 4) ? step : -step;
        intptr_t span = (shape[d] - 1) * v.stride[d];
        if (span < 0)
            lowest += span;
        else
            highest += span;
        step *= shape[d] > 1 ? shape[d] : 1;
    }
    v.data = r.high - highest - item - misaligned;
    if (v.data + lowest < r.low)
        FAIL("a room is too small");
    return v;
}

static char *element(const view *v, int ndim, const intptr_t *shape, int64_t i)
{
    char *p = v->data;
    for (int d = ndim - 1; d >= 0; d--) {
        p += (i % shape[d]) * v->stride[d];
        i /= shape[d];
    }
    return p;
}

static void walk_case(uint64_t seed, source *s, int kernel)
{
    intptr_t shape[FASTREG_MAX_DIMS];
    int ndim = (int)below(s, 5) + 1;
    int64_t n = 1, most = below(s, 8) ? 300 : LONGEST / 2;
    for (int d = 0; d < ndim; d++) {
        shape[d] = (intptr_t)(below(s, 2) ? below(s, 4) + 1 : below(s, (uint64_t)(most / n)) + 1);
        if (shape[d] > most / n)
            shape[d] = (intptr_t)(most / n);
        n *= shape[d];
    }
    call c;
    make_call(&c, s, kernel, n);
    c.first = 0;
    view views[FASTREG_MAX_OPERANDS];
    for (int k = 0; k < c.operands; k++) {
        int item = item_of(&c, k);
        c.alias[k] = -1;
        int off = below(s, 4) ? 0 : (int)below(s, (uint64_t)item);
        views[k] = make_view(s, is_written(&c, k) ? outputs[1][k] : inputs[k], ndim, shape, item, !is_written(&c, k), off);
    }
    int64_t count = sums_of(&c);
    double *sums[2] = {(double *)(void *)place(sum_rooms[0], (size_t)count * 8, 0),
                       (double *)(void *)place(sum_rooms[1], (size_t)count * 8, 0)};
    memcpy(sums[0], values[FASTREG_F64], (size_t)count * 8);
    memcpy(sums[1], values[FASTREG_F64], (size_t)count * 8);

    /* The scalar kernel on contiguous copies. Inputs are written element by element, so that broadcast ones agree. */
    char *plain[FASTREG_MAX_OPERANDS] = {0};
    static room spare[FASTREG_MAX_OPERANDS];
    for (int k = 0; k < c.operands; k++) {
        if (!c.present[k])
            continue;
        int item = item_of(&c, k);
        if (!spare[k].low)
            spare[k] = make_room(8 * LONGEST);
        plain[k] = place(is_written(&c, k) ? outputs[0][k] : spare[k], (size_t)n * (size_t)item, 0);
        for (int64_t i = 0; i < n; i++)
            memcpy(element(&views[k], ndim, shape, i), values[c.dtype] + c.window[k] + i * item, (size_t)item);
        for (int64_t i = 0; i < n; i++)
            memcpy(plain[k] + i * item, element(&views[k], ndim, shape, i), (size_t)item);
        c.args.operand[k] = plain[k];
    }
    set_sums(&c, sums[0]);
    fastreg_table_scalar.kernel[kernel][c.dtype](&c.args, 0, n);

    int target = 1 + (int)below(s, ALL - 1);
    while (!usable[target])
        target--;
    fastreg_select_isa(targets[target].name);
    fastreg_set_num_threads(1 + (int)below(s, 6));
    fastreg_ignore_cutoffs((int)below(s, 2));
    for (int k = 0; k < c.operands; k++)
        c.args.operand[k] = c.present[k] ? views[k].data : NULL;
    set_sums(&c, sums[1]);
    int ordered = 0; /* sums and random numbers are in index order */
    for (int k = c.operands; k < c.members.count; k++)
        ordered |= c.members.member[k].kind == POINTER || c.members.member[k].kind == DRAWS;
    fastreg_walk w = {.kernel = kernel, .dtype = c.dtype, .ordered = ordered || (int)below(s, 2), .ndim = ndim, .n = n,
                      .args = &c.args, .args_size = registry[kernel].size, .shape = shape};
    for (int k = 0; k < c.operands; k++)
        w.strides[k] = views[k].stride;
    fastreg_elementwise(&w, 1);
    executions++;
    walks++;
    by_kernel[kernel]++;
    elements += (uint64_t)n;
    int64_t at = differs(sums[1], sums[0], count, 8);
    if (at >= 0)
        mismatch(seed, &c, target, "a sum of the walk", at, targets[target].name);
    for (int k = 0; k < c.operands; k++) {
        if (!c.present[k] || !is_written(&c, k))
            continue;
        int item = item_of(&c, k);
        for (int64_t i = 0; i < n; i++)
            if (differs(element(&views[k], ndim, shape, i), plain[k] + i * item, 1, item) >= 0)
                mismatch(seed, &c, target, c.members.member[k].name, i, "the walk");
    }
}

static void run_case(uint64_t seed)
{
    static int elementwise[FASTREG_KERNELS], count;
    if (!count)
        for (int k = 0; k < FASTREG_KERNELS; k++)
            if (registry[k].roles[0])
                elementwise[count++] = k;
    source s = {seed};
    int kernel = elementwise[below(&s, (uint64_t)count)];
    if (below(&s, 64) == 0)
        walk_case(seed, &s, kernel);
    else
        direct_case(seed, &s, kernel);
}

int main(int argc, char **argv)
{
    usable[0] = 1;
    for (int t = 1; t < ALL; t++)
        usable[t] = fastreg_select_isa(targets[t].name) == 0;
    fill_values(1);
    for (int k = 0; k < FASTREG_MAX_OPERANDS; k++) {
        inputs[k] = make_room(64 * LONGEST);
        for (int t = 0; t < ALL; t++)
            outputs[t][k] = make_room(64 * LONGEST);
    }
    for (int t = 0; t < ALL; t++)
        sum_rooms[t] = make_room(MOST_SUMS * sizeof(double));
    uint64_t cases = 0;
    if (argc > 1 && strcmp(argv[1], "-") == 0) {
        unsigned long long seed;
        for (; scanf("%llu", &seed) == 1; cases++)
            run_case(seed);
    }
    else {
        uint64_t wanted = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000, first = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
        for (; cases < wanted; cases++)
            run_case(first + cases);
    }
    printf("%llu cases, %llu kernel executions (%llu through the walk), %llu elements; on", (unsigned long long)cases,
           (unsigned long long)executions, (unsigned long long)walks, (unsigned long long)elements);
    for (int t = 0; t < ALL; t++)
        if (usable[t])
            printf(" %s", targets[t].name);
    puts("; no mismatch");
    for (int k = 0; k < FASTREG_KERNELS; k++)
        if (by_kernel[k])
            printf("  %-24s %llu\n", registry[k].name, (unsigned long long)by_kernel[k]);
        else
            printf("  %-24s over items: fuzzed from Python\n", registry[k].name);
    return 0;
}
