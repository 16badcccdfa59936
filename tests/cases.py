"""One Case per function (or per way to use it): what the laws, the benchmarks and the house's linter run over.

A Case says how to make the arguments; everything else (dtypes, instruction sets, threads, layouts, overlap, bad
calls) is the laws' business, by construction. To add one, append to CASES in its family's section.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

Inputs = dict[str, np.ndarray]

# Every length up to two vectors of lanes and one more (32 f32 lanes), and a few with more axes.
ELEMENTWISE = (*((n,) for n in range(2 * 32 + 2)), (), (3, 7), (2, 3, 5), (4, 0, 2), (1, 1))
# More than three blocks of 8 × 2048 elements, with a ragged end.
LARGE = (3 * 16384 + 1234,)


@dataclass(frozen=True)
class Case:
    """A function and how to call it: ``function(**inputs(rng, shape, dtype), **options)``.

    inputs: makes the array arguments, all of them, by name. Laws re-lay them out, byte-swap them, make them
        read-only; values within them are ordinary (the laws put NaN, ±inf, −0.0 and subnormals in).
    inplace: the inputs that the call updates.
    out: the function has ``out=`` for its (first) result.
    elementwise: element i of every result depends on element i of the inputs alone (and on i).
    ulps: the largest distance to the reference, in units in the last place of the largest element of that result
        (of each element where `elementwise`), by dtype, from the error analysis that `why` states in a line.
    cancels: terms may cancel, so that even where `elementwise` the ulps are those of the largest element of result and
        inputs, or of 1.
    shapes, large: the shapes for the laws; `large` must need several blocks of the pool.
    traffic: arrays read and written per element, for the benchmark's limit; None: no benchmark row.
    wide: results are float64 whatever the dtype of the inputs.
    label: tells Cases of one function apart.
    """

    function: str
    inputs: Callable[[np.random.Generator, tuple[int, ...], type], Inputs]
    options: Mapping[str, Any] = field(default_factory=dict)
    inplace: tuple[str, ...] = ()
    out: bool = False
    elementwise: bool = True
    ulps: Mapping[type, float] = field(default_factory=lambda: {np.float32: 1, np.float64: 1})
    why: str = ""
    cancels: bool = False
    shapes: tuple[tuple[int, ...], ...] = ELEMENTWISE
    large: tuple[int, ...] = LARGE
    traffic: tuple[int, int] | None = None
    label: str = ""
    wide: bool = False

    @property
    def id(self) -> str:
        return f"{self.function}-{self.label}" if self.label else self.function

    def call(self, module: ModuleType, inputs: Inputs, **more: Any) -> list[np.ndarray]:
        """All that the call gives: its results in order, then the arrays that it updated."""
        returned = getattr(module, self.function)(**inputs, **self.options, **more)
        results = returned if isinstance(returned, tuple) else (returned,)
        return [np.asarray(r) for r in results if r is not None] + [inputs[name] for name in self.inplace]

    def make(self, shape: tuple[int, ...], dtype: type, seed: int = 0) -> Inputs:
        return self.inputs(np.random.default_rng([seed, *shape]), shape, dtype)


def normal(*names: str) -> Callable[[np.random.Generator, tuple[int, ...], type], Inputs]:
    """Standard normal arrays of the shape, under these names."""

    def inputs(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> Inputs:
        return {name: np.asarray(rng.standard_normal(shape), dtype) for name in names}

    return inputs


# ---- prox --------------------------------------------------------------------------------------------------------


def per_feature(rng, shape, dtype):
    features = shape[-1:]  # one threshold for each index of the last axis
    return normal("x")(rng, shape, dtype) | {"lam": np.asarray(rng.random(features), dtype)}


def renamed(inputs, **names: str):
    """The same arrays under other names."""
    return lambda *like: {names.get(name, name): x for name, x in inputs(*like).items()}


def prox(function: str, ulps: float, why: str, label: str = "", inputs=None, **options: Any) -> Case:
    return Case(
        function,
        inputs or normal("x"),
        options,
        out=True,
        elementwise=inputs is None,
        ulps={np.float32: ulps, np.float64: ulps},
        why=why,
        traffic=None if inputs else (1, 1),
        label=label,
    )


def box(rng, shape, dtype):
    bounds = normal("lower", "upper")(rng, shape[-1:], dtype)
    low, high = np.minimum(*bounds.values()), np.maximum(*bounds.values())
    return normal("x")(rng, shape, dtype) | {"lower": low, "upper": high}


def labelled(rng, shape, dtype):
    """A label in no order for each element, of some eight elements each."""
    return normal("x")(rng, shape, dtype) | {"groups": rng.integers(-5, shape[0] // 8 + 1, shape)}


def few_labels(rng, shape, dtype):
    return normal("x")(rng, shape, dtype) | {"groups": rng.integers(-2, 5, shape)}


VECTORS = tuple(shape for shape in ELEMENTWISE if len(shape) == 1)
NOT_EMPTY = tuple(shape for shape in ELEMENTWISE if 0 not in shape)
MATRICES = ((2, 3, 5), (1, 1), (4, 0), (0, 4), (5, 130), (130, 5), (33, 17))
ROWS = (150, 337)
SORTED = "a rounding or two, and the reference's sum of the few largest elements"


def coupled(
    function: str, ulps: float, why: str, label: str = "", inputs=None, shapes=ELEMENTWISE, large=LARGE, **options
):
    """Operators that take the array, or its groups, as a vector."""
    return Case(
        function,
        inputs or normal("x"),
        options,
        out=True,
        elementwise=False,
        cancels=True,
        ulps={np.float32: min(ulps, 4), np.float64: ulps},
        why=why,
        shapes=shapes,
        large=large,
        label=label,
    )


PROX = [
    prox("soft_threshold", 1, "one subtraction", lam=0.5),
    prox("soft_threshold", 1, "one subtraction", "each", per_feature),
    prox("hard_threshold", 0, "x or 0", lam=0.5),
    prox("hard_threshold", 0, "x or 0", "each", per_feature),
    prox("prox_l1", 1, "one subtraction of a threshold that the reference rounds too", lam=0.7, step=0.3),
    prox("prox_l1", 1, "one subtraction of a threshold that the reference rounds too", "each", per_feature, step=0.3),
    prox("prox_l0", 0, "x or 0", lam=0.7, step=0.3),
    prox("prox_l0", 0, "x or 0", "each", per_feature, step=0.3),
    prox("prox_sq_l2", 3, "three roundings, two of the reference", lam=0.7, step=0.3),
    prox("prox_sq_l2", 3, "three roundings, two of the reference", "each", per_feature, step=0.3),
    prox("prox_elastic_net", 4, "soft_threshold and prox_sq_l2", l1=0.7, l2=0.4, step=0.3),
    prox("prox_elastic_net", 4, "soft_threshold and prox_sq_l2", "l1 each", renamed(per_feature, lam="l1"), l2=0.4),
    prox("prox_elastic_net", 4, "soft_threshold and prox_sq_l2", "l2 each", renamed(per_feature, lam="l2"), l1=0.4),
    prox("prox_mcp", 5, "three roundings, and as many of the slope, in either", lam=0.7, gamma=2.5, step=0.8),
    prox("prox_mcp", 5, "three roundings, and as many of the slope, in either", "each", per_feature),
    prox("prox_scad", 6, "prox_mcp and an addition of one sign", lam=0.5, gamma=3.0, step=0.8),
    prox("prox_scad", 6, "prox_mcp and an addition of one sign", "each", per_feature),
    prox("project_box", 0, "x or a bound", lower=-0.3, upper=0.8),
    prox("project_box", 0, "x or a bound", "each", box),
    prox("project_linf_ball", 0, "x or ±radius", radius=0.5),
    coupled("prox_l2", 2, "the factor's rounding and the product's", lam=3.0, step=0.4),
    coupled("project_l2_ball", 2, "the factor's rounding and the product's", radius=2.0),
    coupled("project_simplex", 16, SORTED, shapes=NOT_EMPTY, total=2.0),
    coupled("project_l1_ball", 16, SORTED, radius=2.0),
    coupled("project_l1_ball", 0, "x itself", "inside", radius=1e6),
    coupled("prox_linf", 16, SORTED, lam=4.0, step=0.5),
    coupled("prox_group_lasso", 2, "the factor's rounding and the product's", lam=0.9),
    coupled("prox_group_lasso", 2, "as for one group", "rows", shapes=MATRICES, large=ROWS, lam=1.5, axis=-1),
    coupled("prox_group_lasso", 2, "as for one group", "columns", shapes=MATRICES, large=ROWS, lam=1.5, axis=0),
    coupled("prox_group_lasso", 2, "as for one group", "labels", labelled, shapes=VECTORS, lam=1.5),
    coupled("prox_sparse_group_lasso", 3, "and the soft threshold's", l1=0.3, lam=0.9),
    coupled("prox_sparse_group_lasso", 3, "likewise", "rows", shapes=MATRICES, large=ROWS, l1=0.3, lam=1.5, axis=-1),
    coupled("prox_sparse_group_lasso", 3, "likewise", "columns", shapes=MATRICES, large=ROWS, l1=0.3, lam=1.5, axis=1),
    coupled("prox_sparse_group_lasso", 3, "likewise", "labels", labelled, shapes=VECTORS, l1=0.3, lam=1.5),
    coupled(
        "prox_group_lasso", 2, "as for one group", "short rows", shapes=MATRICES, large=(9000, 6), lam=1.5, axis=-1
    ),
    coupled("prox_group_lasso", 2, "as for one group", "few labels", few_labels, shapes=VECTORS, lam=1.5),
    coupled(
        "prox_sparse_group_lasso",
        3,
        "likewise",
        "rows of 40",
        shapes=((3, 40), (70, 40)),
        large=(1500, 40),
        l1=0.3,
        lam=4.0,
        axis=-1,
    ),
    coupled("prox_tv1d", 256, "the reference's cumulative sums reach 200", shapes=VECTORS, lam=30.0),
    coupled("prox_tv1d", 256, "the reference's sums", "steps", shapes=VECTORS, large=(4000,), lam=0.4),
    coupled("prox_nuclear", 1024, "σ₁²/t, squared in a Gram matrix", shapes=MATRICES[1:], large=(60, 40), lam=2.0),
]

# ---- optim -------------------------------------------------------------------------------------------------------


def sgd(label: str = "", **options: Any) -> Case:
    return Case(
        "sgd_step",
        normal("param", "grad", "momentum_buffer") if "momentum" in options else normal("param", "grad"),
        {"lr": 0.1} | options,
        inplace=("param", "momentum_buffer") if "momentum" in options else ("param",),
        cancels=True,
        ulps={np.float32: 4, np.float64: 4},
        why="at most seven roundings, of half a unit each, of terms no larger than the largest element",
        traffic=(3, 2) if "momentum" in options else (2, 1),
        label=label,
    )


def positive(*names: str) -> Callable[[np.random.Generator, tuple[int, ...], type], Inputs]:
    def inputs(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> Inputs:
        return {name: np.asarray(rng.uniform(0.1, 2, shape), dtype) for name in names}

    return inputs


def moments(function: str, *state: str, label: str = "", **options: Any) -> Case:
    """An update whose state is a signed average, a sum of squares, or both."""
    squares = [name for name in state if "sq" in name or name == "n"]
    signed = [name for name in state if name not in squares]

    def inputs(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> Inputs:
        drawn = normal("param", "grad", *signed)(rng, shape, dtype) | positive(*squares)(rng, shape, dtype)
        return {name: drawn[name] for name in ("param", "grad", *state)}

    return Case(
        function,
        inputs,
        options,
        inplace=("param", *state),
        cancels=True,
        ulps={np.float32: 16, np.float64: 16} if function == "ftrl_step" else {np.float32: 8, np.float64: 8},
        why="some ten roundings of terms no larger than the largest element; those of ftrl's roots times 1/alpha",
        traffic=(2 + len(state), 1 + len(state)),
        label=label,
    )


def few_of_many(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> Inputs:
    """Half as many coordinates as there are, some of them twice and more."""
    model = moments("ftrl_step", "z", "n").inputs(rng, shape, dtype)
    indices = rng.integers(0, shape[0], (shape[0] + 1) // 2)
    grad = np.asarray(rng.standard_normal(indices.shape), dtype)
    return {"param": model["param"], "indices": indices, "grad": grad, "z": model["z"], "n": model["n"]}


OPTIM = [
    sgd(momentum=0.9, weight_decay=0.01),
    sgd("plain"),
    sgd("nesterov", momentum=0.9, nesterov=True, weight_decay=0.01, l1=0.5),
    sgd("decoupled", momentum=0.9, dampening=0.5, weight_decay=0.5, decoupled=True),
    sgd("l1", l1=1.0),
    moments("adam_step", "exp_avg", "exp_avg_sq", step=3, lr=0.01, weight_decay=0.1),
    moments("adam_step", "exp_avg", "exp_avg_sq", step=1, weight_decay=0.1, decoupled=True, l1=0.5, label="adamw"),
    moments("adagrad_step", "sum_sq", weight_decay=0.1),
    moments("adagrad_step", "sum_sq", l1=1.0, label="l1"),
    moments("rmsprop_step", "square_avg", weight_decay=0.1, l1=0.5),
    moments("rmsprop_step", "square_avg", "momentum_buffer", momentum=0.9, label="momentum"),
    moments("ftrl_step", "z", "n", l1=0.5, l2=0.1),
    Case(
        "ftrl_step_sparse",
        few_of_many,
        {"l1": 0.5, "l2": 0.1},
        inplace=("param", "z", "n"),
        elementwise=False,
        cancels=True,
        ulps={np.float32: 16, np.float64: 16},
        why="as ftrl_step; the sum of gradients of one coordinate is in double",
        shapes=((1,), (2,), (65,), (3000,)),
        large=(40000,),
    ),
    Case(
        "ftrl_init_z",
        lambda rng, shape, dtype: positive("n")(rng, shape, dtype) | normal("param")(rng, shape, dtype),
        {"l1": 0.5, "l2": 0.1},
        out=True,
        ulps={np.float32: 5, np.float64: 5},
        why="terms of one sign: six roundings, of half a unit and less, one of them under a root",
        traffic=(2, 1),
    ),
]

# ---- dropout -----------------------------------------------------------------------------------------------------


def linear(rng, shape, dtype):
    """(samples, inputs, units) of a linear layer."""
    n, inputs, units = shape
    return {
        "x": np.asarray(rng.standard_normal((n, inputs)), dtype),
        "weight": np.asarray(rng.standard_normal((units, inputs)), dtype),
        "bias": np.asarray(rng.standard_normal(units), dtype),
    }


def linear_backward(rng, shape, dtype):
    given = linear(rng, shape, dtype)
    grad = np.asarray(rng.standard_normal((shape[0], shape[2])), dtype)
    return {"grad": grad, "x": given["x"], "weight": given["weight"]}


LINEAR = ((3, 5, 7), (1, 1, 1), (0, 3, 2), (3, 5, 0), (6, 2, 4))
# BLAS adds k products in an order of its own: k ulp of Σ|a·b|, of which the largest result of the shapes here is at
# least a quarter; k is at most 64.
PRODUCTS = {np.float32: 256, np.float64: 256}

DROPOUT = [
    Case("dropout", normal("x"), {"p": 0.5, "seed": 1}, out=True, traffic=(1, 1), label="fair", why="one product"),
    Case(
        "dropout",
        normal("x"),
        {"p": 0.1, "seed": 2**64 - 1, "offset": 2**32, "start": 77},
        out=True,
        traffic=(1, 1),
        label="p",
        why="one product",
    ),
    Case(
        "dropout",
        normal("x"),
        {"p": 0.3, "seed": 3, "mode": "vanilla", "training": False},
        out=True,
        label="vanilla-inference",
        why="one product",
    ),
    Case("dropout_backward", normal("grad"), {"p": 0.1, "seed": 1}, out=True, traffic=(1, 1), why="one product"),
    Case(
        "dropout",
        normal("x"),
        {"p": 0.4, "seed": 5, "axis": (0, 2)},
        out=True,
        label="shared",
        why="one product",
        shapes=((3, 7, 5), (2, 1, 33), (4, 0, 2), (2, 3, 4, 5), (1, 9, 1, 3)),
        large=(7, 2345, 3),
        elementwise=False,
    ),
    Case(
        "dropconnect",
        linear,
        {"p": 0.4, "seed": 5},
        elementwise=False,
        ulps=PRODUCTS,
        why="k products",
        shapes=LINEAR,
        large=(5, 64, 1000),
    ),
    Case(
        "dropconnect_backward",
        linear_backward,
        {"p": 0.4, "seed": 5},
        elementwise=False,
        ulps=PRODUCTS | {np.float32: 4000, np.float64: 4000},
        why="up to 1000 products",
        shapes=LINEAR,
        large=(5, 64, 1000),
    ),
]

# ---- norm --------------------------------------------------------------------------------------------------------


def normalised(*names: str, axis: int = 1, running: bool = False, statistics: bool = False):
    """Data whose mean is not near 0 (its error would be of no size otherwise), and a value each for every channel."""

    def inputs(rng, shape, dtype):
        channels = shape[axis]
        arrays = {"x": np.asarray(rng.standard_normal(shape) + 3, dtype)}
        if "grad" in names:
            arrays = {"grad": np.asarray(rng.standard_normal(shape), dtype)} | arrays
        if statistics:
            others = tuple(d for d in range(len(shape)) if d != axis % len(shape))
            wide = arrays["x"].astype(np.float64)
            arrays["mean"] = wide.mean(others).astype(dtype)
            arrays["rstd"] = (1 / np.sqrt(wide.var(others) + 1e-5)).astype(dtype)
        if running:
            arrays["running_mean"] = np.asarray(rng.standard_normal(channels), dtype)
            arrays["running_var"] = np.asarray(rng.random(channels) + 0.5, dtype)
        for name in ("weight", "bias"):
            if name in names:
                arrays[name] = np.asarray(rng.standard_normal(channels) + 0.5, dtype)
        return arrays

    return inputs


def batch_norms(label: str, inputs, ulps: float = 3, **more: Any) -> Case:
    """In f64 the reference's own sums, one term after the other, are what differs; test_norm.py has the exact ones."""
    function = "batch_norm_backward" if "backward" in label else "batch_norm"
    options = {
        "out": function == "batch_norm",
        "elementwise": False,
        "ulps": {np.float32: ulps, np.float64: 64},
        "shapes": ((9, 1), (9, 5), (300, 3), (10, 600), (8, 3, 5), (8, 2, 3, 6), (4, 5, 16), (3, 4, 70), (4, 3, 7)),
        "large": (40, 24, 50),
    }
    return Case(function, inputs, label=label.removeprefix("backward-"), **(options | more))


