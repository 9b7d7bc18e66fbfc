# make sweep                      from a fresh clone to a finished sweep and a promoted model
# PYTHON=python3.12 make sweep    the same, with an interpreter of your choice

.DEFAULT_GOAL := help
.PHONY: help .venv .venv-dev sweep ui test lint faults bench bench-quick

BIN := .venv/bin

help:
	@echo "make sweep   install into .venv, run sweeps/quickstart.yaml, promote its best model"
	@echo "make ui      compare the runs in MLflow at 127.0.0.1, until Ctrl-C"
	@echo "make test    install what development needs, lint, then run every test"
	@echo "make faults  the fault matrix at its full sizes (about two hours); writes tests/faults/faults.json"
	@echo "make bench   every benchmark, about 40 minutes; writes tests/benchmarks/results.json and the table beside it"
	@echo "make bench-quick  every benchmark once and small, about 3 minutes; writes nothing"
	@echo "make lint    ruff, mypy and import-linter alone"
	@echo "make .venv   install, and nothing else"

# Phony: the script knows better than a date whether the installation is whole and up to date.
.venv:
	@sh .ci/install

.venv-dev:
	@sh .ci/install dev

sweep: .venv
	@$(BIN)/harness sweep sweeps/quickstart.yaml
	@$(BIN)/harness promote sweeps/quickstart.yaml
	@$(BIN)/python -c "$$FOUND"

ui: .venv
	@$(BIN)/harness ui

lint: .venv-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

faults: .venv-dev
	HARNESS_FAULTS=full $(BIN)/python -m pytest tests/faults $(PYTEST_ARGS)

bench: .venv-dev
	$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

bench-quick: .venv-dev
	$(BIN)/python -m tests.benchmarks --quick $(BENCH_ARGS)

define FOUND
import json, pathlib
latest = max(pathlib.Path("promoted").glob("*/evidence.json"), key=lambda path: path.stat().st_mtime)
evidence, bundle = json.loads(latest.read_text(encoding="utf-8")), latest.parent
test, configuration = evidence["test"], evidence["trial"]["name"].partition(" ")[2]
print(f"""
Found: {configuration} is the best of {evidence['trials_compared']} trials. On {test['windows']} test windows of {test['clusters']} speakers,
from chapters that it was neither trained nor chosen on, it scores {test['value']:.3f} [{test['low']:.3f}, {test['high']:.3f}];
a coin scores 0.500.
The model: {bundle}/model.onnx    Its evidence: {bundle}/card.md

Next:
  make ui                                           compare the runs in MLflow
  $(BIN)/harness status quickstart               the same as a table
  $(BIN)/harness sweep sweeps/features.yaml      a longer sweep, about 5 minutes
  $(BIN)/harness init my.yaml                    a sweep file of your own
README.md has the rest, real speech included.""")
endef
export FOUND
