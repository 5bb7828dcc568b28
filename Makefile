# make demo       the whole road on this CPU; make finetune: from a model folder to a model folder, with LoRA and without
# make test       every test; make test-fast: those that start no process and no Megatron (some minutes)
# make check      what CI runs: lint, types, words, the other Megatrons and Pythons, every test
# make fuzz       inputs that nobody wrote, FUZZ_SECONDS=120 for each of five fuzzers; make check tries the same ones each time
# make lock       requirements.lock, make sbom: the bill of materials, make audit: known vulnerabilities (each asks the network)
# make site       the documents as a site; make reference: docs/commands.md from the code
# make chaos      kills and full disks at every change of the disk, of which `make test` tries a few
# make gpu        what a machine with GPUs must show, and the table of a step: docs/gpu.md
# make coverage   every test again, counting the lines that run, in the processes that tests start as well
# Needs Python 3.12 or 3.13 (megatron-core's wheel with pretrain() does) and the network for the first time.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= $(shell for python in python3.12 python3.13 $(HOME)/.pyenv/versions/3.1[23]*/bin/python3 python3; do \
	"$$python" -c 'import sys, venv; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo "$$python" && break; done)

.PHONY: demo finetune test test-fast gpu chaos coverage check lint words versions pythons format clean fuzz lock browser licences dist sbom audit reference site

demo: $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/demo.sh

finetune: $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/finetune.sh

# Two files of tests at a time: one that starts processes waits more than it computes. Megatron needs 2 GB or so of each.
JOBS ?= 2
test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_FLAGS)

test-fast: $(READY)
	$(BIN)/python -m pytest -m unit -n auto --dist worksteal $(PYTEST_FLAGS)

# On one GPU or several, of AMD or NVIDIA. It needs no network, and no package beside those of the tests.
gpu: $(READY)
	$(BIN)/python -m pytest tests/gpu -m gpu -rA $(PYTEST_FLAGS)
	$(BIN)/python benchmarks/step.py

# Every command that writes a directory, killed before each of its changes of the disk, and with a disk that fills at each.
chaos: $(READY)
	$(BIN)/python -m pytest tests/preprocess/test_interruptions.py tests/trainer/model/test_export_interruptions.py \
		--every-change --timeout 0 $(PYTEST_FLAGS)

# Processes that are killed with SIGKILL report nothing; that is the tests' doing, and a few lines less.
coverage: $(READY)
	$(BIN)/coverage erase
	COVERAGE_CORE=sysmon $(BIN)/coverage run -m pytest $(PYTEST_FLAGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: lint licences dist site browser
	$(MAKE) --jobs=2 --output-sync versions pythons
	$(MAKE) fuzz FUZZ_SECONDS= FUZZ_ROUNDS=10 FUZZ_SEED=0
	$(MAKE) test

# The browser in which tests look at pages: Debian's, where this is root on a machine that has apt; else they are skipped.
browser:
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq \
	&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } \
	|| echo "== no chromium here, and none could be installed: the tests that look at pages are skipped"

# Records, templates, tables, tokenizer folders and shard directories. What fails is left in tests/fuzz/found.
FUZZ_SECONDS ?= 120
FUZZ_ROUNDS ?= 2
FUZZ_SEED ?= $(shell date +%s)
fuzz: $(READY)
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_ROUNDS=$(FUZZ_ROUNDS) FUZZ_SEED=$(FUZZ_SEED) $(BIN)/python -m pytest tests/fuzz --timeout 0 $(PYTEST_FLAGS)

lint: words $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The left-hand sides of .codespell.txt, in any case, also as part of a name; the right-hand side is what is said instead.
FILES = formats preprocess trainer tests benchmarks docs configs README.md $(wildcard CONTRIBUTING.md)
words: $(READY)
	$(BIN)/codespell --dictionary .codespell.txt --check-hidden --skip '*.json,*.jsonl,*.jinja,*.yaml,*.sh' \
		--regex "(?i)(?<![a-z])(?:$$(sed 's/->.*//' .codespell.txt | paste -sd'|'))(?![a-z])" $(FILES)

# The wheels of Megatron beside the installed one: fetched once, 34 MB, into pytest's cache folder.
versions: $(READY)
	$(BIN)/python -m pytest tests/versions/wheels.py

# Every Python from 3.10 to 3.14 that is on PATH or in ~/.pyenv/versions; those that are not are named.
pythons: $(READY)
	$(BIN)/python -m pytest tests/versions/pythons.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Tools that look at dependencies have an environment of their own, so that theirs are not among what they look at.
AUDIT := .audit
$(AUDIT)/.ready: $(READY)
	@test -x $(AUDIT)/bin/python || "$(PYTHON)" -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build cyclonedx-bom pip-audit pip-licenses twine uv
	@touch $@

# What pip installs with every extra on Linux and Python 3.12: versions as in constraints.txt, and the hash of each file.
lock: $(AUDIT)/.ready
	$(AUDIT)/bin/uv pip compile setup.cfg --extra train-torch --extra ray --extra chat --extra dev --constraint constraints.txt \
		--generate-hashes --python-version 3.12 --python-platform x86_64-unknown-linux-gnu \
		--no-header --no-annotate --no-emit-index-url --quiet --output-file requirements.lock

# Every installed package has a licence that pyproject.toml allows.
licences: $(AUDIT)/.ready
	$(AUDIT)/bin/pip-licenses --python=$(BIN)/python >/dev/null

# What a release uploads: a source archive and a wheel, whose metadata an index would accept.
dist: $(AUDIT)/.ready
	@rm -rf dist/*.whl dist/*.tar.gz
	$(AUDIT)/bin/python -m build --outdir dist . >/dev/null
	$(AUDIT)/bin/twine check --strict dist/*.whl dist/*.tar.gz
	@rm -rf build

# The documents as a site, in an environment of its own; a dead link, or a document that docs/README.md leaves out, is an error.
SITE := .site
$(SITE)/.ready: constraints.txt
	@test -x $(SITE)/bin/python || "$(PYTHON)" -m venv $(SITE)
	@$(SITE)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt mkdocs-material
	@touch $@

site: $(SITE)/.ready
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --quiet

# docs/commands.md, from the options that the code declares; a test compares.
reference: $(READY)
	$(BIN)/python docs/hooks/commands.py

# A CycloneDX bill of materials of the environment that the tests run in; it goes with a release and is not committed.
sbom: $(AUDIT)/.ready
	@mkdir -p dist
	$(AUDIT)/bin/cyclonedx-py environment $(BIN)/python --output-reproducible -o dist/sbom.cdx.json

# Vulnerabilities that are known of the locked versions.
audit: $(AUDIT)/.ready
	$(AUDIT)/bin/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict

# constraints.txt holds the versions that the tests were run with; setup.cfg says which ones are allowed.
$(READY): setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "== making $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv $(VENV); }
	@echo "== installing into $(VENV) (the first time takes some minutes: torch is large)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train-torch,ray,dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(AUDIT) $(SITE) site demo-out finetune-out build dist *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
