from typing import Any, Literal

from numpy.typing import ArrayLike, NDArray

def batch_norm(
    x: ArrayLike,
    running_mean: ArrayLike | None = None,
    running_var: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    axis: int = 1,
    activation: Literal["relu"] | None = None,
    out: NDArray[Any] | None = None,
    return_stats: bool = False,
) -> Any: ...
def batch_norm_backward(
    grad: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    rstd: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    bias: ArrayLike | None = None,
    axis: int = 1,
    activation: Literal["relu"] | None = None,
    training: bool = True,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]: ...
