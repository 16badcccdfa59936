"""``python -m fastreg``: what is installed, whether it works here, and how fast it is. To paste into a bug report."""

import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np

import fastreg
from fastreg import fastreg_runtime, reference

N = 1 << 20
SECONDS = 6.0


def calls() -> dict[str, tuple[str, dict, dict, tuple[str, ...]]]:
    """By title: the function, its arrays, its other arguments, and which arrays it updates."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    one, zero = np.ones(64, np.float32), np.zeros(64, np.float32)
    images = {"x": draw(32, 64, 16, 32), "weight": one, "bias": zero}
    step = {"param": draw(N), "grad": draw(N), "momentum_buffer": draw(N)}
    sgd = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "l1": 1e-3}
    return {
        "soft threshold": ("soft_threshold", {"x": draw(N)}, {"lam": 0.5}, ()),
        "SGD with momentum, decay, L1": ("sgd_step", step, sgd, ("param", "momentum_buffer")),
        "dropout, p = 0.5": ("dropout", {"x": draw(N)}, {"p": 0.5, "seed": 1}, ()),
        "dropout, p = 0.1": ("dropout", {"x": draw(N)}, {"p": 0.1, "seed": 1}, ()),
        "batch norm, training": ("batch_norm", images, {"training": True}, ()),
        "smooth L1 with gradient": ("smooth_l1_loss", {"input": draw(N), "target": draw(N)}, {"return_grad": True}, ()),
    }


def results(module, call) -> list[np.ndarray]:
    function, arrays, options, updated = call
    arrays = {name: x.copy() if name in updated else x for name, x in arrays.items()}
    returned = getattr(module, function)(**arrays, **options)
    returned = returned if isinstance(returned, tuple) else (returned,)
    return [np.asarray(r) for r in (*returned, *(arrays[name] for name in updated)) if r is not None]


def works(call) -> bool:
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
    samples = []
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
        ours = seconds(lambda call=call: results(fastreg, call), budget)
        theirs = seconds(lambda call=call: results(reference, call), budget)
        rows.append(
            (title, "yes" if fine else "NO", f"{ours * 1e3:.2f}", f"{theirs * 1e3:.2f}", f"{theirs / ours:.0f}×")
        )
    show(rows, (f"{N:,} f32 elements", "works", "fastreg, ms", "reference, ms", "ratio"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
