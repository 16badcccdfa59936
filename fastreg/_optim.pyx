"""Fused updates of parameters and their state, in place: one pass over memory each."""
from libc.math cimport sqrt
from libc.stdint cimport int64_t, intptr_t
cimport numpy as np
from numpy cimport ndarray

import numpy

from fastreg._arrays cimport (
    MEMORY_ORDER, as_floating, as_floating_like, as_output, as_state, as_type, as_updated, check_disjoint, check_shape,
    dtype_of, elementwise, finished, fraction, integer, nonnegative, over_items, positive,
)

np.import_array()


cdef extern from "fastreg.h":
    enum:
        FASTREG_CHUNK
        KERNEL_sgd_step
        KERNEL_adam_step
        KERNEL_adagrad_step
        KERNEL_rmsprop_step
        KERNEL_ftrl_step
        KERNEL_ftrl_step_sparse
        KERNEL_ftrl_init_z

    ctypedef struct sgd_step_args:
        double lr
        double keep
        double decay
        double momentum
        double undamped
        double threshold
        int nesterov

    ctypedef struct adam_step_args:
        double rate
        double keep
        double decay
        double beta1
        double beta2
        double unbias
        double eps
        double threshold

    ctypedef struct adagrad_step_args:
        double lr
        double decay
        double eps
        double threshold

    ctypedef struct rmsprop_step_args:
        double lr
        double decay
        double alpha
        double eps
        double momentum
        double threshold

    ctypedef struct ftrl_step_args:
        double per_alpha
        double shrink
        double l1

    ctypedef struct ftrl_init_z_args:
        double per_alpha
        double shrink
        double l1

    ctypedef struct ftrl_step_sparse_args:
        char *param
        char *z
        char *n
        intptr_t stride[3]
        const int64_t *index
        const double *grad
        double per_alpha
        double shrink
        double l1


# ---- numbers ----------------------------------------------------------------------------------------------------

cdef int set_sgd(
    sgd_step_args *a, object lr, object momentum, object dampening, bint nesterov, object weight_decay, bint decoupled,
    object l1,
) except -1:
    cdef double decay = nonnegative(weight_decay, "weight_decay")
    a.lr = nonnegative(lr, "lr")
    a.momentum = fraction(momentum, "momentum")
    a.undamped = 1.0 - fraction(dampening, "dampening")
    a.nesterov = nesterov
    a.keep = 1.0 - a.lr * decay if decoupled else 1.0
    a.decay = 0.0 if decoupled else decay
    a.threshold = a.lr * nonnegative(l1, "l1")
    if nesterov and (a.momentum == 0.0 or a.undamped != 1.0):
        raise ValueError(f"nesterov: got True with momentum={momentum} and dampening={dampening}; "
                         "it needs a momentum > 0 and no dampening")
    return 0


cdef int set_adam(
    adam_step_args *a, int64_t step, object lr, object beta1, object beta2, object eps, object weight_decay,
    bint decoupled, object l1,
) except -1:
    cdef double rate = nonnegative(lr, "lr"), decay = nonnegative(weight_decay, "weight_decay")
    a.beta1 = below_one(beta1, "beta1")
    a.beta2 = below_one(beta2, "beta2")
    if step < 1:
        raise ValueError(f"step: got {step}; the first step is 1")
    a.rate = rate / one_minus_power(a.beta1, step)
    a.unbias = 1.0 / sqrt(one_minus_power(a.beta2, step))
    a.keep = 1.0 - rate * decay if decoupled else 1.0
    a.decay = 0.0 if decoupled else decay
    a.eps = nonnegative(eps, "eps")
    a.threshold = rate * nonnegative(l1, "l1")
    return 0


cdef double below_one(object value, str name) except? -1.0:
    cdef double v = fraction(value, name)
    if v == 1:
        raise ValueError(f"{name}: got 1.0; a number in [0, 1) is allowed")
    return v


