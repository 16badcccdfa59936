"""Shows that the fuzzer and the run under ThreadSanitizer can fail: kernels and the pool, deliberately broken.

    python tests/broken.py          after `make build/fuzz/fuzz build/tsan/threads`

Each break is made in a copy of csrc/, in what one instruction set (the baseline) or the pool is compiled from; the
driver is linked with it and must fail.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent
FLAGS = ["-O1", "-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-D_GNU_SOURCE", "-pthread"]
SEEDS, SECONDS = "300000", "8"

# (what is wrong, the file, what stands there, what is put in its place)
KERNELS = [
    (
        "NaN swallowed: the comparison the other way round",
        "kernels/prox.inc",
        "T raised = x < lower ? lower : x;",
        "T raised = x > lower ? x : lower;",
    ),
    (
        "a division where a product with the reciprocal is meant: the last bit",
        "kernels/prox.inc",
        "C(1) / C(1.0 + (double)l2 * step)",
        "C(1.0 / (1.0 + (double)l2 * step))",
    ),
    (
        "one element too many",
        "kernels/prox.inc",
        "FOR_EACH_UNROLLED(i, n) out[i] = FN(hard)(x[i], t);",
        "FOR_EACH_UNROLLED(i, n + 1) out[i] = FN(hard)(x[i], t);",
    ),
    (
        "the tail forgotten",
        "kernels/losses.inc",
        "FOR_EACH(i, n) out[i] = grad[i] * (y[i] * (1 - y[i]));",
        "FOR_EACH(i, n & ~3) out[i] = grad[i] * (y[i] * (1 - y[i]));",
    ),
    ("the lanes of a sum added in another order", "lanes.h", "s[l] += s[l + half];", "s[l] += s[2 * half - 1 - l];"),
    (
        "a fused multiply-add",
        "kernels/optim.inc",
        "T s = sum_sq[i] + g * g;",
        "T s = C((double)sum_sq[i] + (double)g * (double)g);",
    ),
]
POOL = [
    (
        "blocks claimed without an atomic",
        "pool.c",
        "atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed)) < p->end",
        "(*(long long *)&p->next)++) < p->end",
    ),
    (
        "a block's end counted without release and acquire",
        "pool.c",
        "atomic_fetch_add(&j->done, blocks)",
        "atomic_fetch_add_explicit(&j->done, blocks, memory_order_relaxed)",
    ),
    ("a job's place given away while a worker is in it", "pool.c", " && pool.jobs[k].inside == 0)", ")"),
    (
        "a fork without the lock",
        "pool.c",
        "static void before_fork(void) { pthread_mutex_lock(&pool.lock); }",
        "static void before_fork(void) {}",
    ),
]


def compiler() -> list[str]:
    return os.environ.get("CC", "gcc").split()


def fails(what: str, file: str, found: str, put: str, source: str, extra: list[str], driver: Path, command: list[str]):
    """Build `driver` with one object from the broken copy; whether running it fails."""
    folder = HOUSE / "build/broken"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HOUSE / "csrc", folder)
    text = (folder / file).read_text()
    assert found in text, f"{what}: {file} has changed: write this break anew"
    (folder / file).write_text(text.replace(found, put, 1))
    object_file, program = folder / "broken.o", folder / "program"
    subprocess.run([*compiler(), *FLAGS, *extra, f"-I{folder}", "-c", folder / source, "-o", object_file], check=True)
    objects = [p for p in driver.parent.glob("*.o") if p.stem != Path(source).stem]
    main = HOUSE / "tests/c" / f"{driver.stem}.c"
    include = f"-I{HOUSE / 'csrc'}"
    subprocess.run(
        [*compiler(), *FLAGS, *extra, include, "-o", program, main, object_file, *objects, "-lm"], check=True
    )
    done = subprocess.run(
        [program, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"TSAN_OPTIONS": "die_after_fork=0 halt_on_error=1"},
    )
    said = [line for line in done.stderr.splitlines() if "seed" in line or "WARNING" in line or "differ" in line]
    print(
        f"{'fails' if done.returncode else 'PASSES'}: {what}: {said[0][:100] if said else done.returncode}", flush=True
    )
    return done.returncode != 0


def main() -> int:
    fuzz, threads = HOUSE / "build/fuzz/fuzz", HOUSE / "build/tsan/threads"
    passed = 0
    for what, file, found, put in KERNELS:
        passed += not fails(what, file, found, put, "isa_baseline.c", [], fuzz, [SEEDS])
    for what, file, found, put in POOL:
        passed += not fails(what, file, found, put, "pool.c", ["-fsanitize=thread"], threads, ["avx2", SECONDS])
    print(f"{len(KERNELS) + len(POOL)} breaks, {passed} of them not noticed")
    return passed


if __name__ == "__main__":
    sys.exit(main() > 0)
