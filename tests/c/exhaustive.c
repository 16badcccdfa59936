/* Every one of the 2^32 f32 values through each kernel of one operand, on each instruction set, against its definition in
 * scalar C written here from the definition, not from the kernel.
 *
 *     exhaustive [every]      every n-th value; 1 by default */
#include <float.h>

#include "calls.h"

enum { RUN = 1 << 16 };
static float x[RUN], out[RUN], wanted[RUN];

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
static float define_project_box(float v) { return box(v, -0.3f, 0.8f); }
/* 1/(1 + e^−x), rounded from double. Two steps from that are the 2.5 ulp that sigmoid promises. */
static float define_sigmoid(float v) { return (float)(1 / (1 + exp(-(double)v))); }

static const soft_threshold_args soft_threshold_call = {x, NULL, out, 0.75, 1};
static const hard_threshold_args hard_threshold_call = {x, NULL, out, 0.75};
static const prox_l0_args prox_l0_call = {x, NULL, out, 0.3, 1.5, 2};
static const prox_sq_l2_args prox_sq_l2_call = {x, NULL, out, 0.3, 0.7};
static const prox_elastic_net_args prox_elastic_net_call = {x, NULL, NULL, out, 0.3, 0.9, 0.7};
static const prox_mcp_args prox_mcp_call = {x, NULL, out, 0.4, 0.8, 2.5};
static const project_box_args project_box_call = {x, NULL, NULL, out, -0.3, 0.8};
static const sigmoid_args sigmoid_call = {x, out};

static const struct {
    const char *name;
    int kernel;
    const void *args;
    float (*define)(float);
    int ulps;
} sweeps[] = {
#define SWEEP(name, ulps) {#name, KERNEL_##name, &name##_call, define_##name, ulps}
    SWEEP(soft_threshold, 0), SWEEP(hard_threshold, 0),  SWEEP(prox_l0, 0),     SWEEP(prox_sq_l2, 0),
    SWEEP(prox_elastic_net, 0), SWEEP(prox_mcp, 0), SWEEP(project_box, 0), SWEEP(sigmoid, 2),
};

static int64_t steps_between(float a, float b)
{
    int32_t i, j;
    memcpy(&i, &a, 4), memcpy(&j, &b, 4);
    int64_t p = i < 0 ? -(int64_t)(i & 0x7FFFFFFF) : i, q = j < 0 ? -(int64_t)(j & 0x7FFFFFFF) : j;
    return p > q ? p - q : q - p;
}

int main(int argc, char **argv)
{
    uint64_t every = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    for (size_t k = 0; k < sizeof sweeps / sizeof sweeps[0]; k++) {
        uint64_t swept = 0, inexact = 0;
        int64_t most = 0;
        for (uint64_t from = 0; from < 1ull << 32; from += RUN * every) {
            for (uint32_t i = 0; i < RUN; i++) {
                uint32_t bits = (uint32_t)(from + i * every);
                memcpy(&x[i], &bits, 4);
                wanted[i] = sweeps[k].define(x[i]);
            }
            for (int isa = 0; fastreg_isa_built(isa); isa++) {
                if (fastreg_select_isa(fastreg_isa_built(isa)))
                    continue;
                fastreg_lookup(sweeps[k].kernel, FASTREG_F32)(sweeps[k].args, 0, RUN);
                if (memcmp(out, wanted, sizeof out) == 0)
                    continue;
                for (int i = 0; i < RUN; i++) {
                    if (memcmp(&out[i], &wanted[i], 4) == 0 || (out[i] != out[i] && wanted[i] != wanted[i]))
                        continue;
                    int64_t steps = steps_between(out[i], wanted[i]);
                    if (steps > sweeps[k].ulps || out[i] != out[i] || wanted[i] != wanted[i])
                        FAIL("%s(%a) on %s: %a, by definition %a", sweeps[k].name, (double)x[i], fastreg_isa_built(isa),
                             (double)out[i], (double)wanted[i]);
                    inexact += isa == 0;
                    most = steps > most ? steps : most;
                }
            }
            swept += RUN;
        }
        printf("%-18s %llu values on each instruction set; most %lld ulp (%llu values)\n", sweeps[k].name,
               (unsigned long long)swept, (long long)most, (unsigned long long)inexact);
        fflush(stdout);
    }
    return 0;
}
