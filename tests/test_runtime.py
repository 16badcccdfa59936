"""Threads, instruction sets, and manners towards the process: each row of a failure seen in the field."""

import contextlib
import ctypes
import os
import platform
import signal
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from cases import CASES
from conftest import ISAS

import fastreg
from fastreg import fastreg_runtime as runtime
from fastreg.__main__ import show

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="interposes functions of the GNU C library")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
LARGE = 1 << 20


def python(code: str, **environ: str) -> subprocess.CompletedProcess:
    """Run a program in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=600,  # a program that hangs, not one on a busy machine or under an emulator
        check=False,
    )


def answer(code: str, **environ: str) -> str:
    done = python(code, **environ)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- threads -----------------------------------------------------------------------------------------------------


def test_threads_default_to_the_cpus_of_this_process():
    code = "import fastreg; print(fastreg.get_num_threads())"
    environ = {"FASTREG_NUM_THREADS": ""}
    if hasattr(os, "sched_getaffinity"):
        assert int(answer(code, **environ)) == len(os.sched_getaffinity(0))
        one = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); " + code
        assert answer(one, **environ) == "1"
    else:
        assert int(answer(code, **environ)) == os.cpu_count()


def test_threads_from_the_environment():
    assert answer("import fastreg; print(fastreg.get_num_threads())", FASTREG_NUM_THREADS="3") == "3"


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "²"])
def test_bad_threads_in_the_environment(value):
    done = python("import fastreg", FASTREG_NUM_THREADS=value)
    assert done.returncode == 1
    assert "ImportError: FASTREG_NUM_THREADS: got" in done.stderr


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-3, ValueError), (1.0, TypeError), ("2", TypeError), (True, TypeError)]
)
def test_bad_thread_counts(n, error):
    before = fastreg.get_num_threads()
    with pytest.raises(error, match="n: got"):
        fastreg.set_num_threads(n)
    assert fastreg.get_num_threads() == before


def test_set_num_threads():
    for n in (1, 2, 7, np.int64(3)):
        fastreg.set_num_threads(n)
        assert fastreg.get_num_threads() == n
    fastreg.set_num_threads(10**9)
    assert fastreg.get_num_threads() == 512


def test_threadpoolctl_finds_and_limits_the_pool():
    import fastreg.threadpools

    fastreg.set_num_threads(4)
    (info,) = (i for i in threadpoolctl.threadpool_info() if i["user_api"] == "fastreg")
    assert info["num_threads"] == 4
    assert info["version"] == fastreg.__version__
    with threadpoolctl.threadpool_limits(1):
        assert fastreg.get_num_threads() == 1
    with threadpoolctl.threadpool_limits({"fastreg": 2}):
        assert fastreg.get_num_threads() == 2
    assert fastreg.get_num_threads() == 4


def test_threadpoolctl_imported_first_is_enough():
    code = """
        import threadpoolctl, fastreg
        print([i["user_api"] for i in threadpoolctl.threadpool_info() if i["prefix"].startswith("fastreg")])
    """
    assert answer(code) == "['fastreg']"


# ---- the pool ----------------------------------------------------------------------------------------------------

USE_THREADS = """
    import os, sys, threading, numpy as np, fastreg
    from fastreg import fastreg_runtime as runtime
    fastreg.set_num_threads(4)
    runtime._ignore_cutoffs(True)
    x = np.linspace(-1, 1, 1 << 20)
    wanted = np.sign(x) * np.maximum(abs(x) - 0.25, 0)
    def use():
        assert np.array_equal(fastreg.soft_threshold(x, 0.25), wanted)
