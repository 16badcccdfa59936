/* The thread pool.
 *
 * A job is a number of blocks, cut into as many parts as there are threads to share it. The caller posts it, then claims
 * blocks by adding one to the atomic counter of a part; workers that are awake do the same. Each begins with the part
 * that was its own in the last job, whose data its core's cache may still hold, and then takes what is left of the
 * others'. When no block is left to claim, the caller waits for those that were claimed and are not done, never for a
 * worker that has not started one: on a busy machine a worker that the system does not schedule costs nothing, where
 * the barrier of a fork-join runtime costs a time slice.
 *
 * Workers are started by the first job that wants them, never at import; between jobs they spin for a moment
 * (a training loop's next call is microseconds away, a system call to wake them is as long as the work), then
 * sleep. A forked child has no workers and starts its own.
 *
 * One wait remains: a worker that loses its CPU in the middle of a block. Its caller then waits for a time slice,
 * some milliseconds, and on a machine with more busy threads than CPUs that would happen again and again. So a
 * wait much longer than the job itself is taken as a sign of such a machine, and for a while, in proportion to
 * what it cost, calls stay on their callers. */
#include "core.h"

#include "fpmode.h"

#if defined(_WIN32)

/* Serial, for now. */
int fastreg_get_num_threads(void) { return 1; }
void fastreg_set_num_threads(int n) { (void)n; }
void fastreg_ignore_cutoffs(int ignore) { (void)ignore; }
int fastreg_cutoffs_ignored(void) { return 0; }
int fastreg_workers_started(void) { return 0; }

void fastreg_parallel(fastreg_block *work, const void *context, int64_t blocks)
{
    fpmode caller = fpmode_enter();
    for (int64_t b = 0; b < blocks; b++)
        work(context, b);
    fpmode_leave(caller);
}

#else

#if defined(__linux__) && !defined(_GNU_SOURCE)
#error "compile with -D_GNU_SOURCE: sched_getaffinity is asked how many CPUs this process may use"
#endif
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

enum {
    MAX_WORKERS = 511,
    JOBS = 64,           /* callers that can share the pool at one time, a bit each; one more runs its job alone */
    PARTS = 64,          /* of a job at most; beyond that, threads share them */
    CACHE_LINE = 64,
    STACK = 1024 * 1024, /* a worker's: musl's default of 128 KiB is less than the gather buffers */
};
#define SPIN_NS 100000LL      /* how long an idle worker stays awake */
#define WAKE_PAYS_NS 60000LL  /* of work: to wake a worker costs its caller some 15 µs in a virtual machine */
#define STALL_NS 1000000LL    /* a wait for claimed blocks beyond this, and beyond the job's own time, is a stall */
#define RETREAT 8             /* times the stall: how long calls stay serial after the first of several */
#define LONGEST_NS 100000000LL

/* Blocks next … end − 1 are to be claimed. A line of the cache each: counters that share one slow each other down. */
typedef struct {
    _Alignas(CACHE_LINE) atomic_llong next;
    int64_t end;
} part;

typedef struct {
    _Alignas(CACHE_LINE) fastreg_block *work;
    const void *context;
    int64_t blocks;
    int count;  /* of the parts in use */
    int seats;  /* how many workers may still enter         (under lock) */
    int inside; /* how many have; the slot is free at 0     (under lock) */
    _Alignas(CACHE_LINE) atomic_llong done;
    atomic_int waiting; /* the caller sleeps until done == blocks */
    pthread_cond_t finished;
    part parts[PARTS];
} job;

typedef struct {
    pthread_cond_t called;
    int sleeps;
    pid_t thread;
} sleeper;

