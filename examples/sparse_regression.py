"""Which of 64 features does each penalty keep?

scikit-learn's diabetes data has ten measurements of 442 patients and a number for how the disease progressed in the
next year. With all products of two measurements there are 64 features, many of them correlated, of which a few matter.
Six penalties choose, each for forty strengths, by proximal gradient on

    ‖y − Xw‖²/(2n) + penalty(w)

with nothing but `penalty.prox` of fastreg.penalties between one and the next.

    python examples/sparse_regression.py          tables here, a picture in sparse_regression.png

The strength marked in each panel is the one with the least error on a third of the patients who were not learnt from.
Where scikit-learn solves the same problem, the two objectives are compared; and the lasso is solved once more as its
constrained twin, ‖w‖₁ ≤ r, by `project_l1_ball`: Lagrange says that the points are the same.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet, Lasso, Ridge
from sklearn.preprocessing import PolynomialFeatures

import fastreg
from fastreg import penalties

SIZES = np.logspace(0, -3, 40)  # strengths, as parts of the one from which on the lasso keeps nothing
COLOURS = {"bmi": "#c1272d", "bp": "#0b6e99", "s5": "#d9730d", "sex": "#448361", "s3": "#6940a5", "age": "#ad1a72"}
QUIET = "#bdbdbd"

Prox = Callable[[np.ndarray, float], np.ndarray]
Make = Callable[[float], penalties.Penalty]
Solve = Callable[["Quadratic", Prox, np.ndarray], np.ndarray]


def data() -> tuple[np.ndarray, list[str], np.ndarray]:
    """Standardised features, their names, centred targets; the sex squared is the sex again and left out."""
    raw = load_diabetes(scaled=False)
    z = (raw.data - raw.data.mean(axis=0)) / raw.data.std(axis=0)
    products = PolynomialFeatures(2, include_bias=False).fit(z)
    names = [n.replace(" ", "·").replace("^2", "²") for n in products.get_feature_names_out(raw.feature_names)]
    keep = [k for k, name in enumerate(names) if name != "sex²"]
    x = products.transform(z)[:, keep]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return x, [names[k] for k in keep], raw.target - raw.target.mean()


def groups_of(names: list[str]) -> np.ndarray:
    """A measurement and its square belong together; a product of two is on its own."""
    labels: dict[str, int] = {}
    return np.array([labels.setdefault(name.rstrip("²"), len(labels)) for name in names])


class Quadratic:
    """‖y − Xw‖²/(2n): value, gradient, and the largest step for which a gradient step cannot overshoot."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y
        self.gram, self.correlation = x.T @ x / len(y), x.T @ y / len(y)
        self.step = 1 / np.linalg.eigvalsh(self.gram)[-1]

    def __call__(self, w: np.ndarray) -> float:
        return np.sum((self.y - self.x @ w) ** 2) / (2 * len(self.y))

    def grad(self, w: np.ndarray) -> np.ndarray:
        return self.gram @ w - self.correlation


def fista(smooth: Quadratic, prox: Prox, w: np.ndarray, tolerance: float = 1e-10, most: int = 200_000) -> np.ndarray:
    """Beck and Teboulle 2009, starting its momentum anew where that points uphill (O'Donoghue and Candès 2015)."""
    v, t = w, 1.0
    for _ in range(most):
        last, w = w, prox(v - smooth.step * smooth.grad(v), smooth.step)
        if np.abs(w - v).max() <= tolerance * smooth.step * np.abs(smooth.correlation).max():
            break
        if (v - w) @ (w - last) > 0:
            v, t = w, 1.0
        else:
            t, before = 0.5 * (1 + np.sqrt(1 + 4 * t * t)), t
            v = w + (before - 1) / t * (w - last)
    return w


def proximal_gradient(
    smooth: Quadratic, prox: Prox, w: np.ndarray, tolerance: float = 1e-10, most: int = 20_000
) -> np.ndarray:
    """For penalties that are not convex: each step lowers the objective, to a local minimum."""
    for _ in range(most):
        last, w = w, prox(w - smooth.step * smooth.grad(w), smooth.step)
        if np.abs(w - last).max() <= tolerance * np.abs(w).max():
            break
    return w


def panels(names: list[str], top: float) -> tuple[tuple[str, Make, Solve], ...]:
    """Title, penalty by strength, solver. L0's lam is in units of the objective: dropping w costs about ½w²."""
    groups = groups_of(names)
    sizes = np.sqrt(np.bincount(groups))
    return (
        ("ridge: everything, a little", lambda s: penalties.L2(10 * s), fista),
        ("lasso: some, all biased towards zero", lambda s: penalties.L1(s * top), fista),
        ("elastic net: correlated ones together", lambda s: penalties.ElasticNet.from_alpha(2 * s * top, 0.5), fista),
        ("group lasso: x with x²", lambda s: penalties.GroupLasso(s * top, groups, weights=sizes), fista),
        ("MCP: few, and unbiased", lambda s: penalties.MCP(s * top, 3.0), proximal_gradient),
        ("L0: in or out", lambda s: penalties.L0(s * s * top * top / 2), proximal_gradient),
    )


def path(make: Make, solve: Solve, smooth: Quadratic) -> np.ndarray:
    """Minimisers from the strongest penalty to the weakest, each the start of the next."""
    w, found = np.zeros(smooth.x.shape[1]), []
    for size in SIZES:
        w = solve(smooth, make(size).prox, w)
        found.append(w)
    return np.array(found)


