#define FASTREG_TARGET_AVX2
#define FASTREG_TARGET avx2
#if (defined(__x86_64__) || defined(_M_X64)) && (defined(__GNUC__) || defined(__clang__))
#include "instantiate.h"
#endif
