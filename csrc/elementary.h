/* exp and log1p for T, as arithmetic alone: a library's differ from one system to the next in the last bit, and do not
 * vectorise. Included by instantiate.h once for each T.
 *
 * exp: x = n·ln 2 + r with |r| <= ½ln 2; n·LN2_HI is exact, for LN2_HI ends in zeros. Then exp(x) = 2^n·(1 + r + r²·p(r)),
 * and 2^n is multiplied so that results below the normal numbers are rounded once: in two steps, or, where an exponential
 * ends up in a quotient anyway, as 2^(n ± BOOST), which is a normal number and costs one.
 *
 * log: with s = f/(2 + f), log(1 + f) = 2·atanh(s) = 2s + s³·q(s²).
 *
 * p is the best approximation of (exp(r) − 1 − r)/r² on ±½ln 2 by Remez's exchange, weighed by r²/exp(r): it leaves out
 * 2^-28.2 of exp(r) for f32, 2^-57.9 for f64. Its terms are added in pairs: what a core waits for is a long chain of them.
 * q interpolates (2·atanh(s) − 2s)/s³ in s² on [0, 1/9] at Chebyshev's points, and leaves out less than 2^-32 and 2^-61
 * (mpmath.chebyfit with 5 and 11 terms). */

#undef BOOSTED
#if LANES == 32
#define PACKED(op) _mm512_##op##_ps
#define BOOST 32
#define BOOSTED C(0x1p32)
#define MANTISSA 23
#define BIAS 127
#define LOWEST C(-104)  /* exp is 0 from here down: half the smallest subnormal is exp(-103.97) */
#define HIGHEST C(89)   /* and infinite from here up */
#define LOG2_E C(0x1.715476p+0)
#define LN2_HI C(0x1.63p-1)
#define LN2_LO C(-0x1.bd0106p-13)
#define EXP_TERMS(r, r2)                                                            \
    (C(0.4999999343216998695168) + C(0.1666652039910454511572) * r +                \
     r2 * (C(0.04166839076968073268859) + C(0.008368745104607068064445) * r +       \
           r2 * C(0.001381454105654570110435)))
static const T FN(log_terms)[] = {
    C(0.2322432922402334883195), C(0.2170657580088037264589), C(0.2859235799430283772259),
    C(0.3999970633192971740234), C(0.6666666732052741246875),
};
#else
#define PACKED(op) _mm512_##op##_pd
#define BOOST 64
#define BOOSTED C(0x1p64)
#define MANTISSA 52
#define BIAS 1023
#define LOWEST C(-746)
#define HIGHEST C(710)
#define LOG2_E C(0x1.71547652b82fep+0)
#define LN2_HI C(0x1.62e42feep-1)
#define LN2_LO C(0x1.a39ef35793c76p-33)
#define EXP_TERMS(r, r2)                                                                                          \
    ((C(0.5000000000000010668687) + C(0.1666666666666641150072) * r +                                             \
      r2 * (C(0.04166666666652972870288) + C(0.008333333333494983060744) * r)) +                                  \
     (r2 * r2) * ((C(0.001388888894375984482218) + C(0.0001984126950575929215253) * r +                           \
                   r2 * (C(0.00002480149294975501056663) + C(0.000002755758681626811846359) * r)) +               \
                  (r2 * r2) * (C(2.763030620817227625301e-7) + C(2.500001391345301447263e-8) * r)))
static const T FN(log_terms)[] = {
    C(0.1563057780092285044625), C(0.07492143795550767300832), C(0.1084517839488001482205),
    C(0.1173427906130319746002), C(0.1333517863144925583659), C(0.1538454396486054928689),
    C(0.1818181989796271438257), C(0.2222222219823677055701), C(0.285714285716000992922),
    C(0.3999999999999952250534), C(0.66666666666666666886),
};
#endif
enum { FN(log_count) = sizeof FN(log_terms) / sizeof(T) };

