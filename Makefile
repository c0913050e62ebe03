# SPDX-License-Identifier: Apache-2.0
# make demo    see it work on this host
# make test    everything that is checked before a change lands
# make test-kernels   the live tests under other kernels, in qemu (GUESTS="NAME...": some)
# make bench   the figures of bench/README.md, measured here
#
# Each of them installs what is missing first, and says what.

VENV := .venv/bin

.PHONY: help setup setup-test demo lint test test-kernels bench clean

help:
	@sed -n 's/^# make/make/p' Makefile

setup:
	@packaging/setup run

demo: setup
	@packaging/demo

setup-test:
	@packaging/setup test

lint: setup-test
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	MYPYPATH=.venv/src $(VENV)/mypy -p bpfsnoop
	MYPYPATH=.venv/src:tests:bench $(VENV)/mypy --explicit-package-bases tests bench

test: lint
	$(VENV)/python -m pytest

test-kernels:
	@packaging/setup kernels
	PYTHONPATH=tests $(VENV)/python -m kernels $(GUESTS)

bench:
	@packaging/setup bench
	$(VENV)/python bench/run.py

clean:
	rm -rf .venv .kernels build *.egg-info .mypy_cache .ruff_cache .pytest_cache
