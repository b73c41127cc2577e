# Everything is done in the environment .venv of this folder; nothing else of the machine is touched.
# Needed: GNU make and Python 3.11 or newer. Another Python: make test PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# The benchmarks that need no data from elsewhere.
BENCHMARKS := losses horizon

# Libraries that keep a folder in the home directory keep it here.
export MPLCONFIGDIR := $(CURDIR)/.venv/matplotlib

# Two tests run side by side: threads that wait for work must not hold the cores meanwhile.
test: export OMP_WAIT_POLICY := passive

.DEFAULT_GOAL := help
.PHONY: help demo test test-mpich test-napari check docs bench clean

help:
	@echo "make demo    draw images, train, segment and score for about two minutes; writes demo/report.html"
	@echo "make test    every test and every example in the documentation"
	@echo "make check   style, types, and which part may import which"
	@echo "make docs    the documentation as web pages, in build/docs"
	@echo "make bench   the benchmarks that need no data from elsewhere"
	@echo "make clean   remove the environment and all that was made here"

demo: $(READY)
	@rm -rf demo
	@echo "Draws 18 images, trains two minutes on 12 of them, and scores the model on the others: three minutes or so."
	@$(BIN)/nucleate demo --out demo

test: $(READY)
	@echo "Runs every test and every example in the documentation, two files at a time; the slowest are named at the end."
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=25

# What ranks do, once more with MPICH: two MPIs cannot share an environment.
test-mpich: export OMP_WAIT_POLICY := passive
test-mpich: .venv/mpich/.ready
	.venv/mpich/bin/python -m pytest -n 2 --dist loadfile -p no:cacheprovider tests/parallel \
	  tests/losses/test_distributed.py tests/training/test_ranks.py tests/inference/test_ranks.py \
	  -k "parallel or mpi-3 or weights_and_losses or files_are_those"

.venv/mpich/.ready: $(READY)
	@$(BIN)/python -m venv --clear .venv/mpich
	@.venv/mpich/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check -c constraints.txt mpi4py mpich
	@$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > "$$(.venv/mpich/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nucleate.pth"
	@touch $@

# The napari plugin, offscreen, without the warnings of napari itself; napari and Qt take three minutes to install, the tests one.
test-napari: export OMP_WAIT_POLICY := passive
test-napari: export QT_QPA_PLATFORM := offscreen
test-napari: .venv/napari/.ready
	.venv/napari/bin/python -m pytest -p no:cacheprovider -W ignore tests/napari

# The packages of .venv are seen first, so that only what is missing is installed.
.venv/napari/.ready: $(READY)
	@$(BIN)/python -m venv --clear .venv/napari
	@$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > "$$(.venv/napari/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nucleate.pth"
	@.venv/napari/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check -c constraints.txt \
	  'napari[pyqt6]' pytest-qt
	@touch $@

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_imports.py

docs: .venv/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "The documentation is at build/docs/index.html"

bench: $(READY)
	@set -e; for name in $(BENCHMARKS); do echo "== benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py; done

clean:
	rm -rf .venv demo build dist benchmarks/out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Made again where a dependency changed; a second call does nothing.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Nucleate needs Python 3.11 or newer, which $(PYTHON) is not: name another, as in make test PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make environments: install its venv module (on Debian and Ubuntu: python3-venv)." >&2; \
	  exit 1; }
	@echo "Making the environment in .venv; the first time takes some minutes."
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --no-cache-dir --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.venv/.docs: $(READY)
	@$(BIN)/python -m pip install --quiet --no-cache-dir --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@
