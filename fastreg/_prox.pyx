"""Thresholds, proximal operators and projections.

The proximal operator of f with step τ is prox(x) = argmin_z τ·f(z) + ½‖z − x‖². One rule for the edges: lam = inf gives
0 for every finite x (f is then 0 at 0 and infinite elsewhere), step = 0 gives x, and NaN stays NaN.
"""
from libc.math cimport INFINITY, NAN, fabs, frexp, ldexp, sqrt
from libc.stdint cimport int64_t
from libc.string cimport memcpy
cimport numpy as np
from numpy cimport ndarray

import numpy

from fastreg._arrays cimport (
    INDEX_ORDER, MEMORY_ORDER, as_floating, as_output, axis_of, bound_each, dtype_of, elementwise, finished,
    in_index_order, nonnegative, nonnegative_each, over_items, overlap, real, viewed,
)
from fastreg.fastreg_runtime cimport FASTREG_CHUNK

np.import_array()


cdef extern from "fastreg.h":
    enum:
        KERNEL_soft_threshold
        KERNEL_hard_threshold
        KERNEL_thresholds_each
        KERNEL_root_thresholds_each
        KERNEL_shrinkages_each
        KERNEL_prox_l0
        KERNEL_prox_sq_l2
        KERNEL_prox_elastic_net
        KERNEL_prox_mcp
        KERNEL_prox_scad
        KERNEL_project_box
        KERNEL_combine_partials
        KERNEL_sum_squares
        KERNEL_scale_by
        KERNEL_prox_group_lasso
        KERNEL_sum_label_squares
        KERNEL_largest_of_labels
        KERNEL_shrink_labels
        KERNEL_scale_by_label
        KERNEL_extent
        KERNEL_excess
        KERNEL_project_simplex
        KERNEL_project_l1_ball
        KERNEL_prox_tv1d

    ctypedef struct soft_threshold_args:
        double lam
        double step

    ctypedef struct hard_threshold_args:
        double lam

    ctypedef struct thresholds_each_args:
        double step

    ctypedef struct root_thresholds_each_args:
        double mantissa
        double root

    ctypedef struct shrinkages_each_args:
        double step

    ctypedef struct prox_l0_args:
        double lam
        double mantissa
        double root

    ctypedef struct prox_sq_l2_args:
        double lam
        double step
        int made

    ctypedef struct prox_elastic_net_args:
        double l1
        double l2
        double step
        int made

    ctypedef struct prox_mcp_args:
        double lam
        double step
        double gamma
        int made

    ctypedef struct prox_scad_args:
        double lam
        double step
        double gamma

    ctypedef struct project_box_args:
        double lower
        double upper

    ctypedef struct combine_partials_args:
        const double *partials
        int64_t count
        double divisor
        double *total

    ctypedef struct sum_squares_args:
        double *partials
        double scale
        double l1

    ctypedef struct scale_by_args:
        double factor
        double l1

    ctypedef struct prox_group_lasso_args:
        const void *x
        void *out
        double *weights
        int64_t length
        int64_t inner
        double lam
        double l1

    ctypedef struct sum_label_squares_args:
        const void *x
        const int64_t *labels
        double *sums
        double *scales
        int64_t length
        int64_t parts
        int64_t table
        int64_t lowest
        double l1

    ctypedef struct largest_of_labels_args:
        const void *x
        const int64_t *labels
        double *largest
        int64_t length
        int64_t lowest
        double l1

    ctypedef struct shrink_labels_args:
        double *sums
        double *scales
        double *largest
        double *weights
        void *factors
        int64_t parts
        int64_t table
        double lam

    ctypedef struct scale_by_label_args:
        const void *x
        void *out
        const int64_t *labels
        const void *factors
        int64_t lowest
        double l1

    ctypedef struct extent_args:
        double *largest
        double *sums
        int magnitudes

    ctypedef struct excess_args:
        const double *largest
        double *sums
        double *counts
        double hi
        double lo
        int magnitudes

    ctypedef struct project_simplex_args:
        double hi
        double lo

    ctypedef struct project_l1_ball_args:
        double hi
        double lo

    ctypedef struct prox_tv1d_args:
        const void *x
        void *out
        void *workspace
        int64_t length
        double lam


# ---- arguments of this family -----------------------------------------------------------------------------------

cdef double step_of(object step) except -1.0:
    cdef double tau = nonnegative(step, "step")
    if tau - tau != 0:
        raise ValueError(f"step: got {tau}; a finite number >= 0 is allowed")
    return tau


cdef double scaled(object lam, object step, str name="lam") except -1.0:
    """step·lam, where a step of 0 switches even an infinite lam off."""
    cdef double tau = step_of(step), weight = nonnegative(lam, name)
    return weight * tau if tau != 0 else 0.0


cdef ndarray weight_of(object lam, ndarray x, str name, double step, double *scalar):
    """`nonnegative_each`; a step of 0 switches the weight off, an infinite one too."""
    cdef ndarray each = nonnegative_each(lam, x, name, scalar)
    if step == 0:
        scalar[0] = 0.0
        return None
    return each


cdef enum:
    WORTH_AN_ARRAY = 4096  # elements for which threshold by threshold takes longer than to allocate theirs


cdef bint shared(ndarray each, ndarray x) noexcept:
    """Whether so many elements of `x` share their weights that it pays to make once what they need of them."""
    cdef np.npy_intp n = np.PyArray_SIZE(x)
    return each is not None and n >= WORTH_AN_ARRAY and 2 * np.PyArray_SIZE(each) <= n


cdef ndarray made(int kernel, void *args, size_t size, ndarray each):
    cdef ndarray out = as_output(None, each)
    elementwise(kernel, args, size, MEMORY_ORDER, each, out)
    return out


cdef ndarray thresholds(ndarray each, double step):
    cdef thresholds_each_args a
    if step == 1:
        return each
    a.step = step
    return made(KERNEL_thresholds_each, &a, sizeof(a), each)


cdef ndarray shrinkages(ndarray each, double step):
    cdef shrinkages_each_args a
    a.step = step
    return made(KERNEL_shrinkages_each, &a, sizeof(a), each)


cdef double slack(ndarray x) noexcept:
    """What rounding may put a projection outside its set by, relative: 16 units of x's precision."""
    return 2.0 ** -19 if np.PyArray_TYPE(x) == np.NPY_FLOAT else 2.0 ** -48


# ---- thresholds -------------------------------------------------------------------------------------------------

def soft_threshold(x, lam, *, out=None):
    r"""Soft threshold, sign(x)·max(\|x\| − lam, 0).

    The proximal operator of lam·‖x‖₁: it shrinks every element towards zero by `lam`, and those within `lam` of
    zero become exactly +0.0. This is how an L1 penalty gives weights that are exactly zero; its subgradient never
    does.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    lam : float or array_like
        The threshold, >= 0; an array that broadcasts to `x` gives each element, or feature, its own. Taken in the
        dtype of `x`.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. NaN stays NaN, ±inf stays ±inf for finite `lam`; lam = inf gives 0
        where `x` is finite and NaN (∞ − ∞) where it is not.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `lam` is negative or NaN, does not broadcast to `x`, or `out` has another shape than `x` or is read-only.

    References
    ----------
    .. [1] D. L. Donoho, "De-noising by soft-thresholding", IEEE Transactions on Information Theory 41, 1995.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.soft_threshold(np.array([-3.0, -0.5, 0.0, 1.0, 2.5]), 1.0)
    array([-2. ,  0. ,  0. ,  0. ,  1.5])
    """
    cdef soft_threshold_args a
    cdef ndarray X = as_floating(x, "x")
    cdef ndarray L = nonnegative_each(lam, X, "lam", &a.lam)
    cdef ndarray Y = as_output(out, X)
    a.step = 1.0
    elementwise(KERNEL_soft_threshold, &a, sizeof(a), MEMORY_ORDER, X, L, Y)
    return finished(Y, out)


