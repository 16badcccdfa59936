"""Losses, each with its gradient by the input; d = input − target throughout."""

import numpy as np

from ._arrays import as_f64, as_float, give


def _reduced(loss, slope, dtype, weight, reduction, return_grad, out):
    """Weigh and reduce a loss and its slope; `mean` divides by the number of elements.

    `out` takes the array among the results: the loss itself where it is not reduced, else the
    gradient.
    """
    if weight is not None:
        loss, slope = loss * as_f64(weight), slope * as_f64(weight)
    if reduction == "none":
        loss = give(loss, dtype, out)
        return (loss, give(slope, dtype)) if return_grad else loss
    n = np.float64(loss.size if reduction == "mean" else 1)
    with np.errstate(invalid="ignore"):  # the mean of nothing is NaN
        total = float(np.sum(loss) / n)
    return (total, give(slope / n, dtype, out)) if return_grad else total


def huber_loss(
    input,
    target,
    *,
    delta=1.0,
    weight=None,
    reduction="mean",
    return_grad=False,
    out=None,
):
    """½d² where |d| < delta, else delta·(|d| − ½delta) (Huber, 1964): delta times smooth L1 of beta=delta."""
    dtype = np.result_type(as_float(input), as_float(target))
    d = as_f64(input) - as_f64(target)
    near = np.abs(d) < delta
    with np.errstate(all="ignore"):  # d² may be infinite where it is not used
        loss = np.where(near, 0.5 * d * d, delta * (np.abs(d) - 0.5 * delta))
        slope = np.where(near, d, delta * np.sign(d))
    return _reduced(loss, slope, dtype, weight, reduction, return_grad, out)


def l1_loss(
    input,
    target,
    *,
    weight=None,
    reduction="mean",
    return_grad=False,
    out=None,
):
    """|d|; at its kink the slope is 0."""
    dtype = np.result_type(as_float(input), as_float(target))
    d = as_f64(input) - as_f64(target)
    loss, slope = np.abs(d), np.sign(d)
    return _reduced(loss, slope, dtype, weight, reduction, return_grad, out)


def mse_loss(
    input,
    target,
    *,
    weight=None,
    reduction="mean",
    return_grad=False,
    out=None,
):
    """d²."""
    dtype = np.result_type(as_float(input), as_float(target))
    d = as_f64(input) - as_f64(target)
    with np.errstate(over="ignore"):
        loss, slope = d * d, 2 * d
    return _reduced(loss, slope, dtype, weight, reduction, return_grad, out)


def smooth_l1_loss(
    input,
    target,
    *,
    beta=1.0,
    weight=None,
    reduction="mean",
    return_grad=False,
    out=None,
):
    """½d²/beta where |d| < beta, else |d| − ½beta (Girshick: Fast R-CNN, 2015); beta=0: |d|.

    Its slope is d/beta, then sign(d): squared error for small residuals, but an outlier pulls no
    harder than 1.
    """
    dtype = np.result_type(as_float(input), as_float(target))
    d = as_f64(input) - as_f64(target)
    near = np.abs(d) < beta
    with np.errstate(all="ignore"):  # beta may be 0, and d² infinite where it is not used
        loss = np.where(near, 0.5 * d * d / beta, np.abs(d) - 0.5 * beta)
        slope = np.where(near, d / beta, np.sign(d))
    return _reduced(loss, slope, dtype, weight, reduction, return_grad, out)
