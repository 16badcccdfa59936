/* Interposes the allocator of a process (LD_PRELOAD), so that test_memory.py can fail each allocation of a call in turn.
 *
 * Whose an allocation is, and whose a crash, is said by the stack: the innermost frame in an extension module is
 * fastreg's, or NumPy's, which has error paths of its own that crash, or fail with no error set. From CPython 3.12 on
 * that crashes a little later, where Cython adds its line to the traceback of the error that is not there. And what
 * these CPythons themselves allocate as they run NumPy's Python code is not failed: where a function cannot be made
 * (MAKE_FUNCTION) they give its code back twice, and soon run what they have freed. */
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
/* Found in the program. */
extern void *PyErr_Occurred(void) __attribute__((weak));
extern const unsigned long Py_Version __attribute__((weak));

enum { NONE, FASTREG, NUMPY, OTHERS, NUMPYS_CRASH = 77 };

static _Thread_local long left; /* allocations of this thread until the one that fails; 0: none does */
static _Thread_local int failed;
static atomic_long live;

struct stack {
    int whose;
    int adds_to_traceback, runs_python; /* nearer than the module's frame */
};

static struct stack stack(void)
{
    struct stack s = {.whose = OTHERS};
    void *frames[64];
    int n = backtrace(frames, 64);
    for (int k = 0; k < n; k++) {
        Dl_info info;
        if (!dladdr(frames[k], &info) || !info.dli_fname)
            continue;
        const char *name = info.dli_sname ? info.dli_sname : "";
        s.adds_to_traceback |= !strcmp(name, "PyTraceBack_Here");
        s.runs_python |= !strcmp(name, "_PyEval_EvalFrameDefault");
        if (strstr(info.dli_fname, "numpy/"))
            s.whose = NUMPY;
        if (strstr(info.dli_fname, "fastreg/_") || strstr(info.dli_fname, "fastreg/fastreg_"))
            s.whose = FASTREG;
        if (s.whose != OTHERS)
            break;
    }
    return s;
}

static void crashed(int signal_number)
{
    struct stack s = stack();
    int lost = failed == NUMPY && s.adds_to_traceback && !PyErr_Occurred();
    _exit(s.whose == NUMPY || lost ? NUMPYS_CRASH : 128 + signal_number);
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
    (void)stack(); /* backtrace allocates when it is first called */
    signal(SIGSEGV, crashed);
    signal(SIGBUS, crashed);
    signal(SIGABRT, crashed);
}

static int fails(void)
{
    if (left == 0 || --left != 0)
        return 0;
    struct stack s = stack();
    if (s.whose == NUMPY && s.runs_python && Py_Version >= 0x030C0000) {
        failed = OTHERS;
        return 0;
    }
    failed = s.whose;
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
