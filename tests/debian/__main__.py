# SPDX-License-Identifier: Apache-2.0
"""python -m debian OLD NEW              the tests of inside.py, with these two packages
python -m debian OLD NEW -- COMMAND...  a command instead, beside them in /run/guest
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kernels.archive import kernel
from kernels.guest import CANNOT_RUN, REPORT, Command, Ended, programs, run
from kernels.matrix import ROOT, Tested, problem, shown
from kernels.refused import CannotRun
from kernels.report import Counts

from .image import SERIES, image, release

_HERE: Final = Path(__file__).resolve().parent
_CACHE: Final = ROOT / ".kernels"
_PYTEST: Final = (
    "python3", "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", "--exitfirst",
    "-o", "junit_family=xunit1", f"--junitxml={REPORT}", "inside.py",
)  # fmt: skip
_MISUSED: Final = 2
_TIMEOUT_S: Final = 1800
_NO_LOGIN: Final = "systemd.getty_auto=no"
"""Or else it waits for a terminal that no udev announces."""


def main(argv: Sequence[str]) -> int:
    """:returns: the status to exit with."""
    split = argv.index("--") if "--" in argv else len(argv)
    packages, command = argv[:split], argv[split + 1 :]
    if len(packages) != 2:
        print(__doc__, file=sys.stderr)
        return _MISUSED
    begun = time.monotonic()
    try:
        name = release()
        ended = _in_guest(name, packages, command or _PYTEST)
    except CannotRun as reason:
        print(f"skipped: {reason}", file=sys.stderr)
        return CANNOT_RUN
    if command:
        sys.stdout.write(ended.text("out") + ended.text("err") + (ended.why and shown(ended)))
        return ended.status
    counts = Counts() if ended.why else Counts.of(ended.text("report"))
    result = Tested(
        name, SERIES[name], counts, time.monotonic() - begun, problem(ended, counts), shown(ended)
    )
    print(f"{result}\n{result.shown}" if result.problem else result)
    return 1 if result.problem else 0


def _in_guest(name: str, packages: Sequence[str], argv: Sequence[str]) -> Ended:
    programs()  # before anything is fetched
    old, new = (Path(path).read_bytes() for path in packages)
    files = {"old.deb": old, "new.deb": new, "inside.py": (_HERE / "inside.py").read_bytes()}
    command = Command(
        argv, Path("/run/guest"), timeout_s=_TIMEOUT_S, first=_HERE / "first.sh", files=files,
        root=image(name, _CACHE / "debian"), kernel=_NO_LOGIN,
    )  # fmt: skip
    return run(
        kernel(SERIES[name], "cloud-amd64", _CACHE), command, _CACHE / "logs" / f"debian-{name}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
