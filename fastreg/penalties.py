"""Penalties as objects: a value, a subgradient and a proximal operator with the weights filled in.

>>> import numpy as np
>>> from fastreg.penalties import L1, L2
>>> penalty = L1(0.5) + L2(0.1)
>>> w = np.array([1.0, 0.0, -2.0])
>>> penalty(w)
1.75
>>> penalty.prox(w, 1.0)
array([ 0.45454545,  0.        , -1.36363636])

`prox(w, step)` is argmin_z step·penalty(z) + ½‖z − w‖², the arithmetic of the function of the same name; a loop that
takes PyProximal's operators takes these: `penalty(x)`, `penalty.grad(x)`, `penalty.prox(x, tau)`, `penalty.proxdual`.

Weights are per feature where a penalty is elementwise: an array that broadcasts to w. Weight matrices are arrays of any
shape; only `Nuclear` needs two dimensions and `TV1D` one.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastreg._prox import (
    prox_elastic_net,
    prox_group_lasso,
    prox_l0,
    prox_l1,
    prox_l2,
    prox_linf,
    prox_mcp,
    prox_nuclear,
    prox_scad,
    prox_sparse_group_lasso,
    prox_sq_l2,
    prox_tv1d,
)

__all__ = [
    "L0",
    "L1",
    "L2",
    "MCP",
    "SCAD",
    "TV1D",
    "ElasticNet",
    "Frobenius",
    "GroupLasso",
    "LInf",
    "Nuclear",
    "Penalty",
    "SparseGroupLasso",
]


def _weight(value: Any, name: str, scalar: bool = False) -> Any:
    """A weight >= 0, as a float, or as an array of its own that nobody else can change."""
    array = np.array(value, dtype=np.float64)
    if scalar and array.ndim:
        raise TypeError(f"{name}: got an array of shape {array.shape}; a real number is needed")
    if not np.all(array >= 0):
        raise ValueError(f"{name}: got {value}; numbers >= 0 are allowed")
    array.flags.writeable = False
    return array if array.ndim else float(array)


def _doubles(w: Any) -> np.ndarray:
    return np.asarray(w, dtype=np.float64)


def _times(weight: Any, x: np.ndarray) -> np.ndarray:
    """weight·x where an infinite weight of 0 is 0."""
    with np.errstate(invalid="ignore"):
        return np.where(x == 0, 0.0, weight * x)


class Penalty:
    """What every penalty has. A subclass names its parameters in `_parameters` and stores each under its name.

    Attributes
    ----------
    hasgrad : bool
        Whether `grad` is a gradient everywhere, rather than a subgradient.
    """

    hasgrad = False
    _parameters: tuple[str, ...] = ()

    def __call__(self, w: Any) -> float:
        """The value at w, in double precision."""
        return float(self._value(_doubles(w)))

    def grad(self, w: Any, *, out: np.ndarray | None = None) -> np.ndarray:
        """A subgradient at w: 0 at a kink where 0 is one.

        Parameters
        ----------
        w : array_like
        out : ndarray, optional
            Where to put it; it may be w itself.

        Returns
        -------
        ndarray
            Shape of w; float32 for float32.
        """
        x = np.asarray(w)
        dtype = np.float32 if x.dtype.type in (np.float16, np.float32) else np.float64
        result = self._subgradient(_doubles(x)).astype(dtype, copy=False)
        if out is None:
            return result
        np.copyto(out, result)
        return out

    def prox(self, w: Any, step: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        """argmin_z step·penalty(z) + ½‖z − w‖².

        Parameters
        ----------
        w : array_like
        step : float
            τ, finite and >= 0.
        out : ndarray, optional
            Where to put it; it may be w itself.

        Returns
        -------
        ndarray
            Shape of w.
        """
        raise NotImplementedError

    def proxdual(self, w: Any, step: float = 1.0) -> np.ndarray:
        """The proximal operator of the convex conjugate, by Moreau: w − step·prox(w/step, 1/step)."""
        w = np.asarray(w)
        return w - step * self.prox(w / step, 1.0 / step)

    def _value(self, w: np.ndarray) -> Any:
        raise NotImplementedError

    def _subgradient(self, w: np.ndarray) -> Any:
        raise NotImplementedError

    def _terms(self) -> "Iterator[Penalty]":
        """The terms of a sum: this one, unless it is itself a sum of simpler ones."""
        yield self

    def __add__(self, other: "Penalty") -> "Penalty":
        return _Sum((self, other)) if isinstance(other, Penalty) else NotImplemented

    def __repr__(self) -> str:
        given = {name: getattr(self, name) for name in self._parameters}
        shown = (f"{k}={v.tolist() if isinstance(v, np.ndarray) else v!r}" for k, v in given.items() if v is not None)
        return f"{type(self).__name__}({', '.join(shown)})".replace("=inf", "=float('inf')")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(bool(np.array_equal(getattr(self, name), getattr(other, name))) for name in self._parameters)

    __hash__ = None  # type: ignore[assignment]


# ---- elementwise -------------------------------------------------------------------------------------------------


class L0(Penalty):
    """lam·‖w‖₀: a price for each nonzero. Not convex, and without a useful gradient: use `prox`.

    >>> import numpy as np
    >>> from fastreg.penalties import L0
    >>> L0(2.0).prox(np.array([3.0, 1.0]))
    array([3., 0.])
    """

    _parameters = ("lam",)

    def __init__(self, lam: Any) -> None:
        self.lam = _weight(lam, "lam")

    def _value(self, w: np.ndarray) -> Any:
        return np.sum(np.where(np.isnan(w), w, _times(self.lam, np.asarray(w != 0, np.float64))))

    def grad(self, w: Any, *, out: np.ndarray | None = None) -> np.ndarray:
        raise TypeError("L0 has no gradient: it is constant wherever it is continuous, and jumps at 0; use prox")

    def prox(self, w: Any, step: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        return prox_l0(w, self.lam, step, out=out)


class L1(Penalty):
    """lam·‖w‖₁, the lasso's penalty: exact zeros, by `prox`.

    >>> import numpy as np
    >>> from fastreg.penalties import L1
    >>> L1(1.0).prox(np.array([3.0, -0.5]))
    array([2., 0.])
    """

    _parameters = ("lam",)

    def __init__(self, lam: Any) -> None:
        self.lam = _weight(lam, "lam")

    def _value(self, w: np.ndarray) -> Any:
        return np.sum(_times(self.lam, np.abs(w)))

    def _subgradient(self, w: np.ndarray) -> Any:
        return _times(self.lam, np.sign(w))

    def prox(self, w: Any, step: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        return prox_l1(w, self.lam, step, out=out)


class L2(Penalty):
    """½·lam·‖w‖², the ridge penalty: its gradient is lam·w, which is weight decay.

    >>> import numpy as np
    >>> from fastreg.penalties import L2
    >>> L2(1.0).prox(np.array([3.0, -0.5]))
    array([ 1.5 , -0.25])
    """

    hasgrad = True
    _parameters = ("lam",)

    def __init__(self, lam: Any) -> None:
        self.lam = _weight(lam, "lam")

    def _value(self, w: np.ndarray) -> Any:
        return 0.5 * np.sum(_times(self.lam, w * w))

    def _subgradient(self, w: np.ndarray) -> Any:
        return _times(self.lam, w)

    def prox(self, w: Any, step: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        return prox_sq_l2(w, self.lam, step, out=out)


class ElasticNet(Penalty):
    """l1·‖w‖₁ + ½·l2·‖w‖².

    >>> from fastreg.penalties import ElasticNet
    >>> ElasticNet.from_alpha(2.0, l1_ratio=0.25)
    ElasticNet(l1=0.5, l2=1.5)
    """

    _parameters = ("l1", "l2")

    def __init__(self, l1: Any, l2: Any) -> None:
        self.l1, self.l2 = _weight(l1, "l1"), _weight(l2, "l2")

    @classmethod
    def from_alpha(cls, alpha: float, l1_ratio: float) -> "ElasticNet":
        """From scikit-learn's parameters; glmnet calls them lambda and alpha.

        Parameters
        ----------
        alpha : float
            The strength of both, >= 0.
        l1_ratio : float
            The share of L1, in [0, 1].
        """
        if not 0 <= l1_ratio <= 1:
            raise ValueError(f"l1_ratio: got {l1_ratio}; a number in [0, 1] is allowed")
        alpha = _weight(alpha, "alpha")
        return cls(alpha * l1_ratio, alpha * (1 - l1_ratio))

    def _terms(self) -> "Iterator[Penalty]":
        yield L1(self.l1)
        yield L2(self.l2)

    def _value(self, w: np.ndarray) -> Any:
        return sum(term._value(w) for term in self._terms())

    def _subgradient(self, w: np.ndarray) -> Any:
        return sum(term._subgradient(w) for term in self._terms())

    def prox(self, w: Any, step: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        return prox_elastic_net(w, self.l1, self.l2, step, out=out)


class MCP(Penalty):
    """The minimax concave penalty, see `fastreg.prox_mcp`: sparse, and without bias on large weights.

    >>> import numpy as np
    >>> from fastreg.penalties import MCP
    >>> MCP(1.0, gamma=3.0).prox(np.array([4.0, 2.0, 0.5]))
    array([4. , 1.5, 0. ])
    """

    _parameters = ("lam", "gamma")

    def __init__(self, lam: Any, gamma: float = 3.0) -> None:
        self.lam, self.gamma = _weight(lam, "lam"), _weight(gamma, "gamma", scalar=True)
        if not self.gamma > 0:
            raise ValueError(f"gamma: got {gamma}; a number > 0 is allowed")

    def _value(self, w: np.ndarray) -> Any:
        m, far = np.abs(w), self.gamma * self.lam
        return np.sum(np.where(m > far, 0.5 * self.lam * far, self.lam * m - m * m / (2 * self.gamma)))

    def _subgradient(self, w: np.ndarray) -> Any:
        return np.sign(w) * np.where(np.abs(w) > self.gamma * self.lam, 0.0, self.lam - np.abs(w) / self.gamma)

    def prox(self, w: Any, step: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        return prox_mcp(w, self.lam, self.gamma, step, out=out)


class SCAD(Penalty):
    """The smoothly clipped absolute deviation, see `fastreg.prox_scad`.

    >>> import numpy as np
    >>> from fastreg.penalties import SCAD
    >>> SCAD(1.0, gamma=4.0).prox(np.array([5.0, 3.0, 1.5]))
    array([5. , 2.5, 0.5])
    """

    _parameters = ("lam", "gamma")

    def __init__(self, lam: Any, gamma: float = 3.7) -> None:
        self.lam, self.gamma = _weight(lam, "lam"), _weight(gamma, "gamma", scalar=True)
        if not self.gamma > 1:
            raise ValueError(f"gamma: got {gamma}; a number > 1 is allowed")

    def _value(self, w: np.ndarray) -> Any:
        m, lam, gamma = np.abs(w), self.lam, self.gamma
        bent = (2 * gamma * lam * m - m * m - lam * lam) / (2 * (gamma - 1))
        return np.sum(np.where(m <= lam, lam * m, np.where(m > gamma * lam, 0.5 * (gamma + 1) * lam * lam, bent)))

    def _subgradient(self, w: np.ndarray) -> Any:
        m, lam, gamma = np.abs(w), self.lam, self.gamma
        return np.sign(w) * np.where(m <= lam, lam, np.where(m > gamma * lam, 0.0, (gamma * lam - m) / (gamma - 1)))

    def prox(self, w: Any, step: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        return prox_scad(w, self.lam, self.gamma, step, out=out)


# ---- norms and groups --------------------------------------------------------------------------------------------


def _norm(w: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Euclidean norms with the axis kept, of elements scaled so that no square over- or underflows."""
    largest = np.max(np.abs(w), axis=axis, keepdims=True, initial=0.0)
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    return scale * np.sqrt(np.sum((w / scale) ** 2, axis=axis, keepdims=True))


