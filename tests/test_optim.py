"""What the fused updates promise beyond the laws: the formulas, step for step, and how they clip to zero."""

import itertools

import numpy as np
import pytest

import fastreg
from fastreg import reference

SGD_OPTIONS = [
    {"momentum": m, "dampening": d, "nesterov": nesterov, "weight_decay": w, "decoupled": decoupled, "l1": l1}
    for m, d, nesterov, w, decoupled, l1 in itertools.product(
        (0.0, 0.9), (0.0, 0.3), (False, True), (0.0, 0.1), (False, True), (0.0, 0.2)
    )
    if not (nesterov and (m == 0 or d != 0))
]


@pytest.mark.parametrize("options", SGD_OPTIONS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 4e-7), (np.float64, 8e-16)])
def test_sgd_step_is_the_formula(options, dtype, tolerance):
    """At most four roundings of terms no larger than the largest value, of half a unit each."""
    rng = np.random.default_rng(0)
    param, grad, buffer = (rng.standard_normal(1000).astype(dtype) for _ in range(3))
    wanted, wanted_buffer = param.copy(), buffer.copy()
    reference.sgd_step(wanted, grad, wanted_buffer, lr=0.5, **options)
    fastreg.sgd_step(param, grad, buffer, lr=0.5, **options)
    scale = np.abs(np.concatenate([wanted, wanted_buffer, grad])).max()
    assert np.abs(param - wanted).max() <= tolerance * scale
    assert np.abs(buffer - wanted_buffer).max() <= tolerance * scale
    assert np.array_equal(param == 0, wanted == 0)
    if options["l1"]:
        assert np.count_nonzero(param == 0) > 50
    if not options["momentum"]:
        assert np.array_equal(buffer, wanted_buffer)


def test_sgd_step_leaves_an_option_that_is_off_out():
    """0·inf is NaN and −0 + 0 is +0: no decay and no l1 must not mean a decay and an l1 of zero."""
    param = np.array([np.inf, -0.0])
    fastreg.sgd_step(param, np.zeros(2), lr=0.1)
    assert param[0] == np.inf
    assert np.signbit(param[1])


def test_sgd_step_takes_a_gradient_that_is_the_parameter():
    param = np.arange(5.0)
    fastreg.sgd_step(param, param, lr=0.5)
    assert np.array_equal(param, np.arange(5.0) / 2)
    fastreg.sgd_step(param, param[::-1], lr=1.0)
    assert np.array_equal(param, [-2.0, -1.0, 0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"lr": -1.0}, ValueError, "lr"),
        ({"lr": np.nan}, ValueError, "lr"),
        ({"lr": "fast"}, TypeError, "lr"),
        ({"momentum": 1.5}, ValueError, "momentum"),
        ({"dampening": -0.1}, ValueError, "dampening"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay"),
        ({"l1": np.nan}, ValueError, "l1"),
        ({"nesterov": True, "momentum": 0.0}, ValueError, "nesterov"),
        ({"nesterov": True, "dampening": 0.1}, ValueError, "nesterov"),
        ({"momentum_buffer": None}, ValueError, "momentum_buffer"),
        ({"momentum_buffer": np.zeros(4)}, ValueError, "momentum_buffer"),
        ({"momentum_buffer": np.zeros(3, np.float32)}, TypeError, "momentum_buffer"),
        ({"grad": np.zeros(4)}, ValueError, "grad"),
        ({"grad": np.zeros(3, complex)}, TypeError, "grad"),
        ({"param": [1.0, 2.0, 3.0]}, TypeError, "param"),
        ({"param": np.ones(3, int)}, TypeError, "param"),
    ],
)
def test_sgd_step_refuses(wrong, kind, message):
    param, buffer = np.ones(3), np.ones(3)
    arguments = {"param": param, "grad": np.ones(3), "momentum_buffer": buffer, "lr": 0.1, "momentum": 0.9} | wrong
    with pytest.raises(kind, match=message):
        fastreg.sgd_step(**arguments)
    assert np.array_equal(param, np.ones(3))
    assert np.array_equal(buffer, np.ones(3))


def test_sgd_step_refuses_state_that_shares_memory():
    memory = np.zeros(5)
    with pytest.raises(ValueError, match="share memory"):
        fastreg.sgd_step(memory[:3], np.ones(3), memory[2:], lr=0.1, momentum=0.9)
    assert not memory.any()
