# Sourced by those who have made ./python, which runs under qemu: the tests, in two processes, or what pytest's arguments
# say. Emulation is slow: hypothesis tries one example of each test (FASTREG_EXAMPLES).
emulated_tests() {
  # left_out: pytest's words for tests that the emulator cannot run, and why, in the script that sources this.
  export FASTREG_EXAMPLES=${FASTREG_EXAMPLES:-1}
  local pytest=(./python -m pytest -q -p no:cacheprovider --rootdir="$HOUSE" -c "$HOUSE/pyproject.toml" --ignore="$HOUSE/tests/test_house.py" "${left_out[@]}")
  if [ $# -gt 0 ]; then
    "${pytest[@]}" "$@"
    return
  fi
  local failed=0
  "${pytest[@]}" "$HOUSE/tests/test_laws.py" >laws.log 2>&1 &
  "${pytest[@]}" --ignore="$HOUSE/tests/test_laws.py" "$HOUSE/tests" || failed=1
  wait $! || failed=1
  grep -vE '^\S*\.+ +\[' laws.log # no rows of dots
  return $failed
}
