"""Each operator against the minimisation of its own definition, in more digits than it has; the laws of its kind."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from conftest import DTYPES
from numpy.testing import assert_allclose, assert_array_equal

import fastreg
from fastreg import reference

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
mpf = mpmath.mpf


def eps(dtype):
    return float(np.finfo(dtype).eps)


# ---- elementwise: a search in 60 digits --------------------------------------------------------------------------


def l1(z, lam):
    return lam * abs(z)


def sq_l2(z, lam):
    return lam * z * z / 2


def elastic_net(z, one, two):
    return one * abs(z) + two * z * z / 2


def mcp(z, lam, gamma):
    z = abs(z)
    return lam * z - z * z / (2 * gamma) if z <= gamma * lam else gamma * lam * lam / 2


def scad(z, lam, gamma):
    z = abs(z)
    if z <= lam:
        return lam * z
    if z <= gamma * lam:
        return (2 * gamma * lam * z - z * z - lam * lam) / (2 * (gamma - 1))
    return lam * lam * (gamma + 1) / 2


def box(z, lower, upper):
    return mpf(0) if lower <= z <= upper else mpmath.inf


def search(penalty, x, step):
    """The minimiser between 0 and x of step·penalty(z) + ½(z − x)², which is strictly convex, by thirds."""
    x = mpf(x)
    low, high = min(x, mpf(0)), max(x, mpf(0))

    def objective(z):
        return step * penalty(z) + (z - x) ** 2 / 2

    # Where the minimum is at an end the slope says so; thirds would only come near.
    for end, inward in ((mpf(0), x), (x, -x)):
        if objective(end + inward * mpf(10) ** -28) >= objective(end):
            return end
    while high - low > abs(x) * mpf(10) ** -20:
        third = (high - low) / 3
        if objective(low + third) < objective(high - third):
            high -= third
        else:
            low += third
    return (low + high) / 2


def cases(rng, n, dtype, threshold):
    """Random and adversarial x about a threshold: equal to it, its neighbours, zeros, huge and tiny."""
    t = dtype(threshold)
    yield from (t, -t, np.nextafter(t, dtype(0)), np.nextafter(t, dtype(np.inf)), dtype(0), dtype(-0.0), 2 * t, 3 * t)
    yield from rng.standard_normal(n).astype(dtype) * t * dtype(3)
    yield from (dtype(t * 2.0 ** rng.integers(-20, 20) * rng.uniform(1, 2)) for _ in range(n // 2))


SCALES = {np.float32: (1e-30, 1e-3, 1.0, 7.0, 1e30), np.float64: (1e-280, 1e-5, 1.0, 7.0, 1e280)}


@every_dtype
@pytest.mark.parametrize(
    ("function", "penalty", "options", "slope"),
    [
        ("prox_l1", l1, {}, 1),
        ("prox_mcp", mcp, {"gamma": 3.0}, 2),
        ("prox_mcp", mcp, {"gamma": 1.25}, 10),
        ("prox_scad", scad, {"gamma": 3.7}, 2),
        ("prox_scad", scad, {"gamma": 2.25}, 10),
    ],
)
def test_thresholds_minimise_their_definition(function, penalty, options, slope, dtype):
    rng = np.random.default_rng(0)
    with mpmath.workdps(60):
        for scale in SCALES[dtype]:
            for step in (1.0, 0.3, 0.0):
                lam = float(dtype(scale))
                for x in cases(rng, 12, dtype, step * lam or lam):
                    with np.errstate(all="ignore"):
                        z = getattr(fastreg, function)(np.array([x], dtype), lam, step=step, **options)[0]
                    wanted = search(lambda z, lam=lam: penalty(z, mpf(lam), **options), float(x), mpf(step))
                    # step·lam is rounded, by half a unit of itself; the slope of a line carries that on.
                    bound = 4 * slope * eps(dtype) * max(abs(float(x)), abs(float(wanted))) * (abs(float(x)) > 0)
                    assert abs(float(z) - wanted) <= bound + float(np.finfo(dtype).smallest_subnormal), (x, lam, step)
                    if abs(x) <= dtype(step * lam):
                        assert z == 0
                        assert not np.signbit(z)


@every_dtype
def test_quadratics_and_boxes_minimise_their_definition(dtype):
    rng = np.random.default_rng(1)
    with mpmath.workdps(60):
        for scale in SCALES[dtype]:
            x = (rng.standard_normal(12) * scale).astype(dtype)
            for one, two, step in ((0.5, 0.7, 1.0), (1.0, 1e3, 0.3), (0.0, 2.0, 0.1), (0.3, 0.0, 2.0)):
                weak = float(dtype(one * scale))
                for wanted_of, got in (
                    (lambda z, two=two: sq_l2(z, mpf(float(dtype(two)))), fastreg.prox_sq_l2(x, two, step)),
                    (
                        lambda z, weak=weak, two=two: elastic_net(z, mpf(weak), mpf(float(dtype(two)))),
                        fastreg.prox_elastic_net(x, weak, two, step),
                    ),
                ):
                    for xi, z in zip(x, got, strict=True):
                        wanted = search(wanted_of, float(xi), mpf(step))
                        assert abs(float(z) - wanted) <= 4 * eps(dtype) * abs(float(xi))
            lower, upper = (float(dtype(b * scale)) for b in (-0.5, 0.25))
            for xi, z in zip(x, fastreg.project_box(x, lower, upper), strict=True):
                inside = [v for v in (lower, upper, float(xi)) if lower <= v <= upper]
                assert abs(float(z) - float(xi)) == min(abs(v - float(xi)) for v in inside)


@every_dtype
def test_l0_takes_the_cheaper_of_both(dtype):
    rng = np.random.default_rng(2)
    for scale in SCALES[dtype]:
        for step in (1.0, 0.3, 2.0):
            lam = float(dtype(scale))
            for x in cases(rng, 100, dtype, math.sqrt(2 * step) * math.sqrt(lam)):
                z = fastreg.prox_l0(np.array([x], dtype), lam, step)[0]
                keep, drop = Fraction(step) * Fraction(lam), Fraction(float(x)) ** 2 / 2
                if drop > keep * (1 + Fraction(4 * eps(dtype))):
                    assert z == x
                if drop < keep * (1 - Fraction(4 * eps(dtype))):
                    assert z == 0
                    assert not np.signbit(z)
    assert_array_equal(fastreg.prox_l0(np.array([2.0, -2.0, 2.0000000000000004]), 2.0), [0, 0, 2.0000000000000004])
    # Not √(step·lam), not step·lam, and no overflow on the way.
    assert_array_equal(fastreg.prox_l0(np.array([1e155, 1e153]), 1e308, 1e-2), [1e155, 0])
    assert_array_equal(fastreg.prox_l0(np.array([1e200, 1e250]), 1e308, 1e100), [0, 1e250])


@every_dtype
def test_thresholds_are_exact_at_equality(dtype):
    x = np.array([-0.5, 0.5, np.nextafter(dtype(0.5), dtype(1)), -0.0, 0.0], dtype)
    for z in (fastreg.soft_threshold(x, 0.5), fastreg.prox_l1(x, 2.0, 0.25), fastreg.hard_threshold(x, 0.5)):
        assert_array_equal(z[[0, 1, 3, 4]], 0)
        assert not np.signbit(z).any()
        assert z[2] > 0


def test_edges_as_written():
    x = np.array([-np.inf, -1.0, -0.0, 1.0, np.inf, np.nan])
    for name in ("soft_threshold", "prox_l1", "prox_mcp", "prox_scad"):
        edge = np.inf if name in ("prox_mcp", "prox_scad") else np.nan
        assert_array_equal(getattr(fastreg, name)(x, np.inf), [-edge, 0, 0, 0, edge, np.nan], name)
        assert_array_equal(getattr(fastreg, name)(x, 0.5)[[0, 4, 5]], [-np.inf, np.inf, np.nan], name)
    assert_array_equal(fastreg.prox_sq_l2(x, np.inf), [np.nan, 0, 0, 0, np.nan, np.nan])
    assert_array_equal(fastreg.prox_elastic_net(x, np.inf, 1.0), [np.nan, 0, 0, 0, np.nan, np.nan])
    for name in ("hard_threshold", "prox_l0"):
        assert_array_equal(getattr(fastreg, name)(x, np.inf), [0, 0, 0, 0, 0, np.nan], name)
    for name in ("prox_l1", "prox_l0", "prox_sq_l2", "prox_mcp", "prox_scad", "prox_l2", "prox_linf"):
        for lam in (1.0, np.inf):
            assert_array_equal(getattr(fastreg, name)(x[1:4], lam, step=0.0), x[1:4], name)
    assert_array_equal(fastreg.prox_l1(x[1:4], [1.0, np.inf, 2.0], 0.0), x[1:4])
    assert_array_equal(fastreg.prox_l2(x[:4], 2.5), x[:4])  # an infinite norm: what a finite lam takes of it is nothing
    assert np.isnan(fastreg.prox_l2(x[:4], np.inf)).all()


@pytest.mark.parametrize("step", [0.0, 0.5, 1.0, 3.0])
def test_concave_penalties_refuse_more_than_one_minimiser(step):
    x = np.linspace(-9, 9, 19)
    for bad in (step, np.nextafter(step, 0), -1.0, np.nan):
        with pytest.raises(ValueError, match="gamma"):
            fastreg.prox_mcp(x, 1.0, bad, step)
        with pytest.raises(ValueError, match="gamma"):
            fastreg.prox_scad(x, 1.0, bad + 1, step)
    close = np.nextafter(1 + step, 9)
    assert np.isfinite(fastreg.prox_mcp(x, 1.0, np.nextafter(step, 9), step)).all()
    assert np.isfinite(fastreg.prox_scad(x, 1.0, np.nextafter(close, 9), step)).all()
    assert_array_equal(fastreg.prox_mcp(x, 1.0, np.inf, step), fastreg.prox_l1(x, 1.0, step))
    assert_array_equal(fastreg.prox_scad(x, 1.0, np.inf, step), fastreg.prox_l1(x, 1.0, step))


# ---- vectors: exact projections in rational numbers --------------------------------------------------------------


def small_problems(rng, n, dtype):
    """Small integers (ties, all equal, zeros), Gaussians of many scales, one outlier, sorted and reversed."""
    for k in range(n):
        size = int(rng.integers(1, 9))
        scale = 10.0 ** rng.integers(-12, 13)
        yield rng.integers(-3, 4, size).astype(dtype), float(rng.integers(1, 9))
        yield (rng.standard_normal(size) * scale).astype(dtype), float(dtype(scale * rng.uniform(0.01, 5)))
        yield np.full(size, dtype(scale)), float(dtype(scale * rng.uniform(0.01, 5)))
        x = rng.standard_normal(size).astype(dtype)
        x[0] = dtype(1e10)
        yield (np.sort(x) if k % 2 else x), float(dtype(rng.uniform(0.01, 5)))


def exact_threshold(x, total):
    """θ in rational numbers, by trying every number of elements above it."""
    down = sorted(map(Fraction, map(float, x)), reverse=True)
    for k in range(len(down), 0, -1):
        theta = (sum(down[:k]) - Fraction(total)) / k
        if down[k - 1] > theta:
            return theta
    raise AssertionError


@every_dtype
def test_simplex_and_its_relatives_are_the_nearest_point(dtype):
    for x, total in small_problems(np.random.default_rng(3), 300, dtype):
        exact = [Fraction(float(v)) for v in x]
        theta = exact_threshold(x, total)
        bound = 3 * eps(dtype)
        for z, v in zip(fastreg.project_simplex(x, total), exact, strict=True):
            wanted = max(v - theta, 0)
            assert abs(Fraction(float(z)) - wanted) <= Fraction(bound) * max(wanted, Fraction(total) / 8), (x, total)
        inside = sum(map(abs, exact)) <= Fraction(total)
        theta = Fraction(0) if inside else exact_threshold(np.abs(x), total)
        sizes = zip(fastreg.project_l1_ball(x, total), fastreg.prox_linf(x, total), exact, strict=True)
        for z, rest, v in sizes:
            wanted = max(abs(v) - theta, 0) * (1 if v > 0 else -1)
            assert abs(Fraction(float(z)) - wanted) <= Fraction(bound) * max(abs(wanted), Fraction(total) / 8), (
                x,
                total,
            )
            wanted = v - wanted
            assert abs(Fraction(float(rest)) - wanted) <= Fraction(bound) * max(
                theta, abs(wanted), Fraction(total) / 8
            ), (x, total)


@every_dtype
def test_groups_minimise_their_definition(dtype):
    rng = np.random.default_rng(4)
    scales = SCALES[dtype]
    with mpmath.workdps(60):
        for k in range(300):
            scale = scales[k % len(scales)]
            x = (rng.standard_normal(int(rng.integers(1, 7))) * scale).astype(dtype)
            norm = mpmath.sqrt(mpmath.fsum(mpf(float(v)) ** 2 for v in x))
            t = float(norm) * float(rng.choice([0.0, 0.1, 0.9, 1.5, 1 - 1e-6]))
            # On the ray of x, which any minimiser is on by symmetry: argmin_r t·r + ½(r − ‖x‖)².
            length = search(lambda r, t=t: mpf(t) * abs(r), norm, 1)
            wanted = [mpf(float(v)) * length / norm for v in x]
            for got in (
                fastreg.prox_l2(x, t),
                fastreg.prox_group_lasso(x, t, np.zeros(x.size, int)),
                fastreg.prox_group_lasso(np.tile(x[:, None], (1, 3)), t, axis=0)[:, 1],
                fastreg.prox_group_lasso(np.tile(x, (3, 1)), t, axis=1)[2],
            ):
                for z, w in zip(got, wanted, strict=True):
                    assert abs(float(z) - w) <= 4 * eps(dtype) * norm
            radius = t / 2
            factor = min(mpf(radius) / norm, 1)
            for z, v in zip(fastreg.project_l2_ball(x, radius), x, strict=True):
                assert abs(float(z) - mpf(float(v)) * factor) <= 3 * eps(dtype) * norm


def test_a_sparse_group_lasso_solves_its_inclusion():
    """x − z in step·(l1·∂‖z‖₁ + lam·w·∂‖z‖₂), which is necessary and sufficient."""
    rng = np.random.default_rng(5)
    for _ in range(300):
        n, a, b = int(rng.integers(1, 7)), rng.uniform(0, 1), rng.uniform(0, 2)
        x = rng.standard_normal(n) * 2
        z = fastreg.prox_sparse_group_lasso(x, a, b)
        norm = np.linalg.norm(z)
        if norm > 0:
            rest = (x - z) - b * z / norm
            assert_allclose(rest[z != 0], a * np.sign(z[z != 0]), atol=1e-14)
            assert np.all(np.abs(rest[z == 0]) <= a * (1 + 1e-14))
        else:
            assert np.linalg.norm(np.maximum(np.abs(x) - a, 0)) <= b * (1 + 1e-14)


@every_dtype
def test_total_variation_closes_the_duality_gap(dtype):
    """u_k = Σ_{i≤k} (x − z) is feasible for the dual, |u| ≤ lam, and the gap lam·Σ|Dz| − Σ u·Dz is 0.

    ½‖z − z*‖² is at most the gap, so this is a proof of the minimum, whatever the algorithm."""
    rng = np.random.default_rng(6)
    problems = [(x, lam) for x, lam in small_problems(rng, 200, dtype)]
    for n in (100, 1000, 5000):
        noise = rng.standard_normal(n)
        for x in (noise, np.cumsum(noise), np.linspace(0, 9, n) ** 2, np.sin(np.arange(n))):
            problems += [(x.astype(dtype), lam) for lam in (1e-3, 0.7, 20.0, 1e4)]
            problems += [(np.round(x).astype(dtype), lam) for lam in (0.5, 3.0)]
    for x, lam in problems:
        z = fastreg.prox_tv1d(x, lam).astype(np.longdouble)
        u = np.cumsum(x.astype(np.longdouble) - z)
        jumps, unit = np.diff(z), eps(dtype) * float(np.abs(x).max())
        assert np.all(np.abs(u) <= lam + x.size * 2 * unit)
        assert abs(u[-1]) <= x.size * unit
        assert lam * np.abs(jumps).sum() - np.sum(-u[:-1] * jumps) <= 4 * unit * x.size * (np.abs(jumps).sum() + unit)


@pytest.mark.parametrize("bend", [np.square, np.sqrt, np.positive, lambda u: -u * u])
def test_total_variation_of_a_million_is_linear_at_worst(bend):
    """On a bent line a direct method (Condat 2013) starts again at every element: 10^12 steps, which take hours."""
    n = 10**6
    x, lam = n * bend(np.arange(n) / n), 1e6
    z = fastreg.prox_tv1d(x, lam).astype(np.longdouble)
    u, jumps, unit = np.cumsum(x - z), np.diff(z), eps(np.float64) * n
    assert np.all(np.abs(u) <= lam + n * unit)
    assert lam * np.abs(jumps).sum() - np.sum(-u[:-1] * jumps) <= n * unit * np.abs(jumps).sum()


@pytest.mark.usefixtures("every_isa")
def test_total_variation_is_exact_at_the_ends():
    x = np.arange(12.0)
    assert_array_equal(fastreg.prox_tv1d(x, 1e300), np.full(12, 5.5))
    assert_array_equal(fastreg.prox_tv1d(x, np.inf), np.full(12, 5.5))
    assert_array_equal(fastreg.prox_tv1d(x, 0.0), x)
    assert_array_equal(fastreg.prox_tv1d([2.0], 1.0), [2.0])
    assert_array_equal(fastreg.prox_tv1d([], 1.0), [])
    for bad in (np.nan, np.inf):
        assert np.isnan(fastreg.prox_tv1d([1.0, bad, 2.0], 1.0)).all()


@every_dtype
def test_singular_values_are_thresholded_within_the_bound_of_the_docstring(dtype):
    """X = U·Σ·Vᵀ with known orthogonal factors and a spectrum over sixteen orders, by either way to compute."""
    rng = np.random.default_rng(7)
    for shape in ((30, 12), (12, 30), (15, 15)):
        k = min(shape)
        U, V = (np.linalg.qr(rng.standard_normal((n, k)))[0] for n in shape)
        s = np.logspace(0, -16, k)
        x = ((U * s) @ V.T).astype(dtype)
        for t in (0.5, 1e-2, 1e-4, 1e-8):
            wanted = (U * np.maximum(s - t, 0)) @ V.T
            z = fastreg.prox_nuclear(x, t)
            # 16: the constants of LAPACK and of two products; x itself is rounded to its dtype.
            bound = 16 * max(2.0**-46 if dtype == np.float64 and t > 2.0**-7 else 2.0**-52, eps(dtype) / 4)
            assert np.linalg.norm(z - wanted, 2) <= bound * np.sqrt(k)
    assert_allclose(fastreg.prox_nuclear(np.diag([3e200, 1e200]), 1e200), np.diag([2e200, 0]), atol=1e186)


@every_dtype
def test_nuclear_is_firmly_nonexpansive(dtype):
    rng = np.random.default_rng(13)
    for shape in ((6, 4), (4, 6), (5, 5)):
        for _ in range(50):
            x = rng.standard_normal(shape).astype(dtype) * dtype(10) ** rng.integers(-2, 3)
            y = x + rng.standard_normal(shape).astype(dtype) * dtype(10) ** rng.integers(-2, 3)
            p, q = (fastreg.prox_nuclear(v, 0.8).astype(np.float64) for v in (x, y))
            size = max(np.abs(x).max(), np.abs(y).max())
            slack = 256 * eps(dtype) * size * np.abs(p - q).max()
            assert np.sum((p - q) ** 2) <= np.sum((p - q) * (x.astype(np.float64) - y)) + slack


# ---- laws of the kind --------------------------------------------------------------------------------------------

CONVEX = {
    "soft_threshold": {"lam": 0.7},
    "prox_l1": {"lam": 0.7, "step": 0.5},
    "prox_sq_l2": {"lam": 0.7},
    "prox_elastic_net": {"l1": 0.3, "l2": 0.5},
    "prox_l2": {"lam": 1.5},
    "prox_linf": {"lam": 2.0},
    "prox_group_lasso": {"lam": 1.0, "groups": np.arange(64) % 7},
    "prox_sparse_group_lasso": {"l1": 0.2, "lam": 1.0, "groups": np.arange(64) // 9},
    "prox_tv1d": {"lam": 0.8},
    "project_l1_ball": {"radius": 3.0},
    "project_l2_ball": {"radius": 3.0},
    "project_linf_ball": {"radius": 0.5},
    "project_simplex": {"total": 2.0},
    "project_box": {"lower": -0.2, "upper": 0.7},
}


@pytest.mark.parametrize("name", CONVEX)
@every_dtype
def test_firmly_nonexpansive(name, dtype):
    """‖Px − Py‖² ≤ ⟨Px − Py, x − y⟩, for far and near pairs."""
    rng = np.random.default_rng(8)
    for _ in range(200):
        x = rng.standard_normal(64).astype(dtype) * dtype(10) ** rng.integers(-2, 3)
        y = x + rng.standard_normal(64).astype(dtype) * dtype(10) ** rng.integers(-2, 3)
        p, q = (getattr(fastreg, name)(v, **CONVEX[name]).astype(np.float64) for v in (x, y))
        move = x.astype(np.float64) - y
        size = max(np.abs(x).max(), np.abs(y).max())
        assert (p - q) @ (p - q) <= (p - q) @ move + 64 * 4 * eps(dtype) * size * np.abs(p - q).max()


@every_dtype
def test_moreau(dtype):
    """prox of a norm + projection on the dual norm's ball = the identity."""
    rng = np.random.default_rng(9)
    for n in (1, 2, 17, 1000, 70_000):
        for t in (1e-3, 1.0, 0.3 * n, 1e9):
            x = rng.standard_normal(n).astype(dtype)
            for prox, projection in (
                (fastreg.prox_linf, fastreg.project_l1_ball),
                (fastreg.prox_l1, fastreg.project_linf_ball),
                (fastreg.prox_l2, fastreg.project_l2_ball),
            ):
                assert_allclose(prox(x, t) + projection(x, t), x, rtol=0, atol=4 * eps(dtype) * np.abs(x).max())


