# SPDX-License-Identifier: Apache-2.0
"""The live tests under other kernels: ``make test-kernels``.

Debian's kernels boot in qemu with this host's files as their root, so a guest has all that
the tests need, at the same paths. What it writes is gone with it: the host's files are
shared read-only, and lie under a file system in the guest's memory.
"""
