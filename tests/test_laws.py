"""The laws of the house (CONTRIBUTING.md), for every Case × dtype."""

import copy
import inspect
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bits import same_bits
from cases import CASES, Case
from conftest import DTYPES, ISAS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts import LAYOUTS, NATIVE, exchanged

import fastreg
from fastreg import fastreg_runtime as runtime
from fastreg import reference

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
with_out = pytest.mark.parametrize("case", [c for c in CASES if c.out], ids=lambda case: case.id)

SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 0.0)


def specials(dtype):
    info = np.finfo(dtype)
    return [*SPECIAL, info.smallest_subnormal, -info.smallest_normal / 2, info.max, -info.max]


def run(case: Case, inputs, **more):
    """The results of a call on copies of the inputs (a copy keeps nothing of a layout: see `run_as_is`)."""
    return case.call(fastreg, copy.deepcopy(inputs), **more)


def run_as_is(case: Case, inputs, **more):
    with np.errstate(all="ignore"):
        return [r.copy() for r in case.call(fastreg, inputs, **more)]


def close(case: Case, got, wanted, dtype, inputs) -> None:
    assert len(got) == len(wanted)
    for g, w in zip(got, wanted, strict=True):
        assert g.shape == w.shape
        if g.dtype.kind != "f":
            assert np.array_equal(g, w)
            continue
        assert np.array_equal(np.isnan(g), np.isnan(w))
        infinite = np.isinf(w)
        assert np.array_equal(g[infinite], w[infinite])
        finite = np.isfinite(w)
        if not finite.any():
            continue
        g, w = g[finite].astype(np.longdouble), w[finite].astype(np.longdouble)
        scale = np.abs(w) if case.elementwise and not case.cancels else np.abs(w).max()
        if case.cancels:
            scale = max(scale, 1, *(np.abs(x[np.isfinite(x)]).max(initial=0) for x in inputs.values()))
        ulp = np.spacing(np.nextafter(np.asarray(scale, dtype), dtype(0)))
        assert np.all(np.abs(g - w) <= case.ulps[dtype] * ulp)


# ---- exact to its formula ----------------------------------------------------------------------------------------


@every_case
@every_dtype
def test_agrees_with_the_reference(case, dtype):
    for shape in (*case.shapes, case.large):
        inputs = case.make(shape, dtype)
        close(case, run(case, inputs), case.call(reference, copy.deepcopy(inputs)), dtype, inputs)


@every_case
@every_dtype
def test_dtype_is_kept(case, dtype):
    for result in run(case, case.make(case.shapes[-1], dtype)):
        assert result.dtype == (np.float64 if case.wide else dtype) or result.dtype.kind != "f" or result.ndim == 0


@pytest.mark.parametrize("case", [c for c in CASES if c.elementwise], ids=lambda case: case.id)
@every_dtype
@pytest.mark.parametrize("isa", ISAS)
def test_special_values_at_every_position(case, dtype, isa):
    """A NaN, infinity, zero or subnormal changes its own element, as in the reference, and no other."""
    runtime._use_isa(isa)
    for shape in ((1,), (16,), (33,), (65,), (2048 + 33,)):
        n = shape[0]
        positions = range(n) if n <= 65 else (0, 2047, 2048, n - 1)
        names = list(case.make(shape, dtype))
        for name in names:
            plain = case.make(shape, dtype)
            before = run(case, plain)
            for k, position in enumerate(positions):
                inputs = copy.deepcopy(plain)
                values = specials(dtype)
                for value in values if n == 1 else values[k % len(values) :][:1]:
                    inputs[name][position] = value
                    with np.errstate(all="ignore"):
                        after = run(case, inputs)
                        wanted = case.call(reference, copy.deepcopy(inputs))
                    close(case, after, wanted, dtype, inputs)
                    others = np.arange(n) != position
                    same_bits([r[others] for r in after], [r[others] for r in before], (shape, name, position, value))


# ---- same bits ---------------------------------------------------------------------------------------------------


@every_case
@every_dtype
def test_same_bits_on_every_instruction_set(case, dtype):
    for shape in (*case.shapes, case.large):
        inputs = case.make(shape, dtype)
        runtime._use_isa("baseline")
        wanted = run(case, inputs)
        for isa in ISAS[1:]:
            runtime._use_isa(isa)
            same_bits(run(case, inputs), wanted, (isa, shape))


