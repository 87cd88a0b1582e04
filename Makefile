# vibeD: `make up` brings it up, `make test` passes all tests. Neither needs an earlier step.
PYTHON ?= python3
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help up down clean doctor kind test test-all test-cluster test-newest cluster images check dev lint types unit agent-test contract e2e hostile bench system-packages lock

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

up: ## Install what is needed and bring vibeD up, ready to deploy
	@$(PYTHON) deploy/bootstrap.py up

down: ## Stop vibeD and its sandboxes; data stays
	@$(PYTHON) deploy/bootstrap.py down

clean: ## Stop vibeD and remove everything it made
	@$(PYTHON) deploy/bootstrap.py clean --yes

doctor: ## Say what is missing and how to get it
	@$(PYTHON) deploy/bootstrap.py doctor

kind: ## Bring vibeD up on a Kind cluster (needs docker, kind, kubectl, helm)
	@bash deploy/kind/up.sh

test: ## Install what is needed and pass all tests
	@$(PYTHON) deploy/bootstrap.py dev > /dev/null && PYTHON=$(PYTHON) exec bash deploy/test.sh

test-all: ## The same, and with every framework's own packages (needs the registries; an hour)
	@$(PYTHON) deploy/bootstrap.py dev > /dev/null && PYTHON=$(PYTHON) exec bash deploy/test.sh all

test-cluster: ## Build Kubernetes and a real node, and pass the tests on them (as root for the node)
	@$(PYTHON) deploy/bootstrap.py dev > /dev/null && PYTHON=$(PYTHON) exec bash deploy/test.sh cluster

test-newest: ## Build the newest Kubernetes (up to an hour, once) and pass the tests of chart and CRD on it
	@python=$$($(PYTHON) deploy/bootstrap.py dev) && export PYTHONPATH=$(CURDIR)/src && "$$python" -m tests.prepare cluster && \
	exec "$$python" -m tests.cluster newest "$${TMPDIR:-/tmp}/vibed-newest"

cluster: ## A development cluster with a real node, vibeD installed by its chart (as root); stays until ^C
	@python=$$($(PYTHON) deploy/bootstrap.py dev) && export PYTHONPATH=$(CURDIR)/src && \
	for what in tools cluster-node images; do "$$python" -m tests.prepare $$what || exit; done && \
	exec "$$python" -m tests.cluster up "$${TMPDIR:-/tmp}/vibed-cluster"

images: ## Container images of vibeD and its templates, without a daemon, into dist/images
	@exec $(PYTHON) deploy/images/build.py

check: ## Lint, types and fast tests, in about a minute
	@$(PYTHON) deploy/bootstrap.py dev > /dev/null && PYTHON=$(PYTHON) exec bash deploy/test.sh fast

dev: ## Print the Python of the development environment
	@$(PYTHON) deploy/bootstrap.py dev

bench: ## Measure against the floor; ROWS="static router" for some of it (docs/reference/benchmarks.md)
	@$(PYTHON) deploy/bootstrap.py dev > /dev/null && PYTHONPATH=$(CURDIR)/src exec "$$($(PYTHON) deploy/bootstrap.py dev)" -m bench $(ROWS)

lock: ## Resolve the dependencies anew (needs the registries)
	@"$$($(PYTHON) deploy/bootstrap.py dev)" locks/update.py vibed
