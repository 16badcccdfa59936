"""Runs what docs/trust.md reports, and writes its figures there: `make trust`.

    python tests/trust.py [target …]      runs those whose last run is not of these files, two side by side
    python tests/trust.py write           writes what ran

A run leaves build/trust/<target>.log, which begins with its commit. It stands for a later one as long as the files that
it is about are the same in both; what did not pass is written as such.
"""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent
LOGS = HOUSE / "build/trust"
PAGE = HOUSE / "docs/trust.md"
MAKE = ["make", "--no-print-directory"]
PYTEST = [sys.executable, "-m", "pytest", "-q", "-rP", "-p", "no:cacheprovider"]

CORE = ("csrc", "setup.py")
EVERYTHING = (*CORE, "fastreg", "tests", "pyproject.toml")
# Each: the files that it is about. In the order in which they start.
TARGETS = {
    "sanitize": EVERYTHING,
    "coverage": EVERYTHING,
    "tsan": (*CORE, "fastreg", "tests/c", "tests/test_laws.py", "tests/cases.py"),
    "fuzz": (*CORE, "fastreg", "tests/c", "tests/fuzz.py", "tests/cases.py", "tests/layouts.py"),
    "exhaustive": (
        *("csrc/kernels/prox.inc", "csrc/kernels/losses.inc", "csrc/kernels.def", "csrc/elementary.h", "csrc/lanes.h"),
        *("csrc/instantiate.h", "csrc/target.h", "csrc/isa_baseline.c", "csrc/isa_avx2.c", "csrc/isa_avx512.c"),
        *("csrc/dispatch.c", "tests/c/exhaustive.c", "tests/c/calls.h"),
    ),
    "calls": (
        *CORE,
        "fastreg",
        "tests/test_bad_calls.py",
        "tests/test_memory.py",
        "tests/failing.py",
        "tests/cases.py",
    ),
    "broken": (*CORE, "tests/c", "tests/broken.py"),
    "objects": (*CORE, "fastreg", "tests/test_objects.py"),
    "big": (*CORE, "fastreg", "tests/test_memory.py", "tests/test_laws.py", "tests/cases.py", "tests/layouts.py"),
    "mutation": (*CORE, "fastreg", "tests"),
}
COMMANDS = {
    **{target: [*MAKE, target, "EXAMPLES=3"] for target in ("sanitize", "coverage")},
    "mutation": [*MAKE, "mutation", f"MUTANTS={os.environ.get('MUTANTS', '40 30 3000')}"],
    "calls": [*PYTEST, "tests/test_bad_calls.py", "tests/test_memory.py"],
    "objects": [*PYTEST, "tests/test_objects.py"],
}


def git(*command: str) -> str:
    return subprocess.run(["git", *command], cwd=HOUSE, capture_output=True, text=True, check=True).stdout.strip()


def log_of(target: str) -> str:
    path = LOGS / f"{target}.log"
    return path.read_text() if path.exists() else ""


def unchanged(target: str) -> bool:
    """Whether the last run came to its end, and what it is about is the same but for comments and spaces of C."""
    log = log_of(target)
    commit = re.match(r"commit (\w+)\n", log)
    if not commit or "\nexit status " not in log:
        return False
    c_files = [f":(glob){path}/**/*.{kind}" for path in TARGETS[target] for kind in ("c", "h", "inc")]
    c_files += [path for path in TARGETS[target] if path.endswith((".c", ".h", ".inc"))]
    # This file writes down what the others did, and mutate.py is a target's own.
    left_out = ["*.c", "*.h", "*.inc", "tests/trust.py"] + ["tests/mutate.py"] * (target != "mutation")
    others = [*TARGETS[target], *(f":(exclude){kind}" for kind in left_out)]
    changed = git("diff", "-w", r"-I^\s*(/\*|\*)", commit[1], "--", *c_files)
    return not changed and not git("diff", commit[1], "--", *others)


def passed(target: str) -> bool:
    return "\nexit status 0 " in log_of(target)


