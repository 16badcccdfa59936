/* The families of kernels, in the order of kernels.def; instantiate.h includes this once for each T. */
#include "kernels/prox.inc"
#include "kernels/dropout.inc"
#include "kernels/losses.inc"
#include "kernels/norm.inc"
#include "kernels/optim.inc"
#include "kernels/distances.inc"
#include "kernels/boxes.inc"
