"""A backend for thinc (spaCy's models): dropout masks, Adam and gradient clipping by fastreg, the rest by NumpyOps.

thinc finds the backend by itself once both are installed (entry point ``thinc_ops``); its optimisers, however, ask no
backend but NumpyOps for their arithmetic, so there is one here that asks this one::

    from fastreg.thinc_ops import Adam
    from thinc.api import get_ops, set_current_ops

    set_current_ops(get_ops("fastreg"))
    optimiser = Adam(0.001)
"""

from typing import Any

import numpy as np
from thinc.backends import NumpyOps
from thinc.optimizers import Optimizer

import fastreg

CORRECTED = 2**62  # a step so late that Adam's corrections of its first steps are 1: thinc has put them into learn_rate


class FastregOps(NumpyOps):  # type: ignore[misc] # its types are not installed to lint
    """NumpyOps, with three of its methods taken over. Masks follow `numpy.random.seed`, as NumpyOps's do."""

    name = "fastreg"
    xp = np

    def get_dropout_mask(self, shape: tuple[int, ...], drop: float | None) -> np.ndarray:
        """Zeros with probability `drop`, and 1/(1 − drop)."""
        if drop is None or drop <= 0:
            return np.ones(shape, np.float32)
        seed = int(np.random.randint(2**63 - 1, dtype=np.int64))  # noqa: NPY002 (thinc's own source)
        return fastreg.dropout(np.ones(shape, np.float32), min(drop, 1.0), seed=seed)

    def adam(
        self,
        weights: np.ndarray,
        gradient: np.ndarray,
        mom1: np.ndarray,
        mom2: np.ndarray,
        beta1: float,
        beta2: float,
        eps: float,
        learn_rate: float,
        mod_rate: float = 1.0,
    ) -> tuple[Any, ...]:
        """In one pass; the gradient is zeros afterwards."""
        fastreg.adam_step(
            weights,
            gradient,
            mom1,
            mom2,
            CORRECTED,
            lr=float(learn_rate),
            beta1=float(beta1),
            beta2=float(beta2),
            eps=float(eps),
        )
        gradient.fill(0)
        return weights, gradient, mom1, mom2

    def clip_gradient(self, gradient: np.ndarray, threshold: float) -> np.ndarray:
        """In place, to at most `threshold` in norm."""
        norm = fastreg.norm(gradient)
        if norm >= threshold:
            gradient *= threshold / norm
        return gradient


class Adam(Optimizer):  # type: ignore[misc]
    """thinc's Adam, with its arguments and defaults, computed by FastregOps."""

    def __init__(self, learn_rate: Any = 0.001, *, grad_clip: Any = 1.0, **options: Any) -> None:
        super().__init__(learn_rate, grad_clip=0.0, **options)  # it would clip by NumpyOps
        self._set_attr_or_schedule("clip", grad_clip)

    def _adam(self, ops: Any, weights: Any, gradient: Any, lr_scale: float, key: Any, nr_upd: int) -> tuple[Any, Any]:
        clip = self.clip(self.step, **self._schedule_args(key))
        if clip:
            gradient = OPS.clip_gradient(gradient, clip)
        return super()._adam(OPS, weights, gradient, lr_scale, key, nr_upd)


OPS = FastregOps()
