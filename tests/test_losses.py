"""What only the losses promise: their definitions, derivatives, sums and the manners of `reduction` and `out`."""

import math
import tracemalloc

import mpmath
import numpy as np
import pytest
from conftest import DTYPES, ISAS

import fastreg
from fastreg import fastreg_runtime as runtime

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


def smooth_l1(x, t, beta):
    """The definition, in mpmath."""
    d = abs(mpmath.mpf(x) - mpmath.mpf(t))
    return d * d / (2 * beta) if d < beta else d - mpmath.mpf(beta) / 2


def huber(x, t, delta):
    d = abs(mpmath.mpf(x) - mpmath.mpf(t))
    return d * d / 2 if d < delta else delta * (d - mpmath.mpf(delta) / 2)


def logistic(x, t):
    x, t = mpmath.mpf(x), mpmath.mpf(t)
    return t * mpmath.log(1 + mpmath.exp(-x)) + (1 - t) * mpmath.log(1 + mpmath.exp(x))


DEFINITIONS = {
    "binary_cross_entropy_with_logits": (logistic, {}),
    "huber_loss": (huber, {"delta": 0.75}),
    "l1_loss": (lambda x, t: abs(mpmath.mpf(x) - mpmath.mpf(t)), {}),
    "mse_loss": (lambda x, t: (mpmath.mpf(x) - mpmath.mpf(t)) ** 2, {}),
    "smooth_l1_loss": (smooth_l1, {"beta": 0.75}),
}
every_loss = pytest.mark.parametrize("name", DEFINITIONS)


@every_loss
def test_is_its_definition(name):
    definition, options = DEFINITIONS[name]
    rng = np.random.default_rng(1)
    x, t = rng.normal(size=200) * 2, rng.random(200)
    got = getattr(fastreg, name)(x, t, reduction="none", **options)
    for g, xi, ti in zip(got, x, t, strict=True):
        wanted = definition(float(xi), float(ti), **options)
        assert abs(g - wanted) <= 2e-15 * abs(wanted)


@every_loss
def test_gradient_is_the_derivative(name):
    """Against mpmath's own numerical derivative of the definition."""
    definition, options = DEFINITIONS[name]
    rng = np.random.default_rng(2)
    x, t = rng.normal(size=50) * 2, rng.random(50)
    _, grad = getattr(fastreg, name)(x, t, reduction="none", return_grad=True, **options)
    for g, xi, ti in zip(grad, x, t, strict=True):
        wanted = mpmath.diff(lambda v, ti=ti: definition(v, float(ti), **options), float(xi), h=mpmath.mpf("1e-8"))
        assert abs(g - wanted) <= 1e-7 * max(1, abs(wanted))


@every_loss
@every_dtype
def test_reductions_agree(name, dtype):
    """Each reduction is that of the losses that are not reduced, weights and gradients included."""
    function, options = getattr(fastreg, name), DEFINITIONS[name][1]
    rng = np.random.default_rng(3)
    for shape in ((), (1,), (7, 5), (3, 2049)):
        x, t = rng.normal(size=(2, *shape)).astype(dtype)
        for weight in (None, rng.random(shape[-1:]).astype(dtype)):
            each, slope = function(x, t, weight=weight, reduction="none", return_grad=True, **options)
            total, total_grad = function(x, t, weight=weight, reduction="sum", return_grad=True, **options)
            mean, mean_grad = function(x, t, weight=weight, return_grad=True, **options)
            exact = math.fsum(np.ravel(each).tolist())
            assert isinstance(total, float)
            assert isinstance(mean, float)
            bound = 1e-14 + np.finfo(dtype).eps  # four terms are added in their own dtype, in two levels of half an ulp
            assert abs(total - exact) <= bound * exact
            assert abs(mean - exact / np.size(x)) <= bound * exact / np.size(x)
            assert np.array_equal(total_grad, slope)
            np.testing.assert_allclose(mean_grad, slope / dtype(np.size(x)), rtol=4 * np.finfo(dtype).eps)
            assert function(x, t, weight=weight, reduction="sum", **options) == total
            assert function(x, t, weight=weight, **options) == mean


@every_loss
def test_empty(name):
    function, options, empty = getattr(fastreg, name), DEFINITIONS[name][1], np.zeros((0, 3), np.float32)
    assert function(empty, empty, reduction="sum", **options) == 0.0
    mean, grad = function(empty, empty, return_grad=True, **options)
    assert math.isnan(mean)
    assert grad.shape == (0, 3)
    assert function(empty, empty, reduction="none", **options).shape == (0, 3)