"""


@linux
def test_workers_start_late_and_only_for_large_calls():
    code = """
        import os, numpy as np, fastreg
        fastreg.set_num_threads(3)
        count = lambda: len(os.listdir("/proc/self/task"))
        before = count()
        fastreg.soft_threshold(np.ones(1000), 1)
        small = count()
        fastreg.soft_threshold(np.ones(1 << 22), 1)
        print(small - before, count() - before)
    """
    assert answer(code, OPENBLAS_NUM_THREADS="1") == "0 2"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_children_start_fresh():
    code = (
        USE_THREADS
        + """
    use()
    for _ in range(200):
        child = os.fork()
        if child == 0:
            assert runtime._workers_started() == 0
            use()
            assert runtime._workers_started() == 3
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    child = os.fork()
    use()
    assert runtime._workers_started() == 3
    if child == 0:
        sys.exit()  # as programs end
    assert os.waitpid(child, 0)[1] == 0
    print("done")
    """
    )
    assert answer(code) == "done"


@pytest.fixture(scope="session")
def refusing(tmp_path_factory):
    """The environment of a program under a system that refuses."""
    library = tmp_path_factory.mktemp("refusing") / "refusing.so"
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    source = Path(__file__).parent / "c" / "refusing.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(library)]))
    return {"LD_PRELOAD": preload, "OPENBLAS_NUM_THREADS": "1", "FASTREG_NUM_THREADS": ""}


@glibc
@pytest.mark.parametrize(
    ("what", "threads"),
    [("affinity", os.cpu_count()), ("memory", os.cpu_count()), ("few CPUs", 512), ("to be first", 3)],
)
def test_a_system_that_does_not_tell_which_cpus_are_ours(refusing, what, threads):
    """All that are there count, 512 at most; and threads run where they are put. To be first: another thread is."""
    code = """
    os.environ |= {"REFUSE": what, "RUNTIME": runtime.__file__}
    print(fastreg.get_num_threads())
    fastreg.set_num_threads(4)
    runtime._ignore_cutoffs(True)
    use()
    use()
    """
    code = USE_THREADS.replace("fastreg.set_num_threads(4)", f"what = {what!r}") + code
    assert int(answer(code, **refusing)) == threads


@glibc
@pytest.mark.parametrize("what", ["handlers", "attributes", "threads"])
def test_without_threads_the_caller_does_the_work(refusing, what):
    code = (
        USE_THREADS
        + f"""
    os.environ["REFUSE"] = {what!r}
    use()
    print(runtime._workers_started())
    """
    )
    assert answer(code, **refusing) == "0"


@glibc
def test_a_caller_that_loses_its_cpu_before_it_begins(refusing):
    """By then the one worker that was awake has done all there is."""
    code = (
        USE_THREADS
        + """
    import ctypes, time
    unlucky = ctypes.c_int.in_dll(ctypes.CDLL(None), "unlucky")
    small, large = x[:20_000].copy(), x[:200_000].copy()  # of soft_threshold, 98,304 elements are large
    out, wanted = np.empty_like(large), wanted[:200_000]
    for _ in range(300):
        time.sleep(0.0005)  # workers sleep
        runtime._ignore_cutoffs(True)
        fastreg.soft_threshold(small, 0.25)  # one is called
        runtime._ignore_cutoffs(False)
        unlucky.value = 1
        fastreg.soft_threshold(large, 0.25, out=out)
        assert np.array_equal(out, wanted)
    print("done")
    """
    )
    assert answer(code, **refusing) == "done"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork_while_other_threads_are_at_work():
    code = (
        USE_THREADS
        + """
    stop = threading.Event()
    def work():
        while not stop.is_set():
            use()
    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads: t.start()
    for _ in range(50):
        child = os.fork()
        if child == 0:
            use()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    for t in threads: t.join()
    print("done")
    """
    )
    assert answer(code.replace("import os", "import warnings; warnings.simplefilter('ignore'); import os")) == "done"


def test_many_callers_while_the_number_of_threads_changes(pool):
    x = np.linspace(-1, 1, 1 << 17)
    wanted = fastreg.soft_threshold(x, 0.25)
    failures, stop = [], threading.Event()

    def use():
        while not stop.is_set():
            if not np.array_equal(fastreg.soft_threshold(x, 0.25), wanted):
                failures.append(1)

    callers = [threading.Thread(target=use) for _ in range(6)]
    for caller in callers:
        caller.start()
    for n in [1, 8, 2, 5, 3] * 20:
        fastreg.set_num_threads(n)
        time.sleep(0.002)
    stop.set()
    for caller in callers:
        caller.join(30)
        assert not caller.is_alive()
    assert not failures


def test_calls_end_while_others_take_every_cpu(pool):
    """A worker that waits for a CPU, or loses it inside a block, costs time and nothing else."""
    x = np.linspace(-1, 1, 1 << 18)
    wanted = fastreg.soft_threshold(x, 0.25)
    spin = [sys.executable, "-c", "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"]
    spinning = [subprocess.Popen(spin) for _ in range(2 * os.cpu_count())]
    try:
        for threads in [2, 3, 8] * 30:
            fastreg.set_num_threads(threads)
            assert np.array_equal(fastreg.soft_threshold(x, 0.25), wanted)
    finally:
        for other in spinning:
            other.kill()
            other.wait()


def test_the_gil_is_released_during_work():
    x = np.ones(1 << 24, np.float32)
    out = np.empty_like(x)
    fastreg.set_num_threads(1)
    ticks = 0
    stop = threading.Event()

    def call():
        for _ in range(20):
            fastreg.soft_threshold(x, 0.5, out=out)
        stop.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # only a released GIL lets the main thread run
    try:
        caller = threading.Thread(target=call)
        caller.start()
        while not stop.is_set():
            ticks += 1
            time.sleep(0.0005)
        caller.join()
    finally:
        sys.setswitchinterval(interval)
    assert ticks > 5


@linux
def test_workers_leave_signals_to_the_program():
    code = (
        USE_THREADS
        + """
    import signal
    before = os.listdir("/proc/self/task")  # an emulator has threads of its own
    use()
    blocked = [int(line.split()[1], 16) for task in os.listdir("/proc/self/task") if task not in before
               for line in open(f"/proc/self/task/{task}/status") if line.startswith("SigBlk")]
    print(len(blocked), all(mask >> (signal.SIGINT - 1) & 1 for mask in blocked))
    """
    )
    assert answer(code, OPENBLAS_NUM_THREADS="1") == "3 True"


# ---- instruction sets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_instruction_set_runs(isa):
    assert answer("import fastreg; print(fastreg.show_config(mode='dicts')['isa'])", FASTREG_ISA=isa) == isa


def test_the_best_instruction_set_is_the_default():
    assert answer("import fastreg; print(fastreg.show_config(mode='dicts')['isa'])", FASTREG_ISA="") == ISAS[-1]


def test_unknown_instruction_set():
    done = python("import fastreg", FASTREG_ISA="sse9")
    assert done.returncode == 1
    assert "ImportError: FASTREG_ISA: got 'sse9'; baseline, avx2 and avx512 are allowed" in done.stderr


def test_unsupported_instruction_set():
    missing = [isa for isa in ("avx2", "avx512") if isa not in ISAS]
    for isa in missing:
        done = python("import fastreg", FASTREG_ISA=isa)
        assert done.returncode == 1
        assert f"ImportError: FASTREG_ISA: '{isa}' is not supported" in done.stderr
    assert not runtime._use_isa("sse9")


def test_show_config(capsys):
    config = fastreg.show_config(mode="dicts")
    assert set(config) == {"version", "compiler", "isas_built", "isa", "threads", "numpy", "python", "platform"}
    assert config["version"] == fastreg.__version__
    fastreg.show_config()
    printed = capsys.readouterr().out
    assert all(key in printed for key in config)
    with pytest.raises(ValueError, match="mode: got 'dict'"):
        fastreg.show_config(mode="dict")


def test_python_m_fastreg():
    done = subprocess.run([sys.executable, "-m", "fastreg"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "isas_built" in done.stdout
    assert "soft threshold" in done.stdout
    assert "NO" not in done.stdout


@pytest.mark.parametrize("rich", [True, False])
def test_its_table_with_and_without_rich(rich, monkeypatch, capsys):
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    header = ("elements", "works", "fastreg, ms", "NumPy, ms", "ratio")
    show([("soft threshold", "yes", "0.10", "1.20", "12×"), ("softmax", "NO", "0.30", "0.60", "2×")], header)
    printed = capsys.readouterr().out
    for line in (header, ("soft threshold", "yes", "0.10", "1.20", "12×"), ("softmax", "NO", "0.30", "0.60", "2×")):
        assert any(all(cell in row for cell in line) for row in printed.splitlines()), line
    assert ("─" in printed) == rich


# ---- a good citizen ----------------------------------------------------------------------------------------------


@linux
def test_import_changes_nothing_in_the_process():
    code = """
        import ctypes, os, signal, sys, numpy as np
        libm = ctypes.CDLL(None)
        def state():
            return (dict(os.environ), [signal.getsignal(s) for s in signal.valid_signals()], libm.fegetround(),
                    len(os.listdir("/proc/self/task")), np.geterr(), sys.getswitchinterval(), os.getcwd(),
                    np.float64(1e-310) * 1.0 != 0)
        os.environ.clear()  # what the test's own import has set would not show
        before = state()
        import fastreg
        fastreg.soft_threshold(np.ones(10), 0.5)
        print(before == state(), sorted({"threadpoolctl", "scipy", "torch", "ctypes.util"} & set(sys.modules)))
    """
    assert answer(code) == "True []"


@pytest.fixture(scope="session")
def floating_point_mode(tmp_path_factory):
    """get() and set(word) for this thread's floating-point control word, flush-to-zero bits included."""
    folder = tmp_path_factory.mktemp("mode")
    (folder / "mode.c").write_text("""
        #if defined(__x86_64__)
        #include <xmmintrin.h>
        unsigned get(void) { return _mm_getcsr(); }
        void set(unsigned word) { _mm_setcsr(word); }
        const unsigned flush = 0x8040, upward = 0x4000;
        #elif defined(__aarch64__)
        unsigned get(void) { unsigned long w; __asm__ volatile("mrs %0, fpcr" : "=r"(w)); return (unsigned)w; }
        void set(unsigned word) { __asm__ volatile("msr fpcr, %0" : : "r"((unsigned long)word)); }
        const unsigned flush = 1u << 24, upward = 1u << 22;
        #endif
    """)
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    library = folder / "mode.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "mode.c"], check=True)
    return ctypes.CDLL(str(library))


