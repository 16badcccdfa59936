"""Normalisation: subtract a mean, divide by a standard deviation, scale and shift."""

import numpy as np

from ._arrays import as_f64, as_float, give


def _relu(y):
    return np.where(y <= 0, 0.0, y)  # keeps NaN; its zero is +0.0


def _channels(x, axis):
    """(the other axes, the shape that lets a (C,) vector broadcast along `axis`)."""
    channel = axis % x.ndim
    others = tuple(d for d in range(x.ndim) if d != channel)
    shape = tuple(-1 if d == channel else 1 for d in range(x.ndim))
    return others, shape


def _affine(xhat, weight, bias, shape):
    y = xhat if weight is None else xhat * as_f64(weight).reshape(shape)
    return y if bias is None else y + as_f64(bias).reshape(shape)


def batch_norm(
    x,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    *,
    training=False,
    momentum=0.1,
    eps=1e-5,
    axis=1,
    activation=None,
    out=None,
    return_stats=False,
):
    """y = (x − mean)/√(var + eps)·weight + bias, a channel at a time (Ioffe and Szegedy, 2015).

    In training, mean and (population) variance are those of the batch, and the running arrays move
    towards them by `momentum`, the weight of the new value; the running variance takes the
    unbiased one. Otherwise the running arrays are the statistics. `return_stats`: (y, mean, rstd)
    with rstd = 1/√(var + eps).
    """
    dtype = as_float(x).dtype
    x = as_f64(x)
    others, shape = _channels(x, axis)
    if training:
        mean, var = x.mean(axis=others), x.var(axis=others)
        n = x.size // mean.size
        if running_mean is not None:
            running_mean[...] = (1 - momentum) * as_f64(running_mean) + momentum * mean
        if running_var is not None:
            unbiased = var * n / (n - 1)
            running_var[...] = (1 - momentum) * as_f64(running_var) + momentum * unbiased
    else:
        mean, var = as_f64(running_mean), as_f64(running_var)
    rstd = 1 / np.sqrt(var + eps)

    xhat = (x - mean.reshape(shape)) * rstd.reshape(shape)
    y = _affine(xhat, weight, bias, shape)
    if activation == "relu":
        y = _relu(y)
    y = give(y, dtype, out)
    return (y, mean.astype(dtype), rstd.astype(dtype)) if return_stats else y


def batch_norm_backward(
    grad,
    x,
    mean,
    rstd,
    weight=None,
    *,
    bias=None,
    axis=1,
    activation=None,
    training=True,
):
    """(grad_x, grad_weight, grad_bias) of batch_norm; with g = grad and x̂ = (x − mean)·rstd:

    grad_bias = Σ g,    grad_weight = Σ g·x̂
    grad_x = weight·rstd·(g − (Σ g)/n − x̂·(Σ g·x̂)/n)

    summed over all but the channels. The last two terms are the way through mean and variance:
    without training these are constants, and grad_x = weight·rstd·g.
    """
    dtype = as_float(x).dtype
    x, g = as_f64(x), as_f64(grad)
    others, shape = _channels(x, axis)
    mean, rstd = as_f64(mean).reshape(shape), as_f64(rstd).reshape(shape)
    xhat = (x - mean) * rstd
    if activation == "relu":
        g = np.where(_affine(xhat, weight, bias, shape) <= 0, 0.0, g)

    grad_bias = g.sum(axis=others)
    grad_weight = (g * xhat).sum(axis=others)
    grad_x = g
    if training:
        n = x.size // grad_bias.size
        grad_x = g - grad_bias.reshape(shape) / n - xhat * grad_weight.reshape(shape) / n
    grad_x = _affine(grad_x * rstd, weight, None, shape)
    return tuple(give(a, dtype) for a in (grad_x, grad_weight, grad_bias))
