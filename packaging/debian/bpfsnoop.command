#!/usr/lib/bpfsnoop/bin/python3 -I
# SPDX-License-Identifier: Apache-2.0
import sys

from bpfsnoop.__main__ import main

sys.exit(main())
