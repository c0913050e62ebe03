# SPDX-License-Identifier: Apache-2.0
"""Patterns of text. No pattern and no text can make one take long.

Regular expressions are RE2's, which looks at each character once, whatever the pattern:
Python's own engine tries again and again, and one ``(a+)+$`` of a rule that somebody
copied would stop the daemon. RE2 does without look-around and references to groups.
It is also what pySigma checks them with, so it is installed where rules can be read.
"""

import re
from collections.abc import Callable
from typing import Any, Final

Matcher = Callable[[str], Any]
"""Text -> something true if it matches."""

PATTERN_MAX: Final = 1_000
"""Characters."""
SUBJECT_MAX: Final = 1 << 17
"""Characters of text that a regular expression looks at. No document has more in one value:
the arguments of a process are 32 KB at most, of which each byte may be escaped. Else who pads
an argument would not be found, or take part in what a rule leaves out.
"""
_PROGRAM_MAX: Final = 2_000
"""Instructions; ``(a{100}){10}`` has 1000. Such a number of steps a character at worst."""
_MEMORY_MAX: Final = 1 << 20
"""Bytes, of each pattern; when that is used up, RE2 goes on more slowly."""

# What is special to Sigma in text, and what it escapes.
_TOKEN: Final = re.compile(r"\\([*?\\])|([*?])|([^*?\\]+|\\)", re.DOTALL)


def escaped(literal: str) -> str:
    """Text that stands for itself in :func:`wildcards`."""
    return re.sub(r"([*?\\])", r"\\\1", literal)


def wildcards(pattern: str) -> Matcher:
    """``*`` is any text, ``?`` any character, ``\\`` goes before one that is neither.

    The whole text has to match. A ``*`` takes as little as it can and is then done
    (an atomic group): the first place that fits leaves most for what follows, so others
    need not be tried, and the time is that of finding each piece once.

    :raises ValueError: it is too long.
    """
    if len(pattern) > PATTERN_MAX:
        raise ValueError(f"a pattern has {PATTERN_MAX} characters at most")
    first, *pieces = _pieces(pattern)
    if not pieces:
        expression = first
    else:
        *middle, last = pieces
        inner = "".join(f"(?>.*?{piece})" for piece in middle if piece)
        expression = f"{first}{inner}.*{last}"
    return re.compile(expression, re.DOTALL).fullmatch


def _pieces(pattern: str) -> list[str]:
    # What stands between the asterisks, as regular expressions.
    pieces = [""]
    for special, wildcard, plain in _TOKEN.findall(pattern):
        if wildcard == "*":
            pieces.append("")
        else:
            pieces[-1] += "." if wildcard else re.escape(special or plain)
    return pieces


def regular_expression(pattern: str) -> Matcher:
    """Found anywhere in the text, as Sigma wants it.

    :raises ValueError: with what is wrong, or that it is too large.
    """
    import re2  # noqa: PLC0415 - 3 MB, for those who have such rules

    if len(pattern) > PATTERN_MAX:
        raise ValueError(f"a regular expression has {PATTERN_MAX} characters at most")
    options = re2.Options()
    options.max_mem = _MEMORY_MAX
    options.log_errors = False
    try:
        expression = re2.compile(pattern, options)
    except (re2.error, UnicodeError) as error:
        raise ValueError(f"not a regular expression of RE2: {_reason(error)}") from None
    if expression.programsize > _PROGRAM_MAX:
        raise ValueError("this regular expression is too large")
    search = expression.search
    return lambda text: search(_encodable(text[:SUBJECT_MAX]))


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)


def _encodable(text: str) -> str:
    # RE2 works on UTF-8, in which half of a pair of surrogates has no spelling.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
