/* Sums in double, in a fixed number of lanes: element i of a run is added to lane i % SUM_LANES on every instruction
 * set, and the lanes are added in one fixed tree. The vectors are as wide as the instruction set's registers; an array
 * of plain doubles, which GCC takes apart into scalars, is several times slower. */
#if defined(__GNUC__) || defined(__clang__)
#if defined(FASTREG_TARGET_AVX512)
#define VECTOR_BYTES 64
#elif defined(FASTREG_TARGET_AVX2)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
typedef double vdouble __attribute__((vector_size(VECTOR_BYTES)));
typedef float vfloat __attribute__((vector_size(VECTOR_BYTES)));
typedef float vhalf __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint64_t vbits __attribute__((vector_size(VECTOR_BYTES)));
/* For data that the hardware does not see coming: rows some pages apart. */
#define PREFETCH(p) __builtin_prefetch(p)
#define PREFETCH_FAR(p) __builtin_prefetch(p, 0, 2)
/* From here on the compiler knows nothing about the number x. */
#define HIDE(x) __asm__("" : "+m"(x))
#else
typedef double vdouble;
typedef float vfloat;
#define PREFETCH(p) ((void)(p))
#define PREFETCH_FAR(p) ((void)(p))
#define HIDE(x) ((void)(x))
#endif

enum {
    SUM_LANES = 16,
    SUM_VECTORS = SUM_LANES * (int)sizeof(double) / (int)sizeof(vdouble),
    /* Where lanes l and l + FOLDED are added before they are widened, half as many sums are kept. */
    FOLDED = SUM_LANES / 2,
    FOLDED_VECTORS = SUM_VECTORS / 2,
    VDOUBLE = sizeof(vdouble) / sizeof(double)
};

FASTREG_INLINE vfloat load_f32(const float *x)
{
    vfloat v;
    memcpy(&v, x, sizeof v);
    return v;
}

FASTREG_INLINE vdouble load_f64(const double *x)
{
    vdouble v;
    memcpy(&v, x, sizeof v);
    return v;
}

/* The same in halves: where lines are still on their way from memory, a whole one waits longer. */
#if defined(FASTREG_TARGET_AVX512)
#define HALVES(x)                                                                                   \
    _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const void *)(x))),               \
                       _mm256_loadu_si256((const void *)((const char *)(x) + 32)), 1)
FASTREG_INLINE vfloat load_halves_f32(const float *x) { return (vfloat)HALVES(x); }
FASTREG_INLINE vdouble load_halves_f64(const double *x) { return (vdouble)HALVES(x); }
#undef HALVES
#else
FASTREG_INLINE vfloat load_halves_f32(const float *x) { return load_f32(x); }
FASTREG_INLINE vdouble load_halves_f64(const double *x) { return load_f64(x); }
#endif

/* A run's lanes, from memory into registers and back: one by one, since GCC copies an array of vectors through memory. */
FASTREG_INLINE void load_vectors(vdouble *v, const double *lane, int count)
{
    for (int i = 0; i < count; i++)
        v[i] = load_f64(lane + i * VDOUBLE);
}

FASTREG_INLINE void store_vectors(double *lane, const vdouble *v, int count)
{
    for (int i = 0; i < count; i++)
        memcpy(lane + i * VDOUBLE, &v[i], sizeof v[i]);
}

FASTREG_INLINE void load_lanes(vdouble *v, const double *lane) { load_vectors(v, lane, SUM_VECTORS); }
FASTREG_INLINE void store_lanes(double *lane, const vdouble *v) { store_vectors(lane, v, SUM_VECTORS); }
FASTREG_INLINE void load_folded(vdouble *v, const double *lane) { load_vectors(v, lane, FOLDED_VECTORS); }
FASTREG_INLINE void store_folded(double *lane, const vdouble *v) { store_vectors(lane, v, FOLDED_VECTORS); }

/* Adds vector i of a run's lanes to their sums. GCC 12 widens a vector of its own type by halves of halves, or by
 * scalars, so the instructions have to be named. */
