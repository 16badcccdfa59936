/* Expands every kernels/<family>.inc for f32 and f64, for the instruction set that the including file names, and
 * collects the functions in that file's table. Everything but the table is static: code compiled for AVX must
 * not be what the linker gives the baseline.
 *
 * The vocabulary of an .inc:
 *   KERNEL(name) { … }   the body of a kernel: a (its arguments), first, n
 *   T, BITS              float or double, and the unsigned integer of its size
 *   FN(name)             a helper's name, one for each T:  static inline T FN(square)(T x)
 *   FOR_EACH(i, n)       a loop whose iterations are independent, so that it vectorises even where out is x
 *   FOR_EACH_UNROLLED    the same, for the cheapest kernels
 *   LANES, FOR_LANES(l)  the fixed number of lanes (eight SSE, four AVX2 or two AVX-512 registers) in which
 *                        sums are kept: the same additions in the same order on every instruction set
 *   C(1.5)               a constant of type T
 *   VT                   a vector of T as wide as a register, or where there is none a T; see lanes.h
 *   ABS SQRT COPYSIGN    <math.h> for T
 *   FN(exp) FN(log1p)    ours, see elementary.h
 *   STREAM(to, from, n)  copies n elements past the caches; a kernel that does so ends with STREAM_END();
 *   STREAM_ONE(to, v)    the same of a VT, where `to` is aligned like one
 *   WHOLE_LINES(to, n)   how many of n elements end on a whole line of the cache
 *   stream_vector(s, v)  the same, a vector at a time, between stream_from(to) and stream_last(s), where STREAMS_VECTORS */

#include <math.h>
#include <string.h>
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

#include "core.h"
#include "target.h"
#include "lanes.h"

#define CONCAT_(a, b) a##_##b
#define CONCAT(a, b) CONCAT_(a, b)
#define FN(name) CONCAT(name, SUFFIX)
#define C(x) ((T)(x))

#define FOR_EACH(i, n) FASTREG_IVDEP for (int64_t i = 0; i < (n); i++)
/* Four vectors a turn, so that more reads are under way. For the loops that do little but read and write: of all loops it
 * would add much to the code and nothing to the speed. */
#define FOR_EACH_UNROLLED(i, n) FASTREG_UNROLL FOR_EACH(i, n)
#define FOR_LANES(l) for (int l = 0; l < LANES; l++)

/* Non-temporal stores spare the read that an ordinary store to memory outside the caches begins with: a quarter of
 * the traffic of a pass with two inputs. They fill whole lines: a line half written by other stores costs more than it
 * spares. They are not ordered with other stores, hence the fence at the end. */
enum { LINE = 64 };
#if defined(FASTREG_TARGET_AVX512)
#define WIDTH 64
#define STREAM_VECTOR(to, from) _mm512_stream_si512((__m512i *)(void *)(to), _mm512_loadu_si512(from))
#elif defined(FASTREG_TARGET_AVX2)
#define WIDTH 32
#define STREAM_VECTOR(to, from) _mm256_stream_si256((__m256i *)(void *)(to), _mm256_loadu_si256((const void *)(from)))
#elif FASTREG_X86
#define WIDTH 16
#define STREAM_VECTOR(to, from) _mm_stream_si128((__m128i *)(void *)(to), _mm_loadu_si128((const void *)(from)))
#endif
FASTREG_INLINE void stream_bytes(char *to, const char *from, size_t size)
{
#if FASTREG_X86
    size_t i = (size_t)(-(uintptr_t)to % LINE);
    if (i > size)
        i = size;
    if (i > 0) /* a call of memcpy for nothing costs as much as a line */
        memcpy(to, from, i);
    for (; i + LINE <= size; i += LINE)
        for (size_t j = i; j < i + LINE; j += WIDTH)
            STREAM_VECTOR(to + j, from + j);
    if (i < size)
        memcpy(to + i, from + i, size - i);
#else
    memcpy(to, from, size);
#endif
}
#if FASTREG_X86 && defined(VECTOR_BYTES)
#define STREAM_ONE(to, v) STREAM_VECTOR((char *)(to), &(v))
#else
#define STREAM_ONE(to, v) memcpy(to, &(v), sizeof(v))
#endif

/* Vectors, one after the other, to memory on other boundaries than theirs: what is stored is put together of two of them in
 * registers. By way of memory, as above, it would have to lie there for a while before it can be had on other boundaries. */
