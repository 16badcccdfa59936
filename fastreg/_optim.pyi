from typing import Any

from numpy.typing import ArrayLike, NDArray

def sgd_step(
    param: NDArray[Any],
    grad: ArrayLike,
    momentum_buffer: NDArray[Any] | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    l1: float = 0.0,
) -> None: ...
