"""Batch normalisation of one batch that lies in two processes, by the statistics of all of it.

Each process has half of the rows. It sends count, mean and variance of its half, a few hundred bytes, merges them with
what it receives, and normalises its rows. The two halves together are what one process makes of the whole batch.
"""

import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

import fastreg

SHAPE = (64, 16, 14, 14)


def batch() -> np.ndarray:
    return np.random.default_rng(0).normal(5.0, 2.0, SHAPE).astype(np.float32)


def half(rows: slice, pipe: Connection, results: Any) -> None:
    """What runs in each process; `pipe` leads to the other one. The two lines in the middle are the recipe."""
    x = batch()[rows]

    mine = fastreg.batch_norm_stats(x)
    pipe.send(mine)
    _, mean, var = fastreg.merge_stats(mine, pipe.recv())
    y = fastreg.batch_norm(x, mean, var)

    results.put((rows.start, y))


def main() -> tuple[np.ndarray, np.ndarray]:
    spawn = multiprocessing.get_context("spawn")
    ends, results = spawn.Pipe(), spawn.Queue()
    halves = slice(0, SHAPE[0] // 2), slice(SHAPE[0] // 2, SHAPE[0])
    workers = [spawn.Process(target=half, args=(rows, end, results)) for rows, end in zip(halves, ends, strict=True)]
    for worker in workers:
        worker.start()
    parts = dict(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()

    y = np.concatenate([parts[start] for start in sorted(parts)])
    whole = fastreg.batch_norm(batch(), training=True)
    print(f"two processes: {np.abs(y - whole).max():.1e} from one process; mean {y.mean():.0e}, std {y.std():.6f}")
    return y, whole


if __name__ == "__main__":
    main()
