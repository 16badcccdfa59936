"""Fails each allocation of each Case's call and of the optimisers' steps in turn: MemoryError, no change, no leak.

Run by test_memory.py under tests/c/failing.c, which counts them. NumPy itself loses the error at some of its own
allocations (a SystemError then) and crashes at others, so those count for what has changed alone:

    python tests/failing.py [part of a name …]
"""

import ctypes
import gc
import os
import sys
import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
from cases import CASES, Case

import fastreg
from fastreg import optim

NONE, FASTREG, NUMPY, OTHERS, NUMPYS_CRASH = 0, 1, 2, 3, 77
ROUND, ROUNDS = 20, 20  # a leak goes on; caches fill
allocator = ctypes.CDLL(None)
arm, disarm, live_blocks = allocator.failing_arm, allocator.failing_disarm, allocator.failing_live
arm.argtypes, arm.restype, live_blocks.restype = [ctypes.c_long], None, ctypes.c_long


def fail(call, nth: int):
    """Whose allocation failed, and what the call raised."""
    arm(nth)
    try:
        call()
    except BaseException as error:
        whose = disarm()
        return whose, type(error).__name__
    return disarm(), ""


@dataclass
class Call:
    """A Case's call; `prepare` gives the arrays that it must leave alone, and itself, afresh each time."""

    case: Case
    in_place: bool = False

    @property
    def id(self) -> str:
        return f"{self.case.id} in place" if self.in_place else self.case.id

    def prepare(self):
        """In place, `out` is the first of the arrays."""
        shape = max((s for s in self.case.shapes if len(s) > 0), key=np.prod)
        arrays = self.case.make(shape, np.float32)
        out = {"out": next(iter(arrays.values()))} if self.in_place else {}
        return (lambda: arrays), partial(getattr(fastreg, self.case.function), **arrays, **self.case.options, **out)

    def fits(self) -> bool:
        """Whether the result could be put into the first of the arrays."""
        arrays, call = Call(self.case).prepare()
        returned = call()
        result = np.asarray(returned[0] if isinstance(returned, tuple) else returned)
        first = next(iter(arrays().values()))
        return self.case.out and (result.shape, result.dtype) == (first.shape, first.dtype)


@dataclass
class Step:
    """The first step of an optimiser, which makes momentum buffers, or the second."""

    kind: type
    options: dict
    steps: int

    @property
    def id(self) -> str:
        return f"{self.kind.__name__}, step {self.steps + 1}"

    def prepare(self):
        rng = np.random.default_rng(0)
        params = [rng.standard_normal(shape).astype(np.float32) for shape in ((7,), (3, 5), (300,))]
        grads = [rng.standard_normal(p.shape).astype(np.float32) for p in params]
        optimiser = self.kind(params, **self.options)
        for _ in range(self.steps):
            optimiser.step(grads)

        def arrays():
            state = optimiser.state_dict()
            made = {f"{i}.{name}": x for i, of in state["state"].items() for name, x in of.items() if x is not None}
            return dict(enumerate(params)) | made | {"step": np.array(state["step"])}

        return arrays, partial(optimiser.step, grads)


def fail_one(call: Call | Step, nth: int) -> str:
    """What is wrong when the nth allocation fails; "" if nothing is, "end" where the call makes fewer."""
    before = {name: x.tobytes() for name, x in call.prepare()[0]().items()}
    live = live_blocks()
    for k in range(1, ROUNDS * ROUND + 1):
        arrays, prepared = call.prepare()
        whose, raised = fail(prepared, nth)
        if whose == NONE:
            return "end"
        # The call is over, or has not begun; and NumPy gets by without some of what it asks for.
        if whose == OTHERS or (whose == NUMPY and raised == ""):
            return ""
        if raised != "MemoryError" and not (whose == NUMPY and raised == "SystemError"):
            return f"raised {raised or 'nothing'}"
        if {name: x.tobytes() for name, x in arrays().items()} != before:
            return f"raised {raised}, yet changed an array"
        del arrays, prepared
        if k % ROUND == 0:
            gc.collect()  # it empties Python's lists of objects kept for later use
            growth, live = live_blocks() - live, live_blocks()
            if growth < ROUND or whose == NUMPY:
                return ""
    return f"leaks {growth / ROUND:g} blocks a call"


def fail_all(call: Call | Step) -> tuple[int, int, list[str]]:
    """How many allocations were failed, how many of these crashed NumPy, what was wrong. Children do the work."""
    nth, crashes, wrong = 1, 0, []
    while True:
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            allocator.failing_watch_crashes()
            while (problem := fail_one(call, nth)) == "":
                os.write(writes, b".")
                nth += 1
            os.write(writes, problem.encode())
            os._exit(0)
        os.close(writes)
        with os.fdopen(reads) as pipe:
            told = pipe.read()
        problem = told.lstrip(".")
        nth += len(told) - len(problem)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if problem == "end":
            return nth - 1, crashes, wrong
        crashes += status == NUMPYS_CRASH
        if status != NUMPYS_CRASH:
            wrong.append(f"allocation {nth}: {problem or f'crashed ({status})'}")
        nth += 1


def main(calls: list[Call | Step]) -> int:
    total, crashed, failures = 0, 0, 0
    for call in calls:
        failed, crashes, wrong = fail_all(call)
        for what in wrong:
            print(f"{call.id}, {what}")
        total, crashed, failures = total + failed, crashed + crashes, failures + len(wrong)
    print(f"{total:,} allocations of {len(calls)} calls failed, {crashed} of them crashed NumPy; {failures} wrong")
    return failures


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    fastreg.set_num_threads(1)
    gc.freeze()
    calls = [Call(case, in_place) for case in CASES for in_place in (False, True)]
    calls = [call for call in calls if not call.in_place or call.fits()]
    for kind, options in (
        (optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (optim.AdamW, {"lr": 0.1}),
        (optim.Adagrad, {"lr": 0.1}),
        (optim.RMSprop, {"lr": 0.1, "momentum": 0.9}),
        (optim.FTRL, {}),
    ):
        calls += [Step(kind, options, steps) for steps in (0, 1)]
    sys.exit(main([call for call in calls if len(sys.argv) == 1 or any(a in call.id for a in sys.argv[1:])]) > 0)
