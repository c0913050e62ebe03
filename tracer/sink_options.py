# SPDX-License-Identifier: Apache-2.0
"""The ``sinks`` of config.yaml: a table of what each kind takes."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from ..rules.alert import LEVELS
from .config_file import hint
from .daemon.routes import ACTIONS, SETS, Filter
from .delivery.local import is_loopback
from .delivery.settings import KINDS, SinkSettings
from .option_types import Parser, Wrong, at_least, list_of, number, one_of, path, size, text

SINKS_MAX: Final = 16
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ADDRESS: Final = re.compile(
    r"(?P<scheme>tcp|tls|udp)://(?P<host>\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):(?P<port>\d{1,5})"
    r"|unix://(?P<path>/[^\s]*)"
)
_PORT_MAX: Final = 65_535
_FACILITIES: Final = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron",
    "authpriv", "ftp", *(f"local{n}" for n in range(8)),
)  # fmt: skip


@dataclass(frozen=True)
class SinkOptions:
    """One sink: where lines go, and which ones."""

    settings: SinkSettings
    filter: Filter


def absolute(value: Any) -> str:
    """A path that means the same wherever it is read."""
    found: str = path(value)
    if not found.startswith("/"):
        raise ValueError("must be a path that begins with /")
    return found


def _optional(parse: Parser) -> Parser:
    return lambda value: parse(value) if value != "" else ""


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("must be of at most 64 letters, digits, _ and -")
    return value


def _address(*schemes: str) -> Parser:
    def parse(value: Any) -> str:
        match = _ADDRESS.fullmatch(text(value))
        scheme = value.partition("://")[0]
        if not match or scheme not in schemes:
            shown = [f"{each}://host:port" for each in schemes if each != "unix"]
            raise ValueError(f"must be {' or '.join([*shown, 'unix:///path'])}")
        if match["port"] and not 1 <= int(match["port"]) <= _PORT_MAX:
            raise ValueError(f"the port must be from 1 to {_PORT_MAX}")
        return str(value)

    return parse


def listen_address(value: Any) -> str:
    """``host:port`` or ``unix:///path``; empty for nowhere."""
    if value == "" or text(value).startswith("unix://"):
        return str(value and _address("unix")(value))
    address = f"tcp://{value}"
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise ValueError("must be host:port, such as 127.0.0.1:9464, or unix:///path")
    if not is_loopback(match["host"].strip("[]")):
        raise ValueError("must be a loopback address, such as 127.0.0.1:9464, or unix:///path")
    return str(_address("tcp")(address)).removeprefix("tcp://")


def _pattern_of_actions(value: Any) -> str:
    pattern = text(value).lower()
    bare = pattern.removeprefix("!")
    if bare not in SETS and not any(fnmatchcase(action, bare) for action in ACTIONS):
        raise ValueError(f"there is no action {bare!r}{hint(bare, [*ACTIONS, *SETS])}")
    return pattern


