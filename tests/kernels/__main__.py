# SPDX-License-Identifier: Apache-2.0
"""python -m kernels                      the tests in every guest of table.py
python -m kernels NAME...              in these
python -m kernels NAME -- COMMAND...   in this one, a command instead
"""

import sys
from collections.abc import Sequence
from typing import Final

from .guest import CANNOT_RUN
from .matrix import Tested, in_guest, shown, tested
from .refused import CannotRun
from .table import GUESTS

_MISUSED: Final = 2


def main(argv: Sequence[str]) -> int:
    """:returns: the status to exit with."""
    split = argv.index("--") if "--" in argv else len(argv)
    names, command = argv[:split], argv[split + 1 :]
    if any(name not in GUESTS for name in names) or (command and len(names) != 1):
        print(f"{__doc__}\nThere are {', '.join(GUESTS)}.", file=sys.stderr)
        return _MISUSED
    return _command(names[0], command) if command else _tests(names or [*GUESTS])


def _command(name: str, argv: Sequence[str]) -> int:
    """As the command itself would, seen from outside; see the constants of guest.py."""
    try:
        ended = in_guest(name, argv)
    except CannotRun as reason:
        print(f"{name}: {reason}", file=sys.stderr)
        return CANNOT_RUN
    if ended.why:
        print(f"{shown(ended)}\n{name}: {ended.why}", file=sys.stderr)
        return ended.status
    sys.stdout.write(ended.text("out"))
    sys.stderr.write(ended.text("err"))
    return ended.status


def _tests(names: Sequence[str]) -> int:
    """Not 0 if a guest failed; what cannot be run here is said, and no failure."""
    passed = failed = skipped = 0
    for result in tested(names):
        print(result if isinstance(result, Tested) else f"skipped: {result}", flush=True)
        if not isinstance(result, Tested):
            skipped += 1
        elif result.problem:
            failed += 1
            print(result.shown, flush=True)
        else:
            passed += 1
    if passed or failed:
        print(f"guests: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
