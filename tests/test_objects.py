"""What the compiler and the linker made: no wide instruction where every CPU runs, nothing shared.

AVX code that leaks into the baseline through an inline or weak function crashes older machines only (numpy#25274,
opencv#19020), so it is looked for in the built files.
"""

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastreg
from fastreg import fastreg_runtime as runtime

MODULES = sorted(Path(runtime.__file__).parent.glob("*.so"))
WIDE = ("isa_avx2.c", "isa_avx512.c")
# VEX and EVEX mnemonics begin with v; those of verr, verw and virtualisation are as old as the 80286.
VECTOR = re.compile(
    r"\tv(?!err|erw|m(call|launch|resume|xoff|xon|read|write|ptr|clear|func|run|load|save|mcall))|%[yz]mm|\{%k"
)

if sys.platform != "linux" or platform.machine() != "x86_64":
    pytest.skip("reads x86-64 ELF files", allow_module_level=True)


def output(*command) -> str:
    if not shutil.which(command[0]):
        pytest.fail(f"{command[0]} is missing: it comes with the compiler, in the package binutils")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def symbols(module: Path):
    """(address, type, binding, section, name, the file of a local symbol) of each."""
    file = ""
    for line in output("readelf", "-sW", module).partition("'.symtab'")[2].splitlines():
        fields = line.split()
        if len(fields) < 7 or not fields[0].endswith(":") or not fields[0][:-1].isdigit():
            continue
        name = fields[7] if len(fields) > 7 else ""
        if fields[3] == "FILE":
            file = name
        else:
            yield int(fields[1], 16), fields[3], fields[4], fields[6], name, file


def wide_functions(module: Path) -> set[int]:
    """The addresses of functions with an instruction beyond SSE2."""
    found, address = set(), 0
    for line in output("objdump", "-d", "--no-show-raw-insn", module).splitlines():
        if line.endswith(">:"):
            address = int(line.split()[0], 16)
        elif VECTOR.search(line):
            found.add(address)
    return found


def test_there_is_something_to_look_at():
    """A build that was stripped would pass every other test here."""
    files = {file for *_, file in symbols(Path(runtime.__file__))}
    assert {"isa_baseline.c", *WIDE, "pool.c", "walk.c"} <= files
    assert fastreg.show_config(mode="dicts")["isas_built"] == ["baseline", "avx2", "avx512"]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_wide_instructions_stay_in_their_files(module):
    local = {address: (name, file) for address, kind, _, _, name, file in symbols(module) if kind == "FUNC" and file}
    wide = wide_functions(module)
    stray = {local.get(address, (hex(address), "no file")) for address in wide}
    assert {entry for entry in stray if entry[1] not in WIDE} == set()
    assert bool(wide) == (module == Path(runtime.__file__)), "the test finds wide instructions where they are"


def test_instruction_sets_share_no_symbol():
    """Nothing is weak, and what is visible beyond its file is the core's interface, of which the files of instruction
    sets hold a table each."""
    interface = set(
        re.findall(
            r"\bfastreg_\w+", "".join(p.read_text() for p in (Path(__file__).parent.parent / "csrc").glob("*.h"))
        )
    )
    shared = [
        (name, binding)
        for _, kind, binding, section, name, file in symbols(Path(runtime.__file__))
        if kind in ("FUNC", "OBJECT") and section != "UND" and (binding != "LOCAL" or not file)
    ]
    assert not [name for name, binding in shared if binding == "WEAK"]
    ours = {name for name, _ in shared if not name.startswith(("_", "PyInit_"))}
    assert {"fastreg_table_avx2", "fastreg_table_avx512", "fastreg_table_baseline"} <= ours
    runtime_of_c = {"completed.0", "pthread_atfork", "gcov_write", "mangle_path"}  # two of gcov, in `make coverage`
    assert ours - runtime_of_c <= interface


def test_the_system_is_asked_whether_it_saves_wide_registers():
    """Where CPUID alone was believed, AVX-512 ran under systems that do not save its registers: XGETBV tells."""
    assert "xgetbv" in output("objdump", "-d", "--no-show-raw-insn", runtime.__file__)
