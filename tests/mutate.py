"""Mutation testing: a fault at a time in the kernels' C or the objects' Python; do the tests of its family notice?

    python tests/mutate.py [mutants of C] [mutants of Python] [seconds at most]

A mutant of C is made in csrc/kernels/, built for the baseline alone without optimising, and put before the laws of its
family's Cases that compare with the reference, then before the family's own tests. A mutant of Python is made in
penalties.py, optim.py or nn.py. Survivors are printed; those that are no faults are listed in docs/trust.md.
"""

import os
import random
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
        else r'/\*(?s:.*?)\*/|//[^\n]*|"[^"\n]*"|^#[^\n]*|PREFETCH[^\n]*'
    )
    masked = re.sub(hidden, lambda m: re.sub(r"[^\n]", "~", m[0]), source, flags=re.M)
    if python:
        masked = re.sub(r"^(from|import|class|@|def) [^\n]*", lambda m: "~" * len(m[0]), masked, flags=re.M)
    found = []
    for pattern, replacements in OPERATORS:
        for m in re.finditer(pattern, masked, re.M):
            found += [(m.start(), m.end(), m.expand(r) if "\\" in r else r) for r in replacements]
    return sorted(found)


def run(*command, **environ) -> int:
    """The exit status; a mutant that does not end is noticed."""
    try:
        return subprocess.run(
            command, env=os.environ | environ, capture_output=True, check=False, timeout=300, cwd=WORK
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


def noticed(family: str, laws: bool) -> str:
    """By what, or ""."""
    environ = {"PYTHONPATH": f"{WORK}/lib", "PYTHONSAFEPATH": "1", "FASTREG_EXAMPLES": "5"}
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=no", "-o", "addopts="]
    tests = HOUSE / "tests"
    if laws and run(*pytest, tests / "test_laws.py", "-k", f"({LAWS}) and ({FUNCTIONS[family]})", **environ):
        return "a law"
    if run(*pytest, "-m", "not big", *[tests / name for name in TESTS[family]], **environ):
        return "its family's tests"
    return ""


def functions_of(family: str) -> str:
    names = re.findall(r"^def ([a-z]\w*)\(", (HOUSE / f"fastreg/_{family}.pyx").read_text(), re.M)
    return " or ".join(names)


FUNCTIONS = {
    path.stem: functions_of(path.stem) for path in (HOUSE / "csrc/kernels").glob("*.inc") if path.stem in TESTS
}


def main(wanted: dict[str, int], seconds: float) -> None:
    set_up()
    for family in FUNCTIONS:
        assert not noticed(family, True), f"{family}: its tests fail without a fault"
    ends = time.monotonic() + seconds
    for language, files, folder in (
        ("C", sorted((WORK / "csrc/kernels").glob("*.inc")), "csrc/kernels"),
        ("Python", [WORK / f"lib/fastreg/{name}.py" for name in ("nn", "optim", "penalties")], "fastreg"),
    ):
        sources = {path: path.read_text() for path in files if path.stem in TESTS}
        every = [(path, *place) for path, source in sources.items() for place in places(source, language == "Python")]
        random.Random(0).shuffle(every)
        score, survivors, made = {}, [], 0
        for path, start, end, put in every:
            if made == wanted[language] or time.monotonic() > ends:
                break
            source = sources[path]
            path.write_text(source[:start] + put + source[end:])
            if language == "C" and not compile_object(WORK / "csrc/isa_baseline.c", WORK / "isa_baseline.o"):
                path.write_text(source)
                continue
            if language == "C":
                link()
            by = noticed(path.stem, language == "C")
            path.write_text(source)
            made += 1
            score[by] = score.get(by, 0) + 1
            if not by:
                line = source.count("\n", 0, start) + 1
                was = source.splitlines()[line - 1].strip()
                survivors.append(f"{folder}/{path.name}:{line}: {source[start:end]!r} to {put!r} in: {was}")
                print(survivors[-1], flush=True)
        killed = made - score.get("", 0)
        by = ", ".join(f"{n} by {what}" for what, n in sorted(score.items()) if what)
        print(
            f"{language}: {killed} of {made} mutants noticed ({by}), {len(survivors)} not; {len(every):,} places",
            flush=True,
        )


if __name__ == "__main__":
    asked = [int(a) for a in sys.argv[1:]] + [100, 50, 1800][len(sys.argv) - 1 :]
    main({"C": asked[0], "Python": asked[1]}, asked[2])
