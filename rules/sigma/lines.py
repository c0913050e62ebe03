# SPDX-License-Identifier: Apache-2.0
"""YAML documents that know their lines.

What could make a small file a large thing, or mean something other than it seems to, is
not taken: aliases, keys that stand twice or are no text, values that nest without end.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from ...events.errors import Mistake

Path = tuple[str | int, ...]
"""Keys and numbers of items, from the top of a document."""

_DEPTH_MAX: Final = 32
_NODES_MAX: Final = 100_000
_WRONG_TYPE: Final = (ValueError, KeyError, AttributeError, TypeError, OverflowError)


@dataclass
class Lined:
    """A YAML document."""

    path: str
    """Of the file."""
    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, *where: str | int) -> int:
        """Where this part begins; of one that is not there, the part that it is missing in."""
        while where not in self.lines and where:
            where = where[:-1]
        return self.lines.get(where, 1)

    def mistake(self, message: str, *where: str | int) -> Mistake:
        return Mistake(message, self.path, self.line(*where))


def documents(path: str, text: str, mistakes: list[Mistake]) -> list[Lined]:
    """What is in a file.

    :param mistakes: what is wrong with it is added here. Documents ahead of what is no YAML
        are returned, and of the others what is right.
    """
    found: list[Lined] = []
    try:
        loader = _Loader(text)
        while loader.check_node() and (node := loader.get_node()):
            document = Lined(path)
            document.value = _Reading(document, loader, mistakes).value(node, ())
            if document.value is not None:  # else there is nothing behind a '---'
                found.append(document)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        mistakes.append(Mistake("not YAML: a character that may not be there", path, line))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        mistakes.append(Mistake(f"not YAML: {error.problem or error.context}", path, line))
    except (yaml.YAMLError, RecursionError):
        mistakes.append(Mistake("not YAML that can be read", path, 1))
    return found


class _Loader(yaml.SafeLoader):
    """Reads nodes, not yet values."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._nodes += 1
        self._depth += 1
        alias = self.check_event(yaml.AliasEvent)
        mark = self.current_event.start_mark  # checking has parsed it
        if alias:
            raise yaml.MarkedYAMLError(problem="aliases are not supported", problem_mark=mark)
        if self._depth > _DEPTH_MAX:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=mark)
        if self._nodes > _NODES_MAX:
            raise yaml.MarkedYAMLError(problem="too much of it", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Reading:
    """Nodes of one document as values, with their lines."""

    def __init__(self, document: Lined, loader: _Loader, mistakes: list[Mistake]) -> None:
        self._document = document
        self._loader = loader
        self._mistakes = mistakes

    def value(self, node: yaml.Node, where: Path) -> Any:
        self._document.lines.setdefault(where, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*where, at)) for at, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, where: Path) -> Mapping[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key is None:
                continue
            if key in values:
                self._wrong(key_node, f"{key} stands here twice")
                continue
            self._document.lines[*where, key] = key_node.start_mark.line + 1
            values[key] = self.value(value_node, (*where, key))
        return values

    def _key(self, node: yaml.Node) -> str | None:
        key = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(key, str) and node.tag != "tag:yaml.org,2002:merge":
            return key
        self._wrong(node, "this key is not text")
        return None

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, *_WRONG_TYPE):  # '!!bool 7', '2024-02-31', '!thing'
            self._wrong(node, f"{node.value} is not of the YAML type that it seems to be")
            return ""

    def _wrong(self, node: yaml.Node, message: str) -> None:
        self._mistakes.append(Mistake(message, self._document.path, node.start_mark.line + 1))
