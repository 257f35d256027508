# `make help` lists the targets. Everything runs inside .venv, which is made from constraints.txt on first use.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PORT   ?= 8000
JOBS   ?= 2
# More words for pip, e.g. PIP_ARGS="--extra-index-url ADDRESS" for a torch build of your choice.
PIP_ARGS ?=
# A Python of your choice: make PYTHON=/path/to/python3.12 book
PYTHON ?=
CANDIDATES := $(PYTHON) python3.11 python3.12 python3.13 python3 python
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest

.PHONY: help install book read test quick bugs lab notebooks coursework coursework-check grade check set-address clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

$(STAMP): pyproject.toml constraints.txt
	@if [ ! -x $(BIN)/python ]; then \
	  for p in $(CANDIDATES); do \
	    if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$p; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo "No Python 3.11 or newer was found; install one, or say make PYTHON=/path/to/python3.11"; exit 1; fi; \
	  echo "making $(VENV) with $$found"; $$found -m venv $(VENV); \
	fi
	@echo "installing the pinned versions of constraints.txt (minutes the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

install: $(STAMP) ## make .venv with everything in it

book: $(STAMP) ## build the rendered book from the committed outputs (nothing is executed)
	@$(BIN)/python tools/pair.py --check
	@$(BIN)/jupyter-book build . -W -n --keep-going -q > _build.log 2>&1 || { cat _build.log; rm -rf _build _build.log; echo "the book was not built: see above"; exit 1; }
	@rm -f _build.log
	@echo "The book is built. Open file://$(CURDIR)/_build/html/index.html or run: make read"

read: book ## serve the book on localhost (PORT=8000)
	@echo "http://localhost:$(PORT)/   (Ctrl-C ends it)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

test: $(STAMP) ## every test: library, structure, notebooks, the rendered book in a browser
	@failed=""; $(MAKE) --no-print-directory book || failed=" build"; \
	$(PYTEST) tests --ignore=tests/book -n $(JOBS) --dist loadfile || failed="$$failed library"; \
	if ls notebooks/*.ipynb >/dev/null 2>&1; then \
	  DIFFUSION_STATIC=1 $(PYTEST) --nbval-lax --nbval-current-env --nbval-cell-timeout=600 -p no:cacheprovider \
	    -n $(JOBS) --dist loadfile notebooks/*.ipynb || failed="$$failed notebooks"; \
	fi; \
	$(PYTEST) tests/book -rs || failed="$$failed book"; \
	if [ -n "$$failed" ]; then echo "FAILED:$$failed"; exit 1; fi; echo "all tests passed"

quick: $(STAMP) ## the fast tests only: no notebooks, no browser, nothing marked slow
	@$(PYTEST) tests --ignore=tests/book -m "not slow" -n $(JOBS) --dist loadfile

bugs: $(STAMP) ## plant one realistic bug at a time in a copy of the library: the tests must catch each (ARGS="--only heun")
	@$(ONE_THREAD) $(BIN)/python tests/planted/plant.py -j $(JOBS) $(ARGS)

lab: $(STAMP) ## open the chapters in JupyterLab
	@$(BIN)/jupyter lab --notebook-dir=notebooks

notebooks: $(STAMP) ## bring .ipynb in step with .md, run the chapters whose code changed, rewrite the equation index and the landing page's pictures
	@$(BIN)/python tools/address.py
	@$(BIN)/python tools/pair.py
	@$(BIN)/python tools/execute.py
	@$(BIN)/python tools/equations.py
	@$(BIN)/python tools/landing.py

coursework: $(STAMP) ## write the students' and the instructor's notebooks to coursework/_out (ADDRESS=OWNER/REPO/blob/main/FOLDER, ARGS=--run)
	@$(ONE_THREAD) $(BIN)/python -m diffusion_lib.grading.release $(if $(ADDRESS),--address "$(ADDRESS)") $(ARGS)

coursework-check: $(STAMP) ## put every right and wrong answer of the assignments through the grader (ARGS="--task NAME --verbose")
	@$(ONE_THREAD) $(BIN)/python -m diffusion_lib.grading.authoring $(or $(MASTER),$(wildcard coursework/[0-9][0-9]_*.md)) $(ARGS)

grade: $(STAMP) ## grade a class: make grade SUBMISSIONS=folder [OUT=grades.csv FEEDBACK=feedback JOBS=2] (ARGS="--time 300 --fresh")
	@if [ -z "$(SUBMISSIONS)" ]; then echo "say which: make grade SUBMISSIONS=folder (one folder for each student in it)"; exit 1; fi
	@$(BIN)/python -m diffusion_lib grade "$(SUBMISSIONS)" --out "$(or $(OUT),grades.csv)" --feedback "$(or $(FEEDBACK),feedback)" --jobs $(JOBS) $(ARGS)

check: $(STAMP) ## say what is out of step (pairs, outputs, address, equation index) and how the code reads
	@$(BIN)/python tools/pair.py --check && $(BIN)/python tools/execute.py --check && \
	  $(BIN)/python tools/address.py --check && $(BIN)/python tools/equations.py --check && \
	  $(BIN)/python tools/landing.py --check && $(BIN)/ruff check -q

set-address: $(STAMP) ## move the book to another repository: make set-address URL=https://github.com/OWNER/NAME
	@if [ -z "$(URL)" ]; then echo "say which: make set-address URL=https://github.com/OWNER/NAME"; exit 1; fi
	@$(BIN)/python tools/address.py --set "$(URL)" && $(BIN)/python tools/pair.py

clean: ## remove what was built (not .venv)
	rm -rf _build coursework/_out build dist *.egg-info .pytest_cache .ruff_cache _build.log
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