cdef void multiply(double *high, double *low, double x, double y) noexcept:
    """(high + low)·(x + y), in double the precision (Dekker 1971): the bits of libm's pow differ between platforms."""
    cdef double a, b, c, d, p = high[0] * x, e
    a = 134217729.0 * high[0]
    a = a - (a - high[0])
    b = high[0] - a
    c = 134217729.0 * x
    c = c - (c - x)
    d = x - c
    e = ((a * c - p) + a * d + b * c) + b * d + (high[0] * y + low[0] * x)
    high[0] = p + e
    low[0] = e - (high[0] - p)


cdef double one_minus_power(double base, int64_t exponent) noexcept:
    """1 − base^exponent for base in [0, 1), right to the last bit or two."""
    cdef double high = 1.0, low = 0.0, square = base, square_low = 0.0
    while exponent:
        if exponent & 1:
            multiply(&high, &low, square, square_low)
        multiply(&square, &square_low, square, square_low)
        exponent >>= 1
    return (1.0 - high) - low


cdef int set_adagrad(adagrad_step_args *a, object lr, object eps, object weight_decay, object l1) except -1:
    a.lr = nonnegative(lr, "lr")
    a.decay = nonnegative(weight_decay, "weight_decay")
    a.eps = nonnegative(eps, "eps")
    a.threshold = a.lr * nonnegative(l1, "l1")
    return 0


cdef int set_rmsprop(
    rmsprop_step_args *a, object lr, object alpha, object eps, object momentum, object weight_decay, object l1
) except -1:
    a.lr = nonnegative(lr, "lr")
    a.decay = nonnegative(weight_decay, "weight_decay")
    a.alpha = fraction(alpha, "alpha")
    a.eps = nonnegative(eps, "eps")
    a.momentum = fraction(momentum, "momentum")
    a.threshold = a.lr * nonnegative(l1, "l1")
    return 0


cdef int set_ftrl(
    double *per_alpha, double *shrink, double *threshold, object alpha, object beta, object l1, object l2
) except -1:
    per_alpha[0] = 1.0 / positive(alpha, "alpha")
    shrink[0] = nonnegative(beta, "beta") * per_alpha[0] + nonnegative(l2, "l2")
    threshold[0] = nonnegative(l1, "l1")
    return 0


cdef ndarray as_own_state(object x, ndarray param, str name, tuple others, tuple names):
    """State of `param`, which shares memory with none of the arrays updated beside it."""
    cdef ndarray a = as_state(x, param, name)
    for other, its_name in zip(others, names):
        check_disjoint(other, a, its_name, name)
    return a


cdef object no_buffer(object momentum):
    return ValueError(f"momentum_buffer: got None with momentum={momentum}; an array of zeros is needed to begin with")


# ---- updates ----------------------------------------------------------------------------------------------------