@every_loss
def test_the_wider_dtype_counts(name):
    function, options = getattr(fastreg, name), DEFINITIONS[name][1]
    x, t = np.array([0.1, 3.0], np.float32), np.array([0.3, 0.7])
    for a, b in ((x, t), (t, x)):
        loss, grad = function(a, b, return_grad=True, **options)
        assert grad.dtype == np.float64
        assert loss == function(a.astype(float), b.astype(float), **options)


@every_loss
def test_bad_calls_are_refused(name):
    function, options, x = getattr(fastreg, name), DEFINITIONS[name][1], np.zeros((2, 3))
    for kind, word, more in (
        (ValueError, "target", {"target": np.zeros(3)}),
        (ValueError, "weight", {"weight": np.zeros(2)}),
        (ValueError, "reduction", {"reduction": "average"}),
        (ValueError, "out", {"out": np.zeros((2, 3))}),
        (ValueError, "out", {"out": np.zeros(3), "return_grad": True}),
        (TypeError, "out", {"out": np.zeros((2, 3), np.float32), "return_grad": True}),
        (TypeError, "weight", {"weight": np.zeros(3, complex)}),
    ):
        with pytest.raises(kind, match=word):
            function(**({"input": x, "target": x} | options | more))


@pytest.mark.parametrize("delta", [0.0, -1.0, math.nan, math.inf, "1", np.ones(2)])
def test_bad_delta_is_refused(delta):
    with pytest.raises((TypeError, ValueError), match="delta"):
        fastreg.huber_loss([1.0], [2.0], delta=delta)


@every_dtype
def test_sums_that_only_double_can_hold(dtype):
    """Pairs of terms may overflow float32 where their sum in double does not."""
    x = np.full(100, 0.75 * np.finfo(np.float32).max, dtype)
    for out in (None, x.copy()):
        assert fastreg.l1_loss(x, np.zeros_like(x), return_grad=True, out=out)[0] == float(x[0])
    assert fastreg.l1_loss(x, np.zeros_like(x), weight=np.ones_like(x)) == float(x[0])


@pytest.mark.parametrize("beta", [-1.0, math.nan, math.inf, "1", np.ones(2)])
def test_bad_beta_is_refused(beta):
    with pytest.raises((TypeError, ValueError), match="beta"):
        fastreg.smooth_l1_loss([1.0], [2.0], beta=beta)


def test_beta_beyond_float32_is_refused():
    x = np.ones(2, np.float32)
    with pytest.raises(ValueError, match="beta"):
        fastreg.smooth_l1_loss(x, x, beta=1e39)


