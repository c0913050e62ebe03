# SPDX-License-Identifier: Apache-2.0
"""What values of options may be: each from a string of the command line or a YAML value."""

import os
import pwd
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ..events.wire import FILTER_LIST_MAX

PID_MAX: Final = 1 << 22
_UID_MAX: Final = (1 << 32) - 2
_LONGEST_H: Final = 876_000  # a hundred years
_RING_MIN: Final = 1 << 16
_RING_MAX: Final = 1 << 30
_UNITS: Final = {"us": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_SIZES: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

Parser = Callable[[Any], Any]
"""From a string of the command line, or any YAML value, to an option's value.

:raises ValueError: with what would be right.
"""


Place = tuple[str | int, ...]
"""Keys and indexes that lead into a value."""


class Wrong(ValueError):
    """Several things that are wrong within one value.

    :param each: where, and what.
    """

    def __init__(self, each: Sequence[tuple[Place, str]]) -> None:
        super().__init__("; ".join(_at(place) + what for place, what in each))
        self.each = each


def _at(place: Place) -> str:
    return f"{'.'.join(map(str, place))}: " if place else ""


def one_of(*choices: str) -> Parser:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be {', '.join(choices[:-1])} or {choices[-1]}")
        return str(value)

    return parse


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:  # half of a pair of surrogates: YAML can say that
        raise ValueError("must be text") from None
    if "\0" in value:
        raise ValueError("must be text")
    return value


def number(least: int, most: int) -> Parser:
    def parse(value: Any) -> int:
        typed = str(value)
        if isinstance(value, bool) or not typed.isascii() or not typed.isdigit():
            raise ValueError("must be a whole number")
        if not least <= int(typed) <= most:
            raise ValueError(f"must be from {least} to {most}")
        return int(typed)

    return parse


def duration(value: Any) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s|m|h)?", str(value), re.ASCII)
    if isinstance(value, bool) or not match:
        raise ValueError("must be a duration such as 50us, 10ms, 2s, 5m or 1h, or seconds")
    ns = float(match[1]) * _UNITS[match[2] or "s"]
    if ns > _LONGEST_H * _UNITS["h"]:
        raise ValueError(f"must be at most {_LONGEST_H}h")
    return round(ns)


def at_least(least: str) -> Parser:
    """A duration that is no shorter than that, or 0."""

    def parse(value: Any) -> int:
        ns = duration(value)
        if 0 < ns < duration(least):
            raise ValueError(f"must be at least {least}, or 0")
        return ns

    return parse


def ring_size(value: Any) -> int:
    size = _bytes(value)
    if size is None or size & (size - 1) or not _RING_MIN <= size <= _RING_MAX:
        raise ValueError("must be a power of two from 64K to 1G, such as 4M")
    return size


def size(least: int, most: int) -> Parser:
    """Bytes, or K, M or G of them."""

    def parse(value: Any) -> int:
        found = _bytes(value)
        if found is None or not least <= found <= most:
            raise ValueError(f"must be a size from {_spelled(least)} to {_spelled(most)}")
        return found

    return parse


def _bytes(value: Any) -> int | None:
    match = re.fullmatch(r"(\d+)([KMG]?)", str(value), re.ASCII)
    return int(match[1]) * _SIZES[match[2]] if match and not isinstance(value, bool) else None


def _spelled(size: int) -> str:
    unit = max((unit for unit in _SIZES if size % _SIZES[unit] == 0), key=_SIZES.__getitem__)
    return f"{size // _SIZES[unit]}{unit}" if size else "0"


def path(value: Any) -> str:
    if not value:
        raise ValueError("must be a path")
    return text(value)


def pid_namespace(value: Any) -> str:
    typed = str(value)
    if typed.isascii() and typed.isdigit():
        return f"/proc/{number(1, PID_MAX)(value)}/ns/pid"
    return str(text(value))


def user(value: Any) -> int:
    if str(value).isascii() and str(value).isdigit():
        uid: int = number(0, _UID_MAX)(value)
        return uid
    try:
        return pwd.getpwnam(text(value)).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {value}") from None


def comm(value: Any) -> str:
    if not text(value):
        raise ValueError("must be the name of a process")
    return str(value)


def list_of(parse_one: Parser, *, commas: bool = True) -> Parser:
    """Items from a YAML list or a single one, each perhaps several with commas between."""

    def parse(value: Any) -> tuple[Any, ...]:
        items = value if isinstance(value, list) else [value]
        if commas:
            items = [part for item in items for part in _split(item)]
        values = tuple(dict.fromkeys(parse_one(item) for item in items))
        if len(values) > FILTER_LIST_MAX:
            raise ValueError(f"must be at most {FILTER_LIST_MAX}")
        return values

    return parse


def named_lists(value: Any) -> Mapping[str, tuple[str, ...]]:
    """What names stand for in rules: a mapping, or ``NAME=ITEM,ITEM`` of the command line."""
    if isinstance(value, list) and all(isinstance(one, str) and "=" in one for one in value):
        given: dict[str, list[str]] = {}
        for name, _, items in (one.partition("=") for one in value):
            given.setdefault(name, []).extend(items.split(","))
        value = given
    if not isinstance(value, dict):
        raise ValueError("must be names, each with a list: NAME=ITEM,ITEM")
    return {_list_name(name): _list_items(items) for name, items in value.items()}


def _list_name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\w+", value, re.ASCII):
        raise ValueError("a name must be of letters, digits and _")
    return value


def _list_items(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("a list must have items")
    if not all(isinstance(item, str) and text(item) for item in value):
        raise ValueError("items of a list must be text")
    return tuple(value)


def _split(item: Any) -> list[Any]:
    if not isinstance(item, str):
        return [item]
    parts = re.split(r"\s*,\s*|\s+", item.strip())  # "1,2", and "1 2" as pidof(1) prints it
    if not all(parts):
        raise ValueError("has an empty item")
    return parts