FASTREG_INLINE void accumulate_f32(vdouble *sum, int i, vfloat v)
{
#if defined(FASTREG_TARGET_AVX512)
    sum[2 * i] += (vdouble)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v));
    sum[2 * i + 1] += (vdouble)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)v, 1));
#elif defined(FASTREG_TARGET_AVX2)
    sum[2 * i] += (vdouble)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v));
    sum[2 * i + 1] += (vdouble)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1));
#elif FASTREG_X86_TARGETS
    sum[2 * i] += (vdouble)_mm_cvtps_pd((__m128)v);
    sum[2 * i + 1] += (vdouble)_mm_cvtps_pd(_mm_movehl_ps((__m128)v, (__m128)v));
#elif defined(__GNUC__) || defined(__clang__)
    vhalf half[2];
    memcpy(half, &v, sizeof v);
    sum[2 * i] += __builtin_convertvector(half[0], vdouble);
    sum[2 * i + 1] += __builtin_convertvector(half[1], vdouble);
#else
    sum[i] += v;
#endif
}

/* Adds a run's SUM_LANES elements to FOLDED sums: a is vector i of them, b the one FOLDED elements further (where they
 * are halves of one register: a alone). */
FASTREG_INLINE void accumulate_folded_f32(vdouble *sum, int i, vfloat a, vfloat b)
{
#if defined(FASTREG_TARGET_AVX512)
    (void)b;
    sum[i] += (vdouble)_mm512_cvtps_pd(_mm256_add_ps(_mm512_castps512_ps256((__m512)a), _mm512_extractf32x8_ps((__m512)a, 1)));
#else
    accumulate_f32(sum, i, a + b);
#endif
}

/* As many elements, widened, as a vector of doubles holds. */
FASTREG_INLINE vdouble widen_f32(const float *x)
{
#if defined(FASTREG_TARGET_AVX512)
    return (vdouble)_mm512_cvtps_pd(_mm256_loadu_ps(x));
#elif defined(FASTREG_TARGET_AVX2)
    return (vdouble)_mm256_cvtps_pd(_mm_loadu_ps(x));
#elif FASTREG_X86_TARGETS
    return (vdouble)_mm_cvtps_pd(_mm_castsi128_ps(_mm_loadl_epi64((const void *)x)));
#elif defined(__GNUC__) || defined(__clang__)
    vhalf half;
    memcpy(&half, x, sizeof half);
    return __builtin_convertvector(half, vdouble);
#else
    return *x;
#endif
}

FASTREG_INLINE vdouble widen_f64(const double *x) { return load_f64(x); }

/* And back. */
FASTREG_INLINE void narrow_f32(float *y, vdouble v)
{
#if defined(FASTREG_TARGET_AVX512)
    _mm256_storeu_ps(y, _mm512_cvtpd_ps((__m512d)v));
#elif defined(FASTREG_TARGET_AVX2)
    _mm_storeu_ps(y, _mm256_cvtpd_ps((__m256d)v));
#elif FASTREG_X86_TARGETS
    _mm_storel_pi((void *)y, _mm_cvtpd_ps((__m128d)v));
#elif defined(__GNUC__) || defined(__clang__)
    const vhalf half = __builtin_convertvector(v, vhalf);
    memcpy(y, &half, sizeof half);
#else
    *y = (float)v;
#endif
}

FASTREG_INLINE void narrow_f64(double *y, vdouble v) { memcpy(y, &v, sizeof v); }

