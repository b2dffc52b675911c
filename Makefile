# Each target does its own set-up: `make demo` or `make test` on a fresh clone is enough.

PYTHON ?= python3
DATA ?= bccd
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.setup-done
# a process takes up to 3 GB
PROCESSES := -n auto --maxprocesses 4 --dist worksteal
SETUP_INPUTS := Makefile requirements.txt setup.py pyproject.toml align_detr/projects/table.py \
	$(wildcard align_detr/repack/*.py) align_detr/cli/install_detectron2.py

# $(call fail,step,remedy): one sentence that names the step and the remedy
fail = { echo "make: set-up failed at \"$(1)\": $(2)" >&2; exit 1; }

.PHONY: help setup demo report test lint coverage docs figures bench studies digits-weights wheel clean

help:
	@echo "make setup    create $(VENV) with the pinned requirements, detectron2 and this package (later calls: seconds)"
	@echo "make demo     train a small detector on photos of blood cells, on the CPU, evaluate it and draw what it finds"
	@echo "              (DATA=digits: on digits in photos, made on the spot and trained from scratch)"
	@echo "make report   train DINO and Align-DINO on the blood cells (kept), and write a page on how scores and boxes agree"
	@echo "make test     run the tests"
	@echo "make lint     check lint, format, types and spelling"
	@echo "make coverage run the tests and show the lines that they miss, file by file"
	@echo "make docs     build the site of the documentation into site/ (Python 3.11 or newer; a minute)"
	@echo "make figures  draw the figures of README and docs (those of blood cells with the detector of make demo)"
	@echo "make bench    run the benchmarks"
	@echo "make studies  make the comparisons with several seeds (hours; finished runs are kept)"
	@echo "make digits-weights  train the detector of digits that comes with the package, and write its file"
	@echo "make wheel    build this package's and detectron2's wheels into dist/"
	@echo "make clean    remove $(VENV) and what was built"
	@echo "PYTHON=...    the interpreter to start from: 3.10 to 3.14 (now: $(PYTHON))"

setup: $(STAMP)

$(STAMP): $(SETUP_INPUTS)
	@command -v $(PYTHON) >/dev/null || $(call fail,python,there is no $(PYTHON): install Python 3.10 to 3.14 or name it with PYTHON=...)
	@$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))" || \
		$(call fail,python,$(PYTHON) is `$(PYTHON) --version 2>&1` and 3.10 to 3.14 is needed: name another with PYTHON=...)
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
		$(call fail,virtual environment,$(PYTHON) could not create $(VENV): install its venv module (python3-venv on Debian and Ubuntu))
	@echo "installing requirements.txt (about 6 GB; a minute on a fast network)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt || \
		$(call fail,requirements,check the network$(comma) pip's index settings and the disk (6 GB)$(comma) then run make setup again)
	@$(PY) -m align_detr.cli.install_detectron2 || \
		$(call fail,detectron2,see the sentence above$(comma) then run make setup again)
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e . || \
		$(call fail,this package,see pip's message above$(comma) then run make setup again)
	@touch $@
	@echo "set-up done: $(VENV)"

comma := ,

demo: setup
	@$(PY) -m align_detr.cli.main demo --data $(DATA)

report: setup
	@$(PY) benchmarks/bccd_report.py

test: setup
	@$(PY) -m pytest -q $(PROCESSES) tests

lint: setup
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) .ci/types.py
	@$(PY) -m codespell_lib

coverage: setup
	@$(PY) -m pytest -q $(PROCESSES) --cov --cov-report=term:skip-covered tests

docs: $(VENV)/.docs-done
	@$(PY) docs/site/build.py
	@echo "site/index.html is the site's first page"

# docs/figures: the blood cells' are by the demo's detector, which is trained if it is missing
figures: setup
	@test -f output/demo/weights.pth || $(PY) -m align_detr.cli.main demo
	@for figure in architecture class_targets sampling_points matching_steps found; do \
		$(PY) docs/figures/$$figure.py || exit; done

$(VENV)/.docs-done: docs/site/requirements.txt $(STAMP)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r docs/site/requirements.txt || \
		$(call fail,documentation,the site needs Python 3.11 or newer and the packages of docs/site/requirements.txt)
	@touch $@

bench: setup
	@$(PY) benchmarks/flops.py
	@$(PY) benchmarks/matcher.py
	@$(PY) benchmarks/deformable_attention.py
	@$(PY) benchmarks/full_step.py
	@$(PY) benchmarks/train_step.py --short
	@$(PY) benchmarks/validate.py
	@OMP_NUM_THREADS=1 $(PY) benchmarks/data.py --short
	@$(PY) benchmarks/startup.py --short
	@$(PY) benchmarks/evaluation.py
	@$(PY) benchmarks/predict.py
	@$(PY) benchmarks/inference.py --short
	@$(PY) benchmarks/onnx_ap.py --limit 100
	@$(PY) benchmarks/export.py latency --names DETR --seconds 3
	@OMP_NUM_THREADS=1 $(PY) benchmarks/faults.py
	@$(PY) benchmarks/memory.py
	@$(PY) benchmarks/random_batches.py
	@OMP_NUM_THREADS=1 $(PY) benchmarks/two_processes.py --iterations 40
	@OMP_NUM_THREADS=1 $(PY) benchmarks/report.py --images 500
	@$(PY) benchmarks/attention_sparsity.py
	@OMP_NUM_THREADS=1 $(PY) benchmarks/ablation_costs.py --steps 8
	@$(PY) benchmarks/busy.py --short
	@$(PY) benchmarks/scaling.py --short

# hours of training; what is done is kept, so it can be stopped and started
studies: setup
	@$(PY) benchmarks/dab_align.py
	@$(PY) benchmarks/bccd.py
	@$(PY) benchmarks/ablations.py
	@$(PY) benchmarks/ablations_equal_time.py
	@$(PY) benchmarks/convergence.py
	@$(PY) benchmarks/alignment.py --jobs 2
	@$(PY) benchmarks/matching_distillation.py

# the detector that comes with the package, from a seed; a finished training in output/digits is kept
digits-weights: setup
	@$(PY) benchmarks/digits_weights.py

# setuptools leaves files of earlier builds in build/ and would pack those that have been deleted since
wheel: setup
	@rm -rf build
	@$(PY) -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .
	@$(PY) -m align_detr.cli.install_detectron2 --wheel-dir dist
	@ls dist

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