STEPS = "two differences, a rounded scale, its product, a shift: five roundings of half a unit that seldom agree"
WHOLE = {"training": True, "return_stats": True}
TRAINED = {"inplace": ("running_mean", "running_var"), "why": STEPS}
NORM = [
    batch_norms("training", normalised("x", "weight", "bias", running=True), options=WHOLE, traffic=(1, 1), **TRAINED),
    batch_norms(
        "channels-last",
        normalised("x", "weight", "bias", running=True, axis=-1),
        options=WHOLE | {"axis": -1, "activation": "relu", "momentum": 0.4},
        large=(25, 40, 70),
        **TRAINED,
    ),
    batch_norms("plain", normalised("x"), options={"training": True}, large=(1100, 50), why=STEPS),
    batch_norms(
        "inference",
        normalised("x", "weight", "bias", running=True),
        options={"activation": "relu"},
        traffic=(1, 1),
        why=STEPS,
    ),
    batch_norms(
        "backward-training",
        normalised("grad", "x", "weight", "bias", statistics=True),
        options={"activation": "relu"},
        ulps=6,
        traffic=(2, 1),
        why="the reference does not find again what rounding took from the mean: half a unit of 3, in x̂",
    ),
    batch_norms(
        "backward-columns",
        normalised("grad", "x", statistics=True, axis=-1),
        options={"axis": -1},
        ulps=6,
        large=(1100, 50),
        why="as above",
    ),
    batch_norms(
        "backward-inference",
        normalised("grad", "x", "weight", statistics=True),
        options={"training": False},
        ulps=4,
        why="a sum",
    ),
]


