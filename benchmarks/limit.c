/* The machine's own limit: how long it takes to move a kernel's bytes and do nothing else.
 *
 * A pass reads r arrays and writes w of the same length; every byte read reaches every byte written (by exclusive or, the
 * cheapest thing that keeps a compiler from leaving a load out). Each pass exists with ordinary and with non-temporal stores, and
 * for each vector length the machine has, since which of them is fastest depends on the size and on the machine: the caller
 * measures all and takes the best. Arrays may be the same (in place) and start at a multiple of 64 bytes. */
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define PAUSE() _mm_pause()
#else
#define PAUSE() ((void)0)
#endif

#define MAX_ARRAYS 6
#define MAX_THREADS 256

typedef void pass_fn(int r, int w, char *const *in, char *const *out, size_t bytes);

static volatile uint64_t sink;

/* r and w are constants wherever this is expanded, so the inner loops over arrays unroll away. Four vectors a turn: enough loads
 * in flight without running out of registers at r + w = 5. */
#define BODY(R, W, V, STORE)                                                                          \
    for (size_t i = 0; i < bytes; i += 4 * sizeof(V)) {                                               \
        V v[4];                                                                                       \
        for (int k = 0; k < 4; k++) {                                                                 \
            v[k] = *(const V *)(in[0] + i + k * sizeof(V));                                           \
            for (int a = 1; a < (R); a++) v[k] ^= *(const V *)(in[a] + i + k * sizeof(V));            \
            for (int a = 0; a < (W); a++) STORE((V *)(out[a] + i + k * sizeof(V)), v[k]);             \
            if ((W) == 0) sum[k] ^= v[k];                                                             \
        }                                                                                             \
    }