def sgd_step(
    param, grad, momentum_buffer=None, *, lr, momentum=0.0, dampening=0.0, nesterov=False, weight_decay=0.0,
    decoupled=False, l1=0.0,
):
    r"""One step of stochastic gradient descent, in place.

    ::

        g = grad + weight_decay·w            decoupled: w = (1 − lr·weight_decay)·w instead
        b = momentum·b + (1 − dampening)·g   only if momentum > 0, else b = g
        w = w − lr·b                         nesterov: w − lr·(g + momentum·b)
        w = soft_threshold(w, lr·l1)         only if l1 > 0

    w is `param` and b is `momentum_buffer`. The formulas are those of ``torch.optim.SGD``; `decoupled` decay is that
    of SGDW, and the last line is the proximal step of l1·‖w‖₁, which makes weights exactly zero where the
    subgradient of other optimisers lets them oscillate about it.

    Parameters
    ----------
    param : ndarray
        float32 or float64, any shape and layout; updated in place.
    grad : array_like
        The gradient of the loss, in the shape of `param`; taken in its dtype.
    momentum_buffer : ndarray, optional
        Dtype and shape of `param`; updated in place. Zeros before the first step (PyTorch starts with b = g, which
        is ``dampening=0`` on the first step; so do the objects of `fastreg.optim`). Needed if `momentum` > 0, left
        alone if it is 0.
    lr : float
        Learning rate, >= 0.
    momentum, dampening : float
        In [0, 1].
    nesterov : bool
        Nesterov's momentum; needs `momentum` > 0 and no `dampening`.
    weight_decay : float
        >= 0, the factor of ½‖w‖²: its gradient is weight_decay·w.
    decoupled : bool
        Shrink the weights by lr·weight_decay before the step, apart from momentum.
    l1 : float
        >= 0, the factor of ‖w‖₁.

    Raises
    ------
    TypeError
        `param` or `momentum_buffer` is not a writeable array of float32 or float64, the same for both; `grad` is
        not numeric.
    ValueError
        A shape differs, a number is outside its range, `momentum` > 0 comes without a buffer, or `param` and
        `momentum_buffer` share memory. Nothing is changed.

    Notes
    -----
    NaN and infinities in `grad` reach their own element, as the formula says. A weight that l1 brings to zero is
    +0.0.

    References
    ----------
    .. [1] I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013.
    .. [2] I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> w, b = np.array([1.0, -0.05, 0.0]), np.zeros(3)
    >>> fastreg.sgd_step(w, [1.0, 0.0, -2.0], b, lr=0.1, momentum=0.9, l1=1.0)
    >>> w
    array([0.8, 0. , 0.1])
    >>> b
    array([ 1.,  0., -2.])
    """
    cdef sgd_step_args a
    cdef ndarray P = as_updated(param, "param")
    cdef ndarray G = as_floating_like(grad, P, "grad")
    cdef ndarray B = None
    check_shape(G, P, "grad", "param")
    if momentum_buffer is not None:
        B = as_state(momentum_buffer, P, "momentum_buffer")
        check_disjoint(P, B, "param", "momentum_buffer")
    set_sgd(&a, lr, momentum, dampening, nesterov, weight_decay, decoupled, l1)
    if a.momentum == 0.0:
        B = None
    elif B is None:
        raise no_buffer(momentum)
    elementwise(KERNEL_sgd_step, &a, sizeof(a), MEMORY_ORDER, P, G, B)


def adam_step(
    param, grad, exp_avg, exp_avg_sq, step, *, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0,
    decoupled=False, l1=0.0,
):
    r"""One step of Adam, in place; with `decoupled` weight decay, of AdamW.

    ::

        g = grad + weight_decay·w                decoupled: w = (1 − lr·weight_decay)·w instead
        m = beta1·m + (1 − beta1)·g
        v = beta2·v + (1 − beta2)·g²
        w = w − lr/(1 − beta1^t) · m / (√v/√(1 − beta2^t) + eps)
        w = soft_threshold(w, lr·l1)             only if l1 > 0

    w is `param`, m is `exp_avg`, v is `exp_avg_sq` and t is `step`. The formulas are those of ``torch.optim.Adam`` and
    ``AdamW``: eps is added to the corrected root.

    Parameters
    ----------
    param : ndarray
        float32 or float64, any shape and layout; updated in place.
    grad : array_like
        The gradient of the loss, in the shape of `param`; taken in its dtype.
    exp_avg, exp_avg_sq : ndarray
        The running moments: dtype and shape of `param`, zeros before the first step; updated in place.
    step : int
        The number of this step: 1 for the first.
    lr : float
        Learning rate, >= 0.
    beta1, beta2 : float
        In [0, 1).
    eps : float
        >= 0.
    weight_decay : float
        >= 0, the factor of ½‖w‖².
    decoupled : bool
        Shrink the weights by lr·weight_decay before the step, apart from the moments. The AdamW paper [2]_ writes
        the step as η_t·(alpha·m/(√v + eps) + λ·w): with lr = η_t·alpha as here and in PyTorch, its λ is
        alpha·weight_decay.
    l1 : float
        >= 0, the factor of ‖w‖₁. The threshold is lr·l1 for every weight, not scaled by √v: l1 means the same for
        all of them, as decoupled decay does.

    Raises
    ------
    TypeError
        `param` or a moment is not a writeable array of float32 or float64, the same for all; `grad` is not numeric.
    ValueError
        A shape differs, a number is outside its range, or arrays that are updated share memory. Nothing is changed.

    References
    ----------
    .. [1] D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    .. [2] I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> w, m, v = np.array([1.0, -1.0]), np.zeros(2), np.zeros(2)
    >>> fastreg.adam_step(w, [0.5, -2.0], m, v, 1, lr=0.1)
    >>> w.round(6)
    array([ 0.9, -0.9])
    """
    cdef adam_step_args a
    cdef ndarray P = as_updated(param, "param")
    cdef ndarray G = as_floating_like(grad, P, "grad")
    check_shape(G, P, "grad", "param")
    cdef ndarray M = as_own_state(exp_avg, P, "exp_avg", (P,), ("param",))
    cdef ndarray V = as_own_state(exp_avg_sq, P, "exp_avg_sq", (P, M), ("param", "exp_avg"))
    set_adam(&a, integer(step, "step"), lr, beta1, beta2, eps, weight_decay, decoupled, l1)
    elementwise(KERNEL_adam_step, &a, sizeof(a), MEMORY_ORDER, P, G, M, V)


