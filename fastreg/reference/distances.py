"""Norms, similarities and distances."""

import numpy as np

from ._arrays import as_f64, as_float, give


def _norm(v, p):
    """Of the last axis; scaled by the largest element, so that no power overflows."""
    v = np.abs(v)
    if v.shape[-1] == 0:
        return np.full(v.shape[:-1], np.inf if p == -np.inf else 0.0)
    if p == 0:
        return np.sum(v != 0, axis=-1).astype(float)
    if abs(p) == np.inf:
        return np.max(v, axis=-1) if p > 0 else np.min(v, axis=-1)
    most = np.max(v, axis=-1, keepdims=True)
    scale = np.where((most > 0) & (most < np.inf), most, 1)
    return (np.sum((v / scale) ** p, axis=-1) ** (1 / p)) * scale[..., 0]


def norm(x, p=2, *, axis=None, keepdims=False):
    """(Σ|x|^p)^(1/p); p=0 counts what is not 0, ±inf take the largest and the smallest |x|.

    "fro" is p=2 of a matrix, "nuc" the sum of its singular values.
    """
    v = as_f64(x)
    axes = tuple(range(v.ndim)) if axis is None else tuple(np.atleast_1d(axis) % v.ndim)
    last = np.moveaxis(v, axes, range(-len(axes), 0)) if axes else v
    if p == "nuc":
        result = np.sum(np.linalg.svd(last, compute_uv=False), axis=-1)
    else:
        flat = last.reshape((*last.shape[: v.ndim - len(axes)], int(np.prod([v.shape[a] for a in axes]))))
        result = _norm(flat, 2 if p == "fro" else p)
    if keepdims:
        result = np.expand_dims(result, axes)
    return float(result) if axis is None and not keepdims else give(result, as_float(x).dtype)


def normalize(x, p=2, *, axis=-1, eps=1e-12, out=None):
    """x/max(‖x‖, eps): vectors of norm 1."""
    length = norm(as_f64(x), p, axis=axis, keepdims=True)
    return give(as_f64(x) / np.where(length < eps, eps, length), as_float(x).dtype, out)


def normalize_backward(grad, x, p=2, *, axis=-1, eps=1e-12):
    """(grad − s·Σ grad·y)/m with m = max(‖x‖, eps), y = x/m, and s the gradient of the norm."""
    dtype = np.result_type(as_float(grad), as_float(x))
    g, x = as_f64(grad), as_f64(x)
    length = norm(x, p, axis=axis, keepdims=True)
    m = np.where(length < eps, eps, length)
    y = x / m
    if p == 0:
        s = np.zeros_like(x)
    elif abs(p) == np.inf:
        s = np.sign(x) * (np.abs(x) == length)
        s = s / np.sum(np.abs(x) == length, axis=axis, keepdims=True)
    else:
        with np.errstate(divide="ignore"):
            s = np.where(x == 0, 0, np.sign(x) * np.abs(y) ** (p - 1))
    s = np.where(length > eps, s, 0)
    result = (g - s * np.sum(g * y, axis=axis, keepdims=True)) / m
    return give(np.where(np.isnan(length), np.nan, result), dtype)


def cosine_similarity(x, y, *, axis=-1, eps=1e-8):
    """The inner product of x/max(‖x‖, eps) and y/max(‖y‖, eps)."""
    dtype = np.result_type(as_float(x), as_float(y))
    x, y = np.broadcast_arrays(as_f64(x), as_f64(y))
    return give(np.sum(normalize(x, axis=axis, eps=eps) * normalize(y, axis=axis, eps=eps), axis=axis), dtype)


def cdist(x, y=None, *, metric="euclidean", p=2, out=None):
    """Each point of x against each of y, through the differences of all (n·m·d numbers at once)."""
    y = x if y is None else y
    dtype = np.result_type(as_float(x), as_float(y))
    x, y = as_f64(x)[:, None, :], as_f64(y)[None, :, :]
    if metric == "dot":
        return give(np.sum(x * y, axis=-1), dtype, out)
    if metric == "cosine":
        zero = ~np.any(x, axis=-1) | ~np.any(y, axis=-1)
        d = normalize(x, eps=1e-300) - normalize(y, eps=1e-300)
        return give(np.where(zero, 1, 0.5 * np.sum(d * d, axis=-1)), dtype, out)
    order = {"euclidean": 2, "sqeuclidean": 2, "manhattan": 1, "chebyshev": np.inf, "minkowski": p}[metric]
    distance = _norm(x - y, order)
    return give(distance**2 if metric == "sqeuclidean" else distance, dtype, out)
