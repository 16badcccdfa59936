#!/usr/bin/env bash
# Another architecture, really run: cross-compiled with Debian's aarch64 compiler, run under qemu-user with an arm64
# Python and NumPy. Arguments are pytest's; without any, all tests that run there. On Debian, as any user.
set -euo pipefail
cd "$(dirname "$0")/.."
HOUSE=$PWD HOST_PYTHON=${PYTHON:-python3}
B=$HOUSE/build/aarch64 ROOT=$B/root LIB=$B/lib
for tool in aarch64-linux-gnu-gcc qemu-aarch64-static; do
  command -v $tool >/dev/null || { echo "needs: apt-get install gcc-aarch64-linux-gnu qemu-user-static" >&2; exit 1; }
done
mkdir -p "$B"/apt/{state/lists/partial,cache/archives/partial} "$ROOT" "$LIB"

# ---- an arm64 Python, from Debian's packages; apt's state is a folder of our own ---------------------------------
if [ ! -e "$B/.root" ]; then
  : >"$B/apt/status"
  sources=/etc/apt/sources.list.d/debian.sources
  [ -e $sources ] || sources=/etc/apt/sources.list
  apt_get() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::State="$B/apt/state" \
      -o Dir::State::status="$B/apt/status" -o Dir::Cache="$B/apt/cache" -o Acquire::Languages=none \
      -o Dir::Etc::SourceParts=- -o Dir::Etc::SourceList="$sources" -o APT::Sandbox::User= \
      -o APT::Install-Recommends=false -o APT::Keep-Downloaded-Packages=true -o Debug::NoLocking=1 "$@"
  }
  apt_get update
  apt_get install --yes --download-only python3 libpython3-dev libstdc++6
  for deb in "$B"/apt/cache/archives/*.deb; do dpkg-deb --extract "$deb" "$ROOT"; done
  touch "$B/.root"
fi
VERSION=$(cd "$ROOT/usr/lib" && ls -d python3.[0-9]* | head -1) # python3.11

# `python` of the other architecture, which starts itself anew under qemu wherever a test runs sys.executable.
cat >"$B/python" <<SH
#!/bin/sh
exec env PYTHONHOME="$ROOT/usr" PYTHONPATH="\${PYTHONPATH-$LIB}" PYTHONDONTWRITEBYTECODE=1 qemu-aarch64-static -L "$ROOT" -0 "$B/python" "$ROOT/usr/bin/$VERSION" "\$@"
SH
chmod +x "$B/python"

# ---- NumPy and what the tests use: PyPI's wheels for aarch64 -----------------------------------------------------
if [ ! -e "$B/.packages" ]; then
  "$HOST_PYTHON" -m pip install --quiet --no-compile --upgrade --target "$LIB" --only-binary=:all: --implementation cp --python-version "${VERSION#python}" \
    $(for glibc in 17 26 27 28 31 34; do echo "--platform manylinux_2_${glibc}_aarch64"; done) --platform manylinux2014_aarch64 \
    $("$HOST_PYTHON" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["test"], "numpy")')
  touch "$B/.packages"
fi

# ---- fastreg: the way CPython is cross-compiled for --------------------------------------------------------------
export CC=aarch64-linux-gnu-gcc LDSHARED="aarch64-linux-gnu-gcc -shared"
export CFLAGS="-isystem $ROOT/usr/include/$VERSION -isystem $ROOT/usr/include/aarch64-linux-gnu/$VERSION -isystem $ROOT/usr/include"
_PYTHON_HOST_PLATFORM=linux-aarch64 "$HOST_PYTHON" setup.py -q build --build-base "$B/build" --build-lib "$LIB"

cd "$B" # not the house, whose fastreg is the host's
export PYTHONSAFEPATH=1
./python -c 'import platform, fastreg; print(fastreg.__file__, platform.machine()); fastreg.show_config()'

echo "the bits of every Case, here and there:"
(unset PYTHONSAFEPATH && PYTHONPATH=$HOUSE "$HOST_PYTHON" "$HOUSE/tests/bits.py" >bits.host)
./python "$HOUSE/tests/bits.py" >bits.aarch64
diff bits.host bits.aarch64 && echo "$(wc -l <bits.host) hashes, all the same"

. "$HOUSE/packaging/emulated.sh"
left_out=()
emulated_tests "$@"
