# SPDX-License-Identifier: Apache-2.0
"""The types of maps: asked of the kernel while the maps are there, and kept."""

import errno
from collections.abc import Iterable
from typing import Final

from ..decoders.map_types import BTF_MAX, Contents, MapBtf, Types, contents
from ..decoders.maps import MAP_CREATE
from ..events.call import Call, ObjectKind
from . import own
from .recent import Recent
from .recording import Recorder
from .say import say

_MAPS: Final = 16_384
_BTFS: Final = 256
_BTF_BYTES: Final = 16 << 20
_MAP: Final = int(ObjectKind.MAP)


class KnownTypes:
    """What has been told of maps and of BTF."""

    def __init__(self) -> None:
        self._maps: Recent[int, Contents | None] = Recent(_MAPS)
        self._btfs: Recent[int, Types] = Recent(_BTFS, _BTF_BYTES, lambda types: types.size)

    def of(self, number: int) -> Contents | None:
        """How to spell what is in the map with this id; None: as bytes."""
        return self._maps.get(number)

    def learn_map(self, about: MapBtf) -> None:
        types = self._btfs.get(about.btf_id)
        self._maps[about.id] = contents(types, about) if types else None

    def learn_btf(self, number: int, data: bytes) -> None:
        """Ahead of its maps.

        :raises ValueError: it is not BTF.
        """
        self._btfs[number] = Types(data)


class AskedTypes(KnownTypes):
    """The same of this host: each map is looked up once, when a call is first about it.

    :param recorder: is told of what is found out, or None.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        super().__init__()
        self._recorder = recorder
        self._refused = False

    def look(self, calls: Iterable[Call]) -> None:
        """To be called soon: maps may go at any time."""
        for call in calls:
            if self._refused:
                return
            if call.memory or call.command == MAP_CREATE.number:
                for made in call.objects.values():
                    if made.kind == _MAP and made.id not in self._maps:
                        self._ask(made.id)

    def _ask(self, number: int) -> None:
        try:
            about = own.btf_of_map(number)
            if about.key_type_id or about.value_type_id:
                self._ask_btf(about.btf_id)
        except OSError as error:
            if error.errno == errno.EPERM:
                self._refused = True
                say(f"keys and values of maps are shown as bytes: {error.strerror}")
            self._maps[number] = None
            return
        self.learn_map(about)
        if self._recorder and self.of(number):
            self._recorder.map_btf(about)

    def _ask_btf(self, number: int) -> None:
        if number in self._btfs:
            return
        data = own.btf_data(number, BTF_MAX)
        try:
            self.learn_btf(number, data)
        except ValueError:
            return  # too long, or of a kind that nobody knew
        if self._recorder:
            self._recorder.btf(number, data)
