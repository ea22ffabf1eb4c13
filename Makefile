# `make help` lists what there is. Everything runs inside this tree: .venv, node_modules and .demo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Recipes and all that they start find this tree's programs first.
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/node_modules/.bin:$(PATH)

DEMO_PORT ?= 8000
DEMO_DIR ?= .demo
# Test files run side by side; each file stays in one process, since it may share one Hub.
WORKERS ?= $(shell n=$$(nproc); echo $$((n > 4 ? 4 : n)))
PYTEST_ARGS ?=
PYTEST = python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

# What builds images, and what stands before their names.
BUILD ?= buildah build --format docker
REGISTRY ?=
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

# p1 is offered once benchmarks/p1.py is there, and so on.
BENCHMARKS := $(sort $(basename $(notdir $(wildcard benchmarks/p[0-9].py benchmarks/p[0-9][0-9].py \
	benchmarks/r[0-9].py benchmarks/r[0-9][0-9].py))))

COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url $(if $(UPGRADE),--upgrade)
FROM_PROJECT = pyproject.toml --extra all --group dev
# The second environment: the oldest Hub, and what is optional beside us.
FOR_hub5 = requirements/collaboration.in -c requirements/hub5.in
# What each image installs: the versions of the lock file with JupyterHub 5, the line of Zero to JupyterHub. And what
# compiles the planner for one of them.
LOCKED = service singleuser hub compiler
FOR_service = pyproject.toml --extra service --extra kubernetes -c requirements/hub5.txt
FOR_singleuser = pyproject.toml --extra lab -c requirements/hub5.txt
FOR_hub = pyproject.toml --extra hub --extra kubernetes --extra oauth -c requirements/hub5.txt
FOR_compiler = requirements/compiler.in -c requirements/lock.txt

.PHONY: help setup demo cluster cluster-down test retest check nightly format lint types contracts docs lock lock-check wheel images clean $(BENCHMARKS)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@for name in $(BENCHMARKS); do \
		printf '  %-12s %s\n' "$$name" "$$(sed -n '/"""/ { s/.*"""//; s/"""$$//; p; q }' "benchmarks/$$name.py")"; \
	done

setup: ## set up .venv and node_modules as the lock files say (quick when nothing changed)
	@tools/setup

demo: setup ## run a local Hub with GPU reservations on 127.0.0.1 (DEMO_PORT=8000 DEMO_DIR=.demo)
	@DEMO_PORT='$(DEMO_PORT)' DEMO_DIR='$(DEMO_DIR)' exec python -m tools.demo

cluster: setup ## bring up a real Kubernetes on this machine (as root on Linux; SYSTEM=1 installs what it needs)
	@tools/system-packages
	@python -m tools.cluster up

cluster-down: setup ## end it, and leave nothing
	@python -m tools.cluster down

check: setup lint types contracts ## the quick inner loop: lint, types, import contracts, tests without servers
	@$(PYTEST) -m 'not hub and not hub5 and not browser and not postgres and not cluster and not slow'

test: ## everything that can run here; SYSTEM=1 (as root on Debian) installs what the full tiers need
	@tools/system-packages
	@tools/setup hub5
	@python -m tools.cluster prepare
	@$(MAKE) lint types contracts
	@$(PYTEST)

retest: ## what failed the last time, one after the other
	@$(PYTEST) -n 0 --last-failed --last-failed-no-failures none

lint: setup ## ruff: rules and formatting
	@ruff check --quiet --output-format concise .
	@ruff format --check --output-format concise . || { echo '`make format` formats the tree' >&2; exit 1; }
	@echo 'lint: clean'

format: setup ## ruff's formatter over the whole tree
	@ruff format .

types: setup ## mypy --strict, and TypeScript's compiler over the panel
	@mypy
	@cd labextension && jlpm run check

contracts: setup ## who may import whom
	@PYTHONPATH=labextension lint-imports --no-cache --no-logo

docs: setup ## write the parts of the documentation that are made from the code
	@python -m tools.reference

lock: ## write the lock files anew, keeping versions that still fit (UPGRADE=1: the newest)
	@tools/setup uv
	@$(COMPILE) requirements/uv.in -o requirements/uv.txt
	@$(COMPILE) requirements/node.in -o requirements/node.txt
	@$(COMPILE) requirements/go.in -o requirements/go.txt
	@$(COMPILE) $(FROM_PROJECT) -o requirements/lock.txt
	@$(COMPILE) $(FROM_PROJECT) $(FOR_hub5) -o requirements/hub5.txt
	@$(foreach name,$(LOCKED),$(COMPILE) $(FOR_$(name)) -o requirements/$(name).txt &&) true
	@npm install --package-lock-only --ignore-scripts --loglevel=error $(if $(UPGRADE),&& npm update --package-lock-only)
	@git diff --stat -- requirements package-lock.json

lock-check: ## are the lock files what pyproject.toml asks for? (asks the package index)
	@tools/setup uv
	@work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; cp -r pyproject.toml README.md requirements "$$work"; \
	for name in lock hub5; do \
		(cd "$$work" && $(COMPILE) $(FROM_PROJECT) $$([[ $$name == lock ]] || echo '$(FOR_hub5)') \
			-o "requirements/$$name.txt"); \
		diff -q "requirements/$$name.txt" "$$work/requirements/$$name.txt"; \
	done; cd "$$work"; $(foreach name,$(LOCKED),$(COMPILE) $(FOR_$(name)) -o requirements/$(name).txt && \
		diff -q '$(CURDIR)/requirements/$(name).txt' requirements/$(name).txt &&) true; \
	echo 'lock files: in step with pyproject.toml'

wheel: setup ## build the wheel and the sdist into dist/
	@rm -rf dist && $$(command -v flock >/dev/null && echo flock --shared .artifacts/setup.lock) \
		uv build --quiet --no-build-isolation --python .venv/bin/python --out-dir dist
	@ls -l dist

images: wheel ## build the container images (BUILD='docker build' REGISTRY=registry.example.org/)
	@for name in service singleuser hub; do \
		$(BUILD) --file "images/$$name/Dockerfile" \
			--tag "$(REGISTRY)gpudev-$$name:$(VERSION)" .; \
	done

nightly: setup ## the campaigns of which `make test` runs a small size: lives, calls, kills, promises, repeats, growth (six hours)
	@SECONDS_MAX=3600 python -m benchmarks.r1
	@FUZZ=50 pytest -q -n 0 tests/api/test_fuzz.py
	@KILLS=200 python -m benchmarks.r2
	@python -m benchmarks.r3
	@python -m benchmarks.r6
	@python -m benchmarks.r9

$(BENCHMARKS): setup
	@python -m benchmarks.$@

clean: ## remove caches and what was built; .venv, node_modules and .demo stay
	@rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .artifacts/tests .artifacts/compiled
	@find . -path ./.venv -prune -o -path ./.venv-hub5 -prune -o -path ./node_modules -prune \
		-o -type d -name __pycache__ -prune -exec rm -rf {} +