@every_dtype
def test_beta_zero_is_l1_with_slope_zero_at_the_kink(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([0.0, 1.5, -2.0, tiny, -tiny, np.inf, np.nan], dtype)
    loss, grad = fastreg.smooth_l1_loss(x, np.zeros_like(x), beta=0, reduction="none", return_grad=True)
    np.testing.assert_array_equal(loss, np.abs(x))
    np.testing.assert_array_equal(grad, np.sign(x))


@every_dtype
def test_smooth_l1_is_exactly_linear_far_out(dtype):
    """The clipped slope is exactly 1, and nothing overflows that need not."""
    huge = np.finfo(dtype).max
    x = np.array([10.0, -10.0, huge, -huge], dtype)
    loss, grad = fastreg.smooth_l1_loss(x, np.zeros_like(x), beta=0.3, reduction="none", return_grad=True)
    np.testing.assert_array_equal(loss, np.abs(x) - dtype(0.5) * dtype(0.3))
    np.testing.assert_array_equal(grad, np.sign(x))


def test_float32_sums_are_those_of_double():
    """Ten million equal float32 terms: single precision would be off in the fourth digit."""
    x = np.full(10_000_001, 0.1, np.float32)
    wanted = float(x[0]) - 0.0
    got = fastreg.smooth_l1_loss(x, np.zeros_like(x), beta=0)
    assert abs(got - wanted) <= 2 * np.spacing(wanted)


@pytest.mark.parametrize("term", [1 + 2.0**-23, 1 - 2.0**-24, 0.1], ids=["above", "below", "tenth"])
@pytest.mark.parametrize("n", [64, 4096, 10**7 + 13])
def test_float32_terms_of_one_sign_are_within_two_ulp(term, n):
    """Two additions in float32, each of half an ulp at most: alternating terms make every one of them round."""
    x = np.full(n, term, np.float32)
    x[::3] = 1
    exact = math.fsum(x.tolist())
    got = fastreg.l1_loss(x, np.zeros_like(x), reduction="sum")
    assert abs(got - exact) <= 2.0**-23 * exact
    assert fastreg.l1_loss(x, np.zeros_like(x), weight=np.float32(1), reduction="sum") == got


@every_loss
def test_training_allocates_no_array(name):
    """With `out` for the gradient: what a loop of calls has in use at any moment is some hundredths of an array."""
    function, options = getattr(fastreg, name), DEFINITIONS[name][1]
    x, t = np.random.default_rng(11).random((2, 1 << 18)).astype(np.float32)
    out = np.empty_like(x)
    function(x, t, return_grad=True, out=out, **options)
    tracemalloc.start()
    for _ in range(5):
        _, grad = function(x, t, return_grad=True, out=out, **options)
        assert grad is out
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < x.nbytes / 50


def test_training_on_classes_allocates_a_number_a_row():
    x, target = np.random.default_rng(12).random((4096, 200)).astype(np.float32), np.arange(4096) % 200
    out = np.empty_like(x)
    fastreg.cross_entropy(x, target, return_grad=True, out=out)
    tracemalloc.start()
    for _ in range(5):
        fastreg.cross_entropy(x, target, return_grad=True, out=out)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < x.nbytes / 50


@every_dtype
def test_beta_one_is_huber(dtype):
    x, t = np.random.default_rng(13).normal(size=(2, 5000)).astype(dtype) * 2
    for more in ({}, {"weight": x}, {"reduction": "none"}):
        got = fastreg.smooth_l1_loss(x, t, beta=1.0, return_grad=True, **more)
        wanted = fastreg.huber_loss(x, t, delta=1.0, return_grad=True, **more)
        assert np.array_equal(got[0], wanted[0])
        assert np.array_equal(got[1], wanted[1])
        near = fastreg.smooth_l1_loss(x, t, beta=np.nextafter(1, 2), return_grad=True, **more)
        np.testing.assert_allclose(near[0], wanted[0], rtol=1e-5)
        np.testing.assert_allclose(near[1], wanted[1], rtol=1e-5)


@every_dtype
def test_slopes_at_and_beside_their_kinks(dtype):
    """At |d| = delta both sides agree; at the kink of l1 the slope is 0, of the sign that d has."""
    one = dtype(1)
    x = np.array([one, -one, np.nextafter(one, 0, dtype=dtype), np.nextafter(one, 2, dtype=dtype)], dtype)
    for slope in (
        fastreg.huber_loss(x, np.zeros_like(x), reduction="none", return_grad=True)[1],
        fastreg.smooth_l1_loss(x, np.zeros_like(x), reduction="none", return_grad=True)[1],
    ):
        np.testing.assert_array_equal(slope, np.clip(x, -1, 1))
    zeros = np.array([0.0, -0.0], dtype)
    slope = fastreg.l1_loss(zeros, np.zeros_like(zeros), reduction="none", return_grad=True)[1]
    np.testing.assert_array_equal(slope, [0, 0])


@every_dtype
@pytest.mark.parametrize("more", [0, 5, 64, 2047, 2048 + 63])
@pytest.mark.usefixtures("every_isa")
def test_large_gradients_are_the_small_ones(dtype, more):
    """From 8 MB on gradients are stored past the caches: not a bit may depend on it, wherever they begin in a line."""
    n = (1 << 23) // np.dtype(dtype).itemsize + more
    x, t = np.random.default_rng(5).normal(size=(2, n)).astype(dtype)
    _, each = fastreg.smooth_l1_loss(x, t, return_grad=True, reduction="none")
    loss, _ = fastreg.smooth_l1_loss(x, t, return_grad=True, reduction="sum", out=x.copy())
    room = np.empty(n + 18, dtype)
    for begin in (0, 1, 3, 8, 12, 15):
        room[:] = 7
        out = room[begin : begin + n]
        assert fastreg.smooth_l1_loss(x, t, return_grad=True, reduction="sum", out=out)[0] == loss
        assert np.array_equal(out, each)
        assert (room[:begin] == 7).all()
        assert (room[begin + n :] == 7).all()


# ---- binary cross-entropy ----------------------------------------------------------------------------------------


@every_dtype
def test_bce_is_stable_and_exact_at_infinity(dtype):
    x = np.array([1e4, -1e4, 1e4, -1e4, np.inf, -np.inf, np.inf, -np.inf, np.nan], dtype)
    t = np.array([1, 0, 0, 1, 1, 0, 0, 1, 1], dtype)
    loss, grad = fastreg.binary_cross_entropy_with_logits(x, t, reduction="none", return_grad=True)
    np.testing.assert_array_equal(loss, [0, 0, 1e4, 1e4, 0, 0, np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(grad, [0, 0, 1, -1, 0, 0, 1, -1, np.nan])


@pytest.mark.parametrize("x", [30.0, 100.0, 700.0])
def test_bce_keeps_the_precision_of_small_losses(x):
    """log(1 + e^−x) is about e^−x, far below the spacing of 1."""
    got = fastreg.binary_cross_entropy_with_logits([x], [1.0])
    assert abs(got - mpmath.log1p(mpmath.exp(-x))) <= 1e-15 * got


def test_bce_weight_of_positives():
    rng = np.random.default_rng(6)
    x, t, p = rng.normal(size=(4, 3)), rng.random((4, 3)), np.array([0.5, 1.0, 3.0])
    loss, grad = fastreg.binary_cross_entropy_with_logits(x, t, pos_weight=p, reduction="none", return_grad=True)
    np.testing.assert_allclose(loss, p * t * np.log1p(np.exp(-x)) + (1 - t) * np.log1p(np.exp(x)), rtol=1e-13)
    np.testing.assert_allclose(grad, (1 - t) / (1 + np.exp(-x)) - p * t / (1 + np.exp(x)), rtol=1e-13, atol=1e-16)
    with pytest.raises(ValueError, match="pos_weight"):
        fastreg.binary_cross_entropy_with_logits(x, t, pos_weight=np.ones(4))


# ---- cross-entropy -----------------------------------------------------------------------------------------------


@every_dtype
def test_rows_longer_than_the_first_cache(dtype):
    """The same bits on every instruction set; the largest, of which there are two, wherever they stand."""
    x = np.random.default_rng(9).normal(size=(3, 20011)).astype(dtype)
    found = []
    for isa in ISAS:
        runtime._use_isa(isa)
        for at in (0, 31, 4096, 10007, 20010):
            row = x.copy()
            row[:, [at, -1 - at]] = 100
            loss, grad = fastreg.cross_entropy(row, np.full(3, at), return_grad=True)
            assert abs(loss - (0 if 2 * at + 1 == row.shape[1] else np.log(2))) <= 1e-6
            found.append([loss, *map(np.ndarray.tobytes, (grad, fastreg.softmax(row), fastreg.log_softmax(row)))])
    for others in (found[5:10], found[10:]):
        assert not others or others == found[:5]


def entropy(x, q):
    """−Σ q·log softmax(x) over the last axis, in mpmath."""
    losses = []
    for row, share in zip(x.reshape(-1, x.shape[-1]), q.reshape(-1, x.shape[-1]), strict=True):
        log_sum = mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(v)) for v in row.tolist()))
        losses.append(mpmath.fsum(s * (log_sum - v) for v, s in zip(row.tolist(), share.tolist(), strict=True) if s))
    return losses