def adagrad_step(param, grad, sum_sq, *, lr=1e-2, eps=1e-10, weight_decay=0.0, l1=0.0):
    r"""One step of Adagrad, in place.

    ::

        g = grad + weight_decay·w
        s = s + g²
        w = w − lr·g / (√s + eps)
        w = soft_threshold(w, lr·l1)    only if l1 > 0

    w is `param` and s is `sum_sq`. The formulas are those of ``torch.optim.Adagrad``, whose lr_decay divides lr by
    1 + (t − 1)·lr_decay at step t.

    Parameters
    ----------
    param : ndarray
        float32 or float64, any shape and layout; updated in place.
    grad : array_like
        The gradient of the loss, in the shape of `param`; taken in its dtype.
    sum_sq : ndarray
        The sum of squared gradients: dtype and shape of `param`, zeros (or a small number) before the first step;
        updated in place.
    lr : float
        Learning rate, >= 0.
    eps : float
        >= 0.
    weight_decay : float
        >= 0, the factor of ½‖w‖².
    l1 : float
        >= 0, the factor of ‖w‖₁; the threshold is lr·l1 for every weight.

    Raises
    ------
    TypeError
        `param` or `sum_sq` is not a writeable array of float32 or float64, the same for both; `grad` is not numeric.
    ValueError
        A shape differs, a number is outside its range, or the two share memory. Nothing is changed.

    References
    ----------
    .. [1] J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic
       optimization", JMLR 12, 2011.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> w, s = np.array([1.0, -1.0]), np.zeros(2)
    >>> fastreg.adagrad_step(w, [0.5, -2.0], s, lr=0.1)
    >>> w
    array([ 0.9, -0.9])
    >>> s
    array([0.25, 4.  ])
    """
    cdef adagrad_step_args a
    cdef ndarray P = as_updated(param, "param")
    cdef ndarray G = as_floating_like(grad, P, "grad")
    check_shape(G, P, "grad", "param")
    cdef ndarray S = as_own_state(sum_sq, P, "sum_sq", (P,), ("param",))
    set_adagrad(&a, lr, eps, weight_decay, l1)
    elementwise(KERNEL_adagrad_step, &a, sizeof(a), MEMORY_ORDER, P, G, S)


