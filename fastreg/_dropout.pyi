from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

def dropout(
    x: ArrayLike,
    p: float = 0.5,
    *,
    seed: int,
    offset: int = 0,
    training: bool = True,
    mode: Literal["inverted", "vanilla"] = "inverted",
    axis: int | tuple[int, ...] | None = None,
    start: int = 0,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
def dropout_backward(
    grad: ArrayLike,
    p: float = 0.5,
    *,
    seed: int,
    offset: int = 0,
    training: bool = True,
    mode: Literal["inverted", "vanilla"] = "inverted",
    axis: int | tuple[int, ...] | None = None,
    start: int = 0,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
def dropout_mask(
    shape: int | tuple[int, ...],
    p: float = 0.5,
    *,
    seed: int,
    offset: int = 0,
    axis: int | tuple[int, ...] | None = None,
    packed: bool = False,
    start: int = 0,
) -> NDArray[np.bool_] | NDArray[np.uint8]: ...
