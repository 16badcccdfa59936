"""Thresholds, proximal operators and projections: prox_f(x) = argmin_z f(z) + ½‖z − x‖².

A threshold step·lam is rounded to the dtype of x, in which it is compared with x; from there on f32
is computed in f64.
"""

import numpy as np

from ._arrays import as_f64, as_float, give


def _threshold(lam, step, dtype):
    """step·lam as a number of dtype; a step of 0 switches even an infinite lam off."""
    lam = np.asarray(lam, dtype=dtype).astype(np.float64)
    return (step * lam if step else 0.0 * np.ones_like(lam)).astype(dtype).astype(np.float64)


def _soft(x, t):
    with np.errstate(invalid="ignore"):  # inf − inf is NaN
        return np.where((np.abs(x) <= t) & np.isfinite(x), 0.0, np.sign(x) * (np.abs(x) - t))


def soft_threshold(x, lam, *, out=None):
    """sign(x)·max(|x| − lam, 0), the proximal operator of lam‖x‖₁; its zero is +0.0."""
    return prox_l1(x, lam, out=out)


def hard_threshold(x, lam, *, out=None):
    """x where |x| > lam, else +0.0."""
    x = as_float(x)
    return give(np.where(np.abs(x) <= np.asarray(lam, x.dtype), 0.0, x), x.dtype, out)


def prox_l1(x, lam, step=1.0, *, out=None):
    """Of lam‖x‖₁: the soft threshold at step·lam."""
    x = as_float(x)
    return give(_soft(as_f64(x), _threshold(lam, step, x.dtype)), x.dtype, out)


def prox_l0(x, lam, step=1.0, *, out=None):
    """Of lam‖x‖₀: keeping x costs step·lam, dropping it ½x², so a hard threshold at √(2·step·lam)."""
    x = as_float(x)
    lam = as_f64(np.asarray(lam, x.dtype))
    return hard_threshold(x, np.sqrt(2 * step * lam) if step else 0.0, out=out)


def _shrinkage(l2, step, dtype):
    l2 = as_f64(np.asarray(l2, dtype))
    return (1 + step * l2 if step else np.ones_like(l2)).astype(dtype).astype(np.float64)


def prox_sq_l2(x, lam, step=1.0, *, out=None):
    """Of ½lam‖x‖²: x/(1 + step·lam)."""
    x = as_float(x)
    return give(as_f64(x) / _shrinkage(lam, step, x.dtype), x.dtype, out)


def prox_elastic_net(x, l1, l2, step=1.0, *, out=None):
    """Of l1‖x‖₁ + ½l2‖x‖²: one after the other."""
    x = as_float(x)
    soft = _soft(as_f64(x), _threshold(l1, step, x.dtype))
    return give(soft / _shrinkage(l2, step, x.dtype), x.dtype, out)


def prox_mcp(x, lam, gamma=3.0, step=1.0, *, out=None):
    """Of Σ lam|x| − x²/(2 gamma) up to |x| = gamma·lam, constant beyond; gamma > step."""
    x = as_float(x)
    soft = _soft(as_f64(x), _threshold(lam, step, x.dtype))
    far = gamma * as_f64(np.asarray(lam, x.dtype))
    return give(np.where(np.abs(x) > far, x, soft / (1 - step / gamma)), x.dtype, out)


def prox_scad(x, lam, gamma=3.7, step=1.0, *, out=None):
    """Of a penalty of slope lam up to |x| = lam, which falls to 0 at gamma·lam; gamma > 1 + step."""
    x = as_float(x)
    soft = _soft(as_f64(x), _threshold(lam, step, x.dtype))
    lam = as_f64(np.asarray(lam, x.dtype))
    line = np.sign(soft) * (lam + (np.abs(soft) - lam) / (1 - step / (gamma - 1)))
    y = np.where(np.abs(soft) <= lam, soft, line)
    return give(np.where(np.abs(x) > gamma * lam, x, y), x.dtype, out)


def project_box(x, lower, upper, *, out=None):
    """The nearest point with lower <= x <= upper."""
    x = as_float(x)
    lower, upper = np.asarray(lower, x.dtype), np.asarray(upper, x.dtype)
    return give(np.where(x < lower, lower, np.where(x > upper, upper, x)), x.dtype, out)


def project_linf_ball(x, radius=1.0, *, out=None):
    """The nearest point with max |x| <= radius."""
    return project_box(x, -radius, radius, out=out)


