#!/usr/bin/env bash
# The tests on processors that are not here, under qemu-user: one without AVX (x86-64-v2, NumPy's own least), where the
# baseline has to do, and one with AVX2 and no AVX-512. Arguments are pytest's.
set -euo pipefail
cd "$(dirname "$0")/.."
HOUSE=$PWD PYTHON=$(command -v "${PYTHON:-python3}")
. packaging/emulated.sh
command -v qemu-x86_64-static >/dev/null || { echo "needs: apt-get install qemu-user-static" >&2; exit 1; }
for model in Nehalem Haswell; do
  place=$HOUSE/build/oldcpu/$model
  mkdir -p "$place"
  # Starts itself anew under qemu wherever a test runs sys.executable.
  cat >"$place/python" <<SH
#!/bin/sh
exec env PYTHONEXECUTABLE= qemu-x86_64-static -cpu $model -0 "$PYTHON" "$PYTHON" "\$@"
SH
  chmod +x "$place/python"
  (
    cd "$place"
    export PYTHONPATH=$HOUSE PYTHONDONTWRITEBYTECODE=1
    unset OPENBLAS_CORETYPE # it would choose kernels for this machine
    ./python -c "
import fastreg
config = fastreg.show_config(mode='dicts')
print('$model:', config['isa'])
assert config['isa'] == {'Nehalem': 'baseline', 'Haswell': 'avx2'}['$model'], config"
    emulated_tests "$@"
  )
done
