"""Every public function called wrongly in every way that its parameters allow, from one table of what a kind of
parameter refuses: a TypeError or ValueError that names the argument, and nothing changed."""

import copy
import datetime
import inspect

import numpy as np
import pytest
from cases import CASES
from conftest import DTYPES

import fastreg


class NotArray:
    def __array__(self, *_, **__):
        raise RuntimeError("no array")


NO_NUMBER = (
    "text", b"bytes", bytearray(b"x"), 1j, np.complex128(1), {}, {1}, object(), lambda: 1, type, ..., NotImplemented,
    datetime.timedelta(1), datetime.datetime(2020, 1, 1), range(0), slice(3), NotArray, np.datetime64("2020-01-01"),
    memoryview(b"abc"), iter(()), np.array(1j), np.array("1.5"), np.str_("1.5"), np.array(None), np.bytes_(b"1"),
)  # fmt: skip
NO_INTEGER = (
    1.5,
    2.0,
    np.float64(1),
    "1",
    b"1",
    1j,
    {},
    {1},
    object(),
    lambda: 1,
    ...,
    float("nan"),
    np.array([1.0, 2.0]),
)
NO_ARRAY = (
    np.zeros(3, complex), np.array([None, 1, "a"], object), np.array(["1.0", "2.0"]), np.array([b"1"]),
    np.zeros(3, np.longdouble), np.zeros(3, "M8[s]"), np.zeros(3, "m8[s]"), np.zeros(3, [("a", "f4")]),
    np.zeros(3, "V4"), [[1.0], [1.0, 2.0]], [None], ["a"], {}, {1.0}, object(), lambda: 1, ..., "text", b"bytes",
    1j, NotArray(), np.ma.masked_array([1.0, 2.0], mask=[0, 1]), datetime.timedelta(1),
)  # fmt: skip
NO_CHOICE = ("nonsense", "", "MEAN", 3, 1.5, b"mean", object(), [], {}, ("mean",), ...)

REAL = (*NO_NUMBER, None, [1.0, "a"], np.zeros((2, 2), object), float("nan"))
NONNEGATIVE = (*REAL, -1.0, -1, -5e-324, float("-inf"), -(10**400), np.float32(-2), np.int8(-3))
# What a parameter of that name refuses in every function;
REFUSED = {
    **dict.fromkeys(("lam", "l1", "l2"), NONNEGATIVE),
    **dict.fromkeys(("step", "lr", "eps", "radius", "gamma", "beta", "delta", "alpha", "weight_decay"), NONNEGATIVE),
    **dict.fromkeys(
        ("p", "momentum", "label_smoothing", "beta1", "beta2"), (*NONNEGATIVE, 1.5, 2, float("inf"), 10**400)
    ),
    **dict.fromkeys(("lower", "upper"), REAL),
    "total": NONNEGATIVE,
    "dampening": REAL,
    **dict.fromkeys(("seed", "offset", "start"), (*NO_INTEGER, None, True, np.True_, -1, 2**64, -(10**30))),
    **dict.fromkeys(("ignore_index",), (*NO_INTEGER, None, 2**64)),
    "axis": (*NO_INTEGER, 99, -99, 2**70),
    **dict.fromkeys(("reduction", "mode"), (*NO_CHOICE, None)),
    "activation": NO_CHOICE,
    "normalized_shape": (1.5, "1", (1.5,), [], (), 10**6, (10**6,), -1, object()),
    "num_groups": (*NO_INTEGER, None, 0, -1, 10**6),
    "metric": (*NO_CHOICE, None),
    "groups": ([0.5, 1.5], ["a", "b"], np.zeros(3, complex), {}, object(), [[[[1]]]]),
    "pos_weight": NO_ARRAY,
    "weights": (*NO_ARRAY, [[-1.0]], [[[float("nan")]]]),
}
ADAM_STEP = (*NO_INTEGER, None, 0, -1, 2**64)
# p is a power there, not a probability; a norm takes -inf, too.
A_NORM = (*REAL, -1.0, -1, -5e-324, -(10**400), np.float32(-2), np.int8(-3))
POWERS = {"cdist": (*NONNEGATIVE, 0, 0.0), "norm": A_NORM, "normalize": A_NORM, "normalize_backward": A_NORM}
# Parameters that take any object for its truth, or have a law of their own above or in their family's tests.
FREE = {
    "training",
    "return_grad",
    "return_stats",
    "decoupled",
    "nesterov",
    "packed",
    "shape",
    "keepdims",
    "use_input_stats",
}
OPTIONAL_ARRAYS = {name for case in CASES for name in case.make(case.shapes[-1], np.float64)}


