# Everything a developer does. `make help` lists it. Needs GNU make and a Python >= 3.11 with venv; all else comes from the locks.

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# Compose refuses to read the file without these; the check needs words, not secrets.
COMPOSE_WORDS := POSTGRES_PASSWORD=x REDIS_PASSWORD=x TRACKER_SECRET_KEYS=x TRACKER_BOOTSTRAP_API_KEY=x TRACKER_FLOWER_AUTH=x:x

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(READY) ## prepare .venv from the lock, once (PYTHON=/path/to/python3.12 chooses the interpreter)

# The stamp is written last: an interrupted set-up is simply done again.
$(READY): requirements-dev.lock pyproject.toml
	@python=$$(sh .ci/python) || exit 1; \
	 $(BIN)/python -c '' 2>/dev/null || { echo "making $(VENV) with $$python"; "$$python" -m venv --clear $(VENV) || exit 1; }
	@echo "installing the locked dependencies (about half a minute)"
	@$(PIP) install --quiet --require-hashes --only-binary :all: -r requirements-dev.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: run
run: setup ## set up, start everything and show example generations; Ctrl-C stops it
	@exec $(BIN)/tracker up --demo

.PHONY: demo
demo: setup ## the same in a home of its own, ending by itself; exit 0 when all went well
	@exec $(BIN)/tracker demo

# Tests wait more than they work: two processes share them, file by file, each with servers of its own.
TEST_PROCESSES ?= 2

.PHONY: test
test: setup ## set up, then the whole test suite (TEST_PROCESSES=0: one after the other)
	@exec $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

# Somebody else's servers: databases are made and dropped there, the Redis database and the virtual host are emptied.
SERVERS_DATABASE ?= postgresql://postgres@127.0.0.1:5432/postgres
SERVERS_REDIS ?= redis://127.0.0.1:6379/9
SERVERS_RABBITMQ ?= amqp://guest:guest@127.0.0.1:5672//
SERVERS := TRACKER_TEST_DATABASE_URL=$(SERVERS_DATABASE) TRACKER_TEST_REDIS_URL=$(SERVERS_REDIS)

.PHONY: test-servers
test-servers: setup ## the whole suite on a foreign PostgreSQL and Redis, then what sends messages with RabbitMQ as broker
	@$(SERVERS) $(BIN)/python -m pytest && \
	 exec env $(SERVERS) TRACKER_TEST_BROKER_URL=$(SERVERS_RABBITMQ) $(BIN)/python -m pytest tests/services tests/api tests/journeys

.PHONY: check
check: setup ## style, types, imports, locks, Dockerfile and compose file, without running anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python .ci/rules.py
	$(COMPOSE_WORDS) $(BIN)/docker-compose -f docker-compose.yml --env-file /dev/null config -q
	$(BIN)/hadolint Dockerfile

.PHONY: format
format: setup ## write the code as `check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

BENCHMARKS := polling schedule budget fleet claim webhooks downloads registration

.PHONY: bench
bench: setup ## every benchmark, about an hour on an otherwise idle machine; `make bench-webhooks` runs that one, and so on
	@for name in $(BENCHMARKS); do $(BIN)/python -m bench.$$name || exit 1; done
	@$(BIN)/python -m bench.report --into docs/BENCHMARKS.md

bench-%: setup
	@exec $(BIN)/python -m bench.$*

.PHONY: chaos
chaos: setup ## three seeds of killed processes and lost messages, senders killed 20 times with answers in hand; some 10 minutes
	@exec env TRACKER_TEST_KILLS=20 $(BIN)/python -m pytest tests/chaos tests/journeys/test_webhooks_killed.py

.PHONY: fresh
fresh: ## clone into empty folders, `make run` until its examples are through and Ctrl-C, as other users and in hard places; `make test` once
	@exec sh .ci/fresh

.PHONY: compose-test
compose-test: setup ## bring the compose file up for real and send one generation through (needs a Docker engine)
	@exec sh .ci/compose-test

.PHONY: lock
lock: ## compile the locks anew from pyproject.toml (needs uv)
	@command -v uv >/dev/null || { echo "uv is needed to compile the locks: https://docs.astral.sh/uv/" >&2; exit 1; }
	uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --no-header --no-annotate -o requirements.lock
	uv pip compile pyproject.toml --group dev --universal --generate-hashes --python-version 3.11 --no-header --no-annotate -c requirements.lock -o requirements-dev.lock

.PHONY: clean
clean: ## remove what tools left behind; keeps .venv and the tracker's home
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
