from typing import Any, Literal

from numpy.typing import ArrayLike, NDArray

def cdist(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    metric: Literal["euclidean", "sqeuclidean", "manhattan", "chebyshev", "minkowski", "cosine", "dot"] = "euclidean",
    p: float = 2,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
def cosine_similarity(x: ArrayLike, y: ArrayLike, *, axis: int = -1, eps: float = 1e-8) -> Any: ...
def norm(
    x: ArrayLike,
    p: float | Literal["fro", "nuc"] = 2,
    *,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> Any: ...
def normalize(
    x: ArrayLike, p: float = 2, *, axis: int = -1, eps: float = 1e-12, out: NDArray[Any] | None = None
) -> NDArray[Any]: ...
def normalize_backward(
    grad: ArrayLike, x: ArrayLike, p: float = 2, *, axis: int = -1, eps: float = 1e-12
) -> NDArray[Any]: ...
