"""Boxes: how much they overlap, and losses for regressing them."""
cimport numpy as np
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t
from numpy cimport ndarray

import numpy

from fastreg._arrays cimport (
    apart_from, as_floating, as_floating_like, as_output_of, as_type, check_shape, dtype_of, finished,
    in_index_order, over_items, overlap,
)

np.import_array()


cdef extern from "fastreg.h":
    enum:
        KERNEL_box_iou
        KERNEL_box_loss
        KERNEL_combine_partials

    ctypedef struct combine_partials_args:
        const double *partials
        int64_t count
        double divisor
        double *total

    ctypedef struct box_loss_args:
        const void *input
        const void *target
        const void *weight
        void *grad
        void *loss
        double *partials
        double scale
        int64_t boxes
        int kind

    ctypedef struct box_iou_args:
        const void *a
        const void *b
        void *out
        int64_t rows
        int64_t columns


# As in boxes.inc.
cdef enum:
    GIOU, DIOU, CIOU

cdef enum:
    BOX_PIECE = 128
    BOX_ROWS = 32
    FEW_PARTIALS = 64


cdef ndarray boxes_of(object x, str name, bint matrix):
    """Boxes in C order; (N, 4) where a matrix is needed, else any shape that ends in 4."""
    cdef ndarray X = as_floating(x, name)
    cdef int ndim = np.PyArray_NDIM(X)
    if ndim == 0 or np.PyArray_DIM(X, ndim - 1) != 4 or matrix and ndim != 2:
        raise ValueError(f"{name}: got shape {(<object>X).shape}; {'(N, 4)' if matrix else '(..., 4)'} is needed: x1, y1, x2, y2")
    return X


def box_iou(a, b, *, out=None):
    r"""Intersection over union of every box of a with every box of b: I/(A + B − I).

    A and B are the areas of the two boxes, I that of what they share. Boxes are x1, y1, x2, y2: the rectangle between two
    opposite corners, in whichever order they come (so that an inverted box is the same box). Boxes that only touch, and
    boxes of no area, share nothing: 0, also where both areas are 0.

    Parameters
    ----------
    a, b : array_like
        Shapes (N, 4) and (M, 4). float32 and float64 are kept (float64 if they differ), float16 is computed as float32,
        bool and integers as float64. Areas are to lie within the range of that dtype.
    out : ndarray, optional
        Where to put the result.

    Returns
    -------
    ndarray
        Shape (N, M), from 0 to 1. NaN where a box has a NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `a` or `b` is no matrix of four columns, or `out` has another shape or is read-only.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.box_iou([[0.0, 0.0, 2.0, 2.0]], [[1.0, 0.0, 3.0, 2.0], [2.0, 2.0, 0.0, 0.0], [2.0, 0.0, 4.0, 2.0]]).round(4)
    array([[0.3333, 1.    , 0.    ]])
    """
    cdef box_iou_args args
    cdef ndarray A = boxes_of(a, "a", True)
    cdef ndarray B = boxes_of(b, "b", True)
    if np.PyArray_TYPE(A) != np.PyArray_TYPE(B):
        A = as_type(A, np.NPY_DOUBLE)
        B = as_type(B, np.NPY_DOUBLE)
    args.rows = np.PyArray_DIM(A, 0)
    args.columns = np.PyArray_DIM(B, 0)
    cdef ndarray Z = as_output_of(out, (args.rows, args.columns), np.PyArray_TYPE(A))
    cdef ndarray place = Z if np.PyArray_ISCARRAY(Z) else numpy.empty((args.rows, args.columns), (<object>A).dtype)
    # A row of the result is written while boxes are still to be read.
    A = in_index_order(np.PyArray_NewCopy(A, np.NPY_CORDER) if overlap(A, place) else A)
    B = in_index_order(np.PyArray_NewCopy(B, np.NPY_CORDER) if overlap(B, place) else B)
    args.a = np.PyArray_DATA(A)
    args.b = np.PyArray_DATA(B)
    args.out = np.PyArray_DATA(place)
    over_items(
        KERNEL_box_iou, dtype_of(A), &args, (args.rows + BOX_ROWS - 1) // BOX_ROWS, 1 + 512 // (1 + args.columns),
        args.rows * args.columns,
    )
    if place is not Z:
        numpy.copyto(Z, place)
    return finished(Z, out)


