"""What the optimisers promise: torch's trajectories, all or nothing, the bits of the single update, checkpoints."""

import io
import json
import math
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
import trajectories
from conftest import DTYPES
from layouts import NATIVE

import fastreg
from fastreg import optim, reference
from fastreg._optim import zeros_like_each

SHAPES = [(7,), (3, 5), (2, 3, 4), (), (1,), (0, 2), (5000,)]
EVERY = [
    (optim.SGD, {"lr": 0.1}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "l1": 0.01}),
    (optim.Adam, {"lr": 0.01}),
    (optim.AdamW, {"lr": 0.01, "l1": 0.1}),
    (optim.Adagrad, {"lr": 0.1}),
    (optim.RMSprop, {"lr": 0.01}),
    (optim.RMSprop, {"lr": 0.01, "momentum": 0.9}),
    (optim.FTRL, {"l1": 0.1, "l2": 0.1}),
]
every_optimiser = pytest.mark.parametrize(("kind", "options"), EVERY, ids=lambda x: getattr(x, "__name__", None))


def tensors(seed, dtype=np.float64, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def everything(optimiser):
    """All bits that a step may change."""
    state = optimiser.state_dict()
    arrays = [p for group in optimiser.param_groups for p in group["params"]]
    arrays += [x for of in state["state"].values() for x in of.values() if x is not None]
    options = [{k: v for k, v in g.items() if k != "params"} for g in optimiser.param_groups]
    return [x.tobytes() for x in arrays], state["step"], options


# ---- torch's trajectories ----------------------------------------------------------------------------------------

TORCH = json.loads((Path(__file__).parent / "data/torch_optim.json").read_text())


@pytest.mark.parametrize("index", range(len(trajectories.RUNS)), ids=lambda i: str(trajectories.RUNS[i]))
def test_fifty_steps_are_those_of_torch(index):
    """As torch took them when they were recorded; tests/peers takes them beside it."""
    name, options = trajectories.RUNS[index]
    of = TORCH["trajectories"][index]
    assert (of["name"], of["options"]) == (name, json.loads(json.dumps(options)))
    params = trajectories.tensors(0)
    optimiser = getattr(optim, name)(params, **options)
    first, last = trajectories.run(params, optimiser.step, optimiser.param_groups)
    assert np.allclose(first, of["first"], rtol=1e-12, atol=0)
    assert np.allclose(last, of["last"], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", trajectories.SHARED)
def test_defaults_are_those_of_torch(name):
    ours = getattr(optim, name)(tensors(0)).param_groups[0]
    theirs = {k: tuple(v) if isinstance(v, list) else v for k, v in TORCH["defaults"][name].items()}
    shared = ours.keys() & theirs.keys()
    assert shared >= {"lr", "weight_decay"}
    assert {k: ours[k] for k in shared} == {k: theirs[k] for k in shared}


# ---- exact -------------------------------------------------------------------------------------------------------


def test_the_first_step_with_momentum_takes_the_gradient_undamped():
    p = np.zeros(3)
    optimiser = optim.SGD([p], lr=1.0, momentum=0.9, dampening=0.5)
    optimiser.step([np.ones(3)])
    assert np.array_equal(p, -np.ones(3))
    optimiser.step([np.ones(3)])
    assert np.array_equal(p, -np.ones(3) - (0.9 + 0.5))


@pytest.mark.parametrize("step", [1, 2, 3, 1000, 123_456, 10**9])
@pytest.mark.parametrize("beta", [0.9, 0.999, 0.5, 1 - 2**-40])
def test_bias_corrections_are_exact_at_any_step(step, beta):
    """With zero moments and beta1 = 0 (or beta2 = 0) the change is a formula of one correction."""
    if step <= 1000:
        correction = 1 - Fraction(beta) ** step
    else:
        with mpmath.workdps(60):
            correction = Fraction(str(1 - mpmath.mpf(beta) ** step))
    p, m, v = np.zeros(1), np.zeros(1), np.ones(1)
    fastreg.adam_step(p, [1.0], m, v, step, lr=1.0, beta1=beta, beta2=0.0, eps=0.0)
    wanted = -float(Fraction(1 - beta) / correction)
    assert p[0] == pytest.approx(wanted, rel=1e-15, abs=0)
    p, m, v = np.zeros(1), np.zeros(1), np.full(1, 4.0)
    fastreg.adam_step(p, [0.0], m, v, step, lr=1.0, beta1=0.0, beta2=beta, eps=0.0)
    assert p[0] == 0
    fastreg.adam_step(p, [2.0], m, v, step, lr=1.0, beta1=0.0, beta2=beta, eps=0.0)
    assert p[0] == pytest.approx(-2 / math.sqrt(v[0] / float(correction)), rel=1e-15, abs=0)


def test_eps_is_added_to_the_corrected_root():
    p, m, v = np.zeros(1), np.zeros(1), np.zeros(1)
    fastreg.adam_step(p, [3.0], m, v, 1, lr=1.0, eps=1.0)
    assert p[0] == pytest.approx(-3 / (3 + 1), rel=1e-15)
    p, v = np.zeros(1), np.zeros(1)
    fastreg.rmsprop_step(p, [3.0], v, lr=1.0, alpha=0.0, eps=1.0)
    assert p[0] == pytest.approx(-3 / (3 + 1), rel=1e-15)
    p, s = np.zeros(1), np.zeros(1)
    fastreg.adagrad_step(p, [3.0], s, lr=1.0, eps=1.0)
    assert p[0] == pytest.approx(-3 / (3 + 1), rel=1e-15)


def test_decoupled_decay_is_that_of_the_paper():
    """Loshchilov & Hutter, Algorithm 2, line 12: w − η(α·m̂/(√v̂ + ε) + λ·w), with lr = η·α and λ = α·weight_decay."""
    eta, alpha, decay = 0.5, 0.01, 0.1
    ours, theirs = tensors(0)[:1], tensors(0)[:1]
    m = v = 0.0
    optimiser = optim.AdamW(ours, lr=eta * alpha, weight_decay=decay)
    for t in range(1, 51):
        (g,) = tensors(t)[:1]
        optimiser.step([g])
        m, v = 0.9 * m + (1 - 0.9) * g, 0.999 * v + (1 - 0.999) * g * g
        change = alpha * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        theirs[0] = theirs[0] - eta * (change + alpha * decay * theirs[0])
    assert np.allclose(ours[0], theirs[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("start", ["zeros", "somewhere"])
def test_fifty_rounds_of_ftrl_are_algorithm_1(start):
    """McMahan et al. 2013, Algorithm 1, a coordinate at a time as it is printed."""
    alpha, beta, l1, l2 = 0.3, 0.7, 0.4, 0.2
    rng = np.random.default_rng(3)
    w = np.zeros(20) if start == "zeros" else np.where(np.arange(20) % 3 == 0, 0, rng.standard_normal(20))
    z, n = fastreg.ftrl_init_z(w, alpha=alpha, beta=beta, l1=l1, l2=l2), np.zeros(20)
    zs, ns = [float(x) for x in z], [0.0] * 20
    param = w.copy()
    optimiser = optim.FTRL([param], alpha=alpha, beta=beta, l1=l1, l2=l2)

    def closed_form(zi, ni):
        if abs(zi) <= l1:
            return 0.0
        return -1 / ((beta + math.sqrt(ni)) / alpha + l2) * (zi - math.copysign(l1, zi))

    for _ in range(50):
        g = rng.standard_normal(20) * (rng.random(20) < 0.5)
        for i in range(20):
            wi = closed_form(zs[i], ns[i])
            sigma = (math.sqrt(ns[i] + g[i] ** 2) - math.sqrt(ns[i])) / alpha
            zs[i] += g[i] - sigma * wi
            ns[i] += g[i] ** 2
        fastreg.ftrl_step(w, g, z, n, alpha=alpha, beta=beta, l1=l1, l2=l2)
        optimiser.step([g])
    wanted = np.array([closed_form(*pair) for pair in zip(zs, ns, strict=True)])
    assert np.allclose(w, wanted, rtol=1e-12, atol=1e-13)
    assert np.array_equal(w == 0, wanted == 0)
    assert np.array_equal(param, w)


@every_optimiser
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_l1_is_a_soft_threshold_at_the_end_of_the_step(kind, options, dtype):
    if kind is optim.FTRL:
        return  # its l1 is in the closed form, see above
    options = options | {"l1": 3.0}
    with_l1, without = tensors(0, dtype, [(5000,)])[0], tensors(0, dtype, [(5000,)])[0]
    optimiser, plain = kind([with_l1], **options), kind([without], **(options | {"l1": 0.0}))
    for step in range(5):
        (grad,) = tensors(step + 1, dtype, [(5000,)])
        without[...] = with_l1
        optimiser.step([grad])
        plain.step([grad])
        wanted = fastreg.soft_threshold(without, options["lr"] * 3.0)
        assert np.array_equal(with_l1, wanted)
        zeros = np.count_nonzero(with_l1 == 0)
        assert zeros == np.count_nonzero(np.abs(without) <= dtype(options["lr"] * 3.0)) > 50
        assert not np.any(np.signbit(with_l1[with_l1 == 0]))
        # The moments go on from a weight that decay saw.
        plain.load_state_dict(optimiser.state_dict())
        plain.param_groups[0]["l1"] = 0.0


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_where_sgd_with_l1_comes_to_rest(momentum):
    """At the minimum of ½‖w − c‖² + l1·(1 − momentum)·‖w‖₁: see the docstring of sgd_step."""
    centre = np.linspace(-1, 1, 101)
    w = np.zeros(101)
    optimiser = optim.SGD([w], lr=0.1, momentum=momentum, l1=0.4)
    for _ in range(2000):
        optimiser.step([w - centre])
    wanted = fastreg.soft_threshold(centre, 0.4 * (1 - momentum))
    assert np.allclose(w, wanted, atol=1e-12)
    inside = np.abs(centre) < 0.39 * (1 - momentum)
    assert np.count_nonzero(inside) > 1
    assert np.all(w[inside] == 0)


# ---- the bits of the single update -------------------------------------------------------------------------------


def single(kind, group, p, g, state, step):
    """One tensor's update by the function that is documented for it."""
    options = {k: v for k, v in group.items() if k not in ("params", "betas", "lr_decay")}
    if kind is optim.SGD:
        if options["momentum"] and step == 1:
            options["dampening"] = 0.0
        fastreg.sgd_step(p, g, state[0] if options["momentum"] else None, **options)
    elif issubclass(kind, optim.Adam):
        beta1, beta2 = group["betas"]
        fastreg.adam_step(p, g, *state, step, beta1=beta1, beta2=beta2, **options)
    elif kind is optim.Adagrad:
        fastreg.adagrad_step(p, g, state[0], **options)
    elif kind is optim.RMSprop:
        fastreg.rmsprop_step(p, g, state[0], state[1] if options["momentum"] else None, **options)
    else:
        fastreg.ftrl_step(p, g, *state, **options)


@every_optimiser
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("layout", ["as is", *NATIVE])
def test_many_tensors_have_the_bits_of_single_updates(kind, options, dtype, layout, pool):
    shapes = [*SHAPES, (300, 200)]
    relaid = NATIVE.get(layout, lambda x: x)
    ours, alone = [relaid(p) for p in tensors(0, dtype, shapes)], tensors(0, dtype, shapes)
    optimiser = kind([{"params": ours[:3]}, {"params": ours[3:]}], **options)
    state = [[np.zeros_like(p), np.zeros_like(p)] for p in alone]
    if kind is optim.FTRL:
        state = [[np.asarray(fastreg.ftrl_init_z(p, **options)), np.zeros_like(p)] for p in alone]
    for step in (1, 2, 3):
        grads = tensors(step, dtype, shapes)
        optimiser.step([relaid(g) if step == 2 else g for g in grads])
        for p, g, of in zip(alone, grads, state, strict=True):
            single(kind, optimiser.param_groups[0], p, g, of, step)
    for p, q in zip(ours, alone, strict=True):
        assert np.array_equal(p, q)


def test_a_gradient_that_is_a_view_of_parameters_is_read_before_they_change():
    memory = np.arange(40.0)
    before = memory.copy()
    params = [memory[:10], memory[10:20], memory[20:30]]
    optimiser = optim.SGD(params, lr=0.5)
    optimiser.step([memory[15:25], memory[0:10], memory[29:19:-1]])
    assert np.array_equal(memory[:10], before[:10] - 0.5 * before[15:25])
    assert np.array_equal(memory[10:20], before[10:20] - 0.5 * before[:10])
    assert np.array_equal(memory[20:30], before[20:30] - 0.5 * before[29:19:-1])


def test_columns_of_one_matrix_are_parameters_of_their_own():
    matrix = np.zeros((4, 6))
    optimiser = optim.SGD([matrix[:, :2], matrix[:, 4:], matrix[:, 2:4]], lr=1.0, momentum=0.9)
    optimiser.step([np.full((4, 2), -k) for k in (1.0, 2.0, 3.0)])
    assert np.array_equal(matrix, np.tile([1.0, 1, 3, 3, 2, 2], (4, 1)))


def test_many_gradients_find_their_way_among_the_parameters():
    """Overlap is looked for among sorted spans of memory: gradients before, between and after them, in any order."""
    rng = np.random.default_rng(0)
    memory = rng.standard_normal(4000)
    cuts = rng.permutation(100)
    params = [memory[40 * c : 40 * c + 10] for c in cuts]
    grads = [memory[40 * c + 20 : 40 * c + 30] for c in rng.permutation(100)]
    wanted = [p - 0.5 * g for p, g in zip(params, grads, strict=True)]
    optim.SGD(params, lr=0.5).step(grads)
    assert all(np.array_equal(p, w) for p, w in zip(params, wanted, strict=True))


def test_gradients_of_any_kind():
    for grad in ([1.0, 2.0], np.array([1, 2]), np.array([1.0, 2.0], ">f4"), np.array([1, 2], np.float16), (1, 2)):
        p = np.zeros(2, np.float32)
        optim.SGD([p], lr=1.0).step([grad])
        assert np.array_equal(p, [-1.0, -2.0])


@pytest.mark.parametrize("layout", ["as is", *NATIVE])
def test_state_is_in_one_piece_of_memory_and_lies_as_its_parameter(layout):
    relaid = NATIVE.get(layout, lambda x: x)
    params = [relaid(p) for dtype in DTYPES for p in tensors(0, dtype)]
    state = zeros_like_each(params)
    for i, (s, p) in enumerate(zip(state, params, strict=True)):
        assert (s.shape, s.dtype, s.strides) == (p.shape, p.dtype, np.zeros_like(p).strides)
        assert s.base is state[0].base
        assert s.flags.aligned
        assert not s.any()
        if p.flags.aligned:
            assert s.ctypes.data % 64 == p.ctypes.data % 64
        s.fill(i + 1)
    assert all(np.all(s == i + 1) for i, s in enumerate(state))


# ---- all or nothing ----------------------------------------------------------------------------------------------

BAD_GRADS = {
    "shape": (lambda g: np.zeros((*g.shape, 2)), ValueError),
    "complex": (lambda g: g.astype(complex), TypeError),
    "object": (lambda g: g.astype(object), TypeError),
    "none": (lambda g: None, TypeError),
    "longdouble": (lambda g: g.astype(np.longdouble), TypeError),
    "masked": (lambda g: np.ma.masked_array(g), TypeError),
}


@every_optimiser
@pytest.mark.parametrize("bad", BAD_GRADS)
def test_a_bad_gradient_at_any_index_changes_nothing(kind, options, bad):
    params = tensors(0)
    optimiser = kind(params, **options)
    for _ in range(2):
        for index in range(len(params)):
            grads = tensors(1)
            spoil, error = BAD_GRADS[bad]
            grads[index] = spoil(grads[index])
            before = everything(optimiser)
            with pytest.raises(error, match=rf"grads\[{index}\]"):
                optimiser.step(grads)
            assert everything(optimiser) == before
        optimiser.step(tensors(2))


@every_optimiser
def test_a_bad_call_changes_nothing(kind, options):
    params = tensors(0)
    optimiser = kind(params, **options)
    optimiser.step(tensors(1))
    before = everything(optimiser)
    for grads, error in ((tensors(1)[:-1], ValueError), ([], ValueError), (np.zeros(7), TypeError), (None, TypeError)):
        with pytest.raises(error, match="grads"):
            optimiser.step(grads)
        assert everything(optimiser) == before
    for index in range(len(params)):
        params[index].flags.writeable = False
        with pytest.raises(TypeError, match=rf"params\[{index}\].*read-only"):
            optimiser.step(tensors(1))
        assert everything(optimiser) == before
        params[index].flags.writeable = True
    rate = "alpha" if kind is optim.FTRL else "lr"
    for wrong, error in ((-1.0, ValueError), (math.nan, ValueError), ("1", TypeError), (None, TypeError)):
        good, optimiser.param_groups[0][rate] = optimiser.param_groups[0][rate], wrong
        with pytest.raises(error, match=rate):
            optimiser.step(tensors(1))
        optimiser.param_groups[0][rate] = good
        assert everything(optimiser) == before


def test_a_bad_option_of_the_last_group_changes_nothing_of_the_first():
    params = tensors(0)
    optimiser = optim.SGD([{"params": params[:3]}, {"params": params[3:]}], lr=0.1, momentum=0.9)
    before = everything(optimiser)
    optimiser.param_groups[1]["nesterov"] = 1
    optimiser.param_groups[1]["dampening"] = 0.5
    wrong = everything(optimiser)
    with pytest.raises(ValueError, match="nesterov"):
        optimiser.step(tensors(1))
    assert everything(optimiser) == wrong
    assert wrong[:2] == before[:2]


def test_a_parameter_that_has_another_shape_than_its_state_changes_nothing():
    params = [np.zeros(4), np.zeros(6)]
    optimiser = optim.Adam(params)
    params[1].resize((2, 3), refcheck=False)
    with pytest.raises(ValueError, match=r"params\[1\].*\(2, 3\).*\(6,\)"):
        optimiser.step([np.ones(4), np.ones((2, 3))])
    assert not np.any(params[0])
    assert optimiser.state_dict()["step"] == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@every_optimiser
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_gradients_that_are_not_finite(kind, options, bad, dtype):
    shapes = [(3,), (2, 2), (5000,)]
    params = tensors(0, dtype, shapes)
    optimiser = kind(params, **options)
    for index, position in ((0, 0), (1, 3), (2, 4096), (2, 4999)):
        grads = tensors(1, dtype, shapes)
        grads[index].flat[position] = bad
        before = everything(optimiser)
        assert optimiser.step(grads, skip_nonfinite=True) is False
        assert everything(optimiser) == before
    assert optimiser.step([np.full(s, np.finfo(dtype).max) for s in shapes], skip_nonfinite=True) is True
    # Without it, the element goes its own way and no other does.
    ours, theirs = tensors(0, dtype, shapes), tensors(0, dtype, shapes)
    good, spoilt = tensors(1, dtype, shapes), tensors(1, dtype, shapes)
    spoilt[2][7] = bad
    assert kind(theirs, **options).step(good) is True
    assert kind(ours, **options).step(spoilt) is True
    assert ours[2][7] != theirs[2][7]
    if kind is optim.SGD or math.isnan(bad):
        assert not np.isfinite(ours[2][7])
    ours[2][7] = theirs[2][7]
    assert all(np.array_equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_parameters_that_are_refused():
    x = np.zeros(4)
    read_only = np.zeros(4)
    read_only.flags.writeable = False
    for params, error, message in [
        (x, TypeError, "params"),
        ({"w": x}, TypeError, "params"),
        (3, TypeError, "params"),
        ([], ValueError, "params"),
        ([{"params": []}], ValueError, "params"),
        ([{"params": x}], TypeError, "params"),
        ([{"weights": [x]}], ValueError, "params"),
        ([{"params": [x], "learning_rate": 1}], ValueError, "learning_rate"),
        ([{"params": [x]}, np.zeros(2)], TypeError, "group"),
        ([[1.0, 2.0]], TypeError, "params"),
        ([x.astype(int)], TypeError, r"params\[0\]"),
        ([x, x.astype(">f8")], TypeError, r"params\[1\]"),
        ([x, read_only], TypeError, r"params\[1\].*read-only"),
        ([x, np.ones(2), x], ValueError, r"params\[0\] and params\[2\] share"),
        ([x[:3], x[2:]], ValueError, r"params\[0\] and params\[1\] share"),
        ([x, np.lib.stride_tricks.as_strided(np.zeros(1), (3,), (0,))], ValueError, r"params\[1\]"),
    ]:
        with pytest.raises(error, match=message):
            optim.SGD(params, lr=0.1)


def test_options_that_are_refused():
    for kind, options, message in [
        (optim.SGD, {"lr": -1}, "lr"),
        (optim.SGD, {"momentum": 2}, "momentum"),
        (optim.SGD, {"nesterov": True}, "nesterov"),
        (optim.Adam, {"betas": (0.9, 1.0)}, "beta2"),
        (optim.Adam, {"eps": -1}, "eps"),
        (optim.AdamW, {"weight_decay": -1}, "weight_decay"),
        (optim.Adagrad, {"lr_decay": -1}, "lr_decay"),
        (optim.Adagrad, {"initial_accumulator_value": -1}, "initial_accumulator_value"),
        (optim.RMSprop, {"alpha": 2}, "alpha"),
        (optim.FTRL, {"alpha": 0}, "alpha"),
        (optim.FTRL, {"l1": math.nan}, "l1"),
    ]:
        with pytest.raises(ValueError, match=message):
            kind([np.zeros(2)], **options)
    with pytest.raises(TypeError, match="betas"):
        optim.Adam([np.zeros(2)], betas=0.9)


@pytest.mark.parametrize(
    ("kind", "option"),
    [(k, o) for k in (optim.Adam, optim.AdamW) for o in ("amsgrad", "maximize", "fused", "foreach")]
    + [(optim.SGD, "maximize"), (optim.RMSprop, "centered"), (optim.Adagrad, "maximize")],
)
def test_an_option_of_torch_that_is_not_offered_is_named(kind, option):
    with pytest.raises(TypeError, match=option):
        kind([np.zeros(2)], **{option: True})
    with pytest.raises(ValueError, match=option):
        kind([{"params": [np.zeros(2)], option: True}])


def test_groups_have_options_of_their_own():
    a, b = np.ones(2), np.ones(2)
    optimiser = optim.SGD([{"params": [a], "lr": 1.0}, {"params": [b]}], lr=0.5)
    optimiser.step([np.ones(2), np.ones(2)])
    assert np.array_equal(a, [0, 0])
    assert np.array_equal(b, [0.5, 0.5])


def test_matrices_alone_are_decayed():
    params = [np.ones(shape) for shape in ((3,), (2, 3), (), (4, 2, 3, 3), (1, 1))]
    groups = optim.decay_matrices_only(params, 0.1)
    assert [[p.ndim for p in g["params"]] for g in groups] == [[2, 4, 2], [1, 0]]
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    optim.SGD(groups, lr=1.0).step([np.zeros_like(p) for g in groups for p in g["params"]])
    assert [float(p.min()) for p in params] == [1.0, 0.9, 1.0, 0.9, 0.9]
    with pytest.raises(TypeError, match="params"):
        optim.decay_matrices_only(np.ones(3), 0.1)


# ---- clip_grad_norm_ ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("layout", ["as is", *NATIVE])
def test_clipping(dtype, layout):
    shapes = [*SHAPES, (40, 300)]
    plain = tensors(5, dtype, shapes)
    relaid = NATIVE.get(layout, lambda x: x)
    grads = [relaid(g) for g in tensors(5, dtype, shapes)]
    wanted = math.sqrt(math.fsum(float(v) ** 2 for g in plain for v in g.ravel()))
    norm = optim.clip_grad_norm_(grads, 1.0)
    assert norm == pytest.approx(wanted, rel=1e-15)
    assert isinstance(norm, float)
    for g, p in zip(grads, plain, strict=True):
        assert np.array_equal(g, p * dtype(1 / (norm + 1e-6)))
    before = [g.copy() for g in grads]
    assert optim.clip_grad_norm_(grads, 2.0) == pytest.approx(1.0, rel=1e-5)
    assert all(np.array_equal(g, b) for g, b in zip(grads, before, strict=True))


def test_clipping_is_that_of_torch():
    of, grads = TORCH["clip_grad_norm_"], trajectories.tensors(1)
    assert optim.clip_grad_norm_(grads, of["max_norm"]) == pytest.approx(of["norm"], rel=1e-14)
    for ours, theirs in zip(grads, of["grads"], strict=True):
        assert np.allclose(ours.ravel(), theirs, rtol=1e-14, atol=0)


def test_norms_that_overflow_when_squared():
    for size in (1e300, 1e-300, 3e-160):
        grads = [np.full(3, size), np.full((2, 3), -size)]
        assert optim.clip_grad_norm_(grads, math.inf) == pytest.approx(3 * size, rel=1e-15)
    assert optim.clip_grad_norm_([np.zeros(3)], 1.0) == 0
    assert optim.clip_grad_norm_([], 1.0) == 0
    grads = [np.full(4, 2e38, np.float32)]
    assert optim.clip_grad_norm_(grads, 1.0) == pytest.approx(4e38, rel=1e-6)
    assert np.allclose(grads[0], 0.5)


@pytest.mark.usefixtures("every_isa")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norms_that_are_not_finite_clip_nothing(bad):
    grads = [np.ones(3), np.array([1.0, bad])]
    assert str(optim.clip_grad_norm_(grads, 1.0)) == str(bad)
    assert np.array_equal(grads[0], np.ones(3))
    with pytest.raises(ValueError, match="grads"):
        optim.clip_grad_norm_(grads, 1.0, error_if_nonfinite=True)


def test_clipping_refuses():
    x = np.ones(4)
    read_only = np.ones(4)
    read_only.flags.writeable = False
    for grads, max_norm, error, message in [
        (x, 1.0, TypeError, "grads"),
        ([x, [1.0]], 1.0, TypeError, r"grads\[1\]"),
        ([x, read_only], 1.0, TypeError, r"grads\[1\]"),
        ([x, x], 1.0, ValueError, "share"),
        ([x, np.ones(2, int)], 1.0, TypeError, r"grads\[1\]"),
        ([x], -1.0, ValueError, "max_norm"),
        ([x], math.nan, ValueError, "max_norm"),
    ]:
        with pytest.raises(error, match=message):
            optim.clip_grad_norm_(grads, max_norm)
        assert np.array_equal(x, np.ones(4))


# ---- state and checkpoints ---------------------------------------------------------------------------------------


def trained(kind, options, dtype=np.float64, steps=3):
    params = tensors(0, dtype)
    optimiser = kind(params, **options)
    for step in range(steps):
        optimiser.step(tensors(step + 1, dtype))
    return optimiser, params


@every_optimiser
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("how", ["dict", "file"])
@pytest.mark.parametrize("steps", [0, 3])
def test_training_goes_on_where_it_stopped(kind, options, dtype, how, steps, tmp_path):
    optimiser, params = trained(kind, options, dtype, steps)
    optimiser.param_groups[0]["l1"] = 0.025
    other_params = [p.copy() for p in params]
    other = kind(other_params, **options)
    if how == "dict":
        other.load_state_dict(optimiser.state_dict())
    else:
        optimiser.save(tmp_path / "state.npz")
        other.load(tmp_path / "state.npz")
    assert everything(other) == everything(optimiser)
    for step in range(3):
        optimiser.step(tensors(step + 7, dtype))
        other.step(tensors(step + 7, dtype))
    assert everything(other) == everything(optimiser)


def test_a_state_dict_is_a_copy():
    optimiser, _ = trained(optim.Adam, {})
    before = everything(optimiser)
    state = optimiser.state_dict()
    for of in state["state"].values():
        for x in of.values():
            x[...] = 7
    state["param_groups"][0]["lr"] = 7
    assert everything(optimiser) == before


def test_states_that_are_refused():
    optimiser, _ = trained(optim.Adam, {})
    before = everything(optimiser)

    def changed(path, value):
        state = optimiser.state_dict()
        at = state
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        return state

    for state in [
        None,
        {},
        [],
        changed(["optimizer"], "SGD"),
        changed(["step"], -1),
        changed(["step"], 1.5),
        changed(["step"], True),
        changed(["extra"], 1),
        changed(["param_groups"], []),
        changed(["param_groups", 0], 3),
        changed(["param_groups", 0, "lr"], -1.0),
        changed(["param_groups", 0, "lr"], "fast"),
        changed(["param_groups", 0, "betas"], 3),
        changed(["param_groups", 0, "surprise"], 3),
        changed(["param_groups", 0, "params"], [0]),
        changed(["state", 6], {}),
        changed(["state", 6, "exp_avg"], None),
        changed(["state", 6, "exp_avg"], [0.0] * 5000),
        changed(["state", 6, "exp_avg"], np.zeros(4999)),
        changed(["state", 6, "exp_avg"], np.zeros(5000, np.float32)),
        changed(["state", 17], {}),
    ]:
        with pytest.raises((TypeError, ValueError)):
            optimiser.load_state_dict(state)
        assert everything(optimiser) == before


def test_a_file_that_was_changed_anywhere_is_refused(tmp_path):
    """Every byte of a small checkpoint in turn: refused, or (where a byte has no meaning) the same state."""
    params = [np.ones(2), np.ones((2, 2))]
    optimiser = optim.SGD(params, lr=0.1, momentum=0.9)
    optimiser.step([np.ones(2), np.ones((2, 2))])
    path = tmp_path / "state.npz"
    optimiser.save(path)
    content = path.read_bytes()
    before = everything(optimiser)
    refused = []
    for i in range(len(content)):
        path.write_bytes(content[:i] + bytes([content[i] ^ 0x41]) + content[i + 1 :])
        try:
            optimiser.load(path)
        except ValueError as error:
            refused.append(str(error))
        assert everything(optimiser) == before
    assert len(refused) > 0.75 * len(content)
    assert all(str(path) in message for message in refused)
    for i in range(0, len(content), 7):
        path.write_bytes(content[:i])
        with pytest.raises(ValueError, match="not a checkpoint"):
            optimiser.load(path)
    path.write_bytes(content + bytes(1 << 25))
    with pytest.raises(ValueError, match="larger"):
        optimiser.load(path)
    assert everything(optimiser) == before


def test_files_that_are_no_checkpoints(tmp_path):
    optimiser = optim.SGD([np.ones(2)], lr=0.1, momentum=0.9)
    optimiser.step([np.ones(2)])
    path = tmp_path / "state.npz"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/pwned",)

    evil = np.array([Evil()], object)
    optimiser.save(path)
    with np.load(path) as archive:
        good = dict(archive)
    before = everything(optimiser)
    meta = json.loads(good["meta"].tobytes())
    for arrays in [
        {"x": np.zeros(3)},
        good | {"0.momentum_buffer": evil},
        good | {"meta": evil},
        good | {"more": np.zeros(3)},
        good | {"0.momentum_buffer": np.zeros(3)},
        good | {"0.momentum_buffer": np.zeros(2, np.float32)},
        good | {"0.momentum_buffer": np.full(2, 3.0)},
        good | {"sha256": np.zeros(32, np.uint8)},
        good | {"meta": np.frombuffer(json.dumps(meta | {"step": 5}).encode(), np.uint8)},
        {k: v for k, v in good.items() if k != "0.momentum_buffer"},
        {k: v for k, v in good.items() if k != "sha256"},
    ]:
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match="not a checkpoint"):
            optimiser.load(path)
        assert everything(optimiser) == before
    np.savez_compressed(path, **good)
    with pytest.raises(ValueError, match="entry"):
        optimiser.load(path)
    with zipfile.ZipFile(path, "w") as archive:  # a shape that would not fit in any memory
        header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"
        archive.writestr("0.momentum_buffer.npy", header.ljust(127) + b"\n")
    with pytest.raises(ValueError, match="shape"):
        optimiser.load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="not a checkpoint"):
        optimiser.load(path)
    with pytest.raises(OSError, match="nowhere"):
        optimiser.load(tmp_path / "nowhere")
    assert not (tmp_path / "pwned").exists()
    assert everything(optimiser) == before


def test_a_checkpoint_of_another_optimiser_is_refused(tmp_path):
    optimiser, _ = trained(optim.Adam, {})
    optimiser.save(tmp_path / "adam.npz")
    for other in (
        optim.SGD(tensors(0), momentum=0.9),
        optim.AdamW(tensors(0)),
        optim.Adam(tensors(0)[:-1]),
        optim.Adam(tensors(0, np.float32)),
        optim.Adam([{"params": tensors(0)[:2]}, {"params": tensors(0)[2:]}]),
        optim.Adam(tensors(0)[::-1]),
    ):
        before = everything(other)
        with pytest.raises(ValueError, match=r"adam\.npz|state_dict"):
            other.load(tmp_path / "adam.npz")
        assert everything(other) == before


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    optimiser, _ = trained(optim.SGD, {"lr": 0.1, "momentum": 0.9})
    path = tmp_path / "state.npz"
    optimiser.save(path)
    content = path.read_bytes()
    optimiser.step(tensors(9))

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        optimiser.save(path)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["state.npz"]
    monkeypatch.undo()
    optimiser.param_groups[0]["lr"] = object()
    with pytest.raises(TypeError, match="saved"):
        optimiser.save(path)
    assert path.read_bytes() == content


def test_a_save_is_on_the_disk_when_it_returns(tmp_path, monkeypatch):
    """The file before it takes its name, and on POSIX the folder after it."""
    optimiser, _ = trained(optim.SGD, {"lr": 0.1, "momentum": 0.9})
    synchronised, fsync = [], os.fsync

    def noted(handle):
        synchronised.append((stat.S_ISDIR(os.fstat(handle).st_mode), (tmp_path / "state.npz").exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    optimiser.save(tmp_path / "state.npz")
    assert synchronised == [(False, False), (True, True)][: 2 if os.name == "posix" else 1]


def test_five_thousand_arrays_are_saved(tmp_path):
    """Whose names and headers take more than they themselves do."""
    params = [np.full(1, float(i)) for i in range(5000)]
    optimiser = optim.SGD(params, lr=0.1, momentum=0.9)
    optimiser.step([np.ones(1)] * len(params))
    optimiser.save(tmp_path / "state.npz")
    other = optim.SGD([p.copy() for p in params], lr=0.1, momentum=0.9)
    other.load(tmp_path / "state.npz")
    optimiser.step(more := [np.full(1, 0.5)] * len(params))
    other.step(more)
    assert [p.item() for p in other.param_groups[0]["params"]] == [p.item() for p in params]


def test_saving_follows_a_link(tmp_path):
    optimiser, _ = trained(optim.SGD, {"lr": 0.1})
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "state")
    optimiser.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    optimiser.load(tmp_path / "real" / "state")


SAVES_FOREVER = """
import sys
import numpy as np
from fastreg import optim
p = np.zeros(200_000)
optimiser = optim.SGD([p], lr=1.0, momentum=1.0)
while True:
    optimiser.step([np.ones_like(p)])
    optimiser.save(sys.argv[1])
    print(end=".", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")
def test_killed_while_saving_the_old_or_the_new_file_is_there(tmp_path):
    """After n steps the buffer is n everywhere, and the step count says n: a mixture would show."""
    path = tmp_path / "state.npz"
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", SAVES_FOREVER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout.read(1) == b"."
        began, saves = time.perf_counter(), int(rng.integers(1, 6))
        assert process.stdout.read(saves) == saves * b"."
        time.sleep(rng.uniform(0, 2) * (time.perf_counter() - began) / saves)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        optimiser = optim.SGD([np.zeros(200_000)], lr=1.0, momentum=1.0)
        optimiser.load(path)
        state = optimiser.state_dict()
        assert state["step"] >= 1
        assert np.all(state["state"][0]["momentum_buffer"] == state["step"])
        seen.add(state["step"])
    assert len(seen) > 1


def test_several_threads_may_step_one_optimiser():
    from concurrent.futures import ThreadPoolExecutor

    params = [np.zeros(100_000), np.zeros(3)]
    optimiser = optim.SGD(params, lr=1.0)
    grads = [np.ones(100_000), np.ones(3)]
    with ThreadPoolExecutor(4) as callers:
        list(callers.map(lambda _: optimiser.step(grads), range(100)))
    assert all(np.all(p == -100) for p in params)
    assert optimiser.state_dict()["step"] == 100


# ---- sparse FTRL -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [1, 200, 1000, 200_000])
@pytest.mark.parametrize("count", [0, 1, 5, 64, 3000])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_a_sparse_step_is_the_dense_one_at_its_coordinates(features, count, dtype, pool):
    rng = np.random.default_rng(count)
    w, z = (rng.standard_normal(features).astype(dtype) for _ in range(2))
    n = rng.random(features).astype(dtype)
    indices = rng.integers(0, features, count)
    # Sixteenths, so that sums of duplicates are exact in any order.
    grad = (rng.integers(-64, 64, count) / 16).astype(dtype)
    dense = [w.copy(), z.copy(), n.copy()]
    total = np.zeros(features, dtype)
    np.add.at(total, indices, grad)
    touched = np.isin(np.arange(features), indices)
    parts = [x[touched] for x in (dense[0], total, dense[1], dense[2])]
    fastreg.ftrl_step(*parts, l1=0.3)
    for x, part in zip(dense, (parts[0], parts[2], parts[3]), strict=True):
        x[touched] = part
    kept = indices.copy(), grad.copy()
    fastreg.ftrl_step_sparse(w, indices, grad, z, n, l1=0.3)
    assert all(np.array_equal(a, b) for a, b in zip((w, z, n), dense, strict=True))
    assert np.array_equal(indices, kept[0])
    assert np.array_equal(grad, kept[1])


def test_gradients_of_one_coordinate_are_summed_in_double_in_their_order():
    grad = np.array([1, 2.0**-30, 5, -1, 2.0**-60, -(2.0**-30)], np.float32)
    w, z, n = (np.zeros(3, np.float32) for _ in range(3))
    fastreg.ftrl_step_sparse(w, [2, 2, 0, 2, 2, 2], grad, z, n)
    assert z.tolist() == [5, 0, 2.0**-60]
    w, z, n = (np.zeros(3, np.float32) for _ in range(3))
    fastreg.ftrl_step_sparse(w, [2, 2, 0, 2, 2, 2], grad[[4, 0, 2, 3, 1, 5]], z, n)
    assert z.tolist() == [5, 0, 0]


def test_sparse_steps_refuse():
    w, z, n = np.zeros(5), np.zeros(5), np.zeros(5)
    for arguments, error, message in [
        ((w, [5], [1.0], z, n), ValueError, "indices"),
        ((w, [-1], [1.0], z, n), ValueError, "indices"),
        ((w, np.array([2**63], np.uint64), [1.0], z, n), ValueError, "indices"),
        ((w, [1.0], [1.0], z, n), TypeError, "indices"),
        ((w, [True], [1.0], z, n), TypeError, "indices"),
        ((w, [1, 2], [1.0], z, n), ValueError, "grad"),
        ((np.zeros((5, 1)), [1], [1.0], z, n), ValueError, "param"),
        ((w, [1], [1.0], w, n), ValueError, "share"),
        ((w, [1], [1.0], z, z), ValueError, "share"),
        ((w, [1], [1.0], z.astype(np.float32), n), TypeError, "z"),
    ]:
        with pytest.raises(error, match=message):
            fastreg.ftrl_step_sparse(*arguments)
    assert not np.any([w, z, n])


def test_a_sparse_step_takes_a_gradient_that_is_a_view_of_the_model():
    w, z, n = np.arange(5.0), np.arange(5.0), np.ones(5)
    copies = w.copy(), z.copy(), n.copy()
    fastreg.ftrl_step_sparse(w, np.arange(5), w[::-1], z, n)
    fastreg.ftrl_step_sparse(copies[0], np.arange(5), np.arange(5.0)[::-1].copy(), *copies[1:])
    assert np.array_equal(w, copies[0])


def test_the_reference_knows_the_same_start():
    w = np.array([0.5, 0.0, -1.0])
    options = {"alpha": 0.2, "beta": 0.5, "l1": 0.3, "l2": 0.1}
    n = np.array([1.0, 2.0, 3.0])
    z = fastreg.ftrl_init_z(w, n, **options)
    assert np.allclose(z, reference.ftrl_init_z(w, n, **options), rtol=1e-15)
    again = np.ones(3)
    reference.ftrl_step(again, np.zeros(3), z.copy(), n.copy(), **options)
    # A step without gradient leaves z and n, so param is the closed form of them.
    assert np.allclose(again, w, rtol=1e-15)


def test_repr_says_what_is_optimised():
    groups = [{"params": [np.ones(2), np.ones(3)], "lr": 0.5}, {"params": [np.ones(1)]}]
    lines = repr(optim.SGD(groups, lr=0.25, momentum=0.9)).splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("SGD(", ")", 4)
    assert "    2 tensors: lr=0.5, " in lines[1] + ", "
    assert "    1 tensor: lr=0.25, " in lines[2] + ", "


def test_a_number_of_numpy_is_saved(tmp_path):
    one, other = (optim.SGD([np.ones(2)], lr=np.float32(0.1), momentum=0.9) for _ in range(2))
    one.step([np.ones(2)])
    one.save(tmp_path / "state")
    other.load(tmp_path / "state")
    assert everything(other)[1:] == everything(one)[1:]
    strange = optim.SGD([np.ones(2)], lr=0.1)
    strange.param_groups[0]["lr"] = 1j
    with pytest.raises(TypeError, match="complex"):
        strange.save(tmp_path / "state")


def test_files_that_are_almost_checkpoints(tmp_path, monkeypatch):
    optimiser = optim.SGD([np.ones(2)], lr=0.1, momentum=0.9)
    optimiser.step([np.ones(2)])
    path = tmp_path / "state"
    optimiser.save(path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    arrays = {name.removesuffix(".npy"): np.load(io.BytesIO(entry)) for name, entry in entries.items()}
    before = everything(optimiser)

    def refused(message, changed):
        with zipfile.ZipFile(path, "w") as archive:
            for name, entry in (entries | changed).items():
                archive.writestr(name, entry)
        with pytest.raises(ValueError, match=message):
            optimiser.load(path)
        assert everything(optimiser) == before

    def entry(array, version=(1, 0)):
        file = io.BytesIO()
        np.lib.format.write_array(file, array, version)
        return file.getvalue()

    buffer = "0.momentum_buffer.npy"
    refused("version", {buffer: entry(arrays["0.momentum_buffer"], (2, 0))})
    refused("cut off", {buffer: entries[buffer][:-1]})
    # Another format's own checksum is right.
    meta = json.dumps(json.loads(arrays["meta"].tobytes()) | {"format": 99}).encode()
    rest = {name: x for name, x in arrays.items() if name not in ("meta", "sha256")}
    checksum = np.frombuffer(optim._checksum(meta, rest), np.uint8)
    refused("format is another", {"meta.npy": entry(np.frombuffer(meta, np.uint8)), "sha256.npy": entry(checksum)})

    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr(optim, "_parsed", no_memory)
    with pytest.raises(MemoryError):
        optimiser.load(path)


@pytest.mark.usefixtures("every_isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("position", [0, 31, 2047, 2048, 4999])
def test_a_gradient_that_is_not_finite_anywhere(dtype, position):
    optimiser = optim.SGD([np.ones(5000, dtype)], lr=0.5)
    for bad in (np.nan, np.inf, -np.inf):
        grad = np.full(5000, np.finfo(dtype).max, dtype)
        assert optimiser.step([grad], skip_nonfinite=True) is True
        grad[position] = bad
        assert optimiser.step([grad], skip_nonfinite=True) is False


# ---- what shares memory ------------------------------------------------------------------------------------------


@every_optimiser
def test_a_gradient_may_be_a_view_of_its_parameter(kind, options):
    """In any order: as if it had been copied first."""
    for view in (lambda p: p, lambda p: p[::-1], lambda p: p[:, ::-1]):
        params, expected = ([np.random.default_rng(3).standard_normal((40, 50))] for _ in range(2))
        kind(expected, **options).step([view(expected[0]).copy()])
        kind(params, **options).step([view(params[0])])
        assert np.array_equal(params[0], expected[0])


def test_parameters_that_nobody_can_tell_apart_are_refused():
    """Whether two views share an element can take for ever to find out: then it is taken that they do."""
    memory = np.zeros(1 << 22, np.float32)
    rng = np.random.default_rng(4)
    rng.integers(10, 17)

    def tangle(start):
        """Of 15 axes of two elements, each stride beyond the reach of those before: no element twice in one view."""
        strides, reach = [], 0
        for _ in range(15):
            strides.append(4 * (reach + 1 + int(rng.integers(0, 2 + reach // 4))))
            reach += strides[-1] // 4
        rng.shuffle(strides)
        return np.lib.stride_tricks.as_strided(memory[start:], (2,) * 15, strides)

    params = [tangle(0), tangle(int(rng.integers(0, 2000)))]
    with pytest.raises(np.exceptions.TooHardError):
        np.shares_memory(*params, max_work=100_000)
    with pytest.raises(ValueError, match="params"):
        optim.SGD(params, lr=0.1)


def test_momentum_needs_its_buffer():
    with pytest.raises(ValueError, match="momentum_buffer"):
        fastreg.rmsprop_step(np.zeros(3), np.ones(3), np.zeros(3), momentum=0.9)
