"""Optimisers: objects that hold parameters in groups, and the state of their updates.

All arithmetic is in the functions of the same name (`fastreg.sgd_step` and its like); a step is one call into C for
all tensors. Names and defaults are those of ``torch.optim``. Not offered are its ``amsgrad``, ``centered`` and
``maximize`` (pass −grad), and what chooses among its own ways to do it (``foreach``, ``fused``): each is a TypeError.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastreg._optim import Steps, clip_grad_norm_, ftrl_init_z, zeros_like_each

__all__ = ["FTRL", "SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "clip_grad_norm_", "decay_matrices_only"]

# State that there is only once it is needed.
LAZY = "momentum_buffer"


class Optimizer:
    """What every optimiser has. Use a subclass.

    Attributes
    ----------
    param_groups : list of dict
        The groups: their ``"params"`` and options. An option may be changed between steps
        (``optimiser.param_groups[0]["lr"] *= 0.1``); `step` checks it.
    """

    _update = ""  # the function behind the steps
    _state: tuple[str, ...] = ()  # its arrays, in the order in which it takes them

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self.param_groups = _groups(params, defaults)
        arrays = [p for group in self.param_groups for p in group["params"]]
        self._sizes = [len(group["params"]) for group in self.param_groups]
        self._steps = Steps(self._update, arrays)
        for group in self.param_groups:
            self._steps.check(group)
        self._set_state([[None] * len(arrays) if name == LAZY else zeros_like_each(arrays) for name in self._state])

    def _set_state(self, each: list[list[Any]]) -> None:
        """Take over each kind of state: a list with an array for each parameter, or None for what is not there yet."""
        for of, *arrays in zip(self._steps.state, *each, strict=True):
            of[:] = arrays

    def step(self, grads: Sequence[Any], *, skip_nonfinite: bool = False) -> bool:
        """Update all parameters, or none.

        Everything is checked before the first write: an exception leaves every parameter and all state as they were.

        Parameters
        ----------
        grads : list of array_like
            A gradient for each parameter, in its shape, in the order of the groups: one flat list.
        skip_nonfinite : bool
            False: a NaN or infinity in a gradient goes into its own parameter (and state), as the formula says. True:
            if any gradient has one, nothing is changed, no state and no step count either, and the answer is False
            (one more pass over the gradients).

        Returns
        -------
        bool
            True if the step was made.

        Raises
        ------
        TypeError
            `grads` is not a list or tuple, a gradient is not numeric, or a parameter has become read-only.
        ValueError
            A gradient is missing or has another shape than its parameter, or an option of a group has a value that is
            not allowed.
        """
        return self._steps.step(self.param_groups, self._sizes, grads, skip_nonfinite)

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state: ``{"optimizer", "step", "state": {i: {name: array}}, "param_groups"}``.

        Parameters are numbered in the order of the groups; they are not part of the state. A momentum buffer that no
        step has needed yet is None.
        """
        numbers = iter(range(len(self._steps.params)))
        groups = [
            group | {"params": [next(numbers) for _ in range(size)]}
            for group, size in zip(self.param_groups, self._sizes, strict=True)
        ]
        with self._steps.lock:
            state = {
                i: {name: None if x is None else x.copy("K") for name, x in zip(self._state, of, strict=True)}
                for i, of in enumerate(self._steps.state)
            }
            return {"optimizer": type(self).__name__, "step": self._steps.count, "state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave: of the same class, groups, shapes and dtypes; all of it or nothing.

        Raises
        ------
        TypeError, ValueError
            It is not such a state; the message says where. Nothing is changed.
        """
        own = self.state_dict()
        _same_keys(state_dict, own, "state_dict")
        if state_dict["optimizer"] != own["optimizer"]:
            raise ValueError(
                f"state_dict: got the state of {state_dict['optimizer']!r}; that of {own['optimizer']} is needed"
            )
        count = state_dict["step"]
        if type(count) is not int or not 0 <= count < 2**62:
            raise ValueError(f"state_dict['step']: got {count!r}; a whole number of steps is needed")
        groups = state_dict["param_groups"]
        if not isinstance(groups, list) or len(groups) != len(own["param_groups"]):
            raise ValueError(f"state_dict['param_groups']: a list of {len(own['param_groups'])} groups is needed")
        for i, (group, mine) in enumerate(zip(groups, own["param_groups"], strict=True)):
            _same_keys(group, mine, f"state_dict['param_groups'][{i}]")
            if group["params"] != mine["params"]:
                raise ValueError(
                    f"state_dict['param_groups'][{i}]['params']: got {group['params']}; {mine['params']} is needed"
                )
            self._steps.check(group)
        _same_keys(state_dict["state"], own["state"], "state_dict['state']")
        params = self._steps.params
        for i, param in enumerate(params):
            of = state_dict["state"][i]
            _same_keys(of, own["state"][i], f"state_dict['state'][{i}]")
            for name in self._state:
                _check_state(of[name], param, f"state_dict['state'][{i}][{name!r}]", name)
        each = [self._copied([state_dict["state"][i][name] for i in range(len(params))]) for name in self._state]
        with self._steps.lock:
            for group, mine in zip(groups, self.param_groups, strict=True):
                mine.update({key: value for key, value in group.items() if key != "params"})
            self._set_state(each)
            self._steps.count = count

    def _copied(self, given: list[np.ndarray | None]) -> list[np.ndarray | None]:
        """Copies of one kind of state, in the layout of the parameters."""
        places = zeros_like_each(self._steps.params)
        for place, x in zip(places, given, strict=True):
            place[...] = 0 if x is None else x
        return [None if x is None else place for place, x in zip(places, given, strict=True)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file, from which `load` takes it up again (the parameters are not part of it).

        The file is replaced in one piece: whatever happens meanwhile, the old one or the new one is there, whole. It is
        an ``.npz`` archive without pickles and with a checksum.

        Raises
        ------
        OSError
            It cannot be written; a file of that name is as it was.
        """
        _write(path, self.state_dict())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take over the state that `save` wrote, by an optimiser of the same class, groups, shapes and dtypes.

        Raises
        ------
        OSError
            The file cannot be read.
        TypeError, ValueError
            It is not such a file, or was changed since. Nothing of the optimiser is changed.
        """
        self.load_state_dict(_read(path, self._state, self._steps.params))

    def __repr__(self) -> str:
        lines = []
        for group, size in zip(self.param_groups, self._sizes, strict=True):
            options = ", ".join(f"{key}={value!r}" for key, value in group.items() if key != "params")
            lines.append(f"    {size} tensor{'s' if size != 1 else ''}: {options}")
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])


class SGD(Optimizer):
    r"""Stochastic gradient descent: `fastreg.sgd_step` for many tensors.

    As in PyTorch, and other than with buffers of zeros, the first step with momentum takes the gradient as the buffer,
    without dampening.

    Parameters
    ----------
    params : list of ndarray, or of dict
        Parameters, updated in place: writeable, float32 or float64, any shapes and layouts. Or groups of them:
        ``{"params": [...], "lr": 0.1}``, with options that differ from those given here.
    lr, momentum, dampening, weight_decay, nesterov, decoupled, l1
        As in `fastreg.sgd_step`.

    Raises
    ------
    TypeError
        `params` is a bare array, or holds something that cannot be updated in place.
    ValueError
        There are no parameters, two share memory, or an option has a value that is not allowed.

    Examples
    --------
    >>> import numpy as np
    >>> from fastreg.optim import SGD
    >>> w, b = np.ones((2, 2)), np.zeros(2)
    >>> optimiser = SGD([{"params": [w], "weight_decay": 0.1}, {"params": [b]}], lr=0.5, momentum=0.9)
    >>> optimiser.step([np.ones((2, 2)), np.ones(2)])
    True
    >>> w
    array([[0.45, 0.45],
           [0.45, 0.45]])
    """

    _update = "sgd_step"
    _state = (LAZY,)

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        decoupled: bool = False,
        l1: float = 0.0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "decoupled": decoupled,
                "l1": l1,
            },
        )


class Adam(Optimizer):
    r"""Adam: `fastreg.adam_step` for many tensors.

    Parameters
    ----------
    params : list of ndarray, or of dict
        As in `SGD`.
    betas : pair of float
        beta1 and beta2 of `fastreg.adam_step`.
    lr, eps, weight_decay, decoupled, l1
        As there.

    Raises
    ------
    TypeError, ValueError
        As in `SGD`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastreg.optim import Adam
    >>> w = np.array([1.0, -1.0])
    >>> Adam([w], lr=0.1).step([np.array([0.5, -2.0])])
    True
    >>> w.round(6)
    array([ 0.9, -0.9])
    """

    _update = "adam_step"
    _state = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decoupled: bool = False,
        l1: float = 0.0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "decoupled": decoupled,
                "l1": l1,
            },
        )


class AdamW(Adam):
    r"""AdamW: `Adam` with decoupled weight decay, 0.01 if nothing else is said.

    The weights shrink by lr·weight_decay, as in PyTorch; with the paper's λ that is weight_decay = λ/alpha, where
    lr = η_t·alpha.

    Parameters
    ----------
    params : list of ndarray, or of dict
        As in `SGD`.
    lr, betas, eps, weight_decay, decoupled, l1
        As in `Adam`.

    Raises
    ------
    TypeError, ValueError
        As in `SGD`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        decoupled: bool = True,
        l1: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, decoupled=decoupled, l1=l1)