/* Everything that a forked child must set anew. */
static struct {
    pthread_mutex_t lock;
    int workers, sleeping; /* under lock, as all but the jobs' atomics */
    sleeper beds[MAX_WORKERS];
    sleeper *asleep[MAX_WORKERS]; /* who went to sleep last is woken first: its cache is the warmest */
    uint64_t open; /* a bit a job that workers may enter */
    job jobs[JOBS];
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

static atomic_uint generation;   /* of posts: what an awake worker watches */
static atomic_int poster;        /* the thread of the last post, and its CPU */
static atomic_int poster_cpu;
static atomic_int num_threads;   /* 0: not yet asked */
static atomic_int ignore_cutoffs;
static int atfork_registered; /* under lock; survives the fork, as the handlers do */

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- how many threads ------------------------------------------------------------------------------------ */

static int cpus_allowed(void)
{
#if defined(__linux__)
    /* A set for 1024 CPUs is too small on larger machines: the kernel then answers EINVAL. */
    for (int cpus = 1024; cpus <= 1 << 16; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC(cpus);
        if (!set)
            break;
        size_t size = CPU_ALLOC_SIZE(cpus);
        int count = sched_getaffinity(0, size, set) == 0 ? CPU_COUNT_S(size, set) : 0;
        CPU_FREE(set);
        if (count > 0)
            return count;
    }
#endif
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int)count : 1;
}

__attribute__((visibility("default"))) int fastreg_get_num_threads(void)
{
    int n = atomic_load_explicit(&num_threads, memory_order_relaxed);
    if (n == 0) {
        n = cpus_allowed();
        if (n > MAX_WORKERS + 1)
            n = MAX_WORKERS + 1;
        int unset = 0;
        if (!atomic_compare_exchange_strong(&num_threads, &unset, n))
            n = unset; /* set by someone else in the meantime */
    }
    return n;
}

__attribute__((visibility("default"))) void fastreg_set_num_threads(int n)
{
    atomic_store(&num_threads, n < 1 ? 1 : n > MAX_WORKERS + 1 ? MAX_WORKERS + 1 : n);
}

void fastreg_ignore_cutoffs(int ignore) { atomic_store(&ignore_cutoffs, ignore); }
int fastreg_cutoffs_ignored(void) { return atomic_load_explicit(&ignore_cutoffs, memory_order_relaxed); }

int fastreg_workers_started(void)
{
    pthread_mutex_lock(&pool.lock);
    int n = pool.workers;
    pthread_mutex_unlock(&pool.lock);
    return n;
}

/* ---- blocks ---------------------------------------------------------------------------------------------- */

static void note_done(job *j, int64_t blocks)
{
    if (blocks && atomic_fetch_add(&j->done, blocks) + blocks == j->blocks && atomic_load(&j->waiting)) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_signal(&j->finished);
        pthread_mutex_unlock(&pool.lock);
    }
}

/* Claims and runs blocks until none is left, from part `own` on. A worker may come too late for any: it touches
 * `context`, which lives on the caller's stack, only with a block in hand. What is done is told a part at a time: a
 * counter that two cores write to at every block costs each a tenth of a microsecond. */
static void claim_blocks(job *j, int own)
{
    for (int k = 0; k < j->count; k++) {
        part *p = &j->parts[(own + k) % j->count];
        int64_t block, done = 0;
        while ((block = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed)) < p->end) {
            j->work(j->context, block);
            done++;
        }
        note_done(j, done);
    }
}

static int has_unclaimed(job *j)
{
    for (int k = 0; k < j->count; k++)
        if (atomic_load_explicit(&j->parts[k].next, memory_order_relaxed) < j->parts[k].end)
            return 1;
    return 0;
}

static void run_serial(fastreg_block *work, const void *context, int64_t blocks)
{
    fpmode caller = fpmode_enter();
    for (int64_t b = 0; b < blocks; b++)
        work(context, b);
    fpmode_leave(caller);
}

/* ---- workers --------------------------------------------------------------------------------------------- */

/* Under lock. How many are at work, or watch for it. */
static int awake(void) { return pool.workers - pool.sleeping; }

