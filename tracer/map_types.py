# SPDX-License-Identifier: Apache-2.0
"""The types of maps: asked of the kernel while the maps are there, and kept."""

import errno
from collections.abc import Iterable
from typing import Final

from ..decoders.map_types import BTF_MAX, Built, KnownMap, MapBtf, Types
from ..decoders.maps import MAP_CREATE
from ..events.call import Call, ObjectKind
from ..events.typed import Type
from . import own
from .recent import Recent
from .recording import Recorder

_MAPS: Final = 4096
_BTFS: Final = 256
_BTF_BYTES: Final = 16 << 20
_TYPES: Final = 256
_TYPES_WEIGHT: Final = 1 << 20  # some 20 MB
_SECOND: Final = 1_000_000_000
_ASKED_MAX: Final = 1000
"""Maps a second, each of which takes about 50 us: who makes more of them is not to keep us from
what else happens.
"""
_ASKED_BYTES: Final = 4 << 20
"""The same of BTF."""
_MAP: Final = int(ObjectKind.MAP)
_FOR_GOOD: Final = frozenset({errno.ENOENT, errno.EPERM, errno.EACCES})
"""What will not be otherwise the next time that this map is asked for."""


class KnownTypes:
    """What has been told of maps and of BTF."""

    def __init__(self) -> None:
        self._maps: Recent[int, KnownMap | None] = Recent(_MAPS)
        self._btfs: Recent[int, Types] = Recent(_BTFS, _BTF_BYTES, lambda types: types.size)
        self._built: Recent[tuple[int, int], Built] = Recent(
            _TYPES, _TYPES_WEIGHT, lambda built: built.weight
        )

    def of(self, number: int) -> KnownMap | None:
        """How to spell what is in the map with this id; None: as bytes."""
        return self._maps.get(number)

    def learn_map(self, about: MapBtf) -> None:
        known = about.btf_id in self._btfs
        self._maps[about.id] = KnownMap(about, self._find) if known else None

    def learn_btf(self, number: int, data: bytes) -> None:
        """Ahead of its maps.

        :raises ValueError: it is not BTF.
        """
        self._btfs[number] = Types(data)

    def _find(self, btf_id: int, type_id: int) -> Type | None:
        built = self._built.get((btf_id, type_id))
        if built is None:
            types = self._btfs.get(btf_id)
            if types is None:
                return None
            built = types.built(type_id)
            self._built[btf_id, type_id] = built
        return built.type


class AskedTypes(KnownTypes):
    """The same of this host: each map is looked up once, when a call is first about it.

    :param recorder: is told of what is found out, or None.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        super().__init__()
        self._recorder = recorder
        self._second = 0
        self._asked = self._asked_bytes = 0

    def look(self, calls: Iterable[Call], now_ns: int) -> None:
        """To be called soon: maps may go at any time.

        :param now_ns: any clock's time.
        """
        if now_ns // _SECOND != self._second:
            self._second = now_ns // _SECOND
            self._asked = self._asked_bytes = 0
        for call in calls:
            if call.memory or call.command == MAP_CREATE.number:
                for made in call.objects.values():
                    if made.kind == _MAP and made.id not in self._maps:
                        self._ask(made.id)

    def _ask(self, number: int) -> None:
        if self._asked >= _ASKED_MAX or self._asked_bytes >= _ASKED_BYTES:
            return  # when a call is about it in another second
        self._asked += 1
        try:
            about = own.btf_of_map(number)
            if about.key_type_id or about.value_type_id:
                self._ask_btf(about.btf_id)
        except OSError as error:
            if error.errno in _FOR_GOOD:
                self._maps[number] = None
            return
        self.learn_map(about)
        if self._recorder and self.of(number):
            self._recorder.map_btf(about)

    def _ask_btf(self, number: int) -> None:
        data = None if number in self._btfs else own.btf_data(number, BTF_MAX)
        if data is None:
            return
        self._asked_bytes += len(data)
        try:
            self.learn_btf(number, data)
        except ValueError:
            return  # of a version that nobody knew
        if self._recorder:
            self._recorder.btf(number, data)