class Adagrad(Optimizer):
    r"""Adagrad: `fastreg.adagrad_step` for many tensors.

    Parameters
    ----------
    params : list of ndarray, or of dict
        As in `SGD`.
    lr_decay : float
        >= 0; step t has the learning rate lr/(1 + (t − 1)·lr_decay).
    initial_accumulator_value : float
        >= 0, what the sums of squares start from.
    lr, weight_decay, eps, l1
        As in `fastreg.adagrad_step`.

    Raises
    ------
    TypeError, ValueError
        As in `SGD`.
    """

    _update = "adagrad_step"
    _state = ("sum_sq",)

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        l1: float = 0.0,
    ) -> None:
        if not initial_accumulator_value >= 0:
            raise ValueError(f"initial_accumulator_value: got {initial_accumulator_value}; a number >= 0 is allowed")
        super().__init__(params, {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps, "l1": l1})
        for (sum_sq,) in self._steps.state:
            sum_sq.fill(initial_accumulator_value)


class RMSprop(Optimizer):
    r"""RMSprop: `fastreg.rmsprop_step` for many tensors.

    Parameters
    ----------
    params : list of ndarray, or of dict
        As in `SGD`.
    lr, alpha, eps, weight_decay, momentum, l1
        As in `fastreg.rmsprop_step`.

    Raises
    ------
    TypeError, ValueError
        As in `SGD`.
    """

    _update = "rmsprop_step"
    _state = ("square_avg", LAZY)

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        *,
        l1: float = 0.0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "l1": l1,
            },
        )


