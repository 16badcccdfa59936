"""What only norms and distances promise: no overflow in between, no cancellation for near points, gradients."""

import math

import mpmath
import numpy as np
import pytest
from conftest import DTYPES
from layouts import LAYOUTS

import fastreg
from fastreg import reference

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


def exact_norm(x, p):
    """The definition, in mpmath."""
    with mpmath.workprec(200):
        v = [abs(mpmath.mpf(float(e))) for e in np.ravel(x)]
        if p == 0:
            return mpmath.mpf(sum(e != 0 for e in v))
        if math.isinf(p):
            return max(v) if p > 0 else min(v)
        return mpmath.fsum(e ** mpmath.mpf(p) for e in v) ** (1 / mpmath.mpf(p))


@pytest.mark.usefixtures("every_isa")
@pytest.mark.parametrize("p", [2, 1, 0, np.inf, -np.inf, 3, 0.5, 1.7, 10])
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200, 5e-324, 1e305, 1e-310])
def test_norm_neither_overflows_nor_vanishes_in_between(p, scale):
    x = np.random.default_rng(0).normal(size=57) * scale
    wanted = exact_norm(x, p)
    for got in (fastreg.norm(x, p), fastreg.norm(x.reshape(1, -1), p, axis=1)[0]):
        if wanted > np.finfo(float).max:
            assert got == np.inf
        else:
            assert abs(mpmath.mpf(float(got)) - wanted) <= max(64 * 2.0**-52 * wanted, 5e-324)


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize("p", [1, 2])
def test_norm_is_within_two_ulp(p, dtype):
    """In double for short vectors; beyond, f32 rounds a square and adds four: 2^-23 of Σ|x|, 1.5·2^-24 of a root."""
    for n in (1, 33, 63, 2049, 100_000):
        x = np.random.default_rng(n).normal(size=n).astype(dtype)
        wanted = exact_norm(x, p) if n < 3000 else math.fsum(abs(x.astype(float)) ** p) ** (1 / p)
        bound = (
            4e-16 * (1 if n < 100 else 8) if dtype == np.float64 or n < 64 else 2.0**-23 if p == 1 else 1.5 * 2.0**-24
        )
        assert abs(fastreg.norm(x, p) - wanted) <= bound * wanted
        columns = np.stack([x, x], axis=1)
        for along in (fastreg.norm(x, p, axis=0), *fastreg.norm(columns, p, axis=0)):
            assert abs(along - wanted) <= (bound + np.finfo(dtype).eps / 2) * wanted


def test_norm_of_f32_whose_terms_leave_f32():
    """Four terms in f32 overflow, or squares vanish, where the sum in double does neither."""
    big, small = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
    for n in (64, 2048, 5000):
        for value in (big / 2, 1e19, 1e-20, 1e-30, small):
            x = np.full((n, 3), value, np.float32)
            for p in (1, 2):
                wanted = n ** (1 / p) * float(np.float32(value))
                assert abs(fastreg.norm(x[:, 0], p) - wanted) <= 2e-15 * wanted + 1.5 * 2.0**-24 * wanted
                with np.errstate(over="ignore"):
                    rounded = np.float32(wanted)
                for along in (fastreg.norm(x, p, axis=0), fastreg.norm(x.T.copy(), p, axis=1)):
                    assert (
                        np.all(np.isinf(along))
                        if np.isinf(rounded)
                        else np.all(np.abs(along - rounded) <= 2 * np.spacing(rounded))
                    )


