# SPDX-License-Identifier: Apache-2.0
"""Words for the person at the terminal."""

import sys


def say(message: str) -> None:
    """One line for the person at the terminal, on standard error.

    Names of files and what a recording says may be in it, so nothing that a terminal
    would act on is left.
    """
    if sys.stderr is None:  # closed by whoever started us
        return
    harmless = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in message)
    try:
        sys.stderr.write(f"bpfsnoop: {harmless}\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody is there to read it