def stands(target: str) -> bool:
    return unchanged(target) and passed(target)


def run(target: str) -> bool:
    log, began = LOGS / f"{target}.log", time.monotonic()
    with log.open("w") as file:
        print(f"commit {git('rev-parse', 'HEAD')}", file=file, flush=True)
        command = COMMANDS.get(target, [*MAKE, target])
        status = subprocess.run(command, cwd=HOUSE, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        print(f"\nexit status {status} after {time.monotonic() - began:.0f} s", file=file)
    print(f"{target}: {'passed' if status == 0 else 'FAILED'}, {time.monotonic() - began:.0f} s", flush=True)
    return status == 0


# ---- figures -----------------------------------------------------------------------------------------------------


def number(text: str) -> str:
    return f"{int(text.replace(',', '')):,}"


def tests_passed(log: str) -> str:
    (count,) = re.findall(r"^(\d+) passed", log, re.M)[-1:]
    return f"{number(count)} tests, no report"


def fuzzed(log: str) -> str:
    cases, executions = re.search(r"^(\d+) cases, (\d+) kernel executions", log, re.M).groups()
    calls, functions, seeds = re.search(r"^([\d,]+) calls of (\d+) functions, (seeds \d+ to \d+)", log, re.M).groups()
    kernels = f"{number(executions)} kernel executions over {number(cases)} cases"
    return f"{kernels}; {calls} Python calls of {functions} functions ({seeds}); no mismatch, no crash"


def swept(log: str) -> str:
    sweeps = re.findall(r"^(\w+) +(\d+) values on each instruction set; most ([\d.]+) ulp", log, re.M)
    exact = [name for name, _, ulp in sweeps if float(ulp) == 0]
    bounded = ", ".join(f"{name} within {ulp} ulp" for name, _, ulp in sweeps if float(ulp) > 0)
    counts = {number(count) for _, count, _ in sweeps}
    doubles = re.findall(r"^(\w+) +(\d+) f64 values on each instruction set; most ([\d.]+) ulp", log, re.M)
    of_double = ", ".join(f"{name} {ulp} ulp over {number(count)} f64 values" for name, count, ulp in doubles)
    every = f"{' and '.join(counts)} f32 values through each of {len(sweeps)} kernels on each instruction set"
    return f"{every}: {len(exact)} bit for bit ({', '.join(sorted(exact))}); {bounded}; {of_double}"


def raced(log: str) -> str:
    runs = re.findall(r"^(\w+): (\d+) calls by (\d+) callers, (\d+) forks", log, re.M)
    (tests,) = re.findall(r"^(\d+) passed", log, re.M)[-1:]
    driven = ", ".join(f"{isa} {number(calls)} calls" for isa, calls, _, _ in runs)
    driven += f" by {runs[0][2]} callers, {runs[0][3]} forks each"
    return f"{driven}; {number(tests)} tests from Python; no race, no mismatch"


def noticed(log: str) -> str:
    count, missed = re.search(r"^(\d+) breaks, (\d+) of them not noticed", log, re.M).groups()
    return f"{int(count) - int(missed)} of {count} breaks are noticed"


def scored(log: str) -> str:
    scores = re.findall(
        r"^(C|Python): (\d+) of (\d+) mutants noticed .*?, (\d+) are no faults, (\d+) not noticed; ([\d,]+) places",
        log,
        re.M,
    )
    if not scores:
        raise ValueError("no score")
    return "; ".join(
        f"{language}: {killed} of {made} mutants are noticed, {no_fault} are no faults, {missed} not noticed"
        f" (of {places} places)"
        for language, killed, made, no_fault, missed, places in scores
    )


def survivors(log: str) -> str:
    lines = re.findall(r"^(\w+[\w/]*\.\w+):\d+: (`.*)$", log, re.M)
    return "\n" + "\n".join(f"- {Path(file).name}: {what}" for file, what in sorted(lines)) + "\n"


def parts_of(log: str) -> list[tuple[str, str, str, str]]:
    return re.findall(r"^ *([\d.]+) % of +([\d,]+) lines  (.{24}) (.*)$", log, re.M)


def covered(log: str) -> str:
    wholes = []
    for group, of in (
        ("kernels, on each instruction set,", lambda part: part.startswith("kernels")),
        ("pool", lambda part: part == "pool"),
        ("rest of the C core", lambda part: part == "rest of the core"),
        ("Cython", lambda part: part.endswith(".pyx")),
        ("Python", lambda part: part.endswith(".py")),
    ):
        chosen = [(float(s), int(n.replace(",", ""))) for s, n, part, _ in parts_of(log) if of(part.strip())]
        lines = sum(n for _, n in chosen)
        wholes.append(f"{group} {sum(s * n for s, n in chosen) / lines:.2f} % of {lines:,} lines")
    return "; ".join(wholes)


def coverage_table(log: str) -> str:
    rows = [f"| {part.strip()} | {lines} | {share} % | {what or ''} |" for share, lines, part, what in parts_of(log)]
    return "\n\n| part | lines | run | not run |\n|---|---|---|---|\n" + "\n".join(rows) + "\n\n"


def bad_calls(log: str) -> str:
    return re.search(r"^([\d,]+) bad calls", log, re.M)[1] + " bad calls"


def allocations(log: str) -> str:
    return re.search(r"^[\d,]+ allocations of \d+ calls failed, \d+ of them crashed NumPy; \d+ wrong", log, re.M)[0]


def large(log: str) -> str:
    (count,) = re.findall(r"(\d+) passed", log)[-1:]
    return f"more than 2³¹ elements: passed; the same bits past the caches: {number(count)} tests with that one"


SCORED = ("mutation", "coverage")  # a number worth knowing though it be too low
FIGURES = {
    "fuzz": ("fuzz", fuzzed),
    "exhaustive": ("exhaustive", swept),
    "sanitize": ("sanitize", tests_passed),
    "tsan": ("tsan", raced),
    "broken": ("broken", noticed),
    "mutation": ("mutation", scored),
    "survivors": ("mutation", survivors),
    "coverage": ("coverage", covered),
    "coverage table": ("coverage", coverage_table),
    "bad calls": ("calls", bad_calls),
    "allocations": ("calls", allocations),
    "objects": ("objects", lambda log: "no stray instruction, no weak symbol, no shared one"),
    "big": ("big", large),
}


def write() -> None:
    """Between <!-- name --> and <!-- /name --> stands what the target's last run printed."""
    page = PAGE.read_text()
    for name, (target, figure) in FIGURES.items():
        found = f"`make trust TARGET={target}` has not passed on this tree"
        if stands(target) or (target in SCORED and unchanged(target)):
            try:
                found = figure(log_of(target)) + (" (less than it demands)" if not passed(target) else "")
            except (AttributeError, ValueError, ZeroDivisionError):  # what the figure is read from is not in the log
                print(f"{target}: its log has no figures for {name}", flush=True)
        page, times = re.subn(
            f"(<!-- {name} -->).*?(<!-- /{name} -->)", lambda m, found=found: m[1] + found + m[2], page, flags=re.S
        )
        assert times == 1, f"docs/trust.md has {times} places for {name}"
    commit = git("log", "-1", "--format=%h of %ad", "--date=format:%-d %B %Y")
    page = re.sub(r"(<!-- tree -->).*?(<!-- /tree -->)", lambda m: m[1] + commit + m[2], page, flags=re.S)
    PAGE.write_text(page)


def main(targets: list[str]) -> int:
    LOGS.mkdir(parents=True, exist_ok=True)
    wanted = [target for target in TARGETS if target in targets or (not targets and not stands(target))]
    if targets != ["write"]:
        subprocess.run(
            [*MAKE, "-j2", "build/fuzz/fuzz", "build/fuzz/exhaustive", "build/tsan/threads"], cwd=HOUSE, check=True
        )
    with ThreadPoolExecutor(2) as lanes:
        failed = list(lanes.map(run, wanted)).count(False)
    write()
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
