# `make demo` and `make test` make their own virtual environment. On Windows see README.md.
PYTHON ?= python3
BACKEND ?= numpy
BIN := .venv/bin

.PHONY: demo test chapters check bench mutants clean

demo: .venv/installed  ## train a GPT for 90 seconds, compare it with n-grams, sample
	$(BIN)/python -m minigpt demo

test: .venv/installed  ## the whole test suite, on two cores; BACKEND=cupy on a GPU, strict without
	MINIGPT_BACKEND=$(BACKEND) OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

chapters: .venv/installed  ## read and run the chapters in JupyterLab
	$(BIN)/jupyter lab chapters

check: .venv/installed  ## style, types, spelling, and that the notebooks are what their sources say
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell README.md minigpt tests benchmarks tools chapters/*.py chapters/solutions
	$(BIN)/python tools/chapters.py check

bench: .venv/installed  ## a training step beside PyTorch's (installs it first)
	$(BIN)/pip install --quiet -r benchmarks/requirements.txt
	$(BIN)/python -m benchmarks.train_step

mutants: .venv/installed  ## break the engine in 2,000 ways: which do the tests notice? 30 minutes
	$(BIN)/python -m tools.mutants

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet --no-deps -e .
	touch $@

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
