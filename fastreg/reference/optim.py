"""Update rules. Parameters and their state are changed in place, as `torch.optim` does."""

import numpy as np

from ._arrays import as_f64, as_float, give
from .prox import soft_threshold


def sgd_step(
    param,
    grad,
    momentum_buffer=None,
    *,
    lr,
    momentum=0.0,
    dampening=0.0,
    nesterov=False,
    weight_decay=0.0,
    decoupled=False,
    l1=0.0,
):
    """One step of stochastic gradient descent.

    g ← grad + weight_decay·w          (decoupled: w ← (1 − lr·weight_decay)·w instead)
    b ← momentum·b + (1 − dampening)·g
    w ← w − lr·b                       (Nesterov: w − lr·(g + momentum·b))
    w ← soft_threshold(w, lr·l1)

    The last line is the proximal step of l1‖w‖₁, which gives exact zeros where a subgradient
    would oscillate about them.
    """
    w, g = as_f64(param), as_f64(grad)
    if decoupled:
        w = (1 - lr * weight_decay) * w
    elif weight_decay:
        g = g + weight_decay * w
    change = lr * g
    if momentum:
        b = momentum * as_f64(momentum_buffer) + (1 - dampening) * g
        momentum_buffer[...] = b
        change = lr * g + lr * momentum * b if nesterov else lr * b
    w = w - change
    if l1:
        w = soft_threshold(w, lr * l1)
    param[...] = w


def adam_step(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    step,
    *,
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    decoupled=False,
    l1=0.0,
):
    """Step number `step` (the first is 1) of Adam; with `decoupled` decay, of AdamW.

    g ← grad + weight_decay·w          (decoupled: w ← (1 − lr·weight_decay)·w instead)
    m ← beta1·m + (1 − beta1)·g
    v ← beta2·v + (1 − beta2)·g²
    w ← w − lr/(1 − beta1^t) · m / (√(v / (1 − beta2^t)) + eps)
    w ← soft_threshold(w, lr·l1)
    """
    w, g = as_f64(param), as_f64(grad)
    if decoupled:
        w = (1 - lr * weight_decay) * w
    elif weight_decay:
        g = g + weight_decay * w
    exp_avg[...] = m = beta1 * as_f64(exp_avg) + (1 - beta1) * g
    # A second moment that overflows its dtype is infinite in what follows, too.
    exp_avg_sq[...] = beta2 * as_f64(exp_avg_sq) + (1 - beta2) * g * g
    root = np.sqrt(as_f64(exp_avg_sq)) / np.sqrt(1 - beta2**step)
    w = w - lr / (1 - beta1**step) * m / (root + eps)
    if l1:
        w = soft_threshold(w, lr * l1)
    param[...] = w


def adagrad_step(param, grad, sum_sq, *, lr=1e-2, eps=1e-10, weight_decay=0.0, l1=0.0):
    """One step of Adagrad.

    g ← grad + weight_decay·w
    s ← s + g²
    w ← w − lr·g / (√s + eps)
    w ← soft_threshold(w, lr·l1)
    """
    w, g = as_f64(param), as_f64(grad)
    if weight_decay:
        g = g + weight_decay * w
    sum_sq[...] = as_f64(sum_sq) + g * g
    w = w - lr * g / (np.sqrt(as_f64(sum_sq)) + eps)
    if l1:
        w = soft_threshold(w, lr * l1)
    param[...] = w


def rmsprop_step(
    param,
    grad,
    square_avg,
    momentum_buffer=None,
    *,
    lr=1e-2,
    alpha=0.99,
    eps=1e-8,
    momentum=0.0,
    weight_decay=0.0,
    l1=0.0,
):
    """One step of RMSprop.

    g ← grad + weight_decay·w
    v ← alpha·v + (1 − alpha)·g²
    b ← momentum·b + g / (√v + eps)
    w ← w − lr·b
    w ← soft_threshold(w, lr·l1)
    """
    w, g = as_f64(param), as_f64(grad)
    if weight_decay:
        g = g + weight_decay * w
    square_avg[...] = alpha * as_f64(square_avg) + (1 - alpha) * g * g
    change = lr * g / (np.sqrt(as_f64(square_avg)) + eps)
    if momentum:
        b = momentum * as_f64(momentum_buffer) + g / (np.sqrt(as_f64(square_avg)) + eps)
        momentum_buffer[...] = b
        change = lr * b
    w = w - change
    if l1:
        w = soft_threshold(w, lr * l1)
    param[...] = w


def ftrl_step(param, grad, z, n, *, alpha=0.1, beta=1.0, l1=0.0, l2=0.0):
    """One round of FTRL-Proximal: Algorithm 1 of McMahan et al. 2013, from the gradient on.

    σ ← (√(n + g²) − √n) / alpha
    z ← z + g − σ·w
    n ← n + g²
    w ← 0 where |z| ≤ l1, else −(z − sign(z)·l1) / ((beta + √n)/alpha + l2)

    The paper computes w when it is next needed; here it is computed at once.
    """
    w, g, before = as_f64(param), as_f64(grad), as_f64(n)
    n[...] = before + g * g
    root = np.sqrt(as_f64(n))
    sigma = (root - np.sqrt(before)) / alpha
    z[...] = as_f64(z) + g - sigma * w
    scale = (beta + root) / alpha + l2
    param[...] = soft_threshold(-as_f64(z), l1) / scale


def ftrl_step_sparse(param, indices, grad, z, n, *, alpha=0.1, beta=1.0, l1=0.0, l2=0.0):
    """`ftrl_step` at some coordinates; gradients given for one coordinate are summed."""
    touched, place = np.unique(indices, return_inverse=True)
    total = np.zeros(touched.size)
    np.add.at(total, place.ravel(), as_f64(grad).ravel())
    w, zt, nt = (as_f64(x[touched]) for x in (param, z, n))
    ftrl_step(w, total, zt, nt, alpha=alpha, beta=beta, l1=l1, l2=l2)
    param[touched], z[touched], n[touched] = w, zt, nt


def ftrl_init_z(param, n=None, *, alpha=0.1, beta=1.0, l1=0.0, l2=0.0, out=None):
    """The z from which FTRL-Proximal's closed form gives `param`; 0 where `param` is 0.

    z = −w·((beta + √n)/alpha + l2) − sign(w)·l1
    """
    w = as_f64(param)
    root = 0 if n is None else np.sqrt(as_f64(n))
    z = -w * ((beta + root) / alpha + l2) - np.sign(w) * l1
    return give(np.where(w == 0, 0, z), as_float(param).dtype, out)
