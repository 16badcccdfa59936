"""``python -m fastreg``: what is installed, whether it works here, and how fast it is. To paste into a bug report."""

import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import fastreg
from fastreg import fastreg_runtime, reference

N = 1 << 20
SECONDS = 6.0


class Call(NamedTuple):
    function: str
    arrays: dict[str, np.ndarray]
    options: dict[str, Any]
    numpy: Callable[..., object]  # the same of the arrays, as one would write it with NumPy, in their dtype
    updated: tuple[str, ...] = ()  # which of the arrays


def calls() -> dict[str, Call]:
    """What is tried, by title."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    def threshold(x: np.ndarray, lam: float = 0.5) -> np.ndarray:
        return np.sign(x) * np.maximum(np.abs(x) - lam, 0)

    def sgd(param: np.ndarray, grad: np.ndarray, momentum_buffer: np.ndarray) -> None:
        momentum_buffer *= 0.9
        momentum_buffer += grad + 1e-4 * param
        param[...] = threshold(param - 0.01 * momentum_buffer, 1e-5)

    def dropout(x: np.ndarray) -> np.ndarray:
        return x * (rng.random(x.shape, np.float32) >= 0.5) * 2

    def batch_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-5) * weight.reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)

    def smooth_l1(input: np.ndarray, target: np.ndarray) -> tuple[Any, np.ndarray]:
        d = input - target
        a = np.abs(d)
        return np.where(a < 1, 0.5 * d * d, a - 0.5).mean(), np.where(a < 1, d, np.sign(d)) / d.size

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    images = {"x": draw(32, 64, 16, 32), "weight": np.ones(64, np.float32), "bias": np.zeros(64, np.float32)}
    step = {"param": draw(N), "grad": draw(N), "momentum_buffer": draw(N)}
    how = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "l1": 1e-3}
    pair = {"input": draw(N), "target": draw(N)}
    return {
        "soft threshold": Call("soft_threshold", {"x": draw(N)}, {"lam": 0.5}, threshold),
        "SGD, momentum, decay, L1": Call("sgd_step", step, how, sgd, ("param", "momentum_buffer")),
        "dropout": Call("dropout", {"x": draw(N)}, {"p": 0.5, "seed": 1}, dropout),
        "batch norm, training": Call("batch_norm", images, {"training": True}, batch_norm),
        "smooth L1 with gradient": Call("smooth_l1_loss", pair, {"return_grad": True}, smooth_l1),
        "softmax of 1,024": Call("softmax", {"x": draw(1024, 1024)}, {}, softmax),
    }


def results(module: ModuleType, call: Call) -> list[np.ndarray]:
    arrays = {name: x.copy() if name in call.updated else x for name, x in call.arrays.items()}
    returned = getattr(module, call.function)(**arrays, **call.options)
    returned = returned if isinstance(returned, tuple) else (returned,)
    return [np.asarray(r) for r in (*returned, *(arrays[name] for name in call.updated)) if r is not None]


def works(call: Call) -> bool:
    """The reference's values to rounding, and the same bits on every instruction set, on one thread and on all."""
    isa, threads = fastreg.show_config(mode="dicts")["isa"], fastreg.get_num_threads()
    wanted, ours = results(reference, call), results(fastreg, call)
    good = all(np.allclose(o, w, rtol=1e-5, atol=1e-5) for o, w in zip(ours, wanted, strict=True))
    try:
        for name in fastreg_runtime.isas_built():
            for n in (1, threads):
                if fastreg_runtime._use_isa(name):
                    fastreg.set_num_threads(n)
                    same = zip(results(fastreg, call), ours, strict=True)
                    good = good and all(a.tobytes() == b.tobytes() for a, b in same)
    finally:
        fastreg_runtime._use_isa(isa)
        fastreg.set_num_threads(threads)
    return good


def seconds(work: Callable[[], object], budget: float) -> float:
    samples: list[float] = []
    until = time.perf_counter() + budget
    while len(samples) < 3 or time.perf_counter() < until:
        start = time.perf_counter()
        work()
        samples.append(time.perf_counter() - start)
    return median(samples)


def show(rows: list[tuple[str, str, str, str, str]], header: tuple[str, str, str, str, str]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(len(row[k]) for row in (header, *rows)) for k in range(5)]
        for row in (header, *rows):
            print(
                "  ".join(
                    cell.ljust(w) if k == 0 else cell.rjust(w)
                    for k, (cell, w) in enumerate(zip(row, widths, strict=True))
                )
            )
        return
    table = Table(*header)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def main() -> int:
    fastreg.show_config()
    print()
    rows, good = [], True
    todo = calls()
    budget = SECONDS / (2 * len(todo))
    for title, call in todo.items():
        fine = works(call)
        good = good and fine
        ours = seconds(partial(getattr(fastreg, call.function), **call.arrays, **call.options), budget)
        theirs = seconds(partial(call.numpy, **call.arrays), budget)
        rows.append(
            (title, "yes" if fine else "NO", f"{ours * 1e3:.2f}", f"{theirs * 1e3:.2f}", f"{theirs / ours:.0f}×")
        )
    show(rows, (f"{N:,} f32 elements", "works", "fastreg, ms", "NumPy, ms", "ratio"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
