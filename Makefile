# Each target does all its own set-up in .venv; the only needs are Python ≥ 3.11, a C compiler and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROWS ?=

.DEFAULT_GOAL := help
.PHONY: help demo sparse crosses robust test peers lint bench statistics clean big asan ubsan tsan fuzz exhaustive

help: ## what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: $(VENV)/.demo ## train the textbook's network on real digits with every regulariser (digits.png)
	$(BIN)/python examples/digits.py

sparse: $(VENV)/.demo ## which features six penalties keep of the diabetes data, against scikit-learn (sparse_regression.png)
	$(BIN)/python examples/sparse_regression.py

crosses: $(VENV)/.demo ## four million hashed crosses, of which L1 keeps a few hundred (crossed_features.png)
	$(BIN)/python examples/crossed_features.py

robust: $(VENV)/.demo ## what an outlier pulls: fits by four losses and SciPy's optimiser (robust_fit.png)
	$(BIN)/python examples/robust_fit.py

test: $(VENV)/.test build/fuzz/fuzz ## the tests
	$(BIN)/python -m pytest
	build/fuzz/fuzz 50000

peers: $(VENV)/.peers ## the tests beside other packages that are too large for `make test`: torch, JAX, scikit-learn, thinc
	$(BIN)/python -m pytest tests/peers

big: $(VENV)/.test ## more than 2^31 elements (18 GB), and the laws for arrays past the caches
	$(BIN)/python -m pytest -m big

lint: $(VENV)/.lint ## style of Python and Cython; types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint fastreg
	$(BIN)/mypy
	$(BIN)/stubtest fastreg --mypy-config-file pyproject.toml --allowlist packaging/stubtest.txt --ignore-unused-allowlist

bench: $(VENV)/.bench ## fastreg against its peers and the machine's limit (benchmarks/REPORT.md); ROWS=pattern for some
	$(BIN)/python benchmarks/report.py $(if $(ROWS),--rows "$(ROWS)")

statistics: $(VENV)/.built ## rates, correlations and dieharder on dropout's decisions (benchmarks/STATISTICS.md)
	$(BIN)/python benchmarks/decisions.py

.PHONY: docs cross wheel test-oldcpu test-aarch64
wheel: $(VENV)/.wheel ## build sdist and wheel, and test the one wheel on every CPython here
	$(BIN)/python packaging/wheel.py

docs: $(VENV)/.docs ## the site, with pictures made by fastreg (build/docs/index.html)
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

cross: $(VENV)/.cross ## compile the C core for Windows, macOS and musl, and as MSVC would see it
	PYTHON=$(CURDIR)/$(BIN)/python packaging/cross.sh

test-oldcpu: $(VENV)/.test ## the tests on processors without AVX, and without AVX-512, under qemu (Debian: qemu-user-static)
	PYTHON=$(CURDIR)/$(BIN)/python packaging/oldcpu.sh

test-aarch64: $(VENV)/.built ## the tests on another architecture, under qemu (Debian: gcc-aarch64-linux-gnu, qemu-user-static)
	PYTHON=$(CURDIR)/$(BIN)/python packaging/aarch64.sh