def rmsprop_step(
    param, grad, square_avg, momentum_buffer=None, *, lr=1e-2, alpha=0.99, eps=1e-8, momentum=0.0, weight_decay=0.0,
    l1=0.0,
):
    r"""One step of RMSprop, in place.

    ::

        g = grad + weight_decay·w
        v = alpha·v + (1 − alpha)·g²
        b = momentum·b + g / (√v + eps)    only if momentum > 0, else b = g / (√v + eps)
        w = w − lr·b
        w = soft_threshold(w, lr·l1)       only if l1 > 0

    w is `param`, v is `square_avg` and b is `momentum_buffer`. The formulas are those of ``torch.optim.RMSprop``.

    Parameters
    ----------
    param : ndarray
        float32 or float64, any shape and layout; updated in place.
    grad : array_like
        The gradient of the loss, in the shape of `param`; taken in its dtype.
    square_avg : ndarray
        The running mean of squared gradients: dtype and shape of `param`, zeros before the first step; updated in
        place.
    momentum_buffer : ndarray, optional
        Dtype and shape of `param`, zeros before the first step; updated in place. Needed if `momentum` > 0, left
        alone if it is 0.
    lr : float
        Learning rate, >= 0.
    alpha : float
        In [0, 1], the weight of the old mean.
    eps : float
        >= 0, added to the root.
    momentum : float
        In [0, 1].
    weight_decay : float
        >= 0, the factor of ½‖w‖².
    l1 : float
        >= 0, the factor of ‖w‖₁; the threshold is lr·l1 for every weight.

    Raises
    ------
    TypeError
        `param` or its state is not a writeable array of float32 or float64, the same for all; `grad` is not numeric.
    ValueError
        A shape differs, a number is outside its range, `momentum` > 0 comes without a buffer, or arrays that are
        updated share memory. Nothing is changed.

    References
    ----------
    .. [1] T. Tieleman, G. Hinton, "Lecture 6.5: RMSProp", Coursera: Neural networks for machine learning, 2012.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> w, v = np.array([1.0, -1.0]), np.zeros(2)
    >>> fastreg.rmsprop_step(w, [0.5, -2.0], v, lr=0.01)
    >>> w.round(6)
    array([ 0.9, -0.9])
    """
    cdef rmsprop_step_args a
    cdef ndarray P = as_updated(param, "param")
    cdef ndarray G = as_floating_like(grad, P, "grad")
    cdef ndarray B = None
    check_shape(G, P, "grad", "param")
    cdef ndarray V = as_own_state(square_avg, P, "square_avg", (P,), ("param",))
    if momentum_buffer is not None:
        B = as_own_state(momentum_buffer, P, "momentum_buffer", (P, V), ("param", "square_avg"))
    set_rmsprop(&a, lr, alpha, eps, momentum, weight_decay, l1)
    if a.momentum == 0.0:
        B = None
    elif B is None:
        raise no_buffer(momentum)
    elementwise(KERNEL_rmsprop_step, &a, sizeof(a), MEMORY_ORDER, P, G, V, B)


def ftrl_step(param, grad, z, n, *, alpha=0.1, beta=1.0, l1=0.0, l2=0.0):
    r"""One round of FTRL-Proximal, in place: Algorithm 1 of McMahan et al. [1]_.

    ::

        σ = (√(n + g²) − √n)/alpha
        z = z + g − σ·w
        n = n + g²
        w = 0 where \|z\| <= l1, else −(z − sign(z)·l1) / ((beta + √n)/alpha + l2)

    g is `grad` and w is `param`, which is a function of z and n: the weights that minimise the linearised losses so
    far, plus l1·‖w‖₁ + ½·l2·‖w‖² and the proximal terms. Unlike a threshold at each step, `l1` weighs against the sum
    of all gradients, so that the zeros it gives are many and stay.

    Parameters
    ----------
    param : ndarray
        float32 or float64, any shape and layout; updated in place.
    grad : array_like
        The gradient of the loss at `param`, in its shape; taken in its dtype.
    z, n : ndarray
        State: dtype and shape of `param`, zeros before the first step, when `param` is zeros too. For another start,
        z is `ftrl_init_z` of it. Updated in place.
    alpha : float
        > 0, the learning rate: that of coordinate i is alpha/(beta + √n_i).
    beta : float
        >= 0.
    l1, l2 : float
        >= 0, the factors of ‖w‖₁ and ½‖w‖². (TensorFlow's l2 is half of this one.)

    Raises
    ------
    TypeError
        `param`, `z` or `n` is not a writeable array of float32 or float64, the same for all; `grad` is not numeric.
    ValueError
        A shape differs, a number is outside its range, or arrays that are updated share memory. Nothing is changed.

    See Also
    --------
    ftrl_step_sparse : the same for a few coordinates of many.

    References
    ----------
    .. [1] H. B. McMahan et al., "Ad click prediction: a view from the trenches", KDD 2013.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> w, z, n = np.zeros(3), np.zeros(3), np.zeros(3)
    >>> fastreg.ftrl_step(w, [1.0, -2.0, 0.5], z, n, l1=0.5)
    >>> w
    array([-0.025,  0.05 ,  0.   ])
    """
    cdef ftrl_step_args a
    cdef ndarray P = as_updated(param, "param")
    cdef ndarray G = as_floating_like(grad, P, "grad")
    check_shape(G, P, "grad", "param")
    cdef ndarray Z = as_own_state(z, P, "z", (P,), ("param",))
    cdef ndarray N = as_own_state(n, P, "n", (P, Z), ("param", "z"))
    set_ftrl(&a.per_alpha, &a.shrink, &a.l1, alpha, beta, l1, l2)
    elementwise(KERNEL_ftrl_step, &a, sizeof(a), MEMORY_ORDER, P, G, Z, N)


