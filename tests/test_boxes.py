"""What only boxes promise: the published formulas, their derivatives, and a value for every degenerate case."""

import math

import mpmath
import numpy as np
import pytest
from conftest import DTYPES

import fastreg

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
LOSSES = ("giou_loss", "diou_loss", "ciou_loss")
every_loss = pytest.mark.parametrize("name", LOSSES)


def define(name, box, target, alpha=None):
    """One pair, from the papers, in mpmath; `alpha` instead of CIoU's own."""
    (a1, b1, a2, b2), (c1, d1, c2, d2) = ([mpmath.mpf(v) for v in one] for one in (box, target))
    a1, a2, b1, b2 = min(a1, a2), max(a1, a2), min(b1, b2), max(b1, b2)
    c1, c2, d1, d2 = min(c1, c2), max(c1, c2), min(d1, d2), max(d1, d2)
    shared = max(min(a2, c2) - max(a1, c1), 0) * max(min(b2, d2) - max(b1, d1), 0)
    union = (a2 - a1) * (b2 - b1) + (c2 - c1) * (d2 - d1) - shared
    wide, high = max(a2, c2) - min(a1, c1), max(b2, d2) - min(b1, d1)
    iou = shared / union
    if name == "iou":
        return iou
    if name == "giou_loss":
        return 1 - (iou - (wide * high - union) / (wide * high))
    centres = ((a1 + a2 - c1 - c2) ** 2 + (b1 + b2 - d1 - d2) ** 2) / 4
    loss = 1 - iou + centres / (wide**2 + high**2)
    if name == "ciou_loss":
        v = 4 / mpmath.pi**2 * (mpmath.atan((c2 - c1) / (d2 - d1)) - mpmath.atan((a2 - a1) / (b2 - b1))) ** 2
        alpha = v / (1 - iou + v) if alpha is None else alpha
        loss += alpha * v
        return (loss, alpha)
    return loss


def first(value):
    return value[0] if isinstance(value, tuple) else value


def some_boxes(n, dtype=np.float64, seed=0):
    """Pairs that overlap, lie in one another, or do not meet; some inverted."""
    rng = np.random.default_rng(seed)
    corner = rng.normal(size=(2, n, 2)) * 1.5
    return np.concatenate([corner, corner + rng.normal(1.2, 1, (2, n, 2))], axis=-1).astype(dtype)


@every_loss
@every_dtype
def test_is_its_definition(name, dtype):
    box, target = some_boxes(300, dtype)
    got = getattr(fastreg, name)(box, target, reduction="none")
    for g, x, t in zip(got, box.tolist(), target.tolist(), strict=True):
        wanted = first(define(name, x, t))
        # Of f32 only the result rounds; in double, areas and quotients round a few times before 1 is taken from them.
        assert abs(mpmath.mpf(float(g)) - wanted) <= (
            0.51 * np.spacing(dtype(wanted)) if dtype == np.float32 else 4e-15
        )


@every_dtype
def test_iou_is_its_definition(dtype):
    a, b = some_boxes(40, dtype, 1)
    got = fastreg.box_iou(a, b)
    for i, x in enumerate(a.tolist()):
        for j, t in enumerate(b.tolist()):
            wanted = define("iou", x, t)
            # Two sides and a product round (1.5 ulp) above, as much in a union that is at least half its terms below.
            assert abs(mpmath.mpf(float(got[i, j])) - wanted) <= 4 * np.finfo(dtype).eps * wanted