FASTREG_INLINE BITS FN(to_bits)(T x)
{
    BITS bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

FASTREG_INLINE T FN(of_bits)(BITS bits)
{
    T x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* exp(r), where shifted = x·log₂e + shift has n in its lowest bits: shift is an integer of a size that leaves it no others. */
FASTREG_INLINE T FN(exp_reduced)(T x, T shifted, T shift)
{
    const T n = shifted - shift, r = (x - n * LN2_HI) - n * LN2_LO, r2 = r * r;
    return 1 + (r + r2 * EXP_TERMS(r, r2));
}

#define SHIFT (C(3) * ((BITS)1 << (MANTISSA - 1)))

FASTREG_INLINE T FN(minus_size)(T x) { return FN(of_bits)(FN(to_bits)(x) | (BITS)1 << (8 * sizeof(T) - 1)); }

/* Within 1 ulp for f32, 2 ulp for f64, everywhere; NaN passes both comparisons. */
FASTREG_INLINE T FN(exp)(T x)
{
    x = LOWEST > x ? LOWEST : x;
    x = HIGHEST < x ? HIGHEST : x;
    const T shifted = x * LOG2_E + SHIFT;
    const BITS exponent = FN(to_bits)(shifted) - FN(to_bits)(SHIFT) + 2 * BIAS, half = exponent >> 1;
    return FN(exp_reduced)(x, shifted, SHIFT) * FN(of_bits)(half << MANTISSA) * FN(of_bits)((exponent - half) << MANTISSA);
}

/* A number that the compiler does not know: GCC makes a maximum with a constant two comparisons and two blends, of what
 * follows from either side. */
FASTREG_INLINE T FN(unknown)(T x)
{
    HIDE(x);
    return x;
}

/* The least argument of exp_boosted, and with it the largest of exp. */
FASTREG_INLINE T FN(lowest)(void) { return FN(unknown)(LOWEST); }
FASTREG_INLINE T FN(highest)(void) { return FN(unknown)(HIGHEST); }

/* 2^boost·exp(x) with the relative error that exp has for normal results, where that is a normal number: n + BIAS + boost
 * takes the place of an exponent. What is above those bits in `shifted` is shifted out. */
FASTREG_INLINE T FN(exp_times)(T x, int boost)
{
    const T shift = SHIFT + (T)(BIAS + boost), shifted = x * LOG2_E + shift;
    return FN(exp_reduced)(x, shifted, shift) * FN(of_bits)(FN(to_bits)(shifted) << MANTISSA);
}

FASTREG_INLINE T FN(exp_boosted)(T x, T lowest) { return FN(exp_times)(lowest > x ? lowest : x, BOOST); }

/* Four at a time, step by step, the same bits: a core looks ahead by the instructions of three or four exponentials, and
 * where these are one after the other waits for the end of each. */
#define EACH_OF_FOUR for (int k = 0; k < 4; k++)
FASTREG_INLINE void FN(four_exp_reduced)(T *x, const T *shifted, T shift)
{
    T n[4], r[4], r2[4];
    EACH_OF_FOUR n[k] = shifted[k] - shift;
    EACH_OF_FOUR r[k] = x[k] - n[k] * LN2_HI;
    EACH_OF_FOUR r[k] = r[k] - n[k] * LN2_LO;
    EACH_OF_FOUR r2[k] = r[k] * r[k];
    EACH_OF_FOUR x[k] = EXP_TERMS(r[k], r2[k]);
    EACH_OF_FOUR x[k] = 1 + (r[k] + r2[k] * x[k]);
}

FASTREG_INLINE void FN(four_exp_times)(T *x, int boost)
{
    const T shift = SHIFT + (T)(BIAS + boost);
    T shifted[4];
    EACH_OF_FOUR shifted[k] = x[k] * LOG2_E + shift;
    FN(four_exp_reduced)(x, shifted, shift);
    EACH_OF_FOUR x[k] *= FN(of_bits)(FN(to_bits)(shifted[k]) << MANTISSA);
}

FASTREG_INLINE void FN(four_exp_boosted)(T *x, T lowest)
{
    EACH_OF_FOUR x[k] = lowest > x[k] ? lowest : x[k];
    FN(four_exp_times)(x, BOOST);
}

/* exp of four vectors. AVX-512 scales by any power of two at once, with one rounding, as the two factors of FN(exp) do. */
#if defined(FASTREG_TARGET_AVX512)
FASTREG_INLINE void FN(four_exp)(VT *x, T lowest, T highest)
{
    VT n[4], r[4], r2[4];
    EACH_OF_FOUR x[k] = PACKED(min)((VT){0} + highest, PACKED(max)((VT){0} + lowest, x[k]));
    EACH_OF_FOUR n[k] = PACKED(roundscale)(x[k] * LOG2_E, 0);
    EACH_OF_FOUR r[k] = x[k] - n[k] * LN2_HI;
    EACH_OF_FOUR r[k] = r[k] - n[k] * LN2_LO;
    EACH_OF_FOUR r2[k] = r[k] * r[k];
    EACH_OF_FOUR x[k] = EXP_TERMS(r[k], r2[k]);
    EACH_OF_FOUR x[k] = 1 + (r[k] + r2[k] * x[k]);
    EACH_OF_FOUR x[k] = PACKED(scalef)(x[k], n[k]);
}
#else
FASTREG_INLINE void FN(four_exp)(T *x, T lowest, T highest)
{
    T shifted[4];
    EACH_OF_FOUR x[k] = lowest > x[k] ? lowest : x[k];
    EACH_OF_FOUR x[k] = highest < x[k] ? highest : x[k];
    EACH_OF_FOUR shifted[k] = x[k] * LOG2_E + SHIFT;
    FN(four_exp_reduced)(x, shifted, SHIFT);
    EACH_OF_FOUR
    {
        const BITS exponent = FN(to_bits)(shifted[k]) - FN(to_bits)(SHIFT) + 2 * BIAS, half = exponent >> 1;
        x[k] = x[k] * FN(of_bits)(half << MANTISSA) * FN(of_bits)((exponent - half) << MANTISSA);
    }
}
#endif

/* 1/(1 + e^−x). From `near` on 1 + e^−x is 1, and below -far the result is 0; between them one factor holds e^−x. */
FASTREG_INLINE T FN(logistic)(T x, T near, T far)
{
    x = -x;
    x = -near > x ? -near : x;
    x = far < x ? far : x;
    return 1 / BOOSTED / (1 / BOOSTED + FN(exp_times)(x, -BOOST));
}

FASTREG_INLINE void FN(four_logistic)(T *x, T near, T far)
{
    EACH_OF_FOUR x[k] = -x[k];
    EACH_OF_FOUR x[k] = -near > x[k] ? -near : x[k];
    EACH_OF_FOUR x[k] = far < x[k] ? far : x[k];
    FN(four_exp_times)(x, -BOOST);
    EACH_OF_FOUR x[k] = 1 / BOOSTED / (1 / BOOSTED + x[k]);
}
#undef EACH_OF_FOUR

/* log(1 + y) from s = y/(2 + y), for 0 <= y <= 1: within 3 ulp. */
FASTREG_INLINE T FN(log1p_of)(T s)
{
    const T z = s * s;
    T q = FN(log_terms)[0];
    for (int k = 1; k < FN(log_count); k++)
        q = q * z + FN(log_terms)[k];
    return 2 * s + s * z * q;
}

FASTREG_INLINE T FN(log1p)(T y) { return FN(log1p_of)(y / (2 + y)); }

#undef SHIFT
#undef PACKED
#undef EXP_TERMS
#undef MANTISSA
#undef BIAS
#undef LOWEST
#undef HIGHEST
#undef LOG2_E
#if LANES != 32
/* log of a positive normal number: x = 2^k·m with m in [√½, √2]. k comes from a sum below 2^12, without a signed shift, and
 * becomes a double by way of its bits: not every instruction set converts vectors of 64-bit integers. */
FASTREG_INLINE double log_positive(double x)
{
    const uint64_t sqrt_half = 0x3fe6a09e667f3bcdu, bits = to_bits_f64(x);
    const uint64_t biased = (bits - sqrt_half + ((uint64_t)2048 << 52)) >> 52; /* k + 2048 */
    const double k = of_bits_f64(biased | 0x4330000000000000u) - (0x1p52 + 2048);
    const double f = of_bits_f64(bits - ((biased - 2048) << 52)) - 1;
    return k * LN2_HI + (log1p_of_f64(f / (2 + f)) + k * LN2_LO);
}

/* And of a sum of exponentials, which is 1 or more, infinite or NaN. */
FASTREG_INLINE double log_of_sum(double x) { return x < INFINITY ? log_positive(x) : x; }
#endif
#undef LN2_HI
#undef LN2_LO
#undef BOOST