@pytest.mark.usefixtures("every_isa")
@pytest.mark.parametrize("p", [2, 1, 0, np.inf, -np.inf, 3, 0.5])
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200, 1e-310])
def test_norm_of_columns_is_the_norm_of_each(p, scale):
    """Blocks of rows, tiles of columns and their ends; axes that are neighbours, and axes that are not."""
    rng = np.random.default_rng(8)
    for shape, axis in (((300, 7), 0), ((5, 1030), 0), ((2, 513, 3), 1), ((4, 65, 2), (0, 1)), ((3, 4, 5), (0, 2))):
        x = rng.normal(size=shape) * scale
        x[(0,) * x.ndim] = 0
        got = fastreg.norm(x, p, axis=axis)
        axes = np.atleast_1d(axis)
        vectors = np.moveaxis(x, axes, range(-len(axes), 0)).reshape(got.size, -1)
        for g, v in zip(got.ravel(), vectors, strict=True):
            wanted = fastreg.norm(v, p)
            assert g == wanted or abs(g - wanted) <= 64 * 2.0**-52 * wanted + 5e-324
    for value in (np.nan, np.inf, -np.inf):
        x = np.ones((300, 5))
        x[257, 3] = value
        got = fastreg.norm(x, p, axis=0)
        assert np.array_equal(got[:3], fastreg.norm(np.ones((300, 3)), p, axis=0))
        assert np.array_equal(got[3], fastreg.norm(x[:, 3].copy(), p), equal_nan=True)


def test_cdist_makes_no_temporary_of_all_differences():
    """Beside the result: y packed, and unit vectors in double for the cosine."""
    import tracemalloc

    x = np.random.default_rng(9).normal(size=(2, 700, 64)).astype(np.float32)
    for metric in ("euclidean", "sqeuclidean", "manhattan", "chebyshev", "minkowski", "cosine", "dot"):
        tracemalloc.start()
        fastreg.cdist(*x, metric=metric, p=3)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        result, points = 700 * 700 * 4, 700 * 64 * 8
        assert peak <= result + (5 if metric == "cosine" else 1) * points + 20_000


def test_norm_of_all_is_the_norm_of_the_row():
    x = np.random.default_rng(3).normal(size=(5, 50_001)).astype(np.float32)
    for p in (0, 1, 2, 2.5, np.inf, -np.inf):
        assert np.float32(fastreg.norm(x[2], p)) == fastreg.norm(x, p, axis=1)[2]