def compare(smooth: Quadratic, top: float) -> Iterator[tuple[str, penalties.Penalty, Any]]:
    """The objectives of scikit-learn's solvers, at its own definitions of the strength."""
    n = len(smooth.y)
    for size in (0.3, 0.1, 0.03, 0.01):
        lam = size * top
        exact = {"fit_intercept": False, "tol": 1e-14, "max_iter": 1_000_000}
        yield from (
            (f"Lasso(alpha={lam:.3f})", penalties.L1(lam), Lasso(alpha=lam, **exact)),
            (
                f"ElasticNet(alpha={lam:.3f}, l1_ratio=0.5)",
                penalties.ElasticNet.from_alpha(lam, 0.5),
                ElasticNet(alpha=lam, l1_ratio=0.5, **exact),
            ),
            # Its objective is 2n times ours: ‖y − Xw‖² + alpha·‖w‖².
            (f"Ridge(alpha={n * lam:.1f})", penalties.L2(lam), Ridge(alpha=n * lam, fit_intercept=False, solver="svd")),
        )


def into_ball(radius: float, w: np.ndarray, step: float) -> np.ndarray:
    """A projection takes no step: the set has no strength."""
    return fastreg.project_l1_ball(w, radius)


def draw(results: list[tuple[str, np.ndarray, int, float]], names: list[str], file: str) -> None:
    figure = Figure(figsize=(13, 8.2), layout="constrained")
    figure.suptitle("What six penalties keep of 64 features: weights as the penalty weakens", fontsize=15)
    for ax, (title, ws, best, error) in zip(figure.subplots(2, 3).flat, results, strict=True):
        kept = np.flatnonzero(ws[best])
        loud = kept[np.argsort(-np.abs(ws[best][kept]))][:6]
        for k in range(len(names)):
            first = names[k].split("·")[0].rstrip("²")
            colour = COLOURS.get(first, "#555555") if k in loud else QUIET
            ax.plot(
                SIZES,
                ws[:, k],
                color=colour,
                lw=1.8 if k in loud else 0.7,
                zorder=2 if k in loud else 1,
                ls="--" if "·" in names[k] else ":" if "²" in names[k] else "-",
            )
        # Labels at the marked strength's height, moved apart where they would meet.
        span = np.ptp(ws) or 1
        heights: dict[int, float] = {}
        for k in sorted(loud, key=lambda k: ws[-1, k]):
            height = ws[-1, k]
            if heights:
                height = max(height, max(heights.values()) + 0.055 * span)
            heights[k] = height
        for k, height in heights.items():
            colour = COLOURS.get(names[k].split("·")[0].rstrip("²"), "#555555")
            ax.annotate(
                names[k],
                (SIZES[-1], ws[-1, k]),
                (SIZES[-1] * 0.78, height),
                color=colour,
                fontsize=9,
                va="center",
                annotation_clip=False,
            )
        ax.axvline(SIZES[best], color="black", lw=0.8, alpha=0.6)
        ax.axhline(0, color="black", lw=0.5)
        ax.set_title(
            f"{title}\n{kept.size} kept at the line, explaining {1 - error:.0%} of what was held out", fontsize=10.5
        )
        ax.set_xscale("log")
        ax.set_xlim(1, SIZES[-1] * 0.38)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xlabel("strength, relative", fontsize=9)
        ax.tick_params(labelsize=8)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", default="sparse_regression.png")
    options = parser.parse_args()
    x, names, y = data()
    order = np.random.default_rng(0).permutation(len(y))
    learn, held_out = order[: 2 * len(y) // 3], order[2 * len(y) // 3 :]
    smooth = Quadratic(x[learn], y[learn])
    top = np.abs(smooth.correlation).max()

    results = []
    print(f"{'':40} kept  error  seconds  the largest of those kept")
    for title, make, solve in panels(names, top):
        start = time.perf_counter()
        ws = path(make, solve, smooth)
        seconds = time.perf_counter() - start
        errors = np.mean((y[held_out] - ws @ x[held_out].T) ** 2, axis=1) / np.var(y[held_out])
        best = int(np.argmin(errors))
        results.append((title, ws, best, errors[best]))
        kept = np.flatnonzero(ws[best])
        largest = [names[k] for k in kept[np.argsort(-np.abs(ws[best][kept]))][:7]]
        print(f"{title:40} {kept.size:4}  {errors[best]:.3f}  {seconds:7.2f}  {', '.join(largest)}")

    whole = Quadratic(x, y)
    top = np.abs(whole.correlation).max()
    print(f"\n{'scikit-learn solves the same':45} its objective      ours less its own, relative")
    worst = 0.0
    for name, penalty, theirs in compare(whole, top):
        ours = fista(whole, penalty.prox, np.zeros(x.shape[1]))
        its = theirs.fit(x, y).coef_
        objective = whole(its) + penalty(its)
        difference = (whole(ours) + penalty(ours) - objective) / objective
        worst = max(worst, abs(difference))
        print(f"{name:45} {objective:.10f}  {difference:+.1e}")

    print("\nThe lasso as its constrained twin, ‖w‖₁ ≤ r with r that of the lasso's answer")
    for size in (0.3, 0.1, 0.03):
        w = fista(whole, penalties.L1(size * top).prox, np.zeros(x.shape[1]))
        radius = np.abs(w).sum()
        twin = fista(whole, partial(into_ball, radius), np.zeros(x.shape[1]))
        apart = np.abs(w - twin).max()
        print(
            f"lam = {size * top:6.3f}   r = {radius:8.4f}   {np.count_nonzero(w):2} kept by both: "
            f"{np.array_equal(w != 0, twin != 0)}   largest difference of a weight {apart:.1e}"
        )
        worst = max(worst, abs(whole(w) - whole(twin)) / whole(w))
    draw(results, names, options.picture)
    print(f"\n{options.picture} drawn")
    if worst > 1e-9:
        raise SystemExit(f"the objectives differ by {worst:.1e}, more than 1e-9")


if __name__ == "__main__":
    main()
