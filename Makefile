# make run      upload a document to the real template on a local stack, and see its row in the ledger
# make test     every test, lint and type check
# Both set up what they need; only Python 3.13 and make must be there.

SHELL := /bin/bash
export PYENV_VERSION ?= 3.13
export SAM_CLI_TELEMETRY := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTHON := $(shell export PYENV_VERSION=$(PYENV_VERSION); for each in python3.13 python3 python; do \
	$$each -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null && echo $$each && break; done)
BIN := .venv/bin
RUN := PYTHONPATH=src:. $(BIN)/python
TOOLS := .local
ENVIRONMENTS := .venv/ready $(TOOLS)/ministack/ready $(TOOLS)/sam/ready $(TOOLS)/audit/ready

TRIED := .venv/ready $(TOOLS)/ministack/ready $(TOOLS)/sam/ready

FILE ?= events/documents/sample.pdf
EVENT ?= events/s3-put.json
KEY ?=
ONLY ?=
WORKERS ?= 10
export PORT

.DEFAULT_GOAL := help
.PHONY: help setup docs pictures run up invoke event test tests test-unit check-code soak bench check format lock clean

help:
	@sed -n 's/^# \(make.*\)/\1/p' Makefile
	@echo 'make test-unit  format, lint, types, unit and template tests'
	@echo 'make up       keep the local stack in the foreground'
	@echo 'make invoke   EVENT=events/s3-put.json: the built function in the real Lambda runtime'
	@echo 'make event    KEY=...: write a true event for an object of the local stack'
	@echo 'make soak     1,000 uploads while a fifth of all answers is wrong'
	@echo 'make bench    memory, processor time, start, work, draining, latency, burst, scale, money; ONLY="relay start" for some'
	@echo 'make check    format, lint, types, imports, template'
	@echo 'make format   format, and fix what lint can fix'
	@echo 'make docs     make the tables of the documentation anew'
	@echo 'make pictures make the pictures of the documentation anew'
	@echo 'make lock     resolve the pinned requirements anew'
	@echo 'make clean    remove what the others made'

setup:
	@test -n "$(PYTHON)" || { echo "Python 3.13 is needed and was not found. Install it, then run make again." >&2; exit 1; }
	@$(MAKE) --silent --no-print-directory -j4 $(ENVIRONMENTS)

define make_environment
	@echo "Setting up $(@D) ..."
	@rm -rf $(@D) && mkdir -p $(dir $(@D)) && $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --no-deps --require-hashes -r $< >$(@D)/install.log 2>&1 || \
		{ echo "Setting up $(@D) failed:" >&2; tail -n 5 $(@D)/install.log >&2; exit 1; }
	@touch $@
endef

.venv/ready: local/requirements.txt
	$(make_environment)
$(TOOLS)/ministack/ready: local/requirements-ministack.txt
	$(make_environment)
$(TOOLS)/sam/ready: local/requirements-sam.txt
	$(make_environment)
$(TOOLS)/audit/ready: local/requirements-audit.txt
	$(make_environment)
$(TOOLS)/bench/ready: bench/requirements.txt
	$(make_environment)

run:
	@$(MAKE) --silent --no-print-directory setup ENVIRONMENTS="$(TRIED)"
	@$(RUN) -m local.run "$(FILE)"

up: setup
	@$(RUN) -m local.up

invoke: setup
	@$(RUN) -m local.invoke "$(EVENT)"

event: setup
	@$(RUN) -m local.event "$(KEY)"

test: setup
	@$(MAKE) --silent --no-print-directory -j2 check tests

tests:
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test-unit: setup
	@$(MAKE) --silent --no-print-directory check-code
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) tests/unit tests/template

soak: setup
	@$(RUN) -m tests.soak

bench: setup $(TOOLS)/bench/ready
	@PYTHONPATH=src:. $(TOOLS)/bench/bin/python -m bench $(ONLY)

docs: setup
	@$(RUN) -m local.docs

pictures: setup
	@$(RUN) -m local.pictures

check-code:
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PYTHONPATH=src $(BIN)/lint-imports --no-logo

check: setup check-code
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(TOOLS)/sam/bin/sam validate --lint
	@BC_SKIP_MAPPING=TRUE LOG_LEVEL=CRITICAL $(TOOLS)/audit/bin/checkov --file template.yaml --framework cloudformation \
		--compact --quiet && echo 'checkov: nothing that has no reason beside it'
	@said=$$($(TOOLS)/audit/bin/pip-audit --disable-pip --require-hashes -r src/requirements.txt 2>&1); \
	case "$$said" in \
		*'Found '[0-9]*' known vulnerabilit'*) echo "$$said"; exit 1;; \
		*'could not be audited'*) echo 'pip-audit: its data cannot be had from here; skipped';; \
		*'No known vulnerabilities found'*) echo "$$said";; \
		*) echo "$$said" | tail -1; echo 'pip-audit: could not be run; skipped';; \
	esac

format: setup
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

COMPILE := $(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.13 \
	--no-header --no-annotate

lock: setup
	@$(COMPILE) src/requirements.in -o src/requirements.txt
	@$(COMPILE) local/requirements.in -c src/requirements.txt -o local/requirements.txt
	@$(COMPILE) local/requirements-ministack.in -o local/requirements-ministack.txt
	@$(COMPILE) local/requirements-sam.in -o local/requirements-sam.txt
	@$(COMPILE) local/requirements-audit.in -o local/requirements-audit.txt
	@$(COMPILE) bench/requirements.in -c src/requirements.txt -o bench/requirements.txt
	@$(COMPILE) bench/packages/floor/requirements.in -c src/requirements.txt -o bench/packages/floor/requirements.txt
	@$(COMPILE) bench/packages/sdk/requirements.in -c src/requirements.txt -o bench/packages/sdk/requirements.txt

clean:
	@rm -rf .venv .local .aws-sam .mypy_cache .ruff_cache .pytest_cache .hypothesis
