from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike, NDArray
from typing_extensions import disjoint_base

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
def adam_step(
    param: NDArray[Any],
    grad: ArrayLike,
    exp_avg: NDArray[Any],
    exp_avg_sq: NDArray[Any],
    step: int,
    *,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    l1: float = 0.0,
) -> None: ...
def adagrad_step(
    param: NDArray[Any],
    grad: ArrayLike,
    sum_sq: NDArray[Any],
    *,
    lr: float = 1e-2,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    l1: float = 0.0,
) -> None: ...
def rmsprop_step(
    param: NDArray[Any],
    grad: ArrayLike,
    square_avg: NDArray[Any],
    momentum_buffer: NDArray[Any] | None = None,
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    l1: float = 0.0,
) -> None: ...
def ftrl_step(
    param: NDArray[Any],
    grad: ArrayLike,
    z: NDArray[Any],
    n: NDArray[Any],
    *,
    alpha: float = 0.1,
    beta: float = 1.0,
    l1: float = 0.0,
    l2: float = 0.0,
) -> None: ...
def ftrl_step_sparse(
    param: NDArray[Any],
    indices: ArrayLike,
    grad: ArrayLike,
    z: NDArray[Any],
    n: NDArray[Any],
    *,
    alpha: float = 0.1,
    beta: float = 1.0,
    l1: float = 0.0,
    l2: float = 0.0,
) -> None: ...
def ftrl_init_z(
    param: ArrayLike,
    n: ArrayLike | None = None,
    *,
    alpha: float = 0.1,
    beta: float = 1.0,
    l1: float = 0.0,
    l2: float = 0.0,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
def clip_grad_norm_(grads: Sequence[NDArray[Any]], max_norm: float, *, error_if_nonfinite: bool = False) -> float: ...
def zeros_like_each(params: list[NDArray[Any]]) -> list[NDArray[Any]]: ...

RULES: tuple[str, ...]

@disjoint_base
class Steps:
    params: list[NDArray[Any]]
    state: list[list[Any]]  # arrays, or None
    lock: Any
    count: int
    def __init__(self, rule: str, params: list[NDArray[Any]]) -> None: ...
    def check(self, group: dict[str, Any]) -> None: ...
    def step(self, groups: list[dict[str, Any]], sizes: list[int], grads: Any, skip_nonfinite: bool) -> bool: ...