@pytest.mark.skipif(sys.platform == "win32", reason="no C compiler by that name")
@pytest.mark.parametrize("which", ["flush", "upward"])
@pytest.mark.parametrize("threads", [1, 4])
def test_the_callers_floating_point_mode(floating_point_mode, which, threads, pool):
    """A caller in flush-to-zero or another rounding mode gets the same bits, and keeps its mode."""
    fastreg.set_num_threads(threads)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal(50_000), np.full(50_000, 3e-310), rng.standard_normal(9) * 1e-308])
    wanted = [fastreg.soft_threshold(x, lam) for lam in (0.1, 1e-310)]
    assert np.any((wanted[1] != 0) & (np.abs(wanted[1]) < 2e-308))
    before = floating_point_mode.get()
    word = before | ctypes.c_uint.in_dll(floating_point_mode, which).value
    outs = [np.empty_like(x), np.empty_like(x)]
    floating_point_mode.set(word)
    try:
        fastreg.soft_threshold(x, 0.1, out=outs[0])
        fastreg.soft_threshold(x, 1e-310, out=outs[1])
        after = floating_point_mode.get()
    finally:
        floating_point_mode.set(before)
    assert after == word
    for out, w in zip(outs, wanted, strict=True):
        assert out.tobytes() == w.tobytes()