def hard_threshold(x, lam, *, out=None):
    r"""Hard threshold: x where \|x\| > lam, else +0.0.

    What is kept is kept as it is, not shrunk; an element at exactly \|x\| = lam goes to zero.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    lam : float or array_like
        The threshold, >= 0; an array that broadcasts to `x` gives each element its own. Taken in the dtype of `x`.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. NaN stays NaN; lam = inf gives 0 for every number.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `lam` is negative or NaN, does not broadcast to `x`, or `out` has another shape than `x` or is read-only.

    See Also
    --------
    prox_l0 : the hard threshold that an L0 penalty asks for, at √(2·step·lam).

    References
    ----------
    .. [1] D. L. Donoho and I. M. Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81, 1994.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.hard_threshold(np.array([-3.0, -0.5, 0.0, 1.0, 2.5]), 1.0)
    array([-3. ,  0. ,  0. ,  0. ,  2.5])
    """
    cdef hard_threshold_args a
    cdef ndarray X = as_floating(x, "x")
    cdef ndarray L = nonnegative_each(lam, X, "lam", &a.lam)
    cdef ndarray Y = as_output(out, X)
    elementwise(KERNEL_hard_threshold, &a, sizeof(a), MEMORY_ORDER, X, L, Y)
    return finished(Y, out)


# ---- elementwise proximal operators -----------------------------------------------------------------------------

def prox_l1(x, lam, step=1.0, *, out=None):
    r"""Proximal operator of lam·‖x‖₁: the soft threshold at step·lam.

    argmin_z step·lam·‖z‖₁ + ½‖z − x‖² = sign(x)·max(\|x\| − step·lam, 0)

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    lam : float or array_like
        The weight of the penalty, >= 0; an array that broadcasts to `x` gives each element, or feature, its own.
        Taken in the dtype of `x`, to which step·lam is rounded too.
    step : float
        τ, finite and >= 0.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. NaN stays NaN; lam = inf gives 0 where `x` is finite and NaN where
        it is not, step = 0 gives `x`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `lam` or `step` is negative or NaN, `step` is infinite, `lam` does not broadcast to `x`, or `out` has another
        shape than `x` or is read-only.

    References
    ----------
    .. [1] N. Parikh and S. Boyd, "Proximal algorithms", Foundations and Trends in Optimization 1, 2014, section 6.5.2.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.prox_l1(np.array([-3.0, -0.5, 0.0, 1.0, 2.5]), 2.0, step=0.5)
    array([-2. ,  0. ,  0. ,  0. ,  1.5])
    """
    cdef soft_threshold_args a
    cdef ndarray X = as_floating(x, "x")
    a.step = step_of(step)
    cdef ndarray L = weight_of(lam, X, "lam", a.step, &a.lam)
    cdef ndarray Y = as_output(out, X)
    if shared(L, X):
        L = thresholds(L, a.step)
        a.step = 1.0
    elementwise(KERNEL_soft_threshold, &a, sizeof(a), MEMORY_ORDER, X, L, Y)
    return finished(Y, out)


