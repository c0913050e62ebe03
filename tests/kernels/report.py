# SPDX-License-Identifier: Apache-2.0
"""What pytest counted in a guest."""

import xml.etree.ElementTree as ET
from typing import NamedTuple, Self


class Counts(NamedTuple):
    """Of tests."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"

    @classmethod
    def of(cls, junit: str) -> Self:
        """:param junit: the document that ``--junitxml`` writes; nothing, if it got none."""
        suites = [*ET.fromstring(junit).iter("testsuite")] if junit else []
        tests, failures, errors, skipped = (
            sum(int(suite.attrib[name]) for suite in suites)
            for name in ("tests", "failures", "errors", "skipped")
        )
        return cls(tests - failures - errors - skipped, failures + errors, skipped)