@every_dtype
@pytest.mark.parametrize("n", [1, 2, 3, 10, 100, 2048, 5000, 65_536, 300_001])
def test_projections_are_feasible_and_idempotent_to_the_bit(dtype, n):
    rng = np.random.default_rng(n)
    slack = 16 * eps(dtype)
    for scale in (1e-3, 1.0, 1e6):
        x = (rng.standard_normal(n) * scale).astype(dtype)
        for amount in (1e-6, 1.0, scale, 0.3 * n * scale):
            z = fastreg.project_simplex(x, amount)
            assert np.all(z >= 0)
            assert abs(math.fsum(z.astype(float)) - amount) <= slack * amount
            assert_array_equal(fastreg.project_simplex(z, amount), z)
            z = fastreg.project_l1_ball(x, amount)
            assert math.fsum(np.abs(z).astype(float)) <= amount * (1 + slack)
            assert_array_equal(fastreg.project_l1_ball(z, amount), z)
            z = fastreg.project_l2_ball(x, amount)
            assert math.sqrt(math.fsum(z.astype(float) ** 2)) <= amount * (1 + slack)
            assert_array_equal(fastreg.project_l2_ball(z, amount), z)
            z = fastreg.project_linf_ball(x, amount)
            assert np.abs(z).max() <= dtype(amount)
            assert_array_equal(fastreg.project_linf_ball(z, amount), z)
        z = fastreg.project_box(x, -scale, scale / 2)
        assert_array_equal(fastreg.project_box(z, -scale, scale / 2), z)


