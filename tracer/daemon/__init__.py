# SPDX-License-Identifier: Apache-2.0
"""``bpfsnoop daemon``: what it has besides what a run at a terminal has."""
