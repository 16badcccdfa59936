"""The same work in other libraries, written as an expert of each would write it.

`@peer(function, library)` marks a builder. It gets fastreg's own arguments (by name: the arrays of
the case, its options, and `out` where the row has one), prepares what its library wants to have
prepared, and returns the call that is timed, or None where it has nothing to offer for these
arguments. The call returns its result; where it returns None, the result is in `out` or in the
array that is updated. `threads` is the number of threads this process may use.

numba kernels are compiled with fastmath, which lets it reassociate sums and ignore NaN: a licence
that fastreg does not take; and with NumPy's divisions, which do not raise and so vectorise. JAX
cannot write into a given array, so where the row has an `out` its output buffer is donated back to
it, which saves it the fresh pages.
"""

import math
from functools import cache
from importlib.util import find_spec

import numpy as np

threads = 1
PEERS = {}  # function -> {library: builder}


def peer(function, library):
    return lambda builder: PEERS.setdefault(function, {}).setdefault(library, builder)


class Call:
    """A call as a user would type it. `loop(n)` makes it n times, with nothing around it."""

    def __init__(self, function, *args, **kwargs):
        names = {f"a{i}": value for i, value in enumerate(args)}
        words = {f"k_{name}": value for name, value in kwargs.items()}
        typed = ", ".join([*names, *(f"{name}=k_{name}" for name in kwargs)])
        source = f"def loop(n):\n for _ in range(n): f({typed})\ndef once(): return f({typed})"
        scope = {"f": function, **names, **words}
        exec(source, scope)
        self.loop, self.once = scope["loop"], scope["once"]


@cache
def torch():
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    return torch


def tensors(*arrays):
    return [None if a is None else torch().from_numpy(a) for a in arrays]


@cache
def jax():
    import jax

    jax.config.update("jax_enable_x64", True)  # f64 rows; f32 arrays stay f32
    return jax


def donating(function, state, *args):
    """A call of `function(state, *args)` that takes its last result as its next state's memory."""
    compiled = jax().jit(function, donate_argnums=0, keep_unused=True)
    state = jax().tree.map(lambda a: jax().numpy.array(a, copy=True), state)
    args = [jax().numpy.asarray(a) if isinstance(a, np.ndarray) else a for a in args]

    def call():
        nonlocal state
        state = compiled(state, *args)
        jax().block_until_ready(state)
        return state

    return Call(call)


def jitted(function, out, *args):
    """`function(*args)` into out's memory where there is one, else into fresh memory."""
    if out is not None:
        return donating(lambda _, *a: function(*a), out, *args)
    compiled = jax().jit(function)
    args = [jax().numpy.asarray(a) for a in args]
    return Call(lambda: jax().block_until_ready(compiled(*args)))


def njit(function):
    import numba

    numba.set_num_threads(threads)
    return numba.njit(function, parallel=threads > 1, fastmath=True, error_model="numpy")


try:
    from numba import prange
except ImportError:
    prange = range


# Thresholds ---------------------------------------------------------------------------------------


@peer("soft_threshold", "numpy")
def _(x, lam, out=None):
    def call(x, lam, out):  # x minus its clipping: two passes instead of sign, abs, maximum, multiply
        out = np.clip(x, -lam, lam, out=out)
        return np.subtract(x, out, out=out)

    return Call(call, x, lam, out)


@peer("soft_threshold", "numba")
def _(x, lam, out=None):
    if out is None:

        @njit
        def kernel(x, lam):
            out = np.empty_like(x)
            for i in prange(x.size):
                out[i] = x[i] - min(max(x[i], -lam), lam)
            return out

        return Call(kernel, x, x.dtype.type(lam))

    @njit
    def kernel(x, lam, out):
        for i in prange(x.size):
            out[i] = x[i] - min(max(x[i], -lam), lam)

    return Call(kernel, x, x.dtype.type(lam), out)


@peer("soft_threshold", "torch")
def _(x, lam, out=None):
    x, out = tensors(x, out)
    softshrink = torch().nn.functional.softshrink
    return Call(softshrink, x, lam) if out is None else Call(softshrink, x, lam, out=out)


@peer("soft_threshold", "jax")
def _(x, lam, out=None):
    return jitted(lambda x: x - jax().numpy.clip(x, -lam, lam), out, x)


# Proximal operators and projections ---------------------------------------------------------------


def composition(function, library="numpy"):
    """A peer that is an expression in NumPy, in memory of its own."""

    def builder(out=None, **arguments):
        return Call(lambda: function(**arguments))

    PEERS.setdefault(function.__name__, {})[library] = builder
    return function


@composition
def hard_threshold(x, lam):
    return x * (np.abs(x) > lam)


@composition
def prox_l1(x, lam, step=1.0):
    return x - np.clip(x, -step * lam, step * lam)


@composition
def prox_l0(x, lam, step=1.0):
    return x * (np.abs(x) > (2 * step * lam) ** 0.5)


@composition
def prox_sq_l2(x, lam, step=1.0):
    return x * (1 / (1 + step * lam))


@composition
def prox_elastic_net(x, l1, l2, step=1.0):
    return prox_l1(x, l1, step) * (1 / (1 + step * l2))


@composition
def prox_mcp(x, lam, gamma=3.0, step=1.0):
    return np.where(np.abs(x) > gamma * lam, x, prox_l1(x, lam, step) * (1 / (1 - step / gamma)))


@composition
def prox_scad(x, lam, gamma=3.7, step=1.0):
    m, soft = np.abs(x), prox_l1(x, lam, step)
    line = ((gamma - 1) * x - np.sign(x) * (step * gamma * lam)) * (1 / (gamma - 1 - step))
    return np.where(m <= (1 + step) * lam, soft, np.where(m > gamma * lam, x, line))


@peer("project_box", "numpy")
def _(x, lower, upper, out=None):
    return Call(np.clip, x, lower, upper, out=out)


@peer("project_linf_ball", "numpy")
def _(x, radius, out=None):
    return Call(np.clip, x, -radius, radius, out=out)


@composition
def prox_l2(x, lam):
    return x * max(1 - lam / np.linalg.norm(x), 0)


@composition
def prox_group_lasso(x, lam, axis=None, groups=None):
    if groups is None:
        return x * np.maximum(1 - lam / np.linalg.norm(x, axis=axis, keepdims=True), 0)
    norm = np.sqrt(np.bincount(groups, weights=x * x))
    return x * np.maximum(1 - lam / norm, 0)[groups].astype(x.dtype)


@composition
def prox_sparse_group_lasso(x, l1, lam, axis=None, groups=None):
    return prox_group_lasso(prox_l1(x, l1), lam, axis, groups)


@composition
def project_l2_ball(x, radius):
    return x * min(radius / np.linalg.norm(x), 1)


def sorted_threshold(x, total):
    """The method by sorting (Held, Wolfe and Crowder 1974) that everyone writes."""
    down = np.sort(x)[::-1]
    theta = (np.cumsum(down, dtype=np.float64) - total) / np.arange(1, x.size + 1)
    return x.dtype.type(theta[np.flatnonzero(down > theta)[-1]])


@composition
def project_simplex(x, total):
    return np.maximum(x - sorted_threshold(x, total), 0)


@composition
def project_l1_ball(x, radius):
    theta = sorted_threshold(np.abs(x), radius)
    return x - np.clip(x, -theta, theta)


@composition
def prox_linf(x, lam):
    theta = sorted_threshold(np.abs(x), lam)
    return np.clip(x, -theta, theta)


@composition
def prox_nuclear(x, lam):
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    return (u * np.maximum(s - lam, 0)) @ vt


@cache
def pyproximal():
    import pyproximal

    return pyproximal


