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


def batch_norm_stats(x, *, axis=1):
    """(values a channel, their mean, their population variance), in double precision."""
    x = as_f64(x)
    others, _ = _channels(x, axis)
    n = x.size // x.shape[axis]
    return n, x.mean(axis=others), x.var(axis=others)


def merge_stats(a, b):
    """The statistics of two parts together (Chan, Golub and LeVeque, 1983)."""
    (n_a, mean_a, var_a), (n_b, mean_b, var_b) = a, b
    n = n_a + n_b
    mean = (n_a * as_f64(mean_a) + n_b * as_f64(mean_b)) / n
    var = (n_a * as_f64(var_a) + n_b * as_f64(var_b)) / n
    return n, mean, var + (as_f64(mean_b) - as_f64(mean_a)) ** 2 * n_a * n_b / n**2


def fold_batch_norm(weight, bias, mean, var, gamma=None, beta=None, eps=1e-5):
    """The linear layer that does what weight, bias and then batch norm at inference do."""
    dtype = as_float(weight).dtype
    scale = 1 / np.sqrt(as_f64(var) + eps)
    if gamma is not None:
        scale = scale * as_f64(gamma)
    folded = as_f64(weight) * scale.reshape(-1, *[1] * (np.ndim(weight) - 1))
    shifted = ((0 if bias is None else as_f64(bias)) - as_f64(mean)) * scale
    if beta is not None:
        shifted = shifted + as_f64(beta)
    return give(folded, dtype), give(shifted, dtype)


def _normalise(x, axes, weight, bias, eps):
    """y, mean and rstd of slices along `axes`; weight and bias broadcast to x."""
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    rstd = 1 / np.sqrt(var + eps)
    xhat = (x - mean) * rstd
    y = xhat if weight is None else xhat * weight
    return (y if bias is None else y + bias), mean, rstd


def _normalise_backward(g, x, mean, rstd, weight, axes):
    """grad_x, and g·x̂ for grad_weight; the two means are the way through the statistics."""
    xhat = (x - mean) * rstd
    v = g if weight is None else g * weight
    through_mean = v.mean(axis=axes, keepdims=True)
    through_var = (v * xhat).mean(axis=axes, keepdims=True)
    return rstd * (v - through_mean - xhat * through_var), g * xhat


def _last(x, normalized_shape):
    return tuple(range(x.ndim - np.size(normalized_shape), x.ndim))


def _maybe_f64(x):
    return None if x is None else as_f64(x)


def layer_norm(x, normalized_shape, weight=None, bias=None, *, eps=1e-5, out=None, return_stats=False):
    """y = (x − mean)/√(var + eps)·weight + bias over the last axes (Ba, Kiros and Hinton, 2016)."""
    dtype = as_float(x).dtype
    x = as_f64(x)
    axes = _last(x, normalized_shape)
    y, mean, rstd = _normalise(x, axes, _maybe_f64(weight), _maybe_f64(bias), eps)
    y = give(y, dtype, out)
    return (y, give(mean.squeeze(axes), dtype), give(rstd.squeeze(axes), dtype)) if return_stats else y


def layer_norm_backward(grad, x, mean, rstd, weight=None):
    """(grad_x, grad_weight, grad_bias) of layer_norm."""
    dtype = as_float(x).dtype
    x, g = as_f64(x), as_f64(grad)
    samples = tuple(range(np.ndim(mean)))
    axes = tuple(range(np.ndim(mean), x.ndim))
    mean, rstd = np.expand_dims(as_f64(mean), axes), np.expand_dims(as_f64(rstd), axes)
    grad_x, by_weight = _normalise_backward(g, x, mean, rstd, _maybe_f64(weight), axes)
    return give(grad_x, dtype), give(by_weight.sum(axis=samples), dtype), give(g.sum(axis=samples), dtype)


def rms_norm(x, normalized_shape, weight=None, *, eps=None, out=None, return_stats=False):
    """y = x/√(mean(x²) + eps)·weight over the last axes (Zhang and Sennrich, 2019)."""
    dtype = as_float(x).dtype
    x = as_f64(x)
    axes = _last(x, normalized_shape)
    if eps is None:
        eps = float(np.finfo(dtype).eps)
    rstd = 1 / np.sqrt((x * x).mean(axis=axes, keepdims=True) + eps)
    y = x * rstd if weight is None else x * rstd * as_f64(weight)
    y = give(y, dtype, out)
    return (y, give(rstd.squeeze(axes), dtype)) if return_stats else y