EACH = -1  # channel is a group


def per_slice(*names: str, axes: int = 1, groups: int = 0, rms: bool = False):
    """Data, parameters of elements or (with groups) of channels, and the statistics of the forward pass."""

    def inputs(rng, shape, dtype):
        arrays = {"x": np.asarray(rng.standard_normal(shape) + 3, dtype)}
        if "grad" in names:
            arrays = {"grad": np.asarray(rng.standard_normal(shape), dtype)} | arrays
        wide = arrays["x"].astype(np.float64)
        if groups:
            wide = wide.reshape(shape[0], shape[1] if groups == EACH else groups, -1)
        over = tuple(range(wide.ndim - (1 if groups else axes), wide.ndim))
        if "mean" in names:
            arrays["mean"] = wide.mean(over).astype(dtype)
        if "rstd" in names:
            square = (wide * wide).mean(over) if rms else wide.var(over)
            arrays["rstd"] = (1 / np.sqrt(square + 1e-5)).astype(dtype)
        for name in [n for n in ("weight", "bias") if n in names]:
            own = shape[1:2] if groups else shape[len(shape) - axes :]
            arrays[name] = np.asarray(rng.standard_normal(own) + 0.5, dtype)
        if "running" in names:
            arrays["running_mean"] = np.asarray(rng.standard_normal(shape[1]), dtype)
            arrays["running_var"] = np.asarray(rng.random(shape[1]) + 0.5, dtype)
        return {name: np.asarray(array) for name, array in sorted(arrays.items(), key=lambda item: item[0] != "grad")}

    return inputs