# Its prox of L0 thresholds at tau·sigma: asked for the right place, it does the same work. It has no MCP, its
# total variation iterates (at a million elements, for minutes until it agrees), and its projections take a vector.
PYPROXIMAL = {
    "soft_threshold": lambda m, x, lam: (m.L1(lam), 1.0),
    "prox_l1": lambda m, x, lam, step=1.0: (m.L1(lam), step),
    "prox_l0": lambda m, x, lam, step=1.0: (m.L0((2 * step * lam) ** 0.5), 1.0),
    "prox_sq_l2": lambda m, x, lam, step=1.0: (m.L2(sigma=lam), step),
    "prox_scad": lambda m, x, lam, gamma=3.7, step=1.0: (m.SCAD(lam, gamma), step),
    "prox_l2": lambda m, x, lam, step=1.0: (m.Euclidean(lam), step),
    "prox_group_lasso": lambda m, x, lam, axis=None, groups=None: (m.L21(len(x), lam), 1.0) if axis == 0 else None,
    "project_box": lambda m, x, lower, upper: (m.Box(lower, upper), 1.0),
    "project_linf_ball": lambda m, x, radius: (m.Box(-radius, radius), 1.0),
    "project_l2_ball": lambda m, x, radius: (m.EuclideanBall(0.0, radius), 1.0),
    "project_simplex": lambda m, x, total: (m.Simplex(x.size, total), 1.0),
    "project_l1_ball": lambda m, x, radius: (m.L1Ball(x.size, radius), 1.0),
    "prox_nuclear": lambda m, x, lam, step=1.0: (m.Nuclear(x.shape, lam), step),
}
for name, of in PYPROXIMAL.items():

    @peer(name, "pyproximal")
    def _(x, out=None, of=of, **arguments):
        if any(np.ndim(value) for name, value in arguments.items() if name != "groups"):
            return None  # its weights are numbers
        chosen = of(pyproximal(), x, **arguments)
        return chosen and Call(chosen[0].prox, x.ravel(), chosen[1])


def torch_composition(function):
    """A peer that is an expression in torch. Of its operators those that take `out` get it."""

    def builder(x, out=None, **arguments):
        arrays = {name: torch().from_numpy(value) for name, value in arguments.items() if np.ndim(value)}
        call = function(*tensors(x, out), **(arguments | arrays))
        return call and Call(call)

    PEERS.setdefault(function.__name__.removeprefix("torch_"), {})["torch"] = builder
    return function


def functional():
    return torch().nn.functional


@torch_composition
def torch_prox_l1(x, out, lam, step=1.0):
    if not isinstance(lam, float):  # softshrink takes a number
        t = step * lam
        return lambda: torch().sub(x, torch().clamp(x, -t, t), out=out)
    return lambda: functional().softshrink(x, step * lam, out=out)


@torch_composition
def torch_hard_threshold(x, out, lam):
    return lambda: functional().hardshrink(x, lam)


@torch_composition
def torch_prox_l0(x, out, lam, step=1.0):
    threshold = (2 * step * lam) ** 0.5
    if isinstance(threshold, float):
        return torch_hard_threshold(x, out, threshold)
    nothing = torch().zeros((), dtype=x.dtype)
    return lambda: torch().where(x.abs() > threshold, x, nothing, out=out)


@torch_composition
def torch_prox_sq_l2(x, out, lam, step=1.0):
    shrinkage = 1 / (1 + step * lam)
    return lambda: torch().mul(x, shrinkage, out=out)


@torch_composition
def torch_prox_elastic_net(x, out, l1, l2, step=1.0):
    soft, shrinkage = torch_prox_l1(x, out, l1, step), 1 / (1 + step * l2)
    return lambda: soft().mul_(shrinkage)


@torch_composition
def torch_prox_mcp(x, out, lam, gamma=3.0, step=1.0):
    soft = torch_prox_l1(x, out, lam, step)
    return lambda: torch().where(x.abs() > gamma * lam, x, soft().mul_(1 / (1 - step / gamma)))


@torch_composition
def torch_prox_scad(x, out, lam, gamma=3.7, step=1.0):
    # A soft threshold that is the least of step·lam and of the line that comes to 0 at gamma·lam.
    bend = step / (gamma - 1 - step)

    def call():
        t = x.abs().neg_().add_(gamma * lam).mul_(bend).clamp_(min=0)
        t = torch().minimum(t, torch().as_tensor(step * lam, dtype=x.dtype))
        return torch().sub(x, torch().clamp(x, -t, t), out=out)

    return call


@torch_composition
def torch_project_box(x, out, lower, upper):
    return lambda: torch().clamp(x, lower, upper, out=out)


@torch_composition
def torch_project_linf_ball(x, out, radius):
    return torch_project_box(x, out, -radius, radius)


@torch_composition
def torch_prox_l2(x, out, lam):
    return lambda: torch().mul(x, (1 - lam / torch().linalg.vector_norm(x)).clamp_(min=0), out=out)


@torch_composition
def torch_project_l2_ball(x, out, radius):
    return lambda: torch().mul(x, (radius / torch().linalg.vector_norm(x)).clamp_(max=1), out=out)


@torch_composition
def torch_prox_group_lasso(x, out, lam, axis=None, groups=None):
    if groups is None:
        norm = torch().linalg.vector_norm
        return lambda: torch().mul(x, (1 - lam / norm(x, dim=axis, keepdim=True)).clamp_(min=0), out=out)
    sums = torch().zeros(int(groups.max()) + 1, dtype=x.dtype)

    def call():
        factor = (1 - lam / sums.zero_().index_add_(0, groups, x * x).sqrt_()).clamp_(min=0)
        return torch().mul(x, factor[groups], out=out)

    return call


@torch_composition
def torch_prox_sparse_group_lasso(x, out, l1, lam, axis=None, groups=None):
    soft = torch_prox_l1(x, out, l1)
    groups_of = torch_prox_group_lasso(out, out, lam, axis, groups)

    def call():
        soft()
        return groups_of()

    return call


def torch_sorted_threshold(x, total):
    down = x.sort(descending=True).values
    theta = (down.cumsum(0, dtype=torch().float64) - total) / torch().arange(1, x.numel() + 1)
    return theta[(down > theta).nonzero()[-1]].to(x.dtype)


@torch_composition
def torch_project_simplex(x, out, total):
    return lambda: torch().sub(x, torch_sorted_threshold(x, total), out=out).clamp_(min=0)


@torch_composition
def torch_project_l1_ball(x, out, radius):
    return lambda: functional().softshrink(x, torch_sorted_threshold(x.abs(), radius).item(), out=out)


@torch_composition
def torch_prox_linf(x, out, lam):
    def call():
        theta = torch_sorted_threshold(x.abs(), lam)
        return torch().clamp(x, -theta, theta, out=out)

    return call


@torch_composition
def torch_prox_nuclear(x, out, lam):
    def call():
        u, s, vt = torch().linalg.svd(x, full_matrices=False)
        return torch().mm(u * (s - lam).clamp_(min=0), vt, out=out)

    return call


@peer("prox_tv1d", "numba")
def _(x, lam, out=None):
    """The direct algorithm of Condat 2013, which most libraries use: quick on noise, O(n²) at worst."""

    @njit
    def kernel(x, lam, out):
        n = x.size
        k = start = up = down = 0  # up, down: where the segment may end with a rise, or with a fall
        low, high, below, above = x[0] - lam, x[0] + lam, lam, -lam
        while True:
            if start == n - 1:
                out[start] = low + below
                return
            if k == n - 1:
                if below < 0:
                    for i in range(start, down + 1):
                        out[i] = low
                    k = start = down = down + 1
                    low, below = x[k], lam
                    above = x[k] + lam - high
                elif above > 0:
                    for i in range(start, up + 1):
                        out[i] = high
                    k = start = up = up + 1
                    high, above = x[k], -lam
                    below = x[k] - lam - low
                else:
                    low += below / (k - start + 1)
                    for i in range(start, n):
                        out[i] = low
                    return
            elif x[k + 1] + below < low - lam:
                for i in range(start, down + 1):
                    out[i] = low
                k = start = up = down = down + 1
                low, high, below, above = x[k], x[k] + 2 * lam, lam, -lam
            elif x[k + 1] + above > high + lam:
                for i in range(start, up + 1):
                    out[i] = high
                k = start = up = down = up + 1
                low, high, below, above = x[k] - 2 * lam, x[k], lam, -lam
            else:
                k += 1
                below += x[k] - low
                above += x[k] - high
                if below >= lam:
                    low += (below - lam) / (k - start + 1)
                    below, down = lam, k
                if above <= -lam:
                    high += (above + lam) / (k - start + 1)
                    above, up = -lam, k

    return Call(kernel, x, x.dtype.type(lam), out)


# Fused updates ------------------------------------------------------------------------------------


@peer("sgd_step", "numpy")
def _(param, grad, momentum_buffer, lr, momentum, weight_decay):
    def call(param, grad, buffer, scratch):
        np.multiply(param, weight_decay, out=scratch)
        scratch += grad
        buffer *= momentum
        buffer += scratch
        np.multiply(buffer, lr, out=scratch)
        param -= scratch

    return Call(call, param, grad, momentum_buffer, np.empty_like(param))


