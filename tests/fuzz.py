"""Differential fuzzing of the public functions: any instruction set, thread count and layout gives the same bits.

A call is a function of its seed: a Case, a shape, a dtype, the bytes of its arrays, its parameters. It is made once on
the baseline with one thread and plain arrays; then on the others, each argument in a layout of its own. A call that
raises must raise the same everywhere and change nothing. `test_fuzz.py` replays the first seeds; `make fuzz` runs a
million calls:

    python tests/fuzz.py [calls] [first seed]
"""

import collections
import copy
import sys
import time
import warnings

import numpy as np
from cases import CASES, Case
from conftest import DTYPES, ISAS
from layouts import LAYOUTS, NATIVE

import fastreg
from fastreg import fastreg_runtime as runtime

EDGES = (np.nan, np.inf, -np.inf, -0.0, 0.0, 5e-324, 1e-45, 1e-39, 3e38, -3e38, 1e308, 1.0, -1.0)
PARAMETERS = (0.0, 1e-300, 1e-40, 0.25, 0.5, 0.999, 1.0, 3.0, 1e10, 1e300, np.inf, -1.0, np.nan)


def values(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Other values for an array of floats: near what they were, special ones, or any bits at all."""
    if x.dtype.kind != "f" or x.size == 0:
        return x
    kind = rng.integers(4)
    if kind == 0:
        return x
    if kind == 1:
        bits = rng.integers(0, 256, x.nbytes, np.uint8)
        return np.frombuffer(bits.tobytes(), x.dtype).reshape(x.shape).copy()
    x = x.copy()
    with np.errstate(over="ignore", under="ignore"):
        if kind == 2:
            x *= x.dtype.type(10.0 ** rng.integers(-30, 30))
        flat = x.reshape(-1)
        flat[rng.integers(0, x.size, 1 + x.size // 8)] = np.asarray(rng.choice(EDGES), x.dtype)
    return x


def parameters(rng: np.random.Generator, case: Case) -> dict:
    """The Case's options, some of the real numbers among them replaced."""
    return {
        name: float(rng.choice(PARAMETERS)) if type(value) is float and rng.integers(4) == 0 else value
        for name, value in case.options.items()
    }


def outcome(case: Case, inputs: dict, options: dict):
    """What the call gave, as bytes in which every NaN is the same; or its exception."""
    function = getattr(fastreg, case.function)
    before = {name: np.array(x) for name, x in inputs.items()}
    try:
        returned = function(**inputs, **options)
    except (TypeError, ValueError) as error:
        changed = [name for name, x in inputs.items() if x.tobytes() != before[name].astype(x.dtype).tobytes()]
        return type(error).__name__, changed
    results = list(returned) if isinstance(returned, tuple) else [returned]
    return [canonical(r) for r in [*results, *(inputs[name] for name in case.inplace)] if r is not None]


def canonical(r) -> tuple:
    r = np.array(r)
    if r.dtype.kind == "f":
        r[np.isnan(r)] = np.nan
        r = r.astype(r.dtype.newbyteorder("="))
    return r.dtype.str, r.shape, r.tobytes()


def fuzz(seed: int) -> tuple[str, int]:
    """One case on everything there is. Returns the function and how many calls were made."""
    rng = np.random.default_rng(seed)
    case = CASES[rng.integers(len(CASES))]
    shape = case.large if rng.integers(200) == 0 else case.shapes[rng.integers(len(case.shapes))]
    dtype = DTYPES[rng.integers(2)]
    plain = {name: values(rng, x) for name, x in case.make(shape, dtype, int(rng.integers(100))).items()}
    options = parameters(rng, case)
    runtime._use_isa("baseline")
    runtime._ignore_cutoffs(False)
    fastreg.set_num_threads(1)
    wanted = outcome(case, copy.deepcopy(plain), options)
    for isa in ISAS:
        runtime._use_isa(isa)
        runtime._ignore_cutoffs(bool(rng.integers(2)))
        fastreg.set_num_threads(int(rng.integers(1, 6)))
        inputs = copy.deepcopy(plain)
        kinds = {}
        for name, x in inputs.items():
            if x.dtype.kind == "f" and rng.integers(2):
                kinds[name] = str(rng.choice(list(NATIVE if name in case.inplace else LAYOUTS)))
                inputs[name] = LAYOUTS[kinds[name]](x)
        got = outcome(case, inputs, options)
        where = f"seed {seed}: {case.id} {shape} {dtype.__name__} {options} on {isa}, {kinds}"
        assert got == wanted, where
        assert not (isinstance(got, tuple) and got[1]), f"{where} raised {got[0]} and changed {got[1]}"
    return case.function, 1 + len(ISAS)


def main(calls: int, seed: int) -> None:
    made, counts, started = 0, collections.Counter(), time.monotonic()
    warnings.simplefilter("ignore")
    first = seed
    while made < calls:
        function, n = fuzz(seed)
        seed += 1
        made += n
        counts[function] += n
        if seed % 50_000 == 0:
            print(f"{made:,} calls, {time.monotonic() - started:.0f} s", flush=True)
    print(f"{made:,} calls of {len(counts)} functions, seeds {first} to {seed - 1}, on {', '.join(ISAS)}; no mismatch")
    for function, n in sorted(counts.items()):
        print(f"  {function:<36} {n:,}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
