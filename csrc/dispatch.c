/* On which instruction set. The CPU and the operating system are asked once, at import. */
#include <string.h>

#include "core.h"
#include "target.h"

typedef struct {
    const char *name;
    const fastreg_table *table;
} isa;

/* From the least to the most able. */
static const isa isas[] = {
    {"baseline", &fastreg_table_baseline},
#if FASTREG_X86_TARGETS
    {"avx2", &fastreg_table_avx2},
    {"avx512", &fastreg_table_avx512},
#endif
};
enum { ISAS = sizeof isas / sizeof isas[0] };

static const char *const known[] = {"baseline", "avx2", "avx512"};

static const isa *active = &isas[0];

/* The builtins read CPUID, and XGETBV where OSXSAVE says that it exists: a CPU whose operating system does not
 * save the wide registers does not count. */
static int supported(int index)
{
#if FASTREG_X86_TARGETS
    __builtin_cpu_init();
    if (index == 1)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
               __builtin_cpu_supports("popcnt");
    if (index == 2)
        return supported(1) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
    return index == 0;
}

int fastreg_select_isa(const char *cap)
{
    int last = ISAS - 1;
    if (*cap) {
        int name = 0;
        while (name < 3 && strcmp(known[name], cap) != 0)
            name++;
        if (name == 3)
            return -1;
        if (name >= ISAS || !supported(name))
            return -2;
        last = name;
    }
    while (!supported(last))
        last--;
    active = &isas[last];
    return 0;
}

const char *fastreg_isa(void) { return active->name; }

const char *fastreg_isa_built(int index) { return index >= 0 && index < ISAS ? isas[index].name : NULL; }

const char *fastreg_compiler(void)
{
#if defined(__clang__)
    return __VERSION__;
#elif defined(__GNUC__)
    return "GCC " __VERSION__;
#elif defined(_MSC_VER)
    return "MSVC";
#else
    return "unknown";
#endif
}

static const struct {
    const char *name, *roles;
    int64_t cutoff;
} registry[] = {
#define KERNEL(name, roles, cutoff, ...) {#name, roles, cutoff},
#include "kernels.def"
#undef KERNEL
};

const char *fastreg_kernel_name(int kernel) { return registry[kernel].name; }
const char *fastreg_roles(int kernel) { return registry[kernel].roles; }
int64_t fastreg_cutoff(int kernel) { return registry[kernel].cutoff; }
fastreg_kernel *fastreg_lookup(int kernel, int dtype) { return active->table->kernel[kernel][dtype]; }
