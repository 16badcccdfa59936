"""Fused updates of parameters and their state, in place: one pass over memory each."""
cimport numpy as np
from numpy cimport ndarray

from fastreg._arrays cimport (
    MEMORY_ORDER, as_floating_like, as_state, as_updated, check_disjoint, check_shape, elementwise, fraction, nonnegative,
)

np.import_array()


cdef extern from "fastreg.h":
    enum:
        KERNEL_sgd_step

    ctypedef struct sgd_step_args:
        double lr
        double keep
        double decay
        double momentum
        double undamped
        double threshold
        int nesterov


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
        raise ValueError(f"momentum_buffer: got None with momentum={momentum}; an array of zeros is needed to begin with")
    elementwise(KERNEL_sgd_step, &a, sizeof(a), MEMORY_ORDER, P, G, B)
