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


def binary_cross_entropy_with_logits(
    input,
    target,
    *,
    pos_weight=None,
    weight=None,
    reduction="mean",
    return_grad=False,
    out=None,
):
    """p·t·log(1 + e^−x) + (1 − t)·log(1 + e^x), p the weight of positives.

    A factor of 0 silences an infinite logarithm: the right label costs nothing at an infinite logit.
    """
    dtype = np.result_type(as_float(input), as_float(target))
    x, t = as_f64(input), as_f64(target)
    yes, no = t if pos_weight is None else as_f64(pos_weight) * t, 1 - t
    wrong = np.where(x < 0, yes, no)  # the logarithm on this side is |x| larger than the other
    with np.errstate(invalid="ignore", under="ignore", over="ignore"):
        far = np.where(wrong == 0, 0, wrong * np.abs(x))
        loss = (yes + no) * np.log1p(np.exp(-np.abs(x))) + far
        pull = wrong - (yes + no) * sigmoid(-np.abs(x))  # no·sigmoid(x) − yes·sigmoid(−x)
        slope = np.where(x < 0, -pull, pull)
    return _reduced(loss, slope, dtype, weight, reduction, return_grad, out)


def cross_entropy(
    input,
    target,
    *,
    weight=None,
    label_smoothing=0.0,
    ignore_index=-100,
    reduction="mean",
    return_grad=False,
    out=None,
):
    """−Σ_c q_c·log softmax(x)_c, with q_c = w_c·((1 − s)·t_c + s/C) and t one-hot for an index.

    Its gradient is (Σ q)·softmax(x) − q. The mean divides by the weights of the target classes, for
    probabilities by the number of targets. Where q is 0, an infinite logarithm does not count.
    """
    dtype, target = as_float(input).dtype, np.asarray(target)
    x = np.moveaxis(as_f64(input), 1, -1)
    classes = x.shape[-1]
    w = np.ones(classes) if weight is None else as_f64(np.asarray(weight, dtype))
    if target.dtype.kind in "iu":
        counts = target != ignore_index
        index = np.where(counts, target, 0)
        t = np.eye(classes)[index]
        divisor = np.sum(w[index] * counts)
    else:
        dtype = np.result_type(dtype, as_float(target))
        t = np.moveaxis(as_f64(target), 1, -1)
        counts = np.ones(t.shape[:-1], bool)
        divisor = counts.size
    q = w * ((1 - label_smoothing) * t + label_smoothing / max(classes, 1)) * counts[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        logp = log_softmax(x)
        loss = -np.sum(np.where(q == 0, 0, q * logp), axis=-1)
        loss = np.where(counts & np.isnan(logp).any(axis=-1), np.nan, loss) if x.size else loss
        slope = np.sum(q, axis=-1, keepdims=True) * np.exp(logp) - q
        slope = np.where(counts[..., None], slope, 0)
        slope = np.moveaxis(slope, -1, 1)
        if reduction == "none":
            loss = give(loss, dtype, out)
            return (loss, give(slope, dtype)) if return_grad else loss
        d = np.float64(divisor) if reduction == "mean" else np.float64(1)
        total = float(np.sum(loss) / d)
        return (total, give(slope / d, dtype, out)) if return_grad else total


def sigmoid(x, *, out=None):
    """1/(1 + e^−x), as e^x/(1 + e^x) where that does not overflow."""
    e = np.exp(-np.abs(as_f64(x)))
    return give(np.where(as_f64(x) < 0, e, 1) / (1 + e), as_float(x).dtype, out)


def sigmoid_backward(grad, y, *, out=None):
    """grad·y·(1 − y), for y = sigmoid(x)."""
    dtype = np.result_type(as_float(grad), as_float(y))
    return give(as_f64(grad) * as_f64(y) * (1 - as_f64(y)), dtype, out)


def softmax(x, axis=-1, *, out=None):
    """exp(x)/Σ exp(x) along the axis."""
    return give(np.exp(log_softmax(as_f64(x), axis)), as_float(x).dtype, out)


def softmax_backward(grad, y, axis=-1, *, out=None):
    """y·(grad − Σ grad·y), for y = softmax(x)."""
    dtype = np.result_type(as_float(grad), as_float(y))
    g, y = as_f64(grad), as_f64(y)
    return give(y * (g - np.sum(g * y, axis=axis, keepdims=True)), dtype, out)


def log_softmax(x, axis=-1, *, out=None):
    """x − log Σ exp(x) along the axis, with max x taken off first so that nothing overflows."""
    v = as_f64(x)
    with np.errstate(invalid="ignore"):
        v = v - np.max(v, axis=axis, keepdims=True, initial=-np.inf)
        v = v - np.log(np.sum(np.exp(v), axis=axis, keepdims=True)) if v.size else v
    return give(v, as_float(x).dtype, out)


def log_softmax_backward(grad, y, axis=-1, *, out=None):
    """grad − exp(y)·Σ grad, for y = log_softmax(x)."""
    dtype = np.result_type(as_float(grad), as_float(y))
    g = as_f64(grad)
    return give(g - np.exp(as_f64(y)) * np.sum(g, axis=axis, keepdims=True), dtype, out)
