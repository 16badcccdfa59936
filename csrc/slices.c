/* Runs of an array seen as slices, where they are not adjacent in memory: see fastreg_slices in fastreg.h. */
#include <string.h>

#include "core.h"

static char *run_start(const fastreg_slices *s, int64_t outer, int64_t channel)
{
    char *p = s->data + channel * s->channel_stride;
    for (int d = s->outer_ndim - 1; d >= 0; d--) {
        p += (outer % s->outer_shape[d]) * s->outer_stride[d];
        outer /= s->outer_shape[d];
    }
    return p;
}

const void *fastreg_run(const fastreg_slices *s, int64_t outer, int64_t channel) { return run_start(s, outer, channel); }

/* memcpy of a constant size is one move, and the only one that C allows for items that are not aligned. */
#define COPY(size)                                                     \
    for (intptr_t i = 0; i < length; i++) {                            \
        if (to_buffer)                                                 \
            memcpy(buffer + i * (size), p + i * stride, (size));       \
        else                                                           \
            memcpy(p + i * stride, buffer + i * (size), (size));       \
    }

static void copy(const fastreg_slices *s, int64_t outer, int64_t channel, int64_t first, int64_t n, char *buffer, int to_buffer)
{
    char *p = run_start(s, outer, channel);
    int last = s->inner_ndim - 1;
    if (last < 0) {
        memcpy(to_buffer ? buffer : p, to_buffer ? p : buffer, (size_t)s->itemsize);
        return;
    }
    intptr_t index[FASTREG_MAX_DIMS], stride = s->inner_stride[last];
    for (int d = last; d >= 0; d--) {
        index[d] = (intptr_t)(first % s->inner_shape[d]);
        first /= s->inner_shape[d];
        p += index[d] * s->inner_stride[d];
    }
    while (n > 0) {
        intptr_t length = s->inner_shape[last] - index[last];
        if (length > n)
            length = (intptr_t)n;
        if (s->itemsize == 4)
            COPY(4)
        else
            COPY(8)
        buffer += length * s->itemsize;
        n -= length;
        /* On to the next run: back to the start of this one, then carry. */
        p -= index[last] * stride;
        index[last] = 0;
        for (int d = last - 1; d >= 0; d--) {
            p += s->inner_stride[d];
            if (++index[d] < s->inner_shape[d])
                break;
            p -= index[d] * s->inner_stride[d];
            index[d] = 0;
        }
    }
}

void fastreg_gather(const fastreg_slices *s, int64_t outer, int64_t channel, int64_t first, int64_t n, void *buffer)
{
    copy(s, outer, channel, first, n, buffer, 1);
}

void fastreg_scatter(const fastreg_slices *s, int64_t outer, int64_t channel, int64_t first, int64_t n, const void *buffer)
{
    copy(s, outer, channel, first, n, (char *)buffer, 0);
}
