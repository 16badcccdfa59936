"""Fails each allocation of each Case's call in turn: a MemoryError, nothing changed, nothing leaked.

Run by test_memory.py under tests/c/failing.c, which counts them. NumPy itself loses the error at some of its own
allocations (a SystemError then) and crashes at others, so those count for what has changed alone:

    python tests/failing.py [case …]
"""

import ctypes
import gc
import os
import sys
import warnings

import numpy as np
from cases import CASES, Case

import fastreg

NONE, FASTREG, NUMPY, OTHERS, NUMPYS_CRASH = 0, 1, 2, 3, 77
ROUND, ROUNDS = 20, 20  # a leak goes on; caches fill
allocator = ctypes.CDLL(None)
arm, disarm, live_blocks = allocator.failing_arm, allocator.failing_disarm, allocator.failing_live
arm.argtypes, arm.restype, live_blocks.restype = [ctypes.c_long], None, ctypes.c_long


def fail(function, arguments: dict, nth: int):
    """Whose allocation failed, and what the call raised."""
    arm(nth)
    try:
        function(**arguments)
    except BaseException as error:
        whose = disarm()
        return whose, type(error).__name__
    return disarm(), ""


def arguments_of(case: Case, in_place: bool) -> tuple[dict, dict]:
    """(the arrays, all arguments): a fresh set. In place, `out` is the first of the arrays."""
    shape = max((s for s in case.shapes if len(s) > 0), key=np.prod)
    arrays = case.make(shape, np.float32)
    return arrays, arrays | dict(case.options) | ({"out": next(iter(arrays.values()))} if in_place else {})


def fail_one(case: Case, in_place: bool, nth: int) -> str:
    """What is wrong when the nth allocation fails; "" if nothing is, "end" where the call makes fewer."""
    function = getattr(fastreg, case.function)
    before, _ = arguments_of(case, in_place)
    live = live_blocks()
    for k in range(1, ROUNDS * ROUND + 1):
        arrays, arguments = arguments_of(case, in_place)
        whose, raised = fail(function, arguments, nth)
        if whose == NONE:
            return "end"
        # The call is over, or has not begun; and NumPy gets by without some of what it asks for.
        if whose == OTHERS or (whose == NUMPY and raised == ""):
            return ""
        if raised != "MemoryError" and not (whose == NUMPY and raised == "SystemError"):
            return f"raised {raised or 'nothing'}"
        changed = [name for name, x in arrays.items() if x.tobytes() != before[name].tobytes()]
        if changed:
            return f"raised {raised}, yet changed {', '.join(changed)}"
        del arrays, arguments
        if k % ROUND == 0:
            gc.collect()  # it empties Python's lists of objects kept for later use
            growth, live = live_blocks() - live, live_blocks()
            if growth < ROUND or whose == NUMPY:
                return ""
    return f"leaks {growth / ROUND:g} blocks a call"


def fail_all(case: Case, in_place: bool) -> tuple[int, int, list[str]]:
    """How many allocations were failed, how many of these crashed NumPy, what was wrong. Children do the work."""
    nth, crashes, wrong = 1, 0, []
    while True:
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            allocator.failing_watch_crashes()
            while (problem := fail_one(case, in_place, nth)) == "":
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


def main(cases: list[Case]) -> int:
    total, crashed, failures = 0, 0, 0
    for case in cases:
        arrays, arguments = arguments_of(case, False)
        returned = getattr(fastreg, case.function)(**arguments)
        result = np.asarray(returned[0] if isinstance(returned, tuple) else returned)
        first = next(iter(arrays.values()))
        fits = case.out and (result.shape, result.dtype) == (first.shape, first.dtype)
        for in_place in (False, True) if fits else (False,):
            failed, crashes, wrong = fail_all(case, in_place)
            for what in wrong:
                print(f"{case.id}{' in place' if in_place else ''}, {what}")
            total, crashed, failures = total + failed, crashed + crashes, failures + len(wrong)
    print(f"{total:,} allocations of {len(cases)} calls failed, {crashed} of them crashed NumPy; {failures} wrong")
    return failures


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    fastreg.set_num_threads(1)
    gc.freeze()
    sys.exit(main([case for case in CASES if case.id in sys.argv[1:] or len(sys.argv) == 1]) > 0)