@every_dtype
def test_large_simplices_agree_with_sorting(dtype):
    """Arrays large enough for a sample to choose the start, for which the sample is right, useless or misleading."""
    rng = np.random.default_rng(10)
    n = 150_000
    bump = np.zeros(n)
    bump[12_345] = 1e3
    inputs = (
        rng.standard_normal(n),
        np.sort(rng.standard_normal(n)),
        rng.exponential(size=n) ** 4,
        bump + rng.random(n),
        np.repeat(rng.standard_normal(n // 1000), 1000),
        2.0 ** -(np.arange(n) % 900.0),
        np.full(n, 3.0),
        np.where(np.arange(n) % (n // 256) < 32, 5.0, rng.random(n)),
    )
    for x in inputs:
        x = x.astype(dtype)
        for total in (1.0, 1e-3 * n, 0.5 * n):
            z = fastreg.project_simplex(x, total).astype(float)
            wanted = reference.project_simplex(x.astype(float), total)
            assert_allclose(z, wanted, rtol=0, atol=4 * eps(dtype) * np.abs(wanted).max() + 1e-10)
            assert abs(math.fsum(z) - total) <= 16 * eps(dtype) * total


def test_simplex_of_elements_far_above_its_total():
    """θ in two doubles: 10²⁰ − ½ has no double of its own."""
    assert_array_equal(fastreg.project_simplex([1e20, 1e20, 3.0]), [0.5, 0.5, 0.0])
    assert_array_equal(fastreg.project_simplex([1e20, 1e20 - 16384], 1e4), [1e4, 0.0])
    assert_array_equal(fastreg.project_simplex([1e20, 1e20 - 16384], 2e4), [18192.0, 1808.0])
    assert_array_equal(fastreg.project_l1_ball([1e20, -1e20, 3.0]), [0.5, -0.5, 0.0])
    assert_array_equal(fastreg.project_simplex(np.float32([1e10, 1e10])), np.float32([0.5, 0.5]))
    assert_array_equal(fastreg.project_simplex([-np.inf, 0.0, 0.5]), [0, 0.25, 0.75])


def test_simplex_keeps_the_zeros_of_a_point_on_it():
    """Σ is off by rounding: a θ of −10⁻¹⁷ would make every zero 10⁻¹⁷."""
    z = fastreg.project_simplex(np.random.default_rng(0).standard_normal(1000))
    again = fastreg.project_simplex(z)
    assert np.count_nonzero(again) == np.count_nonzero(z) < 10


@pytest.mark.parametrize("name", ["project_simplex", "project_l1_ball", "project_l2_ball", "prox_linf", "prox_l2"])
@pytest.mark.parametrize("n", [3, 5000])
def test_a_nan_is_not_swallowed(name, n):
    x = np.random.default_rng(0).standard_normal(n)
    for k in (0, n // 2, n - 1):
        bad = x.copy()
        bad[k] = np.nan
        with np.errstate(all="ignore"):
            assert np.isnan(getattr(fastreg, name)(bad, 2.0)).all()


# ---- groups by label ---------------------------------------------------------------------------------------------


@every_dtype
def test_labels_of_any_integers_in_any_order(dtype):
    rng = np.random.default_rng(11)
    matrix = rng.standard_normal((40, 25)).astype(dtype)
    weights = rng.random(40)
    wanted = fastreg.prox_group_lasso(matrix, 3.0, axis=1).ravel()
    weighted = fastreg.prox_group_lasso(matrix, 6.0, axis=1, weights=weights).ravel()
    rows = np.repeat(np.arange(40), 25)
    shuffle = rng.permutation(1000)
    for kind in ("i1", "u1", "i4", "u8", "i8", ">i4"):
        for spread, start in ((1, 0), (1, -20), (10**15, -(2**62)), (2**57, -(2**62))):
            labels = rows * spread + start
            if np.any(labels.astype(kind) != labels) or (kind[-2] == "u" and start < 0):
                continue
            got = fastreg.prox_group_lasso(matrix.ravel()[shuffle], 3.0, labels.astype(kind)[shuffle])
            assert_allclose(got, wanted[shuffle], rtol=0, atol=8 * eps(dtype))
            got = fastreg.prox_group_lasso(matrix.ravel()[shuffle], 6.0, labels.astype(kind)[shuffle], weights=weights)
            assert_allclose(got, weighted[shuffle], rtol=0, atol=8 * eps(dtype))
    ends = np.array([-(2**63), 2**63 - 1, -(2**63)])
    assert_array_equal(fastreg.prox_group_lasso(np.array([3.0, 0.5, 4.0]), 2.5, ends), [1.5, 0.0, 2.0])
    ends = np.array([0, 2**64 - 1, 0], np.uint64)
    assert_array_equal(fastreg.prox_group_lasso(np.array([3.0, 0.5, 4.0]), 2.5, ends), [1.5, 0.0, 2.0])
    assert_array_equal(fastreg.prox_group_lasso(np.array([3.0, 0.5, 4.0]), 2.5, [True, False, True]), [1.5, 0.0, 2.0])


@every_dtype
@pytest.mark.parametrize("l1", [0.0, 0.3])
def test_rows_of_every_length_are_what_they_are_as_columns(dtype, l1):
    """To the bit: short rows, rows and columns are three loops, whose sums are one tree."""
    rng = np.random.default_rng(14)
    for length in range(1, 200):
        for n in (1, 3, 70, 5000 // length):
            x = rng.standard_normal((n, length)).astype(dtype)
            x[n // 2] *= dtype(1e-3)
            t = math.sqrt(length) / 2
            got = fastreg.prox_sparse_group_lasso(x, l1, t, axis=1)
            assert_array_equal(got, fastreg.prox_sparse_group_lasso(x.T.copy(), l1, t, axis=0).T)
            assert not got[n // 2].any()
            soft = fastreg.soft_threshold(x, l1).astype(np.float64)
            norm = [math.sqrt(math.fsum(row * row)) for row in soft]
            wanted = [row * max(1 - t / m, 0) if m else row for row, m in zip(soft, norm, strict=True)]
            # A factor is a difference, of which only the terms are exact to rounding.
            assert np.all(np.abs(got - np.array(wanted)) <= 3 * eps(dtype) * np.abs(x))


@every_dtype
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_few_labels_of_many_elements(dtype, order):
    rng = np.random.default_rng(15)
    labels = rng.choice([-7, 3, 4, 1000], 100_001)
    labels = np.sort(labels) if order == "sorted" else labels
    x = rng.standard_normal(labels.size).astype(dtype)
    got = fastreg.prox_group_lasso(x, 50.0, labels, weights=[1.0, 2.0, 0.0, 1e9])
    for label, weight in ((-7, 1.0), (3, 2.0), (4, 0.0), (1000, 1e9)):
        own = x[labels == label].astype(np.float64)
        factor = max(1 - 50.0 * weight / math.sqrt(math.fsum(own * own)), 0)
        # One sum in double of terms of one sign: at most half a unit an addition.
        assert_allclose(got[labels == label], own * factor, rtol=2 * eps(dtype) + own.size * 2.0**-53)


@pytest.mark.usefixtures("every_isa")
def test_groups_of_very_different_sizes_side_by_side():
    x = np.array([3e200, 3.0, 3e-200, 4e200, 4.0, 4e-200, 0.0])
    labels = [0, 1, 2, 0, 1, 2, 3]
    assert_allclose(fastreg.prox_group_lasso(x, 2.5, labels), [3e200, 1.5, 0, 4e200, 2, 0, 0], rtol=1e-15)
    assert_allclose(
        fastreg.prox_group_lasso(x, 2.5e-200, labels), [3e200, 3, 1.5e-200, 4e200, 4, 2e-200, 0], rtol=1e-15
    )
    columns = np.array([[3e200, 3.0, 3e-200, 0.0], [4e200, 4.0, 4e-200, 0.0]])
    for groups, axis in ((columns, 0), (columns.T.copy(), 1)):
        got = fastreg.prox_group_lasso(groups, 2.5e-200, axis=axis)
        wanted = np.array([[3e200, 3, 1.5e-200, 0], [4e200, 4, 2e-200, 0]])
        assert_allclose(got if axis == 0 else got.T, wanted, rtol=1e-15)


@pytest.mark.usefixtures("every_isa")
@pytest.mark.parametrize("dtype", DTYPES)
def test_short_rows_keep_their_nan_and_their_zeros(dtype):
    """Rows of every length that are taken several at a time: NaN, below the threshold, infinite, and far above it."""
    for length in range(1, 140):
        x = np.tile(np.array([1.0, 0.01, 2.0, 3.0, -0.01], dtype)[:, None], (5, length))
        x[0, length // 2] = np.nan
        x[2, length // 3] = -np.inf
        y = fastreg.prox_group_lasso(x, 0.5, axis=1)
        assert np.isnan(y[0]).all(), length
        assert_array_equal(y[2], x[2])
        assert_array_equal(y[[1, 4]], np.zeros((2, length)))
        assert not np.signbit(y[[1, 4]]).any()
        for row in (3, 5, 8):
            factor = 1 - 0.5 / np.sqrt(np.sum(np.square(x[row], dtype=np.float64)))
            assert_allclose(y[row], x[row] * max(factor, 0), rtol=4 * np.finfo(dtype).eps)


def test_a_nan_stays_in_its_group():
    x = np.array([[3.0, np.nan, 4.0], [3.0, 0.0, 4.0], [np.inf, 1.0, 1.0]])
    wanted = [[np.nan] * 3, [1.5, 0.0, 2.0], [np.inf, 1.0, 1.0]]
    assert_array_equal(fastreg.prox_group_lasso(x, 2.5, axis=1), wanted)
    assert_array_equal(fastreg.prox_group_lasso(x.T.copy(), 2.5, axis=0).T, wanted)
    assert_array_equal(fastreg.prox_group_lasso(x.ravel(), 2.5, np.repeat([5, 1, 2], 3)), np.ravel(wanted))
    assert_array_equal(fastreg.prox_sparse_group_lasso(x, 0.0, 2.5, axis=1), wanted)


@pytest.mark.parametrize("shape", [(7, 5, 3), (1, 40, 2), (70, 3, 70)])
def test_every_axis_of_every_layout(shape):
    rng = np.random.default_rng(12)
    x = rng.standard_normal(shape)
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1)):
        laid = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
        for axis in range(3):
            rest = tuple(np.delete(shape, axis))
            for weights in (None, rng.random(rest), rng.random(rest[-1])):
                wanted = reference.prox_group_lasso(x, 1.5, axis=axis, weights=weights)
                for out in (None, np.empty(shape), np.empty(shape, order="F"), laid.copy(order="K")):
                    source = out if out is not None and out.strides == laid.strides else laid
                    if source is out:
                        out[...] = laid
                    got = fastreg.prox_group_lasso(source, 1.5, axis=axis - 3, weights=weights, out=out)
                    assert_allclose(got, wanted, rtol=0, atol=1e-15)


@pytest.mark.usefixtures("every_isa")
def test_weights_of_zero_leave_their_group_alone():
    x = np.array([1.0, 2.0, 3.0])
    for lam in (1.0, np.inf):
        assert_array_equal(fastreg.prox_group_lasso(x, lam, [4, 9, 4], weights=[0.0, 1e9]), [1.0, 0.0, 3.0])
        assert_array_equal(fastreg.prox_group_lasso(x, lam, axis=0, weights=0.0), x)


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"groups": [0, 0, 1], "axis": 0}, ValueError, "groups and axis"),
        ({"groups": [0.0, 0.0, 1.0]}, TypeError, "groups"),
        ({"groups": [0, 0]}, ValueError, "groups"),
        ({"axis": 1}, ValueError, "axis"),
        ({"axis": 0.0}, TypeError, "axis"),
        ({"groups": [0, 0, 1], "weights": [1.0]}, None, ""),
        ({"groups": [0, 0, 1], "weights": [1.0, 2.0, 3.0]}, ValueError, "weights"),
        ({"groups": [0, 0, 1], "weights": [1.0, -2.0]}, ValueError, "weights"),
        ({"groups": [0, 0, 1], "weights": [1.0, np.inf]}, ValueError, "weights"),
        ({"weights": [np.nan]}, ValueError, "weights"),
        ({"lam": -1.0}, ValueError, "lam"),
        ({"lam": np.nan}, ValueError, "lam"),
        ({"lam": [1.0]}, TypeError, "lam"),
        ({"step": -1.0}, ValueError, "step"),
        ({"step": np.inf}, ValueError, "step"),
    ],
)
def test_bad_groups_are_refused(options, kind, match):
    x = np.arange(3.0)
    if kind is None:
        fastreg.prox_group_lasso(x, 1.0, **options)
        return
    out = np.full(3, 7.0)
    with pytest.raises(kind, match=match):
        fastreg.prox_group_lasso(x, **({"lam": 1.0} | options), out=out)
    assert_array_equal(out, 7.0)
    with pytest.raises(kind, match=match):
        fastreg.prox_sparse_group_lasso(x, 1.0, **({"lam": 1.0} | options), out=out)
    assert_array_equal(out, 7.0)


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda x: fastreg.prox_l1(x, -1.0), ValueError, "lam"),
        (lambda x: fastreg.prox_l1(x, [1.0, -1.0, 1.0]), ValueError, "lam"),
        (lambda x: fastreg.prox_l1(x, [1.0, 1.0]), ValueError, "lam"),
        (lambda x: fastreg.prox_l1(x, 1.0, np.nan), ValueError, "step"),
        (lambda x: fastreg.prox_l1(x, 1.0, "1"), TypeError, "step"),
        (lambda x: fastreg.prox_elastic_net(x, 1.0, -1.0), ValueError, "l2"),
        (lambda x: fastreg.project_box(x, 1.0, 0.0), ValueError, "lower"),
        (lambda x: fastreg.project_box(x, [0.0, 2.0, 0.0], 1.0), ValueError, "lower"),
        (lambda x: fastreg.project_box(x, np.nan, 1.0), ValueError, "lower"),
        (lambda x: fastreg.project_box(x, 0.0, [1.0, np.nan, 1.0]), ValueError, "upper"),
        (lambda x: fastreg.project_simplex(x, 0.0), ValueError, "total"),
        (lambda x: fastreg.project_simplex(x, np.inf), ValueError, "total"),
        (lambda x: fastreg.project_simplex([], 1.0), ValueError, "x"),
        (lambda x: fastreg.project_l1_ball(x, -1.0), ValueError, "radius"),
        (lambda x: fastreg.project_l2_ball(x, np.nan), ValueError, "radius"),
        (lambda x: fastreg.project_linf_ball(x, -1.0), ValueError, "radius"),
        (lambda x: fastreg.prox_l2(x, [1.0, 1.0, 1.0]), TypeError, "lam"),
        (lambda x: fastreg.prox_tv1d([[1.0]], 1.0), ValueError, "x"),
        (lambda x: fastreg.prox_nuclear(x, 1.0), ValueError, "x"),
    ],
)
def test_bad_arguments_are_refused(call, kind, match):
    with pytest.raises(kind, match=match):
        call(np.arange(3.0))


@pytest.mark.parametrize("function", [fastreg.prox_group_lasso, fastreg.prox_sparse_group_lasso])
def test_labels_that_are_not_aligned(function):
    """ascontiguousarray keeps them; the core reads them as int64, which C allows for aligned memory alone."""
    x, labels = np.arange(7.0), np.array([3, 1, 3, 2, 1, 1, 3])
    apart = np.ndarray(7, np.int64, np.zeros(57, np.uint8)[1:])
    apart[...] = labels
    assert not apart.flags.aligned
    lam = {"lam": 0.5} if function is fastreg.prox_group_lasso else {"l1": 0.1, "lam": 0.5}
    assert np.array_equal(function(x, groups=apart, **lam), function(x, groups=labels, **lam))


@pytest.mark.usefixtures("every_isa")
@every_dtype
def test_parameters_of_each_element_are_those_of_many_calls(dtype):
    """Some of a function's parameters an array each, the others numbers; steps of 0, at which SCAD has no slope."""
    x = np.linspace(-3, 3, 41).astype(dtype)
    lower, upper = np.linspace(-2, 0, 41).astype(dtype), np.linspace(0.5, 1.5, 41).astype(dtype)
    calls = [
        (fastreg.project_box, {"lower": lower, "upper": upper}, {}),
        (fastreg.project_box, {"lower": lower}, {"upper": 0.75}),
        (fastreg.project_box, {"upper": upper}, {"lower": -0.5}),
        *((fastreg.prox_elastic_net, {"l1": upper, "l2": -lower}, {"step": step}) for step in (0.0, 0.7)),
        *((fastreg.prox_scad, {"lam": upper}, {"step": step}) for step in (0.0, 0.7)),
        (fastreg.prox_scad, {}, {"lam": 0.5, "step": 0.0}),
        (fastreg.prox_scad, {"lam": upper}, {"step": 0.7, "gamma": math.inf}),
        (fastreg.prox_scad, {}, {"lam": 0.5, "step": 0.7, "gamma": math.inf}),
    ]
    for function, each, options in calls:
        wanted = [
            function(x[i : i + 1], **{name: float(v[i]) for name, v in each.items()}, **options)[0]
            for i in range(x.size)
        ]
        assert function(x, **each, **options).tobytes() == np.array(wanted, dtype).tobytes(), (function, options)


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize("features", [1, 7, 1000, 1024, 2048, 3000, 4096, 4100, 9000])
def test_weights_that_rows_share_are_those_written_out(dtype, features):
    """What is made of a weight is made once for all rows, or in a piece of many elements: the same bits. Rows with gaps
    between them, backwards and in place; weights of the same features for each of two matrices, and weights a row."""
    rng = np.random.default_rng(features)
    rows = 20_000 // features + 3
    wide = rng.standard_normal((rows, 2, features + 5)).astype(dtype)
    lam, other = rng.random((2, 2, features)).astype(dtype) * 2
    calls = [
        (function, {"lam": lam}, {"step": step})
        for function in (fastreg.prox_l1, fastreg.prox_l0, fastreg.prox_sq_l2, fastreg.prox_mcp, fastreg.prox_scad)
        for step in (1.0, 0.3)
    ]
    calls += [
        (fastreg.prox_scad, {"lam": lam}, {"gamma": math.inf}),
        (fastreg.project_box, {"lower": -lam, "upper": other}, {}),
        (fastreg.prox_elastic_net, {"l1": lam, "l2": other}, {"step": 0.3}),
        (fastreg.prox_elastic_net, {"l1": lam, "l2": other[0]}, {"step": 0.3}),
        (fastreg.prox_elastic_net, {"l1": lam}, {"l2": 0.4}),
        (fastreg.prox_elastic_net, {"l2": lam}, {"l1": 0.4}),
        (fastreg.prox_elastic_net, {"l1": lam, "l2": wide[..., :features] ** 2}, {}),
    ]
    for x in (np.ascontiguousarray(wide[..., :features]), wide[..., :features], wide[::-1, :, features:0:-1]):
        for function, each, options in calls:
            for cut in (np.s_[...], np.s_[0], np.s_[..., :1]):
                some = {name: weights[cut] for name, weights in each.items()}
                full = {name: np.broadcast_to(weights, x.shape).copy() for name, weights in some.items()}
                wanted = function(x.copy(), **full, **options)
                assert function(x, **some, **options).tobytes() == wanted.tobytes(), (function, options)
                place = wide.copy()[..., :features] if x.base is wide else x.copy()
                place[...] = x
                assert function(place, **some, **options, out=place).tobytes() == wanted.tobytes(), (function, options)


@pytest.mark.usefixtures("every_isa")
@every_dtype
@pytest.mark.parametrize("length", [1, 3, 4, 7, 8, 12, 16, 20, 24, 31, 40, 300])
def test_groups_of_any_length_beside_each_other(dtype, length):
    """x·max(1 − lam·w/‖x‖, 0): norm, quotient, difference and product in double, and one rounding to f32."""
    rng = np.random.default_rng(length)
    x = rng.standard_normal((70, length)).astype(dtype)
    weights = rng.random(70) * 2
    for each in (None, weights):
        w = np.ones(70) if each is None else weights
        norm = np.array([math.sqrt(math.fsum(row * row)) for row in x.astype(float)])
        factor = np.maximum(1 - 0.9 * w / norm, 0)
        wanted = factor[:, None] * x
        bound = eps(dtype) * np.abs(x) * (2 + 8 * (length + 4) * 2.0**-53 / eps(dtype))
        for got in (
            fastreg.prox_group_lasso(x, 0.9, axis=1, weights=each),
            fastreg.prox_group_lasso(x.T.copy(), 0.9, axis=0, weights=each).T,
        ):
            assert np.all(np.abs(got - wanted) <= bound)


# ---- what is met at once -----------------------------------------------------------------------------------------


@every_dtype
def test_the_ball_of_radius_zero_is_a_point(dtype):
    x = np.array([3, -2, 0, 1e-30, -1e30], dtype)
    for project in (fastreg.project_l1_ball, fastreg.project_l2_ball, fastreg.project_linf_ball):
        assert_array_equal(project(x, 0.0), np.zeros(5))
    assert not np.signbit(fastreg.project_l1_ball(x, 0.0)).any(), "a threshold's zero"


@every_dtype
def test_nuclear_of_what_has_no_singular_values_to_speak_of(dtype):
    x = np.array([[1, -2], [3, 4], [0, -0.0]], dtype)
    assert_array_equal(fastreg.prox_nuclear(x, np.inf), np.zeros((3, 2)))
    assert_array_equal(fastreg.prox_nuclear(np.zeros_like(x), 0.5), np.zeros((3, 2)))
    for bad in (np.nan, np.inf, -np.inf):
        x[1, 1] = bad
        assert np.isnan(fastreg.prox_nuclear(x, 0.5)).all()


def test_labels_are_of_a_vector():
    with pytest.raises(ValueError, match=r"groups: got labels for an x of shape \(2, 3\)"):
        fastreg.prox_group_lasso(np.ones((2, 3)), 0.5, np.zeros(6, int))


@every_dtype
def test_the_result_may_lie_across_its_input(dtype):
    """The transposed view of the same memory: as if x had been copied first."""
    x = np.random.default_rng(1).normal(size=(7, 7)).astype(dtype)
    wanted = fastreg.soft_threshold(x, 0.5)
    out = fastreg.soft_threshold(x, 0.5, out=x.T)
    assert_array_equal(out, wanted)