def slice_norms(function: str, label: str, inputs, shapes, large, ulps: float = 3, **more: Any) -> Case:
    backward = function.endswith("_backward")
    options = {
        "out": not backward,
        "elementwise": False,
        "ulps": {np.float32: 2 * ulps if backward else ulps, np.float64: 64},
        "why": STEPS + ("; the reference does not find again what rounding took from the mean" if backward else ""),
        "options": {},
    }
    return Case(function, inputs, label=label, shapes=shapes, large=large, **(options | more))


ROWS, WIDE, PLANES = ((9, 48), (2, 3, 48), (1, 48), (5, 1, 48)), ((2, 20000), (1, 20000)), ((3, 6, 40), (2, 2, 6, 40))
IMAGES = ((4, 6), (2, 6, 4), (2, 3, 5), (2, 6, 4, 5), (3, 6, 70), (2, 3, 9000))
SIGNALS = ((4, 6, 5), (2, 6, 4, 5), (3, 2, 70), (1, 2, 9000))
STATS = {"return_stats": True}
NORM += [
    Case(
        "batch_norm_stats",
        normalised("x"),
        elementwise=False,
        wide=True,
        ulps={np.float32: 8, np.float64: 64},
        why="f64 results of f32 sums of four, an n-th root of whose error is left; the reference's own sums",
        shapes=NORM[0].shapes,
        large=(1100, 50),
    ),
    Case(
        "fold_batch_norm",
        lambda rng, shape, dtype: {
            "weight": np.asarray(rng.standard_normal(shape), dtype),
            **{n: np.asarray(rng.random(shape[0]) + 0.5, dtype) for n in ("bias", "mean", "var", "gamma", "beta")},
        },
        elementwise=False,
        why="rounded once, and the same operations in f64",
        ulps={np.float32: 1, np.float64: 4},
        shapes=((3, 5), (4,), (2, 3, 3, 3)),
        large=(300, 400),
    ),
    slice_norms(
        "layer_norm",
        "",
        per_slice("x", "weight", "bias"),
        ROWS,
        (1300, 48),
        traffic=(1, 1),
        options=STATS | {"normalized_shape": 48},
    ),
    slice_norms("layer_norm", "wide", per_slice("x", "weight"), WIDE, (5, 20000), options={"normalized_shape": 20000}),
    slice_norms(
        "layer_norm",
        "planes",
        per_slice("x", axes=2),
        PLANES,
        (300, 6, 40),
        options={"normalized_shape": (6, 40), "eps": 0.5},
    ),
    slice_norms(
        "layer_norm_backward", "", per_slice("grad", "x", "mean", "rstd", "weight"), ROWS, (1300, 48), traffic=(2, 1)
    ),
    slice_norms(
        "layer_norm_backward",
        "odd",  # rows that begin anywhere in a vector
        per_slice("grad", "x", "mean", "rstd", "weight"),
        ((9, 1037), (2, 3, 1037)),
        (160, 1037),
    ),
    slice_norms("layer_norm_backward", "wide", per_slice("grad", "x", "mean", "rstd"), WIDE, (130, 20000)),
    slice_norms(
        "layer_norm_backward",
        "planes",
        per_slice("grad", "x", "mean", "rstd", "weight", axes=2),
        ((3, 6, 40), (2, 6, 40)),
        (300, 6, 40),
    ),
    slice_norms(
        "rms_norm",
        "",
        per_slice("x", "weight"),
        ROWS,
        (1300, 48),
        traffic=(1, 1),
        options=STATS | {"normalized_shape": 48},
    ),
    slice_norms(
        "rms_norm_backward", "", per_slice("grad", "x", "rstd", "weight", rms=True), ROWS, (1300, 48), traffic=(2, 1)
    ),
    slice_norms(
        "group_norm",
        "",
        per_slice("x", "weight", "bias", groups=3),
        IMAGES,
        (9, 12, 500),
        traffic=(1, 1),
        options=STATS | {"num_groups": 3},
    ),
    slice_norms(
        "group_norm_backward",
        "",
        per_slice("grad", "x", "mean", "rstd", "weight", groups=3),
        IMAGES,
        (70, 12, 100),
        traffic=(2, 1),
    ),
    slice_norms(
        "group_norm_backward",
        "plain",
        per_slice("grad", "x", "mean", "rstd", groups=2),
        ((4, 6), (2, 4, 5), (2, 6, 4, 5)),
        (150, 12, 40),
    ),
    slice_norms(
        "instance_norm",
        "",
        per_slice("x", "weight", "bias", "running", groups=1),
        SIGNALS,
        (9, 12, 500),
        options=STATS,
        inplace=("running_mean", "running_var"),
        traffic=(1, 1),
    ),
    slice_norms(
        "instance_norm",
        "inference",
        per_slice("x", "weight", "running", groups=1),
        SIGNALS,
        (9, 12, 500),
        options=STATS | {"use_input_stats": False},
    ),
    slice_norms(
        "instance_norm_backward",
        "",
        per_slice("grad", "x", "mean", "rstd", "weight", groups=EACH),
        SIGNALS,
        (70, 2, 700),
        ulps=6,
        traffic=(2, 1),
    ),
    slice_norms(
        "instance_norm_backward",
        "inference",
        per_slice("grad", "x", "mean", "rstd", "weight", groups=EACH),
        SIGNALS,
        (70, 2, 700),
        options={"use_input_stats": False},
    ),
]

