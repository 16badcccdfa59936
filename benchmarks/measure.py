"""Measure rows in this process: `python benchmarks/measure.py --threads 1 --rows PATTERN`.

All contenders of a row (fastreg, its peers, the limit's passes) take turns in shuffled order, so that a change of clock
or a neighbour's load falls on all alike. A turn is calls for a millisecond (five on several cores) that are not timed,
which leave the caches as its own use leaves them, and then ten samples, each of as many calls as make 50 µs,
or fewer where these take long. Each contender has the same share of the time. One JSON line a row and shape goes to
stdout.
"""

import argparse
import contextlib
import ctypes
import fnmatch
import gc
import inspect
import json
import math
import mmap
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import peers
import rows

import fastreg
from fastreg import fastreg_runtime as runtime

HERE = Path(__file__).parent
SHORTEST_SAMPLE = 50e-6
LEAST_SAMPLES, MOST_SAMPLES = 15, 300  # the least within three times the time, if it can be had
LEAST_OF_SLOW, SLOW = 7, 10e-3  # for calls of so many seconds, which are mostly peers'
FEWEST_SAMPLES = 3  # whatever they take: of two, one that waited for the kernel's memory would count half
# Threads of OpenMP and XLA spin for some milliseconds after a call; on all cores the next contender
# would be measured against them.
REST = 5e-3
# Each turn starts with this many seconds of calls that are not counted. On one core they bring the third-level cache to
# the state in which the contender leaves it, which takes ten calls, not one: all share the arrays, and a store past the
# caches takes its lines from the next. After a rest on all cores it takes longer: to wake them, clock and caches.
WARM, WARM_ALL = 1e-3, 5e-3
SAMPLES_A_TURN, LONGEST_TURN = 10, 5e-4
LARGE, HUGE_PAGE = 2**17, 2**21
begins = 16  # bytes into a line of the cache: where NumPy's large arrays do; --aligned: 0


