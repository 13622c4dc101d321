# Everything sets itself up: on a fresh machine with Python ≥ 3.11 (and its venv module) type
#   make demo     the voice-note pipeline on real audio, and what its events tell
#   make test     linters, types and the whole test suite
.DEFAULT_GOAL := help
.PHONY: help demo test test-bare test-pythons test-platforms wheel faults faults-a faults-b fuzz fuzz-guided lint types house pictures opentelemetry bench bench-smoke collector kafka clean

# The first of these that runs and is new enough: a name on the PATH may be a shim for nothing.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
BENCH := $(VENV)/.installed-bench
# Two for each core, because many tests wait for a process.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) \* 2)
unexport PYTHONDONTWRITEBYTECODE # the suite starts some thousand processes: each would compile anew

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 22

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'sidelight needs Python 3.11 or newer, and none is on the PATH: make PYTHON=/path/to/python3'; exit 1; }
	@echo 'making the environment $(VENV) …'
	@$(PYTHON) -m venv $(VENV) || { echo 'python -m venv failed: on Debian, apt-get install python3-venv'; rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=24'

$(RUN): $(BIN)/python pyproject.toml
	@echo 'installing sidelight with its voice extra into $(VENV); this takes about a minute …'
	@$(BIN)/python -m pip install --quiet -e '.[voice]'
	@touch $@

$(DEV): $(RUN)
	@echo 'installing the development tools into $(VENV); this takes about a minute …'
	@$(BIN)/python -m pip install --quiet -e '.[voice,postgres,kafka,test,lint]'
	@touch $@

$(BENCH): $(DEV)
	@echo 'installing the peers to compare with into $(VENV) …'
	@$(BIN)/python -m pip install --quiet -e '.[voice,postgres,kafka,test,lint,bench]'
	@touch $@

demo: $(RUN) ## run the voice-note pipeline on a recording and show its events (NOTE=your.wav)
	@$(BIN)/python -m voice_notes.demo $(NOTE)

test: $(DEV) ## linters, types and the test suite
	@$(MAKE) --no-print-directory -j2 lint types
	$(BIN)/python -m pytest -n $(JOBS) tests

faults: faults-a faults-b ## the promise under fault, at full length: both halves, one after the other

fuzz: $(DEV) ## generated records, headers, entries and rows: FUZZ_EXAMPLES of them (2,000), others with FUZZ_SEED
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-2000} $(BIN)/python -m pytest -n 0 -p no:randomly tests/faults/test_crafted.py -k generated

fuzz-guided: $(DEV) ## the same for FUZZ_SECONDS (600), guided by the branches that are reached (atheris)
	$(BIN)/python -m pip install -q atheris
	$(BIN)/python -m tests.support.guided_fuzz -max_len=4096 -len_control=0 -max_total_time=$${FUZZ_SECONDS:-600}

# Rows 1 to 9 of the table in docs/explanation/under-fault.md, then the others.
FAULTS_A := killed several stores_frozen stores_killed networks full_disk failing_disk bound
FAULTS := $(BIN)/python -m pytest --full -p no:randomly --durations=15

faults-a: $(DEV) ## … the first half: kills, frozen and killed databases, networks, full disks
	$(FAULTS) $(FAULTS_A:%=tests/faults/test_%.py)

faults-b: $(DEV) ## … the second half: damage, clocks, forks, cancellation, memory, ends, tracers
	$(FAULTS) tests/faults tests/transactions/test_proof.py tests/emission/test_special_methods.py $(FAULTS_A:%=--ignore=tests/faults/test_%.py)

test-bare: $(DEV) ## the suite without any server or tool: what needs one skips with a reason
	SIDELIGHT_TEST_BARE=1 $(BIN)/python -m pytest -n $(JOBS) tests

test-pythons: $(DEV) ## a short form of the suite on every Python of this machine
	$(BIN)/python -m tests.support.pythons

test-platforms: $(DEV) ## the unit tests as on macOS and Windows, by hiding what they lack
	$(BIN)/python -m tests.support.platforms

wheel: $(DEV) ## build the wheel, and try it in an empty environment
	$(BIN)/python -m tests.support.wheel

lint: $(DEV) ## ruff, and the floors and faces of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(DEV) ## mypy --strict and pyright, of the example applications too
	$(BIN)/mypy src docs/examples
	$(BIN)/pyright --pythonpath $(BIN)/python src docs/examples

house: $(DEV) ## draw the rooms of docs/explanation/the-house.md from the contract in pyproject.toml
	$(BIN)/python -m tests.docs.house

pictures: $(DEV) ## take the screenshots of the documentation (needs Chromium)
	$(BIN)/python -m tests.page.pictures

collector: $(DEV) ## build the OpenTelemetry Collector that the tests talk to (needs Go, once)
	$(BIN)/python -m tests.support.collector

kafka: $(DEV) ## fetch the Kafka that the tests start (needs Maven and Java 17, once)
	$(BIN)/python -m tests.support.kafka

# Also the oldest version that pyproject.toml allows.
OPENTELEMETRY ?= 1.39.1 1.42.0
opentelemetry: $(DEV) ## exported bytes equal the SDK's, under older versions of OpenTelemetry too
	@for version in $(OPENTELEMETRY); do \
		$(BIN)/python -m venv .venv/opentelemetry-$$version && \
		.venv/opentelemetry-$$version/bin/python -m pip install --quiet -e . \
			filelock hypothesis psutil pytest pytest-asyncio \
			opentelemetry-api==$$version opentelemetry-sdk==$$version opentelemetry-exporter-otlp==$$version && \
		.venv/opentelemetry-$$version/bin/python -m pytest -o filterwarnings=default \
			tests/otlp/test_encoding.py tests/otlp/test_telemetry.py || exit 1; \
	done

bench: $(BENCH) ## the benchmarks, beside the peers; some ten minutes
	$(BIN)/python -m benchmarks

bench-smoke: $(BENCH) ## a short run of the benchmarks that checks the budget
	$(BIN)/python -m benchmarks --smoke

clean: ## remove what make made
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache benchmarks/report