def _shrunk_groups(x, t, axis=None):
    """x·max(1 − t/‖x‖₂, 0), the norm taken along the axis; of scaled elements, whose squares have room."""
    largest = np.max(np.abs(x), axis=axis, keepdims=True, initial=0.0)
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    norm = scale * np.sqrt(np.sum((x / scale) ** 2, axis=axis, keepdims=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norm <= t, 0.0, x * (1 - t / norm))


def prox_l2(x, lam, step=1.0, *, out=None):
    """Of lam‖x‖₂, the array as one vector: x·max(1 − step·lam/‖x‖₂, 0)."""
    return prox_group_lasso(x, lam, step=step, out=out)


def project_l2_ball(x, radius=1.0, *, out=None):
    """x if ‖x‖₂ <= radius, else x·radius/‖x‖₂."""
    x = as_float(x)
    norm = np.sqrt(np.sum(as_f64(x) ** 2))
    return give(as_f64(x) * (1.0 if norm <= radius else radius / norm), x.dtype, out)


def prox_group_lasso(x, lam, groups=None, step=1.0, *, axis=None, weights=None, out=None):
    """Of lam·Σ w_g‖x_g‖₂: each group shrinks as a vector; a group has a label or runs along an axis."""
    return prox_sparse_group_lasso(x, 0.0, lam, groups, step, axis=axis, weights=weights, out=out)


def prox_sparse_group_lasso(x, l1, lam, groups=None, step=1.0, *, axis=None, weights=None, out=None):
    """Of l1‖x‖₁ + lam·Σ w_g‖x_g‖₂: the soft threshold at step·l1, then each group as a vector."""
    x = as_float(x)
    z = as_f64(prox_l1(x, l1, step))
    t = step * lam * (1.0 if weights is None else as_f64(weights))
    if groups is not None:
        labels, group = np.unique(np.asarray(groups), return_inverse=True)
        t = np.broadcast_to(t, labels.shape)
        for g in range(labels.size):
            z[group == g] = _shrunk_groups(z[group == g], t[g])
    else:
        if axis is not None and np.ndim(t):
            t = np.expand_dims(np.broadcast_to(t, np.delete(x.shape, axis)), axis)
        z = _shrunk_groups(z, t, axis)
    return give(z, x.dtype, out)


def _excess_threshold(x, total):
    """θ with Σ max(x − θ, 0) = total, from the sorted elements (Held, Wolfe, Crowder 1974).

    The k largest elements are those above θ where the θ that they would have leaves them there.
    """
    down = np.sort(x, axis=None)[::-1]
    theta = (np.cumsum(down) - total) / np.arange(1, down.size + 1)
    return theta[np.flatnonzero(down > theta)[-1]]


def project_simplex(x, total=1.0, *, out=None):
    """The nearest point with x >= 0 and Σx = total: max(x − θ, 0)."""
    x = as_float(x)
    return give(np.maximum(as_f64(x) - _excess_threshold(as_f64(x), total), 0.0), x.dtype, out)


def project_l1_ball(x, radius=1.0, *, out=None):
    """x if ‖x‖₁ <= radius, else the soft threshold that meets the radius."""
    x = as_float(x)
    z = as_f64(x)
    if np.sum(np.abs(z)) > radius:
        z = _soft(z, _excess_threshold(np.abs(z), radius) if radius > 0 else np.inf)
    return give(z, x.dtype, out)


def prox_linf(x, lam, step=1.0, *, out=None):
    """Of lam‖x‖_∞. Moreau: x less its projection on the dual ball, which is the l1 ball."""
    x = as_float(x)
    z = as_f64(x)
    return give(z - project_l1_ball(z, step * lam), x.dtype, out)


def prox_tv1d(x, lam, step=1.0, *, out=None):
    """Of lam·Σ|x_{i+1} − x_i|, by the dual: z = x − Dᵀu with −t <= u <= t and (Dz)·u = t·|Dz|.

    u_k is r_k, the sum of the first k elements, less that of z: the taut string in a tube of radius
    t. Here it is tightened by looking for the first kink from each kink on, in O(n²).
    """
    x = as_float(x)
    t, n = step * lam, x.size
    z, r = np.empty(n), np.concatenate([[0.0], np.cumsum(as_f64(x))])
    low, high = r - t, r + t
    if n:
        low[n] = high[n] = r[n]
    start, height = 0, 0.0
    while start < n:
        k = np.arange(start + 1, n + 1)
        above, below = (high[k] - height) / (k - start), (low[k] - height) / (k - start)
        least, most = np.minimum.accumulate(above), np.maximum.accumulate(below)
        # Straight on while some slope stays in the tube. Where none does, a kink at the side that
        # the new point has crossed; both sides meet at the end, so there is such a place.
        stop = np.flatnonzero(most >= least)[0]
        crosses_above = stop > 0 and below[stop] >= least[stop - 1]
        side, slopes = (high, above) if crosses_above else (low, below)
        best = least[stop] if crosses_above else most[stop]
        end = k[np.flatnonzero(slopes[: stop + 1] == best)[-1]]
        z[start:end] = best
        start, height = end, side[end]
    return give(z, x.dtype, out)


def prox_nuclear(x, lam, step=1.0, *, out=None):
    """Of lam times the sum of the singular values: each is soft-thresholded at step·lam."""
    x = as_float(x)
    u, s, vt = np.linalg.svd(as_f64(x), full_matrices=False)
    return give(u * np.maximum(s - step * lam, 0.0) @ vt, x.dtype, out)
