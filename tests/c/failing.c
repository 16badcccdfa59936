/* Interposes the allocator of a process (LD_PRELOAD), so that test_memory.py can fail each allocation of a call in turn.
 *
 * Whose an allocation is, and whose a crash, is said by the stack: the innermost frame in an extension module is
 * fastreg's, or NumPy's, which has error paths of its own that crash, or fail with no error set. From CPython 3.12 on
 * that crashes a little later, where Cython adds its line to the traceback of the error that is not there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void __libc_free(void *);
extern void *PyErr_Occurred(void) __attribute__((weak)); /* found in the program */

enum { NONE, FASTREG, NUMPY, OTHERS, NUMPYS_CRASH = 77 };

static _Thread_local long left; /* allocations of this thread until the one that fails; 0: none does */
static _Thread_local int failed;
static atomic_long live;

static int innermost(int *adds_to_traceback)
{
    void *frames[64];
    int n = backtrace(frames, 64);
    *adds_to_traceback = 0;
    for (int k = 0; k < n; k++) {
        Dl_info info;
        if (!dladdr(frames[k], &info) || !info.dli_fname)
            continue;
        if (info.dli_sname && !strcmp(info.dli_sname, "PyTraceBack_Here"))
            *adds_to_traceback = 1;
        if (strstr(info.dli_fname, "numpy/"))
            return NUMPY;
        if (strstr(info.dli_fname, "fastreg/_") || strstr(info.dli_fname, "fastreg/fastreg_"))
            return FASTREG;
    }
    return OTHERS;
}

static void crashed(int signal_number)
{
    int adds_to_traceback, whose = innermost(&adds_to_traceback);
    int lost = failed == NUMPY && adds_to_traceback && !PyErr_Occurred();
    _exit(whose == NUMPY || lost ? NUMPYS_CRASH : 128 + signal_number);
}

/* The nth allocation from here on fails. */
void failing_arm(long nth)
{
    failed = NONE;
    left = nth;
}

/* Whose allocation failed. */
int failing_disarm(void)
{
    left = 0;
    return failed;
}

long failing_live(void) { return atomic_load(&live); }

void failing_watch_crashes(void)
{
    int ignored;
    (void)innermost(&ignored); /* backtrace allocates when it is first called */
    signal(SIGSEGV, crashed);
    signal(SIGBUS, crashed);
    signal(SIGABRT, crashed);
}

static int fails(void)
{
    if (left == 0 || --left != 0)
        return 0;
    int ignored;
    failed = innermost(&ignored);
    errno = ENOMEM;
    return 1;
}

static void *counted(void *p)
{
    if (p)
        atomic_fetch_add(&live, 1);
    return p;
}

void *malloc(size_t size) { return fails() ? NULL : counted(__libc_malloc(size)); }
void *calloc(size_t n, size_t size) { return fails() ? NULL : counted(__libc_calloc(n, size)); }

void *realloc(void *p, size_t size)
{
    if (fails())
        return NULL;
    void *q = __libc_realloc(p, size);
    return p ? q : counted(q);
}

void free(void *p)
{
    if (p)
        atomic_fetch_sub(&live, 1);
    __libc_free(p);
}