/* A vector of T out of what accumulate adds it to. */
FASTREG_INLINE vfloat narrowed_f32(const vdouble *v)
{
#if defined(FASTREG_TARGET_AVX512)
    const __m512 low = _mm512_castps256_ps512(_mm512_cvtpd_ps((__m512d)v[0]));
    return (vfloat)_mm512_insertf32x8(low, _mm512_cvtpd_ps((__m512d)v[1]), 1);
#elif defined(FASTREG_TARGET_AVX2)
    const __m256 low = _mm256_castps128_ps256(_mm256_cvtpd_ps((__m256d)v[0]));
    return (vfloat)_mm256_insertf128_ps(low, _mm256_cvtpd_ps((__m256d)v[1]), 1);
#elif FASTREG_X86_TARGETS
    return (vfloat)_mm_movelh_ps(_mm_cvtpd_ps((__m128d)v[0]), _mm_cvtpd_ps((__m128d)v[1]));
#elif defined(__GNUC__) || defined(__clang__)
    const vhalf half[2] = {__builtin_convertvector(v[0], vhalf), __builtin_convertvector(v[1], vhalf)};
    vfloat whole;
    memcpy(&whole, half, sizeof whole);
    return whole;
#else
    return (float)*v;
#endif
}

FASTREG_INLINE vdouble narrowed_f64(const vdouble *v) { return *v; }

/* The same past the caches, where y is aligned so. */
#if defined(FASTREG_TARGET_AVX512)
FASTREG_INLINE void narrow_past_f32(float *y, vdouble v) { _mm256_stream_ps(y, _mm512_cvtpd_ps((__m512d)v)); }
FASTREG_INLINE void narrow_past_f64(double *y, vdouble v) { _mm512_stream_pd(y, (__m512d)v); }
#elif defined(FASTREG_TARGET_AVX2)
FASTREG_INLINE void narrow_past_f32(float *y, vdouble v) { _mm_stream_ps(y, _mm256_cvtpd_ps((__m256d)v)); }
FASTREG_INLINE void narrow_past_f64(double *y, vdouble v) { _mm256_stream_pd(y, (__m256d)v); }
#else
FASTREG_INLINE void narrow_past_f32(float *y, vdouble v) { narrow_f32(y, v); }
FASTREG_INLINE void narrow_past_f64(double *y, vdouble v) { narrow_f64(y, v); }
#endif

FASTREG_INLINE void accumulate_f64(vdouble *sum, int i, vdouble v) { sum[i] += v; }

FASTREG_INLINE void accumulate_folded_f64(vdouble *sum, int i, vdouble a, vdouble b) { sum[i] += a + b; }

/* a where it is larger, else b; and |x|. As above, GCC has to be told. */
#if defined(__GNUC__) || defined(__clang__)
#if defined(FASTREG_TARGET_AVX512)
FASTREG_INLINE vfloat larger_f32(vfloat a, vfloat b) { return (vfloat)_mm512_max_ps((__m512)a, (__m512)b); }
FASTREG_INLINE vdouble larger_f64(vdouble a, vdouble b) { return (vdouble)_mm512_max_pd((__m512d)a, (__m512d)b); }
#elif defined(FASTREG_TARGET_AVX2)
FASTREG_INLINE vfloat larger_f32(vfloat a, vfloat b) { return (vfloat)_mm256_max_ps((__m256)a, (__m256)b); }
FASTREG_INLINE vdouble larger_f64(vdouble a, vdouble b) { return (vdouble)_mm256_max_pd((__m256d)a, (__m256d)b); }
#elif FASTREG_X86_TARGETS
FASTREG_INLINE vfloat larger_f32(vfloat a, vfloat b) { return (vfloat)_mm_max_ps((__m128)a, (__m128)b); }
FASTREG_INLINE vdouble larger_f64(vdouble a, vdouble b) { return (vdouble)_mm_max_pd((__m128d)a, (__m128d)b); }
#else
#define LARGER(v) (v)(((vbits)a & (vbits)(a > b)) | ((vbits)b & ~(vbits)(a > b)))
FASTREG_INLINE vfloat larger_f32(vfloat a, vfloat b) { return LARGER(vfloat); }
FASTREG_INLINE vdouble larger_f64(vdouble a, vdouble b) { return LARGER(vdouble); }
#endif
FASTREG_INLINE vfloat magnitude_f32(vfloat v) { return (vfloat)((vbits)v & 0x7fffffff7fffffffu); }
FASTREG_INLINE vdouble magnitude_f64(vdouble v) { return (vdouble)((vbits)v & 0x7fffffffffffffffu); }
#else
FASTREG_INLINE vfloat larger_f32(vfloat a, vfloat b) { return a > b ? a : b; }
FASTREG_INLINE vdouble larger_f64(vdouble a, vdouble b) { return a > b ? a : b; }
FASTREG_INLINE vfloat magnitude_f32(vfloat v) { return fabsf(v); }
FASTREG_INLINE vdouble magnitude_f64(vdouble v) { return fabs(v); }
#endif

