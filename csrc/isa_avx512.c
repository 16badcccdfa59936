#define FASTREG_TARGET_AVX512
#define FASTREG_TARGET avx512
#if (defined(__x86_64__) || defined(_M_X64)) && (defined(__GNUC__) || defined(__clang__))
#include "instantiate.h"
#endif
