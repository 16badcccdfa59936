"""What is measured, and what it has to reach.

A row is a function, a way to call it, and shapes. Every Case of tests/cases.py that states its memory traffic has a
row of its own accord; ROWS lists those that want several ways to be called or shapes of their own. Peers are found by
the function's name in peers.py.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import fastreg

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from cases import CASES

K, M = 2**10, 2**20
SIZES = ((1000,), (M,), (16 * M,))


@dataclass(frozen=True, eq=False)
class Row:
    function: str
    what: str  # in the reader's words: which of the ways to call it
    inputs: Callable  # (rng, shape, dtype) -> the array arguments by name
    options: Mapping = field(default_factory=dict)
    traffic: tuple = (1, 1)  # arrays read and written per element: chooses the limit; (): it has none
    updates: tuple = ()  # inputs that are updated in place
    out: bool = True  # give it `out`; without, it makes its result in fresh memory
    shapes: tuple = SIZES
    shapes_f64: tuple = ()
    # The optimiser of fastreg.optim whose step is measured instead, and the sizes of the tensors into which it gets
    # each of the arrays cut; peers are then those of the optimiser's name.
    optimiser: str = ""
    tensors: tuple = ()

    @property
    def name(self):
        return f"{self.optimiser or self.function} {self.what}".strip()


def vector(*names, wider=1.0):
    def inputs(rng, shape, dtype):
        # Random numbers beyond a million elements would only cost time: the pattern repeats.
        n = int(np.prod(shape))
        draw = [wider * rng.standard_normal(min(n, M), dtype=dtype) for _ in names]
        return {name: np.resize(d, shape) for name, d in zip(names, draw, strict=True)}

    return inputs


def per_feature(*names):
    """A weight for each index of the last axis, under these names."""

    def inputs(rng, shape, dtype):
        weights = rng.random((len(names), shape[-1]), dtype=dtype)
        return vector("x")(rng, shape, dtype) | dict(zip(names, weights, strict=True))

    return inputs


def equal(rng, shape, dtype):
    return {"x": np.full(shape, 3, dtype)}


def ascending(rng, shape, dtype):
    return {"x": np.sort(rng.standard_normal(shape, dtype=dtype))}


def geometric(rng, shape, dtype):
    """Ever smaller by a hundredth, down to the least numbers and then again."""
    return {"x": (0.99 ** (np.arange(shape[0]) % 8000.0)).astype(dtype)}


def bent(rng, shape, dtype):
    """On which direct methods of total variation start again at every element."""
    return {"x": np.linspace(0, 1, shape[0], dtype=dtype) ** 2}


def labelled(rng, shape, dtype):
    """A label for each element, in no order, of a hundred elements each."""
    return vector("x")(rng, shape, dtype) | {"groups": rng.integers(0, shape[0] // 100, shape)}


def state(*names):
    """Arguments of an update: sums of squares among them are positive."""

    def inputs(rng, shape, dtype):
        arrays = vector("param", "grad", *names)(rng, shape, dtype)
        return {name: x**2 if "sq" in name or name == "n" else x for name, x in arrays.items()}

    return inputs


def example(rng, shape, dtype):
    """Arguments of ftrl_step_sparse: an example, or some, of a model of 2^22 weights, drawn as words of a text are."""
    model = {name: np.zeros(2**22, dtype) for name in ("param", "z", "n")}
    drawn = (2**22 * rng.random(shape) ** 4).astype(np.int64)
    return {"grad": rng.standard_normal(shape, dtype=dtype), "indices": drawn, **model}


def resnet50():
    """Sizes of the 161 parameter tensors of ResNet-50 (He et al. 2015): convolutions, scales and shifts, classifier."""
    sizes, width_in = [64 * 3 * 7 * 7, 64, 64], 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            sizes += [width_in * width, width, width, width * width * 9, width, width, width * 4 * width]
            sizes += [4 * width, 4 * width]
            if block == 0:
                sizes += [width_in * 4 * width, 4 * width, 4 * width]
            width_in = 4 * width
    return (*sizes, 2048 * 1000, 1000)


def image(rng, shape, dtype):
    """Arguments of batch_norm: features with a mean and a scale of their own."""
    channels, wide = shape[1], (-1,) + (1,) * (len(shape) - 2)
    level, scale = rng.standard_normal((2, channels), dtype=dtype)
    x = rng.standard_normal(shape, dtype=dtype) * scale.reshape(wide) + level.reshape(wide)
    return {
        "x": x,
        "running_mean": np.zeros(channels, dtype),
        "running_var": np.ones(channels, dtype),
        "weight": scale.copy(),
        "bias": level.copy(),
    }


def image_backward(rng, shape, dtype):
    image_ = image(rng, shape, dtype)
    x, axes = image_["x"], tuple(a for a in range(len(shape)) if a != 1)
    mean, var = x.mean(axes, dtype="f8"), x.var(axes, dtype="f8")
    return {
        "grad": rng.standard_normal(shape, dtype=dtype),
        "x": x,
        "mean": mean.astype(dtype),
        "rstd": ((var + 1e-5) ** -0.5).astype(dtype),
        "weight": image_["weight"],
    }


def rows(*names):
    """Arguments of layer_norm or rms_norm over the last axis, and of their backward."""

    def inputs(rng, shape, dtype):
        x = rng.standard_normal(shape, dtype=dtype) + dtype.type(1)
        arrays = {"grad": rng.standard_normal(shape, dtype=dtype), "x": x}
        arrays["mean"] = x.mean(-1)
        square = x.var(-1) if "mean" in names else np.square(x).mean(-1)
        arrays["rstd"] = ((square + 1e-5) ** -0.5).astype(dtype)
        arrays |= {name: rng.standard_normal(shape[-1:], dtype=dtype) for name in ("weight", "bias")}
        return {name: arrays[name] for name in names}

    return inputs


def groups(number, *names):
    """Arguments of group_norm (0: instance_norm), and of their backward."""

    def inputs(rng, shape, dtype):
        x = rng.standard_normal(shape, dtype=dtype) + dtype.type(1)
        grouped = x.reshape(shape[0], number or shape[1], -1)
        arrays = {"grad": rng.standard_normal(shape, dtype=dtype), "x": x, "mean": grouped.mean(-1)}
        arrays["rstd"] = ((grouped.var(-1) + 1e-5) ** -0.5).astype(dtype)
        arrays |= {name: rng.standard_normal(shape[1], dtype=dtype) for name in ("weight", "bias")}
        return {name: arrays[name] for name in names}

    return inputs


def classified(rng, shape, dtype):
    """Logits, and a class for each row of them."""
    return vector("input", wider=3.0)(rng, shape, dtype) | {"target": rng.integers(0, shape[1], shape[0])}


def activated(function):
    """A gradient, and what the function made of some numbers."""

    def inputs(rng, shape, dtype):
        arrays = vector("grad", "y", wider=3.0)(rng, shape, dtype)
        return arrays | {"y": getattr(fastreg, function)(arrays["y"])}

    return inputs


def nothing(rng, shape, dtype):
    """Arguments of dropout_mask."""
    return {"shape": shape}


def linear(*names):
    """Arguments of dropconnect and its backward; a shape is (samples, in_features, out_features)."""

    def inputs(rng, shape, dtype):
        n, columns, rows = shape
        shapes = {"grad": (n, rows), "x": (n, columns), "weight": (rows, columns), "bias": (rows,)}
        return {name: rng.standard_normal(shapes[name], dtype=dtype) for name in names}

    return inputs


AFFINE, WEIGHED = ("x", "weight", "bias"), ("grad", "x", "mean", "rstd", "weight")
TOKENS = ((64, 128, 768), (8192, 1024))
# What a loop of the training step is measured at, where it has all: from a call to main memory.
LOOP = ((1000,), (16 * K,), (256 * K,), (M,), (16 * M,), (64 * M,))
IMAGES = ((32, 64, 56, 56), (64, 256, 14, 14), (256, 64, 8, 8), (128, 512), (8192, 256))
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}
ADAM = {"lr": 1e-3, "weight_decay": 0.01}
MANY = {"100 tensors of 1,000": (1000,) * 100, "ResNet-50's tensors": resnet50()}
FTRL = {"alpha": 0.1, "l1": 0.5, "l2": 0.1}
# Function, state, options of it and of its optimiser, and the optimiser.
UPDATES = [
    ("adagrad_step", ("sum_sq",), {"weight_decay": 1e-4}, "Adagrad"),
    ("rmsprop_step", ("square_avg",), {"lr": 1e-3, "weight_decay": 1e-4}, "RMSprop"),
    ("ftrl_step", ("z", "n"), FTRL, "FTRL"),
]
LOSSES = ("l1_loss", "mse_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits")
LOGITS = ((4096, 1000),)
HALF, TENTH = {"p": 0.5, "seed": 7}, {"p": 0.1, "seed": 7}
OTHER = {"p=0.3": 0.3, "p=0.9": 0.9, "p=2⁻²⁰": 2.0**-20}
LINEAR = ((128, 1024, 1024), (64, 4096, 4096))  # samples, inputs, units

ROWS = [
    Row("soft_threshold", "", vector("x"), {"lam": 0.5}, shapes=LOOP, shapes_f64=LOOP[3:5]),
    Row("soft_threshold", "fresh output", vector("x"), {"lam": 0.5}, out=False, shapes=LOOP),
    Row(
        "sgd_step",
        "",
        vector("param", "grad", "momentum_buffer"),
        SGD,
        traffic=(3, 2),
        updates=("param", "momentum_buffer"),
        out=False,
        shapes=LOOP,
        shapes_f64=LOOP[3:5],
    ),
    Row(
        "adam_step",
        "",
        state("exp_avg", "exp_avg_sq"),
        ADAM | {"step": 10, "decoupled": True},
        traffic=(4, 3),
        updates=("param", "exp_avg", "exp_avg_sq"),
        out=False,
    ),
    *(
        Row(
            function,
            "",
            state(*names),
            options,
            traffic=(2 + len(names), 1 + len(names)),
            updates=("param", *names),
            out=False,
        )
        for function, names, options, _ in UPDATES
    ),
    Row(
        "ftrl_step_sparse",
        "",
        example,
        FTRL,
        traffic=(4, 3),  # the limit is that of as many coordinates, were they neighbours
        updates=("param", "z", "n"),
        out=False,
        shapes=((465,), (64 * K,)),
    ),
    *(
        Row(
            function,
            what,
            vector("param", "grad"),
            options,
            traffic=(2 + arrays, 1 + arrays),
            updates=("param",),
            out=False,
            shapes=((sum(sizes),),),
            optimiser=optimiser,
            tensors=sizes,
        )
        for function, arrays, options, optimiser in (
            ("sgd_step", 1, SGD, "SGD"),
            ("adam_step", 2, ADAM, "AdamW"),
            *((function, len(names), options, optimiser) for function, names, options, optimiser in UPDATES),
        )
        for what, sizes in MANY.items()
    ),
    *(
        Row(function, what, vector(name), options, shapes=LOOP if options is HALF else SIZES, shapes_f64=LOOP[3:5])
        for function, name in (("dropout", "x"), ("dropout_backward", "grad"))
        for what, options in (("p=0.5", HALF), ("p=0.1", TENTH))
    ),
    *(Row("dropout", what, vector("x"), {"p": p, "seed": 7}, shapes=((M,),)) for what, p in OTHER.items()),
    Row("dropout", "of channels", vector("x"), TENTH | {"axis": (0, 1)}, shapes=IMAGES[:3], shapes_f64=IMAGES[1:2]),
    *(
        Row("dropout_mask", f"{kind} {what}", nothing, options | {"packed": packed}, (), out=False, shapes=SIZES[1:])
        for what, options in (("p=0.5", HALF), ("p=0.1", TENTH))
        for kind, packed in (("boolean", False), ("packed", True))
    ),
    *(
        Row(function, what, linear(*names), options, (), out=False, shapes=LINEAR, shapes_f64=LINEAR[:1])
        for function, what, names, options in (
            ("dropconnect", "", ("x", "weight", "bias"), HALF),
            ("dropconnect", "inference", ("x", "weight", "bias"), HALF | {"training": False}),
            ("dropconnect_backward", "", ("grad", "x", "weight"), HALF),
        )
    ),
    Row("batch_norm", "training", image, {"training": True}, shapes=IMAGES, shapes_f64=IMAGES[1:2]),
    Row("batch_norm", "inference", image, shapes=IMAGES),
    Row("batch_norm_backward", "", image_backward, traffic=(2, 1), out=False, shapes=IMAGES),
    Row("batch_norm", "training with ReLU", image, {"training": True, "activation": "relu"}, shapes=IMAGES[:3]),
    *(
        Row(f"{kind}_norm", f"over {n}", rows(*names), {"normalized_shape": n}, shapes=(shape,))
        for kind, names in (("layer", AFFINE), ("rms", AFFINE[:2]))
        for shape in TOKENS
        for n in shape[-1:]
    ),
    Row("layer_norm_backward", "", rows(*WEIGHED), traffic=(2, 1), out=False, shapes=TOKENS),
    Row("rms_norm_backward", "", rows("grad", "x", "rstd", "weight"), traffic=(2, 1), out=False, shapes=TOKENS),
    *(Row("group_norm", f"{n} groups", groups(n, *AFFINE), {"num_groups": n}, shapes=IMAGES[:3]) for n in (8, 32)),
    *(
        Row("group_norm_backward", f"{n} groups", groups(n, *WEIGHED), traffic=(2, 1), out=False, shapes=IMAGES[:3])
        for n in (8, 32)
    ),
    Row("instance_norm", "", groups(0, *AFFINE), shapes=IMAGES[:3]),
    Row("instance_norm_backward", "", groups(0, *WEIGHED), traffic=(2, 1), out=False, shapes=IMAGES[:3]),
    *(
        row
        for function in LOSSES
        for row in (
            Row(
                function,
                "with gradient",
                vector("input", "target", wider=1.5),
                {"return_grad": True},
                traffic=(2, 1),
                shapes=LOOP if function == "smooth_l1_loss" else SIZES,
                shapes_f64=LOOP[3:5] if function == "smooth_l1_loss" else ((M,),),
            ),
            Row(function, "", vector("input", "target", wider=1.5), traffic=(2, 0), out=False),
        )
    ),
    Row("cross_entropy", "with gradient", classified, {"return_grad": True}, shapes=LOGITS, shapes_f64=LOGITS),
    Row("cross_entropy", "", classified, traffic=(1, 0), out=False, shapes=LOGITS),
    Row("sigmoid", "", vector("x", wider=3.0), shapes=(*SIZES[:2], *LOGITS), shapes_f64=((M,),)),
    *(
        Row(function, "", vector("x", wider=3.0), shapes=(*SIZES[:2], *LOGITS), shapes_f64=LOGITS)
        for function in ("softmax", "log_softmax")
    ),
    *(
        Row(f"{function}_backward", "", activated(function), traffic=(2, 1), shapes=(*SIZES[:2], *LOGITS))
        for function in ("sigmoid", "softmax", "log_softmax")
    ),
]
MILLION, SMALL = ((10**6,),), ((1000,),)
MATRIX = ((1000, 1000),)
ELEMENTWISE = {
    "prox_l1": {"lam": 0.5},
    "hard_threshold": {"lam": 0.5},
    "prox_l0": {"lam": 0.5},
    "prox_sq_l2": {"lam": 0.5},
    "prox_elastic_net": {"l1": 0.5, "l2": 0.5},
    "prox_mcp": {"lam": 0.5},
    "prox_scad": {"lam": 0.5},
    "project_box": {"lower": -0.5, "upper": 0.7},
    "project_linf_ball": {"radius": 0.5},
}
ROWS += [Row(name, "", vector("x"), options, shapes_f64=((M,),)) for name, options in ELEMENTWISE.items()]
ROWS += [
    Row(function, "a weight a feature", per_feature(*names), shapes=((K, K), (4 * K, 4 * K)))
    for function, *names in (
        ("prox_l1", "lam"),
        ("prox_l0", "lam"),
        ("prox_sq_l2", "lam"),
        ("prox_elastic_net", "l1", "l2"),
        ("prox_mcp", "lam"),
        ("prox_scad", "lam"),
    )
]
# Passes over memory: a norm or a threshold is one read, the result a read and a write.
ROWS += [
    Row("prox_l2", "", vector("x"), {"lam": 1.0}, (2, 1), shapes=SMALL + MILLION, shapes_f64=MILLION),
    Row("project_l2_ball", "", vector("x"), {"radius": 9.0}, (2, 1), shapes=SMALL + MILLION, shapes_f64=MILLION),
    *(
        Row(f"prox_{name}group_lasso", what, vector("x"), options | {"axis": axis}, (2, 1), shapes=shapes)
        for name, options in (("", {"lam": 1.0}), ("sparse_", {"l1": 0.5, "lam": 1.0}))
        for what, axis, shapes in (("rows", 1, MATRIX), ("rows of 8", 1, ((125_000, 8),)), ("columns", 0, MATRIX))
    ),
    Row("prox_group_lasso", "labels", labelled, {"lam": 1.0}, (2, 1), shapes=MILLION, shapes_f64=MILLION),
    Row("prox_sparse_group_lasso", "labels", labelled, {"l1": 0.5, "lam": 1.0}, (2, 1), shapes=MILLION),
    Row("project_simplex", "few kept", vector("x"), {"total": 1.0}, (2, 1), shapes=SMALL + MILLION, shapes_f64=MILLION),
    Row("project_simplex", "many kept", vector("x"), {"total": 1e5}, (2, 1), shapes=MILLION, shapes_f64=MILLION),
    *(
        Row("project_simplex", what, inputs, {"total": 1e3}, (2, 1), shapes=MILLION, shapes_f64=MILLION)
        for what, inputs in (("all equal", equal), ("sorted", ascending), ("geometric", geometric))
    ),
    Row("project_l1_ball", "half the norm", vector("x"), {"radius": 4e5}, (2, 1), shapes=MILLION, shapes_f64=MILLION),
    Row("prox_linf", "half the norm", vector("x"), {"lam": 4e5}, (2, 1), shapes=MILLION, shapes_f64=MILLION),
    Row("prox_tv1d", "", vector("x"), {"lam": 1.0}, shapes=SMALL + MILLION, shapes_f64=MILLION),
    Row("prox_tv1d", "bent", bent, {"lam": 100.0}, shapes=(), shapes_f64=((20_000,),)),
    Row("prox_nuclear", "", vector("x"), {"lam": 60.0}, shapes=((4000, 200), (300, 300))),
]


def points(*names, dimensions=64):
    """Points to be compared pairwise: the shape is that of the result."""

    def inputs(rng, shape, dtype):
        return {name: rng.standard_normal((n, dimensions), dtype=dtype) for name, n in zip(names, shape, strict=False)}

    return inputs


def boxes(*names):
    """Boxes of sides from ½ to 1½, most of which meet; the shape is that of the result, or theirs."""

    def inputs(rng, shape, dtype):
        corner = {name: rng.random((n, 2), dtype=dtype) for name, n in zip(names, shape * 2, strict=False)}
        sides = {name: rng.random((len(c), 2), dtype=dtype) + 0.5 for name, c in corner.items()}
        return {name: np.concatenate([corner[name], corner[name] + sides[name]], axis=1) for name in names}

    return inputs


def pairs_of_boxes(rng, shape, dtype):
    return boxes("input", "target")(rng, shape[:1], dtype)


# Norms read once; distances and boxes are bound by arithmetic, and their row's shape is that of the matrix.
TABLES = ((4096, 256), (16 * K, K))
PAIRS = {"out": False, "shapes": ((2000, 2000),), "shapes_f64": ((2000, 2000),)}
READ = {"traffic": (1, 0), "out": False}
METRICS = ("euclidean", "sqeuclidean", "manhattan", "chebyshev", "minkowski", "cosine", "dot")
ROWS += [
    *(Row("norm", f"p={p}", vector("x"), {"p": p}, **READ, shapes_f64=SIZES[1:]) for p in (1, 2, np.inf)),
    *(
        Row("norm", f"p={p}, {what}", vector("x"), {"p": p, "axis": axis}, **READ, shapes=TABLES, shapes_f64=TABLES)
        for what, axis in (("rows", 1), ("columns", 0))
        for p in (1, 2, np.inf)
    ),
    Row("norm", "p=3", vector("x"), {"p": 3}, (1, 0), out=False, shapes=SIZES[1:2]),
    Row("normalize", "rows", vector("x"), {}, shapes=TABLES),
    Row("normalize_backward", "rows", vector("grad", "x"), {}, (2, 1), out=False, shapes=TABLES),
    Row("cosine_similarity", "rows", vector("x", "y"), {}, (2, 0), out=False, shapes=TABLES, shapes_f64=TABLES),
    *(Row("cdist", metric, points("x", "y"), {"metric": metric, "p": 3}, (), **PAIRS) for metric in METRICS),
    *(Row("cdist", f"{metric}, itself", points("x"), {"metric": metric, "p": 3}, (), **PAIRS) for metric in METRICS),
    Row("box_iou", "", boxes("a", "b"), {}, (), out=False, shapes=((1000, 1000),), shapes_f64=((1000, 1000),)),
    *(
        Row(f"{kind}_loss", "with gradient", pairs_of_boxes, {"return_grad": True}, (2, 1), shapes=((100_000, 4),))
        for kind in ("giou", "diou", "ciou")
    ),
]
SIMPLICES = ("project_simplex", "project_l1_ball", "prox_linf")
LISTED = {row.function for row in ROWS}
ROWS += [
    Row(case.function, case.label, case.inputs, case.options, case.traffic, case.inplace, case.out, shapes=SIZES[:2])
    for case in CASES
    if case.traffic and case.function not in LISTED
]


@dataclass(frozen=True)
class Target:
    """The time of `what` on a row is at most `at_most` times that of `against`, at each of the shapes (None: all).

    `what` and `against` are contenders of one measurement: "fastreg", "1 thread" and "avx2" (fastreg so limited),
    "plain" (without the activation), "limit", "np.multiply", a peer ("torch" is the fastest of torch's ways), or
    "row NAME" (fastreg on another row).
    threads: "one", "all" or "both". binding: where the target is missed, what binds and how that is known.
    """

    row: str
    against: str
    at_most: float
    shapes: tuple | None = None
    threads: str = "both"
    what: str = "fastreg"
    binding: str = ""


def large(row):
    """Shapes beyond the second-level cache of the machines of the day, 2 MB."""
    return tuple(shape for shape in row.shapes if 4 * np.prod(shape) * sum(row.traffic) > 2 * M)


def middle(row):
    return tuple(shape for shape in row.shapes if 2**18 <= np.prod(shape) <= 2**20)


# Zen 5 divides and takes roots of eight lanes in the time of sixteen. Memory hides it beyond the third-level cache.
DIVIDER = (
    "the divider, half as fast with half the lanes: adam_step at 2²⁰ takes 154 µs with AVX-512, where "
    "the limit is 141, and 1.6 times that with AVX2; at 2²⁴ both take what memory takes"
)
COMPUTED = "arithmetic, not memory: some 30 instructions a vector for exp, and twice the vectors"
CLIPPED = "alone, ten instructions a vector and twice the vectors do not hide behind reads; with the gradient they do"
NARROW = (
    "the arithmetic of Philox: 73 vector instructions for 64 bytes of random numbers, where AVX-512, whose "
    "exclusive or takes three operands, needs 56 for 128. For 2^20 elements 1.2 million, at four a cycle 70 µs "
    "at 4.3 GHz, and the four of each eight elements (widen, compare, multiply, and) add 31, while AVX-512 "
    "waits for memory; at 2^24 both do"
)
AVX2 = (
    dict.fromkeys(("adam_step", "adagrad_step", "rmsprop_step", "ftrl_step"), DIVIDER)
    | dict.fromkeys(
        ("binary_cross_entropy_with_logits", "cross_entropy", "sigmoid", "softmax", "log_softmax"), COMPUTED
    )
    | dict.fromkeys(("log_softmax_backward",), COMPUTED + "; AVX-512 scales by 2ⁿ in one instruction, AVX2 in seven")
    | dict.fromkeys(("ftrl_init_z",), DIVIDER)
    | dict.fromkeys(("dropout", "dropout_backward"), NARROW)
    | dict.fromkeys(("smooth_l1_loss", "huber_loss"), CLIPPED)
)
WIDENING = (
    "sums of f32 in double, which AVX2 makes in vectors of four: 32 elements are 8 conversions, 8 products and 8 "
    "additions, 24 instructions where AVX-512 needs 12"
)
EXCESS = (
    "arithmetic in double, four elements to a vector where AVX-512 has eight: two differences, a comparison, a "
    "choice, an addition and a count, and for f32 a conversion. f64, which needs none, is 1.2 to 1.6 times slower "
    "too, unless few are kept, where it waits for memory (1.04)"
)
ROOTS = (
    "a root and a quotient in double for each group, half as many at a time, and rows' sums by shuffles: 292 µs, of "
    "which rows of 1,000, of as many bytes, take 130"
)
SUMS = ("prox_l2", "project_l2_ball", "prox_group_lasso", "prox_sparse_group_lasso")
AVX2 |= {
    "norm p=3": (
        "arithmetic in double: for 16 elements 4 conversions, 16 products and 4 additions, half as many with AVX-512"
    ),
    "normalize": (
        "arithmetic in double: for 16 elements 8 conversions, 8 products, 4 additions and 4 conversions back, half "
        "as many with AVX-512. At (16384, 1024) both take what memory takes"
    ),
    "normalize_backward": (
        "arithmetic in double: for 16 elements 20 conversions, 24 products, 12 sums and differences and 4 "
        "conversions back, half as many with AVX-512"
    ),
    "cosine_similarity": (
        "three sums of products in double: for 16 elements 8 conversions, 12 products and 12 additions, half as "
        "many with AVX-512"
    ),
    **dict.fromkeys(
        (f"norm p={p}, rows" for p in (1, 2, np.inf)),
        "of (4096, 256), which the third-level cache holds: twice the vectors, 52 µs where AVX-512 takes 39 and the "
        "limit 33. At (16384, 1024) both take what memory takes",
    ),
    **dict.fromkeys(
        (f"norm p={p}, columns" for p in (1, 2, np.inf)),
        "of (4096, 256), which the third-level cache holds: twice the loads, stores and additions. At (16384, 1024) of "
        "f32 both take what memory takes",
    ),
}
BOXES = (
    "arithmetic, in double whatever the dtype: the limit is an eighth of the time, for ciou_loss a seventeenth. "
    "Four boxes to a vector where AVX-512 has eight, and quotients (giou_loss 4, diou_loss 3, ciou_loss 7 a box), "
    "which take as long for half as many"
)
AVX2 |= {f"{kind}_loss": BOXES for kind in ("giou", "diou", "ciou")}
AVX2 |= dict.fromkeys(SUMS, WIDENING) | dict.fromkeys(SIMPLICES, EXCESS)
AVX2 |= {f"prox_{sparse}group_lasso rows of 8": ROOTS for sparse in ("", "sparse_")}
AVX2 |= dict.fromkeys(
    ("prox_scad a weight a feature", "prox_mcp a weight a feature"),
    "nine operations and two or three loads a vector, and twice the vectors",
)
AVX2 |= dict.fromkeys(
    ("layer_norm", "rms_norm", "instance_norm_backward", "group_norm", "group_norm_backward"),
    "sums of f32 in double: twice the vectors, and conversions of four at a time, on rows that take two to three times "
    "the limit's pass with AVX-512 already",
)
TWICE_SOFT = (
    " Sparse groups are thresholded twice, for their norm and for the result: 143 µs for rows, where those that are "
    "not sparse take 102, 168 for rows of 8 (126), 186 for columns (143)"
)
AVX2 |= dict.fromkeys(
    ("batch_norm", "batch_norm_backward"),
    "arithmetic in vectors half as wide: on these rows AVX-512 takes 1.5 (inference) to 3 (backward of 8 x 8 images) "
    "times the limit's pass, so that it is not memory that binds. A vector of a column's results loads four vectors of "
    "parameters beside its data, five backward; 64 elements of a run are four sums, each widened",
)
GROUPS_BIND = {
    "rows": "a row is read for its norm and again, from the first-level cache, for the result." + TWICE_SOFT,
    "rows of 8": (
        "a root and a quotient in double for each of 125,000 groups, and the way from its lanes to one number: 126 µs "
        "where rows of 1,000, of as many bytes, take 102. Roots in f32 would put the threshold off by 2⁻²⁴ of the norm."
        + TWICE_SOFT
    ),
    "columns": (
        "rows 4 KB apart in tiles of 64 columns: 256 bytes at a time, ahead of which no prefetcher runs; the same "
        "sums over rows take 0.7 of the time. Prefetching by hand, and tiles of 32, 128 and 256 (GROUP_TILE in "
        "prox.inc), are no faster." + TWICE_SOFT
    ),
    "labels": (
        "labels of 8 bytes, which the limit does not count, are read four times (smallest, largest, sums, factors): "
        "32 MB beside the limit's 12. For each element a sum is loaded and stored and a factor loaded, at places of "
        "their own among 10,000; no vector does that without conflicts. NumPy's bincount and take (the peer numpy) "
        "need two to three times as long"
    ),
}
TWO_NUMBERS = ("prox_elastic_net", "prox_scad")
NORM_FIRST = (
    "the norm has to be known before anything is written: a read, and after it a read and a write, where the limit's "
    "loop has all three streams at once. Each of the two is near its own limit: at 2²⁰ norm p=2 takes 37 µs (limit "
    "32), prox_sq_l2 78 (76), and both together the 116 of prox_l2. Summing from the end to the beginning, "
    "so that the second pass begins with what the caches hold, changed nothing"
)
FEATURES = (
    "two numbers a feature, of 4,096 features 32 KB: with a row of x and one of out they do not stay in a first-level "
    "cache of 48 KB. Of one number a feature (prox_l1, prox_l0), and of 1,024 features, the loops are within 1.1 or "
    "near it. Tiles of columns stay there, but take memory out of order: slower at (4096, 4096), for one number too"
)
NO_SLOWER = 1.03  # two measurements of one call differ by as much
SHARED = (
    "20 MB, of which each core's own caches hold a twentieth: one thread's share alone takes as long as both do, and "
    "the limit's loop, without arithmetic, nine tenths of it"
)
APPROXIMATE = (
    "two roots and a quotient a coordinate, each rounded correctly: numba's kernel is compiled with fastmath, which "
    "may take approximations for them. Where memory binds, at 2²⁴, it is no faster"
)
TORCHS = "one hundredth short; 14.4 µs are 144 ns a tensor, of which the memory traffic is 85"
RUNS = "runs of a channel of 64 elements: 16,384 of them, each with a factor to find and to spread over a vector"
MIDDLE, BIG = ((M,),), ((16 * M,),)
KEPT = (
    "below 8 MB the limit's stores may go past the caches, the gradient's may not, for the next step reads it: a "
    "copy of 4 MB and its reading take 101 µs so, 216 past them (measure.py --stores). By either kind the limit is "
    "within 95 to 98 µs, the rate of the third-level cache, ours 101 to 108; on arrays that begin with a line "
    "(measure.py --aligned) 1 to 3 less. On two threads calling for operands 256 bytes ahead, which one thread "
    "gains 4 % by, costs 10 %"
)
CHUNKS = (
    "at 2²⁰ clipping: l1_loss and mse_loss, which have fewer instructions, take 70 and 72 µs, smooth_l1_loss and "
    "huber_loss 77, where the limit is 65, and AVX2, with twice the instructions, 95: a core computes while it "
    "waits for the third-level cache, but not all the time. On arrays that begin with a line (measure.py --aligned)"
    " they take 74. At 2²⁴, from memory, all are within 1.07"
)
TWICE = "a row is read for its largest element and again for the exponentials, and the rows, of a page each, from L3"
READING = (
    "of 2²⁰ elements the ends of 512 chunks and the call itself take some 3 µs, whatever the dtype: f64, in 66 µs "
    "by the limit's 63, shows no more, f32, in 34.5 to 36, has 32 to compare with; on two threads also the microsecond "
    "of the pool and the sums of chunks, which one of them adds. At 2²⁴ runs differ, 1.07 to 1.13"
)
ROWWISE = (
    "of 4,096 rows 0.7 to 0.9 ns each more than a vector of 2²⁰ takes: the lanes' way to one number, the root, the "
    "check that no square was lost; f64's, twice as long, 1.6. Longer rows take what a vector of 2²⁴ does. And as "
    "there: " + READING
)
COLUMNWISE = (
    "four rows at a time are four streams, which the hardware follows less well than one; what is called for comes in "
    "the order of memory, to the first-level cache, which the four rows, the next ones and sums twice as wide as f32 "
    "fill (f64's rows of 8 KB more than fill; p=∞ keeps two numbers a column, the largest and one for NaN). "
    "Instructions do not bind: AVX2, with twice as many, takes 1.37 ms at (16384, 1024), AVX-512 1.42, where the limit "
    "is 1.17; and (4096, 256), from the third-level cache, takes 41 to 47 µs, 16 of which are 0.7 ms; rows take "
    "38 to 41, call and ends included. Prefetching to the second level or at other distances, and one, two, "
    "eight or sixteen rows at a time, were no faster"
)
MIRRORED = (
    "half of the distances, but all of the results: 8 MB of them are turned across the diagonal, 32 × 32 at a time, "
    "and written to rows 8 KB apart. cdist(x) takes 0.15 to 0.4 ms more than half of cdist(x, y), whatever the metric; "
    "1.82 leaves it 0.16 (dot, 3.3 ms) to 0.28 (cosine, 5.6), and minkowski, where distances take longest, has its "
    "half. Transposes of 16 × 16 in registers, out of a buffer instead of the result, a part of them between the next "
    "tile's distances, tiles of 64 rows, and calling for the lines to be written sooner, later or not, made 3 % at most"
)
FIFTIETH = "memory: a fiftieth of torch's time, 2.5 ms, is less than np.multiply takes, 3.1"
PACKED = (
    "for p ≠ ½ the frozen mapping takes a byte of Philox for each decision, whichever form the mask has; for p = ½ it "
    "takes a bit, and the packed mask is those bits. With AVX-512 16 bytes cost 7 vector instructions: 459,000 for "
    "2²⁰, a third of them products, for which there are two pipes of four: 41 µs. Both forms need that, and the ties: "
    "one element in 256, ten instructions a register to find them and a Philox for each. All that the packed form is "
    "spared is to store 64 bytes rather than 8 of each register, 16,384 times: 2 µs of 82. Were ties and packing "
    "free, it would be Philox's 41 µs, and just twice as fast"
)
PRODUCT = (
    "the product, which is NumPy's: XLA multiplies the same matrices in 0.6 of its time (the row dropconnect inference)"
)
SWEEPS = (
    "where runs of a channel are shorter than a page, memory is read twice: once for the sums, once for the result. At "
    "(256, 64, 8, 8) reading 4 MB takes 33 µs at the limit (that of norm p=1), and inference 101: summing that cost "
    "nothing would make 1.33 times inference, and sums of f32 in double make it 1.75. Reading it "
    "once, channel by channel, was slower in every arrangement tried (1 to 8 channels together, prefetches to either "
    "cache). Sums are kept by channel: each short run loads and stores its eight lanes of doubles. In the "
    "last sweep backward over columns, five vectors of parameters are loaded for two of data"
)
STEPS = (
    "five steps of a few microseconds each; a square root and six quotients a channel in the step between the sweeps"
)
CLAMPED = (
    "a comparison and an and for each vector: 1.00 to 1.04 at (256, 64, 8, 8), from run to run; at (32, 64, 56, 56) "
    "runs gave 0.92 to 1.08, either way by what memory does in them"
)
TURNS = (
    "the sums of a slice come before its results, in turns, and memory is asked evenly as far as prefetches do it. "
    "The arithmetic is most of the time: 16 elements are 21 vector instructions forward with AVX-512 (counted "
    "in the built isa_avx512.o), 14 of them in double since parameters are elements' own, 4 of these conversions, and "
    "32 backward: four sums that are widened, a scale in two parts and what rounding took from the mean, for 2 ulp. "
    "Two ulp leave no room for the last pass forward in f32: a difference, a product and two sums that round are 2.5. "
    "Backward reading and computing hardly overlap: instance_norm_backward takes 288 µs at (256, 64, 8, 8), in the "
    "third-level cache, or 882 for the elements of (64, 256, 14, 14), where the limit's three arrays take 412 and the "
    "call 960 to 1,220, from run to run. Summing the next pair of rows in turns with a part of this pair's gradients, "
    "and calling for rows sooner, later, or all in one of the two turns, were slower. And a result of 32 MiB, "
    "(8192, 1024), is more than glibc's malloc keeps: each call gets new pages, which the system clears first, torch's "
    "call as well; with 8100 rows either takes about half of the time"
)
SHORT = (
    "with AVX-512, four sums of 64 elements are 48 vector instructions, of which 8 are loads, and their gradients 36, "
    "beside the way from lanes to scalars, a root and quotients, which eight slices share; of arrays that begin within "
    "a line of the cache, as NumPy's do, backward reads whole lines and puts vectors together, 15 instructions more, "
    "where a vector across two lines costs two. So backward takes 2.6 times the limit's time where everything is in "
    "the third-level cache, and AVX2 1.5 times as long. Two of the sums, what rounding took from the mean and whether "
    "f32 keeps to 2 ulp, are two fifths of the sums' additions. Where it is not in the cache, at (64, 256, 14, 14), "
    "reading and computing hardly overlap: with 32 groups 245 µs at (256, 64, 8, 8) are 750 for as many elements, the "
    "limit takes 387, the call 907"
)
SHARE = (
    "beside it stands what threads would gain that cost nothing: the whole on one thread over one thread's share of it "
    "alone. Where that is near 1.8 or below, two cores get no more from the caches and the memory they share; the rest "
    "is the pool's: about a microsecond to post a job and to see it done, and, where another process took a worker's "
    "CPU for a millisecond, calls that stay on one thread for eight: rows of a large spread, or of no gain"
)
BY_ROW = ("softmax", "log_softmax", "softmax_backward", "log_softmax_backward")
ONE_ROW = (
    "a vector is one row, and a row is one thread's, for its sum has one order; (4096, 1000) takes two threads "
    "about half the time"
)
ANEW = ("soft_threshold fresh output", "normalize_backward rows")
FRESH = (
    "the result is fresh memory, whose pages the kernel clears during the call, for several threads no faster than "
    "for one: soft_threshold of 2²⁴ takes 5.7 ms so, 2.8 ms with out="
)
TARGETS = [
    Target("soft_threshold", "np.multiply", 1.05, ((16 * K,), (M,), (16 * M,))),
    Target("soft_threshold", "np.multiply", 0.7, ((1000,),)),
    Target("soft_threshold fresh output", "np.multiply", NO_SLOWER, binding=FRESH),
    Target("sgd_step", "limit", 1.05, ((M,), (16 * M,), (64 * M,)), binding=SHARED),
    Target("sgd_step", "torch", NO_SLOWER),
    Target("sgd_step", "numba", NO_SLOWER),
    Target("adam_step", "limit", 1.1, BIG),
    Target("adam_step", "torch", NO_SLOWER),
    *(
        target
        for optimiser in ("SGD", "AdamW", *(optimiser for *_, optimiser in UPDATES))
        for target in (
            Target(f"{optimiser} 100 tensors of 1,000", "torch", 1 / 8, binding=TORCHS),
            Target(f"{optimiser} ResNet-50's tensors", "torch", NO_SLOWER),
            Target(f"{optimiser} ResNet-50's tensors", "limit", 1.1),
        )
        if target.against != "torch" or optimiser != "FTRL"  # torch has none
    ),
    *(Target(function, "limit", 1.1, BIG) for function, *_ in UPDATES),
    *(Target(function, "numba", NO_SLOWER, binding=APPROXIMATE) for function, *_ in UPDATES),
    Target("ftrl_step_sparse", "numba", NO_SLOWER),
    *(
        target
        for function in ("dropout", "dropout_backward")
        for target in (
            Target(f"{function} p=0.5", "np.multiply", 1.3, MIDDLE),
            Target(f"{function} p=0.1", "np.multiply", 1.8, MIDDLE),
            *(Target(f"{function} p={p}", "np.multiply", 1.15, BIG) for p in (0.5, 0.1)),
        )
    ),
    *(Target(f"dropout {what}", "np.multiply", 1.8, MIDDLE) for what in OTHER),
    # What a user of torch calls; its fastest way, uniform numbers and a comparison, is among the peers too.
    Target("dropout p=0.5", "torch native", 1 / 50, MIDDLE + BIG),
    Target("dropout p=0.1", "torch native", 1 / 50, MIDDLE),
    Target("dropout p=0.1", "torch native", 1 / 50, BIG, binding=FIFTIETH),
    Target("dropout of channels", "np.multiply", 1.15, binding=RUNS),
    Target("dropout_mask packed p=0.5", "row dropout_mask boolean p=0.5", 1 / 2, MIDDLE),
    Target("dropout_mask packed p=0.1", "row dropout_mask boolean p=0.1", 1 / 2, MIDDLE, binding=PACKED),
    *(
        Target(row, library, NO_SLOWER, binding=PRODUCT if library == "jax" else "")
        for row in ("dropconnect", "dropconnect_backward")
        for library in ("numpy", "torch", "jax")
    ),
    Target("batch_norm training", "row batch_norm inference", 1.3, IMAGES[:3], binding=SWEEPS),
    Target("batch_norm training", "torch", 1 / 6, IMAGES[:3], binding=SWEEPS),
    Target("batch_norm training", "torch", 1 / 1.5, IMAGES[3:], binding=STEPS),
    Target("batch_norm_backward", "torch", 1 / 2, binding=SWEEPS),
    Target("batch_norm training with ReLU", "plain", NO_SLOWER, binding=CLAMPED),
    *(
        Target(f"{kind}_norm over {n}", "torch", 1 / 1.5, binding=TURNS)
        for kind in ("layer", "rms")
        for n in (768, 1024)
    ),
    *(Target(f"{kind}_norm_backward", "torch", 1 / 2, binding=TURNS) for kind in ("layer", "rms", "instance")),
    *(Target(f"group_norm {n} groups", "torch", 1 / 1.5, binding=SHORT) for n in (8, 32)),
    *(Target(f"group_norm_backward {n} groups", "torch", 1 / 2, binding=SHORT) for n in (8, 32)),
    Target("instance_norm", "torch", 1 / 1.5),
    *(Target(f"{loss} with gradient", "limit", 1.1, MIDDLE + BIG, binding=KEPT) for loss in LOSSES[:4]),
    *(Target(loss, "limit", 1.1, MIDDLE + BIG, binding=CHUNKS) for loss in LOSSES[:4]),
    *(Target(f"{loss} with gradient", "torch", 1 / 3) for loss in LOSSES),
    *(Target(f"cross_entropy{what}", "torch", 1 / 2, binding=TWICE) for what in ("", " with gradient")),
    *(
        Target(f"{function}{what}", "torch", 1)
        for function in ("sigmoid", "softmax", "log_softmax")
        for what in ("", "_backward")
    ),
    *(Target(function, "scipy.special", 1) for function in ("sigmoid", "softmax", "log_softmax")),
    *(Target(name, "np.multiply", 1.1, MIDDLE + BIG) for name in ELEMENTWISE),
    *(
        Target(row.name, "np.multiply", 1.1, binding=FEATURES if row.function in TWO_NUMBERS else "")
        for row in ROWS
        if row.what == "a weight a feature"
    ),
    Target("prox_l2", "limit", 1.2, MILLION, binding=NORM_FIRST),
    Target("project_l2_ball", "limit", 1.2, MILLION, binding=NORM_FIRST),
    *(
        Target(
            f"prox_{sparse}group_lasso {what}",
            "limit",
            1.2,
            threads="one",
            binding=GROUPS_BIND[what],
        )
        for sparse in ("", "sparse_")
        for what in ("rows", "rows of 8", "columns", "labels")
    ),
    *(Target(row.name, "numpy", 1 / 10, MILLION) for row in ROWS if row.function in SIMPLICES),
    *(Target(f"norm p={p}", "limit", 1.1, MIDDLE + BIG, binding=READING) for p in (1, 2, np.inf)),
    *(Target(f"norm p={p}, rows", "limit", 1.1, binding=ROWWISE) for p in (1, 2, np.inf)),
    *(Target(f"norm p={p}, columns", "limit", 1.1, binding=COLUMNWISE) for p in (1, 2, np.inf)),
    *(Target(f"norm p={p}{what}", "torch", NO_SLOWER) for what in ("", ", rows", ", columns") for p in (1, 2, np.inf)),
    Target("normalize rows", "torch", NO_SLOWER),
    Target("cosine_similarity rows", "torch", NO_SLOWER),
    *(Target(f"cdist {metric}", "scipy", 1 / 5) for metric in METRICS[:6]),
    *(Target(f"cdist {metric}", "torch", NO_SLOWER) for metric in METRICS),
    *(Target(f"cdist {metric}, itself", f"row cdist {metric}", 0.55, binding=MIRRORED) for metric in METRICS),
    Target("box_iou", "torch", 1 / 2),
    *(Target(f"{kind}_loss with gradient", "torch", 1 / 3) for kind in ("giou", "diou", "ciou")),
    *(
        Target(row.name, "1 thread", 1 / 1.8, middle(row), "all", binding=ONE_ROW if row.function in BY_ROW else SHARE)
        for row in ROWS
        if middle(row)
    ),
    *(
        Target(row.name, "1 thread", NO_SLOWER, threads="all", binding=FRESH if row.name in ANEW else "")
        for row in ROWS
    ),
    *(
        Target(
            row.name,
            "fastreg",
            1.25,
            large(row),
            threads="one",
            what="avx2",
            binding=AVX2.get(row.name, AVX2.get(row.function, "")),
        )
        for row in ROWS
    ),
]

# README's table: its words, the row, the shape. It stands between these two lines.
SUMMARY_BEGINS, SUMMARY_ENDS = "<!-- made by make bench: -->", "<!-- end -->"
SUMMARY = [
    ("soft threshold, 1,000 elements", "soft_threshold", (1000,)),
    ("soft threshold, 2²⁰", "soft_threshold", (M,)),
    ("SGD with momentum and decay, 1,000", "sgd_step", (1000,)),
    ("SGD with momentum and decay, 2²⁰", "sgd_step", (M,)),
    ("dropout, p = 0.5, 2²⁰", "dropout p=0.5", (M,)),
    ("dropout, p = 0.1, 2²⁰", "dropout p=0.1", (M,)),
    ("batch norm, training, (32, 64, 56, 56)", "batch_norm training", IMAGES[0]),
    ("batch norm, backward, (32, 64, 56, 56)", "batch_norm_backward", IMAGES[0]),
    ("smooth L1 with gradient, 2²⁰", "smooth_l1_loss with gradient", (M,)),
]
