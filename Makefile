# Two commands do everything on a fresh Debian 12:  make demo   and   make test
SHELL := /bin/bash
PYTHON := .venv/bin/python

.PHONY: help setup setup-demo demo fixtures test lint unit bench fuzz soak torture clean

help:
	@echo "make demo      build a real Debian guest and look inside it"
	@echo "make test      run every check and test (launches appliances, libvirtd)"
	@echo "make lint      ruff, mypy --strict, import rules"
	@echo "make unit      the tests that need nothing"
	@echo "make bench     imgtools and the virt-* tools side by side"
	@echo "make fuzz      damaged images on the direct engine, a long run"
	@echo "make soak      300 launches of the instant appliance, and 4 at a time"
	@echo "make torture   kill a change at 1000 points, and look whether anything was lost"
	@echo "make fixtures  build every test image into the cache"
	@echo "make clean     remove .venv and caches inside the tree"

setup-demo:
	@.ci/setup demo

setup:
	@.ci/setup test

demo: setup-demo
	@.ci/demo

fixtures: setup
	@$(PYTHON) -m fixtures build --all

lint: setup
	@.ci/lint

unit: setup
	@$(PYTHON) -m pytest -m unit

test: setup lint
	@$(PYTHON) -m fixtures build --all
	@.ci/test

bench: setup
	@$(PYTHON) -m tests.bench

fuzz: setup
	@$(PYTHON) -m tests.fuzz --cases 20000

torture: setup
	@$(PYTHON) -m tests.torture --kills 500

soak: setup
	@$(PYTHON) -m tests.soak --launches 300 --together 4

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
