# SPDX-License-Identifier: Apache-2.0
"""bpfsnoop: every bpf(2) call of a Linux host, understood.

The repository root *is* this package (``package_dir = bpfsnoop = .`` in
setup.cfg), and everything in it imports relatively: ``events``, ``decoders``,
``rules`` and ``tracer`` are all names of other people's packages on PyPI.
"""