def _named(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError("must be names, each with a value")
    if not all(isinstance(each, str | int | float) for each in value.values()):
        raise ValueError("each value must be text, a number, true or false")
    return {
        name: str(each).lower() if isinstance(each, bool) else str(each)
        for name, each in value.items()
    }


def _each(parse: Parser) -> Parser:
    # A list that may be empty: then nothing passes the filter.
    whole = list_of(parse, commas=False)
    return lambda value: whole(value) if value != [] else ()


REQUIRED: Final = object()


@dataclass(frozen=True)
class _Key:
    parse: Parser
    default: Any = REQUIRED


_COMMON: Final[Mapping[str, _Key]] = {
    "type": _Key(one_of(*KINDS)),
    "name": _Key(_name, ""),
    "actions": _Key(_each(_pattern_of_actions), None),
    "levels": _Key(_each(one_of(*LEVELS)), None),
    "rules": _Key(_each(text), None),
    "queue": _Key(size(1 << 16, 1 << 26), 2 << 20),
    "spool": _Key(size(0, 1 << 40), 1 << 28),
}
"""Queues and spools: two megabytes are some seconds of a busy host; 256 MB are hours of most."""

_TLS: Final[Mapping[str, _Key]] = {
    "ca": _Key(_optional(absolute), ""),
    "certificate": _Key(_optional(absolute), ""),
    "key": _Key(_optional(absolute), ""),
    "server_name": _Key(text, ""),
    "resend": _Key(size(0, 1 << 26), 1 << 20),
}
"""1 MB, since a receiver that reads has less than that unread, and one that does not is noticed;
and less than the queue, where what may come again has to wait."""

_OF_KIND: Final[Mapping[str, Mapping[str, _Key]]] = {
    "stdout": {},
    "file": {
        "path": _Key(absolute),
        "rotate_size": _Key(size(0, 1 << 40), 100 << 20),
        "rotate_every": _Key(at_least("1m"), 24 * 3600 * 10**9),
        "keep": _Key(number(0, 10_000), 7),
    },
    "syslog": {
        "address": _Key(_address("udp", "tcp", "tls", "unix"), "unix:///dev/log"),
        "facility": _Key(one_of(*_FACILITIES), "local0"),
        **_TLS,
    },
    "socket": {"address": _Key(_address("tcp", "tls", "unix")), **_TLS},
    "kafka": {
        "brokers": _Key(list_of(text)),
        "topic": _Key(text),
        "settings": _Key(_named, {}),
    },
}


def sinks(value: Any) -> tuple[SinkOptions, ...]:
    """The list of sinks.

    :raises Wrong: with all that is wrong in any of them.
    """
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("must be a list of sinks, each with a type")
    if not 1 <= len(value) <= SINKS_MAX:
        raise ValueError(f"must be from 1 to {SINKS_MAX} sinks")
    wrong: list[tuple[tuple[str | int, ...], str]] = []
    found = []
    names: set[str] = set()
    files: set[str | None] = set()
    for at, item in enumerate(value):
        parsed, mistakes = _parsed(item)
        wrong += [((at, *place), what) for place, what in mistakes]
        if not mistakes:
            sink = _sink(parsed)
            if sink.settings.name in names:
                wrong.append(((at,), f"a sink {sink.settings.name!r} stands above: give it a name"))
            file = sink.settings.options.get("path")
            if file and file in files:
                wrong.append(((at, "path"), "another sink above writes to the same file"))
            names.add(sink.settings.name)
            files.add(file)
            found.append(sink)
    if wrong:
        raise Wrong(wrong)
    return tuple(found)


def _parsed(item: Mapping[Any, Any]) -> tuple[dict[str, Any], list[tuple[tuple[str, ...], str]]]:
    kind = item.get("type")
    if kind not in KINDS:
        what = f"must be {', '.join(KINDS[:-1])} or {KINDS[-1]}"
        return {}, [(("type",), what) if "type" in item else ((), f"type: {what}")]
    keys = {**_COMMON, **_OF_KIND[kind]}
    parsed: dict[str, Any] = {}
    mistakes: list[tuple[tuple[str, ...], str]] = []
    for name, value in item.items():
        try:
            if name not in keys:
                raise ValueError(f"a sink of type {kind} has no such key{hint(str(name), keys)}")
            parsed[name] = keys[name].parse(value)
        except ValueError as error:
            mistakes.append(((str(name),), str(error)))
    for name, key in keys.items():
        if name not in item and key.default is REQUIRED:
            mistakes.append(((), f"a sink of type {kind} needs {name}"))
        parsed.setdefault(name, key.default)
    return parsed, mistakes or [((), what) for what in _contradictions(parsed)]


def _contradictions(parsed: Mapping[str, Any]) -> Iterator[str]:
    if bool(parsed.get("certificate")) != bool(parsed.get("key")):
        yield "certificate and key go together"
    if not parsed.get("address", "tls").startswith("tls"):
        given = [name for name in ("ca", "certificate", "server_name") if parsed.get(name)]
        if given:
            yield f"{', '.join(given)}: only tls:// takes that"


def _sink(parsed: Mapping[str, Any]) -> SinkOptions:
    kind = parsed["type"]
    settings = SinkSettings(
        parsed["name"] or kind, kind, parsed["queue"], parsed["spool"],
        {name: parsed[name] for name in _OF_KIND[kind]},
    )  # fmt: skip
    return SinkOptions(settings, Filter(parsed["actions"], parsed["levels"], parsed["rules"]))
