"""What each regulariser does to a network that has too few examples.

A three-layer network learns 100 of scikit-learn's 1,797 handwritten digits, far too few for its 17,000 weights, and is
asked about the others. Without help it knows its hundred by heart and misses one in seven or eight of the others; eight
runs show what each regulariser changes. Matrix products are NumPy's; weight decay, L1 and the loss are fastreg's
functions, dropout and batch normalisation the layers of fastreg.nn.

    python examples/digits.py                     a table here, a picture in digits.png
    python examples/digits.py --seeds 2           the same in a hurry

Every figure is a mean over several seeds; a seed picks the hundred digits, the first weights and the order of learning.
The strengths in RUNS were chosen on other splits of the digits (seeds from 100) than those shown (from 0).
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from types import ModuleType
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

import fastreg
from fastreg import nn, reference

Array = NDArray[Any]
Key = tuple[str, int]  # "weight", "bias" or "scale", and its layer

TRAIN, BATCH, EPOCHS = 100, 10, 300
SIZES = (64, 128, 64, 10)  # pixels, two hidden layers, one output a digit
HIDDEN = range(len(SIZES) - 2)
LR, MOMENTUM, DROPOUT = 0.3, 0.9, 0.15


@dataclass(frozen=True)
class Run:
    name: str
    weight_decay: float = 0.0
    l1: float = 0.0
    dropout: Literal["vanilla", "inverted"] | None = None
    batch_norm: bool = False


RUNS = (
    Run("none"),
    Run("L2 0.0005", weight_decay=0.0005),
    Run("L2 0.003", weight_decay=0.003),
    Run("L1", l1=0.0003),
    Run("elastic net", weight_decay=0.0005, l1=0.0001),
    Run("vanilla dropout", dropout="vanilla"),
    Run("inverted dropout", dropout="inverted"),
    Run("batch norm", batch_norm=True),
    Run("all together", weight_decay=0.0001, l1=0.0001, dropout="inverted", batch_norm=True),
)


class Network:
    """64 pixels, two hidden layers of ReLUs, ten linear outputs, trained by gradient descent with momentum."""

    def __init__(self, run: Run, seed: int, backend: ModuleType = fastreg) -> None:
        self.run, self.backend = run, backend
        self.params: dict[Key, Array] = {}
        self.norms: dict[int, nn.BatchNorm] = {}
        self.dropouts: dict[int, nn.Dropout] = {}
        rng = np.random.default_rng(seed)
        for k, (n, m) in enumerate(pairwise(SIZES)):
            self.params["weight", k] = rng.normal(0, np.sqrt(2 / n), (n, m)).astype(np.float32)
            if run.batch_norm and k in HIDDEN:
                self.norms[k] = nn.BatchNorm(m, activation="relu")
                self.params["scale", k], self.params["bias", k] = self.norms[k].params.values()
            else:
                self.params["bias", k] = np.zeros(m, np.float32)
            if run.dropout and k in HIDDEN:
                self.dropouts[k] = nn.Dropout(DROPOUT, seed=len(HIDDEN) * seed + k, mode=run.dropout)
        self.momenta = {key: np.zeros_like(param) for key, param in self.params.items()}

    def predict(self, x: Array) -> Array:
        """The digit of each row of x: its largest output, with nothing dropped."""
        for layer in (*self.norms.values(), *self.dropouts.values()):
            layer.eval()
        for k in HIDDEN:
            x = self._forward(k, x)
        for layer in (*self.norms.values(), *self.dropouts.values()):
            layer.train()
        return self._output(x).argmax(axis=1)

    def train_step(self, x: Array, onehot: Array) -> float:
        """Learn one batch; returns its loss."""
        inputs = [x]
        grads: dict[Key, Array] = {}
        for k in HIDDEN:
            inputs.append(self._forward(k, inputs[-1]))

        # The textbook's loss is the squared error. Smooth L1 is just that, ½d², up to |d| = 1, which is as far as an
        # output usually is from a one-hot target; beyond, an odd digit pulls no harder than with slope 1.
        # Loss and gradient come from one pass.
        loss, g = self.backend.smooth_l1_loss(self._output(inputs[-1]), onehot, return_grad=True)

        last = len(HIDDEN)
        grads["bias", last] = g.sum(axis=0)
        for k in reversed(HIDDEN):
            grads["weight", k + 1] = inputs[k + 1].T @ g
            g = self._backward(k, g @ self.params["weight", k + 1].T, inputs[k + 1], grads)
        grads["weight", 0] = x.T @ g
        self._update(grads)
        return loss

    def _output(self, x: Array) -> Array:
        return x @ self.params["weight", len(HIDDEN)] + self.params["bias", len(HIDDEN)]

    def _forward(self, k: int, x: Array) -> Array:
        """Hidden layer k: its matrix product, batch norm or a bias, the ReLU, dropout."""
        z = x @ self.params["weight", k]
        y = self.norms[k](z) if k in self.norms else np.maximum(z + self.params["bias", k], 0)
        return self.dropouts[k](y) if k in self.dropouts else y

    def _backward(self, k: int, g: Array, y: Array, grads: dict[Key, Array]) -> Array:
        """From the gradient by y, which layer k gave, to that by its matrix product; notes those of bias and scale."""
        if k in self.dropouts:
            g = self.dropouts[k].backward(g)
        if k in self.norms:
            g = self.norms[k].backward(g)
            grads["scale", k], grads["bias", k] = self.norms[k].grads.values()
            return g
        g = g * (y > 0)  # where y was dropped, g is 0 already
        grads["bias", k] = g.sum(axis=0)
        return g

    def _update(self, grads: dict[Key, Array]) -> None:
        for key, grad in grads.items():
            decayed = key[0] == "weight"  # neither biases nor the scales of batch norm
            self.backend.sgd_step(
                self.params[key],
                grad,
                self.momenta[key],
                lr=LR,
                momentum=MOMENTUM,
                weight_decay=self.run.weight_decay if decayed else 0.0,
                l1=self.run.l1 if decayed else 0.0,
            )

    def weights(self) -> Array:
        return np.concatenate([param.ravel() for (kind, _), param in self.params.items() if kind == "weight"])


class Data:
    """The digits as seed splits them, and the order in which they are learnt."""

    def __init__(self, seed: int) -> None:
        digits = load_digits()
        x, labels = (digits.data / 16).astype(np.float32), digits.target
        self.rng = np.random.default_rng(seed)
        order = self.rng.permutation(len(x))
        train, test = order[:TRAIN], order[TRAIN:]
        self.train, self.test = (x[train], labels[train]), (x[test], labels[test])
        self.onehot = np.eye(10, dtype=np.float32)[labels[train]]

    def batches(self) -> Iterator[tuple[Array, Array]]:
        """One epoch."""
        order = self.rng.permutation(TRAIN)
        for rows in np.split(order, TRAIN // BATCH):
            yield self.train[0][rows], self.onehot[rows]


def epoch(network: Network, data: Data) -> None:
    for x, onehot in data.batches():
        network.train_step(x, onehot)


def accuracy(network: Network, x: Array, labels: Array) -> float:
    """In per cent."""
    return 100 * np.mean(network.predict(x) == labels)


# Accuracy is looked up at these epochs: most of it happens early, so they get sparser.
LOOKS = np.unique(np.geomspace(1, EPOCHS, 40).round().astype(int))


@dataclass
class Result:
    """Of one run: accuracies in per cent, (seed, look); the weights of all seeds; seconds an epoch."""

    run: Run
    train: Array
    test: Array
    weights: Array
    time: float
    reference_time: float

    @property
    def accuracies(self) -> tuple[float, float]:
        """Of training and test digits, at the end."""
        return self.train[:, -1].mean(), self.test[:, -1].mean()

    @property
    def zeros(self) -> float:
        """Per cent of the weights that are exactly zero."""
        return 100 * np.mean(self.weights == 0)


def learn(run: Run, seed: int) -> tuple[list[float], list[float], Array]:
    """Train one network: its accuracies at LOOKS on the digits it saw and on the others, and its weights."""
    data, network = Data(seed), Network(run, seed)
    train, test = [], []
    for n in range(1, EPOCHS + 1):
        epoch(network, data)
        if n in LOOKS:
            train.append(accuracy(network, *data.train))
            test.append(accuracy(network, *data.test))
    return train, test, network.weights()


# The layers' arithmetic, for which fastreg.reference has the same names.
LAYERS = ("batch_norm", "batch_norm_backward", "dropout", "dropout_backward")


def time_epoch(run: Run, repeats: int = 20) -> tuple[float, float]:
    """Seconds an epoch, of fastreg and of fastreg.reference.

    They take turns batch by batch, and the median step counts: on a busy machine a whole epoch is seldom left in peace.
    """
    data = Data(0)
    networks = [Network(run, 0, backend) for backend in (fastreg, reference)]
    steps: list[list[float]] = [[], []]
    for _ in range(repeats):
        for batch in data.batches():
            for network, taken in zip(networks, steps, strict=True):
                with patch.multiple(nn, **{name: getattr(network.backend, name) for name in LAYERS}):
                    start = time.perf_counter()
                    network.train_step(*batch)
                    taken.append(time.perf_counter() - start)
    ours, theirs = (TRAIN // BATCH * median(taken) for taken in steps)
    return ours, theirs


def experiment(seeds: Sequence[int]) -> list[Result]:
    results = []
    with Progress(transient=True) as progress:
        bar = progress.add_task("", total=len(RUNS) * len(seeds))
        for run in RUNS:
            progress.update(bar, description=f"{run.name:16}")
            curves = []
            for seed in seeds:
                curves.append(learn(run, seed))
                progress.advance(bar)
            train, test, weights = map(np.array, zip(*curves, strict=True))
            results.append(Result(run, train, test, weights, *time_epoch(run)))
    return results


def gain(result: Result, none: Result) -> tuple[float, float]:
    """Test accuracy over that of `none`: mean and standard error, seed by seed, so that easy and hard splits cancel."""
    gains = result.test[:, -1] - none.test[:, -1]
    return gains.mean(), gains.std(ddof=1) / np.sqrt(len(gains))


def table(results: list[Result]) -> Table:
    none = results[0]
    title = f"{TRAIN} digits learnt, mean of {len(none.test)} seeds"
    caption = "in NumPy: the same epoch with fastreg.reference, which computes in float64"
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    headers = "train\n%", "test\n%", "\ngap", "test\n− none", "weights\n0, %", "ms per\nepoch", "in\nNumPy", "\nratio"
    table.add_column("\nregulariser", no_wrap=True)
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for r in results:
        train, test = r.accuracies
        more, error = gain(r, none)
        table.add_row(
            r.run.name,
            f"{train:.1f}",
            f"{test:.1f}",
            f"{train - test:.1f}",
            "" if r is none else f"{more:+.1f} ± {error:.1f}",
            f"{r.zeros:.0f}",
            f"{1e3 * r.time:.2f}",
            f"{1e3 * r.reference_time:.2f}",
            f"{r.reference_time / r.time:.1f}×",
        )
    return table


def reach(result: Result, level: float) -> int:
    """The first look at which mean test accuracy is at least `level`."""
    return LOOKS[np.argmax(result.test.mean(axis=0) >= level)]


def notes(results: list[Result]) -> tuple[str, ...]:
    """What to notice, with the figures of these very runs."""
    by_name = {r.run.name: r for r in results}
    none, decay, strong, lasso = (by_name[n] for n in ("none", "L2 0.0005", "L2 0.003", "L1"))
    normed, everything = by_name["batch norm"], by_name["all together"]
    vanilla, inverted = (gain(by_name[f"{mode} dropout"], none)[0] for mode in ("vanilla", "inverted"))
    best = max(results, key=lambda r: r.accuracies[1])
    known, level = none.accuracies
    return (
        f"none: it has {known:.0f} % of its {TRAIN} digits by heart, and {level:.1f} % of the others right.",
        f"L2: {gain(decay, none)[0]:+.1f} points on unseen digits. The weights crowd around zero, but none is zero. "
        f"Six times as strong it keeps the network from learning: {strong.accuracies[0]:.0f} % even of its own digits.",
        f"L1: {lasso.zeros:.0f} % of the weights are exactly 0, at {gain(lasso, none)[0]:+.1f} points: most of the "
        "network was not needed.",
        f"dropout: learns more slowly and ends at {vanilla:+.1f} points (vanilla) and {inverted:+.1f} (inverted). Both "
        "are one model up to a scale of the weights; they differ in where they start and how fast they learn.",
        f"batch norm: after {reach(normed, level)} epochs it is where 'none' is after {reach(none, level)}.",
        f"all together: {everything.accuracies[1]:.1f} %; the best, {best.run.name}, has {best.accuracies[1]:.1f} %. "
        "Regularisers do not add up. Batch norm undoes any scale of the hidden weights, so decay and L1 make them "
        f"small without taking anything away ({everything.zeros:.0f} % zeros).",
    )


# Okabe and Ito's colours, which all kinds of colour vision can tell apart.
BLUE, ORANGE, RED, GREY = "#0072B2", "#E69F00", "#D55E00", "#777777"


def draw_curves(axes: Axes, result: Result, none: Result) -> None:
    axes.plot(LOOKS, result.train.mean(axis=0), color=ORANGE, lw=2.2, label="the digits it learnt")
    axes.plot(LOOKS, result.test.mean(axis=0), color=BLUE, lw=2.2, label="digits it never saw")
    axes.plot(LOOKS, none.test.mean(axis=0), color=GREY, lw=1.4, ls="--", label="the same, no regulariser", zorder=0)
    axes.set(xscale="log", xlim=(2, EPOCHS), ylim=(60, 101), xticks=(3, 10, 30, 100, 300), yticks=range(60, 101, 10))
    axes.set_xticklabels(axes.get_xticks())
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_title(f"{result.run.name}: {result.accuracies[1]:.1f} % of unseen digits right", loc="left", weight="bold")


def draw_weights(axes: Axes, result: Result) -> None:
    edges = np.linspace(-0.8, 0.8, 82)  # an odd number of bins, so that one is centred on 0
    nonzero = result.weights[result.weights != 0]
    axes.hist(nonzero, edges, weights=np.full(nonzero.size, 100 / result.weights.size), color=BLUE)
    if result.zeros:
        axes.bar(0, result.zeros, width=0.04, color=RED)
        axes.text(0.97, 0.97, f"{result.zeros:.0f} % are 0", color=RED, ha="right", va="top", transform=axes.transAxes)
    axes.set(xlim=(-0.8, 0.8), yscale="log", ylim=(0.01, 130), xticks=(-0.5, 0, 0.5), yticks=(0.01, 0.1, 1, 10, 100))
    axes.set_yticklabels(("0.01", "0.1", "1", "10", "100"))
    axes.minorticks_off()


def picture(results: list[Result]) -> Figure:
    figure = Figure(figsize=(16, 10), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08)
    grid = figure.subplots(3, 6, width_ratios=(3, 2) * 3)
    for i, (result, (curves, weights)) in enumerate(zip(results, grid.reshape(-1, 2), strict=True)):
        draw_curves(curves, result, results[0])
        draw_weights(weights, result)
        for axes in curves, weights:
            axes.spines[["top", "right"]].set_visible(False)
        if i % 3 == 0:
            curves.set_ylabel("accuracy, %")
            weights.set_ylabel("share of weights, %")
        if i >= 6:
            curves.set_xlabel("epoch")
            weights.set_xlabel("weight")
    figure.suptitle(f"What each regulariser does to a network that has only {TRAIN} digits to learn from", fontsize=17)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12, help="how many to average over, at least 2 (12)")
    parser.add_argument("--output", default="digits.png", help="where the picture goes (digits.png)")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds must be at least 2, to say how far they differ")

    with threadpool_limits(1, user_api="blas"):  # two threads share products this small at a loss
        results = experiment(range(arguments.seeds))
    picture(results).savefig(arguments.output, dpi=100)
    console = Console(highlight=False)
    console.print(table(results))
    for note in notes(results):
        console.print(f"- {note}")
    console.print(f"The picture is in {arguments.output}.")


if __name__ == "__main__":
    main()
