/* SSE2 on x86-64, NEON on aarch64, plain C elsewhere. */
#define FASTREG_TARGET baseline
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__OPTIMIZE__)
/* For processors from before 2013. What -O3 adds to -O2 and vectors, copies of loops for special cases, would make this
 * file two thirds larger: a tenth of the wheel. */
#pragma GCC optimize("O2", "tree-vectorize", "vect-cost-model=dynamic")
#endif
#include "instantiate.h"
