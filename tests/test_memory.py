"""Where memory ends: a MemoryError before any work, at whatever allocation; nothing leaks; more than 2^31 elements."""

import gc
import os
import platform
import subprocess
import sys
import sysconfig
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from cases import CASES

import fastreg

GLIBC = platform.libc_ver()[0] == "glibc"


@pytest.mark.parametrize("case", [c for c in CASES if c.out and c.elementwise], ids=lambda case: case.id)
def test_a_result_that_fits_nowhere(case):
    """2^46 elements that are one in memory: the result has no room, and that is said before any work."""
    inputs = case.make((1,), np.float32)
    huge = {name: np.broadcast_to(x, (1 << 46,)) for name, x in inputs.items()}
    with pytest.raises(MemoryError):
        getattr(fastreg, case.function)(**huge, **case.options)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_nothing_leaks(case):
    """Memory in use stays as it is over calls that work and calls that raise."""
    shape = max((s for s in case.shapes if len(s) > 0), key=np.prod)
    inputs = case.make(shape, np.float64)
    function = getattr(fastreg, case.function)
    blocks = []
    gc.freeze()  # what the other tests hold is not looked through again and again
    for _ in range(8):
        for _ in range(15):
            function(**inputs, **case.options)
            with pytest.raises(TypeError):
                function(**inputs | {next(iter(inputs)): object()}, **case.options)
        gc.collect()
        blocks.append(sys.getallocatedblocks())
    gc.unfreeze()
    # What leaks grows in every round; what Python and pytest keep for themselves comes to an end.
    assert min(after - before for before, after in pairwise(blocks)) < 15, blocks


@pytest.mark.skipif(not GLIBC, reason="interposes the allocator of the GNU C library")
def test_each_allocation_fails_in_turn(tmp_path):
    """A MemoryError, nothing changed, nothing leaked; in the children of a program with an allocator of its own."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    library = tmp_path / "failing.so"
    source = Path(__file__).parent / "c" / "failing.c"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = os.environ | {"PYTHONMALLOC": "malloc", "LD_PRELOAD": str(library), "PYTHONPATH": path}
    environ.pop("COVERAGE_PROCESS_CONFIG", None)  # its tracer does not survive an allocation that fails
    program = [sys.executable, Path(__file__).parent / "failing.py"]
    done = subprocess.run(program, env=environ, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.big
def test_more_than_2_to_the_31_elements():
    n = (1 << 31) + 4099
    x = np.ones(n, np.float32)
    x[-1] = x[n // 2] = -3.0
    assert fastreg.soft_threshold(x, 0.5, out=x) is x
    assert x[-1] == x[n // 2] == -2.5
    assert x[0] == x[(1 << 31) - 1] == x[1 << 31] == x[-2] == 0.5
    assert fastreg.l1_loss(x, np.broadcast_to(np.float32(0.5), n), reduction="sum") == 6.0
    fastreg.dropout(x, 0.5, seed=3, out=x)
    tail = fastreg.dropout(np.full(4099, 0.5, np.float32), 0.5, seed=3, start=1 << 31)
    assert np.array_equal(x[1 << 31 : -1], tail[:-1])
