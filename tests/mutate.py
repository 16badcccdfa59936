"""Mutation testing: a fault at a time in the kernels' C or the objects' Python; do the tests of its family notice?

    python tests/mutate.py [mutants of C] [mutants of Python] [seconds at most]

A mutant of C is made in csrc/kernels/, built for the baseline alone without optimising, and put before the laws of its
family's Cases that compare with the reference, then before the family's own tests. A mutant of Python is made in
penalties.py, optim.py or nn.py. Which mutants are made follows from their own text, so that a change elsewhere leaves
the rest of the sample as it was. A mutant that is not noticed is printed, with the reason why it is no fault; one
without a reason makes the run fail.
"""

import collections
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent
WORK = HOUSE / "build/mutation"
FLAGS = [
    *("-O0", "-std=c11", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-D_GNU_SOURCE"),
    *("-w", f"-I{WORK}/csrc", f"-I{sysconfig.get_path('include')}", "-DPy_LIMITED_API=0x030B0000"),
]
TESTS = {
    "prox": ("test_prox.py", "test_penalties.py"),
    "dropout": ("test_dropout.py",),
    "losses": ("test_losses.py", "test_activations.py"),
    "norm": ("test_norm.py",),
    "optim": ("test_optim.py", "test_optim_objects.py"),
    "distances": ("test_distances.py",),
    "boxes": ("test_boxes.py",),
    "penalties": ("test_penalties.py",),
    "nn": ("test_nn.py",),
}
# Mutants that are no faults: (file, what the line is, what it becomes), and why.
NO_FAULT: dict[tuple[str, str, str], str] = {
    (
        "norm.inc",
        "start[i] = mean - mean == 0 ? (double)mean : 0;",
        "start[i] = mean - mean == 0 ? (double)mean : 1;",
    ): "where the sample is not finite, neither is the channel, whatever its sums start from",
    (
        "losses.inc",
        "const int64_t y = t ? -1 : a->index[row];",
        "const int64_t y = t ? 1 : a->index[row];",
    ): "where there are probabilities, no index is read",
    (
        "norm.inc",
        "return (FN(block)){outer, x->outer - outer < by.segments ? x->outer - outer : by.segments, 0, x->inner};",
        "return (FN(block)){outer, x->outer - outer <= by.segments ? x->outer - outer : by.segments, 0, x->inner};",
    ): "of two numbers that are equal, either is the smaller",
    (
        "norm.inc",
        "FN(normalise_run)(job, run / x->channels, run % x->channels, i, "
        "x->inner - i < NORM_BLOCK ? x->inner - i : NORM_BLOCK, 0);",
        "FN(normalise_run)(job, run / x->channels, run % x->channels, i, "
        "x->inner - i <= NORM_BLOCK ? x->inner - i : NORM_BLOCK, 0);",
    ): "of two numbers that are equal, either is the smaller",
    (
        "norm.inc",
        "const int64_t to = x->channels - from < a->chunk ? x->channels : from + a->chunk;",
        "const int64_t to = x->channels - from <= a->chunk ? x->channels : from + a->chunk;",
    ): "of two numbers that are equal, either is the smaller",
    (
        "norm.inc",
        "l.hi = ((fabs(c) < 0x1p100) & (fabs(scale) < 0x1p90) & (fabs(scale) > 0x1p-90)) ? hi : (T)NAN;",
        "l.hi = ((fabs(c) <= 0x1p100) & (fabs(scale) < 0x1p90) & (fabs(scale) > 0x1p-90)) ? hi : (T)NAN;",
    ): "the bound has room: at 2^100 itself either way keeps to its error",
    (
        "norm.inc",
        "for (int s = 0; s < NORM_PRODUCTS && turn == 0; s++)",
        "for (int s = 0; s <= NORM_PRODUCTS && turn == 0; s++)",
    ): "no result uses what lies behind the sums; that they are left is AddressSanitizer's to notice",
    (
        "norm.inc",
        "const intptr_t ahead = direct ? 2 * x->outer_stride[x->outer_ndim - 1] : 0;",
        "const intptr_t ahead = direct ? 2 * x->outer_stride[x->outer_ndim + 1] : 0;",
    ): "how far ahead the processor is called for changes no result",
    (
        "norm.inc",
        "const int narrow = a->training && a->x->inner >= NORM_FEW;",
        "const int narrow = a->training && a->x->inner > NORM_FEW;",
    ): "slices of just that many values may be worked on either way",
    (
        "norm.inc",
        "for (; i + STEP <= n; i += STEP) {",
        "for (; i + STEP < n; i += STEP) {",
    ): "the loop that takes the rest takes the last step, too",
    (
        "norm.inc",
        "const double k = (double)C((double)x + sum * by_n);",
        "const double k = (double)C((double)x + sum / by_n);",
    ): "a provisional mean that is far from the mean costs a second try, no digit",
    (
        "penalties.py",
        "return np.sum(np.where(m > far, 0.5 * self.lam * far, self.lam * m - m * m / (2 * self.gamma)))",
        "return np.sum(np.where(m >= far, 0.5 * self.lam * far, self.lam * m - m * m / (2 * self.gamma)))",
    ): "the two pieces meet there",
    (
        "distances.inc",
        "const int64_t at = 4 * (c + (m < (int64_t)(1024 / sizeof(T)) ? m : (int64_t)(1024 / sizeof(T))));",
        "const int64_t at = 4 * (c + (m > (int64_t)(1024 / sizeof(T)) ? m : (int64_t)(1024 / sizeof(T))));",
    ): "how far ahead the processor is called for changes no result",
    (
        "distances.inc",
        "int64_t ex = nx > 0 && nx < INFINITY ? exponent_of(nx) : 0, ey = ny > 0 && ny < INFINITY ? exponent_of(ny) : 0;",  # noqa: E501
        "int64_t ex = nx > 0 || nx < INFINITY ? exponent_of(nx) : 0, ey = ny > 0 && ny < INFINITY ? exponent_of(ny) : 0;",  # noqa: E501
    ): "a vector of zeros is zero, and an infinite one infinite, at any scale",
    (
        "distances.inc",
        "const int64_t e = largest && largest[c] > 0 && largest[c] < INFINITY ? exponent_of(largest[c]) : 0;",
        "const int64_t e = largest && largest[c] >= 0 && largest[c] < INFINITY ? exponent_of(largest[c]) : 0;",
    ): "a column of zeros is zero at any scale",
}
LAWS = "test_agrees_with_the_reference or test_special_values or test_same_bits_in_every_layout"
# Each: what stands in the code, what may be put there.
OPERATORS = [
    (r"(?<=[\w\])]) \+ (?=[\w(\[])", (" - ",)),
    (r"(?<=[\w\])]) - (?=[\w(\[])", (" + ",)),
    (r"(?<=[\w\])]) \* (?=[\w(\[])", (" / ",)),
    (r"(?<=[\w\])]) / (?=[\w(\[])", (" * ",)),
    (r" < ", (" <= ", " > ")),
    (r" > ", (" >= ", " < ")),
    (r" <= ", (" < ", " >= ")),
    (r" >= ", (" > ", " <= ")),
    (r" == ", (" != ",)),
    (r" != ", (" == ",)),
    (r" && ", (" || ",)),
    (r" \|\| ", (" && ",)),
    (r" and ", (" or ",)),
    (r" or ", (" and ",)),
    (r" \+= ", (" -= ",)),
    (r" -= ", (" += ",)),
    (r"\bC\(1\)", ("C(2)",)),
    (r"\bC\(0\)", ("C(1)",)),
    (r"(?<=[ (\[])1(?=[;,) \]])", ("2",)),
    (r"(?<=[ (\[])2(?=[;,) \]])", ("3",)),
    (r"(?<=[ (])0(?=[;,)])", ("1",)),
    (r"(?<=[= (])-(?=\w)", ("",)),
    (r"\bnot ", ("",)),
    (r"\bABS\(", ("(",)),
    (r"(?<=\()!(?=\w)", ("",)),
    (r"^( +)continue;?$", (r"\1break",)),
]


def places(source: str, python: bool) -> list[tuple[int, int, str]]:
    """(from, to, what to put there), outside of comments, strings, docstrings and what is for the compiler."""
    hidden = (
        r'"""(?s:.*?)"""|"[^"\n]*"|\'[^\'\n]*\'|#[^\n]*'
        if python
        else r'/\*(?s:.*?)\*/|//[^\n]*|"[^"\n]*"|^#[^\n]*|(?:PREFETCH|FN\(fetch\)|FN\(call_for\))[^\n]*'
    )
    masked = re.sub(hidden, lambda m: re.sub(r"[^\n]", "~", m[0]), source, flags=re.M)
    if python:
        masked = re.sub(r"^(from|import|class|@|def) [^\n]*", lambda m: "~" * len(m[0]), masked, flags=re.M)
    found = []
    for pattern, replacements in OPERATORS:
        for m in re.finditer(pattern, masked, re.M):
            found += [(m.start(), m.end(), m.expand(r) if "\\" in r else r) for r in replacements]
    return sorted(found)


def mutated(source: str, start: int, end: int, put: str) -> tuple[int, str, str]:
    """The line's number, the line, and what it becomes."""
    first, last = source.rfind("\n", 0, start) + 1, source.find("\n", end)
    line = source[first:last].strip()
    return source.count("\n", 0, start) + 1, line, (source[first:start] + put + source[end:last]).strip()


def sampled(every: list[tuple[Path, int, int, str]], sources: dict[Path, str]) -> list[tuple[Path, int, int, str]]:
    def rank(mutant):
        path, *place = mutant
        return hashlib.sha256(repr((path.name, *mutated(sources[path], *place)[1:])).encode()).digest()

    return sorted(every, key=rank)


def run(*command, seconds: float, **environ) -> int:
    """The exit status; a mutant that does not end is noticed."""
    try:
        return subprocess.run(
            command, env=os.environ | environ, capture_output=True, check=False, timeout=seconds, cwd=WORK
        ).returncode
    except subprocess.TimeoutExpired:
        return 1


def compile_object(source: Path, target: Path) -> bool:
    return (
        subprocess.run(
            [*os.environ.get("CC", "gcc").split(), *FLAGS, "-c", source, "-o", target], capture_output=True, check=False
        ).returncode
        == 0
    )


def compile_baseline() -> bool:
    return compile_object(WORK / "csrc/isa_baseline.c", WORK / "isa_baseline.o")


def link() -> None:
    """The runtime's module out of its objects."""
    module = next(WORK.glob("lib/fastreg/fastreg_runtime*.so"))
    subprocess.run(["gcc", "-shared", "-pthread", "-o", module, *WORK.glob("*.o")], check=True)


def set_up() -> None:
    """csrc/ with the baseline alone, its objects, and the package with the other modules as they are built."""
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.copytree(HOUSE / "csrc", WORK / "csrc")
    shutil.copytree(HOUSE / "fastreg", WORK / "lib/fastreg", ignore=shutil.ignore_patterns("*.c", "*.pyx", "*.pxd"))
    target = WORK / "csrc/target.h"
    target.write_text(target.read_text().replace("#define FASTREG_X86_TARGETS 1", "#define FASTREG_X86_TARGETS 0"))
    for wide in WORK.glob("csrc/isa_avx*.c"):
        wide.unlink()
    for source in [*WORK.glob("csrc/*.c"), HOUSE / "fastreg/fastreg_runtime.c"]:
        assert compile_object(source, WORK / f"{source.stem}.o"), source
    link()


def noticed(family: str, laws: bool, seconds: float = 600) -> str:
    """By what, or ""; `seconds` is more than either takes without a fault."""
    environ = {"PYTHONPATH": f"{WORK}/lib", "PYTHONSAFEPATH": "1", "FASTREG_EXAMPLES": "5"}
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=no", "-o", "addopts="]
    tests = HOUSE / "tests"
    if laws and run(
        *pytest, tests / "test_laws.py", "-k", f"({LAWS}) and ({FUNCTIONS[family]})", seconds=seconds, **environ
    ):
        return "a law"
    if run(*pytest, "-m", "not big", *[tests / name for name in TESTS[family]], seconds=seconds, **environ):
        return "its family's tests"
    return ""


def functions_of(family: str) -> str:
    names = re.findall(r"^def ([a-z]\w*)\(", (HOUSE / f"fastreg/_{family}.pyx").read_text(), re.M)
    return " or ".join(names)


FUNCTIONS = {
    path.stem: functions_of(path.stem) for path in (HOUSE / "csrc/kernels").glob("*.inc") if path.stem in TESTS
}


def main(wanted: dict[str, int], seconds: float) -> int:
    set_up()
    missed = 0
    patience = dict.fromkeys(TESTS, 120.0)
    for family in FUNCTIONS:
        began = time.monotonic()
        assert not noticed(family, True), f"{family}: its tests fail without a fault"
        patience[family] = 30 + 3 * (time.monotonic() - began)
    plain = (WORK / "isa_baseline.o").read_bytes()
    ends = time.monotonic() + seconds
    for language, files, folder in (
        ("C", sorted((WORK / "csrc/kernels").glob("*.inc")), "csrc/kernels"),
        ("Python", [WORK / f"lib/fastreg/{name}.py" for name in ("nn", "optim", "penalties")], "fastreg"),
    ):
        sources = {path: path.read_text() for path in files if path.stem in TESTS}
        every = [(path, *place) for path, source in sources.items() for place in places(source, language == "Python")]
        score, unnoticed, made = collections.Counter(), collections.Counter(), 0
        for path, start, end, put in sampled(every, sources):
            if made == wanted[language] or time.monotonic() > ends:
                break
            source = sources[path]
            path.write_text(source[:start] + put + source[end:])
            # What does not compile, or is not there on the baseline, is no mutant.
            if language == "C" and not (compile_baseline() and (WORK / "isa_baseline.o").read_bytes() != plain):
                path.write_text(source)
                continue
            if language == "C":
                link()
            by = noticed(path.stem, language == "C", patience[path.stem])
            path.write_text(source)
            made += 1
            score[by] += 1
            if not by:
                number, was, becomes = mutated(source, start, end, put)
                reason = NO_FAULT.get((path.name, was, becomes), "")
                unnoticed[bool(reason)] += 1
                print(
                    f"{folder}/{path.name}:{number}: `{was}` became `{becomes}`: {reason or 'NOT NOTICED'}", flush=True
                )
        if language == "C":
            assert compile_baseline()
            link()
        by = ", ".join(f"{n} by {what}" for what, n in sorted(score.items()) if what)
        print(
            f"{language}: {made - score['']} of {made} mutants noticed ({by}), {unnoticed[True]} are no faults, "
            f"{unnoticed[False]} not noticed; {len(every):,} places",
            flush=True,
        )
        missed += unnoticed[False]
    return missed


if __name__ == "__main__":
    asked = [int(a) for a in sys.argv[1:]] + [100, 50, 1800][len(sys.argv) - 1 :]
    sys.exit(main({"C": asked[0], "Python": asked[1]}, asked[2]) > 0)
