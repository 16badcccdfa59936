"""Penalty objects: value, subgradient, prox, sums, and the loops of others that they fit into."""

import numpy as np
import pyproximal
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastreg
from fastreg.penalties import (
    L0,
    L1,
    L2,
    MCP,
    SCAD,
    TV1D,
    ElasticNet,
    Frobenius,
    GroupLasso,
    LInf,
    Nuclear,
    Penalty,
    SparseGroupLasso,
)

GROUPS = [3, -1, 3, -1, 3, 8]
WEIGHTS = [0.5, 2.0, 1.0]  # of -1, 3, 8
CONVEX = [
    L1(0.7),
    L1([0.1, 0.2, 0.3, 0.0, 2.0, 1.0]),
    L2(0.7),
    ElasticNet(0.5, 0.3),
    ElasticNet.from_alpha(0.5, l1_ratio=0.3),
    ElasticNet.from_alpha(0.5, l1_ratio=0.0),
    ElasticNet.from_alpha(0.5, l1_ratio=1.0),
    GroupLasso(0.8, GROUPS),
    GroupLasso(0.8, GROUPS, weights=WEIGHTS),
    GroupLasso(0.8, axis=0),
    GroupLasso(0.8),
    SparseGroupLasso(0.2, 0.8, GROUPS, weights=WEIGHTS),
    Frobenius(0.9),
    LInf(1.1),
    TV1D(0.6),
    L1(0.2) + L2(0.3),
    L1(0.2) + L1(0.3) + ElasticNet(0.1, 0.1),
    L2(0.2) + LInf(0.3),
    L1(0.2) + GroupLasso(0.5, GROUPS) + L2(0.4),
    L1([0.1, 0.2, 0.3, 0.0, 2.0, 1.0]) + Frobenius(0.5),
    L1(0.2) + TV1D(0.5) + L2(0.1),
    L1(0.1) + SparseGroupLasso(0.1, 0.4, GROUPS),
]
BENT = [MCP(0.7, 2.5), SCAD(0.7, 3.0), MCP([0.1, 0.2, 0.3, 0.0, 2.0, 1.0])]
every_convex = pytest.mark.parametrize("penalty", CONVEX, ids=repr)
every_penalty = pytest.mark.parametrize("penalty", [*CONVEX, *BENT], ids=repr)


def points(n=40):
    rng = np.random.default_rng(3)
    for k in range(n):
        w = rng.standard_normal(6) * 10.0 ** rng.integers(-1, 2)
        yield np.round(w) if k % 3 == 0 else w  # ties and zeros


# ---- each by its definition --------------------------------------------------------------------------------------


@every_penalty
def test_no_point_beats_the_prox(penalty):
    """Random points near and far, and each coordinate alone, have no smaller step·penalty + ½‖z − w‖²."""
    rng = np.random.default_rng(1)
    for w in points():
        for step in (0.1, 1.0) if penalty in BENT else (0.1, 1.0, 3.0):
            z = penalty.prox(w, step)

            def objective(z, w=w, step=step):
                return step * penalty(z) + 0.5 * np.sum((z - w) ** 2)

            least = objective(z)
            for size in (1e-6, 1e-3, 0.1, 1.0, 10.0):
                for move in (*np.eye(6), *-np.eye(6), *rng.standard_normal((6, 6))):
                    assert objective(z + size * move) >= least - 1e-13 * max(1.0, abs(least))
            assert objective(np.zeros(6)) >= least - 1e-13 * max(1.0, abs(least))


@every_convex
def test_grad_is_a_subgradient(penalty):
    for w in points():
        g = penalty.grad(w)
        for z in points():
            assert penalty(z) >= penalty(w) + g @ (z - w) - 1e-12 * max(1.0, abs(penalty(z)), abs(penalty(w)))


@every_penalty
def test_grad_is_the_slope_where_there_is_one(penalty):
    for w in np.random.default_rng(2).uniform(0.1, 3, (10, 6)):
        g, h = penalty.grad(w), 1e-6
        slopes = [(penalty(w + h * e) - penalty(w - h * e)) / (2 * h) for e in np.eye(6)]
        assert_allclose(g, slopes, atol=1e-7)


