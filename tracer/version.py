# SPDX-License-Identifier: Apache-2.0
"""Which bpfsnoop this is; setup.cfg has it from here, without running it."""

VERSION = "0.1.0"
