"""Normalisation: what only this family promises."""

import functools
import itertools
import re
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
from bits import same_bits
from conftest import DTYPES, ISAS
from layouts import exchanged

import fastreg
from fastreg import fastreg_runtime as runtime
from fastreg import reference

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
SHAPES = [
    (3, 5),
    (2, 3),
    (9, 70),
    (600, 7),
    (4, 3, 7),
    (700, 5, 3),
    (5, 20, 16),
    (3, 4, 5, 6),
    (2, 3, 100, 101),
    (8, 70, 64),
    (700, 5, 2),
    (1, 5, 20),
]


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


# Of the last pass in f32: x − hi, the product and the sum, 1 + ½ + ½ (norm.inc, line_of). f64 adds the sums' rounding.
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


STRANGE = {
    "large bias": {"bias": 1e4},
    "bias beyond f32's range of quotients": {"bias": 1e30, "weight": 1e-8},
    "no weight left": {"weight": 0.0},
    "tiny weight": {"weight": 1e-36},
    "huge values": {"x": 1e30},
    "tiny values": {"x": 1e-30},
    "gradient like a constant": {"level": 1e3},
    "gradient like x": {"slope": 1.0},
    "huge gradient": {"grad": 1e25},
}


@pytest.mark.parametrize("shape", [(90, 4), (3, 4, 70), (2, 4, 5000), (40, 4, 3)], ids=str)
@pytest.mark.parametrize("case", STRANGE.values(), ids=STRANGE)
def test_f32_is_exact_where_its_own_arithmetic_would_not_be(case, shape):
    """Channels whose last pass has to be in double, among others. eps = 0, so that all scales are alike."""
    x, weight, bias, grad = example(shape, np.float32, 0.5)
    odd = np.s_[:, 1::2]
    x[odd] *= np.float32(case.get("x", 1))
    weight[1::2] *= np.float32(case.get("weight", 1))
    bias[1::2] *= np.float32(case.get("bias", 1))
    grad[odd] = grad[odd] * np.float32(case.get("grad", 1)) + np.float32(case.get("level", 0))
    grad[odd] += np.float32(case.get("slope", 0)) * 3 * x[odd]
    wanted = oracle(x, weight, bias, grad, eps=0.0)
    y, mean, rstd = fastreg.batch_norm(x, None, None, weight, bias, training=True, eps=0.0, return_stats=True)
    grads = fastreg.batch_norm_backward(grad, x, mean, rstd, weight)
    along = (1, -1) + (1,) * (x.ndim - 2)
    terms = grad * (weight * wanted[2]).reshape(along)
    for c in range(4):
        assert ulps(y[:, c], wanted[0][:, c]) <= BOUND[np.float32]
        assert ulps(grads[0][:, c], wanted[3][:, c], terms[:, c]) <= BOUND[np.float32]
        assert ulps(grads[2][c : c + 1], wanted[5][c : c + 1], np.abs(grad[:, c]).sum()) <= 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the unit of ru_maxrss")