@every_convex
def test_zero_is_the_subgradient_at_zero(penalty):
    assert not penalty.grad(np.zeros(6)).any()


@every_penalty
def test_prox_solves_its_inclusion(penalty):
    """(w − z)/step is a subgradient at z; where z is not at a kink it is the gradient."""
    for w in points():
        z = penalty.prox(w, 0.5)
        if np.all(np.abs(z) > 1e-3) and len(set(np.abs(z).round(6))) == 6:
            assert_allclose((w - z) / 0.5, penalty.grad(z), atol=1e-9)


def test_values_by_hand():
    w = np.array([3.0, 0.0, -4.0])
    assert L0(2.0)(w) == 4.0
    assert L0([2.0, np.inf, 1.0])(w) == 3.0
    assert L1(2.0)(w) == 14.0
    assert L2(2.0)(w) == 25.0
    assert ElasticNet(2.0, 2.0)(w) == 39.0
    assert Frobenius(2.0)(w) == 10.0
    assert LInf(2.0)(w) == 8.0
    assert TV1D(2.0)(w) == 14.0
    assert MCP(1.0, 2.0)(w) == 2.0
    assert MCP(2.0, 4.0)(w) == (6 - 9 / 8) + (8 - 16 / 8)
    assert SCAD(1.0, 3.0)(w) == 4.0
    assert SCAD(2.0, 3.0)(w) == (2 * 3 * 2 * 3 - 9 - 4) / 4 + (2 * 3 * 2 * 4 - 16 - 4) / 4
    assert GroupLasso(2.0, [1, 0, 1], weights=[7, 0.5])(w) == 5.0
    assert GroupLasso(2.0, axis=1)(w[None]) == 10.0
    assert SparseGroupLasso(1.0, 2.0)(w) == 17.0
    assert Nuclear(2.0)(np.diag(w)) == pytest.approx(14.0, rel=1e-15)
    assert (L1(1.0) + L2(1.0) + LInf(1.0))(w) == 7.0 + 12.5 + 4.0


def test_norms_of_huge_and_tiny_weights():
    for size in (1e-200, 1e200):
        w = size * np.array([3.0, 4.0])
        assert Frobenius(1.0)(w) == pytest.approx(5 * size, rel=1e-15)
        assert GroupLasso(1.0, [0, 0])(w) == pytest.approx(5 * size, rel=1e-15)
        assert_allclose(Frobenius(1.0).grad(w), [0.6, 0.8], rtol=1e-15)
        assert_allclose(GroupLasso(1.0, [0, 0]).grad(w), [0.6, 0.8], rtol=1e-15)


def test_nuclear_prox_and_subgradient():
    rng = np.random.default_rng(0)
    penalty = Nuclear(0.8)
    for shape in ((4, 3), (3, 4), (5, 5)):
        w = rng.standard_normal(shape)
        z = penalty.prox(w, 2.0)
        # (w − z)/step = lam·(U Vᵀ + W), ‖W‖ ≤ 1, W orthogonal to both: spectral norm lam, inner product the value.
        g = (w - z) / 2.0
        assert np.linalg.norm(g, 2) <= 0.8 * (1 + 1e-13)
        assert np.sum(g * z) == pytest.approx(penalty(z), rel=1e-12)
        for _ in range(20):
            other = rng.standard_normal(shape)
            assert penalty(other) >= penalty(z) + np.sum(penalty.grad(z) * (other - z)) - 1e-12


# ---- as objects --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [*CONVEX, *BENT, L0(1.0), L0([1.0, 2.0]), Nuclear(1.0), L1(np.inf)], ids=repr)
def test_repr_evaluates_back(penalty):
    again = eval(repr(penalty), vars(fastreg.penalties) | {"float": float})
    assert again == penalty
    assert repr(again) == repr(penalty)


