# SPDX-License-Identifier: GPL-3.0-or-later
# Each target does all its own set-up. The two to know: `make test` and `make demo`.
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
PARTS := .build/venv/bin/python tests/run/parts.py
T ?=
BUDGET ?= 30

.PHONY: help setup lint ruff mypy sanity unit host molecule fault test exact demo bench matrix clean

help:
	@echo "make test     everything: lint, unit tests, tests on real hosts (about 20 minutes on 2 cores)"
	@echo "make demo     a play fails and its host is as before; then the same play commits"
	@echo "make unit     unit tests;    one: make unit T=tests/unit/test_import_rules.py"
	@echo "make host     host tests;    one: make host T='tests/host/test_runner.py -k name'"
	@echo "make lint     all linters;   quick ones: make ruff mypy"
	@echo "make exact    every scenario play, in full;   make bench   benchmarks into docs/benchmarks.md"
	@echo "make fault    kills, power cuts, errors, corruption, mutants, into docs/reliability.md;   longer: make fault BUDGET=minutes"
	@echo "make matrix   host tests on ansible-core 2.19, 2.20 and 2.21, where the Pythons found here allow"
	@echo "make clean    stop the lab, remove .build"

setup:
	@tests/run/setup

lint: setup
	@$(PARTS) lint

ruff mypy sanity: setup
	@$(PARTS) --only $@ lint

unit: setup
	@$(if $(T),.build/venv/bin/pytest $(T),$(PARTS) unit)

host: setup
	@$(if $(T),.build/venv/bin/pytest $(T),$(PARTS) host)

molecule: setup
	@$(PARTS) molecule

test: setup
	@$(PARTS) host lab fault lint unit molecule

fault: setup
	@.build/venv/bin/python tests/fault --minutes $(BUDGET)

exact: setup
	@$(PARTS) exact

demo: setup
	@tests/run/demo

bench: setup
	@$(PARTS) bench

matrix: setup
	@tests/run/matrix

clean:
	@tests/run/clean
