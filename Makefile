# make setup | demo | test | test-slow | lint | clean      PYTHON=python3.12 and VENV=/elsewhere choose interpreter and place
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := basicsr,test,report,dev
# threads fight over two cores, and small networks gain nothing from them
TEST_ENV := OMP_NUM_THREADS=1

.PHONY: setup demo test test-slow lint clean help

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

test: setup
	$(TEST_ENV) $(BIN)/python -m pytest -m "not slow"

test-slow: setup
	$(TEST_ENV) $(BIN)/python -m pytest -m slow || [ $$? -eq 5 ]  # 5: there are none

lint: setup
	$(BIN)/python -m ruff check .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