def test_equality():
    assert L1(1.0) == L1(1)
    assert L1(1.0) != L1(2.0)
    assert L1(1.0) != L2(1.0)
    assert L1([1.0, 2.0]) == L1(np.array([1.0, 2.0]))
    assert GroupLasso(1.0, [0, 1]) != GroupLasso(1.0, [1, 0])
    assert GroupLasso(1.0, [0, 1]) != GroupLasso(1.0)
    assert L1(1.0) + L2(1.0) != L2(1.0) + L1(1.0)
    assert (L1(1.0) + L2(1.0)) + LInf(1.0) == L1(1.0) + (L2(1.0) + LInf(1.0))
    assert L1(1.0) != 1.0
    with pytest.raises(TypeError):
        hash(L1(1.0))
    with pytest.raises(TypeError):
        L1(1.0) + 1.0


def test_parameters_are_the_penalty_s_own():
    lam, groups = np.ones(2), np.array([0, 1])
    penalty, grouped = L1(lam), GroupLasso(1.0, groups)
    lam[:], groups[:] = 7.0, 7
    assert penalty == L1([1.0, 1.0])
    assert grouped == GroupLasso(1.0, [0, 1])
    with pytest.raises(ValueError, match="read-only"):
        penalty.lam[0] = 3.0


@every_penalty
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_out(penalty, dtype):
    w = np.arange(6, dtype=dtype) - 2.5
    for method in (penalty.grad, penalty.prox):
        wanted = method(w.copy())
        assert wanted.dtype == dtype
        out = w.copy()
        assert method(out, out=out) is out
        assert_array_equal(out, wanted)


def test_sums_without_a_closed_form():
    for penalty in (L1(1.0) + LInf(1.0), L1(1.0) + MCP(1.0), TV1D(1.0) + LInf(1.0), L2([1.0, 2.0]) + LInf(1.0)):
        assert penalty(np.ones(2)) > 0
        with pytest.raises(TypeError, match="closed form"):
            penalty.prox(np.ones(2))
    for penalty in (L0(1.0), L0(1.0) + L2(1.0)):
        with pytest.raises(TypeError, match="L0 has no gradient"):
            penalty.grad(np.ones(2))
    assert_array_equal((L0(1.0) + L2(1.0)).prox(np.array([4.0, 1.0])), [2.0, 0.0])


@pytest.mark.parametrize(
    ("make", "kind", "name"),
    [
        (lambda: L1(-1.0), ValueError, "lam"),
        (lambda: L1([1.0, np.nan]), ValueError, "lam"),
        (lambda: L2("much"), ValueError, "much"),
        (lambda: ElasticNet(1.0, -1.0), ValueError, "l2"),
        (lambda: ElasticNet.from_alpha(1.0, 1.5), ValueError, "l1_ratio"),
        (lambda: ElasticNet.from_alpha(-1.0, 0.5), ValueError, "alpha"),
        (lambda: LInf([1.0]), TypeError, "lam"),
        (lambda: MCP(1.0, 0.0), ValueError, "gamma"),
        (lambda: SCAD(1.0, 1.0), ValueError, "gamma"),
        (lambda: MCP(1.0, 2.0).prox(np.ones(3), 2.0), ValueError, "gamma"),
        (lambda: SCAD(1.0, 2.0).prox(np.ones(3), 1.0), ValueError, "gamma"),
        (lambda: GroupLasso(1.0, [0], axis=0), ValueError, "groups and axis"),
        (lambda: GroupLasso(1.0, [0.5]), TypeError, "groups"),
        (lambda: GroupLasso(1.0, [0, 1])(np.ones(3)), ValueError, "groups"),
        (lambda: GroupLasso(1.0, [0, 1], weights=[1.0]).prox(np.ones(3)), ValueError, "groups"),
        (lambda: L1(1.0).prox(np.ones(3), -1.0), ValueError, "step"),
    ],
)
def test_bad_parameters_are_refused(make, kind, name):
    with pytest.raises(kind, match=name):
        make()


# ---- in loops ----------------------------------------------------------------------------------------------------


def regression():
    rng = np.random.default_rng(5)
    A = rng.standard_normal((30, 6))
    return A, A @ [1.0, -2.0, 0, 0, 3.0, 0] + 0.1 * rng.standard_normal(30)


