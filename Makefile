# make setup | demo | zoo | bench | test | test-slow | test-browser | test-stock | test-gpu | lint | clean      PYTHON=python3.12 and VENV=/elsewhere choose interpreter and place
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := basicsr,test,report,dev
# threads fight over two cores, and small networks gain nothing from them
TEST_ENV := OMP_NUM_THREADS=1
# two processes, whole files each: their fixtures are made once
PARALLEL := -n 2 --dist loadfile

ZOO := sr4x_s jpeg10_s sr4x_baselines jpeg10_baseline

.PHONY: setup demo zoo bench test test-slow test-browser test-stock test-gpu lint clean help

help:
	@head -1 Makefile

setup: $(STAMP)

$(STAMP): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[$(EXTRAS)]'
	@touch $@

# Distils the x4 student from the teacher in weights/, then compares it with the teacher and with bicubic. A second call resumes.
demo: setup
	$(BIN)/python -m ibmd_basicsr.train -opt options/sr4x_ibmd.yml --auto_resume
	$(BIN)/python -m ibmd_basicsr.compare -opt options/compare/sr4x.yml

# Trains what is in ZOO (options/zoo/recipes.yml), for a GPU, on photographs of Debian packages. A second call resumes.
zoo: setup
	$(BIN)/python scripts/fetch_photos.py
	$(BIN)/python scripts/zoo.py $(ZOO)

# What training and restoring cost beside their bare network passes (docs/speed.md). BENCH='--size s --parts a b' chooses.
bench: setup
	$(BIN)/python -m ibmd_basicsr.bench $(BENCH)

test: setup
	$(TEST_ENV) $(BIN)/python -m pytest $(PARALLEL) -m "not slow and not browser and not gpu"

test-slow: setup
	$(TEST_ENV) $(BIN)/python -m pytest -m "slow and not gpu" || [ $$? -eq 5 ]  # 5: there are none

# The page that compare writes, in a real browser. Needs chromium and its driver: apt-get install chromium chromium-driver
test-browser: setup
	$(BIN)/python -m pip install --quiet -e '.[browser]'
	$(TEST_ENV) $(BIN)/python -m pytest -m browser

# What touches the host once more, with the release of BasicSR that the package index serves (2022) instead of its later source.
STOCK := $(abspath $(VENV))/basicsr-1.4.2

$(STOCK): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --use-pep517 --target $@ basicsr==1.4.2

test-stock: $(STOCK)
	PYTHONPATH=$(STOCK) $(BIN)/python -c "import ibmd_basicsr.compat, basicsr; assert basicsr.__file__.startswith('$(STOCK)')"
	PYTHONPATH=$(STOCK) $(TEST_ENV) $(BIN)/python -m pytest $(PARALLEL) -m "not slow and not gpu" tests/host tests/models tests/data

# Needs a CUDA device.
test-gpu: setup
	$(TEST_ENV) $(BIN)/python -m pytest -m gpu

lint: setup
	$(BIN)/python -m ruff check .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
