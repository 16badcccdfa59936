/* The compiler's side of things: for which instruction set the rest of the file is compiled, and how a loop is
 * told that its iterations are independent. Included after every system header, so that no inline function of
 * theirs is compiled for more than the baseline. */

#if defined(__x86_64__) || defined(_M_X64)
#define FASTREG_X86 1
#else
#define FASTREG_X86 0
#endif

/* MSVC has no per-function target: it builds the baseline alone. */
#if FASTREG_X86 && (defined(__GNUC__) || defined(__clang__))
#define FASTREG_X86_TARGETS 1
#else
#define FASTREG_X86_TARGETS 0
#endif

/* FMA is left out on purpose: a fused multiply-add rounds once where the baseline rounds twice. */
#if defined(FASTREG_TARGET_AVX2)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,bmi,bmi2,lzcnt,popcnt")
#endif
#elif defined(FASTREG_TARGET_AVX512)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx2,bmi,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif
#endif

/* clang takes several vectors a turn of its own accord. */
#if defined(__GNUC__) && !defined(__clang__)
#define FASTREG_UNROLL _Pragma("GCC unroll 4")
#else
#define FASTREG_UNROLL
#endif

#if defined(__clang__)
#define FASTREG_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define FASTREG_IVDEP _Pragma("GCC ivdep")
#elif defined(_MSC_VER)
#define FASTREG_IVDEP __pragma(loop(ivdep))
#else
#define FASTREG_IVDEP
#endif

#if defined(__GNUC__) || defined(__clang__)
#define FASTREG_INLINE static inline __attribute__((always_inline, unused))
#else
#define FASTREG_INLINE static __forceinline
#endif
