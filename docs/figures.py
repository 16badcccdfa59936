"""The guides' pictures, each of what fastreg computes; named after the page that shows them."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import fastreg
from fastreg import nn, optim, penalties

BLUE, RED, GREEN, ORANGE, PURPLE, GREY = "#0b6e99", "#c1272d", "#448361", "#d9730d", "#6940a5", "#9e9e9e"


def panels(columns: int, width: float = 3.4, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(columns * width, height), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(1, columns)))
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    return figure, axes


def balls() -> Figure:
    """Why L1 gives zeros: the first point where the loss's ellipses touch the penalty's level set."""
    figure, axes = panels(4, 2.9)
    side = np.linspace(-1.6, 1.6, 201)
    grid = np.stack(np.meshgrid(side, side), axis=-1)
    hessian, best = np.array([[1.0, 0.55], [0.55, 1.6]]), np.array([0.35, 1.25])
    loss = np.einsum("...i,ij,...j->...", grid - best, hessian, grid - best)
    shown = [
        ("L2: a disc", penalties.L2(2.0), 1.0),
        ("L1: a diamond", penalties.L1(1.0), 1.0),
        ("elastic net: between", penalties.ElasticNet(0.5, 1.0), 1.0),
        ("group lasso of (w₁, w₂):\nL2's shape, all or nothing", penalties.GroupLasso(1.0), 1.0),
    ]
    for ax, (title, penalty, level) in zip(axes, shown, strict=True):
        value = np.array([[penalty(w) for w in row] for row in grid])
        ax.contourf(side, side, value, levels=[0, level], colors=[BLUE], alpha=0.25)
        ax.contour(side, side, value, levels=[level], colors=[BLUE])
        ax.contour(side, side, loss, levels=12, colors=[GREY], linewidths=0.6)
        inside = np.where(value <= level, loss, np.inf)
        touch = grid[np.unravel_index(inside.argmin(), inside.shape)]
        ax.plot(*best, "x", color=GREY)
        ax.plot(*touch, "o", color=RED)
        ax.axhline(0, color="black", lw=0.4)
        ax.axvline(0, color="black", lw=0.4)
        ax.set_title(title, fontsize=10)
        ax.set(aspect="equal", xlabel="w₁", ylabel="w₂")
    return figure


def shrinkage() -> Figure:
    """What each penalty's prox makes of one weight."""
    figure, axes = panels(3, 3.6, 3.2)
    x = np.linspace(-3, 3, 1201)
    groups = [
        [("L2", penalties.L2(1.0), GREEN), ("L1", penalties.L1(1.0), BLUE)],
        [("elastic net", penalties.ElasticNet(0.7, 0.5), PURPLE), ("L1", penalties.L1(1.0), BLUE)],
        [("L0", penalties.L0(0.5), RED), ("MCP", penalties.MCP(1.0, 2.0), ORANGE), ("L1", penalties.L1(1.0), BLUE)],
    ]
    titles = ["shrink, or cut to zero", "both", "cut, but leave large weights alone"]
    for ax, title, group in zip(axes, titles, groups, strict=True):
        ax.plot(x, x, ":", color=GREY, lw=1)
        for name, penalty, colour in group:
            y = penalty.prox(x)
            y = np.where(np.abs(np.diff(y, prepend=y[0])) > 0.1, np.nan, y)  # a jump is not a line
            ax.plot(x, y, color=colour, label=name, lw=1.8)
        ax.set_title(title, fontsize=10)
        ax.set(xlabel="weight before", ylabel="after prox")
        ax.legend(frameon=False, fontsize=8)
    return figure


