# SPDX-License-Identifier: Apache-2.0
"""Kernel, clock, files, terminal: everything that the other floors must not touch."""