# ---- losses ------------------------------------------------------------------------------------------------------


def weighed(*names: str):
    """Standard normal arrays and a weight for each index of the last axis."""

    def inputs(rng, shape, dtype):
        return normal(*names)(rng, shape, dtype) | {"weight": np.asarray(rng.random(shape[-1:]), dtype)}

    return inputs


def losses(function: str, why: str, ulps: float, cancels: bool = False, **options) -> list[Case]:
    """The three ways to use an elementwise loss. Its gradient is a factor or two from its slope."""
    pair, both = normal("input", "target"), {"return_grad": True}
    by_dtype = {np.float32: ulps, np.float64: 2 * ulps}  # the reference rounds in f64 as well
    return [
        Case(
            function, pair, options | both, elementwise=False, ulps=by_dtype, cancels=cancels, traffic=(2, 1), why=why
        ),
        Case(
            function,
            pair,
            options,
            elementwise=False,
            ulps=by_dtype,
            cancels=cancels,
            traffic=(2, 0),
            label="value",
            why=why,
        ),
        Case(
            function,
            pair,
            options | both | {"reduction": "none"},
            out=True,
            ulps=by_dtype,
            cancels=cancels,
            label="each",
            why=why,
        ),
        Case(
            function,
            weighed("input", "target"),
            options | both | {"reduction": "sum"},
            elementwise=False,
            cancels=cancels,
            ulps={np.float32: 64, np.float64: 64},
            label="weighed",
            why=why + ", and a sum of some 10^5 terms over its largest",
        ),
    ]


