/* Any call of any elementwise kernel, made from a seed. What the arguments of a kernel are is read from the registry's
 * own text, so that a new kernel is covered by its line in kernels.def. */
#ifndef CALLS_H
#define CALLS_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

static const struct {
    const char *name, *roles, *members;
    size_t size;
} registry[] = {
#define KERNEL(name, roles, cutoff, ...) {#name, roles, #__VA_ARGS__, sizeof(name##_args)},
#include "kernels.def"
#undef KERNEL
};

#define FAIL(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), exit(1))

/* ---- random numbers: splitmix64 (Steele, Lea, Flood 2014) ---------------------------------------------------- */

typedef struct {
    uint64_t state;
} source;

static uint64_t random_bits(source *s)
{
    uint64_t z = s->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static uint64_t below(source *s, uint64_t n) { return random_bits(s) % n; }
static double uniform(source *s) { return (double)(random_bits(s) >> 11) * 0x1p-53; }

static double any_double(source *s)
{
    static const double edges[] = {0, -0.0, 1, -1, INFINITY, -INFINITY, NAN, 5e-324, 1e-45, 1e-310, 1e-40, 1e38, 1e308, 3e38};
    uint64_t bits;
    double x;
    switch (below(s, 8)) {
    case 0: return edges[below(s, sizeof edges / sizeof edges[0])];
    case 1: bits = random_bits(s), memcpy(&x, &bits, sizeof x); return x;
    case 2: return (double)below(s, 5) - 2;
    case 3: return ldexp(uniform(s) - 0.5, (int)below(s, 300) - 150);
    default: return 4 * uniform(s) - 2;
    }
}

/* ---- the members of a kernel's arguments ---------------------------------------------------------------------- */

enum { MEMBERS = 40 };
typedef enum { POINTER, DOUBLE, INT, INTEGER, DRAWS } member_kind;
typedef struct {
    char name[40];
    member_kind kind;
    size_t offset;
} member;
typedef struct {
    int count;
    member member[MEMBERS];
} members;

/* By the rules of C: each member at the next multiple of its alignment. */
static members members_of(int kernel)
{
    members m = {0, {{{0}, POINTER, 0}}};
    char text[2000];
    size_t offset = 0;
    if (strlen(registry[kernel].members) >= sizeof text)
        FAIL("%s: more text than there is room for", registry[kernel].name);
    strcpy(text, registry[kernel].members);
    char *rest, *next;
    for (char *line = strtok_r(text, ";", &rest); line; line = strtok_r(NULL, ";", &rest)) {
        member_kind scalar = strstr(line, "fastreg_draws ") ? DRAWS
                             : strstr(line, "double ")      ? DOUBLE
                             : strstr(line, "int64_t ") || strstr(line, "intptr_t ") || strstr(line, "uint64_t ") ? INTEGER
                                                                                                                  : INT;
        for (char *part = strtok_r(line, ",", &next); part; part = strtok_r(NULL, ",", &next)) {
            if (strchr(part, '['))
                FAIL("%s: an array among the arguments of an elementwise kernel", registry[kernel].name);
            member *to = &m.member[m.count++];
            to->kind = strchr(part, '*') ? POINTER : scalar;
            char *end = part + strlen(part), *begin;
            while (end > part && end[-1] == ' ')
                *--end = 0;
            for (begin = end; begin > part && begin[-1] != ' ' && begin[-1] != '*';)
                begin--;
            snprintf(to->name, sizeof to->name, "%s", begin);
            size_t size = to->kind == INT ? sizeof(int) : to->kind == DRAWS ? sizeof(fastreg_draws) : 8;
            size_t align = to->kind == INT ? sizeof(int) : 8;
            to->offset = offset = (offset + align - 1) / align * align;
            offset += size;
        }
    }
    if ((offset + 7) / 8 * 8 != (registry[kernel].size + 7) / 8 * 8)
        FAIL("%s: its members are not understood", registry[kernel].name);
    return m;
}

/* Operands that a caller may leave out. */
static int is_optional(int kernel, int operand, const char *name)
{
    static const char *const optional[] = {"weight", "each", "momentum_buffer"};
    const char *roles = registry[kernel].roles;
    size_t length = strlen(name);
    if (operand == 0)
        return 0;
    if (length > 5 && strcmp(name + length - 5, "_each") == 0)
        return 1;
    for (size_t k = 0; k < sizeof optional / sizeof optional[0]; k++)
        if (strcmp(name, optional[k]) == 0)
            return 1;
    return roles[operand] == 'w' && strchr(roles, 'w') != strrchr(roles, 'w'); /* grad or loss */
}

/* ---- a call ----------------------------------------------------------------------------------------------------- */

enum {
    VALUES = 1 << 17,                       /* bytes of input, of which every operand is a window */
    LONGEST = 3 * 16384 + 2048,             /* elements: several blocks of the pool */
    GUARD = 64,
    ARGS = 256
};

static unsigned char values[2][VALUES + 8 * LONGEST]; /* by dtype */

static void fill_values(uint64_t seed)
{
    source s = {seed};
    float *f = (float *)(void *)values[FASTREG_F32];
    double *d = (double *)(void *)values[FASTREG_F64];
    for (size_t i = 0; i < sizeof values[0] / sizeof *f; i++)
        f[i] = (float)any_double(&s);
    for (size_t i = 0; i < sizeof values[1] / sizeof *d; i++)
        d[i] = any_double(&s);
}

typedef struct {
    int kernel, dtype;
    int64_t first, n;
    members members;
    int operands;
    int present[FASTREG_MAX_OPERANDS], alias[FASTREG_MAX_OPERANDS]; /* alias: the operand that is the same memory, or -1 */
    size_t window[FASTREG_MAX_OPERANDS];                            /* bytes into `values` */
    union {
        char *operand[FASTREG_MAX_OPERANDS];
        unsigned char bytes[ARGS];
    } args;
} call;

static int item_of(const call *c, int k)
{
    char role = registry[c->kernel].roles[k];
    return role == 'b' || role == 'B' ? 1 : c->dtype == FASTREG_F32 ? 4 : 8;
}
static int is_written(const call *c, int k) { return strchr("wuB", registry[c->kernel].roles[k]) != NULL; }
static int64_t chunks_in(const call *c) { return (c->n + FASTREG_CHUNK - 1) / FASTREG_CHUNK; }

/* The scalars, and which operands there are; pointers are the runner's. */
static void make_call(call *c, source *s, int kernel, int64_t n)
{
    static members known[FASTREG_KERNELS];
    if (!known[kernel].count)
        known[kernel] = members_of(kernel);
    c->kernel = kernel;
    c->dtype = (int)below(s, 2);
    c->n = n;
    c->members = known[kernel];
    c->operands = (int)strlen(registry[kernel].roles);
    c->first = (int64_t)below(s, 4) * FASTREG_CHUNK;
    for (int k = 0; k < c->operands; k++) {
        int item = item_of(c, k);
        c->present[k] = !is_optional(kernel, k, c->members.member[k].name) || below(s, 2);
        c->alias[k] = -1;
        c->window[k] = (size_t)below(s, VALUES / 8) * (size_t)item;
    }
    /* In place: at most one written operand is also one that is read. */
    if (below(s, 3) == 0) {
        int w = (int)below(s, (uint64_t)c->operands), r = (int)below(s, (uint64_t)c->operands);
        if (registry[kernel].roles[w] == 'w' && registry[kernel].roles[r] == 'r' && c->present[w] && c->present[r])
            c->alias[r] = w;
    }
    memset(c->args.bytes, 0, ARGS);
    for (int k = c->operands; k < c->members.count; k++) {
        member m = c->members.member[k];
        void *to = c->args.bytes + m.offset;
        double d = any_double(s);
        int i = (int)below(s, 2);
        int64_t l = (int64_t)below(s, 3);
        /* Two thirds of the parameters are what a caller would give: a call of which one is NaN tells little. */
        if (below(s, 3))
            d = fabs(d) <= 4 ? fabs(d) : uniform(s);
        if (m.kind == DOUBLE)
            memcpy(to, &d, sizeof d);
        else if (m.kind == INT)
            memcpy(to, &i, sizeof i);
        else if (m.kind == INTEGER)
            memcpy(to, &l, sizeof l);
        else if (m.kind == DRAWS) {
            fastreg_draws draws = {random_bits(s), random_bits(s), below(s, 2) ? below(s, 300) : random_bits(s), 0};
            const uint64_t thresholds[] = {0, 1, 1u << 31, below(s, 256) << 24, below(s, 1ull << 32), 1ull << 32};
            draws.threshold = thresholds[below(s, 6)];
            memcpy(to, &draws, sizeof draws);
        }
    }
}

/* Pointers that are no operands: an array each, of one double for each chunk. Returns how many doubles there are. */
static int64_t sums_of(const call *c)
{
    int64_t pointers = 0;
    for (int k = c->operands; k < c->members.count; k++)
        pointers += c->members.member[k].kind == POINTER;
    return pointers * chunks_in(c);
}

static void set_sums(call *c, double *sums)
{
    for (int k = c->operands; k < c->members.count; k++)
        if (c->members.member[k].kind == POINTER) {
            double *of_first = sums - c->first / FASTREG_CHUNK;
            memcpy(c->args.bytes + c->members.member[k].offset, &of_first, sizeof of_first);
            sums += chunks_in(c);
        }
}

/* Equal to the last bit, but that one NaN is as good as another. Returns the first that differs, or -1. */
static int64_t differs(const void *a, const void *b, int64_t n, int item)
{
    if (memcmp(a, b, (size_t)n * (size_t)item) == 0)
        return -1;
    for (int64_t i = 0; i < n; i++) {
        const char *p = (const char *)a + i * item, *q = (const char *)b + i * item;
        if (memcmp(p, q, (size_t)item) == 0)
            continue;
        double x = 0, y = 0;
        if (item == 4) {
            float f, g;
            memcpy(&f, p, 4), memcpy(&g, q, 4);
            x = (double)f, y = (double)g;
        }
        else if (item == 8)
            memcpy(&x, p, 8), memcpy(&y, q, 8);
        if (!(x != x && y != y))
            return i;
    }
    return -1;
}

#endif
