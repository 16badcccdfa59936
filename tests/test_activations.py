"""What only the activations promise: the error of our own exp and log, measured over the whole range."""

import math

import mpmath
import numpy as np
import pytest
from conftest import DTYPES, ISAS

import fastreg
from fastreg import fastreg_runtime as runtime

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)

# Every 509th float32, from another start in each block; `make exhaustive` visits them all.
STEP = 509


def every_float32():
    for start in range(0, 1 << 32, 1 << 24):
        bits = np.arange(start + start // 7 % STEP, start + (1 << 24), STEP, dtype=np.uint64)
        yield bits.astype(np.uint32).view(np.float32)


def exp(x):
    """Our exp, through the one public function that gives it bare: 0 − exp(y)·(−1)."""
    y = np.append(x, x.dtype.type(0))
    grad = np.zeros_like(y)
    grad[-1] = -1
    return fastreg.log_softmax_backward(grad, y)[:-1]


def ulps(got, wanted):
    """Distance of float32 results from float64 ones, in units in the last place of the latter."""
    _, exponent = np.frexp(wanted)
    return np.abs(got.astype(np.float64) - wanted) / np.ldexp(1.0, np.maximum(exponent - 24, -149))


@pytest.mark.parametrize(
    ("function", "definition", "bound"),
    [
        (exp, np.exp, 1),
        (fastreg.sigmoid, lambda x: np.where(x < 0, np.exp(-np.abs(x)), 1) / (1 + np.exp(-np.abs(x))), 2.5),
    ],
    ids=["exp", "sigmoid"],
)
def test_float32_over_the_whole_range(function, definition, bound):
    worst = 0.0
    with np.errstate(all="ignore"):
        for x in every_float32():
            got, wanted = function(x), definition(x.astype(np.float64))
            assert np.array_equal(np.isnan(got), np.isnan(x))
            overflows = wanted >= float(np.finfo(np.float32).max) * (1 + 2.0**-25)
            assert np.array_equal(np.isinf(got), overflows)
            finite = np.isfinite(wanted) & ~overflows
            if finite.any():
                worst = max(worst, ulps(got[finite], wanted[finite]).max())
    assert worst <= bound, worst


def points():
    """Ordinary and extreme arguments, those where the reduction changes its n, and where results are subnormal."""
    rng = np.random.default_rng(0)
    edges = (np.arange(-1075, 1024, 7) + 0.5) * np.log(2)
    x = np.concatenate([rng.uniform(-745, 709, 3000), rng.normal(size=2000), 10.0 ** rng.uniform(-20, 2, 500), edges])
    return np.concatenate([x, np.nextafter(edges, 0), [0.0, -0.0, 5e-324, 709.78, -708.4, -745.13]])


@pytest.mark.parametrize(
    ("function", "definition", "bound"),
    [(exp, mpmath.exp, 2), (fastreg.sigmoid, lambda x: 1 / (1 + mpmath.exp(-x)), 3)],
    ids=["exp", "sigmoid"],
)
def test_float64_against_mpmath(function, definition, bound):
    x = points()
    got = function(x)
    with mpmath.workprec(200):
        for xi, g in zip(x.tolist(), got.tolist(), strict=True):
            wanted = definition(mpmath.mpf(xi))
            ulp = max(2.0**-1074, 2.0 ** (mpmath.frexp(wanted)[1] - 53))
            assert abs(mpmath.mpf(g) - wanted) <= bound * ulp, xi


@pytest.mark.parametrize("isa", ISAS)
def test_limits(isa):
    runtime._use_isa(isa)
    for dtype in DTYPES:
        x = np.array([np.inf, -np.inf, np.nan, 1e30, -1e30, 0.0] * 9, dtype)
        np.testing.assert_array_equal(fastreg.sigmoid(x), np.array([1, 0, np.nan, 1, 0, 0.5] * 9, dtype))
        np.testing.assert_array_equal(exp(x), np.array([np.inf, 0, np.nan, np.inf, 0, 1] * 9, dtype))


@every_dtype
def test_softmax_sums_to_one_and_is_stable(dtype):
    eps = np.finfo(dtype).eps
    x = np.random.default_rng(1).normal(size=(50, 333)).astype(dtype) * 30
    for shift in (0, 1e4, -1e4):
        y, logy = fastreg.softmax(x + dtype(shift)), fastreg.log_softmax(x + dtype(shift))
        assert np.abs(y.sum(-1, dtype=np.float64) - 1).max() <= 8 * eps
        assert np.isfinite(logy).all()
    np.testing.assert_array_equal(fastreg.softmax(np.array([-np.inf, 0, -np.inf], dtype)), [0, 1, 0])
    np.testing.assert_array_equal(fastreg.log_softmax(np.array([-np.inf, 0, -np.inf], dtype)), [-np.inf, 0, -np.inf])
    for row in ([np.nan, 0, 1], [np.inf, 0, 1], [-np.inf] * 3):
        assert np.isnan(fastreg.softmax(np.array(row, dtype))).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("spread", [1, 30, 200], ids=lambda spread: f"spread{spread}")
@every_dtype
def test_softmax_and_log_softmax_keep_their_bounds(dtype, spread, isa):
    """The bounds of their docstrings, for rows that end in every lane; results from 1 to below the subnormals."""
    runtime._use_isa(isa)
    u, half_subnormal = np.finfo(dtype).eps / 2, mpmath.mpf(float(np.finfo(dtype).smallest_subnormal)) / 2
    rng = np.random.default_rng(spread)
    for n in (*range(1, 20), 37, 63, 64, 65, 100):
        x = rng.normal(size=n).astype(dtype) * dtype(spread)
        y, logy = fastreg.softmax(x), fastreg.log_softmax(x)
        with mpmath.workprec(120):
            most = mpmath.mpf(float(x.max()))
            shifted = [mpmath.mpf(float(v)) - most for v in x]
            log_sum = mpmath.log(mpmath.fsum(mpmath.exp(v) for v in shifted))
            more = (8 if dtype == np.float32 else 12 + n / 64) + math.log(n)
            for v, g, lg in zip(shifted, y.tolist(), logy.tolist(), strict=True):
                wanted = mpmath.exp(v - log_sum)
                assert abs(g - wanted) <= (more + abs(v)) * u * wanted + half_subnormal
                wanted = v - log_sum
                if dtype == np.float32:
                    assert abs(lg - wanted) <= (5 + math.log(n)) * u + u * abs(wanted)
                else:
                    assert abs(lg - wanted) <= (9 + math.log(n) + n / 64) * u + 2 * u * (abs(v) + abs(wanted))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "sigmoid"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_backward_is_the_derivative(name, axis):
    """Of Σ grad·f(x), against central differences of the function's definition."""
    rng = np.random.default_rng(3)
    x, grad = rng.normal(size=(2, 4, 3, 5))
    more = {} if name == "sigmoid" else {"axis": axis}

    def definition(v):
        if name == "sigmoid":
            return 1 / (1 + np.exp(-v))
        p = np.exp(v) / np.exp(v).sum(axis, keepdims=True)
        return p if name == "softmax" else np.log(p)

    y = getattr(fastreg, name)(x, **more)
    np.testing.assert_allclose(y, definition(x), rtol=1e-13)
    got = getattr(fastreg, f"{name}_backward")(grad, y, **more)
    h = 1e-6
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += h
        down[index] -= h
        wanted = np.sum(grad * (definition(up) - definition(down))) / (2 * h)
        assert abs(got[index] - wanted) < 1e-8


def test_a_row_longer_than_a_block_and_empty_ones():
    x = np.random.default_rng(4).normal(size=(2, 40_000)).astype(np.float32)
    np.testing.assert_allclose(fastreg.softmax(x).sum(-1, dtype=np.float64), 1, rtol=1e-6)
    for shape in ((0, 3), (3, 0)):
        assert fastreg.softmax(np.zeros(shape)).shape == shape


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_bad_calls_are_refused(name):
    function, backward = getattr(fastreg, name), getattr(fastreg, f"{name}_backward")
    x = np.zeros((2, 3))
    for kind, word, call in (
        (ValueError, "axis", lambda: function(x, axis=2)),
        (ValueError, "axis", lambda: function(np.float64(1.0))),
        (TypeError, "axis", lambda: function(x, axis=0.5)),
        (ValueError, "y", lambda: backward(x, x[0])),
        (ValueError, "out", lambda: function(x, out=np.zeros(3))),
        (TypeError, "out", lambda: function(x, out=np.zeros((2, 3), np.float32))),
    ):
        with pytest.raises(kind, match=word):
            call()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_which_zero_is_the_largest_does_not_show(dtype):
    """Rows whose largest element is −0.0 or +0.0, of every length: the same bits on each instruction set."""
    for n in range(1, 40):
        for zeros in ([-0.0], [0.0], [-0.0, 0.0], [0.0, -0.0]):
            x = np.full((2, n), -1e6, dtype)
            x[:, : min(n, len(zeros))] = zeros[: min(n, len(zeros))]
            found = set()
            for isa in ISAS:
                runtime._use_isa(isa)
                found.add(fastreg.log_softmax(x).tobytes() + fastreg.softmax(x).tobytes())
            assert len(found) == 1, (n, zeros)