@peer("sgd_step", "numba")
def _(param, grad, momentum_buffer, lr, momentum, weight_decay):
    @njit
    def kernel(param, grad, buffer, lr, momentum, weight_decay):
        for i in prange(param.size):
            buffer[i] = momentum * buffer[i] + (grad[i] + weight_decay * param[i])
            param[i] -= lr * buffer[i]

    scalars = [param.dtype.type(s) for s in (lr, momentum, weight_decay)]
    return Call(kernel, param, grad, momentum_buffer, *scalars)


@peer("sgd_step", "torch")
def _(param, grad, momentum_buffer, lr, momentum, weight_decay):
    param, grad, momentum_buffer = tensors(param, grad, momentum_buffer)
    param.grad = grad
    options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "fused": True}
    optimizer = torch().optim.SGD([param.requires_grad_()], **options)
    optimizer.state[param]["momentum_buffer"] = momentum_buffer
    return Call(optimizer.step)


@peer("sgd_step", "torch op")  # what the optimiser calls, without the optimiser
def _(param, grad, momentum_buffer, lr, momentum, weight_decay):
    options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "dampening": 0.0}
    flags = {"nesterov": False, "maximize": False, "is_first_step": False}
    lists = [[t] for t in tensors(param, grad, momentum_buffer)]
    return Call(torch()._fused_sgd_, *lists, **options, **flags)


@peer("sgd_step", "jax")
def _(param, grad, momentum_buffer, lr, momentum, weight_decay):
    def step(state, grad):
        param, buffer = state
        buffer = momentum * buffer + (grad + weight_decay * param)
        return param - lr * buffer, buffer

    return donating(step, (param, momentum_buffer), grad)


def adamw(param, grad, exp_avg, exp_avg_sq, step, lr, weight_decay):
    """The numbers of an AdamW step, with the defaults that are everyone's."""
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    rate, unbias = lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    return [param.dtype.type(s) for s in (1 - lr * weight_decay, rate, unbias, beta1, beta2, eps)]


@peer("adam_step", "numba")
def _(param, grad, exp_avg, exp_avg_sq, step, lr, weight_decay, decoupled):
    scalars = adamw(param, grad, exp_avg, exp_avg_sq, step, lr, weight_decay)
    one = param.dtype.type(1)

    @njit
    def kernel(param, grad, exp_avg, exp_avg_sq, keep, rate, unbias, beta1, beta2, eps):
        for i in prange(param.size):
            exp_avg[i] = beta1 * exp_avg[i] + (one - beta1) * grad[i]
            exp_avg_sq[i] = beta2 * exp_avg_sq[i] + (one - beta2) * grad[i] * grad[i]
            param[i] = keep * param[i] - rate * exp_avg[i] / (math.sqrt(exp_avg_sq[i]) * unbias + eps)

    return Call(kernel, param, grad, exp_avg, exp_avg_sq, *scalars)


@peer("adam_step", "torch op")
def _(param, grad, exp_avg, exp_avg_sq, step, lr, weight_decay, decoupled):
    lists = [[t] for t in tensors(param, grad, exp_avg, exp_avg_sq)]
    options = {"lr": lr, "beta1": 0.9, "beta2": 0.999, "weight_decay": weight_decay, "eps": 1e-8}
    flags = {"amsgrad": False, "maximize": False}
    steps = [torch().tensor(float(step))]
    return Call(torch()._fused_adamw_, *lists, [], steps, **options, **flags)


@peer("adam_step", "jax")
def _(param, grad, exp_avg, exp_avg_sq, step, lr, weight_decay, decoupled):
    keep, rate, unbias, beta1, beta2, eps = adamw(param, grad, exp_avg, exp_avg_sq, step, lr, weight_decay)

    def update(state, grad):
        param, m, v = state
        m, v = beta1 * m + (1 - beta1) * grad, beta2 * v + (1 - beta2) * grad * grad
        return keep * param - rate * m / (jax().numpy.sqrt(v) * unbias + eps), m, v

    return donating(update, (param, exp_avg, exp_avg_sq), grad)


@peer("adagrad_step", "numba")
def _(param, grad, sum_sq, weight_decay):
    @njit
    def kernel(param, grad, sum_sq, lr, eps, decay):
        for i in prange(param.size):
            g = grad[i] + decay * param[i]
            sum_sq[i] += g * g
            param[i] -= lr * g / (math.sqrt(sum_sq[i]) + eps)

    return Call(kernel, param, grad, sum_sq, *[param.dtype.type(s) for s in (1e-2, 1e-10, weight_decay)])


@peer("adagrad_step", "torch op")
def _(param, grad, sum_sq, weight_decay):
    lists = [[t] for t in tensors(param, grad, sum_sq)]
    options = {"lr": 1e-2, "lr_decay": 0.0, "weight_decay": weight_decay, "eps": 1e-10, "maximize": False}
    return Call(torch()._fused_adagrad_, *lists, [torch().tensor(1.0)], **options)


@peer("rmsprop_step", "numba")
def _(param, grad, square_avg, lr, weight_decay):
    one = param.dtype.type(1)

    @njit
    def kernel(param, grad, square_avg, lr, alpha, eps, decay):
        for i in prange(param.size):
            g = grad[i] + decay * param[i]
            square_avg[i] = alpha * square_avg[i] + (one - alpha) * g * g
            param[i] -= lr * g / (math.sqrt(square_avg[i]) + eps)

    return Call(kernel, param, grad, square_avg, *[param.dtype.type(s) for s in (lr, 0.99, 1e-8, weight_decay)])


def ftrl_coordinate():
    import numba

    @numba.njit(fastmath=True, error_model="numpy")
    def coordinate(i, g, param, z, n, per_alpha, shrink, l1):
        total = n[i] + g * g
        root = math.sqrt(total)
        z[i] += g - (root - math.sqrt(n[i])) * per_alpha * param[i]
        n[i] = total
        param[i] = (min(max(z[i], -l1), l1) - z[i]) / (root * per_alpha + shrink)

    return coordinate


def ftrl_numbers(dtype, alpha, l1, l2):
    return [dtype.type(s) for s in (1 / alpha, 1 / alpha + l2, l1)]


@peer("ftrl_step", "numba")
def _(param, grad, z, n, **options):
    coordinate = ftrl_coordinate()

    @njit
    def kernel(param, grad, z, n, per_alpha, shrink, l1):
        for i in prange(param.size):
            coordinate(i, grad[i], param, z, n, per_alpha, shrink, l1)

    return Call(kernel, param, grad, z, n, *ftrl_numbers(param.dtype, **options))


@peer("ftrl_step_sparse", "numba")
def _(grad, indices, param, z, n, **options):
    coordinate = ftrl_coordinate()

    def kernel(grad, indices, param, z, n, per_alpha, shrink, l1):
        order = np.argsort(indices)
        k = 0
        while k < order.size:
            i, g = indices[order[k]], grad[order[k]]
            k += 1
            while k < order.size and indices[order[k]] == i:
                g += grad[order[k]]
                k += 1
            coordinate(i, g, param, z, n, per_alpha, shrink, l1)

    import numba

    # No prange: where a coordinate ends, the next begins.
    kernel = numba.njit(kernel, fastmath=True, error_model="numpy")
    return Call(kernel, grad, indices, param, z, n, *ftrl_numbers(param.dtype, **options))


@peer("ftrl_step_sparse", "numpy")
def _(grad, indices, param, z, n, **options):
    per_alpha, shrink, l1 = ftrl_numbers(param.dtype, **options)

    def call():
        touched, which = np.unique(indices, return_inverse=True)
        g = np.bincount(which, grad).astype(param.dtype)
        w, old = param[touched], n[touched]
        new = old + g * g
        root = np.sqrt(new)
        total = z[touched] + (g - (root - np.sqrt(old)) * per_alpha * w)
        param[touched] = (np.clip(total, -l1, l1) - total) / (root * per_alpha + shrink)
        z[touched], n[touched] = total, new

    return Call(call)


def cut(x, sizes):
    """Views of x, one after the other."""
    return np.split(x, np.cumsum(sizes)[:-1])


def many(optimiser, sizes, param, grad, **options):
    """A step of one of fastreg's optimisers."""
    step = Call(optimiser(cut(param, sizes), **options).step, cut(grad, sizes))
    once = step.once
    step.once = lambda: once() and None  # its result is in param
    return step