def placed(x):
    """A copy as if the process had never had memory before: where NumPy puts large arrays then, in pages of 2 MB.

    Arrays that get what others left begin anywhere, in pages of 4 KB. That costs up to a fifth, and the time of a
    contender would depend on those before it. Where the pages of 2 MB are in the machine's memory makes as much of a
    difference at 2^20 elements, and cannot be chosen: so all contenders of a row use the same arrays.
    """
    if x.nbytes < LARGE or not x.flags.c_contiguous:
        return x.copy()
    memory = mmap.mmap(-1, x.nbytes + 2 * HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % HUGE_PAGE + begins
    copy = whole[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


class Limit:
    """The streaming loops of limit.c, compiled for this machine where the source is newer."""

    def __init__(self):
        source, library = HERE / "limit.c", HERE / "build" / "limit.so"
        if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
            library.parent.mkdir(exist_ok=True)
            compiler = os.environ.get("CC", "cc").split()
            flags = ["-O3", "-shared", "-fPIC", "-pthread"]
            subprocess.run([*compiler, *flags, str(source), "-o", str(library)], check=True)
        c = ctypes.CDLL(str(library))
        c.limit_name.restype = ctypes.c_char_p
        int_, pointer, double = ctypes.c_int, ctypes.c_void_p, ctypes.c_double
        c.limit_seconds.argtypes = [int_, int_, int_, pointer, pointer, ctypes.c_size_t, int_, int_, double, int_, int_]
        c.limit_seconds.argtypes += [ctypes.POINTER(double)]
        self.c, self.passes = c, {}
        while name := c.limit_name(len(self.passes)):
            self.passes[name.decode()] = len(self.passes)
        self.passes = {n: i for n, i in self.passes.items() if c.limit_runs_here(i)}

    def contenders(self, reads, writes, in_place, nbytes, threads, then_read=False, to_read=(), to_write=()):
        """Passes over these arrays (in place: over those to read, the first of which are written), or others."""
        # The first 64 bytes are for alignment. Random bits: pages of zeros that nobody has written are one page, always
        # in the cache, and there are machines that move constants faster.
        nbytes = (nbytes - 64) // 256 * 256 if nbytes >= LARGE else -(-nbytes // 256) * 256
        bits = np.random.default_rng(1).integers(256, size=min(nbytes + 64, 2**22), dtype=np.uint8)

        def taken(arrays, count):
            fit = [a for a in arrays if a.nbytes >= nbytes + 64][:count]
            fit += [placed(np.resize(bits, nbytes + 64)) for _ in range(count - len(fit))]
            return fit, (ctypes.c_void_p * max(count, 1))(*(-(-a.ctypes.data // 64) * 64 for a in fit))

        first, read = taken(to_read, reads)
        second, write = (first, read) if in_place else taken(to_write, writes)

        def contender(i):
            def samples(n, count, _keep=(first, second)):
                seconds = (ctypes.c_double * count)()
                shape = i, reads, writes, read, write, nbytes, threads, then_read
                if self.c.limit_seconds(*shape, warmth(threads), n, count, seconds):
                    raise RuntimeError("no threads for the limit")
                return list(seconds)

            return samples

        passes = self.passes if writes else {n: i for n, i in self.passes.items() if "nt" not in n}
        return {f"limit: {name}": contender(i) for name, i in passes.items()}


def warmth(threads):
    return WARM if threads == 1 else WARM_ALL


def timed(call, warm, before=lambda: None):
    """Samples of n calls, in seconds a call, after one call, and `warm` seconds of them, that are not counted."""

    def samples(n, count):
        before()
        until = time.perf_counter() + warm
        call.once()
        while time.perf_counter() < until:
            call.once()
        for _ in range(count):
            start = time.perf_counter()
            call.loop(n)
            yield (time.perf_counter() - start) / n

    return samples


def interleave(contenders, budget, rest=0.0):
    """{name: samples of seconds a call}, taking turns until `budget` seconds a contender are spent."""
    names, samples, spent, once, calls, least = list(contenders), {}, {}, {}, {}, {}
    budget *= len(names)
    for name in names:
        time.sleep(rest)
        once[name] = min(contenders[name](1, 3))
        calls[name] = max(1, round(SHORTEST_SAMPLE / once[name]))
        samples[name], spent[name] = [], 0.0
        least[name] = LEAST_SAMPLES if once[name] < SLOW else LEAST_OF_SLOW
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    while True:
        elapsed = time.perf_counter() - start
        few = [n for n in names if len(samples[n]) < (least[n] if elapsed < 3 * budget else FEWEST_SAMPLES)]
        if elapsed > budget and not few:
            break
        if min(len(s) for s in samples.values()) >= MOST_SAMPLES:
            break
        # Slow contenders sit out until the others have had as much time.
        share = sum(spent.values()) / len(names)
        turn = few if elapsed > budget else [n for n in names if spent[n] <= share]
        for name in random.sample(turn, len(turn)):
            time.sleep(rest)
            before = time.perf_counter()
            count = max(1, min(SAMPLES_A_TURN, round(LONGEST_TURN / (calls[name] * once[name]))))
            samples[name].extend(contenders[name](calls[name], count))
            spent[name] += time.perf_counter() - before
    gc.enable()
    return samples, calls


def summary(samples, calls):
    quartiles = statistics.quantiles(samples, n=4) if len(samples) > 1 else samples * 3
    return dict(zip(("q1", "median", "q3"), quartiles, strict=True)) | {
        "samples": len(samples),
        "calls": calls,
    }


def first(result):
    return result[0] if isinstance(result, tuple) else result


def measure(row, shape, dtype, threads, budget, limit):
    """One line of the report: every contender's time for one row at one shape."""
    rng = np.random.default_rng(1)
    inputs = row.inputs(rng, shape, np.dtype(dtype))
    as_drawn = {name: inputs[name] for name in row.updates}
    inputs = {name: placed(x) if isinstance(x, np.ndarray) else x for name, x in inputs.items()}
    size = int(np.prod(shape))
    like = next(iter(inputs.values()))
    out = {"out": placed(like)} if row.out else {}

    def renew():
        for name, x in as_drawn.items():
            np.copyto(inputs[name], x)

    def arguments():
        renew()
        return {**inputs, **row.options, **out}

    contenders, results, warm = {}, {}, warmth(threads)

    def enter(name, call, args, before=lambda: None):
        got = call.once()
        if "return_grad" in row.options:
            loss, grad = map(np.asarray, got if isinstance(got, tuple) else (got, args["out"]))
            # As if of a sum: a mean's is too small for its errors to be seen.
            got = np.append(loss, grad * grad.size)
        got = first(got)
        if got is None:
            got = args["out"] if row.out else args[row.updates[0]]
        results[name] = np.asarray(got).copy().reshape(np.shape(results.get("fastreg", got)))
        contenders[name] = timed(call, warm, lambda: (renew(), before()))

    args = arguments()
    if row.optimiser:
        ours = peers.many(getattr(fastreg.optim, row.optimiser), row.tensors, **args)
    else:
        function = getattr(fastreg, row.function)
        bound = inspect.signature(function).bind(**args)
        ours = peers.Call(function, *bound.args, **bound.kwargs)
    enter("fastreg", ours, args, lambda: fastreg.set_num_threads(threads))
    if threads > 1:
        alone = {"1 thread": ours}
        if any(np.size(x) == size >= LARGE for x in args.values()) and not row.optimiser:
            # What threads that cost nothing would take: one's share of the work, on one thread.
            part = {n: x[: shape[0] // threads] if np.shape(x)[:1] == shape[:1] else x for n, x in args.items()}
            bound = inspect.signature(function).bind(**part)
            call = peers.Call(function, *bound.args, **bound.kwargs)
            with contextlib.suppress(ValueError):  # where one of the arguments is for the whole
                call.once()
                alone["a share"] = call
        for name, call in alone.items():
            contenders[name] = timed(call, warm, lambda: (renew(), fastreg.set_num_threads(1)))
    elif fastreg.show_config(mode="dicts")["isa"] == "avx512":

        def avx2(n, count):
            runtime._use_isa("avx2")
            try:
                yield from contenders["fastreg"](n, count)
            finally:
                runtime._use_isa("avx512")

        contenders["avx2"] = avx2
    if row.options.get("activation"):  # on the same arrays, which two rows do not share
        bound = inspect.signature(function).bind(**args | {"activation": None})
        plain = peers.Call(function, *bound.args, **bound.kwargs)
        contenders["plain"] = timed(plain, warm, lambda: (renew(), fastreg.set_num_threads(threads)))
    for library, builder in peers.PEERS.get(row.optimiser or row.function, {}).items():
        args = arguments() | ({"tensors": row.tensors} if row.optimiser else {})
        if (call := builder(**args)) is not None:
            enter(library, call, args)
    if row.traffic == (1, 1) or (row.traffic and size <= 1000):
        own = out or ({"out": placed(like)} if row.updates else {})
        contenders["np.multiply"] = timed(peers.Call(np.multiply, like, 2.0, **own), warm)
    if row.traffic and size > 1000 and (row.out or row.updates or row.traffic != (1, 1)):
        nbytes = size * np.dtype(dtype).itemsize
        arrays = sorted((n for n, x in inputs.items() if isinstance(x, np.ndarray)), key=lambda n: n not in row.updates)
        to_read = [inputs[name] for name in arrays]
        contenders |= limit.contenders(*row.traffic, bool(row.updates), nbytes, threads, False, to_read, out.values())

    wrong = []
    if "seed" not in row.options:  # a peer that computes something else is no peer
        some = slice(None, None, max(1, size // 2**20))
        for name, got in results.items():
            ours, theirs = (np.ravel(a)[some] for a in (results["fastreg"], got))
            if not np.allclose(theirs, ours, rtol=1e-3, atol=1e-3, equal_nan=True):
                wrong.append(name)
                del contenders[name]
        if "numpy" in wrong:
            raise ArithmeticError(f"fastreg and numpy differ in {row.name}")
    samples, calls = interleave(contenders, budget, REST if threads > 1 else 0.0)
    times = {name: summary(samples[name], calls[name]) for name in contenders}
    # At 1,000 elements, and in fresh memory, the limit is NumPy's simplest call.
    passes = [n for n in times if n.startswith("limit: ")] or [n for n in ("np.multiply",) if n in times]
    best = min(passes, key=lambda n: times[n]["median"], default=None)
    return {
        "row": row.name,
        "function": row.function,
        "shape": shape,
        "dtype": dtype,
        "limit": best.removeprefix("limit: ") if best in times else None,
        "wrong": wrong,
        "times": {n: t for n, t in times.items() if not n.startswith("limit: ")}
        | ({"limit": times[best]} if best in times else {}),
    }


def busy(threads, calls=1000):
    """{contender: mean, 99th percentile and longest of single calls} beside as many busy processes as CPUs."""
    x = np.random.default_rng(1).standard_normal(2**20, dtype=np.float32)
    args = {"x": x, "lam": 0.5, "out": np.empty_like(x)}
    ours = peers.Call(fastreg.soft_threshold, x, 0.5, out=args["out"])
    torchs = peers.PEERS["soft_threshold"]["torch"](**args)
    contenders = {}
    for n in (1, threads):
        contenders[f"fastreg, {n}"] = timed(ours, 0.0, lambda n=n: fastreg.set_num_threads(n))
        contenders[f"torch, {n}"] = timed(torchs, 0.0, lambda n=n: peers.torch().set_num_threads(n))
    samples = {name: [] for name in contenders}
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(threads)]
    try:
        time.sleep(1)
        for _ in range(calls):
            for name in random.sample(list(contenders), len(contenders)):
                samples[name].extend(contenders[name](1, 1))
    finally:
        for other in others:
            other.kill()
    percentile = {name: statistics.quantiles(s, n=100)[-1] for name, s in samples.items()}
    return {n: {"mean": statistics.fmean(s), "p99": percentile[n], "longest": max(s)} for n, s in samples.items()}


def stores(limit, threads, budget):
    """One line a size: copying with ordinary and with non-temporal stores, alone and where the copy is read at once."""
    for exponent in range(16, 27, 2):
        nbytes, contenders = 4 * 2**exponent, {}
        for then, suffix in ((False, ""), (True, ", then read")):
            passes = limit.contenders(1, 1, False, nbytes, threads, then)
            contenders |= {name.removeprefix("limit: ") + suffix: seconds for name, seconds in passes.items()}
        samples, calls = interleave(contenders, budget, REST if threads > 1 else 0.0)
        yield {"n": 2**exponent, "times": {name: summary(samples[name], calls[name]) for name in contenders}}


def selected(pattern, largest=math.inf):
    for row in rows.ROWS:
        if fnmatch.fnmatch(row.name, f"*{pattern}*") and hasattr(fastreg, row.function):
            for dtype, shapes in (("f4", row.shapes), ("f8", row.shapes_f64)):
                for shape in shapes:
                    if math.prod(shape) <= largest:
                        yield row, shape, dtype


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", default="*")
    parser.add_argument("--largest", type=float, default=math.inf, help="shapes of so many elements at most")
    parser.add_argument("--seconds", type=float, default=0.08, help="for each contender of a row at a shape")
    parser.add_argument("--busy", action="store_true", help="a mean beside other busy processes instead")
    parser.add_argument("--stores", action="store_true", help="non-temporal stores instead: when they pay")
    parser.add_argument("--aligned", action="store_true", help="arrays that begin with a line of the cache")
    options = parser.parse_args()
    global begins
    begins = 0 if options.aligned else begins
    if hasattr(os, "sched_setaffinity"):
        # The only way to tell JAX how many threads it may use; and before NumPy's BLAS counts its CPUs.
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) > options.threads:
            os.sched_setaffinity(0, cpus[-options.threads :])
            os.execv(sys.executable, [sys.executable, *sys.argv])
    peers.threads = options.threads
    if options.busy:
        return print(json.dumps(busy(options.threads)))
    limit = Limit()
    if options.stores:
        for line in stores(limit, options.threads, options.seconds):
            print(json.dumps(line), flush=True)
        return None
    for row, shape, dtype in selected(options.rows, options.largest):
        try:
            line = measure(row, shape, dtype, options.threads, options.seconds, limit)
        except Exception as error:  # the other rows of a long run are worth having; the report names this one
            line = {"row": row.name, "shape": shape, "dtype": dtype, "failed": str(error).strip()}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
