"""What `make coverage` ran of the C core, for each instruction set, of the Cython and of the Python.

python tests/covered.py folder      of the objects and their .gcda files, and of .coverage
"""

import collections
import json
import re
import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent
NEEDED = {"kernels": 100.0, "pool": 100.0}
MARK = re.compile(r'\s*/\* "(fastreg/\w+\.pyx)":(\d+)$')  # Cython's, before what it made of a line
BETWEEN = ("/* #### Code section", '/* "')  # what Cython brings along; lines of other files


def origins(generated: Path) -> list[tuple[Path, int] | None]:
    """Of each line of Cython's C, the line of the .pyx that it was made of."""
    found, origin = [], None
    for line in generated.read_text().splitlines():
        if mark := MARK.match(line):
            origin = Path(mark[1]), int(mark[2])
        elif line.lstrip().startswith(BETWEEN):
            origin = None
        found.append(origin)
    return found


def lines_of(data: Path):
    """(file, line, how often) by gcov, for our own files."""
    done = subprocess.run(["gcov", "--json-format", "--stdout", data], capture_output=True, text=True, check=True)
    for text in done.stdout.splitlines():
        for file in json.loads(text)["files"]:
            path = HOUSE / file["file"]
            if path.parent in (HOUSE / "csrc", HOUSE / "csrc/kernels"):
                for line in file["lines"]:
                    yield path.relative_to(HOUSE), line["line_number"], line["count"]
            elif path.parent.name == "fastreg" and path.suffix == ".c":
                origin = origins(path)
                for line in file["lines"]:
                    if origin[line["line_number"] - 1]:
                        yield *origin[line["line_number"] - 1], line["count"]


def part_of(data: Path, path: Path) -> str:
    if path.suffix == ".pyx":
        return path.name
    if path.suffix == ".inc" or path.name in ("lanes.h", "elementary.h", "instantiate.h"):
        return f"kernels, {data.stem.removeprefix('isa_')}"
    return "pool" if path.name in ("pool.c", "fpmode.h") else "rest of the core"


def main(folder: Path) -> int:
    ran: dict[str, dict[tuple[Path, int], int]] = collections.defaultdict(lambda: collections.defaultdict(int))
    for data in sorted(folder.rglob("*.gcda")):
        for path, line, count in lines_of(data):
            ran[part_of(data, path)][path, line] += count
    report = folder / "python.json"
    subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", report], check=True)
    for name, file in json.loads(report.read_text())["files"].items():
        part = "/".join(Path(name).parts[-2:]) if "reference" in name else Path(name).name
        ran[part] |= {(Path(part), n): 1 for n in file["executed_lines"]} | {
            (Path(part), n): 0 for n in file["missing_lines"]
        }
    missed = 0
    for part, lines in sorted(ran.items()):
        without = collections.defaultdict(list)
        for (path, line), count in sorted(lines.items()):
            if not count:
                without[path.name].append(line)
        share = 100 * (1 - sum(map(len, without.values())) / len(lines))
        missed += share < NEEDED.get(part.split(",")[0], 95.0)
        listed = "; ".join(f"{name}: {', '.join(map(str, n))}" for name, n in without.items())
        print(f"{share:6.2f} % of {len(lines):5,} lines  {part:<24} {listed}")
    return missed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])) > 0)