@pytest.mark.usefixtures("every_isa")
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("kind", ["indices", "probabilities"])
def test_cross_entropy_is_its_definition(kind, weighed, smoothing):
    rng = np.random.default_rng(7)
    x, w = rng.normal(size=(6, 37)) * 4, rng.random(37) if weighed else np.ones(37)
    index, t = rng.integers(0, 37, 6), rng.dirichlet(np.ones(37), 6)
    target = index if kind == "indices" else t
    q = w * ((1 - smoothing) * (np.eye(37)[index] if kind == "indices" else t) + smoothing / 37)
    options = {"weight": w if weighed else None, "label_smoothing": smoothing}
    each, slope = fastreg.cross_entropy(x, target, reduction="none", return_grad=True, **options)
    wanted = entropy(x, q)
    assert max(abs(g - e) for g, e in zip(each, wanted, strict=True)) <= 1e-13
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    np.testing.assert_allclose(slope, q.sum(-1, keepdims=True) * p - q, rtol=1e-12, atol=1e-15)
    divisor = w[index].sum() if kind == "indices" else 6
    mean, grad = fastreg.cross_entropy(x, target, return_grad=True, **options)
    assert abs(mean - mpmath.fsum(wanted) / divisor) <= 1e-13
    np.testing.assert_allclose(grad, slope / divisor, rtol=1e-12, atol=1e-15)
    assert abs(fastreg.cross_entropy(x, target, reduction="sum", **options) - mpmath.fsum(wanted)) <= 1e-12


