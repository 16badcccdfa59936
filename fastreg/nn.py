"""Layers: objects that hold state (parameters, running statistics, a random stream) and remember their last forward
pass for the backward one. All arithmetic is in the functions of the same name."""

import copy
from typing import Any, Literal

import numpy as np

from fastreg._dropout import dropconnect, dropconnect_backward, dropout, dropout_backward
from fastreg._norm import (
    batch_norm,
    batch_norm_backward,
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)

__all__ = ["BatchNorm", "DropConnect", "Dropout", "GroupNorm", "InstanceNorm", "Layer", "LayerNorm", "RMSNorm"]


class Layer:
    """What every layer has.

    A subclass fills `params` and names in `buffers` what else its state is made of; `forward` returns the output and
    remembers what `backward` needs; `backward` takes the gradient by the output of the last `forward`, puts the
    gradients by the parameters into `grads` and returns the gradient by the input.

    Where `backward` needs the input (all layers but Dropout), `forward` keeps the array itself, not a copy, which would
    double what a network's activations take: it must not be changed in place before `backward`. The same goes for the
    parameters: an optimiser's step comes after.

    Attributes
    ----------
    training : bool
        True at first. Dropout and batch normalisation do something else at inference.
    params : dict of str to ndarray
        Trained parameters, updated in place by an optimiser.
    grads : dict of str to ndarray
        Their gradients, under the same names, as the last `backward` left them.
    """

    buffers: tuple[str, ...] = ()  # attributes that are state, yet not trained

    def __init__(self) -> None:
        self.training = True
        self.params: dict[str, np.ndarray] = {}
        self.grads: dict[str, np.ndarray] = {}
        self._last: Any = None  # what the last forward left for backward

    def forward(self, x: Any) -> np.ndarray:
        raise NotImplementedError

    def backward(self, grad: Any) -> np.ndarray:
        raise NotImplementedError

    def __call__(self, x: Any) -> np.ndarray:
        return self.forward(x)

    def train(self) -> "Layer":
        """Switch to training, and return the layer."""
        self.training = True
        return self

    def eval(self) -> "Layer":
        """Switch to inference, and return the layer."""
        self.training = False
        return self

    def _remembered(self) -> Any:
        if self._last is None:
            raise RuntimeError("backward: forward has to come first")
        return self._last

    def state_dict(self) -> dict[str, Any]:
        """A copy of the parameters and of all other state, by name."""
        return copy.deepcopy(self.params | {name: getattr(self, name) for name in self.buffers})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave. Arrays are written in place, so an optimiser's references to them hold.

        Raises
        ------
        ValueError
            A name is missing or unknown, or an array has another shape or dtype. Nothing is changed then.
        """
        mine = self.params | {name: getattr(self, name) for name in self.buffers}
        if set(state) != set(mine):
            raise ValueError(f"state: got the names {sorted(state)}; {sorted(mine)} are needed")
        for name, now in mine.items():
            if isinstance(now, np.ndarray):
                new = np.asarray(state[name])
                if (new.shape, new.dtype) != (now.shape, now.dtype):
                    raise ValueError(
                        f"state: got {name} of shape {new.shape} and dtype {new.dtype}; "
                        f"{now.shape} and {now.dtype} are needed"
                    )
            elif type(state[name]) is not type(now):
                raise ValueError(
                    f"state: got {name} of type {type(state[name]).__name__}; {type(now).__name__} is needed"
                )
        for name, now in mine.items():
            if isinstance(now, np.ndarray):
                now[...] = state[name]
            else:
                setattr(self, name, state[name])


def _draw_seed(rng: Any) -> int:
    return int(np.random.default_rng(rng).integers(2**64, dtype=np.uint64))


class Dropout(Layer):
    r"""Dropout: in training, each element is zero with probability p.

    The k-th forward pass in training draws stream k of the seed (`fastreg.dropout` with ``offset=k``), and `backward`
    draws the same again; no mask is stored.

    Parameters
    ----------
    p : float
        The probability of being dropped, in [0, 1].
    seed : int, optional
        In [0, 2**64): the key of the random numbers. Without it, one is drawn from `rng`.
    rng : None, int, numpy.random.Generator, ...
        Whatever `numpy.random.default_rng` takes (SPEC 7); it is used once, here. A given Generator is advanced, so
        that layers made from one get seeds of their own.
    mode : {"inverted", "vanilla"}
        See `fastreg.dropout`.
    axis : int or tuple of int, optional
        The axes along which decisions are drawn: ``axis=(0, 1)`` drops channels of (N, C, H, W).

    Attributes
    ----------
    seed : int
    offset : int
        The stream that the next forward pass in training draws; both are in the state dict, so that a run that is taken
        up again draws what it would have drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from fastreg.nn import Dropout
    >>> layer = Dropout(0.5, seed=1)
    >>> layer.forward(np.arange(1.0, 9.0))
    array([0., 4., 6., 8., 0., 0., 0., 0.])
    >>> layer.backward(np.ones(8))
    array([0., 2., 2., 2., 0., 0., 0., 0.])
    >>> layer.eval().forward(np.arange(1.0, 9.0))
    array([1., 2., 3., 4., 5., 6., 7., 8.])
    """

    buffers = ("seed", "offset")

    def __init__(
        self,
        p: float = 0.5,
        *,
        seed: int | None = None,
        rng: Any = None,
        mode: Literal["inverted", "vanilla"] = "inverted",
        axis: int | tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if seed is not None and rng is not None:
            raise ValueError("rng: got one beside a seed; one of the two is allowed")
        self.p, self.mode, self.axis = p, mode, axis
        self.seed = _draw_seed(rng) if seed is None else seed
        self.offset = 0
        dropout(np.empty(0), p, seed=self.seed, mode=mode)  # so that a bad argument is refused here

    def __repr__(self) -> str:
        return f"Dropout({self.p!r}, seed={self.seed}, mode={self.mode!r}, axis={self.axis!r})"

    def forward(self, x: Any) -> np.ndarray:
        how: dict[str, Any] = {
            "p": self.p,
            "seed": self.seed,
            "offset": self.offset,
            "training": self.training,
            "mode": self.mode,
            "axis": self.axis,
        }
        y = dropout(x, **how)
        self._last = how, y.shape
        if self.training:
            self.offset = (self.offset + 1) % 2**64
        return y

    def backward(self, grad: Any) -> np.ndarray:
        how, shape = self._remembered()
        if np.shape(grad) != shape:
            raise ValueError(f"grad: got shape {np.shape(grad)}; that of the last output, {shape}, is needed")
        return dropout_backward(grad, **how)


class DropConnect(Layer):
    r"""A linear layer: in training, each weight is dropped with probability p.

    The k-th forward pass in training draws stream k of the seed (`fastreg.dropconnect` with ``offset=k``), and
    `backward` draws it again. What is kept in between is the input itself: change it in place, and the gradients are
    those of what it has become.

    Parameters
    ----------
    in_features, out_features : int
        Samples are rows of `in_features` numbers; the output has `out_features`.
    p : float
        The probability of a weight's being dropped, in [0, 1].
    bias : bool
        Whether there is one.
    seed : int, optional
        In [0, 2**64): the key of the masks. Without it, one is drawn from `rng`.
    rng : None, int, numpy.random.Generator, ...
        Whatever `numpy.random.default_rng` takes (SPEC 7): the initial weights and bias, uniform within
        ±1/√in_features, and the seed come from it.
    dtype : dtype
        Of the parameters: float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> from fastreg.nn import DropConnect
    >>> layer = DropConnect(4, 2, rng=0)
    >>> layer.forward(np.ones((3, 4), np.float32)).shape
    (3, 2)
    >>> layer.backward(np.ones((3, 2), np.float32)).shape
    (3, 4)
    >>> sorted(layer.grads)
    ['bias', 'weight']
    """

    buffers = ("seed", "offset")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        p: float = 0.5,
        *,
        bias: bool = True,
        seed: int | None = None,
        rng: Any = None,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"dtype: got {dtype!r}; float32 and float64 are allowed")
        generator = np.random.default_rng(rng)
        bound = max(1, in_features) ** -0.5
        self.params["weight"] = generator.uniform(-bound, bound, (out_features, in_features)).astype(dtype)
        if bias:
            self.params["bias"] = generator.uniform(-bound, bound, out_features).astype(dtype)
        self.p = p
        self.seed = _draw_seed(generator) if seed is None else seed
        self.offset = 0
        dropout(np.empty(0), p, seed=self.seed)  # so that a bad argument is refused here

    def __repr__(self) -> str:
        out_features, in_features = self.params["weight"].shape
        return f"DropConnect({in_features}, {out_features}, {self.p!r}, bias={'bias' in self.params}, seed={self.seed})"

    def forward(self, x: Any) -> np.ndarray:
        weight, bias = self.params["weight"], self.params.get("bias")
        y = dropconnect(x, weight, bias, self.p, seed=self.seed, offset=self.offset, training=self.training)
        self._last = x, self.p if self.training else 0.0, self.seed, self.offset
        if self.training:
            self.offset = (self.offset + 1) % 2**64
        return y

    def backward(self, grad: Any) -> np.ndarray:
        x, p, seed, offset = self._remembered()
        by_x, by_weight, by_bias = dropconnect_backward(grad, x, self.params["weight"], p, seed=seed, offset=offset)
        self.grads["weight"] = by_weight
        if "bias" in self.params:
            self.grads["bias"] = by_bias
        return by_x


class _Norm(Layer):
    """What the normalisations share: a weight of ones and a bias of zeros at first, if there are any."""

    def __init__(self, shape: Any, eps: float | None, affine: bool, dtype: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.eps: Any = eps
        self.affine = affine
        if affine:
            self.params = {name: (np.ones if name == "weight" else np.zeros)(shape, dtype) for name in names}
        elif np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"dtype: got {np.dtype(dtype)}; float32 and float64 are allowed")
        if any(param.dtype not in (np.float32, np.float64) for param in self.params.values()):
            raise TypeError(f"dtype: got {np.dtype(dtype)}; float32 and float64 are allowed")

    def _normalise(
        self, function: Any, x: Any, *arguments: Any, how: dict[str, bool] | None = None, **options: Any
    ) -> np.ndarray:
        """What the function gives; what its backward needs is remembered, with `how`, which both are told."""
        how = how or {}
        y, *statistics = function(x, *arguments, **self.params, eps=self.eps, return_stats=True, **how, **options)
        self._last = (x, *statistics), how
        return y

    def _gradients(self, backward: Any, grad: Any, **options: Any) -> np.ndarray:
        arrays, how = self._remembered()
        grad_x, *others = backward(grad, *arrays, self.params.get("weight"), **how, **options)
        self.grads = {name: grad for name, grad in zip(("weight", "bias"), others, strict=False) if name in self.params}
        return grad_x


class BatchNorm(_Norm):
    r"""Batch normalisation with its running statistics; see `fastreg.batch_norm`.

    In training (at first) a batch is normalised by its own statistics, and the running ones follow; after `eval()`, by
    the running ones.

    Parameters
    ----------
    num_features : int
        The number of channels.
    eps : float
        Added to the variance.
    momentum : float
        The weight of the new value in the running statistics (Keras's 0.99 is 0.01 here).
    affine : bool
        Whether there are a weight and a bias.
    axis : int
        The axis of the channels; −1 for channels-last.
    activation : {None, "relu"}
        "relu" is fused.
    dtype : float32 or float64
        Of the parameters and running statistics; that of the data it will see.

    Attributes
    ----------
    running_mean, running_var : ndarray of shape (num_features,)
        In the state dict, beside `params`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastreg.nn import BatchNorm
    >>> layer = BatchNorm(2, eps=0.0, dtype=np.float64)
    >>> layer.forward(np.array([[1.0, 10.0], [3.0, 30.0]]))
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> layer.running_mean
    array([0.2, 2. ])
    >>> layer.eval().forward(np.array([[0.2, 2.0]]))
    array([[0., 0.]])
    """

    buffers = ("running_mean", "running_var")

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        axis: int = 1,
        activation: Literal["relu"] | None = None,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(num_features, eps, affine, dtype, ("weight", "bias"))
        self.momentum, self.axis, self.activation = momentum, axis, activation
        self.running_mean, self.running_var = np.zeros(num_features, dtype), np.ones(num_features, dtype)

    def __repr__(self) -> str:
        return (
            f"BatchNorm({self.running_mean.size}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"axis={self.axis}, activation={self.activation!r}, dtype=np.{self.running_mean.dtype})"
        )

    def forward(self, x: Any) -> np.ndarray:
        return self._normalise(
            batch_norm,
            x,
            self.running_mean,
            self.running_var,
            how={"training": self.training},
            momentum=self.momentum,
            axis=self.axis,
            activation=self.activation,
        )

    def backward(self, grad: Any) -> np.ndarray:
        bias = self.params.get("bias")
        return self._gradients(batch_norm_backward, grad, bias=bias, axis=self.axis, activation=self.activation)


class LayerNorm(_Norm):
    r"""Layer normalisation over the last axes; see `fastreg.layer_norm`.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        The lengths of the axes.
    eps : float
        Added to the variance.
    affine : bool
        Whether there are a weight and a bias.
    dtype : float32 or float64
        Of the parameters; that of the data it will see.

    Examples
    --------
    >>> import numpy as np
    >>> from fastreg.nn import LayerNorm
    >>> layer = LayerNorm(2, eps=0.0, dtype=np.float64)
    >>> layer.forward(np.array([[1.0, 3.0], [10.0, 30.0]]))
    array([[-1.,  1.],
           [-1.,  1.]])
    """

    def __init__(
        self, normalized_shape: Any, *, eps: float = 1e-5, affine: bool = True, dtype: Any = np.float32
    ) -> None:
        super().__init__(normalized_shape, eps, affine, dtype, ("weight", "bias"))
        self.normalized_shape = normalized_shape

    def __repr__(self) -> str:
        return f"LayerNorm({self.normalized_shape}, eps={self.eps}, affine={self.affine})"

    def forward(self, x: Any) -> np.ndarray:
        return self._normalise(layer_norm, x, self.normalized_shape)

    def backward(self, grad: Any) -> np.ndarray:
        return self._gradients(layer_norm_backward, grad)


class RMSNorm(_Norm):
    r"""Root mean square normalisation over the last axes; see `fastreg.rms_norm`.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        The lengths of the axes.
    eps : float, optional
        Added to the mean square; the machine epsilon of the data's dtype by default.
    affine : bool
        Whether there is a weight.
    dtype : float32 or float64
        Of the weight; that of the data it will see.

    Examples
    --------
    >>> import numpy as np
    >>> from fastreg.nn import RMSNorm
    >>> RMSNorm(2, eps=0.0, dtype=np.float64).forward(np.array([[3.0, -3.0], [5.0, 5.0]]))
    array([[ 1., -1.],
           [ 1.,  1.]])
    """

    def __init__(
        self, normalized_shape: Any, *, eps: float | None = None, affine: bool = True, dtype: Any = np.float32
    ) -> None:
        super().__init__(normalized_shape, eps, affine, dtype, ("weight",))
        self.normalized_shape = normalized_shape

    def __repr__(self) -> str:
        return f"RMSNorm({self.normalized_shape}, eps={self.eps}, affine={self.affine})"

    def forward(self, x: Any) -> np.ndarray:
        return self._normalise(rms_norm, x, self.normalized_shape)

    def backward(self, grad: Any) -> np.ndarray:
        return self._gradients(rms_norm_backward, grad)


class GroupNorm(_Norm):
    r"""Group normalisation; see `fastreg.group_norm`.

    Parameters
    ----------
    num_groups : int
        Into how many groups of neighbours the channels are divided.
    num_channels : int
        The number of channels.
    eps : float
        Added to the variance.
    affine : bool
        Whether there are a weight and a bias.
    dtype : float32 or float64
        Of the parameters; that of the data it will see.

    Examples
    --------
    >>> import numpy as np
    >>> from fastreg.nn import GroupNorm
    >>> GroupNorm(2, 4, eps=0.0, dtype=np.float64).forward(np.array([[1.0, 3.0, 10.0, 30.0]]))
    array([[-1.,  1., -1.,  1.]])
    """

    def __init__(
        self, num_groups: int, num_channels: int, *, eps: float = 1e-5, affine: bool = True, dtype: Any = np.float32
    ) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(
                f"num_groups: got {num_groups}; a divisor of num_channels, which is {num_channels}, is needed"
            )
        super().__init__(num_channels, eps, affine, dtype, ("weight", "bias"))
        self.num_groups, self.num_channels = num_groups, num_channels

    def __repr__(self) -> str:
        return f"GroupNorm({self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine})"

    def forward(self, x: Any) -> np.ndarray:
        return self._normalise(group_norm, x, self.num_groups)

    def backward(self, grad: Any) -> np.ndarray:
        return self._gradients(group_norm_backward, grad)


class InstanceNorm(_Norm):
    r"""Instance normalisation; see `fastreg.instance_norm`.

    Parameters
    ----------
    num_features : int
        The number of channels.
    eps : float
        Added to the variance.
    momentum : float
        The weight of the new value in the running statistics.
    affine : bool
        Whether there are a weight and a bias.
    track_running_stats : bool
        Whether there are running statistics, which normalise after `eval()`; without them the input's always do.
    dtype : float32 or float64
        Of the parameters and running statistics; that of the data it will see.

    Examples
    --------
    >>> import numpy as np
    >>> from fastreg.nn import InstanceNorm
    >>> InstanceNorm(2, eps=0.0, dtype=np.float64).forward(np.array([[[1.0, 3.0], [10.0, 30.0]]]))
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = False,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(num_features, eps, affine, dtype, ("weight", "bias"))
        self.num_features, self.momentum = num_features, momentum
        self.running_mean = self.running_var = None
        if track_running_stats:
            self.buffers = ("running_mean", "running_var")
            self.running_mean, self.running_var = np.zeros(num_features, dtype), np.ones(num_features, dtype)

    def __repr__(self) -> str:
        return (
            f"InstanceNorm({self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.running_mean is not None})"
        )

    def forward(self, x: Any) -> np.ndarray:
        return self._normalise(
            instance_norm,
            x,
            self.running_mean,
            self.running_var,
            how={"use_input_stats": self.training or self.running_mean is None},
            momentum=self.momentum,
        )

    def backward(self, grad: Any) -> np.ndarray:
        return self._gradients(instance_norm_backward, grad)
