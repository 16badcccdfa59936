"""Update rules. Parameters and their state are changed in place, as `torch.optim` does."""

from ._arrays import as_f64
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
