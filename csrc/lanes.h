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
typedef float vsingle __attribute__((vector_size(VECTOR_BYTES / 2)));
#else
typedef double vdouble;
typedef float vsingle;
#endif

enum {
    SUM_LANES = 16,
    VDOUBLES = sizeof(vdouble) / sizeof(double), /* in a vector */
    SUM_VECTORS = SUM_LANES / VDOUBLES
};

/* GCC 12 widens a vector of its own type in halves, or by scalars; the instruction that does it whole has to be named. */
FASTREG_INLINE vdouble widen_f32(const float *x)
{
#if defined(FASTREG_TARGET_AVX512)
    return (vdouble)_mm512_cvtps_pd(_mm256_loadu_ps(x));
#elif defined(FASTREG_TARGET_AVX2)
    return (vdouble)_mm256_cvtps_pd(_mm_loadu_ps(x));
#elif FASTREG_X86_TARGETS
    return (vdouble)_mm_cvtps_pd(_mm_castsi128_ps(_mm_loadl_epi64((const void *)x)));
#elif defined(__GNUC__) || defined(__clang__)
    vsingle v;
    memcpy(&v, x, sizeof v);
    return __builtin_convertvector(v, vdouble);
#else
    return *x;
#endif
}

FASTREG_INLINE vdouble widen_f64(const double *x)
{
    vdouble v;
    memcpy(&v, x, sizeof v);
    return v;
}

/* The one order in which lanes are added. */
FASTREG_INLINE double sum_lanes(const double *lane)
{
    double s[SUM_LANES];
    for (int l = 0; l < SUM_LANES; l++)
        s[l] = lane[l];
    for (int half = SUM_LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            s[l] += s[l + half];
    return s[0];
}

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
