"""The architecture, linted: who knows whom, and nothing missing for a registered kernel or a public name."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import broken
import pytest
from cases import CASES

import fastreg
from fastreg import fastreg_runtime as runtime
from fastreg import reference

HOUSE = Path(__file__).parent.parent
FUNCTIONS = sorted(
    name for name in fastreg.__all__ if inspect.isroutine(getattr(fastreg, name)) and not hasattr(runtime, name)
)
FAMILIES = sorted(p.stem for p in (HOUSE / "csrc/kernels").glob("*.inc"))


def read(pattern: str) -> dict[Path, str]:
    return {path: path.read_text() for path in sorted(HOUSE.glob(pattern))}


def text(pattern: str) -> str:
    return "\n".join(read(pattern).values())


# ---- nothing missing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", runtime._kernels())
def test_a_kernel_has_its_body_and_its_caller(kernel):
    assert len(re.findall(rf"\bKERNEL\({kernel}\)", text("csrc/kernels/*.inc"))) == 1, (
        f"body of {kernel} in csrc/kernels"
    )
    assert f"KERNEL_{kernel}" in text("fastreg/*.pyx"), f"{kernel} is registered, yet no .pyx calls it"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_its_reference_its_case_and_its_stub(name):
    assert hasattr(reference, name), f"fastreg/reference has no {name}"
    # merge_stats takes triples; test_norm.py has it.
    takes_no_array = "shape" in inspect.signature(getattr(fastreg, name)).parameters or name == "merge_stats"
    assert takes_no_array or any(case.function == name for case in CASES), f"tests/cases.py has no Case for {name}"
    assert re.search(rf"^def {name}\(", text("fastreg/*.pyi"), re.M), f"no stub for {name}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_parameters_of_its_reference_and_its_stub(name):
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (fastreg, reference))
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]
    for path, source in read("fastreg/_*.pyi").items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                args = node.args
                assert [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)] == list(ours), path.name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_says_what_a_user_needs(name):
    doc = inspect.getdoc(getattr(fastreg, name))
    returns = () if re.search(r"\bin place\b", doc) else ("Returns\n------",)
    for section in ("Parameters\n------", *returns, "Raises\n------", "Examples\n------", ">>> "):
        assert section in doc, f"{name}: no {section.split()[0]}"
    for parameter in inspect.signature(getattr(fastreg, name)).parameters:
        assert re.search(rf"^(\w+, )*{parameter}\b(, \w+)*( : .*)?$", doc, re.M), (
            f"{name}: {parameter} is not described"
        )


def test_no_name_is_registered_twice():
    """Two people's changes that add the same kernel merge without a conflict, and then do not build."""

    def twice(names):
        return sorted({name for name in names if names.count(name) > 1})

    assert not twice(re.findall(r"^KERNEL\((\w+),", (HOUSE / "csrc/kernels.def").read_text(), re.M))
    assert not twice(re.findall(r"^KERNEL\((\w+)\)", text("csrc/kernels/*.inc"), re.M))
    assert not twice([*re.findall(r"^def (\w+)\(", text("fastreg/_*.pyx"), re.M)])
    assert not twice([case.id for case in CASES])
    for path in (HOUSE / "csrc/families.h", HOUSE / "fastreg/__init__.py", HOUSE / "fastreg/reference/__init__.py"):
        assert not twice(
            [line for line in path.read_text().splitlines() if re.match(r"#include|    \"?\w+\"?,$", line)]
        ), path


def test_every_kernel_is_registered():
    """The other way round than `test_a_kernel_has_its_body_and_its_caller`: a body or a caller without its line."""
    registered = set(re.findall(r"^KERNEL\((\w+),", (HOUSE / "csrc/kernels.def").read_text(), re.M))
    assert registered == set(runtime._kernels())
    assert set(re.findall(r"^KERNEL\((\w+)\)", text("csrc/kernels/*.inc"), re.M)) <= registered
    assert set(re.findall(r"\bKERNEL_([a-z]\w*)", text("fastreg/*.pyx"))) <= registered


def test_public_functions_are_those_of_the_reference():
    """A name that is missing in one of fastreg's modules, its __init__, its reference or its stub."""
    elsewhere = set(re.findall(r"\w+", (HOUSE / "fastreg/optim.py").read_text())) - set(FUNCTIONS)
    public = set(re.findall(r"^def ([a-z]\w*)\(", text("fastreg/_*.pyi"), re.M)) - elsewhere
    assert public == set(FUNCTIONS) == set(reference.__all__)