@every_dtype
def test_cross_entropy_has_classes_on_axis_1(dtype):
    rng = np.random.default_rng(8)
    x, target = rng.normal(size=(2, 5, 3, 4)).astype(dtype), rng.integers(0, 5, (2, 3, 4))
    loss, grad = fastreg.cross_entropy(x, target, return_grad=True)
    flat = np.moveaxis(x, 1, -1).reshape(-1, 5)
    wanted, slope = fastreg.cross_entropy(flat, target.ravel(), return_grad=True)
    assert loss == wanted
    assert np.array_equal(np.moveaxis(grad, 1, -1).reshape(-1, 5), slope)
    assert fastreg.cross_entropy(x, target, reduction="none").shape == (2, 3, 4)
    for out in (np.empty_like(x), x.copy(), np.asfortranarray(x)):
        assert fastreg.cross_entropy(x, target, return_grad=True, out=out)[1] is out
        assert np.array_equal(out, grad)


@pytest.mark.usefixtures("every_isa")
@every_dtype
def test_cross_entropy_ignores_what_it_is_told_to(dtype):
    x = np.random.default_rng(9).normal(size=(4, 3)).astype(dtype)
    target = np.array([0, -100, 2, -100])
    loss, grad = fastreg.cross_entropy(x, target, return_grad=True)
    wanted, slope = fastreg.cross_entropy(x[::2], target[::2], return_grad=True)
    assert loss == wanted
    assert np.array_equal(grad[::2], slope)
    assert not grad[1::2].any()
    assert math.isnan(fastreg.cross_entropy(x, np.full(4, -100)))
    assert fastreg.cross_entropy(x, np.full(4, 7), ignore_index=7, reduction="sum") == 0.0


@every_dtype
def test_cross_entropy_is_stable(dtype):
    x = np.array([[1e4, -1e4, 0], [-np.inf, 0, -np.inf], [0, -1e4, 1e4]], dtype)
    loss, grad = fastreg.cross_entropy(x, np.array([0, 1, 0]), reduction="none", return_grad=True)
    np.testing.assert_array_equal(loss, np.array([0, 0, 1e4], dtype))
    np.testing.assert_array_equal(grad, [[0, 0, 0], [0, 0, 0], [-1, 0, 1]])
    one_hot = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], dtype)
    np.testing.assert_array_equal(fastreg.cross_entropy(x, one_hot, reduction="none"), loss)
    assert fastreg.cross_entropy(x, np.array([1, 0, 1]), reduction="none")[1] == np.inf


def test_cross_entropy_in_place_of_its_probabilities():
    rng = np.random.default_rng(10)
    x, t = rng.normal(size=(4, 3)), rng.dirichlet(np.ones(3), 4)
    wanted = fastreg.cross_entropy(x, t, return_grad=True)[1]
    assert np.array_equal(fastreg.cross_entropy(x, t, return_grad=True, out=t)[1], wanted)


def test_cross_entropy_bad_calls_are_refused():
    x, y = np.zeros((4, 3)), np.array([0, 1, 2, 0])
    for kind, word, more in (
        (ValueError, "input", {"input": np.zeros(3)}),
        (ValueError, "target", {"target": y[:3]}),
        (ValueError, "target", {"target": np.array([0, 1, 3, 0])}),
        (ValueError, "target", {"target": np.array([0, 1, -1, 0])}),
        (ValueError, "target", {"target": np.zeros((4, 2))}),
        (TypeError, "target", {"target": np.zeros((4, 3), complex)}),
        (ValueError, "weight", {"weight": np.ones(4)}),
        (ValueError, "label_smoothing", {"label_smoothing": 1.5}),
        (TypeError, "ignore_index", {"ignore_index": 1.5}),
        (ValueError, "reduction", {"reduction": "average"}),
        (ValueError, "out", {"out": np.zeros((4, 3))}),
    ):
        with pytest.raises(kind, match=word):
            fastreg.cross_entropy(**({"input": x, "target": y} | more))