/* Under lock. A job that wants another worker. */
static job *open_job(void)
{
    for (uint64_t left = pool.open; left; left &= left - 1) {
        job *j = &pool.jobs[__builtin_ctzll(left)];
        if (j->seats > 0 && has_unclaimed(j))
            return j;
    }
    return NULL;
}

/* A new or woken thread is often put on the CPU of the one that woke it, above all in a virtual machine, where an idle
 * CPU looks taken; there it waits for its caller to be done, or for the next balancing, milliseconds away. So whoever
 * wakes a worker takes its own CPU out of the worker's mask, and the worker, once it runs, puts it back; and a worker
 * that finds itself on its caller's CPU all the same moves away. */
#if defined(__linux__)
static int this_cpu(void) { return sched_getcpu(); }
static pid_t thread_id(void) { return (pid_t)syscall(SYS_gettid); }

/* 0: there is no other. */
static int other_cpus(int cpu, cpu_set_t *others)
{
    if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof *others, others))
        return 0;
    CPU_CLR(cpu, others);
    return CPU_COUNT(others) > 0;
}

static void allow_all_cpus_of_poster(void)
{
    cpu_set_t allowed;
    if (sched_getaffinity(atomic_load(&poster), sizeof allowed, &allowed) == 0)
        sched_setaffinity(0, sizeof allowed, &allowed);
}

static void leave_posters_cpu(void)
{
    cpu_set_t others;
    if (this_cpu() == atomic_load_explicit(&poster_cpu, memory_order_relaxed) && other_cpus(this_cpu(), &others)) {
        sched_setaffinity(0, sizeof others, &others);
        allow_all_cpus_of_poster();
    }
}

static void keep_off_this_cpu(sleeper *const *called, int count)
{
    cpu_set_t others;
    if (other_cpus(this_cpu(), &others))
        for (int k = 0; k < count; k++)
            sched_setaffinity(called[k]->thread, sizeof others, &others);
}
#else
static int this_cpu(void) { return -1; }
static pid_t thread_id(void) { return 0; }
static void allow_all_cpus_of_poster(void) {}
static void leave_posters_cpu(void) {}
static void keep_off_this_cpu(sleeper *const *called, int count) { (void)called, (void)count; }
#endif

/* Each who is woken wakes as many again, so that no caller spends its time on waking a hundred. */
enum { CALLS = 2 };

/* Under lock. Takes up to CALLS of those who sleep, and no more than `wanted`, for call_up(). */
static int take_sleepers(sleeper *called[CALLS], int wanted)
{
    int count = 0;
    while (count < CALLS && count < wanted && pool.sleeping > 0) {
        called[count] = pool.asleep[--pool.sleeping];
        called[count++]->sleeps = 0;
    }
    return count;
}

/* Not under lock: who wakes wants it. */
static void call_up(sleeper *const *called, int count)
{
    if (count)
        keep_off_this_cpu(called, count);
    for (int k = 0; k < count; k++)
        pthread_cond_signal(&called[k]->called);
}

/* Under lock, which is let go meanwhile. */
static void sleep_until_called(sleeper *self)
{
    self->sleeps = 1;
    pool.asleep[pool.sleeping++] = self;
    while (self->sleeps)
        pthread_cond_wait(&self->called, &pool.lock);
}

