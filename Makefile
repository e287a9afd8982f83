# Everything a newcomer types. Python ≥ 3.10, pip and make are all that is assumed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint venv native gpu-check bench fuzz fuzz-guided bundle results clean

demo: venv  ## train, export, serve, lose a sensor and carry on
	$(BIN)/python examples/demo.py

test: venv  ## every promise of the README, checked
	$(BIN)/python -m pytest

lint: venv  ## ruff and the type checker
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

venv: .venv/installed  ## .venv/ with everything development needs

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

native: venv  ## native/: host library, and where nvcc is the fatbin that runtime/ loads
	$(BIN)/cmake -S . -B build/native
	$(BIN)/cmake --build build/native
	$(BIN)/cmake --install build/native --prefix .
	$(BIN)/ctest --test-dir build/native --output-on-failure

gpu-check: native  ## on a machine with a GPU: its tests, engines, benchmark, and the doctor
	$(BIN)/python -m benchmarks.gpu_check

bench: venv  ## every figure in its short form, into benchmarks/RESULTS.md
	-$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks --quick

fuzz: venv  ## a million damaged frames; none may crash or touch another sensor
	$(BIN)/python -m benchmarks.fuzz

fuzz-guided: venv  ## for nights: ten minutes of bytes that look for new ways through the code
	-$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python -m benchmarks.guided --minutes 10

bundle: venv  ## make the shipped bundle export/engines/ again
	$(BIN)/python -m train --dataset watch --labels 1 --encoder acc=conv1d --encoder gyro=conv1d \
		--out runs/watch
	$(BIN)/python -m export runs/watch --out export

results: venv  ## the comparison with other methods, short form, into docs/RESULTS.md
	$(BIN)/python -m train.evaluate --quick
	$(BIN)/python -m train.report results/quick

clean:  ## remove what the targets made
	rm -rf .venv build runs runtime/robult_native.fatbin