cdef object pass_over(int kind, object input, object target, object weight, object reduction, bint return_grad, object out):
    """What the losses of boxes do but for their formula, which is `kind`."""
    cdef box_loss_args a
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f'reduction: got {reduction!r}; "none", "mean" and "sum" are allowed')
    cdef bint each = reduction == "none"
    cdef ndarray X = boxes_of(input, "input", False)
    cdef ndarray Y = boxes_of(target, "target", False)
    check_shape(Y, X, "target", "input")
    if np.PyArray_TYPE(X) != np.PyArray_TYPE(Y):
        X = as_type(X, np.NPY_DOUBLE)
        Y = as_type(Y, np.NPY_DOUBLE)
    cdef tuple shape = (<object>X).shape[: np.PyArray_NDIM(X) - 1]
    cdef ndarray W = None
    if weight is not None:
        W = as_floating_like(weight, X, "weight")
        try:
            W = numpy.broadcast_to(W, shape)
        except ValueError:
            raise ValueError(
                f"weight: got shape {(<object>W).shape}; one that broadcasts to the losses, {shape}, is needed"
            ) from None
    if out is not None and not each and not return_grad:
        raise ValueError(f'out: reduction="{reduction}" without return_grad gives no array; out=None is needed')
    cdef ndarray L = as_output_of(out, shape, np.PyArray_TYPE(X)) if each else None
    cdef ndarray G = None
    if return_grad:
        G = as_output_of(None if each else out, (<object>X).shape, np.PyArray_TYPE(X))
    # What is written: the results, or where those are not in C order, arrays that are copied there.
    cdef ndarray losses = L
    cdef ndarray grad = G
    if each and not np.PyArray_ISCARRAY(L):
        losses = numpy.empty(shape, (<object>X).dtype)
    if return_grad and not np.PyArray_ISCARRAY(G):
        grad = numpy.empty((<object>X).shape, (<object>X).dtype)
    X = in_index_order(X)
    Y = in_index_order(Y)
    W = None if W is None else in_index_order(W)
    for written in (losses, grad):
        if written is not None:
            X = apart_from(X, written)
            Y = apart_from(Y, written)
            W = None if W is None else apart_from(W, written)
    a.kind = kind
    a.boxes = np.PyArray_SIZE(X) // 4
    a.input = np.PyArray_DATA(X)
    a.target = np.PyArray_DATA(Y)
    a.weight = NULL if W is None else np.PyArray_DATA(W)
    a.grad = NULL if grad is None else np.PyArray_DATA(grad)
    a.loss = NULL if losses is None else np.PyArray_DATA(losses)
    a.scale = 1.0 / a.boxes if reduction == "mean" and a.boxes else 1.0
    cdef double few[FEW_PARTIALS]
    cdef double total
    cdef int64_t pieces = (a.boxes + BOX_PIECE - 1) // BOX_PIECE
    cdef combine_partials_args c = [few, pieces, <double>a.boxes if reduction == "mean" else 1.0, &total]
    a.partials = NULL if each else few
    if not each and pieces > FEW_PARTIALS:
        c.partials = a.partials = <double *>PyMem_Malloc(pieces * sizeof(double))
        if a.partials is NULL:
            raise MemoryError
    try:
        over_items(KERNEL_box_loss, dtype_of(X), &a, pieces, 8, 4 * a.boxes)
        if not each:
            over_items(KERNEL_combine_partials, 0, &c, 1, 1, 1)
    finally:
        if a.partials is not NULL and a.partials is not few:
            PyMem_Free(a.partials)
    if losses is not L:
        numpy.copyto(L, losses)
    if grad is not G:
        numpy.copyto(G, grad)
    if each:
        loss = finished(L, out)
        return (loss, finished(G, None)) if return_grad else loss
    return (total, finished(G, out)) if return_grad else total


def ciou_loss(input, target, *, weight=None, reduction="mean", bint return_grad=False, out=None):
    r"""Complete-IoU loss of boxes: 1 − IoU + ρ²/c² + αv.

    To `diou_loss` it adds that the sides' ratios should agree: v = (4/π²)·(atan(W/H) − atan(w/h))² for a target W × H
    and an input w × h, with α = v/((1 − IoU) + v), which is held fixed in the gradient, as in the paper.

    Parameters
    ----------
    input, target : array_like
        Boxes x1, y1, x2, y2: shape (..., 4), the same for both. float32 and float64 are kept (float64 if they differ),
        float16 is computed as float32, bool and integers as float64. Either is the rectangle between two opposite
        corners, in whichever order they come.
    weight : array_like, optional
        Factors of the unreduced losses, taken in their dtype; broadcasts to shape (...).
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides the sum by the number of boxes, whatever the weights are.
    return_grad : bool
        Also return the gradient by `input`, from the same pass over memory.
    out : ndarray, optional
        Where to put the array among the results: the gradient of a reduced loss, the losses that are not reduced. It
        may be `input` or `target` itself.

    Returns
    -------
    loss : float or ndarray
        Shape (...) where it is not reduced. All is computed in double precision. The mean of no boxes is NaN.
    grad : ndarray
        With `return_grad`: of the reduced loss by `input`; with ``reduction="none"``, of each loss by its own box. Where
        ends coincide, the mean of the slopes on either side; boxes that only touch, and boxes of no area, share nothing.
        A quotient 0/0 is 0, and so is its slope. NaN stays NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        The last axis is not of length 4, `target` has another shape than `input`, `weight` does not broadcast to the
        losses, `reduction` is unknown, or `out` has another shape, is read-only, or no result is an array.

    References
    ----------
    .. [1] Z. Zheng et al., "Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression", AAAI 2020.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> loss, grad = fastreg.ciou_loss([0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 2.0, 2.0], return_grad=True)
    >>> round(loss, 4), grad.round(4)
    (0.5345, array([ 0.0663,  0.0784, -0.0663, -0.5706]))
    """
    return pass_over(CIOU, input, target, weight, reduction, return_grad, out)


