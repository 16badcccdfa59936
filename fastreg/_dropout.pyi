from typing import Any, Literal, overload

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
@overload
def dropout_mask(
    shape: int | tuple[int, ...],
    p: float = 0.5,
    *,
    seed: int,
    offset: int = 0,
    axis: int | tuple[int, ...] | None = None,
    packed: Literal[False] = False,
    start: int = 0,
) -> NDArray[np.bool_]: ...
@overload
def dropout_mask(
    shape: int | tuple[int, ...],
    p: float = 0.5,
    *,
    seed: int,
    offset: int = 0,
    axis: int | tuple[int, ...] | None = None,
    packed: Literal[True],
    start: int = 0,
) -> NDArray[np.uint8]: ...
@overload
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
def dropconnect(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    p: float = 0.5,
    *,
    seed: int,
    offset: int = 0,
    training: bool = True,
) -> NDArray[Any]: ...
def dropconnect_backward(
    grad: ArrayLike, x: ArrayLike, weight: ArrayLike, p: float = 0.5, *, seed: int, offset: int = 0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]: ...