static void *worker(void *bed)
{
    sleeper *self = bed, *called[CALLS];
    const int own = (int)(self - pool.beds) + 1; /* the caller's part is 0 */
    self->thread = thread_id();
    allow_all_cpus_of_poster();
    (void)fpmode_enter(); /* inherited from whoever made the first call */
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        unsigned seen = atomic_load(&generation);
        job *j = open_job();
        if (j) {
            j->seats--;
            j->inside++;
            int more = take_sleepers(called, j->seats);
            pthread_mutex_unlock(&pool.lock);
            call_up(called, more);
            claim_blocks(j, own);
            pthread_mutex_lock(&pool.lock);
            j->inside--;
            continue;
        }
        pthread_mutex_unlock(&pool.lock);
        /* The system may have put this thread on its caller's CPU: whoever else can run goes first. */
        int64_t until = now_ns() + SPIN_NS;
        while (atomic_load_explicit(&generation, memory_order_relaxed) == seen && now_ns() < until) {
            for (int k = 0; k < 32 && atomic_load_explicit(&generation, memory_order_relaxed) == seen; k++)
                pause_briefly();
            sched_yield();
            leave_posters_cpu();
        }
        pthread_mutex_lock(&pool.lock);
        if (atomic_load(&generation) == seen) {
            sleep_until_called(self);
            pthread_mutex_unlock(&pool.lock);
            allow_all_cpus_of_poster();
            pthread_mutex_lock(&pool.lock);
        }
    }
    return NULL;
}

static void before_fork(void) { pthread_mutex_lock(&pool.lock); }
static void after_fork_parent(void) { pthread_mutex_unlock(&pool.lock); }
static void after_fork_child(void)
{
    memset(&pool, 0, sizeof pool);
    pthread_mutex_init(&pool.lock, NULL);
}

/* Under lock. Where the system has no more threads to give, the work is done by those there are. */
static void start_workers(int wanted)
{
    if (pool.workers >= wanted)
        return;
    if (!atfork_registered) {
        if (pthread_atfork(before_fork, after_fork_parent, after_fork_child))
            return;
        atfork_registered = 1;
    }
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes))
        return;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK);
    /* Signals are for the program's own threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
#if defined(__GLIBC__)
    cpu_set_t others;
    if (other_cpus(this_cpu(), &others))
        pthread_attr_setaffinity_np(&attributes, sizeof others, &others);
#endif
    pthread_t thread;
    while (pool.workers < wanted && pthread_cond_init(&pool.beds[pool.workers].called, NULL) == 0
           && pthread_create(&thread, &attributes, worker, &pool.beds[pool.workers]) == 0)
        pool.workers++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

/* ---- busy machines --------------------------------------------------------------------------------------- */

static atomic_llong serial_until;
static atomic_llong retreat;      /* the length of the last retreat */

static int retreating(int64_t now) { return now < atomic_load_explicit(&serial_until, memory_order_relaxed); }

/* A stall soon after a retreat means that the machine is still busy: retreat for twice as long. */
static void note_stall(int64_t now, int64_t waited)
{
    long long last = atomic_load(&retreat);
    long long next = now - atomic_load(&serial_until) < 4 * last ? 2 * last : RETREAT * waited;
    if (next > LONGEST_NS)
        next = LONGEST_NS;
    atomic_store(&retreat, next);
    atomic_store(&serial_until, now + next);
}

/* ---- jobs ------------------------------------------------------------------------------------------------ */

/* Of jobs that follow each other within SPIN_NS, which is as long as workers watch for the next. */
static atomic_llong burst_began, last_job_ended;

/* Under no lock. Starts and wakes as many workers as are missing. */
static void call_workers(int helpers)
{
    sleeper *called[CALLS];
    pthread_mutex_lock(&pool.lock);
    atomic_store(&poster, thread_id());
    start_workers(helpers);
    int count = take_sleepers(called, helpers - awake());
    pthread_mutex_unlock(&pool.lock);
    call_up(called, count);
}

