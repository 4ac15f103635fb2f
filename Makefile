# Each target sets up all it needs, from nothing but Python and pip, within what has been tested.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# Tests start many processes; without bytecode on disk each of them compiles the whole package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow test-lowest soak check docs notebooks dist bench clean

demo: $(READY)
	$(BIN)/counterpoise demo --overwrite

# Three processes, since some tests wait for processes of their own.
test: $(READY) check
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not slow"

test-slow: $(READY)
	OMP_NUM_THREADS=$$(getconf _NPROCESSORS_ONLN) $(BIN)/python -m pytest -m slow

# With the lowest of every package that is asked for. torch comes with CUDA then: some gigabytes.
test-lowest:
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/pip install --quiet --constraint constraints/lowest.txt --constraint constraints/beside-lowest.txt \
		--editable '.[coco,docs,hf,medical,mlflow,onnx,plots,search,slides,slurm,tensorboard,wandb]' \
		axe-playwright-python "fsspec[http]" hypothesis import-linter nbformat playwright pytest pytest-xdist torchmetrics webdataset
	build/lowest/bin/python -m pytest -n 3 --dist worksteal -m "not slow"

HOURS ?= 1

soak: $(READY)
	$(BIN)/python benchmarks/soak.py --hours $(HOURS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as a site, build/docs/index.html. A warning is an error.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Run the notebooks from top to bottom, and keep what they answer.
notebooks: $(READY)
	$(BIN)/python tools/notebooks.py
# Wheel and source, as they go to PyPI.
dist:
	$(PYTHON) -m venv build/tools
	build/tools/bin/pip install --quiet build check-wheel-contents twine
	rm -rf dist
	build/tools/bin/python -m build --outdir dist
	build/tools/bin/twine check --strict dist/*
	build/tools/bin/check-wheel-contents dist/*.whl

bench: $(READY)
	$(BIN)/python benchmarks/step.py --json

$(READY): pyproject.toml constraints/tested.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints/tested.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf build .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
