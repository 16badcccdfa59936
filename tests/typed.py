"""What a type checker makes of a caller's code; mypy reads it, nothing runs it."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import fastreg
from fastreg import nn, optim, penalties, reference

Array = NDArray[Any]
x: NDArray[np.float32] = np.ones((4, 3), np.float32)

assert_type(fastreg.soft_threshold([1.0, 2.0], [0.5, 0.1]), Array)
assert_type(fastreg.dropout(x, 0.1, seed=1, axis=(0, 1)), Array)
assert_type(fastreg.dropout_mask((2, 3), seed=1), NDArray[np.bool_])
assert_type(fastreg.dropout_mask(7, seed=1, packed=True), NDArray[np.uint8])
assert_type(fastreg.smooth_l1_loss(x, x), float)
assert_type(fastreg.smooth_l1_loss(x, x, reduction="none"), Array)
assert_type(fastreg.smooth_l1_loss(x, x, reduction="sum", return_grad=True), tuple[float, Array])
assert_type(fastreg.huber_loss(x, x, reduction="none", return_grad=True), tuple[Array, Array])
assert_type(fastreg.layer_norm(x, 3), Array)
assert_type(fastreg.batch_norm(x, training=True, return_stats=True), tuple[Array, Array, Array])
assert_type(fastreg.rms_norm(x, 3, return_stats=True), tuple[Array, Array])
assert_type(fastreg.batch_norm_stats(x), tuple[int, Array, Array])
assert_type(reference.dropout_mask(7, seed=1), NDArray[np.bool_])
assert_type(fastreg.show_config(mode="dicts"), dict[str, Any])

assert_type(penalties.L1(0.1)(x), float)
assert_type(penalties.L1(0.1) + penalties.L2(0.1), penalties.Penalty)
assert_type(optim.SGD([x], lr=0.1, l1=1e-3).step([x]), bool)
assert_type(nn.Dropout(0.5).eval().forward(x), np.ndarray)

# Each of these is a mistake, and the checker says so.
fastreg.dropout(x)  # type: ignore[call-arg]
fastreg.smooth_l1_loss(x, x, reduction="average")  # type: ignore[call-overload]
fastreg.dropout(x, seed=1, mode="keep")  # type: ignore[arg-type]
fastreg.soft_threshold(x, 0.5, x)  # type: ignore[call-arg]
fastreg.sgd_step([1.0], [1.0], lr=0.1)  # type: ignore[arg-type]
