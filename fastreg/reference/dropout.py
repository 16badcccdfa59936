"""Dropout whose mask is a pure function of (seed, offset, index), so that none is ever stored.

The random words come from Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as
easy as 1, 2, 3. SC 2011). The way from words to decisions is frozen: a mask, once published by its
seed, is the same in every later version.
"""

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ._arrays import as_f64, as_float, give

LANES = 16  # counters of one group; their 64 words are 256 bytes
GROUP_BYTES = 256
LOW_32 = 0xFFFFFFFF


def philox4x32(counter, key, rounds=10):
    """Philox: counter (4, …) and key (2,) of 32-bit words to (4, …) random 32-bit words."""
    c0, c1, c2, c3 = np.asarray(counter, dtype=np.uint64)
    k0, k1 = (int(k) for k in key)
    low, half = np.uint64(LOW_32), np.uint64(32)
    for _ in range(rounds):
        left = np.uint64(0xD2511F53) * c0
        right = np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (right >> half) ^ c1 ^ np.uint64(k0),
            right & low,
            (left >> half) ^ c3 ^ np.uint64(k1),
            left & low,
        )
        k0 = (k0 + 0x9E3779B9) & LOW_32  # the golden ratio
        k1 = (k1 + 0xBB67AE85) & LOW_32  # √3 − 1
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def _words(q, seed, offset):
    """The four words of each 64-bit counter in q, in the stream (seed, offset)."""
    q = np.asarray(q, dtype=np.uint64)
    counter = [
        q & np.uint64(LOW_32),
        q >> np.uint64(32),
        np.full_like(q, offset & LOW_32),
        np.full_like(q, offset >> 32),
    ]
    return philox4x32(counter, (seed & LOW_32, seed >> 32))


def _bytes(group, groups, seed, offset):
    """256 random bytes a group: counters 16·group + lane, laid out word first, little-endian."""
    words = _words(group * LANES + np.arange(groups * LANES), seed, offset)  # (word, group·lane)
    words = words.reshape(4, groups, LANES).transpose(1, 0, 2)
    return np.ascontiguousarray(words, dtype="<u4").view(np.uint8).reshape(-1)


def _kept(n, p, seed, offset, start=0):
    """Decisions start … start + n − 1: i is dropped where its 32-bit number is below t = round(p·2³²)."""
    t = round(p * 2**32)
    fair = t == 2**31
    size = 8 * GROUP_BYTES if fair else GROUP_BYTES
    group, skip = divmod(start, size)
    wanted = slice(skip, skip + n)
    drawn = _bytes(group, -(-(skip + n) // size), seed, offset)
    if fair:  # the first bit of the number decides
        return np.unpackbits(drawn)[wanted].astype(bool)

    # The number's first byte decides, except where it equals that of t: there, the other three.
    first = drawn[wanted].astype(np.int64)
    dropped = first < t >> 24
    tie = np.flatnonzero(first == t >> 24)
    index = start + tie
    words = _words(index.astype(np.uint64) >> np.uint64(2) | np.uint64(2**63), seed, offset)
    rest = words[index & 3, np.arange(tie.size)] >> np.uint32(8)
    dropped[tie] = rest < t & 0xFFFFFF
    return ~dropped


def _decisions(shape, p, seed, offset, axis, start):
    """True where kept; drawn over the shape of `axis` in C order, of length 1 along the others."""
    axes = range(len(shape)) if axis is None else normalize_axis_tuple(axis, len(shape))
    drawn = tuple(n if d in axes else 1 for d, n in enumerate(shape))
    return _kept(int(np.prod(drawn)), p, seed, offset, start).reshape(drawn)


def dropout_mask(shape, p=0.5, *, seed, offset=0, axis=None, packed=False, start=0):
    """The decisions of `dropout`: True where kept. `packed`: one bit each, as np.packbits does.

    `start`: the index of the first one, where the array is a part of a larger one.
    """
    shape = np.empty(shape, dtype=[]).shape  # an int is a shape too
    kept = np.broadcast_to(_decisions(shape, p, seed, offset, axis, start), shape)
    return np.packbits(kept) if packed else kept.copy()


def dropout(x, p=0.5, *, seed, offset=0, training=True, mode="inverted", axis=None, start=0, out=None):
    """Drop each element with probability p: x·mask/(1 − p) in training, x otherwise.

    mode="vanilla": x·mask in training, x·(1 − p) otherwise. Either way the expectation of a
    training pass is the other pass. A dropped element is +0.0 whatever it was, NaN too.
    """
    x = as_float(x)
    scale = 1.0
    if mode == "inverted" and training and p < 1:
        scale = 1 / (1 - p)
    if mode == "vanilla" and not training:
        scale = 1 - p
    scaled = x * x.dtype.type(scale)
    if not training:
        return give(scaled, x.dtype, out)
    kept = _decisions(x.shape, p, seed, offset, axis, start)
    return give(np.where(kept, scaled, 0.0), x.dtype, out)


def dropout_backward(grad, p=0.5, *, seed, offset=0, training=True, mode="inverted", axis=None, start=0, out=None):
    """The gradient by x. Dropout multiplies by a diagonal matrix, which is its own transpose."""
    return dropout(grad, p, seed=seed, offset=offset, training=training, mode=mode, axis=axis, start=start, out=out)


def dropconnect(x, weight, bias=None, p=0.5, *, seed, offset=0, training=True):
    """A linear layer whose weights are dropped: x @ (mask∘weight)ᵀ/(1 − p) + bias, no mask otherwise."""
    x = as_float(x)
    masked = dropout(as_f64(as_float(weight).astype(x.dtype)), p, seed=seed, offset=offset, training=training)
    y = as_f64(x) @ masked.T
    return give(y if bias is None else y + as_f64(bias), x.dtype)


def dropconnect_backward(grad, x, weight, p=0.5, *, seed, offset=0):
    """Gradients by x, weight and bias."""
    x = as_float(x)
    grad = as_f64(grad)
    masked = dropout(as_f64(weight), p, seed=seed, offset=offset)
    grad_weight = dropout(grad.T @ as_f64(x), p, seed=seed, offset=offset)
    return tuple(give(g, x.dtype) for g in (grad @ masked, grad_weight, grad.sum(axis=0)))