def fista(A, b, penalty, iterations=3000):
    """Beck and Teboulle 2009."""
    step = 1 / np.linalg.norm(A, 2) ** 2
    w = v = np.zeros(A.shape[1])
    t = 1.0
    for _ in range(iterations):
        last, w = w, penalty.prox(v - step * A.T @ (A @ v - b), step)
        t_next = 0.5 * (1 + np.sqrt(1 + 4 * t * t))
        v, t = w + (t - 1) / t_next * (w - last), t_next
    return w


@every_convex
def test_fista_reaches_a_stationary_point(penalty):
    """−∇(½‖Aw − b‖²) is a subgradient of the penalty at the minimum: by definition, over many directions."""
    A, b = regression()
    w = fista(A, b, penalty)
    g = -A.T @ (A @ w - b)
    for z in points():
        assert penalty(z) >= penalty(w) + g @ (z - w) - 1e-7 * max(1.0, abs(penalty(z)))


THEIRS = [
    (L1(0.7), pyproximal.L1(0.7)),
    (L2(0.7), pyproximal.L2(sigma=0.7)),
    (Frobenius(0.7), pyproximal.Euclidean(0.7)),
    (TV1D(0.7), pyproximal.TV(dims=(6,), sigma=0.7, niter=3000, rtol=1e-14)),
]


@pytest.mark.parametrize(("ours", "theirs"), THEIRS, ids=lambda p: type(p).__name__)
def test_agrees_with_pyproximal(ours, theirs):
    for w in points(10):
        assert_allclose(ours(w), theirs(w), rtol=1e-12)
        assert_allclose(ours.prox(w, 0.8), theirs.prox(w, 0.8), atol=1e-5 if isinstance(ours, TV1D) else 1e-12)
        assert_allclose(ours.proxdual(w, 0.8), theirs.proxdual(w, 0.8), atol=1e-5 if isinstance(ours, TV1D) else 1e-12)


@every_convex
@pytest.mark.parametrize("acceleration", [None, "fista"])
def test_in_pyproximal_s_proximal_gradient(penalty, acceleration):
    import pylops

    A, b = regression()
    smooth = pyproximal.L2(Op=pylops.MatrixMult(A), b=b)
    step = 0.99 / np.linalg.norm(A, 2) ** 2
    solve = pyproximal.optimization.primal.ProximalGradient
    w = solve(smooth, penalty, np.zeros(6), tau=step, niter=2000, acceleration=acceleration, show=False)
    assert_allclose(w, fista(A, b, penalty), atol=1e-6)


def test_in_pyproximal_s_primal_dual():
    """Total variation as a penalty of the differences: L1 of a dual variable, by `proxdual`."""
    import pylops

    b = np.array([1.0, 3.0, 2.0, 10.0, 8.0, 9.0])
    differences = pylops.FirstDerivative(6, kind="forward", edge=False)
    w = pyproximal.optimization.primaldual.PrimalDual(
        pyproximal.L2(b=b), L1(1.5), differences, np.zeros(6), tau=0.5, mu=0.45, niter=4000
    )
    assert_allclose(w, fastreg.prox_tv1d(b, 1.5), atol=1e-6)


def test_weights_of_groups_along_an_axis():
    w = np.array([[3.0, 4.0], [0.0, 2.0]])
    weights = np.array([0.5, 3.0])
    assert GroupLasso(2.0, axis=1, weights=weights)(w) == 2.0 * (0.5 * 5.0 + 3.0 * 2.0)
    assert GroupLasso(2.0, axis=0, weights=weights)(w) == 2.0 * (0.5 * 3.0 + 3.0 * np.sqrt(20.0))
    assert GroupLasso(2.0, weights=[0.5])(np.array([3.0, 4.0])) == 5.0


def test_a_penalty_of_ones_own_says_what_it_lacks():
    class Own(Penalty):
        pass

    for method in (Own(), Own().grad, Own().prox):
        with pytest.raises(NotImplementedError):
            method(np.ones(3))
