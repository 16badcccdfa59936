/* Every kernel once more, for the fuzzer to compare with: compiled without vectorisation (see the Makefile). */
#define FASTREG_TARGET scalar
#include "instantiate.h"
