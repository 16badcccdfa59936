"""spaCy's machine-learning library with fastreg underneath: the same model, the same data, two backends.

A network of thinc, three layers with dropout, trained in batches of eight by Adam with clipped gradients, learns
scikit-learn's handwritten digits once with thinc's own NumpyOps and once with FastregOps, which takes over masks, Adam
and clipping. They take turns batch by batch, so that both have the same machine.

    pip install fastreg thinc scikit-learn
    python examples/thinc_ops.py
"""

import time
from statistics import median
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from thinc.api import Adam, Relu, Softmax, chain, fix_random_seed, get_ops, set_current_ops

import fastreg.thinc_ops

HIDDEN, BATCH, EPOCHS, TEST = 1024, 8, 3, 360


def network(ops: str) -> tuple[Any, Any, Any]:
    """The backend, an initialised model of its own, and its optimiser."""
    fix_random_seed(0)
    backend = get_ops(ops)
    set_current_ops(backend)
    model = chain(Relu(HIDDEN, 64, dropout=0.2), Relu(HIDDEN, HIDDEN, dropout=0.2), Softmax(10, HIDDEN))
    model.initialize()
    adam = fastreg.thinc_ops.Adam if ops == "fastreg" else Adam
    return backend, model, adam(0.001, grad_clip=1.0)


def main() -> dict[str, tuple[float, float]]:
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.data))
    x, y = (digits.data[order] / 16).astype(np.float32), np.eye(10, dtype=np.float32)[digits.target[order]]
    networks = {name: network(name) for name in ("numpy", "fastreg")}
    steps: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(EPOCHS):
        for start in range(TEST, len(x), BATCH):
            rows = slice(start, start + BATCH)
            for name, (ops, model, optimiser) in networks.items():
                set_current_ops(ops)
                began = time.perf_counter()
                predicted, backprop = model.begin_update(x[rows])
                backprop((predicted - y[rows]) / len(predicted))
                model.finish_update(optimiser)
                steps[name].append(time.perf_counter() - began)
    results = {}
    for name, (ops, model, _) in networks.items():
        set_current_ops(ops)
        right = float(np.mean(model.predict(x[:TEST]).argmax(axis=1) == y[:TEST].argmax(axis=1)))
        results[name] = median(steps[name]), right
        print(f"{name:8} {median(steps[name]) * 1e3:6.2f} ms a step   {right:.1%} of {TEST} digits right")
    print(f"fastreg's steps take {results['fastreg'][0] / results['numpy'][0]:.2f} of NumpyOps's time")
    return results


if __name__ == "__main__":
    main()