def test_norm_propagates_nan_and_takes_infinity():
    for p in (1, 2, 3, np.inf, -np.inf, 0.5):
        for n in (1, 16, 17, 5000):
            x = np.ones(n)
            x[n // 2] = np.nan
            assert math.isnan(fastreg.norm(x, p)), (p, n)
            x[n // 2] = -np.inf
            assert fastreg.norm(x, p) == (np.inf if p != -np.inf or n == 1 else 1.0)


def test_norm_axes_and_matrices():
    x = np.random.default_rng(4).normal(size=(3, 4, 5))
    np.testing.assert_allclose(fastreg.norm(x, "fro", axis=(0, 2)), np.linalg.norm(x, "fro", axis=(0, 2)), rtol=1e-14)
    np.testing.assert_allclose(fastreg.norm(x, "nuc", axis=(1, 2)), np.linalg.norm(x, "nuc", axis=(1, 2)), rtol=1e-13)
    np.testing.assert_allclose(fastreg.norm(x[0], "nuc"), np.linalg.norm(x[0], "nuc"), rtol=1e-13)
    np.testing.assert_allclose(fastreg.norm(x, "fro"), np.linalg.norm(x.ravel()), rtol=1e-14)
    assert fastreg.norm(x, 1, axis=(0, 2), keepdims=True).shape == (1, 4, 1)
    assert fastreg.norm(x, keepdims=True).shape == (1, 1, 1)
    assert fastreg.norm(x, "nuc", axis=(0, 1), keepdims=True).shape == (1, 1, 5)
    assert isinstance(fastreg.norm(x), float)
    assert fastreg.norm(np.zeros(0)) == 0.0
    assert fastreg.norm(np.zeros((3, 0)), -np.inf, axis=1).tolist() == [np.inf] * 3


@pytest.mark.parametrize(
    ("kind", "word", "call"),
    [
        (ValueError, "p", lambda x: fastreg.norm(x, -1)),
        (ValueError, "p", lambda x: fastreg.norm(x, np.nan)),
        (ValueError, "p", lambda x: fastreg.norm(x, "max")),
        (TypeError, "p", lambda x: fastreg.norm(x, [2])),
        (ValueError, "axis", lambda x: fastreg.norm(x, axis=2)),
        (ValueError, "axis", lambda x: fastreg.norm(x, axis=(0, 0))),
        (ValueError, "axis", lambda x: fastreg.norm(x, "fro", axis=0)),
        (ValueError, "axis", lambda x: fastreg.norm(x[0], "nuc")),
        (ValueError, "eps", lambda x: fastreg.normalize(x, eps=-1)),
        (ValueError, "axis", lambda x: fastreg.normalize(np.float64(1))),
        (ValueError, "grad", lambda x: fastreg.normalize_backward(x[0], x)),
        (ValueError, "y", lambda x: fastreg.cosine_similarity(x, np.zeros(4))),
        (ValueError, "metric", lambda x: fastreg.cdist(x, metric="hamming")),
        (ValueError, "metric", lambda x: fastreg.cdist(x, metric=2)),
        (ValueError, "p", lambda x: fastreg.cdist(x, metric="minkowski", p=0)),
        (ValueError, "x", lambda x: fastreg.cdist(x[0])),
        (ValueError, "y", lambda x: fastreg.cdist(x, np.zeros((2, 4)))),
        (ValueError, "out", lambda x: fastreg.cdist(x, out=np.zeros((2, 3)))),
    ],
)
def test_bad_calls_are_refused(kind, word, call):
    with pytest.raises(kind, match=word):
        call(np.ones((2, 3)))


@pytest.mark.usefixtures("every_isa")
@pytest.mark.parametrize("p", [2, 1, 3, 1.5, np.inf, -np.inf, 0.5])
@pytest.mark.parametrize("axis", [0, 1])
def test_normalize_backward_is_the_derivative(p, axis):
    rng = np.random.default_rng(5)
    x, grad = rng.normal(size=(2, 4, 3))
    x[np.abs(x) < 0.1] = 0.3

    def loss(v):
        length = (
            np.linalg.norm(v, p, axis=axis, keepdims=True)
            if p != 0.5
            else (np.sqrt(np.abs(v))).sum(axis, keepdims=True) ** 2
        )
        return np.sum(grad * v / length)

    got = fastreg.normalize_backward(grad, x, p, axis=axis)
    h = 1e-6
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += h
        down[index] -= h
        assert abs(got[index] - (loss(up) - loss(down)) / (2 * h)) < 1e-6 * max(1, np.abs(got).max())


@pytest.mark.usefixtures("every_isa")
def test_normalize_at_the_edges():
    x = np.array([[3e200, 4e200], [3e-200, 4e-200], [0, 0], [1e-13, 0]])
    np.testing.assert_allclose(fastreg.normalize(x, eps=0.0)[:2], [[0.6, 0.8]] * 2, rtol=1e-15)
    np.testing.assert_allclose(fastreg.normalize(x)[2:], [[0, 0], [0.1, 0]], rtol=1e-15)
    np.testing.assert_allclose(fastreg.normalize_backward(np.ones((4, 2)), x)[2:], np.full((2, 2), 1e12), rtol=1e-15)


def test_cosine_similarity_at_the_edges():
    x = np.array([[1e200, 0], [1e-7, 0], [0, 0]])
    y = np.array([3e200, 4e200])
    np.testing.assert_allclose(fastreg.cosine_similarity(x, y), [0.6, 0.6, 0], rtol=1e-15)
    np.testing.assert_allclose(fastreg.cosine_similarity(x, y, eps=1e-6), [0.6, 0.06, 0], rtol=1e-15)


# ---- cdist -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan", "chebyshev", "minkowski"])
def test_near_points_do_not_cancel(metric, dtype):
    """Far from the origin and near to one another: 4 ulp of the true distance (8 of its square)."""
    rng = np.random.default_rng(6)
    base = rng.normal(size=64) * 1000
    x = (base + rng.normal(size=(9, 64)) * 1e-3).astype(dtype)
    y = (base + rng.normal(size=(35, 64)) * 1e-3).astype(dtype)
    got = fastreg.cdist(x, y, metric=metric, p=3)
    for i in range(9):
        for j in range(35):
            d = [abs(mpmath.mpf(float(a)) - mpmath.mpf(float(b))) for a, b in zip(x[i], y[j], strict=True)]
            p = {"manhattan": 1, "minkowski": 3}.get(metric, 2)
            wanted = max(d) if metric == "chebyshev" else mpmath.fsum(e**p for e in d) ** (mpmath.mpf(1) / p)
            wanted = wanted**2 if metric == "sqeuclidean" else wanted
            assert abs(float(got[i, j]) - wanted) <= 4 * (2 if metric == "sqeuclidean" else 1) * np.spacing(
                dtype(wanted)
            )


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan", "chebyshev", "minkowski", "cosine", "dot"])
def test_against_itself_is_half_the_work_and_the_same(metric, dtype):
    for n in (1, 31, 32, 33, 100):
        x = np.random.default_rng(n).normal(size=(n, 7)).astype(dtype)
        got = fastreg.cdist(x, metric=metric, p=2.5)
        assert np.array_equal(got, fastreg.cdist(x, x.copy(), metric=metric, p=2.5))
        assert np.array_equal(got, got.T)
        if metric != "dot":
            assert not np.diag(got).any()


@pytest.mark.usefixtures("every_isa")
@every_dtype
def test_extreme_distances(dtype):
    info = np.finfo(dtype)
    big, small = dtype(info.max / 8), dtype(info.tiny)
    x = np.array([[0, 0], [big, big], [small, small]], dtype)
    got = fastreg.cdist(x)
    for (i, j), scale in {(0, 1): big, (0, 2): small}.items():
        assert abs(float(got[i, j]) / float(scale) - math.sqrt(2)) <= 4 * info.eps
    # 2^1024, the scale of these, is no double.
    huge = np.full((1, 1), info.max / 4 * 3, dtype)
    assert abs(fastreg.cdist(huge * 0, huge, metric="minkowski", p=3) / huge - 1) <= 8 * info.eps
    for metric in ("euclidean", "manhattan", "chebyshev", "minkowski", "sqeuclidean"):
        y = np.array([[0, np.nan, 0], [0, 0, np.nan], [np.nan, 0, 0], [0, np.inf, 0], [1, 1, 1]], dtype)
        got = fastreg.cdist(np.zeros((1, 3), dtype), y, metric=metric, p=3)[0]
        assert np.isnan(got[:3]).all()
        assert got[3] == np.inf
        assert np.isfinite(got[4])


@every_dtype
def test_cosine_distance_of_nearly_parallel_vectors(dtype):
    x = np.array([[1, 0], [0, 0], [2, 0]], dtype)
    y = np.array([[1, 2.0**-12], [0, 3], [-5, 0], [0, 0]], dtype)
    got = fastreg.cdist(x, y, metric="cosine")
    with mpmath.workprec(200):
        near = 1 - 1 / mpmath.sqrt(1 + mpmath.mpf(2) ** -24)
    # A unit vector is right to half a unit of double, the difference of two to that over their angle.
    assert abs(float(got[0, 0]) - near) <= (np.finfo(dtype).eps + 2 * 2.0**12 * 2.0**-53) * near
    np.testing.assert_allclose(got[0, 1:3], [1, 2], rtol=4 * np.finfo(dtype).eps)
    assert np.array_equal(got[1], np.ones(4))
    assert np.array_equal(got[:, 3], np.ones(3))


def exact_cosine_distance(x, y):
    with mpmath.workprec(400):
        x, y = ([mpmath.mpf(float(e)) for e in v] for v in (x, y))
        return 1 - mpmath.fdot(x, y) / mpmath.sqrt(mpmath.fdot(x, x) * mpmath.fdot(y, y))


def angles(rng, width, distances):
    """Pairs of vectors at these distances."""
    x = rng.standard_normal((len(distances), width))
    aside = rng.standard_normal(x.shape)
    aside -= x * np.sum(aside * x, axis=1, keepdims=True) / np.sum(x * x, axis=1, keepdims=True)
    aside *= np.linalg.norm(x, axis=1, keepdims=True) / np.linalg.norm(aside, axis=1, keepdims=True)
    cosines = 1 - np.array(distances)[:, None]
    return x, x * cosines + aside * np.sqrt(1 - cosines**2)


@pytest.mark.usefixtures("every_isa")
@pytest.mark.parametrize("width", [2, 7, 64, 300])
def test_cosine_distance_of_f32_is_within_one_ulp(width):
    """1 − cos and the differences of unit vectors, on both sides of where one takes over: (80 + width/8)·2^-28.

    Half a unit is rounding, half what either lost: 1 − cos at most d·2^-25, a unit vector some 2^-50 of the angle."""
    rng = np.random.default_rng(width)
    turn = (80 + width / 8) * 2.0**-28
    distances = [*(10.0 ** np.linspace(-12, 0, 49)), *(turn * np.linspace(0.9, 1.1, 60)), 1.3, 2 - 1e-6]
    x, y = angles(rng, width, distances)
    # All products but two alike, so that what their sums round goes one way.
    steps = np.sqrt(width * turn * np.linspace(0.7, 1.4, 80))
    alike = np.ones((2, len(steps), width))
    alike[0, :, 0] += steps
    alike[1, :, -1] += steps * 0.75
    x, y = (np.concatenate(both).astype(np.float32) for both in ((x, alike[0]), (y, alike[1])))
    got = np.diag(fastreg.cdist(x, y, metric="cosine"))
    wanted = [exact_cosine_distance(*pair) for pair in zip(x, y, strict=True)]
    assert min(wanted) < 2e-12
    assert sum(0.8 < d / turn < 1.25 for d in wanted) > 100
    for d, exact in zip(got, wanted, strict=True):
        assert abs(float(d) - exact) <= np.spacing(np.float32(exact))


@pytest.mark.usefixtures("every_isa")
def test_cosine_distance_among_copies_and_neighbours():
    """Both ways within a tile, a point itself in it, copies that are not itself, zero vectors."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((75, 20)).astype(np.float32)
    x[30:50] = x[30] * (1 + 1e-4 * rng.standard_normal((20, 20)))
    x[60] = x[31]
    x[61] = 2 * x[3]
    x[[0, 40, 74]] = 0
    x[70, 5] = np.nan
    got = fastreg.cdist(x, metric="cosine")
    assert np.array_equal(got, fastreg.cdist(x, x.copy(), metric="cosine"), equal_nan=True)
    assert np.array_equal(got, got.T, equal_nan=True)
    assert got[31, 60] == got[3, 61] == 0
    zero = ~x.any(axis=1)
    assert np.all(got[zero] == 1)
    assert np.all(np.isnan(got[70, ~zero]))
    for i in (1, 30, 31, 45, 60, 61):
        for j in np.flatnonzero(~zero & (np.arange(75) != 70)):
            exact = exact_cosine_distance(x[i], x[j])
            assert abs(float(got[i, j]) - exact) <= np.spacing(np.float32(exact)) + 1e-30


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", [0, 1])
def test_sums_over_any_axis_and_stride(axis, layout):
    """NumPy's float32 sum of this column is wrong by percents: it adds one by one, and rounds each time."""
    x = np.full((1 << 20, 2), 0.1, np.float32)
    x = LAYOUTS[layout](x if axis == 0 else x.T)
    exact = math.fsum([float(np.float32(0.1))] * (1 << 20))
    assert np.all(np.abs(fastreg.norm(x, 1, axis=axis) - exact) <= 2 * np.spacing(np.float32(exact)))
    _, mean, var = fastreg.batch_norm_stats(x, axis=1 - axis)
    assert np.array_equal(mean, [float(np.float32(0.1))] * 2)
    assert np.array_equal(var, [0.0, 0.0])
    assert abs(fastreg.l1_loss(x, np.zeros_like(x), reduction="sum") - 2 * exact) <= 2 * np.spacing(
        np.float32(2 * exact)
    )


@pytest.mark.parametrize("p", [0, 1, 2, 3, math.inf, -math.inf])
def test_the_reference_has_the_same_gradient(p):
    """Sums of six products: 12 roundings in either, of terms no larger than the largest gradient over the norm."""
    rng = np.random.default_rng(0)
    grad, x = rng.standard_normal((2, 4, 6))
    x[2:] = [[2, -2, 1, 0, 2, -1], [-3, 1, 1, 3, 1, -1]]  # the largest more than once
    ours = fastreg.normalize_backward(grad, x, p)
    assert np.abs(ours - reference.normalize_backward(grad, x, p)).max() <= 40 * 2.0**-53 * np.abs(grad).max() * 6
    out = np.empty_like(x)
    assert reference.normalize(x, p, out=out) is out
    assert np.abs(out - fastreg.normalize(x, p)).max() <= 16 * 2.0**-53 * np.abs(out).max()


@pytest.mark.usefixtures("every_isa")
@every_dtype
def test_a_nan_in_any_row_is_that_row_s(dtype):
    """Rows are taken in tiles, points in vectors; neither may hide it."""
    x, y = np.zeros((300, 3), dtype), np.ones((70, 3), dtype)
    for row, column in ((0, 0), (7, 1), (150, 2), (256, 0), (299, 2)):
        for point in (0, 33, 69):
            a, b = x.copy(), y.copy()
            a[row, column] = b[point, column] = np.nan
            for metric in ("chebyshev", "manhattan"):
                got = fastreg.cdist(a, b, metric=metric)
                wanted = np.full((300, 70), 1.0 if metric == "chebyshev" else 3.0)
                wanted[row] = wanted[:, point] = np.nan
                assert np.array_equal(got, wanted, equal_nan=True)


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize("p", [math.inf, -math.inf])
def test_a_nan_in_any_row_of_a_column(dtype, p):
    """Rows are met eight at a time, by comparisons that pass NaN by: their sum must not."""
    x = np.arange(1.0, 9 * 37 + 1, dtype=dtype).reshape(9, 37)
    wanted = x.max(axis=0) if p > 0 else x.min(axis=0)
    for row in range(9):
        for column in (0, 17, 36):
            y, nan = x.copy(), wanted.copy()
            y[row, column] = nan[column] = np.nan
            assert np.array_equal(fastreg.norm(y, p, axis=0), nan, equal_nan=True), (row, column)


@pytest.mark.usefixtures("every_isa")
@every_dtype
def test_the_largest_of_a_long_row(dtype):
    """Chunk by chunk."""
    x = np.random.default_rng(0).standard_normal((3, 5000)).astype(dtype)
    x[1, 4097] = -7.5
    x[2, 2048] = np.nan
    for p, best in ((math.inf, np.max), (-math.inf, np.min)):
        wanted = best(np.abs(x), axis=1)
        assert np.array_equal(fastreg.norm(x, p, axis=1), wanted, equal_nan=True)
        assert np.array_equal(fastreg.norm(x.T.copy(), p, axis=0), wanted, equal_nan=True)


def test_the_wider_dtype_counts():
    rng = np.random.default_rng(0)
    narrow, wide = rng.standard_normal((5, 3)).astype(np.float32), rng.standard_normal((5, 3))
    for function in (fastreg.cdist, fastreg.cosine_similarity, fastreg.normalize_backward):
        for a, b in ((narrow, wide), (wide, narrow)):
            assert np.array_equal(function(a, b), function(a.astype(np.float64), b.astype(np.float64)))
    for p, metric in ((1, "manhattan"), (2, "euclidean"), (math.inf, "chebyshev")):
        assert np.array_equal(
            fastreg.cdist(wide, wide + 1, metric="minkowski", p=p), fastreg.cdist(wide, wide + 1, metric=metric)
        )


def test_the_norm_of_very_many():
    """More partial sums than find room beside the call."""
    x = np.random.default_rng(0).standard_normal(1_000_001)
    for p, exact in ((1, math.fsum(abs(x))), (2, math.sqrt(math.fsum(x * x))), (math.inf, abs(x).max())):
        assert abs(fastreg.norm(x, p) - exact) <= 4 * 2.0**-53 * exact


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize("p", [0, 1, 2, 3, math.inf, -math.inf])
def test_a_norm_of_zero_is_plus_zero(dtype, p):
    for n in (*range(1, 70), 2048, 5000):
        x = np.full(n, -0.0, dtype)
        if p == -math.inf:
            x[1:] = -1.0
        assert str(float(fastreg.norm(x, p))) == "0.0", n
        assert str(float(fastreg.norm(x[None], p, axis=1)[0])) == "0.0", n
        assert str(float(fastreg.norm(x[:, None], p, axis=0)[0])) == "0.0", n