def ulps(f32: float, f64: float) -> Mapping[type, float]:
    return {np.float32: f32, np.float64: f64}


ROWS, MANY_ROWS = (*((3, n) for n in (1, 2, 15, 16, 17, 33, 65)), (7,), (2, 0), (0, 3), (2, 3, 5)), (300, 171)


def rowwise(function: str, *names: str, why: str, out: bool = True) -> list[Case]:
    """Work along an axis: the last one, and another."""
    more = {"elementwise": False, "ulps": ulps(8, 16), "shapes": ROWS, "large": MANY_ROWS, "out": out, "why": why}
    return [
        Case(function, normal(*names), traffic=(len(names), 1), **more),
        Case(function, normal(*names), {"axis": 0}, label="axis", **more),
    ]


def logits_and_classes(rng, shape, dtype):
    classes = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    return normal("input")(rng, shape, dtype) | {"target": classes, "weight": np.asarray(rng.random(shape[1]), dtype)}


def logits_and_probabilities(rng, shape, dtype):
    return normal("input")(rng, shape, dtype) | {"target": np.asarray(rng.random(shape), dtype)}


LOSSES = [
    *losses("smooth_l1_loss", "d rounds once and enters squared, three products, one difference", 4, beta=0.75),
    *losses("huber_loss", "d rounds once and enters squared, two products, one difference", 4, delta=0.75),
    *losses("l1_loss", "d rounds once", 2),
    *losses("mse_loss", "d rounds once and enters squared, one product", 3),
    *losses("binary_cross_entropy_with_logits", "sigmoid less target; logarithms within 3 ulp", 8, cancels=True),
    Case(
        "sigmoid",
        normal("x"),
        out=True,
        ulps=ulps(2.5, 4),
        traffic=(1, 1),
        why="exp within 1 (2) ulp, a sum, a quotient",
    ),
    Case("sigmoid_backward", normal("grad", "y"), out=True, ulps=ulps(3, 4), traffic=(2, 1), why="1 − y, two products"),
    *rowwise("softmax", "x", why="terms of Σ and the quotient: 4 roundings and an exp"),
    *rowwise("log_softmax", "x", why="the largest result is a few times its rounding"),
    *rowwise("softmax_backward", "grad", "y", why="sums of a few hundred terms of either sign"),
    *rowwise("log_softmax_backward", "grad", "y", why="sums of a few hundred terms of either sign"),
    Case(
        "cross_entropy",
        logits_and_classes,
        {"return_grad": True},
        elementwise=False,
        ulps=ulps(8, 16),
        shapes=((1, 1), (5, 3), (3, 33), (2, 65, 3)),
        large=(300, 171),
        why="a softmax, and a sum of losses in double",
    ),
    Case(
        "cross_entropy",
        logits_and_probabilities,
        {"return_grad": True, "reduction": "none", "label_smoothing": 0.1},
        out=True,
        elementwise=False,
        ulps=ulps(16, 32),
        shapes=((1, 1), (5, 3), (3, 33), (2, 65, 3)),
        large=(300, 171),
        label="probabilities",
        why="a softmax, and a sum over classes in double",
    ),
]

