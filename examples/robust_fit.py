"""What does an outlier pull?

Lines and planes by four losses: L2, L1, smooth L1 and Huber. SciPy's L-BFGS asks for the loss and its gradient at each
step, and gets both from one call of fastreg; the gradient by the weights is Xᵀ times that by the predictions.

    python examples/robust_fit.py          tables here, a picture in robust_fit.png

First, outliers that are real: scikit-learn's breast cancer data, in which the fractal dimension of 569 tumours'
outlines was measured on many cells of each, and its standard error with it. Eight of the errors are far out, as they
came. Then, outliers that are injected: the diabetes data (442 patients, ten measurements), of which a growing part of
the patients that are learnt from, those with the highest body mass index first, has its target misread by a factor of
ten. What counts is the error on the third that nobody has touched.

Residuals are in units of their own spread (1.4826 times the median of |r|, from the L1 fit), so that delta = 1.345 is
the usual compromise: for normal errors Huber's estimate has 95 % of the efficiency of least squares. Smooth L1 has its
default beta = 1; with beta = delta it would be Huber's loss over delta, and have the same minimum.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import linprog, minimize
from sklearn.datasets import load_breast_cancer, load_diabetes

import fastreg

Array = np.ndarray[Any, np.dtype[np.float64]]
Fits = dict[str, tuple[Array, int, float]]  # weights, calls of loss and gradient, seconds

LOSSES: dict[str, tuple[Callable[..., Any], dict[str, float], dict[str, Any]]] = {
    "L2": (fastreg.mse_loss, {}, {"color": "#c1272d", "linewidth": 2}),
    "L1": (fastreg.l1_loss, {}, {"color": "#0b6e99", "linewidth": 2}),
    "smooth L1": (fastreg.smooth_l1_loss, {"beta": 1.0}, {"color": "#448361", "linewidth": 2, "linestyle": "--"}),
    "Huber": (fastreg.huber_loss, {"delta": 1.345}, {"color": "#d9730d", "linewidth": 2, "linestyle": ":"}),
}
PARTS = np.array([0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2])


def standardised(x: Array) -> Array:
    """A column of ones, and each feature with mean 0 and variance 1."""
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    return np.column_stack([np.ones(len(x)), z])


class Objective:
    """The mean loss of X w against y, and its gradient by w."""

    def __init__(self, name: str, x: Array, y: Array) -> None:
        self.function, self.options, _ = LOSSES[name]
        self.x, self.y, self.calls = x, y, 0
        self.slope = np.empty(len(y))  # for the gradient by the predictions: no call allocates

    def __call__(self, w: Array) -> tuple[float, Array]:
        self.calls += 1
        loss, slope = self.function(self.x @ w, self.y, return_grad=True, out=self.slope, **self.options)
        return loss, slope @ self.x


def fit(name: str, x: Array, y: Array) -> tuple[Array, int]:
    """The weights, and how often loss and gradient were asked for."""
    objective = Objective(name, x, y)
    w = np.zeros(x.shape[1])
    w[0] = np.median(y)
    # |r| has kinks, where a quasi-Newton method stops too early: it is begun again from there, until nothing is gained.
    for _ in range(50):
        before = objective(w)[0]
        w = minimize(objective, w, jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-10}).x
        if before - objective(w)[0] <= 1e-12 * before:
            break
    return w, objective.calls


def spread(x: Array, y: Array) -> float:
    """A scale for residuals that outliers leave alone."""
    w, _ = fit("L1", x, y / y.std())
    return float(1.4826 * np.median(np.abs(y - x @ w * y.std())))


def all_fits(x: Array, y: Array) -> Fits:
    """By each loss, in units of y."""
    scale = spread(x, y)
    found: Fits = {}
    for name in LOSSES:
        start = time.perf_counter()
        w, calls = fit(name, x, y / scale)
        found[name] = w * scale, calls, time.perf_counter() - start
    return found


def least_absolute(x: Array, y: Array) -> float:
    """The least mean |y − X w|, by linear programming: min Σ t with −t <= y − X w <= t."""
    n, d = x.shape
    eye = np.eye(n)
    result = linprog(
        np.r_[np.zeros(d), np.ones(n)],
        A_ub=np.block([[x, -eye], [-x, -eye]]),
        b_ub=np.r_[y, -y],
        bounds=[(None, None)] * d + [(0, None)] * n,
    )
    return float(result.fun / n)


def real() -> tuple[Array, Array]:
    data = load_breast_cancer()
    names = list(data.feature_names)
    x, y = (1000 * data.data[:, names.index(n)] for n in ("mean fractal dimension", "fractal dimension error"))
    return x, y


def injected(part: float, x: Array, y: Array, learn: Any) -> Array:
    """The targets of those learnt from, a part of them misread by a factor of ten: the heaviest patients'."""
    y = y[learn].copy()
    heaviest = np.argsort(-x[learn, 2])[: round(part * len(y))]
    y[heaviest] *= 10
    return y