/* NULL where every slot is taken. `missing`: not as many workers are awake as the job has seats for. */
static job *post(fastreg_block *work, const void *context, int64_t blocks, int helpers, int *missing)
{
    pthread_mutex_lock(&pool.lock);
    job *j = NULL;
    for (int k = 0; k < JOBS && !j; k++)
        if (!(pool.open >> k & 1) && pool.jobs[k].inside == 0)
            j = &pool.jobs[k];
    if (j) {
        j->work = work;
        j->context = context;
        j->blocks = blocks;
        j->count = helpers < PARTS ? helpers + 1 : PARTS;
        for (int64_t k = 0; k < j->count; k++) {
            int64_t each = blocks / j->count, more = blocks % j->count;
            atomic_store_explicit(&j->parts[k].next, each * k + more * k / j->count, memory_order_relaxed);
            j->parts[k].end = each * (k + 1) + more * (k + 1) / j->count;
        }
        atomic_store_explicit(&j->done, 0, memory_order_relaxed);
        atomic_store_explicit(&j->waiting, 0, memory_order_relaxed);
        pthread_cond_init(&j->finished, NULL);
        j->seats = helpers;
        pool.open |= UINT64_C(1) << (j - pool.jobs);
        atomic_store_explicit(&poster_cpu, this_cpu(), memory_order_relaxed);
        atomic_fetch_add(&generation, 1);
    }
    *missing = awake() < helpers;
    pthread_mutex_unlock(&pool.lock);
    return j;
}

/* Workers that sleep, or are not there yet, are called once as much work has been done without them, or is seen to be
 * left, as pays for the call: a call that comes alone, or a few, would be slower with threads than without. */
static void reinforce(job *j, int64_t started, int helpers)
{
    if (started - atomic_load_explicit(&last_job_ended, memory_order_relaxed) > SPIN_NS)
        atomic_store_explicit(&burst_began, started, memory_order_relaxed);
    int64_t burst = started - atomic_load_explicit(&burst_began, memory_order_relaxed);
    if (burst < WAKE_PAYS_NS && !fastreg_cutoffs_ignored()) {
        int64_t block = atomic_fetch_add_explicit(&j->parts[0].next, 1, memory_order_relaxed);
        const int left = block < j->parts[0].end; /* others may have taken them all */
        if (left) {
            j->work(j->context, block);
            note_done(j, 1);
        }
        if (!left || (now_ns() - started) * (j->blocks - 1) < WAKE_PAYS_NS)
            return;
    }
    call_workers(helpers);
}

/* The slot stays the caller's until here: were it free once the workers have left it, another caller could take it
 * and set `done` anew while this one still waits for it. */
static void finish(job *j, int64_t started)
{
    int64_t ended = now_ns(), now = ended;
    if (atomic_load(&j->done) < j->blocks) {
        for (int k = 0; k < 1024 && atomic_load(&j->done) < j->blocks; k++)
            pause_briefly();
        atomic_store(&j->waiting, 1);
    }
    pthread_mutex_lock(&pool.lock);
    while (atomic_load(&j->done) < j->blocks)
        pthread_cond_wait(&j->finished, &pool.lock);
    pool.open &= ~(UINT64_C(1) << (j - pool.jobs));
    int waited = atomic_load_explicit(&j->waiting, memory_order_relaxed);
    pthread_mutex_unlock(&pool.lock);
    if (waited) {
        now = now_ns();
        if (now - ended > STALL_NS && now - ended > ended - started)
            note_stall(now, now - ended);
    }
    atomic_store_explicit(&last_job_ended, now, memory_order_relaxed);
}

void fastreg_parallel(fastreg_block *work, const void *context, int64_t blocks)
{
    int helpers = blocks > 1 ? fastreg_get_num_threads() - 1 : 0;
    if (helpers > blocks - 1)
        helpers = (int)(blocks - 1);
    int64_t started = helpers > 0 ? now_ns() : 0;
    job *j = NULL;
    int missing = 0;
    if (helpers > 0 && (!retreating(started) || fastreg_cutoffs_ignored()))
        j = post(work, context, blocks, helpers, &missing);
    if (!j) {
        run_serial(work, context, blocks);
        return;
    }
    fpmode caller = fpmode_enter();
    if (missing)
        reinforce(j, started, helpers);
    claim_blocks(j, 0);
    fpmode_leave(caller);
    finish(j, started);
}

#endif
