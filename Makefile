PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
REQUESTS ?= 200000

.PHONY: help run test lint docs sync stubs conformance tracing derivatives sparsity fuzz fuzz-wire audit bench clean

help:
	@echo "make run          install, start a local server with 2 workers, show the main job"
	@echo "make test         install what tests need and run them all"
	@echo "make lint         the generated face, ruff, mypy, buf lint, import contracts"
	@echo "make docs         the documentation as a site, in build/site"
	@echo "make sync         generate the synchronous face again, after a change of the asynchronous one"
	@echo "make stubs        generate the wire's stubs again, after a change under proto/"
	@echo "make conformance  onnx's backend suite: the table of marks, and docs/operators.md"
	@echo "make tracing      docs/tracing.md, the table of what traces"
	@echo "make derivatives  every derivative case, not the sample that make test takes"
	@echo "make sparsity     every sparsity pattern against dense derivatives: operators, CUTEst, compositions"
	@echo "make fuzz         200,000 mutated models"
	@echo "make fuzz-wire    200,000 mutated requests (REQUESTS=...) against a live server, its health watched"
	@echo "make audit        known vulnerabilities of what is installed; asks a database on the network"
	@echo "make bench        the benchmarks, as ratios from one run"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.server: $(BIN)/python pyproject.toml hatch_build.py $(wildcard proto/gradwire/v1/*.proto)
	$(BIN)/python -m pip install --quiet --editable '.[server]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml hatch_build.py $(wildcard proto/gradwire/v1/*.proto)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.server

$(VENV)/.docs: $(BIN)/python pyproject.toml hatch_build.py $(wildcard proto/gradwire/v1/*.proto)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

run: $(VENV)/.server
	$(BIN)/gradwire demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses auto --dist load

lint: $(VENV)/.dev
	$(BIN)/python scripts/generate_sync.py --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/lint-imports

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs build/site

sync: $(VENV)/.dev
	$(BIN)/python scripts/generate_sync.py

stubs: $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .

conformance: $(VENV)/.dev
	PYTHONPATH=. $(BIN)/python -m tests.conformance.marks --operators

tracing: $(VENV)/.dev
	PYTHONPATH=. $(BIN)/python -m tests.client.frontends.numpy.table

derivatives: $(VENV)/.dev
	TEST_GRADWIRE_DERIVATIVES=full $(BIN)/python -m pytest --numprocesses auto --timeout 1800 tests/conformance/test_derivatives.py

sparsity: $(VENV)/.dev
	TEST_GRADWIRE_SPARSITY=full $(BIN)/python -m pytest --numprocesses auto --timeout 3600 tests/conformance/sparsity tests/engine/sparsity
	JAX_ENABLE_X64=1 PYTHONPATH=. $(BIN)/python -m tests.conformance.sparsity.table

fuzz: $(VENV)/.dev
	PYTHONPATH=. $(BIN)/python -m tests.conformance.fuzz --inputs 200000

fuzz-wire: $(VENV)/.dev
	PYTHONPATH=. $(BIN)/python -m tests.server.fuzz.run --requests $(REQUESTS)

audit: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip_audit --skip-editable

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf build dist proto/gradwire_wire/v1 .pytest_cache .mypy_cache .ruff_cache .hypothesis