/* The one order in which lanes are added: of at most SUM_LANES. */
FASTREG_INLINE double sum_tree(const double *lane, int lanes)
{
    double s[SUM_LANES];
    for (int l = 0; l < lanes; l++)
        s[l] = lane[l];
    for (int half = lanes / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            s[l] += s[l + half];
    return s[0];
}

FASTREG_INLINE double sum_lanes(const double *lane) { return sum_tree(lane, SUM_LANES); }
FASTREG_INLINE double sum_folded(const double *lane) { return sum_tree(lane, FOLDED); }

/* sum_folded of `count` runs' lanes, as many runs at a time as a register has doubles: one by one, the additions across
 * a register take longer than a run of 64 elements. */
FASTREG_INLINE void sum_each(const double (*lane)[FOLDED], int64_t count, double *sums)
{
    int64_t r = 0;
#if defined(FASTREG_TARGET_AVX512)
#define PAIRS(i, j) /* of runs i and j: lanes l + (l + 4) */                                                             \
    _mm512_add_pd(_mm512_shuffle_f64x2(_mm512_loadu_pd(lane[r + (i)]), _mm512_loadu_pd(lane[r + (j)]), 0x44), \
                  _mm512_shuffle_f64x2(_mm512_loadu_pd(lane[r + (i)]), _mm512_loadu_pd(lane[r + (j)]), 0xee))
    for (; r + 8 <= count; r += 8) {
        const __m512d a = PAIRS(0, 2), b = PAIRS(4, 6), c = PAIRS(1, 3), d = PAIRS(5, 7);
        const __m512d even = _mm512_add_pd(_mm512_shuffle_f64x2(a, b, 0x88), _mm512_shuffle_f64x2(a, b, 0xdd));
        const __m512d odd = _mm512_add_pd(_mm512_shuffle_f64x2(c, d, 0x88), _mm512_shuffle_f64x2(c, d, 0xdd));
        _mm512_storeu_pd(sums + r, _mm512_add_pd(_mm512_unpacklo_pd(even, odd), _mm512_unpackhi_pd(even, odd)));
    }
#undef PAIRS
#elif defined(FASTREG_TARGET_AVX2)
#define HALVES(i) _mm256_add_pd(_mm256_loadu_pd(lane[r + (i)]), _mm256_loadu_pd(lane[r + (i)] + 4))
    for (; r + 4 <= count; r += 4) {
        const __m256d a = HALVES(0), b = HALVES(1), c = HALVES(2), d = HALVES(3);
        const __m256d even = _mm256_add_pd(_mm256_permute2f128_pd(a, c, 0x20), _mm256_permute2f128_pd(a, c, 0x31));
        const __m256d odd = _mm256_add_pd(_mm256_permute2f128_pd(b, d, 0x20), _mm256_permute2f128_pd(b, d, 0x31));
        _mm256_storeu_pd(sums + r, _mm256_add_pd(_mm256_unpacklo_pd(even, odd), _mm256_unpackhi_pd(even, odd)));
    }
#undef HALVES
#endif
    for (; r < count; r++)
        sums[r] = sum_folded(lane[r]);
}

/* The last steps of that tree, of the lanes of one vector, and likewise the largest of them. By name, since GCC goes by
 * way of memory and scalars: that costs as much as the terms of 64 elements. */
#if FASTREG_X86_TARGETS
#if defined(FASTREG_TARGET_AVX512)
#define HALVE(op, v) _mm256_##op##_pd(_mm512_castpd512_pd256((__m512d)(v)), _mm512_extractf64x4_pd((__m512d)(v), 1))
#define QUARTER(op, v) _mm_##op##_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1))
#define PAIR(op, v) QUARTER(op, HALVE(op, v))
#elif defined(FASTREG_TARGET_AVX2)
#define PAIR(op, v) _mm_##op##_pd(_mm256_castpd256_pd128((__m256d)(v)), _mm256_extractf128_pd((__m256d)(v), 1))
#else
#define PAIR(op, v) (__m128d)(v)
#endif
FASTREG_INLINE double sum_vector(vdouble v)
{
    const __m128d pair = PAIR(add, v);
    return _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));
}
FASTREG_INLINE double largest_in(vdouble v)
{
    const __m128d pair = PAIR(max, v);
    return _mm_cvtsd_f64(_mm_max_sd(pair, _mm_unpackhi_pd(pair, pair)));
}
#undef HALVE
#undef QUARTER
#undef PAIR
#else
#define FOLD(name, term)                                             \
    FASTREG_INLINE double name(vdouble v)                            \
    {                                                                \
        double s[SUM_LANES / SUM_VECTORS];                           \
        memcpy(s, &v, sizeof v);                                     \
        for (int half = SUM_LANES / SUM_VECTORS / 2; half > 0; half /= 2) \
            for (int l = 0; l < half; l++)                           \
                s[l] = term(s[l], s[l + half]);                      \
        return s[0];                                                 \
    }