def torch_many(name, how):
    @peer(name, f"torch {how}")
    def _(param, grad, tensors, **options):
        params = [torch().from_numpy(p).requires_grad_() for p in cut(param, tensors)]
        for p, g in zip(params, cut(grad, tensors), strict=True):
            p.grad = torch().from_numpy(g)
        return Call(getattr(torch().optim, name)(params, **options, **{how: True}).step)


for name in ("SGD", "AdamW", "Adagrad"):
    torch_many(name, "fused")
for name in ("SGD", "AdamW", "Adagrad", "RMSprop"):
    torch_many(name, "foreach")


def optax_many(name):
    if not find_spec("optax"):
        return

    @peer(name, "optax")
    def _(param, grad, tensors, **options):
        import optax

        # eps where the others have it: beside the root, or left out of Adagrad, where it is 1e-10 for them.
        decay = optax.add_decayed_weights(options["weight_decay"])
        rule = {
            "SGD": lambda lr=0, momentum=0, **_: optax.chain(decay, optax.sgd(lr, momentum=momentum)),
            "AdamW": lambda lr=0, weight_decay=0: optax.adamw(lr, weight_decay=weight_decay),
            "Adagrad": lambda **_: optax.chain(decay, optax.adagrad(1e-2, 0.0, eps=0.0)),
            "RMSprop": lambda lr=0, **_: optax.chain(decay, optax.rmsprop(lr, 0.99, eps_in_sqrt=False)),
        }[name](**options)
        params = [jax().numpy.asarray(p) for p in cut(param, tensors)]
        grads = [jax().numpy.asarray(g) for g in cut(grad, tensors)]

        def update(state, grads):
            changes, state_of_rule = rule.update(grads, state[1], state[0])
            return optax.apply_updates(state[0], changes), state_of_rule

        step = donating(update, (params, rule.init(params)), grads)
        once = step.once
        step.once = lambda: jax().numpy.concatenate(once()[0])
        return step


for name in ("SGD", "AdamW", "Adagrad", "RMSprop"):
    optax_many(name)


# Dropout ------------------------------------------------------------------------------------------


def drawn(shape, axis):
    """Length 1 along the axes that share a decision."""
    return shape if axis is None else tuple(n if d in axis else 1 for d, n in enumerate(shape))


@peer("dropout", "numpy")
def _(x, p, seed, out, axis=None):
    rng, scale = np.random.Generator(np.random.SFC64(seed)), 1 / (1 - p)
    numbers = np.empty(drawn(x.shape, axis), np.float32)
    kept = np.empty(numbers.shape, bool)

    def call():
        rng.random(out=numbers, dtype=np.float32)
        np.greater_equal(numbers, p, out=kept)
        np.multiply(x, kept, out=out)
        return np.multiply(out, scale, out=out)

    return Call(call)


