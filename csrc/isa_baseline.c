/* SSE2 on x86-64, NEON on aarch64, plain C elsewhere. */
#define FASTREG_TARGET baseline
#include "instantiate.h"