def regression(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.zeros(40)
    truth[[2, 3, 4, 5, 20, 21, 22, 23]] = [1.5, -1.0, 0.8, 1.2, -1.4, 0.6, 1.0, -0.9]
    x = rng.standard_normal((60, 40))
    return x, x @ truth + 0.5 * rng.standard_normal(60), truth


def minimise(x: np.ndarray, y: np.ndarray, penalty: penalties.Penalty, steps: int = 3000) -> np.ndarray:
    """Proximal gradient on ½‖y − Xw‖²/n + penalty(w)."""
    gram, correlation = x.T @ x / len(y), x.T @ y / len(y)
    step, w = 1 / np.linalg.eigvalsh(gram)[-1], np.zeros(x.shape[1])
    for _ in range(steps):
        w = penalty.prox(w - step * (gram @ w - correlation), step)
    return w


def weights() -> Figure:
    """The same 40 weights under five penalties."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    x, y, truth = regression()
    shown = [
        ("no penalty", penalties.L2(0.0), GREY),
        ("L2(0.5)", penalties.L2(0.5), GREEN),
        ("L1(0.2)", penalties.L1(0.2), BLUE),
        ("ElasticNet(0.15, 0.2)", penalties.ElasticNet(0.15, 0.2), PURPLE),
        ("GroupLasso(0.35), groups of four", penalties.GroupLasso(0.35, np.arange(40) // 4), ORANGE),
        ("L0(0.08)", penalties.L0(0.08), RED),
    ]
    for ax, (title, penalty, colour) in zip(figure.subplots(3, 2, sharey=True).flat, shown, strict=True):
        w = minimise(x, y, penalty)
        ax.bar(np.arange(40), truth, color="#e3e3e3", width=0.9)
        zero = w == 0
        ax.vlines(np.arange(40)[~zero], 0, w[~zero], color=colour, lw=2)
        ax.plot(np.arange(40)[~zero], w[~zero], "o", color=colour, ms=3)
        ax.set_title(f"{title}: {np.count_nonzero(zero)} of 40 exactly zero", fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    return figure


def subgradient() -> Figure:
    """Three hundred steps of two ways to L1: along a subgradient, and by the threshold."""
    figure, axes = panels(2, 4.4)
    x, y, _ = regression()
    lam, lr = 0.2, 0.05
    plain, threshold = np.zeros(40), np.zeros(40)
    path_plain, path_threshold = [], []
    for _ in range(300):
        by_plain = x.T @ (x @ plain - y) / len(y) + penalties.L1(lam).grad(plain)
        plain = plain - lr * by_plain
        fastreg.sgd_step(threshold, x.T @ (x @ threshold - y) / len(y), lr=lr, l1=lam)
        path_plain.append(plain)
        path_threshold.append(threshold.copy())
    for ax, path, title in zip(axes, (path_plain, path_threshold), ("subgradient", "sgd_step(…, l1=0.2)"), strict=True):
        ax.plot(np.array(path), lw=0.8)
        ax.set_title(f"{title}: {np.count_nonzero(path[-1] == 0)} of 40 exactly zero", fontsize=10)
        ax.set(xlabel="step", ylabel="weights", ylim=(-0.5, 0.5))
    return figure


def dropout_modes() -> Figure:
    """The mean of what a layer passes on, in training and at inference."""
    figure, axes = panels(2, 4.4)
    x = np.ones(2000)
    for ax, mode in zip(axes, ("inverted", "vanilla"), strict=True):
        for p, colour in ((0.2, BLUE), (0.5, ORANGE), (0.8, RED)):
            training = [fastreg.dropout(x, p, seed=1, offset=k, mode=mode).mean() for k in range(60)]
            inference = fastreg.dropout(x, p, seed=1, mode=mode, training=False).mean()
            ax.plot(training, color=colour, lw=1, label=f"p = {p}")
            ax.plot([60, 80], [inference] * 2, color=colour, lw=3)
        ax.axvline(60, color="black", lw=0.5)
        ax.set_title(f'mode="{mode}"', fontsize=10)
        ax.set(xlabel="60 training steps, then inference", ylabel="mean of the output (input 1)", ylim=(0, 1.5))
        ax.legend(frameon=False, fontsize=8, loc="upper left", ncols=3)
    return figure


def dropout_masks() -> Figure:
    """What `axis` shares."""
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    shown = [("each element", None), ("axis=1: columns", 1), ("axis=0: rows", 0)]
    for ax, (title, axis) in zip(figure.subplots(1, 3), shown, strict=True):
        ax.imshow(fastreg.dropout_mask((16, 32), 0.3, seed=4, axis=axis), cmap="Blues", vmin=-0.3, vmax=1.2)
        ax.set_title(title, fontsize=10)
        ax.set(xticks=[], yticks=[])
    return figure


def batch_norm() -> Figure:
    """Batches that drift; what training and inference make of them; how the running mean follows."""
    figure, axes = panels(3, 3.6)
    rng = np.random.default_rng(0)
    layer = nn.BatchNorm(1, dtype=np.float64)
    running, means = [], []
    for _ in range(80):
        x = rng.normal(3.0, 2.0, (32, 1))
        layer.forward(x)
        means.append(x.mean())
        running.append(layer.running_mean[0])
    axes[0].plot(means, ".", color=GREY, label="mean of the batch")
    axes[0].plot(running, color=BLUE, label="running_mean, momentum 0.1")
    axes[0].legend(frameon=False, fontsize=8)
    axes[0].set(xlabel="training step", title="the running mean follows")
    x = rng.normal(4.5, 2.0, (400, 1))
    bins = np.linspace(-6, 12, 55)
    for ax, training, title in (
        (axes[1], True, "training: by the batch itself"),
        (axes[2], False, "inference: by the past"),
    ):
        layer.training = training
        ax.hist(x[:, 0], bins, color="#d0d0d0", label="in, mean 4.5")
        y = fastreg.batch_norm(x, layer.running_mean.copy(), layer.running_var.copy(), training=training)
        ax.hist(y[:, 0], bins, color=BLUE, alpha=0.7, label=f"out, mean {y.mean():.2f}")
        ax.legend(frameon=False, fontsize=8)
        ax.set(title=title, yticks=[])
    for ax in axes:
        ax.title.set_fontsize(10)
    return figure


def norm_axes() -> Figure:
    """Which elements share a mean and a variance: computed, by pushing one element and looking who moves."""
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    x = np.random.default_rng(0).standard_normal((6, 8, 6))
    pushed = x.copy()
    pushed[2, 5, 3] += 1.0
    shown = [
        ("batch norm", lambda a: fastreg.batch_norm(a, training=True)),
        ("layer norm", lambda a: fastreg.layer_norm(a, a.shape[1:])),
        ("group norm, 2 groups", lambda a: fastreg.group_norm(a, 2)),
        ("instance norm", lambda a: fastreg.instance_norm(a)),
    ]
    for ax, (title, norm) in zip(figure.subplots(1, 4), shown, strict=True):
        moved = (norm(x) != norm(pushed)).any(axis=2)
        ax.imshow(moved, cmap="Blues", vmin=0, vmax=1.4)
        ax.set_title(title, fontsize=10)
        ax.set(xlabel="channel", ylabel="sample", xticks=[], yticks=[])
    return figure


def losses() -> Figure:
    """Three losses, their gradients, and the line each fits through outliers."""
    figure, axes = panels(3, 3.7, 3.2)
    d = np.linspace(-3, 3, 601)
    named = [
        ("½·mse", lambda *a, **k: tuple(v / 2 for v in fastreg.mse_loss(*a, **k)), GREEN),
        ("l1", fastreg.l1_loss, RED),
        ("smooth L1, β = 1", fastreg.smooth_l1_loss, BLUE),
    ]
    for name, loss, colour in named:
        value, grad = loss(d, np.zeros_like(d), reduction="none", return_grad=True)
        axes[0].plot(d, value, color=colour, label=name)
        axes[1].plot(d, grad, color=colour, label=name)
    axes[0].set(title="loss", xlabel="prediction − target")
    axes[1].set(title="gradient: the pull of one sample", xlabel="prediction − target")
    axes[0].legend(frameon=False, fontsize=8)
    rng = np.random.default_rng(1)
    x = np.sort(rng.uniform(0, 10, 40))
    y = 0.8 * x + 1 + 0.5 * rng.standard_normal(40)
    y[-6:] -= 9
    for name, loss, colour in named:
        line = np.zeros(2)
        for k in range(8000):
            _, grad = loss(line[0] * x + line[1], y, return_grad=True)
            fastreg.sgd_step(line, np.array([grad @ x, grad.sum()]), lr=0.02 / (1 + k / 1000))
        axes[2].plot(x, line[0] * x + line[1], color=colour, label=name)
    axes[2].plot(x, y, ".", color=GREY, zorder=0)
    axes[2].set(title="a line through 40 points, 6 of them wrong", xlabel="x")
    for ax in axes:
        ax.title.set_fontsize(10)
    return figure


def optimisers() -> Figure:
    """Paths down one narrow valley, and the zeros that l1 leaves."""
    figure, axes = panels(2, 4.6, 3.4)
    hessian = np.array([1.0, 25.0])
    side = np.linspace(-2.2, 2.2, 101), np.linspace(-1.2, 1.2, 101)
    axes[0].contour(
        *side, 0.5 * (hessian[0] * side[0] ** 2 + hessian[1] * side[1][:, None] ** 2), 14, colors=[GREY], linewidths=0.5
    )
    made = [
        ("SGD", lambda p: optim.SGD(p, lr=0.03), GREEN),
        ("SGD, momentum 0.9", lambda p: optim.SGD(p, lr=0.03, momentum=0.9), BLUE),
        ("Adam", lambda p: optim.Adam(p, lr=0.15), RED),
    ]
    for name, make, colour in made:
        w, path = np.array([-2.0, 1.0]), []
        optimiser = make([w])
        for _ in range(60):
            path.append(w.copy())
            optimiser.step([hessian * w])
        axes[0].plot(*np.array(path).T, ".-", color=colour, ms=3, lw=0.8, label=name)
    axes[0].legend(frameon=False, fontsize=8)
    axes[0].set(title="60 steps from the same start", xlabel="w₁", ylabel="w₂")
    x, y, _ = regression()
    for l1, colour in zip((0.05, 0.1, 0.2, 0.3), (BLUE, GREEN, ORANGE, RED), strict=True):
        w, zeros = np.zeros(40), []
        optimiser = optim.SGD([w], lr=0.02, momentum=0.9, l1=l1)
        for _ in range(400):
            optimiser.step([x.T @ (x @ w - y) / len(y)])
            zeros.append(np.count_nonzero(w == 0))
        axes[1].plot(zeros, color=colour, label=f"l1 = {l1}")
    axes[1].legend(frameon=False, fontsize=8)
    axes[1].set(title="SGD with l1: weights that are exactly zero, of 40", xlabel="step", ylim=(0, 41))
    for ax in axes:
        ax.title.set_fontsize(10)
    return figure


def distances() -> Figure:
    """Unit balls of the p-norms, and the distance to one point by four metrics."""
    figure = Figure(figsize=(10, 3.0), layout="constrained")
    axes = figure.subplots(1, 5)
    side = np.linspace(-1.3, 1.3, 161)
    grid = np.stack(np.meshgrid(side, side), axis=-1)
    for p, colour in ((0.5, RED), (1, BLUE), (2, GREEN), (4, ORANGE), (np.inf, PURPLE)):
        axes[0].contour(side, side, fastreg.norm(grid, p, axis=-1), levels=[1], colors=[colour])
        axes[0].plot([], [], color=colour, label=f"p = {p}")
    axes[0].legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2)
    axes[0].set_title("norm = 1", fontsize=10)
    for ax, metric in zip(axes[1:], ("euclidean", "manhattan", "chebyshev", "cosine"), strict=True):
        far = fastreg.cdist(grid.reshape(-1, 2), [[0.5, 0.5]], metric=metric).reshape(grid.shape[:2])
        ax.contourf(side, side, far, 12, cmap="Blues_r")
        ax.plot(0.5, 0.5, ".", color=RED)
        ax.set_title(metric, fontsize=10)
    for ax in axes:
        ax.set(aspect="equal", xticks=[], yticks=[])
    return figure


PICTURES = (
    balls,
    shrinkage,
    weights,
    subgradient,
    dropout_modes,
    dropout_masks,
    batch_norm,
    norm_axes,
    losses,
    optimisers,
    distances,
)


def draw(place: Path) -> None:
    for picture in PICTURES:
        picture().savefig(place / f"{picture.__name__}.png", dpi=130)