def prox_l0(x, lam, step=1.0, *, out=None):
    r"""Proximal operator of lam·‖x‖₀, the number of nonzeros: the hard threshold at √(2·step·lam).

    Keeping an element costs step·lam, dropping it costs ½x². At equality both minimise, and zero is taken.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    lam : float or array_like
        The price of a nonzero, >= 0; an array that broadcasts to `x` gives each element, or feature, its own. Taken
        in the dtype of `x`, to which the threshold is rounded too.
    step : float
        τ, finite and >= 0.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. NaN stays NaN; lam = inf gives 0 for every number, step = 0 gives `x`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `lam` or `step` is negative or NaN, `step` is infinite, `lam` does not broadcast to `x`, or `out` has another
        shape than `x` or is read-only.

    Notes
    -----
    The penalty is not convex: a proximal gradient iteration with it finds a local minimum. The threshold is not
    step·lam, and not √step·lam either.

    References
    ----------
    .. [1] T. Blumensath and M. E. Davies, "Iterative thresholding for sparse approximations", Journal of Fourier
       Analysis and Applications 14, 2008.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.prox_l0(np.array([-3.0, -2.0, 0.5, 2.1]), lam=2.0)
    array([-3. ,  0. ,  0. ,  2.1])
    """
    cdef prox_l0_args a
    cdef root_thresholds_each_args each
    cdef hard_threshold_args hard
    cdef int exponent
    cdef ndarray X = as_floating(x, "x")
    cdef double tau = step_of(step)
    cdef ndarray L = weight_of(lam, X, "lam", tau, &a.lam)
    cdef ndarray Y = as_output(out, X)
    # 2·step = mantissa·root² exactly, with mantissa in [1/4, 1).
    a.mantissa = frexp(tau, &exponent)
    exponent += 1
    if exponent % 2:
        a.mantissa *= 0.5
        exponent += 1
    a.root = ldexp(1.0, exponent // 2)
    if shared(L, X):
        each = [a.mantissa, a.root]
        hard.lam = 0
        L = made(KERNEL_root_thresholds_each, &each, sizeof(each), L)
        elementwise(KERNEL_hard_threshold, &hard, sizeof(hard), MEMORY_ORDER, X, L, Y)
        return finished(Y, out)
    elementwise(KERNEL_prox_l0, &a, sizeof(a), MEMORY_ORDER, X, L, Y)
    return finished(Y, out)


def prox_sq_l2(x, lam, step=1.0, *, out=None):
    r"""Proximal operator of ½·lam·‖x‖², the ridge penalty or weight decay: x/(1 + step·lam).

    Computed as x times 1/(1 + step·lam), within 3 units of rounding. With the ½ the gradient of the penalty is lam·x.
    Where a text writes lam·‖x‖² without it, pass twice its lam.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    lam : float or array_like
        The weight of the penalty, >= 0; an array that broadcasts to `x` gives each element, or feature, its own.
        Taken in the dtype of `x`, to which 1 + step·lam is rounded too.
    step : float
        τ, finite and >= 0.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. NaN stays NaN; lam = inf gives 0 where `x` is finite and NaN where
        it is not, step = 0 gives `x`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `lam` or `step` is negative or NaN, `step` is infinite, `lam` does not broadcast to `x`, or `out` has another
        shape than `x` or is read-only.

    See Also
    --------
    prox_l2 : of the norm itself, not squared.

    References
    ----------
    .. [1] N. Parikh and S. Boyd, "Proximal algorithms", Foundations and Trends in Optimization 1, 2014, section 6.1.1.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.prox_sq_l2(np.array([-3.0, 0.0, 1.5]), 2.0)
    array([-1. ,  0. ,  0.5])
    """
    cdef prox_sq_l2_args a
    cdef ndarray X = as_floating(x, "x")
    a.step = step_of(step)
    cdef ndarray L = weight_of(lam, X, "lam", a.step, &a.lam)
    cdef ndarray Y = as_output(out, X)
    a.made = shared(L, X)
    if a.made:
        L = shrinkages(L, a.step)
    elementwise(KERNEL_prox_sq_l2, &a, sizeof(a), MEMORY_ORDER, X, L, Y)
    return finished(Y, out)


def prox_elastic_net(x, l1, l2, step=1.0, *, out=None):
    r"""Proximal operator of l1·‖x‖₁ + ½·l2·‖x‖²: a soft threshold at step·l1, divided by 1 + step·l2.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    l1, l2 : float or array_like
        The weights of the two penalties, >= 0; arrays that broadcast to `x` give each element, or feature, its own.
        Taken in the dtype of `x`, to which step·l1 and 1 + step·l2 are rounded too.
    step : float
        τ, finite and >= 0.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. NaN stays NaN; l1 = inf or l2 = inf gives 0 where `x` is finite and NaN
        where it is not, step = 0 gives `x`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `l1`, `l2` or `step` is negative or NaN, `step` is infinite, `l1` or `l2` does not broadcast to `x`, or `out`
        has another shape than `x` or is read-only.

    Notes
    -----
    scikit-learn's alpha and l1_ratio, glmnet's lambda and alpha, are l1 = alpha·l1_ratio, l2 = alpha·(1 − l1_ratio).

    References
    ----------
    .. [1] H. Zou and T. Hastie, "Regularization and variable selection via the elastic net", Journal of the Royal
       Statistical Society B 67, 2005.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.prox_elastic_net(np.array([-3.0, -0.5, 0.0, 1.0, 2.5]), l1=1.0, l2=1.0)
    array([-1.  ,  0.  ,  0.  ,  0.  ,  0.75])
    """
    cdef prox_elastic_net_args a
    cdef ndarray X = as_floating(x, "x")
    a.step = step_of(step)
    cdef ndarray L1 = weight_of(l1, X, "l1", a.step, &a.l1)
    cdef ndarray L2 = weight_of(l2, X, "l2", a.step, &a.l2)
    cdef ndarray Y = as_output(out, X)
    a.made = (L1 is None or shared(L1, X)) and (L2 is None or shared(L2, X))
    if a.made and L1 is not None:
        L1 = thresholds(L1, a.step)
    if a.made and L2 is not None:
        L2 = shrinkages(L2, a.step)
    elementwise(KERNEL_prox_elastic_net, &a, sizeof(a), MEMORY_ORDER, X, L1, L2, Y)
    return finished(Y, out)


def prox_mcp(x, lam, gamma=3.0, step=1.0, *, out=None):
    r"""Proximal operator of the minimax concave penalty (MCP).

    The penalty of an element is lam·\|z\| − z²/(2·gamma) up to \|z\| = gamma·lam and ½·gamma·lam² beyond: it starts as
    an L1 penalty and leaves large weights alone, so that these are not biased towards zero.

    ==================================  =============================================
    where                               result
    ==================================  =============================================
    \|x\| <= step·lam                     0
    step·lam < \|x\| <= gamma·lam         sign(x)·(\|x\| − step·lam)/(1 − step/gamma)
    gamma·lam < \|x\|                     x
    ==================================  =============================================

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    lam : float or array_like
        The weight of the penalty, >= 0; an array that broadcasts to `x` gives each element, or feature, its own.
        Taken in the dtype of `x`, to which step·lam is rounded too.
    gamma : float
        How far the penalty bends, > step. There the sum of τ·penalty and ½(z − x)² is strictly convex and has one
        minimiser, whatever `lam` is; gamma = inf is the L1 penalty.
    step : float
        τ, finite and >= 0.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. NaN stays NaN and ±inf stays ±inf; lam = inf gives 0 where `x` is finite,
        step = 0 gives `x`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `gamma` is not above `step`, `lam` or `step` is negative or NaN, `step` is infinite, `lam` does not broadcast
        to `x`, or `out` has another shape than `x` or is read-only.

    References
    ----------
    .. [1] C.-H. Zhang, "Nearly unbiased variable selection under minimax concave penalty", Annals of Statistics 38,
       2010.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.prox_mcp(np.array([-4.0, -0.5, 1.0, 2.0, 3.0]), 1.0, gamma=3.0)
    array([-4. ,  0. ,  0. ,  1.5,  3. ])
    """
    cdef prox_mcp_args a
    cdef ndarray X = as_floating(x, "x")
    a.step = step_of(step)
    a.gamma = real(gamma, "gamma")
    if not a.gamma > a.step:
        raise ValueError(
            f"gamma: got {a.gamma} with step {a.step}; gamma > step is needed, else there is more than one minimiser"
        )
    cdef ndarray L = weight_of(lam, X, "lam", a.step, &a.lam)
    cdef ndarray Y = as_output(out, X)
    a.made = shared(L, X)
    if a.made:
        L = thresholds(L, a.step)
    elementwise(KERNEL_prox_mcp, &a, sizeof(a), MEMORY_ORDER, X, L, Y)
    return finished(Y, out)


def prox_scad(x, lam, gamma=3.7, step=1.0, *, out=None):
    r"""Proximal operator of the smoothly clipped absolute deviation penalty (SCAD).

    The penalty of an element is lam·\|z\| up to \|z\| = lam, (2·gamma·lam·\|z\| − z² − lam²)/(2(gamma − 1)) up to
    gamma·lam, and ½(gamma + 1)·lam² beyond: an L1 penalty for small weights, none of whose pull is left on large ones.

    ======================================  =============================================================
    where                                   result
    ======================================  =============================================================
    \|x\| <= step·lam                         0
    step·lam < \|x\| <= (1 + step)·lam        sign(x)·(\|x\| − step·lam)
    (1 + step)·lam < \|x\| <= gamma·lam       sign(x)·(lam + (\|x\| − (1 + step)·lam)/(1 − step/(gamma − 1)))
    gamma·lam < \|x\|                         x
    ======================================  =============================================================

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    lam : float or array_like
        The weight of the penalty, >= 0; an array that broadcasts to `x` gives each element, or feature, its own.
        Taken in the dtype of `x`, to which step·lam is rounded too.
    gamma : float
        How far the penalty bends, > 1 + step. There the sum of τ·penalty and ½(z − x)² is strictly convex and has one
        minimiser, whatever `lam` is; gamma = inf is the L1 penalty. 3.7 is the authors' choice.
    step : float
        τ, finite and >= 0.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. NaN stays NaN and ±inf stays ±inf; lam = inf gives 0 where `x` is finite,
        step = 0 gives `x`.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `gamma` is not above 1 + `step`, `lam` or `step` is negative or NaN, `step` is infinite, `lam` does not
        broadcast to `x`, or `out` has another shape than `x` or is read-only.

    References
    ----------
    .. [1] J. Fan and R. Li, "Variable selection via nonconcave penalized likelihood and its oracle properties",
       Journal of the American Statistical Association 96, 2001.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.prox_scad(np.array([-5.0, -0.5, 1.5, 2.0, 3.0]), 1.0, gamma=4.0)
    array([-5. ,  0. ,  0.5,  1. ,  2.5])
    """
    cdef prox_scad_args a
    cdef ndarray X = as_floating(x, "x")
    cdef ndarray ends = None
    a.step = step_of(step)
    a.gamma = real(gamma, "gamma")
    if not a.gamma - 1 > a.step:
        raise ValueError(
            f"gamma: got {a.gamma} with step {a.step}; "
            "gamma > 1 + step is needed, else there is more than one minimiser"
        )
    cdef ndarray L = weight_of(lam, X, "lam", a.step, &a.lam)
    cdef ndarray Y = as_output(out, X)
    if shared(L, X):
        ends = thresholds(L, a.gamma)
        L = thresholds(L, a.step)
    elementwise(KERNEL_prox_scad, &a, sizeof(a), MEMORY_ORDER, X, L, ends, Y)
    return finished(Y, out)


# ---- projections, elementwise -----------------------------------------------------------------------------------

def project_box(x, lower, upper, *, out=None):
    r"""The nearest point with lower <= x <= upper, element by element.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    lower, upper : float or array_like
        The bounds, ±inf allowed; arrays that broadcast to `x` give each element, or feature, its own. Taken in the
        dtype of `x`.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. NaN stays NaN. A zero inside the box keeps its sign.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `lower` > `upper` somewhere, a bound is NaN or does not broadcast to `x`, or `out` has another shape than `x`
        or is read-only.

    References
    ----------
    .. [1] N. Parikh and S. Boyd, "Proximal algorithms", Foundations and Trends in Optimization 1, 2014, section 6.2.4.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.project_box(np.array([-3.0, 0.5, 7.0]), 0.0, [1.0, 2.0, np.inf])
    array([0. , 0.5, 7. ])
    """
    cdef project_box_args a
    cdef ndarray X = as_floating(x, "x")
    cdef ndarray L = bound_each(lower, X, "lower", &a.lower)
    cdef ndarray U = bound_each(upper, X, "upper", &a.upper)
    if L is None and U is None:
        if a.lower > a.upper:
            raise ValueError(f"lower: got {a.lower} with upper {a.upper}; lower <= upper is needed")
    elif ((a.lower if L is None else L) > (a.upper if U is None else U)).any():
        raise ValueError("lower: got elements above those of upper; lower <= upper is needed")
    cdef ndarray Y = as_output(out, X)
    elementwise(KERNEL_project_box, &a, sizeof(a), MEMORY_ORDER, X, L, U, Y)
    return finished(Y, out)


def project_linf_ball(x, radius=1.0, *, out=None):
    r"""The nearest point with max \|x\| <= radius: each element clipped to [−radius, radius].

    The constrained twin of an L∞ penalty, and radius·sign where an adversary's step is bounded.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    radius : float
        The radius, >= 0; inf leaves `x` as it is. Taken in the dtype of `x`.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. NaN stays NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `radius` is negative or NaN, or `out` has another shape than `x` or is read-only.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.project_linf_ball(np.array([-3.0, 0.5, 7.0]), 2.0)
    array([-2. ,  0.5,  2. ])
    """
    cdef project_box_args a
    cdef ndarray X = as_floating(x, "x")
    a.upper = nonnegative(radius, "radius")
    a.lower = -a.upper
    cdef ndarray Y = as_output(out, X)
    elementwise(KERNEL_project_box, &a, sizeof(a), MEMORY_ORDER, X, None, None, Y)
    return finished(Y, out)


# ---- norms ------------------------------------------------------------------------------------------------------

cdef enum:
    FEW_PARTIALS = 64  # sums of calls up to this many chunks fit on the stack


cdef double combined(const double *partials, int64_t count) noexcept:
    cdef double total
    cdef combine_partials_args c = [partials, count, 1.0, &total]
    over_items(KERNEL_combine_partials, 0, &c, 1, 1, 1)
    return total


cdef double squares(ndarray x, double l1, double scale) except -1.0:
    """Σ (scale·soft(x, l1))² in double."""
    cdef double few[FEW_PARTIALS]
    cdef int64_t chunks = (np.PyArray_SIZE(x) + FASTREG_CHUNK - 1) // FASTREG_CHUNK
    cdef ndarray many
    cdef sum_squares_args a
    a.partials = few
    if chunks > FEW_PARTIALS:
        many = numpy.empty(chunks)
        a.partials = <double *>np.PyArray_DATA(many)
    a.scale = scale
    a.l1 = l1
    elementwise(KERNEL_sum_squares, &a, sizeof(a), INDEX_ORDER, x)
    return combined(a.partials, chunks)


cdef double norm_of(ndarray x, double l1, double *scale) except -1.0:
    """‖soft(x, l1)‖₂·scale, `scale` 1 or a power of two that keeps the squares in range; inf where an element is."""
    cdef double sum = squares(x, l1, 1.0), largest
    cdef int exponent
    scale[0] = 1.0
    if 2.0 ** -900 < sum < 2.0 ** 1000 or sum != sum or np.PyArray_SIZE(x) == 0:
        return sqrt(sum)
    largest = max(float(numpy.abs(x).max()) - l1, 0.0)
    if largest == 0 or largest == INFINITY:
        return largest
    frexp(largest, &exponent)
    scale[0] = ldexp(1.0, -max(exponent, -1000))
    return sqrt(squares(x, l1, scale[0]))


cdef int scale_by(ndarray x, ndarray out, double factor, double l1=0.0) except -1:
    cdef scale_by_args a = [factor, l1]
    return elementwise(KERNEL_scale_by, &a, sizeof(a), MEMORY_ORDER, x, out)


cdef double shrinkage(double root, double scale, double t) noexcept:
    """max(1 − t/norm, 0) for norm = root/scale."""
    if root == INFINITY:
        return 1.0 if t < INFINITY else NAN
    t *= scale
    return 0.0 if root <= t else (root - t) / root


def prox_l2(x, lam, step=1.0, *, out=None):
    r"""Proximal operator of lam·‖x‖₂, the Euclidean norm itself: x·max(1 − step·lam/‖x‖₂, 0).

    The array shrinks towards zero as one vector, and is exactly +0.0 from ‖x‖₂ <= step·lam on. Of a matrix it is the
    Frobenius norm. It is `prox_group_lasso` with one group.

    Parameters
    ----------
    x : array_like
        Any shape, taken as one vector. float32 and float64 are kept, float16 is computed as float32, bool and integers
        as float64.
    lam : float
        The weight of the penalty, >= 0.
    step : float
        τ, finite and >= 0.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. A NaN makes every element NaN; an infinite `x` outweighs every finite
        `lam` and stays as it is.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `lam` or `step` is negative or NaN, `step` is infinite, or `out` has another shape than `x` or is read-only.

    See Also
    --------
    prox_sq_l2 : of the squared norm.

    Notes
    -----
    The norm is summed in double; elements as large as 1e200 or as small as 1e-200 do not over- or underflow it.

    References
    ----------
    .. [1] N. Parikh and S. Boyd, "Proximal algorithms", Foundations and Trends in Optimization 1, 2014, section 6.5.1.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.prox_l2(np.array([3.0, 4.0]), 2.5)
    array([1.5, 2. ])
    """
    cdef ndarray X = as_floating(x, "x")
    cdef double t = scaled(lam, step), scale
    cdef ndarray Y = as_output(out, X)
    cdef double root = norm_of(X, 0.0, &scale)
    scale_by(X, Y, shrinkage(root, scale, t))
    return finished(Y, out)


def project_l2_ball(x, radius=1.0, *, out=None):
    r"""The nearest point with ‖x‖₂ <= radius: x·min(radius/‖x‖₂, 1).

    Parameters
    ----------
    x : array_like
        Any shape, taken as one vector. float32 and float64 are kept, float16 is computed as float32, bool and integers
        as float64.
    radius : float
        The radius, >= 0; inf leaves `x` as it is.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. An `x` in the ball is returned bit for bit. So is one that rounding puts
        outside it by no more than 16 units of its precision: projecting twice is projecting once. A NaN or an infinity
        makes every element NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `radius` is negative or NaN, or `out` has another shape than `x` or is read-only.

    References
    ----------
    .. [1] N. Parikh and S. Boyd, "Proximal algorithms", Foundations and Trends in Optimization 1, 2014, section 6.5.1.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.project_l2_ball(np.array([3.0, 4.0]), 2.5)
    array([1.5, 2. ])
    """
    cdef ndarray X = as_floating(x, "x")
    cdef double r = nonnegative(radius, "radius"), scale
    cdef ndarray Y = as_output(out, X)
    cdef double root = norm_of(X, 0.0, &scale)
    if r == INFINITY or root <= r * scale * (1 + slack(X)):
        scale_by(X, Y, 1.0)
    else:
        scale_by(X, Y, r * scale / root if root < INFINITY else NAN)
    return finished(Y, out)


# ---- groups -----------------------------------------------------------------------------------------------------

cdef enum:
    LABEL_PARTS = 4  # of a long array, whose labels' squares are summed apart


cdef ndarray group_weights(object weights, tuple shape, str shape_text):
    """Weights >= 0 and finite, broadcast to one a group, in double and C order; None for none."""
    if weights is None:
        return None
    cdef ndarray w = as_floating(weights, "weights")
    if not numpy.all(numpy.isfinite(w)) or not numpy.all(numpy.greater_equal(w, 0)):
        raise ValueError("weights: got negative, infinite or NaN elements; finite numbers >= 0 are allowed")
    try:
        return numpy.array(numpy.broadcast_to(w, shape), numpy.float64, order="C")
    except ValueError:
        raise ValueError(
            f"weights: got shape {(<object>w).shape}; one that broadcasts to {shape}, {shape_text}, is needed"
        ) from None


cdef bint same_layout(ndarray a, ndarray b):
    cdef int d
    for d in range(np.PyArray_NDIM(a)):
        if np.PyArray_DIM(a, d) > 1 and np.PyArray_STRIDE(a, d) != np.PyArray_STRIDE(b, d):
            return False
    return True


cdef ndarray result_beside(ndarray x, ndarray y):
    """`y` where a kernel may write it while it reads `x`, being x or apart from it, else a new array for `moved`."""
    if same_layout(x, y) and np.PyArray_ISALIGNED(y):
        if np.PyArray_DATA(x) == np.PyArray_DATA(y) or not overlap(x, y):
            return y
    return as_output(None, x)


cdef object moved(ndarray result, ndarray y, object out):
    if <object>result is not <object>y:
        numpy.copyto(y, result)
    return finished(y, out)


cdef object shrink_along(ndarray X, int axis, double l1, double lam, object weights, object out):
    """Groups along an axis. Arrays that are contiguous in some order of their axes are not copied."""
    cdef prox_group_lasso_args a
    cdef int ndim = np.PyArray_NDIM(X), position
    cdef tuple shape = (<object>X).shape
    cdef ndarray W = group_weights(weights, shape[:axis] + shape[axis + 1:], "one a group")
    cdef ndarray Y = as_output(out, X)
    cdef list order = list(range(ndim))
    if not np.PyArray_IS_C_CONTIGUOUS(X):
        order.sort(key=lambda d: -(<object>X).strides[d])
        if not (<object>X).transpose(order).flags.c_contiguous:
            X = in_index_order(X)
            order.sort()
    cdef ndarray R = result_beside(X, Y)
    position = order.index(axis)
    cdef int64_t outer = 1, d
    a.inner = 1
    for d in order[:position]:
        outer *= np.PyArray_DIM(X, <int>d)
    for d in order[position + 1:]:
        a.inner *= np.PyArray_DIM(X, <int>d)
    a.length = np.PyArray_DIM(X, axis)
    a.weights = NULL
    if W is not None:
        order.remove(axis)
        for d in range(len(order)):
            order[d] -= order[d] > axis
        W = numpy.array((<object>W).transpose(order), order="C")
        a.weights = <double *>np.PyArray_DATA(W)
    a.x = np.PyArray_DATA(X)
    a.out = np.PyArray_DATA(R)
    a.lam = lam
    a.l1 = l1
    cdef int64_t n = np.PyArray_SIZE(X)
    if n:
        items = outer if a.inner == 1 else outer * ((a.inner + 63) // 64)
        over_items(KERNEL_prox_group_lasso, dtype_of(X), &a, items, max(1, items * 16384 // n), n)
    return moved(R, Y, out)


cdef object shrink_labelled(ndarray X, object groups, double l1, double lam, object weights, object out):
    """Groups by label: a table from label to sum where the labels' range is not much larger than their number."""
    if np.PyArray_NDIM(X) != 1:
        raise ValueError(
            f"groups: got labels for an x of shape {(<object>X).shape}; x of one dimension, or axis=, is needed"
        )
    cdef object given
    try:
        given = viewed(groups)
    except ValueError as error:
        raise TypeError(f"groups: got {type(groups).__name__}; it cannot be viewed as an array ({error})") from error
    if isinstance(groups, numpy.ma.MaskedArray):
        raise TypeError("groups: got a masked array; its mask would be lost: pass its .data")
    if given.dtype.kind not in "iub" and given.size:
        raise TypeError(f"groups: got dtype {given.dtype}; integer labels are needed")
    if given.shape != (<object>X).shape:
        raise ValueError(f"groups: got shape {given.shape}; that of x, {(<object>X).shape}, is needed")
    cdef int64_t n = np.PyArray_SIZE(X), table = 0, parts
    cdef object lowest = 0, present = None
    if n:
        lowest = int(given.min())
        table_size = int(given.max()) - lowest + 1
        if table_size > 4 * n + 1024 or lowest < -2 ** 62 or lowest + table_size > 2 ** 62:
            labels, given = numpy.unique(given, return_inverse=True)
            lowest, table_size = 0, len(labels)
        table = table_size
    cdef ndarray L = in_index_order(given.astype(numpy.int64, copy=False))
    cdef ndarray W = None
    if weights is not None:
        # By rank among the labels that occur; those that do not have a place in the table too.
        present = numpy.flatnonzero(numpy.bincount(<object>L - lowest, minlength=table))
        each = group_weights(weights, (len(present),), "one a label in the order of the sorted labels")
        W = numpy.zeros(table)
        (<object>W)[present] = each
    cdef ndarray Y = as_output(out, X)
    if n == 0:
        return finished(Y, out)
    X = in_index_order(X)
    cdef ndarray R = result_beside(X, Y)
    # As many parts as make their sums few beside the elements; never a matter of threads, which change no bits.
    parts = LABEL_PARTS if table <= n // (4 * LABEL_PARTS) else 1
    cdef ndarray sums = numpy.zeros(parts * table), factors = numpy.empty(table, (<object>X).dtype), largest, scales
    cdef int dtype = dtype_of(X)
    cdef sum_label_squares_args s
    s.x = np.PyArray_DATA(X)
    s.labels = <const int64_t *>np.PyArray_DATA(L)
    s.sums = <double *>np.PyArray_DATA(sums)
    s.scales = NULL
    s.length = n
    s.parts = parts
    s.table = table
    s.lowest = lowest
    s.l1 = l1
    over_items(KERNEL_sum_label_squares, dtype, &s, parts, 1, n)
    cdef shrink_labels_args f
    f.sums = s.sums
    f.scales = NULL
    f.largest = NULL
    f.weights = NULL if W is None else <double *>np.PyArray_DATA(W)
    f.factors = np.PyArray_DATA(factors)
    f.parts = parts
    f.table = table
    f.lam = lam
    cdef largest_of_labels_args m
    if np.PyArray_TYPE(X) == np.NPY_DOUBLE:
        total = (<object>sums).reshape(parts, table).sum(0)
        if not ((total > 2.0 ** -900) & (total < 2.0 ** 1000)).all():
            # Squares that over- or underflow: once more, scaled by each group's largest element.
            largest = numpy.zeros(table)
            m.x = s.x
            m.labels = s.labels
            m.largest = <double *>np.PyArray_DATA(largest)
            m.length = n
            m.lowest = s.lowest
            m.l1 = l1
            over_items(KERNEL_largest_of_labels, dtype, &m, 1, 1, n)
            exponent = numpy.frexp(numpy.where(numpy.isfinite(largest), largest, 1.0))[1]
            scales = numpy.ldexp(1.0, -numpy.maximum(exponent, -1000))
            (<object>sums).fill(0)
            s.scales = f.scales = <double *>np.PyArray_DATA(scales)
            f.largest = m.largest
            over_items(KERNEL_sum_label_squares, dtype, &s, parts, 1, n)
    over_items(KERNEL_shrink_labels, dtype, &f, table, 4096, table)
    cdef scale_by_label_args b
    b.x = s.x
    b.out = np.PyArray_DATA(R)
    b.labels = s.labels
    b.factors = f.factors
    b.lowest = s.lowest
    b.l1 = l1
    over_items(KERNEL_scale_by_label, dtype, &b, n, 16384, n)
    return moved(R, Y, out)


cdef object shrink_groups(ndarray X, double l1, double lam, object groups, object axis, object weights, object out):
    cdef double scale, root
    cdef int along
    cdef ndarray W, Y
    if groups is not None:
        if axis is not None:
            raise ValueError("groups and axis: got both; one of them says what a group is")
        return shrink_labelled(X, groups, l1, lam, weights, out)
    if axis is not None:
        along = axis_of(axis, np.PyArray_NDIM(X), "axis")
        if np.PyArray_NDIM(X) > 1:
            return shrink_along(X, along, l1, lam, weights, out)
    W = group_weights(weights, (1,), "one group")
    if W is not None:
        scale = (<object>W).item()
        lam = lam * scale if scale != 0 and lam != 0 else 0.0
    Y = as_output(out, X)
    root = norm_of(X, l1, &scale)
    scale_by(X, Y, shrinkage(root, scale, lam), l1)
    return finished(Y, out)


def prox_group_lasso(x, lam, groups=None, step=1.0, *, axis=None, weights=None, out=None):
    r"""Proximal operator of the group lasso, lam·Σ_g w_g·‖x_g‖₂: each group shrinks towards zero as one vector.

    x_g·max(1 − step·lam·w_g/‖x_g‖₂, 0)

    A group whose norm is at most step·lam·w_g goes to +0.0 as a whole: whole features, channels or filters are selected
    or dropped.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    lam : float
        The weight of the penalty, >= 0.
    groups : array_like of int, optional
        A label for each element of an `x` of one dimension: any integers, in any order. Without it and without `axis`,
        the whole of `x` is one group.
    step : float
        τ, finite and >= 0.
    axis : int, optional
        The axis along which a group runs: with axis=1 each row of a matrix is a group.
    weights : array_like, optional
        w_g, finite and >= 0, 1 where it is not given. For labels: one for each label that occurs, in the order of the
        sorted labels. For `axis`: what broadcasts to the shape of `x` without that axis. A weight of 0 leaves its group
        alone. The square root of a group's size is customary where sizes differ.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. A NaN makes its group NaN; a group with an infinity outweighs every finite
        `lam` and stays as it is.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, labels are not integers, or `out` has another dtype than the
        result.
    ValueError
        `lam` or `step` is negative or NaN, `step` is infinite, both `groups` and `axis` are given, `groups` has another
        shape than `x` or `x` has more than one dimension, `axis` does not exist, `weights` are negative, infinite, NaN
        or of another shape, or `out` has another shape than `x` or is read-only.

    Notes
    -----
    Norms are summed in double; elements as large as 1e200 or as small as 1e-200 do not over- or underflow them.

    References
    ----------
    .. [1] M. Yuan and Y. Lin, "Model selection and estimation in regression with grouped variables", Journal of the
       Royal Statistical Society B 68, 2006.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.prox_group_lasso(np.array([3.0, 0.5, 4.0, 0.5]), 1.0, groups=[7, -1, 7, -1])
    array([2.4, 0. , 3.2, 0. ])
    >>> fastreg.prox_group_lasso(np.array([[3.0, 4.0], [0.5, 0.5]]), 1.0, axis=1)
    array([[2.4, 3.2],
           [0. , 0. ]])
    """
    cdef ndarray X = as_floating(x, "x")
    return shrink_groups(X, 0.0, scaled(lam, step), groups, axis, weights, out)


def prox_sparse_group_lasso(x, l1, lam, groups=None, step=1.0, *, axis=None, weights=None, out=None):
    r"""Proximal operator of the sparse group lasso, l1·‖x‖₁ + lam·Σ_g w_g·‖x_g‖₂.

    The soft threshold at step·l1, then `prox_group_lasso` of that: few groups, and few nonzeros within them.

    Parameters
    ----------
    x : array_like
        Any shape. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    l1 : float
        The weight of the L1 penalty, >= 0.
    lam : float
        The weight of the group penalty, >= 0.
    groups : array_like of int, optional
        A label for each element of an `x` of one dimension: any integers, in any order. Without it and without `axis`,
        the whole of `x` is one group.
    step : float
        τ, finite and >= 0.
    axis : int, optional
        The axis along which a group runs: with axis=1 each row of a matrix is a group.
    weights : array_like, optional
        w_g, as in `prox_group_lasso`.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. A NaN makes its group NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, labels are not integers, or `out` has another dtype than the
        result.
    ValueError
        `l1`, `lam` or `step` is negative or NaN, `step` is infinite, both `groups` and `axis` are given, `groups` has
        another shape than `x` or `x` has more than one dimension, `axis` does not exist, `weights` are negative,
        infinite, NaN or of another shape, or `out` has another shape than `x` or is read-only.

    References
    ----------
    .. [1] N. Simon, J. Friedman, T. Hastie and R. Tibshirani, "A sparse-group lasso", Journal of Computational and
       Graphical Statistics 22, 2013.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.prox_sparse_group_lasso(np.array([[4.0, 0.9, 5.0], [1.5, 1.5, 0.0]]), 1.0, 1.0, axis=1)
    array([[2.4, 0. , 3.2],
           [0. , 0. , 0. ]])
    """
    cdef ndarray X = as_floating(x, "x")
    cdef double t1 = scaled(l1, step, "l1")
    return shrink_groups(X, t1, scaled(lam, step), groups, axis, weights, out)


# ---- the simplex and its relatives ------------------------------------------------------------------------------

cdef enum:
    SAMPLED = 1 << 16       # elements from which a sample tells where to begin
    SAMPLE = 1 << 13
    SEGMENT = 32            # elements of the sample taken together
    MOST_STEPS = 200        # never reached: a guard against a cycle in the last bits


cdef ndarray sample_of(ndarray x):
    """SAMPLE elements of a contiguous array, in segments at equal distances."""
    cdef ndarray sample = numpy.empty(SAMPLE, (<object>x).dtype)
    cdef int64_t item = np.PyArray_ITEMSIZE(x), apart = np.PyArray_SIZE(x) // (SAMPLE // SEGMENT), k
    for k in range(SAMPLE // SEGMENT):
        memcpy(np.PyArray_BYTES(sample) + k * SEGMENT * item, np.PyArray_BYTES(x) + k * apart * item, SEGMENT * item)
    return sample


cdef int add_to(double *hi, double *lo, double x) noexcept:
    """hi + lo += x, with hi the nearest double to the sum."""
    cdef double s = hi[0] + x, v = s - hi[0]
    cdef double e = (hi[0] - (s - v)) + (x - v) + lo[0]
    hi[0] = s + e
    lo[0] = e - (hi[0] - s)
    return 0


cdef int excess_threshold(ndarray x, bint magnitudes, double total, double *hi, double *lo, double *sum) except -1:
    """θ = hi + lo with Σ max(x − θ, 0) = total, of |x| if `magnitudes`; x contiguous and not empty.

    NaN where `x` holds NaN or +inf. `sum` is that of all elements.
    """
    cdef int64_t n = np.PyArray_SIZE(x), chunks = (n + FASTREG_CHUNK - 1) // FASTREG_CHUNK, k
    cdef double few[3 * FEW_PARTIALS]
    cdef double *partials = few
    cdef ndarray many
    if chunks > FEW_PARTIALS:
        many = numpy.empty(3 * chunks)
        partials = <double *>np.PyArray_DATA(many)
    cdef extent_args e = [partials, partials + chunks, magnitudes]
    cdef excess_args a
    cdef double largest = -INFINITY, least, step, count, before = -1.0, spare_hi, spare_lo, spare_sum
    cdef int _steps
    elementwise(KERNEL_extent, &e, sizeof(e), INDEX_ORDER, x)
    for k in range(chunks):
        # NaN comes through and stays.
        if not partials[k] <= largest:
            largest = partials[k]
        if largest != largest:
            break
    sum[0] = combined(e.sums, chunks)
    hi[0] = lo[0] = NAN
    if not largest < INFINITY or largest == -INFINITY or total == INFINITY:
        return 0
    if magnitudes and sum[0] <= total:
        return 0
    hi[0] = largest
    lo[0] = 0.0
    if total == 0:
        return 0
    # Two points left of θ: the largest element alone, and all of them, would meet the total there.
    add_to(hi, lo, -total)
    least = (sum[0] - total) / n
    if least > hi[0] and least < largest:
        hi[0] = least
        lo[0] = 0.0
    if n >= SAMPLED:
        excess_threshold(sample_of(x), magnitudes, total * (<double>SAMPLE / n), &spare_hi, &spare_lo, &spare_sum)
        if spare_hi > hi[0] and spare_hi < largest:
            hi[0] = spare_hi
            lo[0] = 0.0
    a.largest = partials
    a.sums = partials + chunks
    a.counts = partials + 2 * chunks
    a.magnitudes = magnitudes
    for _steps in range(MOST_STEPS):
        a.hi = hi[0]
        a.lo = lo[0]
        elementwise(KERNEL_excess, &a, sizeof(a), INDEX_ORDER, x)
        count = combined(a.counts, chunks)
        if count == 0:
            # Rounding, or a sample, has led past the largest element.
            hi[0] = largest
            lo[0] = 0.0
            add_to(hi, lo, -total)
            before = -1.0
            continue
        step = combined(a.sums, chunks) - total
        add_to(hi, lo, step / count)
        # The sets {x > θ} are nested: as many elements as before are the same ones, and this step the last correction.
        if count == before or fabs(step) <= 2.0 ** -52 * total:
            break
        before = count
    return 0


cdef int split_for(ndarray x, double *hi, double *lo) noexcept:
    """The same hi + lo with a hi that x's dtype holds, for arithmetic in it."""
    cdef float near = <float>hi[0]
    if np.PyArray_TYPE(x) == np.NPY_FLOAT and near - near == 0:
        lo[0] += hi[0] - near
        hi[0] = near
    return 0


def project_simplex(x, total=1.0, *, out=None):
    r"""The nearest point with x >= 0 and Σx = total: max(x − θ, 0), with the θ that meets the total.

    The array is one vector. With total=1 it is the projection on the probability simplex, also known as sparsemax.

    Parameters
    ----------
    x : array_like
        Any shape, taken as one vector, not empty. float32 and float64 are kept, float16 is computed as float32, bool
        and integers as float64.
    total : float
        What the elements of the result add up to, > 0 and finite.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. Its sum is `total` to rounding. An `x` that is on the simplex to rounding
        (16 units of its precision) is returned as it is. −inf gives 0; NaN or +inf makes every element NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `total` is not positive and finite, `x` is empty, or `out` has another shape than `x` or is read-only.

    Notes
    -----
    No sorting: Newton's steps on the piecewise linear Σ max(x − θ, 0) = total, a pass over `x` each, three to six of
    them from a sample's answer. θ is carried in two doubles, so that elements far larger than `total` lose nothing.

    References
    ----------
    .. [1] L. Condat, "Fast projection onto the simplex and the l1 ball", Mathematical Programming 158, 2016.
    .. [2] R. Cominetti, W. F. Mascarenhas and P. J. S. Silva, "A Newton's method for the continuous quadratic knapsack
       problem", Mathematical Programming Computation 6, 2014.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.project_simplex(np.array([1.0, 0.5, -3.0]))
    array([0.75, 0.25, 0.  ])
    """
    cdef project_simplex_args a
    cdef ndarray X = as_floating(x, "x")
    cdef double sum_to = real(total, "total"), sum
    if not 0 < sum_to < INFINITY:
        raise ValueError(f"total: got {sum_to}; a finite number > 0 is allowed")
    if np.PyArray_SIZE(X) == 0:
        raise ValueError("x: got an empty array; no element can carry the total")
    cdef ndarray Y = as_output(out, X)
    X = in_index_order(X)
    excess_threshold(X, False, sum_to, &a.hi, &a.lo, &sum)
    if fabs(sum - sum_to) <= slack(X) * sum_to and numpy.greater_equal(X, 0).all():
        a.hi = a.lo = 0.0
    split_for(X, &a.hi, &a.lo)
    elementwise(KERNEL_project_simplex, &a, sizeof(a), MEMORY_ORDER, X, Y)
    return finished(Y, out)


def project_l1_ball(x, radius=1.0, *, out=None):
    r"""The nearest point with ‖x‖₁ <= radius: a soft threshold, at the θ that meets the radius.

    The array is one vector. The constrained twin of an L1 penalty: it gives exact zeros too.

    Parameters
    ----------
    x : array_like
        Any shape, taken as one vector. float32 and float64 are kept, float16 is computed as float32, bool and integers
        as float64.
    radius : float
        The radius, >= 0; inf leaves `x` as it is.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. An `x` in the ball is returned bit for bit. So is one that rounding puts
        outside it by no more than 16 units of its precision: projecting twice is projecting once. NaN, or an infinity
        with a finite `radius`, makes every element NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `radius` is negative or NaN, or `out` has another shape than `x` or is read-only.

    See Also
    --------
    project_simplex : how the threshold is found.

    References
    ----------
    .. [1] J. Duchi, S. Shalev-Shwartz, Y. Singer and T. Chandra, "Efficient projections onto the l1-ball for learning
       in high dimensions", ICML 2008.
    .. [2] L. Condat, "Fast projection onto the simplex and the l1 ball", Mathematical Programming 158, 2016.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.project_l1_ball(np.array([1.0, -0.5, 0.1]))
    array([ 0.75, -0.25,  0.  ])
    """
    cdef project_l1_ball_args a
    cdef ndarray X = as_floating(x, "x")
    cdef double r = nonnegative(radius, "radius"), sum
    cdef ndarray Y = as_output(out, X)
    if np.PyArray_SIZE(X) == 0:
        return finished(Y, out)
    X = in_index_order(X)
    excess_threshold(X, True, r, &a.hi, &a.lo, &sum)
    if sum <= r * (1 + slack(X)):
        scale_by(X, Y, 1.0)
    elif a.hi != a.hi:
        scale_by(X, Y, NAN)
    elif r == 0:
        scale_by(X, Y, 0.0)
    else:
        split_for(X, &a.hi, &a.lo)
        elementwise(KERNEL_project_l1_ball, &a, sizeof(a), MEMORY_ORDER, X, Y)
    return finished(Y, out)


def prox_linf(x, lam, step=1.0, *, out=None):
    r"""Proximal operator of lam·‖x‖_∞, the largest magnitude: x less its projection on an l1 ball.

    That is x clipped to ±θ, with the θ for which Σ max(\|x\| − θ, 0) = step·lam, or 0 if ‖x‖₁ <= step·lam. The array is
    one vector.

    Parameters
    ----------
    x : array_like
        Any shape, taken as one vector. float32 and float64 are kept, float16 is computed as float32, bool and integers
        as float64.
    lam : float
        The weight of the penalty, >= 0.
    step : float
        τ, finite and >= 0.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. NaN or an infinity makes every element NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `lam` or `step` is negative or NaN, `step` is infinite, or `out` has another shape than `x` or is read-only.

    See Also
    --------
    project_simplex : how the threshold is found.

    References
    ----------
    .. [1] N. Parikh and S. Boyd, "Proximal algorithms", Foundations and Trends in Optimization 1, 2014, section 6.5.2.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.prox_linf(np.array([3.0, -2.0, 0.5]), 2.0)
    array([ 1.5, -1.5,  0.5])
    """
    cdef project_box_args a
    cdef ndarray X = as_floating(x, "x")
    cdef double t = scaled(lam, step), lo, sum
    cdef ndarray Y = as_output(out, X)
    if np.PyArray_SIZE(X) == 0:
        return finished(Y, out)
    X = in_index_order(X)
    excess_threshold(X, True, t, &a.upper, &lo, &sum)
    if sum - sum != 0 and not a.upper == a.upper:
        scale_by(X, Y, NAN)
    elif sum <= t:
        scale_by(X, Y, 0.0)
    elif t == 0:
        scale_by(X, Y, 1.0)
    else:
        a.lower = -a.upper
        elementwise(KERNEL_project_box, &a, sizeof(a), MEMORY_ORDER, X, None, None, Y)
    return finished(Y, out)


# ---- total variation and the nuclear norm -----------------------------------------------------------------------

def prox_tv1d(x, lam, step=1.0, *, out=None):
    r"""Proximal operator of the total variation lam·Σ\|x_{i+1} − x_i\| of a sequence: its nearest piecewise constant.

    Exact and in O(n): the slopes of the taut string through a tube of radius step·lam about the cumulative sums of `x`.
    Also known as the fused lasso signal approximator.

    Parameters
    ----------
    x : array_like
        One dimension. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    lam : float
        The weight of the penalty, >= 0.
    step : float
        τ, finite and >= 0.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. lam = inf gives the mean everywhere; a NaN or an infinity makes every
        element NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `x` is not of one dimension, `lam` or `step` is negative or NaN, `step` is infinite, or `out` has another shape
        than `x` or is read-only.

    Notes
    -----
    The string needs room for 32 bytes an element at worst; for ordinary data it touches little of it.

    References
    ----------
    .. [1] P. L. Davies and A. Kovac, "Local extremes, runs, strings and multiresolution", Annals of Statistics 29,
       2001.
    .. [2] L. Condat, "A direct algorithm for 1-D total variation denoising", IEEE Signal Processing Letters 20, 2013.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.prox_tv1d(np.array([1.0, 3.0, 2.0, 10.0, 8.0, 9.0]), 1.5)
    array([2.5, 2.5, 2.5, 8.5, 8.5, 8.5])
    """
    cdef prox_tv1d_args a
    cdef ndarray X = as_floating(x, "x")
    cdef double t = scaled(lam, step)
    if np.PyArray_NDIM(X) != 1:
        raise ValueError(f"x: got shape {(<object>X).shape}; one dimension is needed")
    cdef ndarray Y = as_output(out, X)
    cdef int64_t n = np.PyArray_SIZE(X)
    if t == 0 or n < 2:
        scale_by(X, Y, 1.0)
        return finished(Y, out)
    X = in_index_order(X)
    cdef ndarray R = result_beside(X, Y)
    cdef ndarray workspace = numpy.empty(4 * n)
    a.x = np.PyArray_DATA(X)
    a.out = np.PyArray_DATA(R)
    a.workspace = np.PyArray_DATA(workspace)
    a.length = n
    a.lam = min(t, 2.0 ** 1020)
    over_items(KERNEL_prox_tv1d, dtype_of(X), &a, 1, 1, n)
    return moved(R, Y, out)


def prox_nuclear(x, lam, step=1.0, *, out=None):
    r"""Proximal operator of lam·‖X‖_*, the sum of a matrix's singular values: each is soft-thresholded at step·lam.

    U·max(Σ − step·lam, 0)·Vᵀ for X = U·Σ·Vᵀ: the nearest matrix of small rank, as L1 gives few nonzeros.

    Parameters
    ----------
    x : array_like
        Two dimensions. float32 and float64 are kept, float16 is computed as float32, bool and integers as float64.
    lam : float
        The weight of the penalty, >= 0.
    step : float
        τ, finite and >= 0.
    out : ndarray, optional
        Where to put the result: shape of `x` and dtype of the result. It may be `x` itself.

    Returns
    -------
    ndarray
        Shape of `x`; `out` if it was given. lam = inf gives 0; a NaN or an infinity makes every element NaN.

    Raises
    ------
    TypeError
        An argument is complex, longdouble or not numeric, or `out` has another dtype than the result.
    ValueError
        `x` is not of two dimensions, `lam` or `step` is negative or NaN, `step` is infinite, or `out` has another shape
        than `x` or is read-only.

    Notes
    -----
    The work is LAPACK's and BLAS's, through NumPy, in double precision. The bits are theirs, too: they may differ from
    one machine, BLAS or BLAS thread count to another, unlike those of every other function here.

    With t = step·lam, the eigenvectors V of the smaller Gram matrix, XᵀX or XXᵀ, give the result as X·V·max(1 − t/σ,
    0)·Vᵀ without a singular value decomposition. Squaring costs accuracy: the result is off by some ε·σ₁²/t, where ε is
    2⁻⁵³ and σ₁ the largest singular value. That way is taken where the bound is below 2⁻³⁰·σ₁ for float32 and 2⁻⁴⁶·σ₁
    for float64, that is for t above 2⁻²³·σ₁ or 2⁻⁷·σ₁; otherwise there is a decomposition, whose error is some ε·σ₁.

    References
    ----------
    .. [1] J.-F. Cai, E. J. Candès and Z. Shen, "A singular value thresholding algorithm for matrix completion", SIAM
       Journal on Optimization 20, 2010.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> fastreg.prox_nuclear(np.diag([3.0, 1.0]), 1.5).round(12)
    array([[1.5, 0. ],
           [0. , 0. ]])
    """
    cdef ndarray X = as_floating(x, "x")
    cdef double t = scaled(lam, step)
    if np.PyArray_NDIM(X) != 2:
        raise ValueError(f"x: got shape {(<object>X).shape}; two dimensions are needed")
    cdef ndarray Y = as_output(out, X)
    if t == 0 or np.PyArray_SIZE(X) == 0:
        scale_by(X, Y, 1.0)
        return finished(Y, out)
    cdef double largest = float(numpy.abs(X).max()), power
    if largest - largest != 0:
        scale_by(X, Y, NAN)
    elif t == INFINITY or largest == 0:
        scale_by(X, Y, 0.0)
    else:
        # One memory order, and a largest element of about 1, whose square stays in range: exact, by a power of two.
        power = 2.0 ** -float(numpy.frexp(largest)[1])
        A = numpy.ascontiguousarray(X, dtype=numpy.float64) * power
        result = threshold_singular_values(A, t * power, 2.0 ** (23 if np.PyArray_TYPE(X) == np.NPY_FLOAT else 7))
        numpy.copyto(Y, result / power, casting="same_kind")
    return finished(Y, out)


cdef object threshold_singular_values(object A, double t, double ratio):
    cdef bint tall = A.shape[0] >= A.shape[1]
    eigenvalues, V = numpy.linalg.eigh(A.T @ A if tall else A @ A.T)
    if sqrt(eigenvalues.max(initial=0.0)) <= ratio * t:
        kept = eigenvalues > t * t
        V = V[:, kept]
        factors = 1 - t / numpy.sqrt(eigenvalues[kept])
        return (A @ V * factors) @ V.T if tall else V @ (factors[:, None] * (V.T @ A))
    U, s, Vt = numpy.linalg.svd(A, full_matrices=False)
    kept = s > t
    return (U[:, kept] * (s[kept] - t)) @ Vt[kept]