class FTRL(Optimizer):
    r"""FTRL-Proximal: `fastreg.ftrl_step` for many tensors.

    The parameters start where they are: z is `fastreg.ftrl_init_z` of them.

    Parameters
    ----------
    params : list of ndarray, or of dict
        As in `SGD`.
    alpha, beta, l1, l2
        As in `fastreg.ftrl_step`; alpha is the learning rate.

    Raises
    ------
    TypeError, ValueError
        As in `SGD`.
    """

    _update = "ftrl_step"
    _state = ("z", "n")

    def __init__(self, params: Any, alpha: float = 0.1, beta: float = 1.0, l1: float = 0.0, l2: float = 0.0) -> None:
        super().__init__(params, {"alpha": alpha, "beta": beta, "l1": l1, "l2": l2})
        state = iter(self._steps.state)
        for group in self.param_groups:
            options = {key: value for key, value in group.items() if key != "params"}
            for param in group["params"]:
                ftrl_init_z(param, out=next(state)[0], **options)


# ---- groups ------------------------------------------------------------------------------------------------------


def decay_matrices_only(params: Any, weight_decay: float) -> list[dict[str, Any]]:
    """The usual two groups: arrays of two dimensions and more are decayed, biases and the scales of norms are not.

    Parameters
    ----------
    params : list of ndarray
        In any order. It is kept within each group, but not over both: gradients go in the order of the groups, and the
        same function puts a list of them into it, since they have the shapes of their parameters (see the example).
    weight_decay : float
        Of the first group; that of the second is 0.

    Returns
    -------
    list of dict
        ``[{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]``

    Raises
    ------
    TypeError
        `params` is a bare array, or no list of arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from fastreg.optim import SGD, decay_matrices_only
    >>> bias, weight = np.ones(2), np.ones((2, 2))
    >>> optimiser = SGD(decay_matrices_only([bias, weight], 0.5), lr=1.0)
    >>> grads = [np.zeros(2), np.zeros((2, 2))]
    >>> optimiser.step([g for group in decay_matrices_only(grads, 0.5) for g in group["params"]])
    True
    >>> bias, weight[0]
    (array([1., 1.]), array([0.5, 0.5]))
    """
    arrays = _listed(params, "params")
    return [
        {"params": [p for p in arrays if np.ndim(p) >= 2], "weight_decay": weight_decay},
        {"params": [p for p in arrays if np.ndim(p) < 2], "weight_decay": 0.0},
    ]


