/* The floating-point mode of a thread. Kernels run in IEEE's default mode (round to nearest, subnormals kept,
 * nothing trapped) whatever the caller has set, so that the bits are the same in a process where some other
 * library turned flush-to-zero on; the caller's mode and exception flags are put back afterwards. */
#ifndef FASTREG_FPMODE_H
#define FASTREG_FPMODE_H

#include <stdint.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>

typedef unsigned int fpmode;
static inline fpmode fpmode_enter(void)
{
    fpmode caller = _mm_getcsr();
    if ((caller & ~0x3Fu) != 0x1F80u) /* all but the sticky flags */
        _mm_setcsr(0x1F80u);
    return caller;
}
static inline void fpmode_leave(fpmode caller)
{
    if (_mm_getcsr() != caller)
        _mm_setcsr(caller);
}

#elif defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))

typedef struct {
    uint64_t control, status;
} fpmode;
static inline fpmode fpmode_enter(void)
{
    fpmode caller;
    __asm__ volatile("mrs %0, fpcr" : "=r"(caller.control));
    __asm__ volatile("mrs %0, fpsr" : "=r"(caller.status));
    if (caller.control)
        __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return caller;
}
static inline void fpmode_leave(fpmode caller)
{
    if (caller.control)
        __asm__ volatile("msr fpcr, %0" : : "r"(caller.control));
    __asm__ volatile("msr fpsr, %0" : : "r"(caller.status));
}

#else /* no known control register: the mode is left as it is */

typedef int fpmode;
static inline fpmode fpmode_enter(void) { return 0; }
static inline void fpmode_leave(fpmode caller) { (void)caller; }

#endif
#endif
