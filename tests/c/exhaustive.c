/* Every one of the 2^32 f32 values through each kernel of one operand, on each instruction set, against its definition in
 * scalar C written here from the definition, not from the kernel. Then a hundred million f64 values through those that are
 * not exact, against the C library's long double.
 *
 *     exhaustive [every [name]]   every n-th value, and as many fewer of f64; 1 by default; of the one function
 *     exhaustive names            which functions there are */
#include <float.h>

#include "calls.h"

enum { RUN = 1 << 16 };
static float x[RUN + 1], out[RUN + 1], wanted[RUN]; /* the last is 0 */

/* sign(x)·max(|x| − t, 0); NaN stays, and a threshold's zero is +0.0. */
static float soft(float v, float t)
{
    float size = fabsf(v);
    if (size != size)
        return v;
    return size <= t ? 0.0f : copysignf(size - t, v);
}
static float hard(float v, float t) { return fabsf(v) <= t ? 0.0f : v; }
static float box(float v, float lower, float upper) { return v != v ? v : v < lower ? lower : v > upper ? upper : v; }

static float define_soft_threshold(float v) { return soft(v, 0.75f); }
static float define_hard_threshold(float v) { return hard(v, 0.75f); }
/* √(2·step·lam) with 2·step = 1.5·2², lam = 0.3f, in double, once. */
static float define_prox_l0(float v) { return hard(v, (float)(sqrt((double)0.3f * 1.5) * 2)); }
static float define_prox_sq_l2(float v) { return v * (1.0f / (float)(1.0 + (double)0.3f * 0.7)); }
static float define_prox_elastic_net(float v)
{
    return soft(v, (float)((double)0.3f * 0.7)) * (1.0f / (float)(1.0 + (double)0.9f * 0.7));
}
/* Where the penalty no longer pulls, x: the branches of the definition meet at gamma·lam, to a rounding. */
static float define_prox_mcp(float v)
{
    const float t = (float)((double)0.4f * 0.8), c = (float)(1.0 / (1.0 - 0.8 / 2.5));
    float z = soft(v, t) * c;
    return v != v || fabsf(z) <= fabsf(v) ? z : v;
}
/* A soft threshold of step·lam, or of what is left on the line that ends at gamma·lam where that is less. */
static float define_prox_scad(float v)
{
    const float lam = 0.4f, bend = (float)(0.8 / (3.7 - 1.0 - 0.8));
    const float t = (float)((double)lam * 0.8), line = bend * ((float)((double)lam * 3.7) - fabsf(v));
    return soft(v, line > t ? t : line > 0 ? line : 0);
}
static float define_scale_by(float v) { return v * 0.3f; }
static float define_soft_scale_by(float v) { return soft(v, 0.25f) * 0.3f; }
static float above(float v, float hi, float lo) { return v - hi - lo <= 0 ? 0.0f : v - hi - lo; }
static float define_project_simplex(float v) { return above(v, 0.3f, 0x1p-27f); }
static float define_project_l1_ball(float v) { return v < 0 ? 0 - above(-v, 0.3f, 0x1p-27f) : above(v, 0.3f, 0x1p-27f); }
static float define_project_box(float v) { return box(v, -0.3f, 0.8f); }
/* Functions that are not exact are held to a bound on their error, from the definition in a wider type. */
static double exact_exp(double v) { return exp(v); }
static double exact_sigmoid(double v) { return 1 / (1 + exp(-v)); }
static double exact_softplus(double v) { return (v > 0 ? v : 0) + log1p(exp(v > 0 ? -v : v)); }

