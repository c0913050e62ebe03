# SPDX-License-Identifier: Apache-2.0
"""A BPF object behind a descriptor, with the names of what it is."""

from typing import Any, NamedTuple

from .call import Object, ObjectKind
from .value import JSON, Style, escape, printable

_WORDS = {kind.value: kind.name.lower() for kind in ObjectKind}


class Described(NamedTuple):
    """An object; as a :class:`events.value.Detail` it stands behind its descriptor."""

    object: Object
    type: str
    """``BPF_MAP_TYPE_HASH``, or the number if nobody knows its name; empty for BTF."""

    @property
    def kind(self) -> str:
        """``map``, ``prog``, ``link`` or ``btf``."""
        return _WORDS[self.object.kind]

    def text(self, value: Any, plain: str, style: Style) -> str:
        """``5<map:12 hash "config">``"""
        return f"{plain}<{self}>"

    def __str__(self) -> str:
        """``map:12 hash "config"``, ``link:4 perf_event prog:31``, ``btf:7``"""
        words = [f"{self.kind}:{self.object.id}"]
        if self.type:
            words.append(_short(self.type))
        if self.object.name:
            words.append(f'"{escape(self.object.name)}"')
        if self.object.prog_id:
            words.append(f"prog:{self.object.prog_id}")
        return " ".join(words)

    def document(self) -> dict[str, JSON]:
        """What ``bpf.map``, ``bpf.prog``, ``bpf.link`` or ``bpf.btf`` has."""
        raw = self.object
        document: dict[str, JSON] = {"id": raw.id}
        if self.type:
            document["type"] = self.type
        if raw.kind in (ObjectKind.MAP, ObjectKind.PROG):
            document["name"] = printable(raw.name)
        if raw.kind == ObjectKind.MAP:
            document |= {
                "key_size": raw.key_size,
                "value_size": raw.value_size,
                "max_entries": raw.max_entries,
            }
        elif raw.kind == ObjectKind.PROG:
            document["tag"] = raw.tag.hex()
        elif raw.kind == ObjectKind.LINK and raw.prog_id:
            document["prog_id"] = raw.prog_id
        return document


def _short(name: str) -> str:
    """``hash`` for ``BPF_MAP_TYPE_HASH``, as bpftool has it."""
    return name.partition("_TYPE_")[2].lower() or name
