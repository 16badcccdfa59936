"""Thresholds, proximal operators and projections: prox_f(x) = argmin_z f(z) + ½‖z − x‖²."""

import numpy as np

from ._arrays import as_float, give


def soft_threshold(x, lam, *, out=None):
    """sign(x)·max(|x| − lam, 0), the proximal operator of lam‖x‖₁; its zero is +0.0."""
    x = as_float(x)
    lam = np.asarray(lam, dtype=x.dtype)
    with np.errstate(invalid="ignore"):  # inf − inf, where lam = inf makes it 0 anyway
        shrunk = np.sign(x) * (np.abs(x) - lam)
    return give(np.where(np.abs(x) <= lam, 0.0, shrunk), x.dtype, out)