static const soft_threshold_args soft_threshold_call = {x, NULL, out, 0.75, 1};
static const hard_threshold_args hard_threshold_call = {x, NULL, out, 0.75};
static const prox_l0_args prox_l0_call = {x, NULL, out, 0.3, 1.5, 2};
static const prox_sq_l2_args prox_sq_l2_call = {x, NULL, out, 0.3, 0.7, 0};
static const prox_elastic_net_args prox_elastic_net_call = {x, NULL, NULL, out, 0.3, 0.9, 0.7, 0};
static const prox_mcp_args prox_mcp_call = {x, NULL, out, 0.4, 0.8, 2.5, 0};
static const prox_scad_args prox_scad_call = {x, NULL, NULL, out, 0.4, 0.8, 3.7};
static const scale_by_args scale_by_call = {x, out, 0.3, 0}, soft_scale_by_call = {x, out, 0.3, 0.25};
static const project_simplex_args project_simplex_call = {x, out, 0.3, 0x1p-27};
static const project_l1_ball_args project_l1_ball_call = {x, out, 0.3, 0x1p-27};
static const project_box_args project_box_call = {x, NULL, NULL, out, -0.3, 0.8};
static const sigmoid_args sigmoid_call = {x, out};
/* Each loss where the target is 0. */
static float zero[RUN];
static const binary_cross_entropy_with_logits_args softplus_call = {.input = x, .target = zero, .loss = out, .param = 1};
/* exp has no kernel of its own: it is what log_softmax_backward gives one row with a gradient of 0, and then of −1. */
static float minus_one[RUN + 1] = {[RUN] = -1};
static const log_softmax_backward_args exp_call = {minus_one, x, out, RUN + 1};

static const struct {
    const char *name;
    int kernel;
    const void *args;
    float (*define)(float);
    double (*exact)(double);
    double ulps;
    int64_t items;
} sweeps[] = {
#define SWEEP(name) {#name, KERNEL_##name, &name##_call, define_##name, NULL, 0, RUN}
    SWEEP(soft_threshold), SWEEP(hard_threshold), SWEEP(prox_l0), SWEEP(prox_sq_l2),
    SWEEP(prox_elastic_net), SWEEP(prox_mcp), SWEEP(prox_scad), SWEEP(project_box), SWEEP(scale_by),
    SWEEP(project_simplex), SWEEP(project_l1_ball),
    {"soft_scale_by", KERNEL_scale_by, &soft_scale_by_call, define_soft_scale_by, NULL, 0, RUN},
    {"exp", KERNEL_log_softmax_backward, &exp_call, NULL, exact_exp, 1, 1},
    {"sigmoid", KERNEL_sigmoid, &sigmoid_call, NULL, exact_sigmoid, 2.5, RUN},
    {"softplus", KERNEL_binary_cross_entropy_with_logits, &softplus_call, NULL, exact_softplus, 3, RUN},
};

/* The distance of a result from the exact one, in units of the last place that a type of `digits` bits and least
 * exponent `least` has there. An infinite result counts as the power of two that follows the largest number. */
static double ulps_between(double got, long double exact, int digits, int least)
{
    int exponent;
    const long double end = ldexpl(1, 3 - least - digits);
    if (isnan(exact))
        return isnan(got) ? 0 : INFINITY;
    if (isinf(got) && got > 0 && exact >= end)
        return 0;
    frexpl(exact, &exponent);
    const long double distance = fabsl((isinf(got) && got > 0 ? end : got) - exact);
    return (double)ldexpl(distance, -(exponent - digits > least ? exponent - digits : least));
}

/* ---- f64 -------------------------------------------------------------------------------------------------------- */

static double x64[RUN + 1], out64[RUN + 1], minus_one64[RUN + 1] = {[RUN] = -1};
static const sigmoid_args sigmoid64_call = {x64, out64};
static const log_softmax_backward_args exp64_call = {minus_one64, x64, out64, RUN + 1};
static long double long_exp(long double v) { return expl(v); }
static long double long_sigmoid(long double v) { return 1 / (1 + expl(-v)); }

/* Where results are neither 0 nor 1 for want of room; or a few numbers from where the reduction takes another multiple of
 * ln 2, or from where the result ceases to be normal, or finite, or anything; or of any size. */