def philox_dropout(x, seed, p, out):
    """Philox4x32-10 per four elements: the guarantees of fastreg's mask, for numba to compile."""
    m0, m1, low, s32 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57), np.uint64(0xFFFFFFFF), 32
    s32, seed = np.uint64(32), np.uint64(seed)
    threshold, scale = np.uint64(round(p * 2**32)), x.dtype.type(1 / (1 - p))

    @njit
    def kernel(x, out):
        zero = x[0] * 0
        for q in prange(x.size // 4):
            c0, c1, c2, c3 = np.uint64(q) & low, np.uint64(q) >> s32, np.uint64(0), np.uint64(0)
            k0, k1 = seed & low, seed >> s32
            for _ in range(10):
                a, b = m0 * c0, m1 * c2
                c0, c1, c2, c3 = (b >> s32) ^ c1 ^ k0, b & low, (a >> s32) ^ c3 ^ k1, a & low
                k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
            i = 4 * q
            out[i] = x[i] * scale if c0 >= threshold else zero
            out[i + 1] = x[i + 1] * scale if c1 >= threshold else zero
            out[i + 2] = x[i + 2] * scale if c2 >= threshold else zero
            out[i + 3] = x[i + 3] * scale if c3 >= threshold else zero

    return Call(kernel, x, out)


@peer("dropout", "numba")
def _(x, p, seed, out, axis=None):
    return philox_dropout(x, seed, p, out) if axis is None else None


@peer("dropout", "torch native")
def _(x, p, seed, out, axis=None):
    functional = torch().nn.functional
    return Call(functional.dropout if axis is None else functional.dropout2d, *tensors(x), p, True)


@peer("dropout", "torch rand")  # its bernoulli_ is slower than its uniform numbers
def _(x, p, seed, out, axis=None):
    shape = drawn(x.shape, axis)
    x, out = tensors(x, out)
    rand, gt, mul, scale = torch().rand, torch().gt, torch().mul, 1 / (1 - p)
    numbers, kept = torch().empty(shape), torch().empty(shape, dtype=torch().bool)

    def call():
        gt(rand(shape, out=numbers), p, out=kept)
        return mul(x, kept, out=out).mul_(scale)

    return Call(call)


@peer("dropout", "jax")
def _(x, p, seed, out, axis=None):
    def drop(x, offset):  # a new key at each call, as in training
        key = jax().random.fold_in(jax().random.key(seed), offset)
        kept = jax().random.bernoulli(key, 1 - p, drawn(x.shape, axis))
        return jax().numpy.where(kept, x / (1 - p), 0)

    return jitted(drop, out, x, np.uint32(1))


@peer("dropout_mask", "numpy")
def _(shape, p, seed, packed):
    rng = np.random.Generator(np.random.SFC64(seed))
    if packed and p == 0.5:  # random bits as they are
        return Call(lambda: np.frombuffer(rng.bytes(math.prod(shape) // 8), np.uint8))
    numbers, kept = np.empty(shape, np.float32), np.empty(shape, bool)

    def call():
        rng.random(out=numbers, dtype=np.float32)
        return np.packbits(np.greater_equal(numbers, p, out=kept)) if packed else numbers >= p

    return Call(call)


@peer("dropout_mask", "torch")
def _(shape, p, seed, packed):
    numbers = torch().empty(shape)
    return None if packed else Call(lambda: torch().rand(shape, out=numbers) >= p)


@peer("dropout_mask", "jax")
def _(shape, p, seed, packed):
    def draw(offset):
        kept = jax().random.bernoulli(jax().random.fold_in(jax().random.key(seed), offset), 1 - p, shape)
        return jax().numpy.packbits(kept) if packed else kept

    return jitted(draw, None, np.uint32(1))


# Mask, then multiply: what other libraries' users write, for whom the masked weights are a matrix of their own.


@peer("dropconnect", "numpy")
def _(x, weight, bias, p, seed, training=True):
    rng, scale = np.random.Generator(np.random.SFC64(seed)), x.dtype.type(1 / (1 - p))
    numbers, kept = np.empty(weight.shape, np.float32), np.empty(weight.shape, bool)
    masked = np.empty_like(weight)

    def call():
        if not training:
            return x @ weight.T + bias
        np.greater_equal(rng.random(out=numbers, dtype=np.float32), p, out=kept)
        np.multiply(np.multiply(weight, scale, out=masked), kept, out=masked)
        return x @ masked.T + bias

    return Call(call)


@peer("dropconnect", "torch native")
def _(x, weight, bias, p, seed, training=True):
    x, weight, bias = tensors(x, weight, bias)
    linear, dropout = torch().nn.functional.linear, torch().nn.functional.dropout
    return Call(lambda: linear(x, dropout(weight, p, training), bias))


@peer("dropconnect", "torch rand")
def _(x, weight, bias, p, seed, training=True):
    x, weight, bias = tensors(x, weight, bias)
    linear, rand, scale = torch().nn.functional.linear, torch().rand, 1 / (1 - p)
    numbers, masked = torch().empty(weight.shape), torch().empty_like(weight)

    def call():
        return linear(x, torch().mul(weight, rand(weight.shape, out=numbers) >= p, out=masked).mul_(scale), bias)

    return Call(call) if training else None


def masked_weight(weight, p, seed, offset):
    kept = jax().random.bernoulli(jax().random.fold_in(jax().random.key(seed), offset), 1 - p, weight.shape)
    return jax().numpy.where(kept, weight / (1 - p), 0)


@peer("dropconnect", "jax")
def _(x, weight, bias, p, seed, training=True):
    def linear(x, weight, bias, offset):
        return x @ (masked_weight(weight, p, seed, offset) if training else weight).T + bias

    return jitted(linear, None, x, weight, bias, np.uint32(1))


# They keep the forward pass's mask, and get the masked weights made again from it.


@peer("dropconnect_backward", "numpy")
def _(grad, x, weight, p, seed):
    mask, scale = kept(weight.shape, p, seed), x.dtype.type(1 / (1 - p))
    masked = np.empty_like(weight)

    def call():
        np.multiply(np.multiply(weight, scale, out=masked), mask, out=masked)
        by_weight = grad.T @ x
        by_weight *= mask
        by_weight *= scale
        return grad @ masked, by_weight, grad.sum(0)

    return Call(call)


@peer("dropconnect_backward", "torch")
def _(grad, x, weight, p, seed):
    grad, x, weight, mask = tensors(grad, x, weight, kept(weight.shape, p, seed))
    scale, masked = 1 / (1 - p), torch().empty_like(weight)

    def call():
        torch().mul(weight, mask, out=masked).mul_(scale)
        return grad @ masked, (grad.T @ x).mul_(mask).mul_(scale), grad.sum(0)

    return Call(call)


@peer("dropconnect_backward", "jax")
def _(grad, x, weight, p, seed):
    def backward(grad, x, weight, mask):
        scaled = mask / (1 - p)
        return grad @ (weight * scaled).astype(weight.dtype), (grad.T @ x) * scaled.astype(x.dtype), grad.sum(0)

    return jitted(backward, None, grad, x, weight, kept(weight.shape, p, seed))


@peer("dropout_backward", "numba")
def _(grad, p, seed, out):
    return philox_dropout(grad, seed, p, out)


def kept(shape, p, seed):  # the backward passes of libraries that keep their mask
    return np.random.default_rng(seed).random(shape) >= p


@peer("dropout_backward", "numpy")
def _(grad, p, seed, out):
    mask, scale = kept(grad.shape, p, seed), 1 / (1 - p)

    def call():
        np.multiply(grad, mask, out=out)
        return np.multiply(out, scale, out=out)

    return Call(call)


@peer("dropout_backward", "torch")
def _(grad, p, seed, out):
    grad, mask, out = tensors(grad, kept(grad.shape, p, seed), out)
    return Call(torch().ops.aten.native_dropout_backward.out, grad, mask, 1 / (1 - p), out=out)


@peer("dropout_backward", "jax")
def _(grad, p, seed, out):
    mask = kept(grad.shape, p, seed)
    return jitted(lambda g, m: jax().numpy.where(m, g / (1 - p), 0), out, grad, mask)


# Normalisation ------------------------------------------------------------------------------------


def nchw(x):
    """(N, C, everything else)"""
    return x.reshape(*x.shape[:2], -1)


def channels(x):
    """(the axes to reduce, the shape that broadcasts a vector along the channels)"""
    return tuple(a for a in range(x.ndim) if a != 1), (-1,) + (1,) * (x.ndim - 2)


@peer("batch_norm", "numpy")
def _(x, running_mean, running_var, weight, bias, eps=1e-5, momentum=0.1, training=False, activation=None, out=None):
    if activation:
        return None
    axes, wide = channels(x)
    n = x.size // x.shape[1]

    def call():
        if training:
            mean = x.mean(axes)
            np.subtract(x, mean.reshape(wide), out=out)
            var = np.einsum("nci,nci->c", nchw(out), nchw(out)) / n
            running_mean[:] = (1 - momentum) * running_mean + momentum * mean
            running_var[:] = (1 - momentum) * running_var + momentum * n / (n - 1) * var
            scale = weight / np.sqrt(var + eps)
            np.multiply(out, scale.reshape(wide), out=out)
            return np.add(out, bias.reshape(wide), out=out)
        scale = weight / np.sqrt(running_var + eps)
        np.multiply(x, scale.reshape(wide), out=out)
        return np.add(out, (bias - running_mean * scale).reshape(wide), out=out)

    return Call(call)


@peer("batch_norm", "numba")
def _(x, running_mean, running_var, weight, bias, eps=1e-5, momentum=0.1, training=False, activation=None, out=None):
    if activation:
        return None
    if training:

        @njit
        def planes(x, running_mean, running_var, weight, bias, out):
            n = x.shape[0] * x.shape[2]
            for c in prange(x.shape[1]):  # one channel stays in the cache for its three passes
                total = x[0, c, 0] * 0
                for b in range(x.shape[0]):
                    for i in range(x.shape[2]):
                        total += x[b, c, i]
                mean = total / n
                total = x[0, c, 0] * 0
                for b in range(x.shape[0]):
                    for i in range(x.shape[2]):
                        d = x[b, c, i] - mean
                        total += d * d
                var = total / n
                running_mean[c] += momentum * (mean - running_mean[c])
                running_var[c] += momentum * (total / (n - 1) - running_var[c])
                scale = weight[c] / math.sqrt(var + eps)
                scale, shift = x.dtype.type(scale), x.dtype.type(bias[c] - mean * scale)
                for b in range(x.shape[0]):
                    for i in range(x.shape[2]):
                        out[b, c, i] = x[b, c, i] * scale + shift

        @njit
        def rows(x, running_mean, running_var, weight, bias, out):
            n, strip = x.shape[0], 128
            for s in prange((x.shape[1] + strip - 1) // strip):
                lo, hi = s * strip, min((s + 1) * strip, x.shape[1])
                mean, var = np.zeros(hi - lo, x.dtype), np.zeros(hi - lo, x.dtype)
                scale, shift = np.empty(hi - lo, x.dtype), np.empty(hi - lo, x.dtype)
                for b in range(n):
                    for c in range(hi - lo):
                        mean[c] += x[b, lo + c]
                for c in range(hi - lo):
                    mean[c] /= n
                for b in range(n):
                    for c in range(hi - lo):
                        d = x[b, lo + c] - mean[c]
                        var[c] += d * d
                for c in range(hi - lo):
                    running_mean[lo + c] += momentum * (mean[c] - running_mean[lo + c])
                    running_var[lo + c] += momentum * (var[c] / (n - 1) - running_var[lo + c])
                    scale[c] = weight[lo + c] / math.sqrt(var[c] / n + eps)
                    shift[c] = bias[lo + c] - mean[c] * scale[c]
                for b in range(n):
                    for c in range(hi - lo):
                        out[b, lo + c] = x[b, lo + c] * scale[c] + shift[c]

    else:

        @njit
        def planes(x, running_mean, running_var, weight, bias, out):
            for b in prange(x.shape[0]):
                for c in range(x.shape[1]):
                    scale = weight[c] / math.sqrt(running_var[c] + eps)
                    scale, shift = x.dtype.type(scale), x.dtype.type(bias[c] - running_mean[c] * scale)
                    for i in range(x.shape[2]):
                        out[b, c, i] = x[b, c, i] * scale + shift

        @njit
        def rows(x, running_mean, running_var, weight, bias, out):
            scale = (weight / np.sqrt(running_var + eps)).astype(x.dtype)
            shift = (bias - running_mean * scale).astype(x.dtype)
            for b in prange(x.shape[0]):
                for c in range(x.shape[1]):
                    out[b, c] = x[b, c] * scale[c] + shift[c]

    if x.ndim == 2:
        return Call(rows, x, running_mean, running_var, weight, bias, out)
    return Call(planes, nchw(x), running_mean, running_var, weight, bias, nchw(out))


@peer("batch_norm", "torch")
def _(x, running_mean, running_var, weight, bias, eps=1e-5, momentum=0.1, training=False, activation=None, out=None):
    args = tensors(x, running_mean, running_var, weight, bias)
    norm = torch().nn.functional.batch_norm
    if activation:
        return Call(lambda: norm(*args, training, momentum, eps).relu_())
    return Call(norm, *args, training, momentum, eps)


@peer("batch_norm", "torch out=")
def _(x, running_mean, running_var, weight, bias, eps=1e-5, momentum=0.1, training=False, activation=None, out=None):
    if activation:
        return None
    args = tensors(x, weight, bias, running_mean, running_var)
    saved = tensors(np.empty_like(weight), np.empty_like(weight))
    outs = dict(zip(("out", "save_mean", "save_invstd"), [*tensors(out), *saved], strict=True))
    return Call(torch().ops.aten.native_batch_norm.out, *args, training, momentum, eps, **outs)


@peer("batch_norm", "jax")
def _(x, running_mean, running_var, weight, bias, eps=1e-5, momentum=0.1, training=False, activation=None, out=None):
    axes, wide = channels(x)
    n = x.size // x.shape[1]

    def forward(state, x, weight, bias):
        _, running_mean, running_var = state
        mean, var = running_mean, running_var
        if training:
            mean, var = x.mean(axes), x.var(axes)
            running_mean = (1 - momentum) * running_mean + momentum * mean
            running_var = (1 - momentum) * running_var + momentum * n / (n - 1) * var
        scale = weight / jax().numpy.sqrt(var + eps)
        y = x * scale.reshape(wide) + (bias - mean * scale).reshape(wide)
        if activation:
            y = jax().nn.relu(y)
        return y, running_mean, running_var

    return donating(forward, (out, running_mean, running_var), x, weight, bias)


@peer("batch_norm_backward", "numpy")
def _(grad, x, mean, rstd, weight):
    axes, wide = channels(x)
    n = x.size // x.shape[1]

    def call():
        xhat = x - mean.reshape(wide)
        xhat *= rstd.reshape(wide)
        grad_bias = grad.sum(axes)
        grad_weight = np.einsum("nci,nci->c", nchw(grad), nchw(xhat))
        xhat *= (grad_weight / -n).reshape(wide)
        xhat += grad
        xhat -= (grad_bias / n).reshape(wide)
        xhat *= (weight * rstd).reshape(wide)
        return xhat, grad_weight, grad_bias

    return Call(call)


@peer("batch_norm_backward", "numba")
def _(grad, x, mean, rstd, weight):
    @njit
    def planes(grad, x, mean, rstd, weight):
        n = x.shape[0] * x.shape[2]
        out, grad_weight, grad_bias = np.empty_like(x), np.empty_like(weight), np.empty_like(weight)
        for c in prange(x.shape[1]):
            total, dot = x[0, c, 0] * 0, x[0, c, 0] * 0
            for b in range(x.shape[0]):
                for i in range(x.shape[2]):
                    total += grad[b, c, i]
                    dot += grad[b, c, i] * (x[b, c, i] - mean[c])
            grad_weight[c], grad_bias[c] = dot * rstd[c], total
            slope = x.dtype.type(dot * rstd[c] * rstd[c] / n)
            scale, level = x.dtype.type(weight[c] * rstd[c]), x.dtype.type(total / n)
            for b in range(x.shape[0]):
                for i in range(x.shape[2]):
                    centred = x[b, c, i] - mean[c]
                    out[b, c, i] = scale * (grad[b, c, i] - level - slope * centred)
        return out, grad_weight, grad_bias

    @njit
    def rows(grad, x, mean, rstd, weight):
        n, strip = x.shape[0], 128
        out, grad_weight, grad_bias = np.empty_like(x), np.empty_like(weight), np.empty_like(weight)
        for s in prange((x.shape[1] + strip - 1) // strip):
            lo, hi = s * strip, min((s + 1) * strip, x.shape[1])
            total, dot = np.zeros(hi - lo, x.dtype), np.zeros(hi - lo, x.dtype)
            for b in range(n):
                for c in range(hi - lo):
                    total[c] += grad[b, lo + c]
                    dot[c] += grad[b, lo + c] * (x[b, lo + c] - mean[lo + c])
            for c in range(hi - lo):
                grad_weight[lo + c], grad_bias[lo + c] = dot[c] * rstd[lo + c], total[c]
                total[c] /= n
                dot[c] *= rstd[lo + c] * rstd[lo + c] / n
            for b in range(n):
                for c in range(hi - lo):
                    centred = x[b, lo + c] - mean[lo + c]
                    scale = weight[lo + c] * rstd[lo + c]
                    out[b, lo + c] = scale * (grad[b, lo + c] - total[c] - dot[c] * centred)
        return out, grad_weight, grad_bias

    if x.ndim == 2:
        return Call(rows, grad, x, mean, rstd, weight)
    return Call(planes, nchw(grad), nchw(x), mean, rstd, weight)


@peer("batch_norm_backward", "torch")
def _(grad, x, mean, rstd, weight):
    grad, x, mean, rstd, weight = tensors(grad, x, mean, rstd, weight)
    backward = torch().ops.aten.native_batch_norm_backward
    wanted = [True, True, True]
    return Call(backward, grad, x, weight, None, None, mean, rstd, True, 1e-5, wanted)


@peer("batch_norm_backward", "jax")
def _(grad, x, mean, rstd, weight):
    axes, wide = channels(x)
    n = x.size // x.shape[1]

    def backward(grad, x, mean, rstd, weight):
        xhat = (x - mean.reshape(wide)) * rstd.reshape(wide)
        grad_bias, grad_weight = grad.sum(axes), (grad * xhat).sum(axes)
        slope = grad - (grad_bias / n).reshape(wide) - xhat * (grad_weight / n).reshape(wide)
        return slope * (weight * rstd).reshape(wide), grad_weight, grad_bias

    return jitted(backward, None, grad, x, mean, rstd, weight)


@peer("layer_norm", "torch")
def _(x, weight, bias, normalized_shape, out=None):
    return Call(torch().nn.functional.layer_norm, tensors(x)[0], (normalized_shape,), *tensors(weight, bias))


@peer("layer_norm_backward", "torch")
def _(grad, x, mean, rstd, weight):
    grad, x, weight, mean, rstd = tensors(grad, x, weight, mean[..., None], rstd[..., None])
    backward = torch().ops.aten.native_layer_norm_backward
    return Call(backward, grad, x, [x.shape[-1]], mean, rstd, weight, torch().zeros_like(weight), [True, True, True])


@peer("rms_norm", "torch")
def _(x, weight, normalized_shape, out=None):
    return Call(torch().nn.functional.rms_norm, tensors(x)[0], (normalized_shape,), *tensors(weight))


def differentiate(forward, grad, x, weight):
    """The backward pass alone where no operator gives it: what the tape of one forward pass does."""
    x.requires_grad_()
    weight.requires_grad_()
    with torch().enable_grad():
        y = forward(x, weight)
    return Call(torch().autograd.grad, y, (x, weight), grad, retain_graph=True)


@peer("rms_norm_backward", "torch")
def _(grad, x, rstd, weight):
    grad, x, weight = tensors(grad, x, weight)
    return differentiate(lambda x, w: torch().nn.functional.rms_norm(x, w.shape, w), grad, x, weight)


@peer("group_norm", "torch")
def _(x, weight, bias, num_groups, out=None):
    return Call(torch().nn.functional.group_norm, tensors(x)[0], num_groups, *tensors(weight, bias))


@peer("group_norm_backward", "torch")
def _(grad, x, mean, rstd, weight):
    grad, x, mean, rstd, weight = tensors(grad, x, mean, rstd, weight)
    n, c, inner = x.shape[0], x.shape[1], x[0, 0].numel()
    backward = torch().ops.aten.native_group_norm_backward
    return Call(backward, grad, x, mean, rstd, weight, n, c, inner, mean.shape[1], [True, True, True])


@peer("instance_norm", "torch")
def _(x, weight, bias, out=None):
    x, weight, bias = tensors(x, weight, bias)
    return Call(torch().nn.functional.instance_norm, x, None, None, weight, bias)


@peer("instance_norm_backward", "torch")
def _(grad, x, mean, rstd, weight):
    grad, x, weight = tensors(grad, x, weight)
    return differentiate(lambda x, w: torch().nn.functional.instance_norm(x, None, None, w), grad, x, weight)


# Losses -------------------------------------------------------------------------------------------


def loss_and_slope(function, one, log1p, exp):
    """What an element costs, and its slope by x, in the arithmetic of whoever compiles it."""
    half = one / 2

    def l1(x, t):
        d = x - t
        return abs(d), (d > 0) * one - (d < 0) * one

    def mse(x, t):
        d = x - t
        return d * d, d + d

    def huber(x, t):  # with c the slope, d clipped to ±1; smooth L1 is the same where beta is 1
        d = x - t
        c = min(max(d, -one), one)
        return c * (d - half * c), c

    def entropy(x, t):
        e = exp(-abs(x))
        return max(x, 0 * one) - x * t + log1p(e), (one if x >= 0 else e) / (one + e) - t

    return {"l1_loss": l1, "mse_loss": mse, "binary_cross_entropy_with_logits": entropy}.get(function, huber)


def numpy_loss(function):
    def build(input, target, return_grad=False, out=None):
        d, slope = np.empty_like(input), np.empty_like(input) if out is None else out

        def l1():
            loss = np.abs(d, out=slope).sum()
            return loss, np.sign(d, out=slope) if return_grad else None

        def mse():
            return np.vdot(d, d), np.multiply(d, 2, out=slope) if return_grad else None

        def huber():  # with c the slope clip(d, −1, 1): the loss is c·d − ½c²
            np.clip(d, -1, 1, out=slope)
            return np.vdot(slope, d) - 0.5 * np.vdot(slope, slope), slope

        terms = {"l1_loss": l1, "mse_loss": mse}.get(function, huber)

        def call():
            np.subtract(input, target, out=d)
            loss, grad = terms()
            return (loss / d.size, np.divide(grad, d.size, out=grad)) if return_grad else loss / d.size

        def entropy():
            loss = np.logaddexp(0, input, out=d).sum() - np.vdot(input, target)
            if not return_grad:
                return loss / d.size
            np.exp(np.subtract(input, d, out=slope), out=slope)  # e^(x − log(1 + e^x)) is the sigmoid
            return loss / d.size, np.divide(np.subtract(slope, target, out=slope), d.size, out=slope)

        return Call(entropy if function == "binary_cross_entropy_with_logits" else call)

    return build


def numba_loss(function):
    def build(input, target, return_grad=False, out=None):
        import numba

        term = numba.njit(loss_and_slope(function, input.dtype.type(1), math.log1p, math.exp), fastmath=True)
        if not return_grad:

            @njit
            def kernel(input, target):
                total = 0.0
                for i in prange(input.size):
                    total += term(input[i], target[i])[0]
                return total / input.size

            return Call(kernel, input, target)

        @njit
        def kernel(input, target, scale, out):
            total = 0.0
            for i in prange(input.size):
                loss, slope = term(input[i], target[i])
                total += loss
                out[i] = slope * scale
            return total / input.size

        return Call(kernel, input, target, input.dtype.type(1 / input.size), out)

    return build


def differentiated(loss, input, target):
    """Forward and backward as a training loop has them: the gradient in fresh memory, after the last one was let go."""
    input = input.requires_grad_()

    def call():
        input.grad = None
        with torch().enable_grad():
            value = loss(input, target)
        value.backward()
        return value.detach(), input.grad

    return Call(call)


def torch_loss(function):
    def build(input, target, return_grad=False, out=None):
        input, target = tensors(input, target)
        loss = getattr(torch().nn.functional, function)
        return differentiated(loss, input, target) if return_grad else Call(loss, input, target)

    return build


def torch_loss_op(function, *more):
    """The operators beneath, with the gradient in a place that is there."""

    def build(input, target, return_grad=False, out=None):
        if not return_grad:
            return None
        input, target, out = tensors(input, target, out)
        loss = getattr(torch().nn.functional, function)
        backward = getattr(torch().ops.aten, f"{function}_backward")
        slope = backward.out if function == "huber_loss" else backward.grad_input
        one = torch().ones((), dtype=input.dtype)

        def call():
            value = loss(input, target)
            slope(one, input, target, 1, *more, grad_input=out)
            return value, out

        return Call(call)

    return build


def jax_loss(function):
    def build(input, target, return_grad=False, out=None):
        jnp = jax().numpy

        def loss(x, t):
            d = x - t
            if function == "l1_loss":
                return abs(d).mean()
            if function == "mse_loss":
                return (d * d).mean()
            if function == "binary_cross_entropy_with_logits":
                return (jax().nn.softplus(x) - x * t).mean()
            c = jnp.clip(d, -1, 1)
            return (c * (d - 0.5 * c)).mean()

        if return_grad:
            both = jax().value_and_grad(loss)
            return donating(lambda _, *args: both(*args), (np.float64(0), out), input, target)
        return jitted(loss, None, input, target)

    return build


for _loss in ("l1_loss", "mse_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits"):
    peer(_loss, "numpy")(numpy_loss(_loss))
    peer(_loss, "numba")(numba_loss(_loss))
    peer(_loss, "torch")(torch_loss(_loss))
    peer(_loss, "jax")(jax_loss(_loss))
for _loss, *_more in (("mse_loss",), ("smooth_l1_loss", 1.0), ("huber_loss", 1.0)):
    peer(_loss, "torch, its operators")(torch_loss_op(_loss, *_more))


@peer("cross_entropy", "numpy")
def _(input, target, return_grad=False, out=None):
    rows = np.arange(len(input))
    terms = np.empty_like(input) if out is None else out

    def call():
        np.subtract(input, input.max(1, keepdims=True), out=terms)
        at_target = terms[rows, target]
        sums = np.exp(terms, out=terms).sum(1, keepdims=True)
        loss = (np.log(sums[:, 0]) - at_target).mean()
        if not return_grad:
            return loss
        np.divide(terms, sums * len(rows), out=terms)
        terms[rows, target] -= 1 / len(rows)
        return loss, terms

    return Call(call)


@peer("cross_entropy", "torch")
def _(input, target, return_grad=False, out=None):
    input, target = tensors(input, target)
    loss = torch().nn.functional.cross_entropy
    return differentiated(loss, input, target) if return_grad else Call(loss, input, target)


@peer("cross_entropy", "jax")
def _(input, target, return_grad=False, out=None):
    def loss(x, y):
        return -jax().numpy.take_along_axis(jax().nn.log_softmax(x), y[:, None], axis=1).mean()

    if return_grad:
        both = jax().value_and_grad(loss)
        return donating(lambda _, *args: both(*args), (np.float64(0), out), input, target)
    return jitted(loss, None, input, target)


# Activations --------------------------------------------------------------------------------------


@peer("sigmoid", "scipy.special")
def _(x, out=None):
    from scipy.special import expit

    return Call(expit, x, out=out)


@peer("sigmoid", "torch")
def _(x, out=None):
    x, out = tensors(x, out)
    return Call(torch().sigmoid, x, out=out)


@peer("sigmoid", "jax")
def _(x, out=None):
    return jitted(jax().nn.sigmoid, out, x)


def scipy_rows(function):
    def build(x, out=None):
        from scipy import special

        return Call(getattr(special, function), x, axis=-1)

    return build


def torch_rows(function):
    def build(x, out=None):
        x, out = tensors(x, out)
        return Call(getattr(torch(), function), x, -1, out=out)

    return build


def torch_rows_backward(function):
    """The operators behind autograd, with the gradient in a place that is there."""

    def build(grad, y, out=None):
        grad, y, out = tensors(grad, y, out)
        aten = torch().ops.aten
        if function == "sigmoid":
            return Call(aten.sigmoid_backward.grad_input, grad, y, grad_input=out)
        if function == "softmax":
            return Call(aten._softmax_backward_data.out, grad, y, -1, y.dtype, grad_input=out)
        return Call(aten._log_softmax_backward_data.out, grad, y, -1, y.dtype, out=out)

    return build


def numpy_backward(function):
    def build(grad, y, out=None):
        def sigmoid():
            return np.multiply(np.multiply(np.subtract(1, y, out=out), y, out=out), grad, out=out)

        def softmax():
            sums = np.einsum("...i,...i->...", grad, y)[..., None]
            return np.multiply(np.subtract(grad, sums, out=out), y, out=out)

        def log_softmax():
            np.multiply(np.exp(y, out=out), grad.sum(-1, keepdims=True), out=out)
            return np.subtract(grad, out, out=out)

        return Call({"sigmoid": sigmoid, "softmax": softmax}.get(function, log_softmax))

    return build


for _name in ("softmax", "log_softmax"):
    peer(_name, "scipy.special")(scipy_rows(_name))
    peer(_name, "torch")(torch_rows(_name))
    peer(_name, "jax")(lambda x, out=None, _name=_name: jitted(getattr(jax().nn, _name), out, x))
for _name in ("sigmoid", "softmax", "log_softmax"):
    peer(f"{_name}_backward", "numpy")(numpy_backward(_name))
    peer(f"{_name}_backward", "torch")(torch_rows_backward(_name))


# ---- norms, distances, boxes -------------------------------------------------------------------------------------


@peer("norm", "numpy")
def _(x, p, axis=None):
    return Call(np.linalg.norm, x, p, axis) if axis is not None or p == 2 else Call(np.linalg.norm, x, p)


@peer("norm", "torch")
def _(x, p, axis=None):
    if axis is None and x.size > 2**20 and x.dtype == np.float32:
        return None  # its sum of 2^24 magnitudes is 2 % short: they are added in f32
    return Call(torch().linalg.vector_norm, tensors(x)[0], p, axis)


@peer("norm", "numba")
def _(x, p, axis=None):
    if axis is not None or p not in (1, 2, np.inf):
        return None

    @njit
    def absolute(x):
        total = 0.0
        for i in prange(x.size):
            total += abs(x[i])
        return total

    @njit
    def squares(x):
        total = 0.0
        for i in prange(x.size):
            total += np.float64(x[i]) * np.float64(x[i])
        return math.sqrt(total)

    @njit
    def largest(x):
        most = x.dtype.type(0)
        for i in prange(x.size):
            most = max(most, abs(x[i]))
        return most

    return Call({1: absolute, 2: squares, np.inf: largest}[p], x)


@peer("normalize", "numpy")
def _(x, out=None):
    return Call(lambda: np.divide(x, np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12), out=out))


@peer("normalize", "torch")
def _(x, out=None):
    x, out = tensors(x, out)
    return Call(torch().nn.functional.normalize, x, dim=-1, out=out)


@peer("normalize_backward", "torch")
def _(grad, x):
    grad, x = tensors(grad, x)
    x.requires_grad_()
    with torch().enable_grad():
        y = torch().nn.functional.normalize(x, dim=-1)
    return Call(torch().autograd.grad, y, x, grad, retain_graph=True)


@peer("cosine_similarity", "numpy")
def _(x, y):
    def call():
        lengths = np.maximum(np.linalg.norm(x, axis=-1), 1e-8) * np.maximum(np.linalg.norm(y, axis=-1), 1e-8)
        return np.einsum("ij,ij->i", x, y) / lengths

    return Call(call)


@peer("cosine_similarity", "torch")
def _(x, y):
    return Call(torch().nn.functional.cosine_similarity, *tensors(x, y), dim=-1)


@peer("cdist", "scipy")
def _(x, metric, p, y=None):
    from scipy.spatial import distance

    if metric == "dot":
        return None
    name = {"manhattan": "cityblock"}.get(metric, metric)
    options = {"p": p} if metric == "minkowski" else {}
    if y is None:
        return Call(lambda: distance.squareform(distance.pdist(x, name, **options), checks=False))
    return Call(distance.cdist, x, y, name, **options)


@peer("cdist", "numpy")
def _(x, metric, p, y=None):
    """As scikit-learn's: by the expansion of the square, whose terms cancel for near points."""
    y = x if y is None else y

    def squares():
        d = np.einsum("ij,ij->i", x, x)[:, None] + np.einsum("ij,ij->i", y, y)
        d -= 2 * (x @ y.T)
        return np.maximum(d, 0, out=d)

    def cosine():
        u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
        d = u @ v.T
        return np.subtract(1, d, out=d)

    ways = {
        "dot": lambda: x @ y.T,
        "sqeuclidean": squares,
        "euclidean": lambda: np.sqrt(d := squares(), out=d),
        "cosine": cosine,
    }
    # Of a point and itself the expansion leaves the root of its rounding, which is no distance of 0.
    return Call(ways[metric]) if metric in ways and (y is not x or metric != "euclidean") else None


def torch_distances(mode):
    def build(x, metric, p, y=None):
        x, y = tensors(x, x if y is None else y)
        order = {"euclidean": 2.0, "manhattan": 1.0, "chebyshev": math.inf, "minkowski": float(p)}.get(metric)
        if order is not None:
            if mode != "differences" and (order != 2 or y is x or x.data_ptr() == y.data_ptr()):
                return None
            name = "donot_use_mm_for_euclid_dist" if mode == "differences" else "use_mm_for_euclid_dist"
            return Call(torch().cdist, x, y, order, name)
        if metric == "dot" and mode == "differences":
            return Call(torch().mm, x, y.T)
        return None

    return build


peer("cdist", "torch")(torch_distances("differences"))
peer("cdist", "torch expansion")(torch_distances("expansion"))


@peer("cdist", "numba")
def _(x, metric, p, y=None):
    y = x if y is None else y
    zero = x.dtype.type(0)

    def pairwise(one):
        inner = njit_inner(one)

        @njit
        def kernel(x, y, out):
            for i in prange(x.shape[0]):
                for j in range(y.shape[0]):
                    out[i, j] = inner(x, y, i, j)

        def call():
            out = np.empty((len(x), len(y)), x.dtype)
            kernel(x, y, out)
            return out

        return Call(call)

    def euclidean(x, y, i, j):
        total = zero
        for k in range(x.shape[1]):
            total += (x[i, k] - y[j, k]) ** 2
        return math.sqrt(total)

    def manhattan(x, y, i, j):
        total = zero
        for k in range(x.shape[1]):
            total += abs(x[i, k] - y[j, k])
        return total

    def chebyshev(x, y, i, j):
        most = zero
        for k in range(x.shape[1]):
            most = max(most, abs(x[i, k] - y[j, k]))
        return most

    ways = {"euclidean": euclidean, "manhattan": manhattan, "chebyshev": chebyshev}
    return pairwise(ways[metric]) if metric in ways else None


def njit_inner(function):
    import numba

    return numba.njit(function, fastmath=True, inline="always")


def overlaps(lib, x, t):
    """Areas' union, IoU and the ends of the hull of corresponding boxes, by a library of arrays."""
    low, high = lib.maximum(x[..., :2], t[..., :2]), lib.minimum(x[..., 2:], t[..., 2:])
    shared = lib.clip(high - low, 0, None)
    shared = shared[..., 0] * shared[..., 1]
    side, t_side = x[..., 2:] - x[..., :2], t[..., 2:] - t[..., :2]
    union = side[..., 0] * side[..., 1] + t_side[..., 0] * t_side[..., 1] - shared
    return union, shared / union, lib.minimum(x[..., :2], t[..., :2]), lib.maximum(x[..., 2:], t[..., 2:])


@peer("box_iou", "numpy")
def _(a, b):
    return Call(lambda: overlaps(np, a[:, None], b[None])[1])


@peer("box_iou", "torch")
def _(a, b):
    a, b = tensors(a, b)
    return Call(lambda: overlaps(torch(), a[:, None], b[None])[1])


@peer("box_iou", "numba")
def _(a, b):
    @njit
    def kernel(a, b, out):
        for i in prange(a.shape[0]):
            area = (a[i, 2] - a[i, 0]) * (a[i, 3] - a[i, 1])
            for j in range(b.shape[0]):
                w = max(min(a[i, 2], b[j, 2]) - max(a[i, 0], b[j, 0]), 0)
                h = max(min(a[i, 3], b[j, 3]) - max(a[i, 1], b[j, 1]), 0)
                out[i, j] = w * h / (area + (b[j, 2] - b[j, 0]) * (b[j, 3] - b[j, 1]) - w * h)

    def call():
        out = np.empty((len(a), len(b)), a.dtype)
        kernel(a, b, out)
        return out

    return Call(call)


def torch_box_loss(kind):
    """torchvision's formulas (its eps left out), forward and backward by autograd."""

    def build(input, target, return_grad=True, out=None):
        x, t = tensors(input.copy(), target)
        x.requires_grad_()
        lib = torch()

        def loss():
            union, iou, low, high = overlaps(lib, x, t)
            hull = high - low
            if kind == "giou":
                area = hull[:, 0] * hull[:, 1]
                return (2 - iou - union / area).mean()
            offset = (x[:, :2] + x[:, 2:] - t[:, :2] - t[:, 2:]) / 2
            each = 1 - iou + (offset**2).sum(1) / (hull**2).sum(1)
            if kind == "ciou":
                side, t_side = x[:, 2:] - x[:, :2], t[:, 2:] - t[:, :2]
                turn = lib.atan(t_side[:, 0] / t_side[:, 1]) - lib.atan(side[:, 0] / side[:, 1])
                v = 4 / math.pi**2 * turn**2
                with lib.no_grad():
                    alpha = v / (1 - iou + v)
                each = each + alpha * v
            return each.mean()

        def call():
            with lib.enable_grad():
                value = loss()
                (grad,) = lib.autograd.grad(value, x)
            return value.detach(), grad

        return Call(call)

    return build


for kind in ("giou", "diou", "ciou"):
    peer(f"{kind}_loss", "torch")(torch_box_loss(kind))