#define PASS(NAME, TARGET, BYTES, STORE)                                                              \
    typedef uint64_t NAME##_v __attribute__((vector_size(BYTES), may_alias));                         \
    TARGET static void NAME(int r, int w, char *const *in_, char *const *out_, size_t bytes) {        \
        char *in[MAX_ARRAYS] = {0}, *out[MAX_ARRAYS] = {0};                                           \
        NAME##_v sum[4] = {{0}};                                                                      \
        for (int a = 0; a < r; a++) in[a] = in_[a];                                                   \
        for (int a = 0; a < w; a++) out[a] = out_[a];                                                 \
        switch (10 * r + w) {                                                                         \
        case 10: BODY(1, 0, NAME##_v, STORE) break;                                                   \
        case 11: BODY(1, 1, NAME##_v, STORE) break;                                                   \
        case 20: BODY(2, 0, NAME##_v, STORE) break;                                                   \
        case 21: BODY(2, 1, NAME##_v, STORE) break;                                                   \
        case 30: BODY(3, 0, NAME##_v, STORE) break;                                                   \
        case 31: BODY(3, 1, NAME##_v, STORE) break;                                                   \
        case 32: BODY(3, 2, NAME##_v, STORE) break;                                                   \
        case 43: BODY(4, 3, NAME##_v, STORE) break;                                                   \
        default: BODY(r, w, NAME##_v, STORE)                                                          \
        }                                                                                             \
        for (int k = 0; k < 4; k++) sink ^= sum[k][0];                                                \
    }

#define ORDINARY(p, x) (*(p) = (x))
#if defined(__x86_64__)
#define STREAM32(p, x) _mm256_stream_si256((__m256i *)(p), (__m256i)(x))
#define STREAM64(p, x) _mm512_stream_si512((__m512i *)(p), (__m512i)(x))
PASS(avx2, __attribute__((target("avx2"))), 32, ORDINARY)
PASS(avx2_nt, __attribute__((target("avx2"))), 32, STREAM32)
PASS(avx512, __attribute__((target("avx512f"))), 64, ORDINARY)
PASS(avx512_nt, __attribute__((target("avx512f"))), 64, STREAM64)
#endif
PASS(plain, , 16, ORDINARY)

static const struct { const char *name; pass_fn *run; } passes[] = {
    {"plain", plain},
#if defined(__x86_64__)
    {"avx2", avx2}, {"avx2 nt", avx2_nt}, {"avx512", avx512}, {"avx512 nt", avx512_nt},
#endif
};

const char *limit_name(int i) { return i < (int)(sizeof passes / sizeof *passes) ? passes[i].name : 0; }

int limit_runs_here(int i) { /* and is worth the time */
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (i > 2) return __builtin_cpu_supports("avx512f");
    return i > 0 ? __builtin_cpu_supports("avx2") : !__builtin_cpu_supports("avx2");
#else
    return i == 0;
#endif
}

/* The threads of a measurement are running before it starts and wait by spinning, so starting a pass costs one cache miss and
 * the limit of several cores is that of their memory, not of a wake-up. They end with the measurement: a spinning thread would
 * take a core from whatever is measured next. */
static struct {
    _Atomic unsigned generation, done;
    _Atomic int stop;
    int threads, r, w, then_read;
    pass_fn *run;
    char *in[MAX_ARRAYS], *out[MAX_ARRAYS];
    size_t bytes;
} job;

static void share(int me) { /* thread `me`'s slice, whole turns of the loop */
    size_t turns = job.bytes / 256, from = turns * me / job.threads * 256, to = turns * (me + 1) / job.threads * 256;
    char *in[MAX_ARRAYS] = {0}, *out[MAX_ARRAYS] = {0};
    for (int a = 0; a < job.r; a++) in[a] = job.in[a] + from;
    for (int a = 0; a < job.w; a++) out[a] = job.out[a] + from;
    job.run(job.r, job.w, in, out, to - from);
    if (job.then_read) job.run(1, 0, out, out, to - from);
}

static void *worker(void *arg) {
    unsigned seen = 0;
    for (;;) {
        while (atomic_load_explicit(&job.generation, memory_order_acquire) == seen) {
            if (atomic_load_explicit(&job.stop, memory_order_relaxed)) return 0;
            PAUSE();
        }
        seen++;
        share((int)(intptr_t)arg);
        atomic_fetch_add_explicit(&job.done, 1, memory_order_release);
    }
}

static void once(void) {
    atomic_store_explicit(&job.done, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&job.generation, 1, memory_order_release);
    share(0);
    while (atomic_load_explicit(&job.done, memory_order_acquire) < (unsigned)job.threads - 1) PAUSE();
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* `count` samples, the seconds of one pass as the mean of `repeats`, after `warm` seconds of passes that are not timed; nonzero
 * where no threads could be had. `bytes` is a multiple of 256. then_read: each pass is followed by one that reads its first
 * result, as the next step of a program does. */
int limit_seconds(int pass, int r, int w, char *const *in, char *const *out, size_t bytes, int threads, int then_read,
                  double warm, int repeats, int count, double *seconds) {
    pthread_t ids[MAX_THREADS];
    int started = 1;
    if (threads > MAX_THREADS || r > MAX_ARRAYS || w > MAX_ARRAYS) return 1;
    job.threads = threads, job.r = r, job.w = w, job.run = passes[pass].run, job.bytes = bytes, job.then_read = then_read;
    for (int a = 0; a < r; a++) job.in[a] = in[a];
    for (int a = 0; a < w; a++) job.out[a] = out[a];
    atomic_store(&job.generation, 0);
    atomic_store(&job.stop, 0);
    while (started < threads && !pthread_create(&ids[started], 0, worker, (void *)(intptr_t)started)) started++;
    const int failed = started < threads;
    if (!failed) {
        double start = now();
        do once();
        while (now() < start + warm);
        for (int k = 0; k < count; k++) {
            start = now();
            for (int i = 0; i < repeats; i++) once();
            seconds[k] = (now() - start) / repeats;
        }
    }
    atomic_store(&job.stop, 1);
    while (--started > 0) pthread_join(ids[started], 0);
    return failed;
}