#if defined(FASTREG_TARGET_AVX512) || defined(FASTREG_TARGET_AVX2)
#define STREAMS_VECTORS 1
typedef struct {
    char *at, *first; /* of the next vector, and of the first with which a whole line begins */
    size_t turn;      /* bytes of a vector that belong to what is stored before */
    vbits index, from_next, last;
} vector_stream;

FASTREG_INLINE vector_stream stream_from(void *to)
{
    const size_t head = (size_t)(-(uintptr_t)to % LINE), turn = head % WIDTH;
    uint32_t index[WIDTH / 4], from_next[WIDTH / 4];
    for (uint32_t l = 0; l < WIDTH / 4; l++) {
        index[l] = l + (uint32_t)turn / 4;
        from_next[l] = index[l] < WIDTH / 4 ? 0 : UINT32_MAX;
    }
    vector_stream s = {to, (char *)to + head - turn + WIDTH, turn, {0}, {0}, {0}};
    memcpy(&s.index, index, WIDTH);
    memcpy(&s.from_next, from_next, WIDTH);
    return s;
}

FASTREG_INLINE void stream_vector(vector_stream *s, const void *vector)
{
    vbits next;
    memcpy(&next, vector, WIDTH);
#if defined(FASTREG_TARGET_AVX512)
    const __m512i whole = _mm512_permutex2var_epi32((__m512i)s->last, (__m512i)s->index, (__m512i)next);
#else
    const __m256i a = _mm256_permutevar8x32_epi32((__m256i)s->last, (__m256i)s->index);
    const __m256i b = _mm256_permutevar8x32_epi32((__m256i)next, (__m256i)s->index);
    const __m256i whole = _mm256_blendv_epi8(a, b, (__m256i)s->from_next);
#endif
    if (s->at >= s->first)
        STREAM_VECTOR(s->at + s->turn - WIDTH, &whole);
    s->at += WIDTH;
    s->last = next;
}

/* What is left of the last of them. */
FASTREG_INLINE void stream_last(vector_stream *s)
{
    if (s->at >= s->first)
        memcpy(s->at + s->turn - WIDTH, (const char *)&s->last + s->turn, WIDTH - s->turn);
}
#else
#define STREAMS_VECTORS 0
#endif
#define WHOLE_LINES(to, n) ((n) - (int64_t)((uintptr_t)((to) + (n)) % LINE / sizeof(T)))
#define STREAM(to, from, n) stream_bytes((char *)(to), (const char *)(from), (size_t)(n) * sizeof(T))
#if FASTREG_X86
#define STREAM_END() _mm_sfence()
#else
#define STREAM_END() ((void)0)
#endif

/* The table wants one type of function, the body wants its own arguments. */
#define KERNEL(name)                                                                                  \
    FASTREG_INLINE void FN(name##_body)(const name##_args *a, int64_t first, int64_t n);              \
    static void FN(name)(const void *args, int64_t first, int64_t n) { FN(name##_body)(args, first, n); } \
    FASTREG_INLINE void FN(name##_body)(const name##_args *a, int64_t first, int64_t n)

#include "kernels/philox.inc"

#define T double
#define VT vdouble
#define BITS uint64_t
#define SUFFIX f64
#define LANES 16
#define ABS fabs
#define SQRT sqrt
#define COPYSIGN copysign
#include "elementary.h"
#include "families.h"
#undef T
#undef VT
#undef BITS
#undef SUFFIX
#undef LANES
#undef ABS
#undef SQRT
#undef COPYSIGN

#define T float
#define VT vfloat
#define BITS uint32_t
#define SUFFIX f32
#define LANES 32
#define ABS fabsf
#define SQRT sqrtf
#define COPYSIGN copysignf
#include "elementary.h"
#include "families.h"

#undef KERNEL
#define TABLE CONCAT(fastreg_table, FASTREG_TARGET)

const fastreg_table TABLE = {{
#define KERNEL(name, roles, cutoff, ...) [KERNEL_##name] = {name##_f32, name##_f64},
#include "kernels.def"
#undef KERNEL
}};

#if defined(__clang__) && (defined(FASTREG_TARGET_AVX2) || defined(FASTREG_TARGET_AVX512))
#pragma clang attribute pop
#endif