def ftrl_step_sparse(param, indices, grad, z, n, *, alpha=0.1, beta=1.0, l1=0.0, l2=0.0):
    r"""`ftrl_step` at some coordinates of many, in place.

    For a sparse example, or a batch of them: coordinates that are not in `indices` have no gradient, and FTRL-Proximal
    leaves a coordinate without gradient as it is. The cost is that of the coordinates touched, whatever the size of the
    model.

    Parameters
    ----------
    param : ndarray
        (features,), float32 or float64; updated in place.
    indices : array_like of int
        The coordinates, each in [0, features), in any order and shape; not changed. Hashed features may collide:
        gradients given for one coordinate are summed first (in double, in the order in which they come), so that
        each coordinate makes one step.
    grad : array_like
        The gradient at each of the `indices`, in their shape.
    z, n : ndarray
        (features,), state as in `ftrl_step`; updated in place.
    alpha, beta, l1, l2 : float
        As in `ftrl_step`.

    Raises
    ------
    TypeError
        `param`, `z` or `n` is not a writeable array of float32 or float64, the same for all; `indices` is not an array
        of integers; `grad` is not numeric.
    ValueError
        `param` is not one-dimensional, an index is out of range, a shape differs, a number is outside its range, or
        arrays that are updated share memory. Nothing is changed.

    See Also
    --------
    ftrl_step : formula and reference.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> w, z, n = np.zeros(5), np.zeros(5), np.zeros(5)
    >>> fastreg.ftrl_step_sparse(w, [3, 1, 3], [1.0, -2.0, 1.0], z, n, l1=0.5)
    >>> w
    array([ 0.  ,  0.05,  0.  , -0.05,  0.  ])
    """
    cdef ftrl_step_sparse_args a
    cdef ndarray P = as_updated(param, "param")
    if np.PyArray_NDIM(P) != 1:
        raise ValueError(f"param: got shape {param.shape}; one dimension is needed")
    cdef ndarray K = as_indices(indices, np.PyArray_DIM(P, 0))
    cdef ndarray G = as_floating(grad, "grad")
    check_shape(G, K, "grad", "indices")
    cdef ndarray Z = as_own_state(z, P, "z", (P,), ("param",))
    cdef ndarray N = as_own_state(n, P, "n", (P, Z), ("param", "z"))
    set_ftrl(&a.per_alpha, &a.shrink, &a.l1, alpha, beta, l1, l2)
    a.param, a.z, a.n = np.PyArray_BYTES(P), np.PyArray_BYTES(Z), np.PyArray_BYTES(N)
    a.stride[0], a.stride[1], a.stride[2] = np.PyArray_STRIDE(P, 0), np.PyArray_STRIDE(Z, 0), np.PyArray_STRIDE(N, 0)
    # Copies: both are about to be sorted, and the gradient may be a view of what is updated.
    G = as_type(np.PyArray_NewCopy(G, np.NPY_CORDER), np.NPY_DOUBLE)
    a.index = <const int64_t *>np.PyArray_DATA(K)
    a.grad = <const double *>np.PyArray_DATA(G)
    cdef int64_t count = summed(<int64_t *>np.PyArray_DATA(K), <double *>np.PyArray_DATA(G), np.PyArray_SIZE(K))
    if count < 0:
        order = numpy.argsort(K, axis=None, kind="stable")
        K, G = K.ravel()[order], G.ravel()[order]
        a.index = <const int64_t *>np.PyArray_DATA(K)
        a.grad = <const double *>np.PyArray_DATA(G)
        count = summed(<int64_t *>np.PyArray_DATA(K), <double *>np.PyArray_DATA(G), np.PyArray_SIZE(K))
    over_items(KERNEL_ftrl_step_sparse, dtype_of(P), &a, count, FASTREG_CHUNK, count)