@pytest.mark.skipif(sys.platform == "win32", reason="no C compiler by that name")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_call_leaves_the_floating_point_mode(floating_point_mode, case, pool):
    """IEEE's default before and after; flush-to-zero, too; and what a call raises leaves it likewise."""
    fastreg.set_num_threads(2)
    inputs = case.make(max(case.shapes[-1], case.large, key=np.prod), np.float32)
    flags = 0x3F if platform.machine() in ("x86_64", "AMD64") else 0  # what happened, not what is to be
    before = floating_point_mode.get()
    flush = before | ctypes.c_uint.in_dll(floating_point_mode, "flush").value
    for word in (before, flush):
        floating_point_mode.set(word)
        try:
            getattr(fastreg, case.function)(**inputs, **case.options)
            after = floating_point_mode.get()
            with contextlib.suppress(TypeError):
                getattr(fastreg, case.function)(**inputs | {next(iter(inputs)): object()}, **case.options)
            after_error = floating_point_mode.get()
        finally:
            floating_point_mode.set(before)
        assert after & ~flags == after_error & ~flags == word & ~flags


@linux
def test_no_openmp_runtime_comes_with_fastreg():
    maps = answer("import fastreg; print(open('/proc/self/maps').read())")
    assert not any(name in maps for name in ("libgomp", "libomp", "libiomp"))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_between_calls():
    # A shell's background jobs, and their children, begin with SIGINT ignored.
    code = """
        import signal, numpy as np, fastreg
        signal.signal(signal.SIGINT, signal.default_int_handler)
        x = np.ones(1 << 22, np.float32)
        print("ready", flush=True)
        while True:
            fastreg.soft_threshold(x, 0.5, out=x)
    """
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout.readline() == "ready\n"
        time.sleep(0.2)
        program.send_signal(signal.SIGINT)
        _, error = program.communicate(timeout=60)
    finally:
        program.kill()
    assert "KeyboardInterrupt" in error
