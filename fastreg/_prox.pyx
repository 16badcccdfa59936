"""Thresholds, proximal operators and projections.

The proximal operator of f with step τ is prox(x) = argmin_z τ·f(z) + ½‖z − x‖². One rule for the edges: lam = inf gives
0 for every finite x (f is then 0 at 0 and infinite elsewhere), step = 0 gives x, and NaN stays NaN.
"""
from libc.math cimport frexp, ldexp
cimport numpy as np
from numpy cimport ndarray

from fastreg._arrays cimport (
    MEMORY_ORDER, as_floating, as_output, bound_each, elementwise, finished, nonnegative, nonnegative_each, real,
)

np.import_array()


cdef extern from "fastreg.h":
    enum:
        KERNEL_soft_threshold
        KERNEL_hard_threshold
        KERNEL_prox_l0
        KERNEL_prox_sq_l2
        KERNEL_prox_elastic_net
        KERNEL_prox_mcp
        KERNEL_prox_scad
        KERNEL_project_box

    ctypedef struct soft_threshold_args:
        double lam
        double step

    ctypedef struct hard_threshold_args:
        double lam

    ctypedef struct prox_l0_args:
        double lam
        double mantissa
        double root

    ctypedef struct prox_sq_l2_args:
        double lam
        double step

    ctypedef struct prox_elastic_net_args:
        double l1
        double l2
        double step

    ctypedef struct prox_mcp_args:
        double lam
        double step
        double gamma

    ctypedef struct prox_scad_args:
        double lam
        double step
        double gamma

    ctypedef struct project_box_args:
        double lower
        double upper


# ---- arguments of this family -----------------------------------------------------------------------------------

cdef double step_of(object step) except -1.0:
    cdef double tau = nonnegative(step, "step")
    if tau - tau != 0:
        raise ValueError(f"step: got {tau}; a finite number >= 0 is allowed")
    return tau


cdef ndarray weight_of(object lam, ndarray x, str name, double step, double *scalar):
    """`nonnegative_each`; a step of 0 switches the weight off, an infinite one too."""
    cdef ndarray each = nonnegative_each(lam, x, name, scalar)
    if step == 0:
        scalar[0] = 0.0
        return None
    return each


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
    elementwise(KERNEL_prox_l0, &a, sizeof(a), MEMORY_ORDER, X, L, Y)
    return finished(Y, out)


def prox_sq_l2(x, lam, step=1.0, *, out=None):
    r"""Proximal operator of ½·lam·‖x‖², the ridge penalty or weight decay: x/(1 + step·lam).

    Computed as x times 1/(1 + step·lam), within 3 units of rounding. With the ½ the gradient of the penalty is lam·x. Where a text writes lam·‖x‖² without it, pass twice its lam.

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
    elementwise(KERNEL_prox_elastic_net, &a, sizeof(a), MEMORY_ORDER, X, L1, L2, Y)
    return finished(Y, out)


def prox_mcp(x, lam, gamma=3.0, step=1.0, *, out=None):
    r"""Proximal operator of the minimax concave penalty (MCP).

    The penalty of an element is lam·\|z\| − z²/(2·gamma) up to \|z\| = gamma·lam and ½·gamma·lam² beyond: it starts as an
    L1 penalty and leaves large weights alone, so that these are not biased towards zero.

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
        Shape of `x`; `out` if it was given. NaN stays NaN; lam = inf gives 0 where `x` is finite and NaN where
        it is not, step = 0 gives `x`.

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
    elementwise(KERNEL_prox_mcp, &a, sizeof(a), MEMORY_ORDER, X, L, Y)
    return finished(Y, out)


def prox_scad(x, lam, gamma=3.7, step=1.0, *, out=None):
    r"""Proximal operator of the smoothly clipped absolute deviation penalty (SCAD).

    The penalty of an element is lam·\|z\| up to \|z\| = lam, (2·gamma·lam·\|z\| − z² − lam²)/(2(gamma − 1)) up to gamma·lam,
    and ½(gamma + 1)·lam² beyond: an L1 penalty for small weights, none of whose pull is left on large ones.

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
        Shape of `x`; `out` if it was given. NaN stays NaN; lam = inf gives 0 where `x` is finite and NaN where
        it is not, step = 0 gives `x`.

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
    a.step = step_of(step)
    a.gamma = real(gamma, "gamma")
    if not a.gamma - 1 > a.step:
        raise ValueError(
            f"gamma: got {a.gamma} with step {a.step}; gamma > 1 + step is needed, else there is more than one minimiser"
        )
    cdef ndarray L = weight_of(lam, X, "lam", a.step, &a.lam)
    cdef ndarray Y = as_output(out, X)
    elementwise(KERNEL_prox_scad, &a, sizeof(a), MEMORY_ORDER, X, L, Y)
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