# ---- distances ---------------------------------------------------------------------------------------------------


def points(rng, shape, dtype):
    n, m, d = shape
    return {"x": np.asarray(rng.standard_normal((n, d)), dtype), "y": np.asarray(rng.standard_normal((m, d)), dtype)}


def norms(p, why: str, bound: float = 2) -> list[Case]:
    more = {"elementwise": False, "ulps": ulps(bound, 4 * bound), "why": why}
    return [
        Case("norm", normal("x"), {"p": p}, label=f"{p}", traffic=(1, 0), **more),
        Case("norm", normal("x"), {"p": p, "axis": -1}, label=f"{p}-rows", shapes=ROWS, large=MANY_ROWS, **more),
        Case("norm", normal("x"), {"p": p, "axis": 0}, label=f"{p}-axis", shapes=ROWS, large=MANY_ROWS, **more),
    ]


def distances(metric: str, bound: float, why: str, **options) -> Case:
    return Case(
        "cdist",
        points,
        {"metric": metric} | options,
        out=True,
        elementwise=False,
        ulps=ulps(bound, 4 * bound),
        shapes=((1, 1, 1), (3, 2, 5), (5, 33, 7), (4, 31, 8), (33, 17, 9), (0, 3, 2), (3, 0, 2), (3, 2, 0), (3, 3, 3)),
        large=(70, 130, 20),
        label=metric,
        why=why,
    )