def refused_by(case, name, dtype, inputs):
    """The bad values of one parameter, given the good ones."""
    if name == "out":
        good = inputs.get("x", next(iter(inputs.values())))
        read_only = np.zeros_like(good)
        read_only.flags.writeable = False
        other = np.float64 if dtype is np.float32 else np.float32
        bad = [*NO_ARRAY, good.tolist(), 1.0, np.float64(1), good.astype(other), good.astype(int)]
        bad += [good.astype(bool), np.zeros((*good.shape, 2), dtype), np.zeros((*good.shape, 1), dtype)]
        bad += [np.zeros((1, *good.shape), dtype), np.zeros(good.size + 7, dtype)]
        return [*bad, read_only, np.lib.stride_tricks.as_strided(np.zeros(1, dtype), good.shape, (0,) * good.ndim)]
    if name in inputs:
        x = inputs[name]
        if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
            return []
        bad = list(NO_ARRAY)
        if name in case.inplace:
            read_only = x.copy()
            read_only.flags.writeable = False
            bad += [
                read_only,
                x.astype(x.dtype.newbyteorder("S")),
                x.astype(int),
                x.astype(np.float16),
                x.tolist(),
                1.0,
            ]
        if name != next(iter(inputs)):  # no shape goes with that of the first
            bad += [np.zeros((*x.shape, 2, 3), dtype), np.zeros([n + 5 for n in (*x.shape, 7)], dtype)]
        return bad
    if name == "step" and case.function == "adam_step":
        return ADAM_STEP
    if name == "eps" and case.function == "rms_norm":  # None is the dtype's own epsilon
        return [bad for bad in REFUSED["eps"] if bad is not None]
    if name == "p" and case.function in POWERS:
        return POWERS[case.function]
    return REFUSED.get(name, NO_ARRAY if name in OPTIONAL_ARRAYS else ())


def fingerprint(arguments):
    return {name: (x.tobytes(), x.dtype, x.shape) for name, x in arguments.items() if isinstance(x, np.ndarray)}


COUNT = []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_a_bad_call_names_the_argument_and_changes_nothing(case, dtype):
    function = getattr(fastreg, case.function)
    shape = min((s for s in case.shapes if len(s) > 0 and np.prod(s) > 4), key=np.prod)
    wrong = []
    for name in inspect.signature(function).parameters:
        inputs = case.make(shape, dtype)
        good = copy.deepcopy(inputs) | dict(case.options)
        for bad in refused_by(case, name, dtype, inputs):
            if name == "out" and not case.out:
                continue
            arguments = good | {name: bad}
            before = fingerprint(arguments)
            COUNT.append(1)
            described = f"{case.function}({name}={bad!r:.60})"
            try:
                function(**arguments)
            except (TypeError, ValueError) as error:
                if name not in str(error):
                    wrong.append(f"{described}: does not name it: {error}")
            except BaseException as error:
                wrong.append(f"{described}: {type(error).__name__}: {error}")
            else:
                wrong.append(f"{described}: accepted")
            if fingerprint(arguments) != before:
                wrong.append(f"{described}: changed an argument")
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_parameter_is_in_the_table():
    for case in CASES:
        for name in inspect.signature(getattr(fastreg, case.function)).parameters:
            known = name in REFUSED or name in FREE or name in OPTIONAL_ARRAYS or name == "out"
            assert known, f"{case.function}: what does {name} refuse?"


def test_ten_thousand_of_them(request):
    if len(request.session.items) > 2 * len(CASES):  # the whole file runs, not a selection of it
        print(f"{sum(COUNT):,} bad calls")
        assert sum(COUNT) >= 10_000
