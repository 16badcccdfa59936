"""Monte-Carlo dropout: how sure is the network?

A network with dropout is asked many times about one input, each time with another `offset`, that is another mask. The
mean of the answers is the prediction; their spread says how much the network's parts disagree, which they do more where
there were no data (Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016).

Here it learns the progress of diabetes from the body mass index of scikit-learn's bundled patients, but is shown none
of the heaviest sixth. Nothing is stored but a seed: prediction k is `offset = k`, today and on any machine.

    python examples/mc_dropout.py                     two lines here, a picture in mc_dropout.png
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes

import fastreg
from fastreg.nn import Dropout

P, HIDDEN, STEPS, SAMPLES = 0.2, 128, 3000, 500
SEED = 2016

Layers = list[list[np.ndarray]]  # a weight and a bias each


def weights(rng: np.random.Generator) -> Layers:
    sizes = (1, HIDDEN, HIDDEN, 1)
    return [[rng.standard_normal((a, b)) * np.sqrt(2 / a), np.zeros(b)] for a, b in pairwise(sizes)]


def forward(layers: Layers, x: np.ndarray, drop: Sequence[Callable[[np.ndarray], np.ndarray]]) -> list[np.ndarray]:
    """Two hidden layers of rectified units, each followed by dropout. Returns what backward needs, the output last."""
    seen = [x]
    for (weight, bias), dropped in zip(layers, [*drop, None], strict=True):
        z = seen[-1] @ weight + bias
        seen.append(z if dropped is None else dropped(np.maximum(z, 0)))
    return seen


def train(layers: Layers, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> None:
    drop = [Dropout(P, rng=rng), Dropout(P, rng=rng)]
    velocity = [[np.zeros_like(a) for a in layer] for layer in layers]
    for _ in range(STEPS):
        batch = rng.integers(len(x), size=64)
        seen = forward(layers, x[batch], drop)
        _, grad = fastreg.smooth_l1_loss(seen[-1], y[batch], return_grad=True)
        for k in range(len(layers) - 1, -1, -1):
            weight = layers[k][0]
            by_weight, by_bias, by_input = seen[k].T @ grad, grad.sum(axis=0), grad @ weight.T
            for param, by_param, buffer in zip(layers[k], (by_weight, by_bias), velocity[k], strict=True):
                decay = 1e-4 if param is weight else 0.0
                fastreg.sgd_step(param, by_param, buffer, lr=0.02, momentum=0.9, weight_decay=decay)
            if k:
                # A unit that was dropped or not positive is 0 in `seen`: it passes nothing back.
                grad = np.where(seen[k] > 0, drop[k - 1].backward(by_input), 0.0)


def predictions(layers: Layers, x: np.ndarray) -> np.ndarray:
    """SAMPLES answers for each x: the recipe. One seed a layer, one offset an answer."""
    answers = []
    for k in range(SAMPLES):
        # axis=1: one mask of the units for all inputs, so that an answer is a curve.
        drop = [lambda h, s=s, k=k: fastreg.dropout(h, P, seed=s, offset=k, axis=1) for s in (SEED, SEED + 1)]
        answers.append(forward(layers, x, drop)[-1][:, 0])
    return np.array(answers)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--picture", default="mc_dropout.png", help="where to put it")
    given = options.parse_args()

    data, progress = load_diabetes(return_X_y=True)
    x, y = data[:, 2:3] / data[:, 2].std(), ((progress - progress.mean()) / progress.std())[:, None]
    shown = x[:, 0] < np.quantile(x, 5 / 6)
    rng = np.random.default_rng(SEED)
    layers = weights(rng)
    train(layers, x[shown], y[shown], rng)

    grid = np.linspace(x.min() - 0.5, x.max() + 1.0, 300)[:, None]
    answers = predictions(layers, grid)
    mean, spread = answers.mean(axis=0), answers.std(axis=0)
    inside = (grid[:, 0] > np.quantile(x[shown], 0.05)) & (grid[:, 0] < np.quantile(x[shown], 0.95))
    outside = grid[:, 0] > x[shown].max()
    print(f"spread of {SAMPLES} answers where there were data   {spread[inside].mean():.2f} deviations of the target")
    print(f"beyond the heaviest patient that was shown       {spread[outside].mean():.2f}")

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.fill_between(grid[:, 0], mean - 2 * spread, mean + 2 * spread, alpha=0.25, label="±2 standard deviations")
    axes.plot(grid[:, 0], answers[:8].T, linewidth=0.5, color="grey")
    axes.plot(grid[:, 0], mean, label=f"mean of {SAMPLES} answers")
    axes.plot(x[shown], y[shown], ".", markersize=4, label="patients shown")
    axes.plot(x[~shown], y[~shown], "x", markersize=4, label="patients kept back")
    axes.set(xlabel="body mass index, standardised", ylabel="progress of diabetes, standardised", ylim=(-3, 5))
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(given.picture, dpi=120)
    print(f"picture: {given.picture}")


if __name__ == "__main__":
    main()
