# Everything a contributor runs. The first target on a bare machine makes .venv; PY=python uses an
# environment of your own instead.
#   TORCH_VERSION  the torch to install            VENV  where the environment goes
#   PIP_ARGS       extra arguments for pip install ARGS  extra arguments for the command run

PYTHON ?= python3
TORCH_VERSION ?= 2.13.0
VENV ?= .venv
PIP_ARGS ?=
ARGS ?=
# Each takes up to 2 GB of memory.
TEST_PROCESSES ?= 2
# Not where the kept results are: a run goes on from the rows that it finds.
BENCH_OUT ?= bench-output
# The CUDA kit. The time is for all of it, installing from WHEELS included.
DEVICE ?= cuda
PART ?=
WHEELS ?=
LIMIT_S ?= 540
CUDA_OUT ?= $(BENCH_OUT)/cuda$(if $(filter cpu,$(DEVICE)),-cpu)
CUDA_WHEELS ?= cuda-wheels

STAMP := $(VENV)/.installed-torch-$(TORCH_VERSION)
ifeq ($(origin PY), undefined)
PY := $(VENV)/bin/python
ENVIRONMENT := $(STAMP)
endif

.PHONY: help install demo test operators lint format types boundary wheel-check docs bench \
        bench-quick cuda cuda-wheels clean

help:
	@echo "make demo         train GPT-2 in half of its memory, gradients bit for bit (< 5 minutes)"
	@echo "make test         the test suite; GPU tests are skipped where there is no GPU"
	@echo "make operators    every operator of torch with a gradient, in every type; over an hour"
	@echo "make lint types   ruff and pyright strict;  make format  applies ruff's fixes"
	@echo "make boundary     fxremat_solvers imports neither torch nor fxremat"
	@echo "make wheel-check  sdist -> wheel -> clean environment"
	@echo "make docs         the documentation as a site, warnings as errors"
	@echo "make bench-quick  the benchmark harness in under 10 minutes;  make bench  all of it"
	@echo "make cuda         tests, exactness and step times on a GPU in 9 minutes; goes on where it"
	@echo "                  stopped.  PART=tests|exactness|graphs|bench|inductor|loops|estimate"
	@echo "                  DEVICE=cpu: a small part, 3 minutes"
	@echo "                  PY=python WHEELS=DIR: an image's environment and no network"
	@echo "make cuda-wheels  fetch the wheels that a CUDA image may lack, for a machine without network"

install: $(ENVIRONMENT)

# torch comes first and pinned, so that the project's own range can't choose another build.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --upgrade pip $(PIP_ARGS)
	$(VENV)/bin/python -m pip install "torch==$(TORCH_VERSION)" $(PIP_ARGS)
	$(VENV)/bin/python -m pip install -e ".[models,integrations,dev]" "torch==$(TORCH_VERSION)" $(PIP_ARGS)
	rm -f $(VENV)/.installed-torch-*
	touch $@

demo: $(ENVIRONMENT)
	$(PY) -m benchmarks.demo $(ARGS)

test: $(ENVIRONMENT)
	$(PY) -m pytest --ignore=tests/packaging \
	    --numprocesses $(TEST_PROCESSES) --dist worksteal $(ARGS)

operators: $(ENVIRONMENT)
	$(PY) -m tests.operators --out $(BENCH_OUT)/operators $(ARGS)

lint: $(ENVIRONMENT)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(ENVIRONMENT)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: $(ENVIRONMENT)
	$(PY) -m pyright --pythonpath "$$($(PY) -c 'import sys; print(sys.executable)')" $(ARGS)

boundary: $(ENVIRONMENT)
	$(PY) -m pytest tests/packaging/test_boundary.py tests/packaging/test_layers.py

wheel-check: $(ENVIRONMENT)
	$(PY) -m pytest tests/packaging/test_wheel.py

docs: $(ENVIRONMENT)
	$(PY) -m mkdocs build --strict $(ARGS)

bench: $(ENVIRONMENT)
	$(PY) -m benchmarks run --out $(BENCH_OUT)/full $(ARGS)
	$(PY) -m benchmarks report $(BENCH_OUT)/full

bench-quick: $(ENVIRONMENT)
	$(PY) -m benchmarks run --quick --jobs 2 --out $(BENCH_OUT)/quick $(ARGS)
	$(PY) -m benchmarks report $(BENCH_OUT)/quick

cuda: $(ENVIRONMENT)
	$(PY) -m benchmarks.cuda run --device $(DEVICE) --parts "$(PART)" --out $(CUDA_OUT) \
	    --limit-s $(LIMIT_S) $(if $(WHEELS),--wheels $(WHEELS)) $(ARGS)

cuda-wheels: $(ENVIRONMENT)
	$(PY) -m benchmarks.cuda.wheels --out $(CUDA_WHEELS) $(ARGS)

clean:
	rm -rf build dist site demo-output bench-output .pytest_cache .ruff_cache .hypothesis
