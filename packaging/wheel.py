"""Builds sdist and wheel, looks into them, and uses the one wheel as its users would.

The wheel is built from the sdist, in an environment of its own, so that the sdist is complete. Then each CPython from
3.11 on that is found here gets a clean environment with the wheel and what the tests need, and runs the tests from a
folder that holds no fastreg.

    python packaging/wheel.py [pytest's arguments]        PYTHONS="python3.12 /opt/python3.13": these and no others
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import zopfli.zlib

HOUSE = Path(__file__).parent.parent
BUILD = HOUSE / "build" / "wheel"
WANTED = ("3.11", "3.12", "3.13")
MOST_SIZE, MOST_IMPORT = 2 * 2**20, 0.025  # bytes, and seconds over NumPy's own


def run(*command: object, **options: object) -> str:
    print("$", *command, flush=True)
    return subprocess.run([str(c) for c in command], check=True, text=True, **options).stdout  # type: ignore[call-overload]


class Deflate:
    """What zipfile asks of a compressor; zopfli takes a while, for results a twentieth smaller that any unzip reads."""

    def __init__(self) -> None:
        self.data = b""

    def compress(self, data: bytes) -> bytes:
        self.data += data
        return b""

    def flush(self) -> bytes:
        return zopfli.zlib.compress(self.data)[2:-4]  # without zlib's header and checksum


def recompress(wheel: Path) -> None:
    small = wheel.with_suffix(".small")
    with zipfile.ZipFile(wheel) as given, zipfile.ZipFile(small, "w") as packed:
        for info in given.infolist():
            data = given.read(info)
            with packed.open(info, "w") as file:
                if info.compress_type == zipfile.ZIP_DEFLATED:
                    file._compressor = Deflate()  # type: ignore[attr-defined]
                file.write(data)
    small.replace(wheel)


def build() -> Path:
    dist = HOUSE / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    stripped = os.environ | ({"LDFLAGS": "-Wl,--strip-all"} if sys.platform == "linux" else {})
    run(sys.executable, "-m", "build", HOUSE, "--outdir", dist, stdout=subprocess.DEVNULL, env=stripped)
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    recompress(wheel)

    with tarfile.open(sdist) as archive:
        packed = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    if (HOUSE / ".git").exists():
        tracked = run("git", "-C", HOUSE, "ls-files", stdout=subprocess.PIPE).split()
        absent = [f for f in tracked if f not in packed and not f.startswith((".ci/", ".github/", ".git"))]
        assert not absent, f"not in the sdist: {absent}"
    assert not [f for f in packed if re.search(r"^fastreg/.*\.(c|so)$|\.pyc$", f)], "generated files in the sdist"

    names = zipfile.ZipFile(wheel).namelist()
    assert not [n for n in names if n.endswith((".c", ".h", ".pyx", ".pxd")) or "test" in n], names
    assert all(".abi3." in n for n in names if n.endswith((".so", ".pyd"))), names
    assert {"fastreg/py.typed", "fastreg/_prox.pyi"} <= set(names), names
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size:,} bytes ({MOST_SIZE:,} allowed)")
    assert size <= MOST_SIZE
    run(sys.executable, "-m", "abi3audit", "--strict", "--summary", wheel)
    if sys.platform == "linux":
        run(sys.executable, "-m", "auditwheel", "show", wheel)
    return wheel


def pythons() -> dict[str, str]:
    """By version, the first found of PYTHONS, or of PATH and pyenv."""
    pyenv = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.*/bin/python"))
    here = [*(f"python{v}" for v in WANTED), "python3.14", sys.executable, *map(str, pyenv)]
    found: dict[str, str] = {}
    for python in os.environ.get("PYTHONS", "").split() or here:
        ask = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2], sys.implementation.name)"
        if path := shutil.which(python):
            answer = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=False)
            if answer.returncode == 0:
                version, name = answer.stdout.split()
                if name == "cpython" and tuple(map(int, version.split("."))) >= (3, 11):
                    found.setdefault(version, path)
    return found


def use(wheel: Path, version: str, python: str, arguments: list[str]) -> None:
    place = BUILD / version
    shutil.rmtree(place, ignore_errors=True)
    run(python, "-m", "venv", place / "venv")
    own = next(p for p in ((place / "venv" / d) for d in ("bin", "Scripts")) if p.exists()) / "python"
    run(own, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
    run(own, "-m", "pip", "install", "--quiet", wheel)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FASTREG"))}
    took = "import time, numpy; t = time.perf_counter(); import fastreg; print(time.perf_counter() - t)"
    once = (
        f"import subprocess as s; print(min(float(s.check_output([{str(own)!r}, '-c', {took!r}])) for _ in range(15)))"
    )
    seconds = float(run(own, "-c", once, stdout=subprocess.PIPE, cwd=place, env=clean))
    print(f"CPython {version}: import takes {seconds * 1e3:.1f} ms over NumPy ({MOST_IMPORT * 1e3:.0f} allowed)")
    assert seconds <= MOST_IMPORT
    run(own, "-m", "fastreg", cwd=place, env=clean)
    run(own, "-m", "pip", "install", "--quiet", "--group", HOUSE / "pyproject.toml:test", cwd=place)
    for part in ("tests", "docs", "examples"):
        shutil.copytree(HOUSE / part, place / part, ignore=shutil.ignore_patterns("__pycache__", "_build"))
    for part in ("README.md", "pyproject.toml"):
        shutil.copy(HOUSE / part, place)
    # Those two read the tree, and the symbols that a wheel is stripped of.
    ignored = ("--ignore=tests/test_house.py", "--ignore=tests/test_objects.py")
    run(own, "-m", "pytest", "-q", *ignored, *(arguments or ["tests"]), cwd=place, env=clean)


def main() -> None:
    wheel, found = build(), pythons()
    for version, python in sorted(found.items()):
        use(wheel, version, python, sys.argv[1:])
    print(f"{wheel.name}: passes on CPython {', '.join(sorted(found))}")
    if missing := [v for v in WANTED if v not in found]:
        sys.exit(f"not found here, so not tested: CPython {', '.join(missing)}")


if __name__ == "__main__":
    main()
