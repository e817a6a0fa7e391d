PYTHON ?= python

.PHONY: check test conformance torture format

check:  ## All that must pass before a change goes in.
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -c "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
	$(PYTHON) -m pytest -n auto

test:  ## The tests alone; make test PYTEST_ARGUMENTS="tests/data -x" runs some of them.
	$(PYTHON) -m pytest -n auto $(PYTEST_ARGUMENTS)

conformance:  ## transformers' own common tests over our classes; fetches its source distribution into the cache once.
	$(PYTHON) -m pytest tests/conformance -m conformance $(PYTEST_ARGUMENTS)

torture:  ## Real runs, injured row by row as often as for a release; hours. Without the variable, few times: minutes.
	HF_MINILM_TORTURE=full $(PYTHON) -m pytest tests/torture -m slow $(PYTEST_ARGUMENTS)

format:  ## Rewrite the code in the project's form.
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