def _listed(given: Any, name: str) -> list[Any]:
    if isinstance(given, (np.ndarray, dict, str, bytes)) or hasattr(given, "__array__"):
        raise TypeError(f"{name}: got {type(given).__name__}; a list of arrays is needed, be it of one")
    try:
        return list(given)
    except TypeError:
        raise TypeError(f"{name}: got {type(given).__name__}; a list of arrays is needed") from None


def _groups(params: Any, defaults: dict[str, Any]) -> list[dict[str, Any]]:
    given = [params] if isinstance(params, dict) and "params" in params else _listed(params, "params")
    if not any(isinstance(entry, dict) for entry in given):
        given = [{"params": given}]
    groups = []
    for i, group in enumerate(given):
        name = f"params[{i}]"
        if not isinstance(group, dict):
            raise TypeError(f"{name}: got {type(group).__name__} beside groups; all entries must be groups, or none")
        if "params" not in group:
            raise ValueError(f"{name}: got a group without 'params'")
        unknown = group.keys() - defaults.keys() - {"params"}
        if unknown:
            raise ValueError(f"{name}: got the options {sorted(unknown)}; {sorted(defaults)} are allowed")
        groups.append(
            {"params": _listed(group["params"], f"{name}['params']")}
            | {k: group.get(k, v) for k, v in defaults.items()}
        )
    if not any(group["params"] for group in groups):
        raise ValueError("params: got no parameter; at least one is needed")
    return groups


# ---- state -------------------------------------------------------------------------------------------------------


def _same_keys(given: Any, own: dict[Any, Any], name: str) -> None:
    if not isinstance(given, dict):
        raise TypeError(f"{name}: got {type(given).__name__}; a dict is needed")
    if given.keys() != own.keys():
        raise ValueError(f"{name}: got the keys {list(given)}; {list(own)} are needed")


def _check_state(x: Any, param: np.ndarray, where: str, name: str) -> None:
    """Raise unless x is an array of the dtype and shape of its parameter, or None where there may be none yet."""
    if x is None and name == LAZY:
        return
    if not isinstance(x, np.ndarray) or x.dtype != param.dtype:
        came = f"dtype {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(f"{where}: got {came}; an array of {param.dtype} is needed")
    if x.shape != param.shape:
        raise ValueError(f"{where}: got shape {x.shape}; {param.shape} is needed")


# ---- checkpoints -------------------------------------------------------------------------------------------------
#
# An .npz archive: "meta" (JSON in bytes: what is no array), an array "i.name" for each of the state, and "sha256", the
# checksum over all of them.