def diou_loss(input, target, *, weight=None, reduction="mean", bint return_grad=False, out=None):
    r"""Distance-IoU loss of boxes: 1 − IoU + ρ²/c².

    ρ is the distance of the centres and c the diagonal of the smallest box around both: it pulls the centres together
    where boxes do not meet, and where one lies within the other.

    Parameters
    ----------
    input, target : array_like
        Boxes x1, y1, x2, y2: shape (..., 4), the same for both. float32 and float64 are kept (float64 if they differ),
        float16 is computed as float32, bool and integers as float64. Either is the rectangle between two opposite
        corners, in whichever order they come.
    weight : array_like, optional
        Factors of the unreduced losses, taken in their dtype; broadcasts to shape (...).
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides the sum by the number of boxes, whatever the weights are.
    return_grad : bool
        Also return the gradient by `input`, from the same pass over memory.
    out : ndarray, optional
        Where to put the array among the results: the gradient of a reduced loss, the losses that are not reduced. It
        may be `input` or `target` itself.

    Returns
    -------
    loss : float or ndarray
        Shape (...) where it is not reduced. All is computed in double precision. The mean of no boxes is NaN.
    grad : ndarray
        With `return_grad`: of the reduced loss by `input`; with ``reduction="none"``, of each loss by its own box. Where
        ends coincide, the mean of the slopes on either side; boxes that only touch, and boxes of no area, share nothing.
        A quotient 0/0 is 0, and so is its slope. NaN stays NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        The last axis is not of length 4, `target` has another shape than `input`, `weight` does not broadcast to the
        losses, `reduction` is unknown, or `out` has another shape, is read-only, or no result is an array.

    References
    ----------
    .. [1] Z. Zheng et al., "Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression", AAAI 2020.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.diou_loss([0.0, 0.0, 1.0, 1.0], [2.0, 0.0, 3.0, 1.0])  # 1 + 2²/(3² + 1²)
    1.4
    """
    return pass_over(DIOU, input, target, weight, reduction, return_grad, out)


def giou_loss(input, target, *, weight=None, reduction="mean", bint return_grad=False, out=None):
    r"""Generalised-IoU loss of boxes: 1 − IoU + (C − U)/C.

    U is the area of their union and C that of the smallest box around both, so that boxes which do not meet are drawn
    together; 0 for equal boxes, towards 2 for small ones far apart.

    Parameters
    ----------
    input, target : array_like
        Boxes x1, y1, x2, y2: shape (..., 4), the same for both. float32 and float64 are kept (float64 if they differ),
        float16 is computed as float32, bool and integers as float64. Either is the rectangle between two opposite
        corners, in whichever order they come (algorithm 2 of the paper).
    weight : array_like, optional
        Factors of the unreduced losses, taken in their dtype; broadcasts to shape (...).
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides the sum by the number of boxes, whatever the weights are.
    return_grad : bool
        Also return the gradient by `input`, from the same pass over memory.
    out : ndarray, optional
        Where to put the array among the results: the gradient of a reduced loss, the losses that are not reduced. It
        may be `input` or `target` itself.

    Returns
    -------
    loss : float or ndarray
        Shape (...) where it is not reduced. All is computed in double precision. The mean of no boxes is NaN.
    grad : ndarray
        With `return_grad`: of the reduced loss by `input`; with ``reduction="none"``, of each loss by its own box. Where
        ends coincide, the mean of the slopes on either side; boxes that only touch, and boxes of no area, share nothing.
        A quotient 0/0 is 0, and so is its slope. NaN stays NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        The last axis is not of length 4, `target` has another shape than `input`, `weight` does not broadcast to the
        losses, `reduction` is unknown, or `out` has another shape, is read-only, or no result is an array.

    References
    ----------
    .. [1] H. Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.giou_loss([0.0, 0.0, 1.0, 1.0], [3.0, 0.0, 4.0, 1.0])  # 1 + (4 - 2)/4
    1.5
    """
    return pass_over(GIOU, input, target, weight, reduction, return_grad, out)