@every_case
@every_dtype
def test_same_bits_for_every_thread_count(case, dtype, pool):
    inputs = case.make(case.large, dtype)
    fastreg.set_num_threads(1)
    wanted = run(case, inputs)
    for threads in (*range(2, 9), 64):
        fastreg.set_num_threads(threads)
        for _ in range(3):
            same_bits(run(case, inputs), wanted, threads)


@every_case
@every_dtype
def test_same_bits_in_every_layout(case, dtype):
    shapes = [s for s in case.shapes if len(s) != 1 or s[0] in (1, 2, 65)]
    for shape in (*shapes, case.large):
        plain = case.make(shape, dtype)
        wanted = run(case, plain)
        for name in plain:
            for kind, relaid in (NATIVE if name in case.inplace else LAYOUTS).items():
                inputs = copy.deepcopy(plain)
                inputs[name] = relaid(inputs[name])
                same_bits(run_as_is(case, inputs), wanted, (shape, name, kind))
        for kind, relaid in NATIVE.items():
            inputs = {name: relaid(x) for name, x in copy.deepcopy(plain).items()}
            same_bits(run_as_is(case, inputs), wanted, (shape, "all", kind))


def past_the_caches(case: Case, dtype) -> tuple[int, ...]:
    """A shape of which an array of the call has 16 MiB, from where on results are written past the caches.

    With more than one axis wherever the Case takes them: permuted, its rows are no contiguous array.
    """
    axes = min(3, max(len(s) for s in case.shapes))
    shape = case.large
    if len(shape) == 1 < axes:
        shape = (3, 5, 1029)[3 - axes :]
    elif len(shape) < axes:
        shape = (4, shape[0] // 4 | 1, *shape[1:])
    while True:
        inputs = case.make(shape, dtype)
        if max(x.nbytes for x in (*inputs.values(), *run(case, inputs))) >= 1 << 24:
            return shape
        shape = (2 * shape[0], *shape[1:])


@pytest.mark.big
@every_case
@every_dtype
def test_same_bits_past_the_caches(case, dtype):
    shape = past_the_caches(case, dtype)
    plain = case.make(shape, dtype)
    runtime._use_isa("baseline")
    fastreg.set_num_threads(1)
    wanted = run(case, plain)
    for isa, threads in zip(ISAS, (2, 3, 1), strict=False):
        runtime._use_isa(isa)
        fastreg.set_num_threads(threads)
        same_bits(run(case, plain), wanted, (isa, shape))
        for relaid in (NATIVE["permuted"], NATIVE["offset"], exchanged):
            inputs = {name: relaid(x) for name, x in copy.deepcopy(plain).items()}
            same_bits(run_as_is(case, inputs), wanted, (isa, shape, relaid.__name__))


@every_case
@settings(
    max_examples=int(os.environ.get("FASTREG_EXAMPLES", "25")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_same_bits_whatever_comes_together(case, data):
    """Dtype, shape, a layout for each argument, instruction set, threads: any mixture."""
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(st.sampled_from((*case.shapes, case.large)))
    runtime._use_isa("baseline")
    fastreg.set_num_threads(1)
    plain = case.make(shape, dtype, data.draw(st.integers(0, 99)))
    wanted = run(case, plain)
    runtime._use_isa(data.draw(st.sampled_from(ISAS)))
    runtime._ignore_cutoffs(data.draw(st.booleans()))
    fastreg.set_num_threads(data.draw(st.integers(1, 8)))
    inputs = copy.deepcopy(plain)
    for name in inputs:
        kind = data.draw(st.sampled_from(["as is", *(NATIVE if name in case.inplace else LAYOUTS)]))
        if kind != "as is":
            inputs[name] = LAYOUTS[kind](inputs[name])
    same_bits(run_as_is(case, inputs), wanted)


@every_case
def test_same_bits_from_many_python_threads(case, pool):
    inputs = case.make(case.large, np.float32)
    wanted = run(case, inputs)
    with ThreadPoolExecutor(8) as callers:
        for got in callers.map(lambda _: run(case, inputs), range(32)):
            same_bits(got, wanted)


# ---- in place, out, overlap --------------------------------------------------------------------------------------


@every_case
@every_dtype
def test_inputs_are_left_alone(case, dtype):
    inputs = case.make(case.shapes[-1], dtype)
    before = copy.deepcopy(inputs)
    case.call(fastreg, inputs)
    for name, x in inputs.items():
        if name not in case.inplace:
            same_bits([x], [before[name]], name)


@every_case
@every_dtype
def test_read_only_inputs_work(case, dtype):
    inputs = case.make(case.shapes[-1], dtype)
    wanted = run(case, inputs)
    for name, x in inputs.items():
        if name not in case.inplace:
            x.flags.writeable = False
    same_bits(run_as_is(case, inputs), wanted)


@with_out
@every_dtype
def test_out_in_every_layout(case, dtype):
    for shape in [s for s in case.shapes if len(s) != 1] + [(33,), case.large]:
        if shape not in (*case.shapes, case.large):
            continue
        inputs = case.make(shape, dtype)
        wanted = run(case, inputs)
        for kind, relaid in LAYOUTS.items():
            out = relaid(np.full(wanted[0].shape, 9, wanted[0].dtype))
            got = run(case, inputs, out=out)
            same_bits([out.astype(dtype)], wanted[:1], (shape, kind))
            same_bits(got[1:], wanted[1:], (shape, kind))


@with_out
@every_dtype
def test_out_is_returned(case, dtype):
    inputs = case.make(case.shapes[-1], dtype)
    out = np.empty_like(run(case, inputs)[0])
    returned = getattr(fastreg, case.function)(**inputs, **case.options, out=out)
    assert (returned[0] if isinstance(returned, tuple) else returned) is out


@with_out
@every_dtype
@pytest.mark.parametrize("shift", [-33, -1, 0, 1, 2048])
def test_out_may_overlap_any_input(case, dtype, shift):
    """As if the inputs had been copied first, in place (shift 0) and partly."""
    shape = case.large
    inputs = case.make(shape, dtype)
    wanted = run(case, inputs)
    for name in inputs:
        if inputs[name].shape != wanted[0].shape or inputs[name].dtype != wanted[0].dtype:
            continue
        memory = np.zeros(wanted[0].size + 4096, dtype)
        place = memory[2048 : 2048 + wanted[0].size].reshape(wanted[0].shape)
        place[...] = inputs[name]
        start = 2048 + shift
        out = memory[start : start + wanted[0].size].reshape(wanted[0].shape)
        same_bits(run_as_is(case, inputs | {name: place}, out=out)[:1], wanted[:1], (name, shift))


# ---- every array a user can hold ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in CASES if not c.inplace], ids=lambda case: case.id)
@pytest.mark.parametrize(
    ("given", "computed"),
    [("bool", "f8"), ("i1", "f8"), ("u8", "f8"), ("i4", "f8"), ("f2", "f4"), (">f4", "f4"), (">f8", "f8")],
)
def test_dtypes_that_are_converted(case, given, computed):
    first = next(iter(case.make(case.shapes[-1], np.float64)))
    inputs = case.make(case.shapes[-1], np.float64)
    inputs[first] = np.abs(inputs[first] * 3).astype(given)
    labels = [name for name, x in inputs.items() if x.dtype.kind == "i" and name != first]
    converted = {name: x if name in labels else np.asarray(x, np.dtype(computed)) for name, x in inputs.items()}
    others = {name: converted[name] if name != first else inputs[first] for name in inputs}
    same_bits(run_as_is(case, others), run_as_is(case, converted))


@every_case
def test_lists_are_arrays_and_scalars_come_back(case):
    for shape in case.shapes[-1:]:
        inputs = case.make(shape, np.float64)
        aslist = {name: x if name in case.inplace else x.tolist() for name, x in copy.deepcopy(inputs).items()}
        same_bits(run_as_is(case, aslist), run(case, inputs))
    if () in case.shapes and not case.inplace:
        returned = getattr(fastreg, case.function)(**case.make((), np.float32), **case.options)
        for result in returned if isinstance(returned, tuple) else (returned,):
            assert np.isscalar(result)


class Foreign:
    """Another library's array: DLPack is all that it speaks."""

    def __init__(self, x):
        self.__dlpack__, self.__dlpack_device__ = x.__dlpack__, x.__dlpack_device__


@every_case
def test_what_dlpack_can_view(case):
    inputs = case.make(case.shapes[-1], np.float64)
    wanted = run(case, inputs)
    foreign = {name: x if name in case.inplace else Foreign(x) for name, x in inputs.items()}
    same_bits(run_as_is(case, foreign), wanted)


@every_case
@every_dtype
def test_empty_arrays(case, dtype):
    """Each argument in turn, and all: no NaN but a mean of nothing, or an error that names one; the state stays."""
    plain = case.make(max((s for s in case.shapes if len(s) > 0), key=np.prod), dtype)
    arrays = [name for name, x in plain.items() if x.ndim > 0]
    for emptied in (*([name] for name in arrays), arrays):
        inputs = copy.deepcopy(plain) | {name: plain[name][:0].copy() for name in emptied}
        before = copy.deepcopy(inputs)
        results, named = [], [""]
        try:
            results = case.call(fastreg, inputs)
        except (TypeError, ValueError) as error:
            named = [name for name in inputs if name in str(error)]
        assert named, emptied
        if results:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wanted = case.call(reference, copy.deepcopy(before))
            for got, want in zip(results, wanted, strict=True):
                assert got.shape == want.shape, emptied
                assert not np.any(np.isnan(got) & ~np.isnan(want)), emptied
        for name, x in inputs.items():
            same_bits([x], [before[name]], (emptied, name))


# ---- all or nothing ----------------------------------------------------------------------------------------------

BAD_ARRAYS = {
    "complex": np.zeros(3, complex),
    "object": np.array([None, 1, "a"], object),
    "text": np.array(["1.0", "2.0", "3.0"]),
    "longdouble": np.zeros(3, np.longdouble),
    "ragged": [[1.0], [1.0, 2.0]],
    "None": [None],
    "masked": np.ma.masked_array([1.0, 2.0, 3.0], mask=[0, 1, 0]),
}


def refused(case: Case, inputs, kinds, name: str, **more):
    """The call raises one of `kinds`, names the argument, and changes nothing."""
    before = copy.deepcopy(inputs)
    with pytest.raises(kinds, match=name):
        getattr(fastreg, case.function)(**inputs, **case.options, **more)
    for key, x in inputs.items():
        if isinstance(x, np.ndarray) and x.dtype.kind == "f":
            same_bits([x], [before[key]], key)


@every_case
@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_bad_arrays_are_refused(case, kind):
    for name in case.make(case.shapes[-1], np.float64):
        refused(case, case.make(case.shapes[-1], np.float64) | {name: BAD_ARRAYS[kind]}, (TypeError, ValueError), name)


@pytest.mark.parametrize("case", [c for c in CASES if c.inplace], ids=lambda case: case.id)
def test_bad_state_is_refused(case):
    shape = case.shapes[-1]
    for name in case.inplace:
        x = case.make(shape, np.float64)[name]
        read_only = x.copy()
        read_only.flags.writeable = False
        # An array that is updated alone may be of either dtype.
        others = [x.astype(np.float32)] if len(case.inplace) > 1 else []
        for bad in (read_only, *others, x.astype(">f8"), x.astype(int), x.tolist()):
            refused(case, case.make(shape, np.float64) | {name: bad}, TypeError, f"{name}|dtype")
        repeated = np.lib.stride_tricks.as_strided(np.zeros(1), x.shape, (0,) * x.ndim)
        for bad in (np.zeros((*x.shape, 2)), repeated) if x.size > 1 else ():
            refused(case, case.make(shape, np.float64) | {name: bad}, ValueError, "needed|broadcasts|shape")


@with_out
def test_bad_out_is_refused(case):
    inputs = case.make(case.shapes[-1], np.float64)
    result = run(case, inputs)[0]
    read_only = np.zeros_like(result)
    read_only.flags.writeable = False
    for bad, kind in (
        (result.astype(np.float32), TypeError),
        (result.astype(int), TypeError),
        (result.tolist(), TypeError),
        (np.zeros((*result.shape, 2)), ValueError),
        (read_only, ValueError),
    ):
        refused(case, inputs, kind, "out", out=bad)


@every_case
def test_unknown_and_missing_arguments_are_refused(case):
    inputs = case.make(case.shapes[-1], np.float64)
    refused(case, inputs, TypeError, "surprise", surprise=1)
    if case.options or len(inputs) > 1:
        with pytest.raises(TypeError):
            getattr(fastreg, case.function)()


@every_case
def test_signature_can_be_read(case):
    parameters = inspect.signature(getattr(fastreg, case.function)).parameters
    assert set(case.make(case.shapes[-1], np.float64)) | set(case.options) <= set(parameters)
