#!/usr/bin/env bash
# The tests on processors that are not here, under qemu-user: one without AVX (x86-64-v2, NumPy's own least), where the
# baseline has to do, and one with AVX2 and no AVX-512. Arguments are pytest's.
set -euo pipefail
cd "$(dirname "$0")/.."
HOUSE=$PWD PYTHON=$(command -v "${PYTHON:-python3}")
. packaging/emulated.sh
command -v qemu-x86_64-static >/dev/null || { echo "needs: apt-get install qemu-user-static" >&2; exit 1; }
# The test tells NumPy's crashes from ours by the stack, which cannot be unwound from a signal's frame of qemu's x86-64.
left_out=(--deselect tests/test_memory.py::test_each_allocation_fails_in_turn)
# What qemu does not emulate of Haswell it would say, where tests look for what a program says.
declare -A without=([Nehalem]= [Haswell]=,-pcid,-x2apic,-tsc-deadline,-hle,-rtm,-invpcid)
for model in Nehalem Haswell; do
  place=$HOUSE/build/oldcpu/$model
  mkdir -p "$place/bin"
  # A virtual environment with the ordinary one's packages; sys.executable, which the tests run, is this file.
  cat >"$place/python" <<SH
#!/bin/sh
exec qemu-x86_64-static -cpu $model${without[$model]} -0 "$place/bin/python" "$(realpath "$PYTHON")" "\$@"
SH
  "$PYTHON" - >"$place/pyvenv.cfg" <<PY
import os, sys
print("home =", os.path.dirname(os.path.realpath(sys._base_executable)))
if not os.path.lexists("$place/lib"):
    os.symlink(os.path.join(sys.prefix, "lib"), "$place/lib")
PY
  chmod +x "$place/python"
  ln -sf ../python "$place/bin/python"
  (
    cd "$place"
    export PYTHONPATH=$HOUSE PYTHONDONTWRITEBYTECODE=1
    unset OPENBLAS_CORETYPE # it would choose kernels for this machine
    if [ $model = Haswell ]; then
      # Two faults of qemu 7.2: NumPy's own AVX2 sorts wrongly (np.argsort of eleven numbers), and vmaskmov reads what its
      # mask leaves out, which is no memory where a kernel has no mean.
      export NPY_DISABLE_CPU_FEATURES=X86_V3
      left_out+=(-k "not rms_norm_backward")
    fi
    ./python -c "
import subprocess, sys
isa = [sys.executable, '-c', 'import fastreg; print(fastreg.show_config(mode=\"dicts\")[\"isa\"])']
isa = subprocess.run(isa, capture_output=True, text=True, check=True).stdout.strip() # as the tests' own programs
print('$model:', isa, sys.prefix)
assert isa == {'Nehalem': 'baseline', 'Haswell': 'avx2'}['$model'], isa"
    emulated_tests "$@"
  )
done