clean: ## leave nothing but what git knows
	rm -rf $(VENV) build dist docs/made *.egg-info fastreg/*.c fastreg/*.so .pytest_cache .hypothesis .ruff_cache

# ---- set-up ------------------------------------------------------------------------------------------------------

SOURCES := $(wildcard setup.py pyproject.toml csrc/* csrc/kernels/* fastreg/*.pyx fastreg/*.pxd)

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.built: $(VENV)/.python $(SOURCES)
	$(BIN)/pip install --quiet --group build wheel
	$(BIN)/pip install --quiet --no-build-isolation --editable .
	touch $@

$(VENV)/.test $(VENV)/.peers $(VENV)/.demo $(VENV)/.lint $(VENV)/.wheel $(VENV)/.docs $(VENV)/.cross: $(VENV)/.%: $(VENV)/.built
	$(BIN)/pip install --quiet --group $*
	touch $@

$(VENV)/.bench: $(VENV)/.built
	$(BIN)/pip install --quiet --group bench
	touch $@

# ---- trust: docs/trust.md ----------------------------------------------------------------------------------------

# A build of its own in build/, whose tests run from there: PYTHONSAFEPATH keeps the ordinary one from being imported.
# A sanitizer writes its last words to the descriptor, which pytest must not keep to itself.
define sanitized
FASTREG_SANITIZE=$(1) $(BIN)/python setup.py -q build --build-base build/$@ --build-lib build/$@/lib
cd build/$@ && PYTHONSAFEPATH=1 PYTHONPATH=lib $(2) ../../$(BIN)/python -c "import fastreg; assert '$@/lib' in fastreg.__file__"
cd build/$@ && PYTHONSAFEPATH=1 PYTHONPATH=lib FASTREG_EXAMPLES=$(EXAMPLES) $(2) ../../$(BIN)/python -m pytest -q --capture=sys -p no:cacheprovider ../../tests $(3)
endef

# One test runs a program with an allocator of its own, where AddressSanitizer's must be.
ADDRESS = LD_PRELOAD=$$($(CC) -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONMALLOC=malloc
OWN_ALLOCATOR := --deselect tests/test_memory.py::test_each_allocation_fails_in_turn

asan: $(VENV)/.test ## the tests under AddressSanitizer
	$(call sanitized,address,$(ADDRESS),$(OWN_ALLOCATOR))

ubsan: $(VENV)/.test ## the tests under UndefinedBehaviorSanitizer
	$(call sanitized,undefined,UBSAN_OPTIONS=print_stacktrace=1)

BOTH := address,undefined
.PHONY: sanitize
sanitize: $(VENV)/.test ## the tests under both
	$(call sanitized,$(BOTH),$(ADDRESS) UBSAN_OPTIONS=print_stacktrace=1,$(OWN_ALLOCATOR))

.PHONY: trust coverage broken mutation
trust: $(VENV)/.test ## all of these that have not passed on this tree, in two lanes; their figures go into docs/trust.md
	$(BIN)/python tests/trust.py $(TARGET)

# How many examples hypothesis tries for each test: 25 by default.
EXAMPLES ?= 25
coverage: $(VENV)/.test ## what the tests run: gcov of the C core for each instruction set and of the Cython, lines of the Python
	$(BIN)/pip install --quiet coverage
	rm -rf build/coverage
	FASTREG_COVERAGE=1 $(BIN)/python setup.py -q build --build-base build/coverage --build-lib build/coverage/lib
	cd build/coverage && PYTHONSAFEPATH=1 PYTHONPATH=lib FASTREG_EXAMPLES=$(EXAMPLES) ../../$(BIN)/python -m coverage run --rcfile=../../pyproject.toml \
		-m pytest -q -p no:cacheprovider ../../tests; passed=$$?; \
	../../$(BIN)/python -m coverage combine -q && ../../$(BIN)/python ../../tests/covered.py . && exit $$passed

broken: build/fuzz/fuzz build/tsan/threads ## that the fuzzer and ThreadSanitizer notice kernels and a pool broken on purpose
	$(PYTHON) tests/broken.py

mutation: $(VENV)/.test ## faults put into kernels and Python one at a time: how many the tests notice
	$(BIN)/python tests/mutate.py $(MUTANTS)

# Kernels over items, and of norms, whose blocks wait for each other, are met from Python.
TSAN_SECONDS ?= 20
TSAN_OPTIONS := TSAN_OPTIONS="die_after_fork=0 halt_on_error=1"
tsan: build/tsan/threads $(VENV)/.test ## pool and kernels under ThreadSanitizer: callers × forks × changes of the thread count
	for isa in baseline avx2 avx512; do $(TSAN_OPTIONS) $< $$isa $(TSAN_SECONDS) || exit 1; done
	$(call sanitized,thread,LD_PRELOAD=$$($(CC) -print-file-name=libtsan.so) $(TSAN_OPTIONS),\
		-k "test_same_bits_for_every_thread_count or test_same_bits_from_many_python_threads")

CASES ?= 26000000
CALLS ?= 1000000
fuzz: build/fuzz/fuzz $(VENV)/.test ## the same bytes through every instruction set and a scalar build, bit for bit
	$< $(CASES) $(SEED)
	$(BIN)/python tests/fuzz.py $(CALLS) $(SEED)

EVERY ?= 1
exhaustive: build/fuzz/exhaustive ## all 2^32 f32 values through each kernel of one operand, against its definition
	$< names | xargs -n 1 -P $$(nproc) $< $(EVERY)

# As setup.py compiles them.
C_FLAGS := -O3 -std=c11 -ffp-contract=off -fno-math-errno -fno-trapping-math -D_GNU_SOURCE -Icsrc -g -pthread
C_CORE := $(patsubst csrc/%.c,%.o,$(wildcard csrc/*.c))
C_HEADERS := $(wildcard csrc/*.h csrc/*.def csrc/kernels/*)

build/fuzz/%.o: csrc/%.c $(C_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -c $< -o $@

build/fuzz/isa_scalar.o: tests/c/isa_scalar.c $(C_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -O1 -fno-tree-vectorize -fno-tree-slp-vectorize -c $< -o $@

build/fuzz/fuzz: tests/c/fuzz.c tests/c/calls.h $(addprefix build/fuzz/,$(C_CORE) isa_scalar.o)
	$(CC) $(C_FLAGS) -Wall -Wextra -o $@ $(filter %.c %.o,$^) -lm

build/fuzz/exhaustive: tests/c/exhaustive.c tests/c/calls.h $(addprefix build/fuzz/,$(C_CORE))
	$(CC) $(C_FLAGS) -Wall -Wextra -Wno-unused -o $@ $(filter %.c %.o,$^) -lm

build/tsan/%.o: csrc/%.c $(C_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -fsanitize=thread -c $< -o $@

build/tsan/threads: tests/c/threads.c tests/c/calls.h $(addprefix build/tsan/,$(C_CORE))
	$(CC) $(C_FLAGS) -fsanitize=thread -Wall -Wextra -o $@ $(filter %.c %.o,$^) -lm
