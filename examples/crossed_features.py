"""A logistic regression of four million hashed crosses, of which L1 keeps a few thousand.

Each of the 30 measurements of a tumour (scikit-learn's breast cancer data: 569 real cases) is put into one of ten
buckets, and each pair of measurements is crossed: "radius in bucket 7 and texture in bucket 2" is a feature of its own.
The 465 features of a case are hashed into 2^22 weights, as in ad click prediction, where nobody knows in advance which
crosses will occur, and learned one case at a time by FTRL-Proximal (`fastreg.ftrl_step_sparse`), which touches the
weights of that case and no others. L2 makes the weights small; L1 makes nearly all of them exactly zero, so that what
has to be stored and served is a list of those that are left.

    python examples/crossed_features.py

Accuracies are means over five folds; buckets are cut on the training part of each. The strengths are round numbers, not
tuned.
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


RUNS = [Run("none"), Run("L2", l2=30.0), Run("L1", l1=1.0), Run("L1, more", l1=3.0), Run("L1 and L2", l1=1.0, l2=30.0)]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folds", type=int, default=FOLDS, help="how many of the five folds to run")
    folds = parser.parse_args().folds

    x, target = load_breast_cancer(return_X_y=True)
    print(f"{len(x)} cases, {x.shape[1]} measurements in {BUCKETS} buckets, all pairs crossed: {WEIGHTS:,} weights\n")
    print(f"{'penalty':<12}{'train':>8}{'test':>8}{'weights != 0':>14}{'stored':>12}{'a step':>10}")
    split = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, target))[:folds]
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
        stored = f"{kept * ENTRY / 1024:.1f} KiB"
        print(f"{run.name:<12}{train_score:>8.1%}{test_score:>8.1%}{kept:>14,.0f}{stored:>12}{seconds * 1e6:>7.0f} µs")
    print(f"\nAll {WEIGHTS:,} weights would take {WEIGHTS * 4 >> 20} MiB; a step is predict, gradient and update.")


if __name__ == "__main__":
    main()