def torchvision(name, box, target, eps=1e-7):
    """torchvision.ops' formulas, written out: they keep quotients finite by an eps below."""
    x1, y1, x2, y2 = box.T
    u1, v1, u2, v2 = target.T
    width, height = np.minimum(x2, u2) - np.maximum(x1, u1), np.minimum(y2, v2) - np.maximum(y1, v1)
    shared = np.where((width > 0) & (height > 0), width * height, 0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
    wide, high = np.maximum(x2, u2) - np.minimum(x1, u1), np.maximum(y2, v2) - np.minimum(y1, v1)
    iou = shared / (union + eps)
    if name == "giou_loss":
        return 1 - (iou - (wide * high - union) / (wide * high + eps))
    rho = ((x2 + x1) / 2 - (u1 + u2) / 2) ** 2 + ((y2 + y1) / 2 - (v1 + v2) / 2) ** 2
    loss = 1 - iou + rho / (wide**2 + high**2 + eps)
    if name == "ciou_loss":
        v = 4 / np.pi**2 * (np.arctan((u2 - u1) / (v2 - v1)) - np.arctan((x2 - x1) / (y2 - y1))) ** 2
        loss = loss + v / (1 - iou + v + eps) * v
    return loss


@every_loss
def test_is_torchvisions(name):
    """Its eps of 1e-7, in areas of 1 and more, moves no quotient by more than that."""
    rng = np.random.default_rng(2)
    corner = rng.normal(size=(2, 500, 2))
    box, target = np.concatenate([corner, corner + rng.uniform(1, 3, corner.shape)], axis=-1)
    got = getattr(fastreg, name)(box, target, reduction="none")
    np.testing.assert_allclose(got, torchvision(name, box, target), rtol=0, atol=4e-7)


@every_loss
@every_dtype
def test_gradient_is_the_derivative(name, dtype):
    """Against central differences of the definition in 40 digits; CIoU's alpha stays that of the point."""
    box, target = some_boxes(60, dtype, 3)
    _, grad = getattr(fastreg, name)(box, target, reduction="none", return_grad=True)
    with mpmath.workdps(40):
        h = mpmath.mpf("1e-15")
        for g, x, t in zip(grad, box.tolist(), target.tolist(), strict=True):
            alpha = define(name, x, t)[1] if name == "ciou_loss" else None
            for k in range(4):
                up, down = [[mpmath.mpf(v) for v in x] for _ in range(2)]
                up[k] += h
                down[k] -= h
                wanted = (first(define(name, up, t, alpha)) - first(define(name, down, t, alpha))) / (2 * h)
                # Ten terms of double precision, none larger than 1/U or 1/C times a side: here below 10^3.
                assert abs(mpmath.mpf(float(g[k])) - wanted) <= np.finfo(dtype).eps * abs(wanted) + 1e-12


def test_atan_of_every_ratio():
    """The angle between two diagonals, through v, for ratios of sides from 1e-9 to 1e9."""
    for ratio in 10.0 ** np.linspace(-9, 9, 200):
        box, target = (0.0, 0.0, ratio, 1.0), (0.0, 0.0, 1.0, 1.0)
        got = fastreg.ciou_loss(box, target) - fastreg.diou_loss(box, target)
        with mpmath.workdps(40):
            wanted = define("ciou_loss", box, target)[0] - define("diou_loss", box, target)
        assert abs(got - wanted) <= 1e-15


@every_loss
@every_dtype
def test_equal_boxes_cost_nothing_and_stay(name, dtype):
    box = some_boxes(100, dtype, 4)[0]
    loss, grad = getattr(fastreg, name)(box, box.copy(), reduction="none", return_grad=True)
    assert not loss.any()
    assert not grad.any()
    assert np.array_equal(np.diag(fastreg.box_iou(box, box)), np.ones(100, dtype))


@every_loss
def test_corners_come_in_either_order(name):
    box, target = some_boxes(50, seed=5)
    loss, grad = getattr(fastreg, name)(box, target, reduction="none", return_grad=True)
    for order in ([2, 1, 0, 3], [0, 3, 2, 1], [2, 3, 0, 1]):
        other, other_grad = getattr(fastreg, name)(box[:, order], target, reduction="none", return_grad=True)
        assert np.array_equal(other, loss)
        assert np.array_equal(other_grad, grad[:, order])
        assert np.array_equal(getattr(fastreg, name)(box, target[:, order], reduction="none"), loss)
        assert np.array_equal(fastreg.box_iou(box[:, order], target), fastreg.box_iou(box, target))


POINT, LINE, UNIT = (1.0, 1.0, 1.0, 1.0), (0.0, 1.0, 2.0, 1.0), (0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("box", "target", "iou", "giou", "diou", "v"),
    [
        # Nothing is shared, and nothing is around: 0/0 is 0, and 1 − IoU stays 1.
        (POINT, POINT, 0, 1, 1, 0),
        (LINE, LINE, 0, 1, 1, 0),
        # A point in the middle of a line, and at the corner of a box; a side of length 0 has the ratio's limit.
        (POINT, LINE, 0, 1, 1, 0),
        (POINT, UNIT, 0, 1, 1 + 0.5 / 2, 0),
        (LINE, UNIT, 0, 1 + (2 - 1) / 2, 1 + (0.5**2 + 0.5**2) / (2**2 + 1), (math.pi / 4) ** 2 * 4 / math.pi**2),
        # Touching along a side, and at a corner.
        ((1.0, 0.0, 2.0, 1.0), UNIT, 0, 1, 1 + 1 / 5, 0),
        ((1.0, 1.0, 2.0, 2.0), UNIT, 0, 1 + 2 / 4, 1 + 2 / 8, 0),
        # One within the other.
        ((0.25, 0.25, 0.75, 0.75), UNIT, 0.25, 0.75, 0.75, 0),
    ],
)
@every_dtype
def test_degenerate_and_touching_boxes(box, target, iou, giou, diou, v, dtype):
    box, target = np.array([box], dtype), np.array([target], dtype)
    assert fastreg.box_iou(box, target)[0, 0] == iou
    alpha = v / (1 - iou + v)
    for name, wanted in zip(LOSSES, (giou, diou, diou + alpha * v), strict=True):
        loss, grad = getattr(fastreg, name)(box, target, return_grad=True)
        assert abs(loss - wanted) <= 4e-16 * wanted
        assert np.isfinite(grad).all()


def test_boxes_that_touch_are_drawn_together():
    """They share nothing yet, so the intersection has no slope; what is around them has."""
    _, grad = fastreg.giou_loss((1.0, 0.0, 2.0, 1.0), UNIT, return_grad=True)
    # U = 1·w + 1, C = (1 + w)·1: 1 − U/C is 0 for every w here, but moving x1 alone leaves C and changes U.
    assert np.array_equal(grad, [0.5, 0.0, 0.0, 0.0])


@every_loss
@every_dtype
def test_reductions_weights_and_out(name, dtype):
    function = getattr(fastreg, name)
    box, target = some_boxes(1000, dtype, 6)
    weight = np.random.default_rng(7).random(1000).astype(dtype)
    for w in (None, weight, 0.5):
        each, slope = function(box, target, weight=w, reduction="none", return_grad=True)
        total, total_grad = function(box, target, weight=w, reduction="sum", return_grad=True)
        mean, mean_grad = function(box, target, weight=w, return_grad=True)
        assert abs(total - math.fsum(each.tolist())) <= (1e-13 if dtype == np.float64 else 2.0**-24) * total
        assert mean == total / 1000
        assert np.array_equal(total_grad, slope)
        np.testing.assert_allclose(mean_grad * 1000, slope, rtol=4 * np.finfo(dtype).eps)
        for place in (box.copy(), np.empty_like(box), np.empty((4, 1000), dtype).T):
            x = place if place.flags.c_contiguous and w is None else box
            place[...] = box
            loss, grad = function(x, target, weight=w, return_grad=True, out=place)
            assert grad is place
            assert loss == mean
            assert np.array_equal(grad, mean_grad)
    assert function(box, target) == function(box.reshape(10, 100, 4), target.reshape(10, 100, 4))
    assert function(box[0], target[0], reduction="none").shape == ()
    assert math.isnan(function(np.empty((0, 4)), np.empty((0, 4))))
    assert function(np.empty((0, 4)), np.empty((0, 4)), reduction="sum") == 0.0


@every_loss
def test_nan_stays_with_its_box(name):
    box, target = some_boxes(140, seed=8)
    plain, slope = getattr(fastreg, name)(box, target, reduction="none", return_grad=True)
    for of, other in ((box, target), (target, box)):
        for k in range(4):
            hurt = of.copy()
            hurt[77, k] = np.nan
            pair = (hurt, other) if of is box else (other, hurt)
            loss, grad = getattr(fastreg, name)(*pair, reduction="none", return_grad=True)
            assert np.isnan(loss[77])
            assert np.isnan(grad[77]).all()
            rest = np.arange(140) != 77
            assert np.array_equal(loss[rest], plain[rest])
            assert np.array_equal(grad[rest], slope[rest])
            iou = fastreg.box_iou(*pair)
            assert np.isnan(iou[77] if of is box else iou[:, 77]).all()
            assert np.count_nonzero(np.isnan(iou)) == 140


def test_out_of_iou_may_be_where_the_boxes_are():
    a, b = some_boxes(4, seed=9)
    wanted = fastreg.box_iou(a, b)
    for k in range(2):
        pair = [a.copy(), b.copy()]
        assert np.array_equal(fastreg.box_iou(*pair, out=pair[k]), wanted)


@pytest.mark.parametrize(
    ("kind", "word", "call"),
    [
        (ValueError, "a", lambda x: fastreg.box_iou(x[0], x)),
        (ValueError, "b", lambda x: fastreg.box_iou(x, x[:, :3])),
        (ValueError, "out", lambda x: fastreg.box_iou(x, x, out=np.zeros((2, 4)))),
        (ValueError, "input", lambda x: fastreg.giou_loss(x[:, :3], x)),
        (ValueError, "input", lambda x: fastreg.giou_loss(1.0, x)),
        (ValueError, "target", lambda x: fastreg.diou_loss(x, x[:2])),
        (ValueError, "weight", lambda x: fastreg.ciou_loss(x, x, weight=np.ones(2))),
        (ValueError, "reduction", lambda x: fastreg.ciou_loss(x, x, reduction="max")),
        (ValueError, "out", lambda x: fastreg.ciou_loss(x, x, out=np.zeros((3, 4)))),
        (ValueError, "out", lambda x: fastreg.ciou_loss(x, x, return_grad=True, out=np.zeros(3))),
        (TypeError, "out", lambda x: fastreg.ciou_loss(x, x, reduction="none", out=np.zeros(3, "f4"))),
    ],
)
def test_bad_calls_are_refused(kind, word, call):
    with pytest.raises(kind, match=f"^{word}"):
        call(np.ones((3, 4)))


@pytest.mark.parametrize("name", ["box_iou", *LOSSES])
def test_the_wider_dtype_counts(name):
    function = getattr(fastreg, name)
    narrow, wide = some_boxes(20, np.float32, 1)[0], some_boxes(20, np.float64, 2)[1]
    for a, b in ((narrow, wide), (wide, narrow)):
        got, wanted = function(a, b), function(a.astype(np.float64), b.astype(np.float64))
        assert np.asarray(got).dtype == np.float64
        assert np.array_equal(got, wanted)


@every_loss
def test_the_sum_of_very_many(name):
    """More partial sums than find room beside the call: f64 sums of terms of one sign."""
    box, target = some_boxes(300_000, np.float64, 3)
    function = getattr(fastreg, name)
    exact = math.fsum(function(box, target, reduction="none").tolist())
    assert abs(function(box, target, reduction="sum") - exact) <= 1e-12 * exact