DISTANCES = [
    *norms(2, "sums in double"),
    *norms(1, "sums in double"),
    *norms(np.inf, "exact"),
    *norms(-np.inf, "exact"),
    *norms(0, "exact"),
    *norms(3, "powers of double precision, some ulp each", 8),
    *norms(0.5, "powers of double precision, some ulp each, and the square of their sum", 16),
    Case(
        "norm",
        normal("x"),
        {"p": "nuc"},
        elementwise=False,
        ulps=ulps(64, 64),
        shapes=((3, 4), (5, 5)),
        large=(40, 30),
        label="nuc",
        why="LAPACK's singular values",
    ),
    *rowwise("normalize", "x", why="a norm in double and a quotient"),
    *rowwise("normalize_backward", "grad", "x", why="sums in double, four roundings", out=False),
    Case(
        "cosine_similarity",
        normal("x", "y"),
        elementwise=False,
        ulps=ulps(4, 16),
        shapes=ROWS,
        large=MANY_ROWS,
        cancels=True,
        traffic=(2, 0),
        why="three sums in double",
    ),
    distances("euclidean", 4, "short runs in T, then double"),
    distances("sqeuclidean", 8, "short runs in T, then double"),
    distances("manhattan", 8, "short runs in T, then double"),
    distances("chebyshev", 1, "one subtraction"),
    distances("minkowski", 4, "powers of double precision", p=3),
    distances("cosine", 4, "unit vectors in double"),
    distances("dot", 16, "short runs in T, then double; terms cancel"),
]

# ---- boxes -------------------------------------------------------------------------------------------------------


def boxes(*names: str):
    """Boxes that overlap somewhat, a few of them inverted, and a weight for each."""

    def inputs(rng, shape, dtype):
        corner = rng.normal(size=(len(names), *shape[:-1], 2))
        found = np.concatenate([corner, corner + rng.normal(1.5, 1, size=corner.shape)], axis=-1)
        made = {name: np.asarray(x, dtype) for name, x in zip(names, found, strict=True)}
        return made | ({"weight": np.asarray(rng.random(shape[:-1]), dtype)} if len(names) == 2 else {})

    return inputs


def pairs_of_boxes(rng, shape, dtype):
    n, m = shape
    return {"a": boxes("a")(rng, (n, 4), dtype)["a"], "b": boxes("b")(rng, (m, 4), dtype)["b"]}


def box_losses(function: str) -> list[Case]:
    """A slope is some ten terms of double precision, the largest of them 1/U for a small union."""
    pair, each = boxes("input", "target"), {"return_grad": True, "reduction": "none"}
    more = {"elementwise": False, "cancels": True, "ulps": ulps(1, 64), "why": "in double; ten terms of a slope"}
    more |= {"shapes": ((0, 4), (1, 4), (7, 4), (33, 4), (129, 4), (2, 3, 4)), "large": (5000, 4)}
    return [
        Case(function, pair, {"return_grad": True}, **more),
        Case(function, pair, each, out=True, label="each", **more),
    ]


BOXES = [
    Case(
        "box_iou",
        pairs_of_boxes,
        out=True,
        elementwise=False,
        cancels=True,
        ulps=ulps(4, 8),
        shapes=((1, 1), (3, 2), (0, 3), (3, 0), (5, 33), (4, 129), (33, 17)),
        large=(300, 171),
        why="each side and product rounds, the union once more, and it may be half of what it is the difference of",
    ),
    *box_losses("giou_loss"),
    *box_losses("diou_loss"),
    *box_losses("ciou_loss"),
]

CASES = PROX + OPTIM + DROPOUT + NORM + LOSSES + DISTANCES + BOXES
