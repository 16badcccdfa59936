/* What the C files of the core share, and nobody above them sees. */
#ifndef FASTREG_CORE_H
#define FASTREG_CORE_H

#include "fastreg.h"

typedef void fastreg_kernel(const void *args, int64_t first, int64_t n);

/* dispatch.c */
typedef struct {
    fastreg_kernel *kernel[FASTREG_KERNELS][2]; /* by kernel and dtype */
} fastreg_table;

extern const fastreg_table fastreg_table_baseline, fastreg_table_avx2, fastreg_table_avx512;

fastreg_kernel *fastreg_lookup(int kernel, int dtype);
int64_t fastreg_cutoff(int kernel);

/* pool.c: calls work(context, block) for block 0 … blocks−1, each once, on the caller and whoever is free. */
typedef void fastreg_block(const void *context, int64_t block);
void fastreg_parallel(fastreg_block *work, const void *context, int64_t blocks);
int fastreg_cutoffs_ignored(void);

/* slices.c: the start of a run; elements first … first+n−1 of a run into a buffer, and back. */
const void *fastreg_run(const fastreg_slices *s, int64_t outer, int64_t channel);
void fastreg_gather(const fastreg_slices *s, int64_t outer, int64_t channel, int64_t first, int64_t n, void *buffer);
void fastreg_scatter(const fastreg_slices *s, int64_t outer, int64_t channel, int64_t first, int64_t n, const void *buffer);

#endif
