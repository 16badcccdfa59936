"""Normalisation: what only this family promises."""

import numpy as np
import pytest
from conftest import DTYPES, ISAS

import fastreg
from fastreg import fastreg_runtime as runtime

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
SHAPES = [(3, 5), (2, 3), (9, 70), (600, 7), (4, 3, 7), (700, 5, 3), (5, 20, 16), (3, 4, 5, 6), (2, 3, 100, 101)]


def oracle(x, weight, bias, grad, *, eps, relu=False, training=True, mean=None, var=None):
    """y, mean, rstd, grad_x, grad_weight, grad_bias from the definition.

    In extended precision, on x less an element of each channel: an exact difference where the mean is large, so that
    nothing of the variance is lost.
    """
    wide = np.longdouble
    others = tuple(d for d in range(x.ndim) if d != 1)
    along = (1, -1) + (1,) * (x.ndim - 2)
    weight, bias, grad = weight.astype(wide).reshape(along), bias.astype(wide).reshape(along), grad.astype(wide)
    origin = x[(slice(0, 1), slice(None)) + (slice(0, 1),) * (x.ndim - 2)].astype(wide)
    d = x.astype(wide) - origin
    m = d.mean(others, keepdims=True) if training else mean.astype(wide).reshape(along) - origin
    v = ((d - m) ** 2).mean(others, keepdims=True) if training else var.astype(wide).reshape(along)
    rstd = 1 / np.sqrt(v + wide(eps))
    xhat = (d - m) * rstd
    y = xhat * weight + bias
    if relu:
        grad = np.where(y <= 0, 0, grad)
        y = np.where(y <= 0, 0, y)
    n = x.size // x.shape[1]
    grad_bias = grad.sum(others, keepdims=True)
    grad_weight = (grad * xhat).sum(others, keepdims=True)
    grad_x = weight * rstd * ((grad - grad_bias / n - xhat * grad_weight / n) if training else grad)
    return y, (m + origin).ravel(), rstd.ravel(), grad_x, grad_weight.ravel(), grad_bias.ravel()


def ulps(got, wanted, terms=0):
    """The largest distance, in units in the last place of the largest element wanted (or its terms)."""
    assert got.shape == wanted.shape
    largest = max(np.abs(wanted).max(), np.abs(terms).max())
    unit = np.spacing(np.nextafter(largest.astype(got.dtype), got.dtype.type(0)))
    return float(np.abs(got.astype(np.longdouble) - wanted).max() / unit)


def example(shape, dtype, ratio=0.0, seed=0):
    rng = np.random.default_rng([seed, *shape])
    x = np.asarray(rng.standard_normal(shape) + ratio, dtype)
    weight, bias = (np.asarray(rng.standard_normal(shape[1]), dtype) for _ in range(2))
    return x, weight, bias, np.asarray(rng.standard_normal(shape), dtype)


# Worst case of the last pass, in half units: x − hi, − lo, the rounding of scale, the product, the sum: five, of which
# two meet an element with luck against them. f64 adds the sums' own rounding.
BOUND = {np.float32: 2, np.float64: 8}


@every_dtype
@pytest.mark.parametrize("ratio", [0, 3, 1e3, 1e6, -1e6])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batch_norm_is_exact_for_any_mean(dtype, ratio, shape):
    x, weight, bias, grad = example(shape, dtype, ratio)
    for relu in (False, True):
        activation = "relu" if relu else None
        wanted = oracle(x, weight, bias, grad, eps=1e-5, relu=relu)
        y, mean, rstd = fastreg.batch_norm(
            x, None, None, weight, bias, training=True, activation=activation, return_stats=True
        )
        grads = fastreg.batch_norm_backward(grad, x, mean, rstd, weight, bias=bias, activation=activation)
        assert ulps(y, wanted[0]) <= BOUND[dtype]
        assert ulps(rstd, wanted[2]) <= BOUND[dtype]
        assert ratio == 0 or ulps(mean, wanted[1]) <= 1
        # With two or three values a channel, the gradient is what little is left of these terms.
        along = (1, -1) + (1,) * (x.ndim - 2)
        assert ulps(grads[0], wanted[3], grad * (weight * wanted[2]).reshape(along)) <= BOUND[dtype]