static double argument(source *s)
{
    static const double edges[] = {709.782712893384, -708.3964185322641, -744.4400719213812, -745.1332191019411, 36.7, 0};
    double v;
    switch (below(s, 4)) {
    case 0: return (uniform(s) - 0.5) * 80;
    case 1: return uniform(s) * 1455 - 745.2;
    case 2: v = ((double)below(s, 2100) - 1075.5) * 0.6931471805599453; break;
    default: v = edges[below(s, sizeof edges / sizeof edges[0])];
    }
    int64_t bits;
    memcpy(&bits, &v, sizeof v);
    bits += (int64_t)below(s, 2001) - 1000;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static void points(const char *name, int kernel, const void *args, int64_t items, long double (*exact)(long double),
                   double bound, uint64_t n)
{
    source random = {1};
    double most = 0, at = 0;
    for (uint64_t done = 0; done < n; done += RUN) {
        for (int i = 0; i < RUN; i++)
            x64[i] = argument(&random);
        static long double wanted64[RUN];
        for (int i = 0; i < RUN; i++)
            wanted64[i] = exact(x64[i]);
        for (int isa = 0; fastreg_isa_built(isa); isa++) {
            if (fastreg_select_isa(fastreg_isa_built(isa)))
                continue;
            fastreg_lookup(kernel, FASTREG_F64)(args, 0, items);
            for (int i = 0; i < RUN; i++) {
                double ulps = ulps_between(out64[i], wanted64[i], 53, -1074);
                if (!(ulps <= bound))
                    FAIL("%s(%a) on %s: %a, %g ulp from %La", name, x64[i], fastreg_isa_built(isa), out64[i], ulps, wanted64[i]);
                if (ulps > most)
                    most = ulps, at = x64[i];
            }
        }
    }
    printf("%-18s %llu f64 values on each instruction set; most %.3f ulp, at %a\n", name, (unsigned long long)n, most, at);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "names") == 0) {
        for (size_t k = 0; k < sizeof sweeps / sizeof sweeps[0]; k++)
            puts(sweeps[k].name);
        return 0;
    }
    const uint64_t every = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, n = 100000000 / every;
    const char *only = argc > 2 ? argv[2] : NULL;
    for (size_t k = 0; k < sizeof sweeps / sizeof sweeps[0]; k++) {
        uint64_t swept = 0, inexact = 0;
        double most = 0;
        if (only && strcmp(only, sweeps[k].name) != 0)
            continue;
        for (uint64_t from = 0; from < 1ull << 32; from += RUN * every) {
            for (uint32_t i = 0; i < RUN; i++) {
                uint32_t bits = (uint32_t)(from + i * every);
                memcpy(&x[i], &bits, 4);
                wanted[i] = sweeps[k].define ? sweeps[k].define(x[i]) : (float)sweeps[k].exact(x[i]);
            }
            for (int isa = 0; fastreg_isa_built(isa); isa++) {
                if (fastreg_select_isa(fastreg_isa_built(isa)))
                    continue;
                fastreg_lookup(sweeps[k].kernel, FASTREG_F32)(sweeps[k].args, 0, sweeps[k].items);
                if (memcmp(out, wanted, sizeof wanted) == 0)
                    continue;
                for (int i = 0; i < RUN; i++) {
                    if (memcmp(&out[i], &wanted[i], 4) == 0 || (out[i] != out[i] && wanted[i] != wanted[i]))
                        continue;
                    double ulps = sweeps[k].exact ? ulps_between(out[i], sweeps[k].exact(x[i]), 24, -149) : INFINITY;
                    if (!(ulps <= sweeps[k].ulps))
                        FAIL("%s(%a) on %s: %a, by definition %a", sweeps[k].name, (double)x[i], fastreg_isa_built(isa),
                             (double)out[i], (double)wanted[i]);
                    inexact += isa == 0;
                    most = ulps > most ? ulps : most;
                }
            }
            swept += RUN;
        }
        printf("%-18s %llu values on each instruction set; most %.3f ulp (%llu not the nearest)\n", sweeps[k].name,
               (unsigned long long)swept, most, (unsigned long long)inexact);
        fflush(stdout);
    }
    if (!only || strcmp(only, "exp") == 0)
        points("exp", KERNEL_log_softmax_backward, &exp64_call, 1, long_exp, 2, n);
    if (!only || strcmp(only, "sigmoid") == 0)
        points("sigmoid", KERNEL_sigmoid, &sigmoid64_call, RUN, long_sigmoid, 3, n);
    return 0;
}
