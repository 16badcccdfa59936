/* The pool, the walk and every elementwise kernel under ThreadSanitizer: callers at once × changes of the number of
 * threads × forks, on one instruction set. Each caller checks its results against the scalar run of the same call.
 *
 *     threads <instruction set> [seconds] */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "calls.h"

enum { CALLERS = 6, FORKS = 40 };

static atomic_int stop;
static atomic_ullong calls, forks;

typedef struct {
    char *out[FASTREG_MAX_OPERANDS], *wanted[FASTREG_MAX_OPERANDS];
    double *sums[2];
    source source;
} caller;

static caller *new_caller(uint64_t seed)
{
    caller *me = calloc(1, sizeof *me);
    for (int k = 0; k < FASTREG_MAX_OPERANDS; k++) {
        me->out[k] = malloc(8 * LONGEST);
        me->wanted[k] = malloc(8 * LONGEST);
    }
    for (int k = 0; k < 2; k++)
        me->sums[k] = calloc(8 * (LONGEST / FASTREG_CHUNK + 1), sizeof(double));
    me->source.state = seed;
    return me;
}

/* One call, alone through the kernel and then through the pool. */
static void use(caller *me)
{
    source *s = &me->source;
    int kernel;
    do
        kernel = (int)below(s, FASTREG_KERNELS);
    while (!registry[kernel].roles[0]);
    call c;
    make_call(&c, s, kernel, (int64_t)below(s, LONGEST));
    c.first = 0;
    const intptr_t shape[1] = {(intptr_t)c.n};
    intptr_t strides[FASTREG_MAX_OPERANDS];
    for (int pass = 0; pass < 2; pass++) {
        for (int k = 0; k < c.operands; k++) {
            int item = item_of(&c, k);
            strides[k] = item;
            c.args.operand[k] = !c.present[k]      ? NULL
                                : is_written(&c, k) ? (pass ? me->out : me->wanted)[k]
                                                    : (char *)values[c.dtype] + c.window[k];
            if (c.present[k] && is_written(&c, k))
                memcpy(c.args.operand[k], values[c.dtype] + c.window[k], (size_t)(c.n * item));
        }
        set_sums(&c, me->sums[pass]);
        if (pass == 0) {
            fastreg_lookup(kernel, c.dtype)(&c.args, 0, c.n);
            continue;
        }
        int ordered = 0;
        for (int k = c.operands; k < c.members.count; k++)
            ordered |= c.members.member[k].kind == POINTER || c.members.member[k].kind == DRAWS;
        fastreg_walk w = {.kernel = kernel, .dtype = c.dtype, .ordered = ordered, .n = c.n, .args = &c.args,
                          .args_size = registry[kernel].size, .shape = shape};
        if (below(s, 2)) { /* through the walk's axes, and its buffers where an operand is not aligned */
            w.ndim = 1;
            for (int k = 0; k < c.operands; k++)
                w.strides[k] = &strides[k];
        }
        fastreg_elementwise(&w, 1);
    }
    for (int k = 0; k < c.operands; k++)
        if (c.present[k] && is_written(&c, k) && differs(me->out[k], me->wanted[k], c.n, item_of(&c, k)) >= 0)
            FAIL("%s: %s differs", registry[kernel].name, c.members.member[k].name);
    if (differs(me->sums[0], me->sums[1], sums_of(&c), 8) >= 0)
        FAIL("%s: sums differ", registry[kernel].name);
    atomic_fetch_add(&calls, 1);
}

static void *call_and_check(void *me)
{
    while (!atomic_load(&stop))
        use(me);
    return NULL;
}

static void *resize(void *unused)
{
    (void)unused;
    source s = {7};
    while (!atomic_load(&stop)) {
        fastreg_set_num_threads(1 + (int)below(&s, 8));
        fastreg_ignore_cutoffs((int)below(&s, 4) != 0);
        usleep(500);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 2 || fastreg_select_isa(argv[1]) != 0) {
        printf("%s: not on this machine\n", argc < 2 ? "no instruction set" : argv[1]);
        return argc < 2;
    }
    double seconds = argc > 2 ? atof(argv[2]) : 10;
    fill_values(1);
    source any = {0};
    call c;
    for (int k = 0; k < FASTREG_KERNELS; k++) /* the table of members, before there are threads */
        if (registry[k].roles[0])
            make_call(&c, &any, k, 1);
    fastreg_set_num_threads(4);
    fastreg_ignore_cutoffs(1);

    pthread_t threads[CALLERS + 1];
    for (int k = 0; k < CALLERS; k++)
        pthread_create(&threads[k], NULL, call_and_check, new_caller((uint64_t)k + 1));
    pthread_create(&threads[CALLERS], NULL, resize, NULL);
    caller *child = new_caller(1000);
    for (int k = 0; k < FORKS; k++) {
        usleep((useconds_t)(1e6 * seconds / FORKS));
        pid_t pid = fork();
        if (pid < 0)
            FAIL("fork");
        if (pid == 0) {
            alarm(60);
            if (fastreg_workers_started() != 0)
                _exit(3);
            fastreg_set_num_threads(4);
            for (int j = 0; j < 20; j++)
                use(child);
            _exit(0);
        }
        int status;
        if (waitpid(pid, &status, 0) != pid || status != 0)
            FAIL("the forked child: status %x", (unsigned)status);
        atomic_fetch_add(&forks, 1);
    }
    atomic_store(&stop, 1);
    for (int k = 0; k <= CALLERS; k++)
        pthread_join(threads[k], NULL);
    printf("%s: %llu calls by %d callers, %llu forks, %d workers; no race, no mismatch\n", fastreg_isa(),
           (unsigned long long)atomic_load(&calls), CALLERS, (unsigned long long)atomic_load(&forks),
           fastreg_workers_started());
    return 0;
}
