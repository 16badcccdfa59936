"""A logistic regression of four million hashed crosses, of which L1 keeps a few thousand.

Each of the 30 measurements of a tumour (scikit-learn's breast cancer data: 569 real cases) is put into one of ten
buckets, and each pair of measurements is crossed: "radius in bucket 7 and texture in bucket 2" is a feature of its own.
The 465 features of a case are hashed into 2^22 weights, as in ad click prediction, where nobody knows in advance which
crosses will occur, and learned one case at a time by FTRL-Proximal (`fastreg.ftrl_step_sparse`), which touches the
weights of that case and no others. L2 makes the weights small; L1 makes nearly all of them exactly zero, so that what
has to be stored and served is a list of those that are left.

    python examples/crossed_features.py

Accuracies are means over five folds; buckets are cut on the training part of each. The strengths are round numbers, not
tuned. crossed_features.png shows what they cost: accuracy against the number of weights that are left.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedKFold

import fastreg

WEIGHTS = 2**22
BUCKETS, FOLDS, EPOCHS = 10, 5, 5
ENTRY = 4 + 4  # bytes of an index and a weight in a stored model


@dataclass(frozen=True)
class Run:
    name: str
    l1: float = 0.0
    l2: float = 0.0


RUNS = [
    Run("none"),
    *(Run(f"L2 = {l2:g}", l2=l2) for l2 in (100.0, 1000.0)),
    *(Run(f"L1 = {l1:g}", l1=l1) for l1 in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)),
]


def crosses(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(cases, 465) indices: a bucket for each measurement, a cross for each pair of them, hashed."""
    bucket = np.stack([np.searchsorted(e, column) for e, column in zip(edges, x.T, strict=True)], axis=1)
    name = (np.arange(x.shape[1]) * BUCKETS + bucket).astype(np.uint64)
    first, second = np.triu_indices(x.shape[1], k=1)
    key = np.concatenate([name, (name[:, first] + np.uint64(1)) << np.uint64(32) | name[:, second]], axis=1)
    # The finaliser of splitmix64 (Steele, Lea, Flood 2014): every bit of the key decides on every bit of the index.
    key = (key ^ key >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ key >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return ((key ^ key >> np.uint64(31)) % np.uint64(WEIGHTS)).astype(np.int64)


def learn(indices: np.ndarray, target: np.ndarray, run: Run, seed: int) -> np.ndarray:
    """Weights after EPOCHS passes over the cases, in an order of their own, one case at a time."""
    w, z, n = (np.zeros(WEIGHTS, np.float32) for _ in range(3))
    rng = np.random.default_rng(seed)
    for _ in range(EPOCHS):
        for case in rng.permutation(len(target)):
            k = indices[case]
            probability = fastreg.sigmoid(w[k].sum())
            grad = np.full(k.size, probability - target[case], np.float32)
            fastreg.ftrl_step_sparse(w, k, grad, z, n, alpha=0.05, beta=1.0, l1=run.l1, l2=run.l2)
    return w


def accuracy(w: np.ndarray, indices: np.ndarray, target: np.ndarray) -> float:
    return float(np.mean((w[indices].sum(axis=1) > 0) == target))


def draw(results: list[tuple[Run, np.ndarray, float]], file: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.4), layout="constrained")
    ax = figure.subplots()
    for kind, colour in (("L1", "#0072b2"), ("L2", "#d55e00"), ("none", "#555555")):
        of = [result for result in results if result[0].name.startswith(kind)]
        kept = [kept for _, _, kept in of]
        mean = [100 * scores.mean() for _, scores, _ in of]
        error = [100 * scores.std() / np.sqrt(max(len(scores) - 1, 1)) for _, scores, _ in of]
        ax.errorbar(kept, mean, error, fmt="o-" if kind == "L1" else "o", color=colour, lw=1.6, elinewidth=0.7)
        for (run, _, _), x, y in zip(of, kept, mean, strict=True):
            # All but L1 keep every weight they saw: their points stand above each other.
            place = (5, -13) if kind == "L1" else (9, -3)
            ax.annotate(run.name, (x, y), xytext=place, textcoords="offset points", color=colour, fontsize=9)
    ax.set_title(f"What is left of {WEIGHTS:,} hashed crosses of 569 tumours (bars: one standard error of five folds)")
    ax.set_xscale("log")
    ax.set_xlim(right=2.5 * max(kept for _, _, kept in results))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlabel("weights that are not zero")
    ax.set_ylabel("cases told right that were held out, %")
    size = ax.secondary_xaxis("top", functions=(lambda n: n * ENTRY / 1024, lambda kib: kib * 1024 / ENTRY))
    size.xaxis.set_major_formatter("{x:g}")
    size.set_xlabel("stored, KiB")
    ax.spines["right"].set_visible(False)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folds", type=int, default=FOLDS, help="how many of the five folds to run")
    parser.add_argument("--picture", default="crossed_features.png")
    options = parser.parse_args()

    x, target = load_breast_cancer(return_X_y=True)
    print(f"{len(x)} cases, {x.shape[1]} measurements in {BUCKETS} buckets, all pairs crossed: {WEIGHTS:,} weights\n")
    print(f"{'penalty':<12}{'train':>8}{'test':>8}{'weights != 0':>14}{'stored':>12}{'a step':>10}")
    split = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, target))[: options.folds]
    results = []
    for run in RUNS:
        rows = []
        for seed, (train, test) in enumerate(split):
            edges = np.quantile(x[train], np.linspace(0, 1, BUCKETS + 1)[1:-1], axis=0).T
            features = crosses(x, edges)
            start = time.perf_counter()
            w = learn(features[train], target[train], run, seed)
            seconds = (time.perf_counter() - start) / (EPOCHS * len(train))
            scores = [accuracy(w, features[part], target[part]) for part in (train, test)]
            rows.append([*scores, float(np.count_nonzero(w)), seconds])
        train_score, test_score, kept, seconds = np.mean(rows, axis=0)
        results.append((run, np.array([row[1] for row in rows]), float(kept)))
        stored = f"{kept * ENTRY / 1024:.1f} KiB"
        print(f"{run.name:<12}{train_score:>8.1%}{test_score:>8.1%}{kept:>14,.0f}{stored:>12}{seconds * 1e6:>7.0f} µs")
    print(f"\nAll {WEIGHTS:,} weights would take {WEIGHTS * 4 >> 20} MiB; a step is predict, gradient and update.")
    draw(results, options.picture)
    print(f"{options.picture}: accuracy against the size of the model")


if __name__ == "__main__":
    main()