def _direction(w: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """w/norm, 0 for 0."""
    return np.divide(w, norm, out=np.zeros(np.broadcast(w, norm).shape), where=norm != 0)


class GroupLasso(Penalty):
    """lam·Σ_g w_g·‖w_g‖₂ over groups by label or along an axis, see `fastreg.prox_group_lasso`.

    >>> import numpy as np
    >>> from fastreg.penalties import GroupLasso
    >>> GroupLasso(1.0, groups=[0, 0, 1]).prox(np.array([3.0, 4.0, 0.5]))
    array([2.4, 3.2, 0. ])
    """

    _parameters = ("lam", "groups", "axis", "weights")

    def __init__(self, lam: float, groups: Any = None, axis: int | None = None, weights: Any = None) -> None:
        self.lam = _weight(lam, "lam", scalar=True)
        if groups is not None and axis is not None:
            raise ValueError("groups and axis: got both; one of them says what a group is")
        self.groups = None if groups is None else np.array(groups)
        if self.groups is not None:
            if self.groups.dtype.kind not in "iub":
                raise TypeError(f"groups: got dtype {self.groups.dtype}; integer labels are needed")
            self.groups.flags.writeable = False
        self.axis = axis
        self.weights = None if weights is None else _weight(weights, "weights")

    def _norms(self, w: np.ndarray) -> tuple[np.ndarray, ...]:
        """The groups' norms and weights, and both again for each element, or what broadcasts to them."""
        if self.groups is None:
            norms = _norm(w, self.axis)
            if self.weights is None:
                weights = np.ones(norms.shape)
            elif self.axis is None:
                weights = np.reshape(self.weights, norms.shape)
            else:
                weights = np.expand_dims(np.broadcast_to(self.weights, np.delete(w.shape, self.axis)), self.axis)
            return norms, weights, norms, weights
        labels, group = np.unique(self.groups, return_inverse=True)
        if group.shape != w.shape:
            raise ValueError(f"w: got shape {w.shape}; that of groups, {group.shape}, is needed")
        largest = np.zeros(labels.size)
        np.maximum.at(largest, group, np.abs(w))
        scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
        norms = scale * np.sqrt(np.bincount(group, weights=(w / scale[group]) ** 2, minlength=labels.size))
        weights = np.broadcast_to(1.0 if self.weights is None else self.weights, labels.shape)
        return norms, weights, norms[group], weights[group]

    def _value(self, w: np.ndarray) -> Any:
        norms, weights, _, _ = self._norms(w)
        return np.sum(_times(self.lam, weights * norms))

    def _subgradient(self, w: np.ndarray) -> Any:
        _, _, norm, weight = self._norms(w)
        return self.lam * weight * _direction(w, norm)

    def prox(self, w: Any, step: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        return prox_group_lasso(w, self.lam, self.groups, step, axis=self.axis, weights=self.weights, out=out)


class SparseGroupLasso(Penalty):
    """l1·‖w‖₁ + lam·Σ_g w_g·‖w_g‖₂, see `fastreg.prox_sparse_group_lasso`.

    >>> import numpy as np
    >>> from fastreg.penalties import SparseGroupLasso
    >>> SparseGroupLasso(1.0, 1.0, axis=1).prox(np.array([[4.0, 0.9, 5.0]]))
    array([[2.4, 0. , 3.2]])
    """

    _parameters = ("l1", "lam", "groups", "axis", "weights")

    def __init__(self, l1: float, lam: float, groups: Any = None, axis: int | None = None, weights: Any = None) -> None:
        self.l1 = _weight(l1, "l1", scalar=True)
        self._group_lasso = GroupLasso(lam, groups, axis, weights)

    lam = property(lambda self: self._group_lasso.lam)
    groups = property(lambda self: self._group_lasso.groups)
    axis = property(lambda self: self._group_lasso.axis)
    weights = property(lambda self: self._group_lasso.weights)

    def _terms(self) -> "Iterator[Penalty]":
        yield L1(self.l1)
        yield self._group_lasso

    def _value(self, w: np.ndarray) -> Any:
        return sum(term._value(w) for term in self._terms())

    def _subgradient(self, w: np.ndarray) -> Any:
        return sum(term._subgradient(w) for term in self._terms())

    def prox(self, w: Any, step: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        g = self._group_lasso
        return prox_sparse_group_lasso(w, self.l1, g.lam, g.groups, step, axis=g.axis, weights=g.weights, out=out)


class Frobenius(Penalty):
    """lam·‖w‖₂ of all elements, not squared: the whole array is one group.

    >>> import numpy as np
    >>> from fastreg.penalties import Frobenius
    >>> Frobenius(2.5).prox(np.array([[3.0, 4.0]]))
    array([[1.5, 2. ]])
    """

    _parameters = ("lam",)

    def __init__(self, lam: float) -> None:
        self.lam = _weight(lam, "lam", scalar=True)

    def _value(self, w: np.ndarray) -> Any:
        return _times(self.lam, _norm(w)).sum()

    def _subgradient(self, w: np.ndarray) -> Any:
        return self.lam * _direction(w, _norm(w))

    def prox(self, w: Any, step: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        return prox_l2(w, self.lam, step, out=out)


class LInf(Penalty):
    """lam·max\\|w\\|. Its subgradient is shared by the elements that attain the maximum.

    >>> import numpy as np
    >>> from fastreg.penalties import LInf
    >>> LInf(2.0).prox(np.array([3.0, -2.0, 0.5]))
    array([ 1.5, -1.5,  0.5])
    """

    _parameters = ("lam",)

    def __init__(self, lam: float) -> None:
        self.lam = _weight(lam, "lam", scalar=True)

    def _value(self, w: np.ndarray) -> Any:
        return _times(self.lam, np.max(np.abs(w), initial=0.0))

    def _subgradient(self, w: np.ndarray) -> Any:
        top = np.abs(w) == np.max(np.abs(w), initial=0.0)
        return self.lam * np.sign(w) * top / max(np.count_nonzero(top), 1)

    def prox(self, w: Any, step: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        return prox_linf(w, self.lam, step, out=out)


class Nuclear(Penalty):
    """lam·(the sum of the singular values) of a matrix.

    >>> import numpy as np
    >>> from fastreg.penalties import Nuclear
    >>> Nuclear(1.5).prox(np.diag([3.0, 1.0])).round(12)
    array([[1.5, 0. ],
           [0. , 0. ]])
    """

    _parameters = ("lam",)

    def __init__(self, lam: float) -> None:
        self.lam = _weight(lam, "lam", scalar=True)

    def _value(self, w: np.ndarray) -> Any:
        return _times(self.lam, np.linalg.svd(w, compute_uv=False).sum())

    def _subgradient(self, w: np.ndarray) -> Any:
        u, s, vt = np.linalg.svd(w, full_matrices=False)
        # Directions that rounding alone makes nonzero are a kink.
        kept = s > max(w.shape) * np.finfo(w.dtype).eps * np.max(s, initial=0.0)
        return self.lam * (u[:, kept] @ vt[kept])

    def prox(self, w: Any, step: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        return prox_nuclear(w, self.lam, step, out=out)


class TV1D(Penalty):
    """lam·Σ\\|w_{i+1} − w_i\\| of a sequence.

    >>> import numpy as np
    >>> from fastreg.penalties import TV1D
    >>> TV1D(1.5).prox(np.array([1.0, 3.0, 2.0]))
    array([2., 2., 2.])
    """

    _parameters = ("lam",)

    def __init__(self, lam: float) -> None:
        self.lam = _weight(lam, "lam", scalar=True)

    def _value(self, w: np.ndarray) -> Any:
        return _times(self.lam, np.abs(np.diff(w)).sum())

    def _subgradient(self, w: np.ndarray) -> Any:
        pull = self.lam * np.sign(np.diff(w))
        return -np.diff(pull, prepend=0.0, append=0.0) if w.size else w

    def prox(self, w: Any, step: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        return prox_tv1d(w, self.lam, step, out=out)


# ---- sums --------------------------------------------------------------------------------------------------------


class _Sum(Penalty):
    """A sum of penalties. Its prox is known where, beside any number of L1 and L2, there is at most one other term, and
    that is either alone with L2, or one that a soft threshold goes with: a group lasso, a norm, total variation."""

    def __init__(self, terms: tuple[Penalty, ...]) -> None:
        self.terms: tuple[Penalty, ...] = tuple(
            t for term in terms for t in (term.terms if isinstance(term, _Sum) else (term,))
        )
        self.hasgrad = all(term.hasgrad for term in self.terms)

    def _terms(self) -> "Iterator[Penalty]":
        for term in self.terms:
            yield from term._terms()

    def _value(self, w: np.ndarray) -> Any:
        return sum(term._value(w) for term in self.terms)

    def _subgradient(self, w: np.ndarray) -> Any:
        for term in self.terms:
            if isinstance(term, L0):
                term.grad(w)
        return sum(term._subgradient(w) for term in self.terms)

    def prox(self, w: Any, step: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        terms = list(self._terms())
        l1 = sum(term.lam for term in terms if isinstance(term, L1))
        l2 = sum(term.lam for term in terms if isinstance(term, L2))
        others = [term for term in terms if not isinstance(term, L1 | L2)]
        if not others:
            return prox_elastic_net(w, l1, l2, step, out=out)
        follows = isinstance(others[0], GroupLasso | Frobenius) or (isinstance(others[0], TV1D) and np.ndim(l1) == 0)
        if len(others) > 1 or np.ndim(l2) or not (follows or not np.any(l1)):
            raise TypeError(f"the prox of {self!r} is not known in closed form; its terms have one each")
        # A quadratic term scales both the point and the step: ½‖z − w‖² + ½·s‖z‖² = ½(1 + s)‖z − w/(1 + s)‖² + const.
        shrink = 1.0 + step * l2
        near = w if l2 == 0 else prox_sq_l2(w, l2, step)
        step /= shrink
        if isinstance(others[0], TV1D):  # the fused lasso: the threshold comes last (Friedman et al. 2007)
            return prox_l1(others[0].prox(near, step), l1, step, out=out)
        if np.any(l1):  # and here first, since a norm's prox scales what is left
            near = prox_l1(near, l1, step)
        return others[0].prox(near, step, out=out)

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Sum) and self.terms == other.terms

    __hash__ = None
