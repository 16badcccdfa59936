"""What goes in and what comes out: the conventions every family shares."""

import numpy as np


def as_float(x):
    """x as an array that fastreg would compute with: f32 stays, f16 becomes f32, all else f64."""
    x = np.asarray(x)
    dtype = np.float32 if x.dtype.type in (np.float16, np.float32) else np.float64
    return x.astype(dtype, copy=False)


def as_f64(x):
    """x in double precision, so that a formula's f32 result is rounded once, at its end."""
    return np.asarray(x).astype(np.float64)


def give(result, dtype, out=None):
    """Round the result to dtype; write it to `out` where there is one; a 0-d result is a scalar."""
    result = np.asarray(result).astype(dtype)
    if out is None:
        return result[()]
    out[...] = result
    return out
