from typing import Any

from numpy.typing import ArrayLike, NDArray

def soft_threshold(x: ArrayLike, lam: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]: ...
