# SPDX-License-Identifier: Apache-2.0
# make demo    see it work on this host
# make test    everything that is checked before a change lands
# make test-kernels   the live tests under other kernels, in qemu (GUESTS="NAME...": some)
# make deb     build/deb/bpfsnoop_VERSION_ARCH.deb, for this release of Debian
# make test-deb   its life from installation to purge, in a Debian of its own in qemu
# make bench   the figures of bench/README.md, measured here
#
# Each of them installs what is missing first, and says what.

VENV := .venv/bin

.PHONY: help setup setup-test demo lint test test-kernels deb test-deb bench clean

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
	MYPYPATH=.venv/src:tests:bench $(VENV)/mypy --explicit-package-bases tests bench \
		packaging/elastic_template.py

test: lint
	$(VENV)/python -m pytest

test-kernels:
	@packaging/setup kernels
	PYTHONPATH=tests $(VENV)/python -m kernels $(GUESTS)

deb:
	@packaging/setup deb
	@packaging/deb

# The second package is an upgrade of the first one.
test-deb:
	@packaging/setup deb
	@packaging/setup test-deb
	old=$$(packaging/deb) && new=$$(packaging/deb 9999-1) && \
		PYTHONPATH=tests $(VENV)/python -m debian "$$old" "$$new"

bench:
	@packaging/setup bench
	$(VENV)/python bench/run.py

clean:
	rm -rf .venv .kernels build *.egg-info .mypy_cache .ruff_cache .pytest_cache
