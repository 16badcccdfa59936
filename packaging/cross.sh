#!/usr/bin/env bash
# The C core through clang for the machines that are not here, every warning an error; and as a compiler that is
# neither GCC nor clang sees it (MSVC), that no construct of theirs is left without its fallback.
set -euo pipefail
cd "$(dirname "$0")/.."
read -ra ZIG <<<"${PYTHON:-python3} -m ziglang cc"
mkdir -p build/cross
flags=(-std=c11 -O2 -fvisibility=hidden -ffp-contract=off -fno-math-errno -fno-trapping-math -D_GNU_SOURCE -Icsrc)
warnings=(-Wall -Wextra -Werror -Wno-unused-function)
for target in x86_64-windows-gnu aarch64-macos x86_64-linux-musl aarch64-linux-musl; do
  for file in csrc/*.c; do "${ZIG[@]}" -target $target "${flags[@]}" "${warnings[@]}" -c "$file" -o build/cross/core.o; done
  echo "$target: the core compiles"
done
# clang's own xsaveintrin.h, which nothing here needs, contradicts its built-ins where MSVC is claimed and long has 64 bits.
msvc=(-U__GNUC__ -U__clang__ -D_MSC_VER=1940 -D_WIN32 -D_M_X64 -fms-extensions -D__forceinline=inline -D__XSAVEINTRIN_H)
for file in csrc/*.c; do
  # musl's headers do without GCC; what is not the core's own is not looked at.
  "${ZIG[@]}" -target x86_64-linux-musl "${flags[@]}" "${msvc[@]}" -w -Werror=implicit-function-declaration -c "$file" -o build/cross/core.o
  "${ZIG[@]}" -target x86_64-linux-musl "${flags[@]}" "${msvc[@]}" -E "$file" |
    awk '/^# [0-9]+ "/ { file = $3 } file ~ /csrc/ && /__attribute__|__builtin_|__asm__|typeof|pragma (GCC|clang)/ { print file ": " $0; bad = 1 } END { exit bad }'
done
echo "MSVC: nothing of GCC's without its fallback"