cdef ndarray as_indices(object x, int64_t features):
    """A C-contiguous int64 copy of indices, each in [0, features)."""
    cdef object given
    try:
        given = numpy.asarray(x)
    except ValueError as error:
        raise TypeError(f"indices: got {type(x).__name__}; it cannot be viewed as an array ({error})") from error
    if given.dtype.kind not in "iu" and not (given.size == 0 and isinstance(x, (list, tuple))):
        raise TypeError(f"indices: got dtype {given.dtype}; integers are needed")
    cdef ndarray K = numpy.array(given, dtype=numpy.int64, order="C", copy=True, subok=False)
    cdef const int64_t *k = <const int64_t *>np.PyArray_DATA(K)
    cdef int64_t i
    for i in range(np.PyArray_SIZE(K)):
        if not 0 <= k[i] < features:
            raise ValueError(f"indices: got {k[i]}; each must be in [0, {features})")
    return K


cdef int64_t summed(int64_t *index, double *value, int64_t n) noexcept:
    """Sort few pairs by index, in place, and sum those of one index; returns how many are left.

    -1 for many pairs that are not yet in order; equal ones keep their order.
    """
    cdef int64_t i, j, k, count = 0
    cdef double v
    for i in range(1, n):
        if index[i] >= index[i - 1]:
            continue
        if n > 64:
            return -1
        k, v, j = index[i], value[i], i
        while j > 0 and index[j - 1] > k:
            index[j], value[j] = index[j - 1], value[j - 1]
            j -= 1
        index[j], value[j] = k, v
    for i in range(n):
        if count and index[count - 1] == index[i]:
            value[count - 1] += value[i]
        else:
            index[count], value[count] = index[i], value[i]
            count += 1
    return count


def ftrl_init_z(param, n=None, *, alpha=0.1, beta=1.0, l1=0.0, l2=0.0, out=None):
    r"""The z from which FTRL-Proximal starts at given weights.

    z = −w·((beta + √n)/alpha + l2) − sign(w)·l1, and 0 where w is 0: the closed form of `ftrl_step`, solved for z.

    Parameters
    ----------
    param : array_like
        The wanted weights w, any shape. float32 and float64 are kept.
    n : array_like, optional
        The sums of squares that go with them, in their shape; zeros without it.
    alpha, beta, l1, l2 : float
        As in the steps that are to follow.
    out : ndarray, optional
        Where to put the result: shape of `param` and dtype of the result.

    Returns
    -------
    ndarray
        z, in the shape of `param`; `out` if it was given.

    Raises
    ------
    TypeError
        An argument is not numeric, or `out` has another dtype than the result.
    ValueError
        A shape differs or a number is outside its range.

    Examples
    --------
    >>> import numpy as np, fastreg
    >>> w = np.array([0.5, 0.0, -1.0])
    >>> z, n = fastreg.ftrl_init_z(w, l1=1.0), np.zeros(3)
    >>> z
    array([-6.,  0., 11.])
    >>> fastreg.ftrl_step(w, np.zeros(3), z, n, l1=1.0)
    >>> w
    array([ 0.5,  0. , -1. ])
    """
    cdef ftrl_init_z_args a
    cdef ndarray P = as_floating(param, "param")
    cdef ndarray N = None
    if n is not None:
        N = as_floating_like(n, P, "n")
        check_shape(N, P, "n", "param")
    set_ftrl(&a.per_alpha, &a.shrink, &a.l1, alpha, beta, l1, l2)
    cdef ndarray Z = as_output(out, P)
    elementwise(KERNEL_ftrl_init_z, &a, sizeof(a), MEMORY_ORDER, P, N, Z)
    return finished(Z, out)
