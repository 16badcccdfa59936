/* A system that refuses: what REFUSE names fails, or happens at the wrong moment. Put before the C library (LD_PRELOAD)
 * by test_runtime.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NEXT(result, name, ...)                                      \
    static result (*next)(__VA_ARGS__);                              \
    if (!next)                                                       \
        next = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name);

static int refuses(const char *what)
{
    const char *named = getenv("REFUSE");
    return named && strcmp(named, what) == 0;
}

int sched_getaffinity(pid_t process, size_t size, cpu_set_t *set)
{
    NEXT(int, sched_getaffinity, pid_t, size_t, cpu_set_t *)
    if (refuses("affinity")) {
        errno = EINVAL;
        return -1;
    }
    if (refuses("few CPUs")) {
        memset(set, 0xFF, size);
        return 0;
    }
    if (refuses("to be first")) {
        void *runtime = dlopen(getenv("RUNTIME"), RTLD_LAZY | RTLD_NOLOAD);
        ((void (*)(int))dlsym(runtime, "fastreg_set_num_threads"))(3);
    }
    return next(process, size, set);
}

cpu_set_t *__sched_cpualloc(size_t count)
{
    NEXT(cpu_set_t *, __sched_cpualloc, size_t)
    return refuses("memory") ? NULL : next(count);
}

int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *module)
{
    NEXT(int, __register_atfork, void (*)(void), void (*)(void), void (*)(void), void *)
    return refuses("handlers") ? ENOMEM : next(prepare, parent, child, module);
}

int pthread_attr_init(pthread_attr_t *attributes)
{
    NEXT(int, pthread_attr_init, pthread_attr_t *)
    return refuses("attributes") ? ENOMEM : next(attributes);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    NEXT(int, pthread_create, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *)
    return refuses("threads") ? EAGAIN : next(thread, attributes, start, argument);
}

/* Set to 1: the thread that next leaves a lock of fastreg's loses its CPU for a while. */
int unlucky;

int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    NEXT(int, pthread_mutex_unlock, pthread_mutex_t *)
    const int result = next(mutex);
    Dl_info caller;
    if (unlucky && dladdr(__builtin_return_address(0), &caller) && strstr(caller.dli_fname, "fastreg_runtime")) {
        unlucky = 0;
        usleep(3000);
    }
    return result;
}
