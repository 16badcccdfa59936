"""Boxes x1, y1, x2, y2: how much they overlap, and losses for regressing them.

A box is the rectangle between two opposite corners, in whichever order they come. A quotient 0/0 is 0.
"""

import numpy as np

from ._arrays import as_f64, as_float, give


def _sides(box):
    """The box's lower and upper ends: two points."""
    first, second = box[..., :2], box[..., 2:]
    return np.minimum(first, second), np.maximum(first, second)


def _ratio(a, b):
    return np.divide(a, b, out=np.zeros_like(b), where=b != 0)


def _iou(low, high, t_low, t_high):
    """Intersection over union, union, and the lengths of what is shared."""
    shared = np.maximum(np.minimum(high, t_high) - np.maximum(low, t_low), 0)
    intersection = np.prod(shared, axis=-1)
    union = np.prod(high - low, axis=-1) + np.prod(t_high - t_low, axis=-1) - intersection
    return _ratio(intersection, union), union, shared


def box_iou(a, b, *, out=None):
    """Intersection over union of each box of a with each of b."""
    dtype = np.result_type(as_float(a), as_float(b))
    ends = [*_sides(as_f64(a)[:, None, :]), *_sides(as_f64(b)[None, :, :])]
    return give(_iou(*ends)[0], dtype, out)


def _box_loss(kind, input, target, weight, reduction, return_grad, out):
    """1 − IoU and a penalty, with the slopes of both by the lower and the upper end of each of the input's sides.

    At equal ends a slope is the mean of those on either side.
    """
    dtype = np.result_type(as_float(input), as_float(target))
    box, target = as_f64(input), as_f64(target)
    (low, high), (t_low, t_high) = _sides(box), _sides(target)
    side, t_side = high - low, t_high - t_low
    iou, union, shared = _iou(low, high, t_low, t_high)
    hull = np.maximum(high, t_high) - np.minimum(low, t_low)

    def others(v):
        """For each side, the other one's length."""
        return v[..., ::-1]

    # Slopes of area, intersection, union and the hull's sides by [lower ends, upper ends] of the input's sides.
    inner = np.array([np.heaviside(low - t_low, 0.5), np.heaviside(t_high - high, 0.5)])
    sign = np.array([-1.0, 1.0]).reshape(2, *(1,) * box.ndim)
    d_area = sign * others(side)
    d_shared = sign * inner * others(shared) * (shared > 0)
    d_union = d_area - d_shared
    d_hull = sign * (1 - inner)

    loss = 1 - iou
    slope = -_ratio(d_shared - iou[..., None] * d_union, union[..., None] + 0 * d_union)
    if kind == "giou":
        area = np.prod(hull, axis=-1)
        loss = loss + _ratio(area - union, area)
        full = _ratio(union, area)[..., None]
        slope = slope - _ratio(d_union - full * d_hull * others(hull), area[..., None] + 0 * d_union)
    else:
        offset = (low + high - t_low - t_high) / 2
        diagonal = np.sum(hull**2, axis=-1)
        distance = _ratio(np.sum(offset**2, axis=-1), diagonal)
        loss = loss + distance
        slope = slope + _ratio(offset - 2 * distance[..., None] * hull * d_hull, diagonal[..., None] + 0 * d_hull)
    if kind == "ciou":
        (w, h), (t_w, t_h) = np.moveaxis(side, -1, 0), np.moveaxis(t_side, -1, 0)
        turn = np.where(w + h == 0, 0, np.arctan2(t_w, t_h) - np.arctan2(w, h)) * (t_w + t_h != 0)
        v = 4 / np.pi**2 * turn**2
        alpha = _ratio(v, 1 - iou + v)
        loss = loss + alpha * v
        by_side = np.stack([-h, w], axis=-1) * _ratio(8 / np.pi**2 * alpha * turn, w**2 + h**2)[..., None]
        slope = slope + sign * by_side
    swapped = box[..., :2] > box[..., 2:]
    grad = np.concatenate([np.where(swapped, slope[1], slope[0]), np.where(swapped, slope[0], slope[1])], axis=-1)

    if weight is not None:
        weight = np.broadcast_to(as_f64(weight), loss.shape)
        loss, grad = loss * weight, grad * weight[..., None]
    if reduction == "none":
        loss = give(loss, dtype, out)
        return (loss, give(grad, dtype)) if return_grad else loss
    n = np.float64(loss.size if reduction == "mean" else 1)
    with np.errstate(invalid="ignore"):  # the mean of nothing is NaN
        total = float(np.sum(loss) / n)
    return (total, give(grad / n, dtype, out)) if return_grad else total


def giou_loss(input, target, *, weight=None, reduction="mean", return_grad=False, out=None):
    """1 − IoU + (C − U)/C (Rezatofighi et al., 2019): U the union's area, C that of the hull."""
    return _box_loss("giou", input, target, weight, reduction, return_grad, out)


def diou_loss(input, target, *, weight=None, reduction="mean", return_grad=False, out=None):
    """1 − IoU + ρ²/c² (Zheng et al., 2020): ρ between the centres, c the hull's diagonal."""
    return _box_loss("diou", input, target, weight, reduction, return_grad, out)


def ciou_loss(input, target, *, weight=None, reduction="mean", return_grad=False, out=None):
    """The loss above + αv, v = (4/π²)·(atan(W/H) − atan(w/h))², α = v/(1 − IoU + v), which is held fixed."""
    return _box_loss("ciou", input, target, weight, reduction, return_grad, out)