#define ADD_(a, b) ((a) + (b))
#define LARGER_(a, b) ((a) > (b) ? (a) : (b))
FOLD(sum_vector, ADD_)
FOLD(largest_in, LARGER_)
#undef FOLD
#undef ADD_
#undef LARGER_
#endif

/* sum_tree of lanes in registers. */
FASTREG_INLINE double sum_tree_of_vectors(const vdouble *v, int count)
{
    vdouble sum[SUM_VECTORS];
    for (int i = 0; i < count; i++)
        sum[i] = v[i];
    for (int half = count / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            sum[i] += sum[i + half];
    return sum_vector(sum[0]);
}

FASTREG_INLINE double sum_vectors(const vdouble *v) { return sum_tree_of_vectors(v, SUM_VECTORS); }
FASTREG_INLINE double sum_folded_vectors(const vdouble *v) { return sum_tree_of_vectors(v, FOLDED_VECTORS); }

/* Of a vector of floats: widened first, which makes −0 a 0, so that a largest of zeros has one sign everywhere. */
enum { FLOAT_HALVES = sizeof(vfloat) / sizeof(float) * sizeof(double) / sizeof(vdouble) };
FASTREG_INLINE double sum_of_lanes_f32(vfloat v)
{
    vdouble wide[2] = {{0}, {0}};
    accumulate_f32(wide, 0, v);
    return sum_vector(FLOAT_HALVES == 2 ? wide[0] + wide[1] : wide[0]);
}
FASTREG_INLINE double largest_lane_f32(vfloat v)
{
    vdouble wide[2] = {{0}, {0}};
    accumulate_f32(wide, 0, v);
    return largest_in(FLOAT_HALVES == 2 ? larger_f64(wide[0], wide[1]) : wide[0]);
}
FASTREG_INLINE double sum_of_lanes_f64(vdouble v) { return sum_vector(v); }
FASTREG_INLINE double largest_lane_f64(vdouble v) { return largest_in((vdouble){0} + v); }

/* Blocks' sums are added with their rounding errors kept (Knuth's two-sum), so that the error of a sum does not grow
 * with the number of blocks. An infinite sum keeps its sign: inf − inf in the error term is left out. */
typedef struct {
    double sum, error;
} compensated;

FASTREG_INLINE void add_compensated(compensated *total, double x)
{
    double s = total->sum + x, v = s - total->sum;
    double e = (total->sum - (s - v)) + (x - v);
    total->sum = s;
    total->error += e - e == 0 ? e : 0;
}

FASTREG_INLINE double total_of(compensated total) { return total.sum + total.error; }