def test_no_list_comprehensions_in_cython():
    """Cython 3.3 releases an element twice where such a list cannot grow, and the process crashes later."""
    for path, source in read("fastreg/*.pyx").items():
        code = re.sub(r'r?""".*?"""|#[^\n]*', "", source, flags=re.S)
        lines = [line.strip() for line in code.splitlines() if re.search(r"\bfor \w+(, \w+)* in\b", line)]
        assert not [line for line in lines if not re.search(r"^for .*:$|\{", line)], path.name


def test_public_names_are_sorted_and_real():
    assert list(fastreg.__all__) == sorted(fastreg.__all__)
    assert all(hasattr(fastreg, name) for name in fastreg.__all__)


# ---- who knows whom ----------------------------------------------------------------------------------------------


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def test_the_reference_imports_only_numpy():
    for path in (HOUSE / "fastreg/reference").glob("*.py"):
        others = {m for m in imports(path) if not m.startswith(".") and m.split(".")[0] not in ("numpy", "math")}
        assert not others, path.name


def test_only_numpy_and_the_standard_library_at_run_time():
    # What each is glad of, or is about.
    optional = {"threadpools.py": {"threadpoolctl"}, "__main__.py": {"rich"}, "thinc_ops.py": {"thinc"}}
    for path in (HOUSE / "fastreg").glob("*.py"):
        allowed = {"", "numpy", "fastreg", *sys.stdlib_module_names} | optional.get(path.name, set())
        assert {module.split(".")[0] for module in imports(path)} <= allowed, path.name


def test_families_know_arrays_and_runtime_only():
    for path in (HOUSE / "fastreg").glob("_*.pyx"):
        known = set(re.findall(r"^(?:from|cimport|import) (fastreg[\w.]*)", path.read_text(), re.M))
        allowed = {"fastreg._arrays", "fastreg.fastreg_runtime"} - {f"fastreg.{path.stem}"}
        assert known <= allowed, path.name


def test_the_core_knows_no_python():
    for path, source in (read("csrc/*.[ch]") | read("csrc/kernels/*.inc")).items():
        assert "Python.h" not in source, path.name


def test_instruction_set_files_know_no_kernel():
    for path, source in read("csrc/isa_*.c").items():
        assert len(source.splitlines()) <= 10, path.name
        assert not any(re.search(rf"\b{kernel}\b", source) for kernel in runtime._kernels()), path.name


def test_kernels_live_in_their_family_and_call_no_library():
    """libm differs from platform to platform in the last bit; only what IEEE 754 fixes may be used."""
    inexact = r"\b(expf?|logf?|powf?|tanhf?|log1pf?|expm1f?|sinf?|cosf?|hypotf?|cbrtf?|fmaf?)\("
    for path, source in read("csrc/kernels/*.inc").items():
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", source, flags=re.S)
        assert not re.search(inexact, code), path.name


# ---- how it is built ---------------------------------------------------------------------------------------------


def test_flags_keep_the_bits():
    setup = (HOUSE / "setup.py").read_text()
    assert "-ffp-contract=off" in setup
    banned = r"-ffast-math|-Ofast|-fassociative-math|-funsafe-math|-freciprocal-math|-flto|-fopenmp"
    for source in (setup, (HOUSE / "Makefile").read_text()):
        assert not re.search(banned, source)
    assert len(setup.splitlines()) <= 95


def test_git_holds_no_generated_file():
    tracked = subprocess.run(["git", "ls-files"], cwd=HOUSE, capture_output=True, text=True, check=False).stdout.split()
    assert not [f for f in tracked if re.search(r"^fastreg/.*\.c$|\.so$|\.pyd$|\.html$|__pycache__", f)]


def test_every_family_stands_on_every_floor():
    families = (HOUSE / "csrc/families.h").read_text()
    for family in FAMILIES:
        assert f"kernels/{family}.inc" in families or f"{family}.inc" in text("csrc/*.h"), family


def test_breaks_are_of_these_kernels():
    """What `make broken` breaks must be there to be broken."""
    for what, file, found, _ in [*broken.KERNELS, *broken.POOL]:
        assert found in (HOUSE / "csrc" / file).read_text(), f"{what}: {file} has changed: write this break anew"


def test_the_page_of_trust_names_tests_that_there_are():
    """Each row of a failure seen in the field names its tests; a `::name` alone is of the file before it."""
    page = (HOUSE / "docs/trust.md").read_text()
    named, file = [], ""
    for module, test in re.findall(r"`(?:tests/)?(test_\w+\.py)?(?:::(test_\w+))?`", page):
        file = module or file
        if test:
            named.append((file, test))
        assert (HOUSE / "tests" / file).exists(), file
    missing = [(file, test) for file, test in named if f"\ndef {test}(" not in (HOUSE / "tests" / file).read_text()]
    assert len(named) > 50
    assert not missing
    targets = set(re.findall(r"^([a-z0-9-]+):", (HOUSE / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z0-9-]+)", page)) <= targets
