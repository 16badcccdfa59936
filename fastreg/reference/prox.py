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