def rms_norm_backward(grad, x, rstd, weight=None):
    """(grad_x, grad_weight) of rms_norm."""
    dtype = as_float(x).dtype
    x, g = as_f64(x), as_f64(grad)
    samples = tuple(range(np.ndim(rstd)))
    axes = tuple(range(np.ndim(rstd), x.ndim))
    rstd = np.expand_dims(as_f64(rstd), axes)
    xhat = x * rstd
    v = g if weight is None else g * as_f64(weight)
    grad_x = rstd * (v - xhat * (v * xhat).mean(axis=axes, keepdims=True))
    return give(grad_x, dtype), give((g * xhat).sum(axis=samples), dtype)


def _grouped(x, groups):
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def _of_channels(v, x, groups):
    """A (C,) vector so that it broadcasts to the grouped x."""
    return None if v is None else as_f64(v).reshape(1, groups, -1, *[1] * (x.ndim - 2))


def group_norm(x, num_groups, weight=None, bias=None, *, eps=1e-5, out=None, return_stats=False):
    """As layer_norm, over groups of neighbouring channels of each sample (Wu and He, 2018)."""
    dtype = as_float(x).dtype
    x = as_f64(x)
    z = _grouped(x, num_groups)
    axes = tuple(range(2, z.ndim))
    y, mean, rstd = _normalise(z, axes, _of_channels(weight, x, num_groups), _of_channels(bias, x, num_groups), eps)
    y = give(y.reshape(x.shape), dtype, out)
    return (y, give(mean.squeeze(axes), dtype), give(rstd.squeeze(axes), dtype)) if return_stats else y


def group_norm_backward(grad, x, mean, rstd, weight=None):
    """(grad_x, grad_weight, grad_bias) of group_norm."""
    dtype = as_float(x).dtype
    x, g = as_f64(x), as_f64(grad)
    groups = np.shape(mean)[1]
    z = _grouped(x, groups)
    axes = tuple(range(2, z.ndim))
    mean, rstd = np.expand_dims(as_f64(mean), axes), np.expand_dims(as_f64(rstd), axes)
    grad_x, by_weight = _normalise_backward(_grouped(g, groups), z, mean, rstd, _of_channels(weight, x, groups), axes)
    others = (0, *range(2, x.ndim))
    return (
        give(grad_x.reshape(x.shape), dtype),
        give(by_weight.reshape(x.shape).sum(axis=others), dtype),
        give(g.sum(axis=others), dtype),
    )


def instance_norm(
    x,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    *,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
    out=None,
    return_stats=False,
):
    """group_norm with a group for each channel (Ulyanov, Vedaldi and Lempitsky, 2016).

    The running arrays move towards the mean over the samples of their means and unbiased variances.
    """
    if not use_input_stats:
        y, mean, rstd = batch_norm(x, running_mean, running_var, weight, bias, eps=eps, out=out, return_stats=True)
        samples = np.shape(x)[:2]
        return (y, np.broadcast_to(mean, samples), np.broadcast_to(rstd, samples)) if return_stats else y
    z = as_f64(x)
    axes = tuple(range(2, z.ndim))
    n = np.prod(z.shape[2:], dtype=int)
    if running_mean is not None:
        running_mean[...] = (1 - momentum) * as_f64(running_mean) + momentum * z.mean(axis=axes).mean(axis=0)
    if running_var is not None:
        unbiased = z.var(axis=axes).mean(axis=0) * n / (n - 1)
        running_var[...] = (1 - momentum) * as_f64(running_var) + momentum * unbiased
    return group_norm(x, z.shape[1], weight, bias, eps=eps, out=out, return_stats=return_stats)


def instance_norm_backward(grad, x, mean, rstd, weight=None, *, use_input_stats=True):
    """(grad_x, grad_weight, grad_bias) of instance_norm."""
    grads = group_norm_backward(grad, x, mean, rstd, weight)
    if use_input_stats:
        return grads
    g, along = as_f64(grad), (np.shape(x)[0], np.shape(x)[1], *[1] * (np.ndim(x) - 2))
    grad_x = g * as_f64(rstd).reshape(along)
    if weight is not None:
        grad_x = grad_x * as_f64(weight).reshape(1, *along[1:])
    return give(grad_x, as_float(x).dtype), *grads[1:]