@pytest.mark.parametrize("layout", ["C", "F", "reversed", "every other"])
def test_no_temporary_is_as_large_as_the_input(layout):
    """In a process of its own: the most memory it ever held, over x, grad, out and the gradient that is returned."""
    program = f"""
import resource
import numpy as np
import fastreg

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def array(value):
    shape = (64, 64, 60, 62 if {layout!r} == "every other" else 31)
    a = np.full(shape, value, np.float32, order="F" if {layout!r} == "F" else "C")
    a[::2] += 1
    return {{"reversed": a[::-1, :, ::-1], "every other": a[..., ::2]}}.get({layout!r}, a)

fastreg.set_num_threads(2)
x, grad, out = array(1.0), array(2.0), array(0.0)
stats = np.ones(64, np.float32), np.ones(64, np.float32)
for axis in (1, -3):
    before = peak()
    fastreg.batch_norm(x, training=True, axis=axis, activation="relu", out=out)
    fastreg.batch_norm(x, *stats, axis=axis, out=out)
    fastreg.layer_norm(x, (64, 60, 31), out=out)
    fastreg.group_norm(x, 8, out=out)
    fastreg.instance_norm(x, out=out)
    fastreg.batch_norm_stats(x, axis=axis)
    assert peak() - before < x.nbytes // 4, (axis, peak() - before, x.nbytes)
before = peak()
fastreg.batch_norm_backward(grad, x, *stats)
assert peak() - before < x.nbytes * 5 // 4, (peak() - before, x.nbytes)
for backward, shape in ((fastreg.layer_norm_backward, (64, 64, 60)), (fastreg.group_norm_backward, (64, 8)),
                        (fastreg.instance_norm_backward, (64, 64))):
    ones = np.ones(shape, np.float32)
    backward(grad, x, ones, ones)
    assert peak() - before < x.nbytes * 5 // 4, (backward, peak() - before, x.nbytes)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.usefixtures("every_isa")
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


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize("shape", [(37, 5), (6, 5, 40), (3, 400, 100)], ids=str)
def test_a_poor_provisional_mean_is_made_better(dtype, shape):
    """The first elements of each channel, or row, lie 10⁹ standard deviations away from the others' mean."""
    x, weight, bias, grad = example(shape, dtype)
    x = x * dtype(1e-3) + dtype(1e6)
    x[(0, ..., np.s_[:8])[: x.ndim]] = 0
    y = fastreg.batch_norm(x, None, None, weight, bias, training=True, eps=0.0)
    assert ulps(y, oracle(x, weight, bias, grad, eps=0.0)[0]) <= BOUND[dtype]
    rows, weight, bias, grad = example((5, 300), dtype)
    rows = rows * dtype(1e-3) + dtype(1e6)
    rows[:, :8] = 0
    y = fastreg.layer_norm(rows, 300, weight, bias, eps=0.0)
    assert ulps(y, slice_oracle(rows, weight, bias, grad, eps=0.0)[0]) <= BOUND[dtype]


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
def test_batch_norm_inference_by_statistics_of_both_dtypes(dtype):
    """One of them in double: the other is taken as the number that it is."""
    x, weight, bias, _ = example((9, 4), dtype)
    mean, var = example((4, 4), np.float32)[0][:2]
    wanted = fastreg.batch_norm(x, mean.astype(np.float64), np.abs(var).astype(np.float64), weight, bias)
    for means, variances in ((np.float32, np.float64), (np.float64, np.float32)):
        y = fastreg.batch_norm(x, mean.astype(means), np.abs(var).astype(variances), weight, bias)
        assert np.array_equal(y, wanted)


@every_dtype
def test_parameters_may_lie_in_out(dtype):
    """As if they had been copied first."""
    x, weight, bias, _ = example((4, 3, 20), dtype)
    kept = example((4, 3), dtype)[0] ** 2
    for name in ("running_mean", "running_var", "weight", "bias"):
        given = {"running_mean": kept[0], "running_var": kept[1], "weight": weight, "bias": bias}
        wanted = fastreg.batch_norm(x, **given)
        out = np.empty(x.shape, dtype)
        given[name] = out.ravel()[7:10]
        given[name][:] = {"running_mean": kept[0], "running_var": kept[1], "weight": weight, "bias": bias}[name]
        fastreg.batch_norm(x, **given, out=out)
        assert np.array_equal(out, wanted), name


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
    with pytest.raises(ValueError, match="weight: got a scalar"):
        fastreg.fold_batch_norm(1.0, None, one, one)
    stats = np.ones((4, 1))
    for name, call in (
        ("mean", lambda: fastreg.batch_norm_backward(x, x, None, one)),
        ("rstd", lambda: fastreg.batch_norm_backward(x, x, one, None)),
        ("mean", lambda: fastreg.layer_norm_backward(x, x, None, one)),
        ("rstd", lambda: fastreg.layer_norm_backward(x, x, np.ones(4), None)),
        ("rstd", lambda: fastreg.rms_norm_backward(x, x, None)),
        ("mean", lambda: fastreg.group_norm_backward(x, x, None, stats)),
        ("rstd", lambda: fastreg.group_norm_backward(x, x, stats, None)),
    ):
        with pytest.raises(TypeError, match=f"{name}: got None"):
            call()


def test_channels_last_is_the_same_arithmetic_up_to_the_order_of_sums():
    x, weight, bias, grad = example((4, 5, 6, 7), np.float64, 3.0)
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    y = fastreg.batch_norm(last, None, None, weight, bias, training=True, axis=-1)
    assert ulps(np.moveaxis(y, -1, 1), oracle(x, weight, bias, grad, eps=1e-5)[0]) <= 8