FORMAT = "fastreg.optim 1"
META_LIMIT = 1 << 24  # bytes; a group takes some hundred


def _checksum(meta: bytes, arrays: dict[str, np.ndarray]) -> bytes:
    import hashlib

    digest = hashlib.sha256(meta)
    for name, x in sorted(arrays.items()):
        digest.update(f"\0{name} {x.dtype.str} {x.shape}\0".encode())
        digest.update(np.ascontiguousarray(x).data)
    return digest.digest()


def _plain(value: Any) -> Any:
    """For JSON: numbers of NumPy are no floats there."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"an option of type {type(value).__name__} cannot be saved")


def _write(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    import json

    arrays = {f"{i}.{name}": x for i, of in state["state"].items() for name, x in of.items() if x is not None}
    meta = json.dumps({"format": FORMAT} | {k: v for k, v in state.items() if k != "state"}, default=_plain).encode()
    checksum = _checksum(meta, arrays)
    # Where the path is a link, the file it leads to is replaced.
    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.urandom(8).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            np.savez(
                file,
                allow_pickle=False,
                meta=np.frombuffer(meta, np.uint8),
                sha256=np.frombuffer(checksum, np.uint8),
                **arrays,
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    if os.name == "posix":  # the new name is on the disk when its folder is
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _read(path: str | os.PathLike[str], names: tuple[str, ...], params: list[np.ndarray]) -> dict[str, Any]:
    """What `_write` wrote for such a state, and nothing else: no size is taken on trust before memory is."""
    wanted: dict[str, tuple[np.dtype[Any], tuple[int, ...] | None]] = {
        f"{i}.{name}": (p.dtype, p.shape) for i, p in enumerate(params) for name in names
    }
    wanted |= {"meta": (np.dtype(np.uint8), None), "sha256": (np.dtype(np.uint8), (32,))}
    # An archive repeats each name twice, and a header and a directory entry take a few hundred bytes.
    limit = META_LIMIT + 4096 * len(wanted) + sum(p.nbytes for p in params) * len(names)
    with open(path, "rb") as file:
        content = file.read(limit + 1)
    try:
        return _parsed(content, limit, wanted)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{os.fspath(path)}: not a checkpoint of such an optimiser: {error}") from error


def _parsed(content: bytes, limit: int, wanted: dict[str, Any]) -> dict[str, Any]:
    import io
    import json
    import zipfile

    if len(content) > limit:
        raise ValueError("it is larger than the state")
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if name not in wanted or name in arrays or entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"it has an entry {entry.filename!r}")
            # This checks the entry's own checksum, too.
            data = io.BytesIO(archive.read(entry))
            version = np.lib.format.read_magic(data)
            if version != (1, 0):
                raise ValueError(f"{name} is written in version {version} of its format")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(data)
            body = data.getbuffer()[data.tell() :]
            if dtype != wanted[name][0] or (shape != wanted[name][1] if name != "meta" else len(shape) != 1):
                raise ValueError(f"{name} is {dtype} of shape {shape}")
            if len(body) != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
                raise ValueError(f"{name} is cut off")
            arrays[name] = np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")
    for name in wanted:
        if name not in arrays and not name.endswith(f".{LAZY}"):
            raise ValueError(f"it has no {name}")
    meta, checksum = arrays.pop("meta").tobytes(), arrays.pop("sha256").tobytes()
    if checksum != _checksum(meta, arrays):
        raise ValueError("its checksum is not that of its content")
    state = json.loads(meta)
    if state.pop("format") != FORMAT:
        raise ValueError("its format is another")
    of: dict[int, dict[str, Any]] = {}
    for name in wanted:
        if "." in name:
            i, _, key = name.partition(".")
            of.setdefault(int(i), {})[key] = arrays.get(name)
    for group in state["param_groups"]:
        if "betas" in group:
            group["betas"] = tuple(group["betas"])
    return state | {"state": of}
