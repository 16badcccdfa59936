/* exp and log1p for T, as arithmetic alone: a library's differ from one system to the next in the last bit, and do not
 * vectorise. Included by instantiate.h once for each T.
 *
 * exp: x = n·ln 2 + r with |r| <= ½ln 2; n·LN2_HI is exact, for LN2_HI ends in zeros. Then exp(x) = 2^n·(1 + r + r²·p(r)),
 * and 2^n is multiplied in two steps, so that results below the normal numbers are rounded once.
 *
 * log: with s = f/(2 + f), log(1 + f) = 2·atanh(s) = 2s + s³·q(s²).
 *
 * p and q interpolate (exp(r) − 1 − r)/r² on ±½ln 2 and (2·atanh(s) − 2s)/s³ in s² on [0, 1/9] at Chebyshev's points; what
 * they leave out is below 2^-32 of the result for f32, 2^-61 for f64 (mpmath.chebyfit with 6, 5; 11, 11 terms). */

#if LANES == 32
#define MANTISSA 23
#define BIAS 127
#define LOWEST C(-104)  /* exp is 0 from here down: half the smallest subnormal is exp(-103.97) */
#define HIGHEST C(89)   /* and infinite from here up */
#define LOG2_E C(0x1.715476p+0)
#define LN2_HI C(0x1.63p-1)
#define LN2_LO C(-0x1.bd0106p-13)
static const T FN(exp_terms)[] = {
    C(0.0001989099082467365384739), C(0.001393364999630925042889), C(0.008333310925480900834923),
    C(0.04166646492528590540772),   C(0.1666666668162323140207),   C(0.5000000013465809200091),
};
static const T FN(log_terms)[] = {
    C(0.2322432922402334883195), C(0.2170657580088037264589), C(0.2859235799430283772259),
    C(0.3999970633192971740234), C(0.6666666732052741246875),
};
#else
#define MANTISSA 52
#define BIAS 1023
#define LOWEST C(-746)
#define HIGHEST C(710)
#define LOG2_E C(0x1.71547652b82fep+0)
#define LN2_HI C(0x1.62e42feep-1)
#define LN2_LO C(0x1.a39ef35793c76p-33)
static const T FN(exp_terms)[] = {
    C(2.091468696808687723173e-9),  C(2.510521700472074516316e-8),  C(2.755727364311029532782e-7),
    C(0.000002755725540020642442968), C(0.00002480158732554774121629), C(0.0001984126987482062527124),
    C(0.001388888888888374830461),  C(0.008333333333326135125782),  C(0.04166666666666666975462),
    C(0.1666666666666667099066),    C(0.5),
};
static const T FN(log_terms)[] = {
    C(0.1563057780092285044625), C(0.07492143795550767300832), C(0.1084517839488001482205),
    C(0.1173427906130319746002), C(0.1333517863144925583659), C(0.1538454396486054928689),
    C(0.1818181989796271438257), C(0.2222222219823677055701), C(0.285714285716000992922),
    C(0.3999999999999952250534), C(0.66666666666666666886),
};
#endif
enum { FN(exp_count) = sizeof FN(exp_terms) / sizeof(T), FN(log_count) = sizeof FN(log_terms) / sizeof(T) };

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

/* Within 1 ulp for f32, 2 ulp for f64, everywhere; NaN passes both comparisons. */
FASTREG_INLINE T FN(exp)(T x)
{
    const T shift = C(3) * ((BITS)1 << (MANTISSA - 1)); /* added, it leaves the integer n in the lowest bits */
    x = LOWEST > x ? LOWEST : x;
    x = HIGHEST < x ? HIGHEST : x;
    const T shifted = x * LOG2_E + shift, n = shifted - shift, r = (x - n * LN2_HI) - n * LN2_LO;
    T p = FN(exp_terms)[0];
    for (int k = 1; k < FN(exp_count); k++)
        p = p * r + FN(exp_terms)[k];
    const BITS exponent = FN(to_bits)(shifted) - FN(to_bits)(shift) + 2 * BIAS, half = exponent >> 1;
    return (1 + (r + r * r * p)) * FN(of_bits)(half << MANTISSA) * FN(of_bits)((exponent - half) << MANTISSA);
}

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
