"""Losses and activations beside torch's own: values and gradients, every reduction, in float64."""

import numpy as np
import pytest
import torch
from torch.nn import functional

import fastreg

every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
RNG = np.random.default_rng(1)
X, T, W = RNG.normal(size=(7, 33)) * 3, RNG.random((7, 33)), RNG.random(33)


def both(theirs, x, *args, reduction, **options):
    """torch's loss and the gradient of the sum of what it returns."""
    x = torch.from_numpy(x.copy()).requires_grad_()
    with torch.enable_grad():
        loss = theirs(x, *args, reduction=reduction, **options)
        loss.sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


def agree(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


@every_reduction
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("l1_loss", {}),
        ("mse_loss", {}),
        *(("smooth_l1_loss", {"beta": beta}) for beta in (0.0, 0.3, 1.0)),
        *(("huber_loss", {"delta": delta}) for delta in (0.3, 1.0)),
        ("binary_cross_entropy_with_logits", {}),
    ],
    ids=str,
)
def test_elementwise_losses(name, options, reduction):
    wanted = both(getattr(functional, name), X, torch.from_numpy(T), reduction=reduction, **options)
    agree(getattr(fastreg, name)(X, T, reduction=reduction, return_grad=True, **options), wanted)


@every_reduction
def test_bce_weights(reduction):
    options = {"weight": W, "pos_weight": W[::-1].copy()}
    wanted = both(
        functional.binary_cross_entropy_with_logits,
        X,
        torch.from_numpy(T),
        reduction=reduction,
        **{name: torch.from_numpy(w) for name, w in options.items()},
    )
    agree(fastreg.binary_cross_entropy_with_logits(X, T, reduction=reduction, return_grad=True, **options), wanted)


@every_reduction
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("kind", ["indices", "ignored", "probabilities"])
def test_cross_entropy(kind, weighed, smoothing, reduction):
    index = RNG.integers(0, 33, 7)
    if kind == "ignored":
        index[2:4] = -100
    target = RNG.dirichlet(np.ones(33), 7) if kind == "probabilities" else index
    weight = W if weighed else None
    wanted = both(
        functional.cross_entropy,
        X,
        torch.from_numpy(target),
        reduction=reduction,
        weight=None if weight is None else torch.from_numpy(weight),
        label_smoothing=smoothing,
    )
    options = {"weight": weight, "label_smoothing": smoothing, "reduction": reduction}
    agree(fastreg.cross_entropy(X, target, return_grad=True, **options), wanted)


@pytest.mark.parametrize("name", ["sigmoid", "softmax", "log_softmax"])
def test_activations_and_their_backwards(name):
    axis = {} if name == "sigmoid" else {"axis": -1}
    x = torch.from_numpy(X).requires_grad_()
    with torch.enable_grad():
        y = getattr(torch, name)(x, *axis.values())
        y.backward(torch.from_numpy(T))
    ours = getattr(fastreg, name)(X, **axis)
    agree((ours, getattr(fastreg, f"{name}_backward")(T, ours, **axis)), (y.detach().numpy(), x.grad.numpy()))