@every_dtype
def test_batch_norm_of_a_constant_channel_is_the_bias(dtype):
    rng = np.random.default_rng(1)
    for shape in ((7, 3), (3, 3, 50), (300, 3), (2, 3, 90, 100)):
        for value in (0.1, 1e30, -7.3e-12):
            x = np.full(shape, value, dtype)
            bias = np.asarray(rng.standard_normal(3), dtype)
            y, mean, rstd = fastreg.batch_norm(x, bias=bias, training=True, return_stats=True)
            assert np.array_equal(y, np.broadcast_to(bias.reshape(1, 3, *[1] * (len(shape) - 2)), shape))
            assert np.array_equal(mean, x[0].reshape(3, -1)[:, 0])
            assert np.all(rstd == dtype(1 / np.sqrt(1e-5)))


@every_dtype
def test_batch_norm_of_huge_values_does_not_overflow(dtype):
    for shape in ((64, 3), (4, 3, 77)):
        x, weight, bias, grad = example(shape, dtype)
        y = fastreg.batch_norm((x * dtype(1e30)), None, None, weight, bias, training=True, eps=0.0)
        assert ulps(y, oracle(x * dtype(1e30), weight, bias, grad, eps=0.0)[0]) <= BOUND[dtype]


@every_dtype
@pytest.mark.parametrize("shape", [(37, 5), (6, 5, 40)], ids=str)
def test_a_poor_provisional_mean_is_made_better(dtype, shape):
    """The first elements of each channel lie 10⁹ standard deviations away from the others' mean."""
    x, weight, bias, grad = example(shape, dtype)
    x[0] = 0
    x[1:] = x[1:] * dtype(1e-3) + dtype(1e6)
    y = fastreg.batch_norm(x, None, None, weight, bias, training=True, eps=0.0)
    assert ulps(y, oracle(x, weight, bias, grad, eps=0.0)[0]) <= BOUND[dtype]


@every_dtype
def test_batch_norm_gradients_are_those_of_central_differences(dtype):
    del dtype
    for shape in ((5, 3), (2, 3, 4), (2, 2, 17)):
        x, weight, bias, grad = example(shape, np.float64, 0.5)
        for activation in (None, "relu"):
            _, mean, rstd = fastreg.batch_norm(x, training=True, return_stats=True)
            got = fastreg.batch_norm_backward(grad, x, mean, rstd, weight, bias=bias, activation=activation)
            for array, gradient in zip((x, weight, bias), got, strict=True):
                for index in np.ndindex(array.shape):
                    kept, sides = array[index], []
                    for step in (1e-5, -1e-5):
                        array[index] = kept + step
                        y = fastreg.batch_norm(x, None, None, weight, bias, training=True, activation=activation)
                        sides.append((y * grad).sum())
                    array[index] = kept
                    assert abs((sides[0] - sides[1]) / 2e-5 - gradient[index]) < 1e-7


@every_dtype
@pytest.mark.parametrize("shape", [(9, 4), (3, 4, 20)], ids=str)
def test_batch_norm_inference(dtype, shape):
    x, weight, bias, grad = example(shape, dtype)
    rng = np.random.default_rng(5)
    mean, var = np.asarray(rng.standard_normal(4), dtype), np.asarray(rng.random(4) + 0.5, dtype)
    wanted = oracle(x, weight, bias, grad, eps=1e-5, training=False, mean=mean, var=var)
    y, m, rstd = fastreg.batch_norm(x, mean, var, weight, bias, return_stats=True)
    assert np.array_equal(m, mean)
    got = (y, rstd, *fastreg.batch_norm_backward(grad, x, m, rstd, weight, training=False))
    for g, w in zip(got, (wanted[0], *wanted[2:]), strict=True):
        assert ulps(g, w) <= BOUND[dtype]