@every_dtype
@pytest.mark.parametrize(
    "shape",
    [(1030, 33), (300, 700), (40, 3, 5), (37, 20, 50), (3, 2, 160, 170), (3, 17, 30, 40), (1, 4099, 20)],
    ids=str,
)
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


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize("shape", [(7, 3, 13 * 16384 + 3), (4100, 1030), (4100, 1040)], ids=str)
def test_results_that_go_past_the_caches(dtype, shape):
    """Above 16 MB they are stored without being read; in another layout they are not, and not a bit depends on it."""
    x, grad = np.random.default_rng(0).standard_normal((2, *shape)).astype(dtype)
    weight, bias = np.random.default_rng(1).standard_normal((2, shape[1])).astype(dtype)
    rows = np.random.default_rng(2).standard_normal((2, shape[-1])).astype(dtype)

    def results(layout):
        a, g = layout(x), layout(grad)
        y, mean, rstd = fastreg.batch_norm(a, None, None, weight, bias, training=True, return_stats=True)
        yield y
        yield from fastreg.batch_norm_backward(g, a, mean, rstd, weight)
        yield fastreg.batch_norm(a, mean, rstd, weight, activation="relu")
        z, *statistics = fastreg.layer_norm(a, shape[-1], *rows, return_stats=True)
        yield z
        yield from fastreg.layer_norm_backward(g, a, *statistics, rows[0])
        yield fastreg.rms_norm(a, shape[-1], rows[0])
        if len(shape) > 2:
            z, *statistics = fastreg.group_norm(a, 1, weight, bias, return_stats=True)
            yield z
            yield from fastreg.group_norm_backward(g, a, *statistics, weight)

    for past, through in zip(results(np.ascontiguousarray), results(np.asfortranarray), strict=True):
        assert np.array_equal(past, through)


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize("length", [1037, 8192 // 4 + 513])
def test_rows_past_the_caches_that_begin_anywhere_in_a_vector(dtype, length):
    """Rows of odd length, permuted: on the baseline, too, they begin within a vector, and neighbours begin alike."""
    rows = (1 << 24) // (16 * length * np.dtype(dtype).itemsize) + 7
    x, grad = np.random.default_rng(0).standard_normal((2, 16, rows | 1, length)).astype(dtype)
    weight = np.random.default_rng(1).standard_normal(length).astype(dtype)

    def gradients(layout):
        _, mean, rstd = fastreg.layer_norm(layout(x), length, return_stats=True)
        return fastreg.layer_norm_backward(layout(grad), layout(x), mean, rstd, weight), mean, rstd

    for poisoned in (False, True):
        if poisoned:
            x[3, 5] = np.nan  # the other row of its pair is written as ever
        wanted, mean, rstd = gradients(lambda a: a)
        for got, want in zip(gradients(exchanged)[0], wanted, strict=True):
            assert np.array_equal(got, want, equal_nan=True)
        if not poisoned:
            terms = grad * ((x.astype(np.float64) - mean[..., np.newaxis]) * rstd[..., np.newaxis])
            # Six roundings each, by the tree of eight: below 2^-21 of their sum.
            for got, each in zip(wanted[1:], (terms, grad.astype(np.float64)), strict=True):
                assert np.all(np.abs(got - each.sum((0, 1))) <= 2.0**-21 * np.abs(each).sum((0, 1)))


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize("run", [17, 49, 196, 1024, 1031])
@pytest.mark.parametrize("groups", [12, 3])
def test_gradients_of_slices_past_the_caches(dtype, run, groups):
    """Runs that end within a line are put together on their way: the same as of halves, and of another layout."""
    samples = (1 << 25) // (3 * 12 * run * np.dtype(dtype).itemsize) + 3
    x, grad = np.random.default_rng(0).standard_normal((2, samples, 12, run)).astype(dtype)
    weight = np.random.default_rng(1).standard_normal(12).astype(dtype)
    grad[1::7, 4:6] = 3  # like a constant: in double
    x[5, 7, 3] = np.nan
    *_, mean, rstd = fastreg.group_norm(x, groups, return_stats=True)

    def gradients(part, layout=np.asarray):
        return fastreg.group_norm_backward(layout(grad[part]), layout(x[part]), mean[part], rstd[part], weight)

    past = gradients(slice(None))
    for part in (slice(samples // 2), slice(samples // 2, None)):
        assert np.array_equal(past[0][part], gradients(part)[0], equal_nan=True)
    for got, want in zip(past, gradients(slice(None), np.asfortranarray), strict=True):
        assert np.array_equal(got, want, equal_nan=True)


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize("run", [48, 64, 80, 128, 203])
@pytest.mark.parametrize("groups", [12, 6, 2])
def test_gradients_of_slices_that_begin_anywhere_in_a_line(dtype, run, groups):
    """f32 with AVX-512 goes by lines of the cache where all three arrays begin alike: the result, that cannot
    be placed, begins like one of these. Some runs are computed in double: the first, the last, neighbours."""
    shape = (5, 12, run)
    x, _, _, grad = example(shape, dtype, 0.5)
    weight = np.random.default_rng(1).standard_normal(12).astype(dtype)
    grad[0, :2] = grad[1, 4:8] = grad[-1, -2:] = 3  # like a constant
    grad[2, 6:] = grad[:, 6:9] = 0  # the results are zeros, whose signs the weights decide
    weight[6:10] = -1, -1.3, -0.7, -0.0
    x[3, 7, 3] = np.nan
    forward, mean, rstd = fastreg.group_norm(exchanged(x), groups, weight, return_stats=True)
    wanted = fastreg.group_norm_backward(exchanged(grad), exchanged(x), mean, rstd, weight)
    by_channel = fastreg.batch_norm(np.nan_to_num(x), None, None, weight, training=True, return_stats=True)[1:]
    of_channels = fastreg.batch_norm_backward(exchanged(grad), exchanged(np.nan_to_num(x)), *by_channel, weight)
    item = x.itemsize
    for begin in range(0, 64, item):
        placed = []
        for array in (x, grad, np.nan_to_num(x)):
            room = np.empty(array.nbytes + 128, np.uint8)
            at = (begin - room.ctypes.data) % 64
            there = room[at : at + array.nbytes].view(dtype).reshape(shape)
            there[...] = array
            placed.append(there)
        for got, want in zip(
            fastreg.group_norm_backward(placed[1], placed[0], mean, rstd, weight), wanted, strict=True
        ):
            same_bits([got], [want], begin)
        for got, want in zip(
            fastreg.batch_norm_backward(placed[1], placed[2], *by_channel, weight), of_channels, strict=True
        ):
            same_bits([got], [want], begin)
        for out in (placed[1], placed[0]):
            same_bits([fastreg.group_norm(placed[0], groups, weight, out=out)], [forward], begin)


# ---- layer, RMS, group and instance norm -------------------------------------------------------------------------


def slice_oracle(x, weight, bias, grad, *, eps, rms=False):
    """Of rows: y, mean, rstd, grad_x from the definition, as in `oracle`."""
    wide = np.longdouble
    weight, bias, grad = weight.astype(wide), bias.astype(wide), grad.astype(wide)
    origin = x[:, :1].astype(wide) * (0 if rms else 1)
    d = x.astype(wide) - origin
    m = 0 if rms else d.mean(1, keepdims=True)
    rstd = 1 / np.sqrt(((d - m) ** 2).mean(1, keepdims=True) + wide(eps))
    xhat = (d - m) * rstd
    v = grad * weight
    through_mean = 0 if rms else v.mean(1, keepdims=True)
    grad_x = rstd * (v - through_mean - xhat * (v * xhat).mean(1, keepdims=True))
    return (
        xhat * weight + (0 if rms else bias),
        (m + origin)[:, 0],
        rstd[:, 0],
        grad_x,
        (grad * xhat).sum(0),
        grad.sum(0),
    )


ROWS = [(3, 2), (5, 40), (70, 33), (9, 768), (2, 20000)]


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize("ratio", [0, 3, 1e3, 1e6, -1e6])
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_layer_norm_is_exact_for_any_mean(dtype, ratio, shape):
    x, weight, bias, grad = example(shape, dtype, ratio)
    wanted = slice_oracle(x, weight, bias, grad, eps=1e-5)
    y, mean, rstd = fastreg.layer_norm(x, shape[1], weight, bias, return_stats=True)
    got = fastreg.layer_norm_backward(grad, x, mean, rstd, weight)
    assert ulps(y, wanted[0]) <= BOUND[dtype]
    assert ulps(rstd, wanted[2]) <= BOUND[dtype]
    assert ratio == 0 or ulps(mean, wanted[1]) <= 1
    terms = grad * weight * wanted[2][:, np.newaxis]
    assert ulps(got[0], wanted[3], terms) <= BOUND[dtype]
    assert ulps(got[1], wanted[4], grad) <= 2 * BOUND[dtype]
    assert ulps(got[2], wanted[5], grad) <= BOUND[dtype]
    bare = fastreg.layer_norm_backward(grad, x, mean, rstd)
    terms = grad * wanted[2][:, np.newaxis]
    assert ulps(bare[0], slice_oracle(x, np.ones_like(weight), bias, grad, eps=1e-5)[3], terms) <= BOUND[dtype]


@every_dtype
@pytest.mark.parametrize("scale", [1, 1e30, 1e-30])
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_rms_norm_is_exact(dtype, scale, shape):
    x, weight, bias, grad = example(shape, dtype, 0.5)
    x = x * dtype(scale)
    wanted = slice_oracle(x, weight, bias, grad, eps=0.0, rms=True)
    y, rstd = fastreg.rms_norm(x, shape[1], weight, eps=0.0, return_stats=True)
    assert ulps(y, wanted[0]) <= BOUND[dtype]
    if scale == 1:
        got = fastreg.rms_norm_backward(grad, x, rstd, weight)
        assert ulps(got[0], wanted[3], grad * weight * wanted[2][:, np.newaxis]) <= BOUND[dtype]
        assert ulps(got[1], wanted[4], grad) <= 2 * BOUND[dtype]


@pytest.mark.usefixtures("every_isa")
@every_dtype
def test_constant_rows_give_the_bias(dtype):
    bias = np.asarray(np.random.default_rng(2).standard_normal(6), dtype)
    for value in (0.1, 1e30, -7.3e-12):
        x = np.full((4, 6, 50), value, dtype)
        assert np.array_equal(fastreg.layer_norm(x[..., 0], 6, None, bias), np.broadcast_to(bias, (4, 6)))
        wanted = np.broadcast_to(bias[:, np.newaxis], x.shape)
        assert np.array_equal(fastreg.group_norm(x, 2, None, bias), wanted)
        assert np.array_equal(fastreg.instance_norm(x, None, None, None, bias), wanted)


def test_group_and_instance_norm_are_layer_norms_of_their_slices():
    x, weight, bias, _ = example((3, 6, 40), np.float64, 2.0)
    rows = fastreg.layer_norm(x.reshape(9, 80), 80).reshape(x.shape)
    along = (1, 6, 1)
    assert np.allclose(fastreg.group_norm(x, 3, weight, bias), rows * weight.reshape(along) + bias.reshape(along))
    rows = fastreg.layer_norm(x, 40)
    assert np.allclose(fastreg.instance_norm(x, None, None, weight), rows * weight.reshape(along))
    mean, var = np.arange(6.0), np.arange(1.0, 7.0)
    for_all = fastreg.instance_norm(x, mean, var, weight, use_input_stats=False)
    assert np.array_equal(for_all, fastreg.batch_norm(x, mean, var, weight))


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize(("channels", "groups", "inner"), [(600, 2, 17), (300, 1, 40), (513, 1, 3), (64, 4, 16)])
def test_groups_of_any_number_of_channels(dtype, channels, groups, inner):
    """More than the 256 that are taken together, too; a row of a group is its channels' runs, one after the other."""
    x, weight, bias, grad = example((3, channels, inner), dtype, 2.0)

    def as_groups(a):
        return a.reshape(3 * groups, -1)

    along = [np.tile(np.repeat(a, inner).reshape(groups, -1), (3, 1)) for a in (weight, bias)]
    wanted = slice_oracle(as_groups(x), along[0], along[1], as_groups(grad), eps=1e-5)
    y, mean, rstd = fastreg.group_norm(x, groups, weight, bias, return_stats=True)
    grad_x, grad_weight, grad_bias = fastreg.group_norm_backward(grad, x, mean, rstd, weight)
    terms = as_groups(grad) * along[0] * wanted[2][:, np.newaxis]
    assert ulps(as_groups(y), wanted[0]) <= BOUND[dtype]
    assert ulps(mean.ravel(), wanted[1]) <= 1
    assert ulps(rstd.ravel(), wanted[2]) <= BOUND[dtype]
    assert ulps(as_groups(grad_x), wanted[3], terms) <= BOUND[dtype]
    xhat = (as_groups(x).astype(np.longdouble) - wanted[1][:, np.newaxis]) * wanted[2][:, np.newaxis]
    each = grad.astype(np.longdouble) * xhat.reshape(x.shape)
    assert ulps(grad_weight, each.sum((0, 2)), each) <= 2 * BOUND[dtype]
    assert ulps(grad_bias, grad.astype(np.longdouble).sum((0, 2)), grad) <= BOUND[dtype]


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize("scale", [1 / 64, 1, 64])
@pytest.mark.parametrize(("channels", "groups", "inner"), [(8, 2, 40), (6, 1, 100), (3, 3, 130), (70, 1, 40)])
def test_gradients_of_which_little_is_left(dtype, scale, channels, groups, inner):
    """Much like a constant or like x, whatever the weights: most of grad·weight cancels. f32 works in double there, and
    rounds once (norm.inc, slope_of); the rounding of rstd, which is given, is not this function's."""
    wide = np.longdouble
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = np.asarray(rng.standard_normal((3, channels, inner)) + rng.choice([0, 3]), dtype)
        weight = np.asarray(rng.choice([-scale, scale], channels) * (1 + rng.random(channels)), dtype)
        _, mean, rstd = fastreg.group_norm(x, groups, weight, return_stats=True)
        each = np.repeat(np.tile(weight.reshape(groups, -1), (3, 1)), inner, 1)
        d = x.reshape(3 * groups, -1).astype(wide)
        d -= d.mean(1, keepdims=True)
        r = rstd.reshape(-1, 1).astype(wide)
        for constant, like_x in ((1, 0), (0, 1), (1, 1)):
            grad = np.asarray((constant + like_x * d * r + 0.05 * rng.standard_normal(d.shape)) / each, dtype)
            v = grad * each.astype(wide)
            wanted = r * (v - v.mean(1, keepdims=True) - d * r * (v * d * r).mean(1, keepdims=True))
            got = fastreg.group_norm_backward(grad.reshape(x.shape), x, mean, rstd, weight)[0]
            assert ulps(got.reshape(d.shape), wanted, v * r) <= {np.float32: 1, np.float64: 8}[dtype]


@pytest.mark.usefixtures("every_isa")
@every_dtype
def test_gradients_of_a_repeated_sample(dtype):
    """x repeats a sample without copying it, so that the gradient's array has another layout than x."""
    sample, weight, _, grad = example((3, 2, 5000), dtype)
    x = np.broadcast_to(sample[:1], sample.shape)
    _, mean, rstd = fastreg.batch_norm(x, training=True, return_stats=True)
    for got, want in zip(
        fastreg.batch_norm_backward(grad, x, mean, rstd, weight),
        fastreg.batch_norm_backward(grad, x.copy(), mean, rstd, weight),
        strict=True,
    ):
        assert np.array_equal(got, want)


def test_gradients_of_slices_are_those_of_central_differences():
    rng = np.random.default_rng(3)
    calls = (
        ((3, 5), lambda x, w, b: fastreg.layer_norm(x, 5, w, b, return_stats=True), fastreg.layer_norm_backward, 5),
        ((2, 4, 3), lambda x, w, b: fastreg.group_norm(x, 2, w, b, return_stats=True), fastreg.group_norm_backward, 4),
        ((2, 4, 17), lambda x, w, b: fastreg.group_norm(x, 2, w, b, return_stats=True), fastreg.group_norm_backward, 4),
        (
            (2, 3, 5),
            lambda x, w, b: fastreg.instance_norm(x, None, None, w, b, return_stats=True),
            fastreg.instance_norm_backward,
            3,
        ),
        ((3, 5), lambda x, w, b: fastreg.rms_norm(x, 5, w, return_stats=True), fastreg.rms_norm_backward, 5),
    )
    for shape, forward, backward, parameters in calls:
        x, grad = rng.standard_normal(shape), rng.standard_normal(shape)
        weight, bias = rng.standard_normal(parameters), rng.standard_normal(parameters)
        _, *statistics = forward(x, weight, bias)
        for array, gradient in zip((x, weight, bias), backward(grad, x, *statistics, weight), strict=False):
            for index in np.ndindex(array.shape):
                kept, sides = array[index], []
                for step in (1e-5, -1e-5):
                    array[index] = kept + step
                    sides.append((forward(x, weight, bias)[0] * grad).sum())
                array[index] = kept
                assert abs((sides[0] - sides[1]) / 2e-5 - gradient[index]) < 1e-7, backward.__name__


def test_bad_calls_of_slices_name_the_argument():
    x, v = np.zeros((2, 6, 4)), np.zeros(6)
    for name, call in (
        ("normalized_shape", lambda: fastreg.layer_norm(x, 6)),
        ("normalized_shape", lambda: fastreg.layer_norm(x, ())),
        ("normalized_shape", lambda: fastreg.rms_norm(x, (2, 6, 4, 1))),
        ("weight", lambda: fastreg.layer_norm(x, 4, v)),
        ("bias", lambda: fastreg.layer_norm(x, 4, None, v)),
        ("eps", lambda: fastreg.rms_norm(x, 4, eps=-1)),
        ("num_groups", lambda: fastreg.group_norm(x, 4)),
        ("num_groups", lambda: fastreg.group_norm(x, 0)),
        ("weight", lambda: fastreg.group_norm(x, 3, np.zeros(3))),
        ("x", lambda: fastreg.group_norm(v, 3)),
        ("rstd", lambda: fastreg.layer_norm_backward(x, x, np.zeros((2, 6)), np.zeros(2))),
        ("mean", lambda: fastreg.layer_norm_backward(x, x, x, x)),
        ("mean", lambda: fastreg.group_norm_backward(x, x, np.zeros(2), np.zeros(2))),
        ("mean", lambda: fastreg.instance_norm_backward(x, x, np.zeros((2, 3)), np.zeros((2, 3)))),
        ("grad", lambda: fastreg.rms_norm_backward(x[:1], x, np.zeros((2, 6)))),
        (r"eval mode.*layer_norm.*group_norm", lambda: fastreg.instance_norm(x[..., :1])),
        ("running_mean", lambda: fastreg.instance_norm(x, use_input_stats=False)),
        ("running_mean", lambda: fastreg.instance_norm(x, np.zeros(5))),
        ("momentum", lambda: fastreg.instance_norm(x, momentum=2.0)),
        ("running_mean and running_var", lambda: fastreg.instance_norm(x, v, v)),
    ):
        with pytest.raises(ValueError, match=name):
            call()


# ---- statistics of parts -----------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("axis", [1, -1])
def test_parts_merge_to_the_whole_in_any_split_and_order(dtype, axis):
    rng = np.random.default_rng(4)
    x = np.asarray(rng.standard_normal((61, 7, 30)) * 3 + 1e3, dtype)
    others = (0, 2) if axis == 1 else (0, 1)
    exact = x.astype(np.longdouble) - np.longdouble(1e3)
    for cuts in ([0, 61], [0, 1, 61], [0, 7, 8, 8, 30, 61], [0, *sorted(rng.integers(0, 61, 20)), 61]):
        parts = [fastreg.batch_norm_stats(x[a:b], axis=axis) for a, b in itertools.pairwise(cuts)]
        rng.shuffle(parts)
        while len(parts) > 1:
            parts.append(fastreg.merge_stats(parts.pop(0), parts.pop(0)))
        count, mean, var = parts[0]
        assert count == x.size // x.shape[axis]
        assert np.allclose(mean, exact.mean(others).astype(np.float64) + 1e3, rtol=1e-14, atol=0)
        # f64: a part's mean is rounded, by 10^-13 here, and differs from another's by a σ or two. f32: sums of four
        # deviations round in f32; these errors are independent.
        bound = 1e-12 if dtype == np.float64 else 1e-7
        assert np.allclose(var, exact.var(others).astype(np.float64), rtol=bound, atol=0)


@every_dtype
def test_batch_norm_of_parts_is_that_of_the_whole(dtype):
    """Also where the mean is a million standard deviations: float64 statistics lose nothing for float32 data."""
    x, weight, bias, grad = example((40, 5), dtype, 1e6)
    _, mean, var = fastreg.merge_stats(fastreg.batch_norm_stats(x[:13]), fastreg.batch_norm_stats(x[13:]))
    wanted = oracle(x, weight, bias, grad, eps=1e-5)[0]
    tolerance = 1e-6 if dtype == np.float32 else 1e-9  # a float64 mean of 10^6 float64 standard deviations
    for part, of in ((slice(0, 13), wanted[:13]), (slice(13, 40), wanted[13:])):
        assert np.allclose(
            fastreg.batch_norm(x[part], mean, var, weight, bias), of.astype(dtype), rtol=0, atol=10 * tolerance
        )


def test_statistics_of_nothing_change_nothing():
    some = fastreg.batch_norm_stats(np.arange(12.0).reshape(4, 3))
    none = fastreg.batch_norm_stats(np.empty((0, 3)))
    assert none[0] == 0
    for merged in (fastreg.merge_stats(some, none), fastreg.merge_stats(none, some)):
        assert merged[0] == 4
        assert np.array_equal(merged[1], some[1])
        assert np.array_equal(merged[2], some[2])
    for bad, error in (
        (3, TypeError),
        ((1, 2), TypeError),
        ((1.5, some[1], some[2]), TypeError),
        ((-1, some[1], some[2]), ValueError),
        ((1, some[1], some[2][:2]), ValueError),
        ((1, some[1][:2], some[2][:2]), ValueError),
    ):
        with pytest.raises(error, match="b:"):
            fastreg.merge_stats(some, bad)


@every_dtype
def test_folding_into_a_linear_layer(dtype):
    rng = np.random.default_rng(6)
    x = np.asarray(rng.standard_normal((9, 4)), dtype)
    weight, bias, mean, gamma, beta = (np.asarray(rng.standard_normal(s), dtype) for s in ((5, 4), 5, 5, 5, 5))
    var = np.asarray(rng.random(5) + 0.1, dtype)
    for given in ({"gamma": gamma, "beta": beta}, {"gamma": gamma}, {"beta": beta}, {}):
        w, b = fastreg.fold_batch_norm(weight, bias, mean, var, **given)
        wanted = fastreg.batch_norm(x @ weight.T + bias, mean, var, given.get("gamma"), given.get("beta"))
        assert np.allclose(x @ w.T + b, wanted, rtol=0, atol=200 * np.finfo(dtype).eps)
    with pytest.raises(ValueError, match="gamma"):
        fastreg.fold_batch_norm(weight, bias, mean, var, gamma[:3])
    with pytest.raises(TypeError, match="mean"):
        fastreg.fold_batch_norm(weight, bias, None, var)


def test_two_processes_normalise_one_batch():
    """examples/two_processes.py, as a person would run it: what the halves make of it is what the whole does."""
    example = Path(__file__).parent.parent / "examples/two_processes.py"
    run = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=120, check=True)
    distance = float(re.search(r"two processes: (\S+) from one process", run.stdout).group(1))
    # The largest |y| is about 5, where a unit in the last place is 4.8e-7.
    assert distance <= 4.8e-7


def test_parts_merge_as_in_the_reference():
    x = np.random.default_rng(0).standard_normal((20, 3)) + 5
    parts = [reference.batch_norm_stats(x[:7]), reference.batch_norm_stats(x[7:])]
    for ours, theirs, whole in zip(
        fastreg.merge_stats(*parts), reference.merge_stats(*parts), reference.batch_norm_stats(x), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=8 * 2.0**-53)  # a few roundings of terms of one sign
        np.testing.assert_allclose(ours, whole, rtol=1e-13)  # 20 terms' roundings, of deviations from another mean


# ---- every norm against fifty digits -----------------------------------------------------------------------------


def precisely(function, *arrays):
    """The function of arrays of mpmath numbers, rounded to extended precision."""
    with mpmath.workdps(50):
        results = function(*(np.vectorize(mpmath.mpf, otypes=[object])(np.float64(a)) for a in arrays))
        return [np.vectorize(lambda v: np.longdouble(mpmath.nstr(v, 25)), otypes=[np.longdouble])(r) for r in results]


def rows_by_definition(eps, rms, x, weight, bias, grad):
    """Of rows, with a weight and a bias for each element: y, grad_x, its terms, and those of the weight's gradient."""
    n = x.shape[1]
    d = x if rms else x - (x.sum(1) / n)[:, np.newaxis]
    rstd = np.vectorize(lambda v: 1 / mpmath.sqrt(v + mpmath.mpf(eps)), otypes=[object])((d * d).sum(1) / n)[
        :, np.newaxis
    ]
    xhat, v = d * rstd, grad * weight
    through_mean = 0 if rms else (v.sum(1) / n)[:, np.newaxis]
    grad_x = rstd * (v - through_mean - xhat * ((v * xhat).sum(1) / n)[:, np.newaxis])
    return xhat * weight + bias, grad_x, v * rstd, grad * xhat


def as_rows(kind, groups):
    """How an array (N, C, L) is seen as rows, and back."""
    if kind == "batch":
        return lambda a: np.moveaxis(a, 1, 0).reshape(a.shape[1], -1), lambda r, s: np.moveaxis(
            r.reshape(s[1], s[0], s[2]), 0, 1
        )
    if kind in ("layer", "rms"):
        return lambda a: a.reshape(-1, a.shape[2]), lambda r, s: r.reshape(s)
    return lambda a: a.reshape(a.shape[0] * groups, -1), lambda r, s: r.reshape(s)


FORWARD = {
    "batch": lambda x, w, b, groups: fastreg.batch_norm(x, None, None, w, b, training=True, return_stats=True),
    "layer": lambda x, w, b, groups: fastreg.layer_norm(x, x.shape[-1], w, b, return_stats=True),
    "rms": lambda x, w, b, groups: fastreg.rms_norm(x, x.shape[-1], w, eps=1e-5, return_stats=True),
    "group": lambda x, w, b, groups: fastreg.group_norm(x, groups, w, b, return_stats=True),
    "instance": lambda x, w, b, groups: fastreg.instance_norm(x, None, None, w, b, return_stats=True),
}


@every_dtype
@pytest.mark.parametrize("ratio", [0, 3, 1e6])
@pytest.mark.parametrize("shape", [(3, 4, 40), (5, 6, 17), (2, 4, 131)], ids=str)
@pytest.mark.parametrize("kind", FORWARD)
def test_norms_and_gradients_to_fifty_digits(kind, shape, ratio, dtype):
    x, weight, bias, grad = example(shape, dtype, ratio)
    groups = shape[1] if kind == "instance" else 2
    if kind in ("layer", "rms"):
        weight, bias = (np.random.default_rng(i).standard_normal(shape[2]).astype(dtype) for i in (1, 2))
        along = (1, 1, -1)
    else:
        along = (1, -1, 1)
    if kind == "rms":
        bias[:] = 0
    y, *stats = FORWARD[kind](x, weight, bias, groups)
    backward = getattr(fastreg, f"{kind}_norm_backward")
    grad_x, grad_weight, *grad_bias = backward(grad, x, *stats, weight)
    to_rows, back = as_rows(kind, groups)
    whole = (np.broadcast_to(a.reshape(along), shape) for a in (weight, bias))
    arrays = [to_rows(np.asarray(a)) for a in (x, *whole, grad)]
    wanted = [back(r, shape) for r in precisely(functools.partial(rows_by_definition, 1e-5, kind == "rms"), *arrays)]
    assert ulps(y, wanted[0]) <= BOUND[dtype]
    assert ulps(grad_x, wanted[1], wanted[2]) <= BOUND[dtype]
    others = (0, 1) if kind in ("layer", "rms") else (0, 2)
    assert ulps(grad_weight, wanted[3].sum(others), wanted[3]) <= 2 * BOUND[dtype]
    if grad_bias:
        assert ulps(grad_bias[0], grad.astype(np.longdouble).sum(others), grad) <= BOUND[dtype]
