# SPDX-License-Identifier: Apache-2.0
"""Files laid out like config.yaml, and ``--set KEY=VALUE``: YAML with a parser for each key."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from ..events.errors import Mistake
from .option_types import Parser, Place, Wrong

Parsers = Mapping[str, Parser]
"""By the name of the key."""

_NULL: Final = "tag:yaml.org,2002:null"
_NOT_YAML: Final = (yaml.YAMLError, UnicodeDecodeError, RecursionError)


def from_settings(
    settings: Iterable[str], parsers: Parsers, mistakes: list[Mistake]
) -> dict[str, Any]:
    """``KEY=VALUE``, each value in YAML as it would stand in a file."""
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        try:
            if not equals:
                raise ValueError("must be KEY=VALUE")
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            value = "" if node is None else _constructed(loader, node)
            values[key] = _parser(parsers, key, ())(value)
        except _NOT_YAML as error:
            mistakes.append(Mistake(f"--set {setting}: not YAML: {_problem(error)}"))
        except ValueError as error:
            mistakes.append(Mistake(f"--set {setting}: {error}"))
    return values


def from_file(path: Path, parsers: Parsers, mistakes: list[Mistake]) -> dict[str, Any]:
    """The keys that stand in the file; what is wrong is said with its line."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
    except OSError as error:
        mistakes.append(Mistake(f"cannot read it: {error.strerror}", str(path)))
        return {}
    except _NOT_YAML as error:
        mistakes.append(_syntax_mistake(error, path))
        return {}
    if root is None or root.tag == _NULL:
        return {}
    if not isinstance(root, yaml.MappingNode):
        mistakes.append(Mistake("must be a list of 'key: value' lines", str(path), 1))
        return {}
    values: dict[str, Any] = {}
    for key_node, value_node in root.value:
        line = key_node.start_mark.line + 1
        key = key_node.value
        try:
            key = _constructed(loader, key_node)
            value = _constructed(loader, value_node)
            for place in _twice(value_node, ()):  # YAML lets the last one win, and hides the others
                at = _node_at(value_node, place).start_mark.line + 1
                mistakes.append(
                    Mistake(f"{_spelled(key, place)}: stands here twice", str(path), at)
                )
            values[key] = _parser(parsers, key, values)(value)
        except _NOT_YAML as error:
            mistakes.append(_syntax_mistake(error, path))
        except Wrong as error:
            for place, what in error.each:
                at = _node_at(value_node, place).start_mark.line + 1 if place else line
                mistakes.append(Mistake(f"{_spelled(key, place)}: {what}", str(path), at))
        except ValueError as error:
            mistakes.append(Mistake(f"{key}: {error}", str(path), line))
    return values


def _node_at(node: yaml.Node, place: Place) -> yaml.Node:
    # As far as it is there: what is missing in a mapping is the mapping's fault.
    for step in place:
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
        elif isinstance(node, yaml.MappingNode):
            node = next((key for key, _ in node.value if key.value == step), node)
    return node


def _spelled(key: str, place: Place) -> str:
    return key + "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in place)


def _twice(node: yaml.Node, place: Place) -> Iterator[Place]:
    if isinstance(node, yaml.SequenceNode):
        for at, item in enumerate(node.value):
            yield from _twice(item, (*place, at))
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield (*place, key.value)
            seen.add(key.value)
            yield from _twice(value, (*place, key.value))


def _constructed(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, KeyError, AttributeError, TypeError):  # '!!bool 7', '2024-02-31'
        raise ValueError("is not of the YAML type that it seems to be") from None


def _parser(parsers: Parsers, key: Any, seen: Collection[str]) -> Parser:
    if not isinstance(key, str):
        raise ValueError("is not the name of an option")
    if key in seen:
        raise ValueError("stands here twice")
    if key in parsers:
        return parsers[key]
    raise ValueError(f"unknown option{hint(key, parsers)}")


def hint(name: str, known: Iterable[str]) -> str:
    """What to say besides of a name that is none of these."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def _syntax_mistake(error: Exception, path: Path) -> Mistake:
    mark = getattr(error, "problem_mark", None)
    return Mistake(f"not YAML: {_problem(error)}", str(path), mark.line + 1 if mark else 1)


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return getattr(error, "problem", None) or str(error).partition("\n")[0]