@every_dtype
def test_running_statistics(dtype):
    x, *_ = example((6, 3, 20), dtype, 2.0)
    mean, var = np.full(3, 5, dtype), np.full(3, 7, dtype)
    fastreg.batch_norm(x, mean, var, training=True, momentum=0.25)
    wide = x.astype(np.float64)
    assert np.allclose(mean, 0.75 * 5 + 0.25 * wide.mean((0, 2)), rtol=4 * np.finfo(dtype).eps)
    assert np.allclose(var, 0.75 * 7 + 0.25 * wide.var((0, 2), ddof=1), rtol=4 * np.finfo(dtype).eps)


@every_dtype
def test_empty_batch_leaves_the_running_statistics_alone(dtype):
    for shape in ((0, 3), (0, 3, 20), (2, 3, 0)):
        mean, var = np.full(3, 5, dtype), np.full(3, 7, dtype)
        y = fastreg.batch_norm(np.empty(shape, dtype), mean, var, training=True)
        assert y.shape == shape
        assert np.all(mean == 5)
        assert np.all(var == 7)
        assert fastreg.batch_norm(np.empty(shape, dtype), mean, var).shape == shape
        got = fastreg.batch_norm_backward(np.empty(shape, dtype), np.empty(shape, dtype), mean, var)
        assert [g.shape for g in got] == [shape, (3,), (3,)]
        assert not got[1].any()
        assert not got[2].any()


def test_bad_calls_say_what_to_do():
    x, one = np.zeros((4, 3)), np.ones(3)
    for call in (
        lambda: fastreg.batch_norm(x),
        lambda: fastreg.batch_norm(x, one),
        lambda: fastreg.batch_norm(x[:1], training=True),
    ):
        with pytest.raises(ValueError, match=r"eval mode.*layer_norm.*group_norm"):
            call()
    with pytest.raises(ValueError, match="running_mean and running_var"):
        fastreg.batch_norm(x, one, one, training=True)
    for bad in (
        {"momentum": 1.5},
        {"momentum": np.nan},
        {"eps": -1.0},
        {"eps": np.nan},
        {"activation": "gelu"},
        {"axis": 2},
        {"weight": np.ones(4)},
        {"bias": np.ones((3, 1))},
        {"running_mean": np.ones(2)},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            fastreg.batch_norm(x, **({"running_mean": one, "running_var": one.copy(), "training": True} | bad))
    with pytest.raises(ValueError, match="grad"):
        fastreg.batch_norm_backward(x[:2], x, one, one)


def test_channels_last_is_the_same_arithmetic_up_to_the_order_of_sums():
    x, weight, bias, grad = example((4, 5, 6, 7), np.float64, 3.0)
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    y = fastreg.batch_norm(last, None, None, weight, bias, training=True, axis=-1)
    assert ulps(np.moveaxis(y, -1, 1), oracle(x, weight, bias, grad, eps=1e-5)[0]) <= 8


@every_dtype
@pytest.mark.parametrize("shape", [(1030, 33), (300, 700), (40, 3, 5), (37, 20, 50), (3, 2, 160, 170)], ids=str)
def test_every_way_through_the_kernels_gives_the_same_bits(dtype, shape, pool):
    """Whole channels or steps, any number of threads, any instruction set, any layout."""
    x, weight, bias, grad = example(shape, dtype, 2.0)

    def both(x, grad):
        y, mean, rstd = fastreg.batch_norm(
            x, None, None, weight, bias, training=True, activation="relu", return_stats=True
        )
        return (y, *fastreg.batch_norm_backward(grad, x, mean, rstd, weight, bias=bias, activation="relu"))

    runtime._use_isa("baseline")
    fastreg.set_num_threads(1)
    wanted = both(x, grad)
    for isa in ISAS:
        runtime._use_isa(isa)
        for threads in (1, 3):
            fastreg.set_num_threads(threads)
            for layout in (np.ascontiguousarray, np.asfortranarray, lambda a: a[::-1].copy()[::-1]):
                for got, want in zip(both(layout(x), layout(grad)), wanted, strict=True):
                    assert np.array_equal(got, want)
