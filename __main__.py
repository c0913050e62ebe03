# SPDX-License-Identifier: Apache-2.0
"""``python -m bpfsnoop``, and what the console script calls."""

import sys

try:
    from .tracer.cli import main
except KeyboardInterrupt:  # Ctrl-C before there is anything that could handle it
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