def draw(x: Array, y: Array, lines: Fits, errors: dict[str, list[float]], file: str) -> None:
    figure = Figure(figsize=(13, 5.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    grid = np.array([x.min(), x.max()])
    centre, width = x.mean(), x.std()
    w = lines["Huber"][0]
    far = np.abs(y - w[0] - w[1] * (x - centre) / width) > 5 * spread(*design(x, y))
    left.scatter(x[~far], y[~far], s=9, color="#9b9a97", alpha=0.7, linewidths=0)
    left.scatter(
        x[far], y[far], s=26, facecolors="none", edgecolors="#37352f", label=f"{far.sum()} beyond five spreads"
    )
    for name, (w, *_) in lines.items():
        label = f"{name}: slope {w[1] / width:.3f}"
        left.plot(grid, w[0] + w[1] * (grid - centre) / width, label=label, **LOSSES[name][2])
    left.set_title("Real outliers: a line through 569 tumours", fontsize=12)
    left.set_xlabel("fractal dimension of the outline, × 1000")
    left.set_ylabel("its standard error, × 1000")
    left.legend(frameon=False, loc="upper left")
    for name, error in errors.items():
        right.plot(100 * PARTS, error, marker="o", markersize=4, label=name, **LOSSES[name][2])
    right.set_title("Injected outliers: error on patients nobody touched", fontsize=12)
    right.set_xlabel("targets misread by a factor of ten, in per cent of those learnt from")
    right.set_ylabel("median error of the predicted progression")
    right.set_xticks(range(0, 21, 5))
    right.set_yscale("log")
    right.set_yticks([30, 50, 100, 200, 500], ["30", "50", "100", "200", "500"])
    right.minorticks_off()
    right.legend(frameon=False, loc="center")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle("What an outlier pulls: fits by four losses of fastreg and SciPy's L-BFGS", fontsize=14)
    figure.savefig(file, dpi=110)


def design(x: Array, y: Array) -> tuple[Array, Array]:
    return standardised(x.reshape(-1, 1)), y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", default="robust_fit.png")
    options = parser.parse_args()

    x, y = real()
    lines = all_fits(*design(x, y))
    print("Real outliers: standard error of the fractal dimension by the dimension itself, × 1000")
    print(f"{'loss':10}  slope  level   mean |r|  median |r|  calls  seconds")
    for name, (w, calls, seconds) in lines.items():
        r = np.abs(y - design(x, y)[0] @ w)
        means = f"{r.mean():8.4f}  {np.median(r):10.4f}"
        print(f"{name:10} {w[1] / x.std():6.3f} {w[0]:6.3f}   {means}  {calls:5}  {seconds:7.3f}")
    least = least_absolute(*design(x, y))
    ours = np.abs(y - design(x, y)[0] @ lines["L1"][0]).mean()
    print(f"least mean |r| by linear programming: {least:.6f}; L1 above it by {ours / least - 1:.1e}\n")

    data = load_diabetes(scaled=False)
    order = np.random.default_rng(0).permutation(len(data.target))
    learn, held_out = order[: 2 * len(order) // 3], order[2 * len(order) // 3 :]
    z = standardised(data.data)
    errors: dict[str, list[float]] = {name: [] for name in LOSSES}
    print("Injected outliers: median error of the predicted progression of diabetes on patients nobody touched")
    print(f"{'misread':>8}  " + "  ".join(f"{name:>9}" for name in LOSSES))
    for part in PARTS:
        fits = all_fits(z[learn], injected(part, z[:, 1:], data.target, learn))
        for name, (w, *_) in fits.items():
            errors[name].append(float(np.median(np.abs(data.target[held_out] - z[held_out] @ w))))
        print(f"{part:8.0%}  " + "  ".join(f"{errors[name][-1]:9.1f}" for name in LOSSES))
    draw(x, y, lines, errors, options.picture)
    print(f"\n{options.picture} drawn")
    if not ours <= least * (1 + 1e-4):
        raise SystemExit(f"the L1 fit is above the least by {ours / least - 1:.1e}")


if __name__ == "__main__":
    main()
