"""Fifty steps of each optimiser with every option that it shares with torch.optim: what tests/peers runs beside torch
itself, and test_optim_objects.py beside what tests/peers/record_torch_optim.py wrote down of it."""

import numpy as np

SHARED = {
    "SGD": [
        {"lr": 0.1},
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.5},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"lr": 0.1, "momentum": 0.5, "dampening": 0.2, "weight_decay": 0.1},
        {"lr": 0.1, "weight_decay": 0.3},
    ],
    "Adam": [
        {},
        {"lr": 0.1, "weight_decay": 0.1},
        {"betas": (0.5, 0.9), "eps": 1e-2},
        {"betas": (0.0, 0.0)},
        {"lr": 0.1, "eps": 0.0},
    ],
    "AdamW": [{}, {"lr": 0.1, "weight_decay": 0.5}, {"weight_decay": 0.0}],
    "Adagrad": [
        {},
        {"lr": 0.5, "lr_decay": 0.3, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3},
    ],
    "RMSprop": [
        {},
        {"lr": 0.1, "alpha": 0.5, "eps": 1e-2, "weight_decay": 0.1},
        {"momentum": 0.9},
        {"lr": 0.1, "momentum": 0.5, "alpha": 0.9, "weight_decay": 0.1, "eps": 1e-4},
    ],
}
RUNS = [(name, options) for name, all_ in SHARED.items() for options in all_]
SHAPES = [(7,), (3, 5), (2, 3, 4), (), (1,), (0, 2)]
STEPS, CHANGE, LATER_LR = 50, 20, 0.02  # lr changes after that many steps


def tensors(seed):
    """Numbers in [−2, 2), from a stream that NumPy promises not to change."""
    raw = np.random.PCG64(seed).random_raw(sum(int(np.prod(shape)) for shape in SHAPES))
    numbers = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-51 - 2.0
    cuts = np.cumsum([int(np.prod(shape)) for shape in SHAPES])[:-1]
    return [part.reshape(shape).copy() for part, shape in zip(np.split(numbers, cuts), SHAPES, strict=True)]


def run(params, step, groups):
    """`step(grads)` fifty times, which updates `params`; yields them after the first step and after the last."""
    for k in range(1, STEPS + 1):
        step(tensors(k))
        if k == CHANGE:
            groups[0]["lr"] = LATER_LR
        if k in (1, STEPS):
            yield np.concatenate([np.ravel(p) for p in params])
