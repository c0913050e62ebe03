# SPDX-License-Identifier: Apache-2.0
"""Recordings: the records of a run, with what a replay elsewhere cannot ask.

A file is a magic line, then frames::

    u8 kind | u32 length | u32 crc32 of kind and payload | payload

in the byte order of the machine that made it. The first frame is the header
(JSON), the last the end (JSON); between them stand the records as they came from the
ring, what else was found out about processes (JSON) ahead of their calls, what was noticed without
calls (JSON), and the offset
from boot time to wall-clock time wherever it changed.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from struct import Struct
from typing import Any, BinaryIO, Final, NamedTuple, Protocol
from zlib import crc32

from ..decoders.map_types import MapBtf
from ..events.call import CommandCount, Object, ObjectKind, Totals
from ..events.errors import RecordingError
from ..events.notice import Notice, Reason
from ..events.process import Ancestor, Container, Missing, Surroundings
from ..events.wire import COMMAND_SLOTS, TAG_LEN, WIRE_VERSION
from .callers import Key
from .guard import Identity

_MAGIC: Final = b"\x93bpfsnoop recording 1\n"
_FRAME: Final = Struct("=BII")
_CLOCK: Final = Struct("=q")
_MAP_BTF: Final = Struct("=7I")
_ID: Final = Struct("=I")
_MAX_PAYLOAD: Final = 1 << 24
_MAX_TIME_NS: Final = (1 << 63) - 1
_U32_MAX: Final = (1 << 32) - 1
_U64_MAX: Final = (1 << 64) - 1
_MAX_COUNT: Final = 1 << 48  # more than anybody counts to, and sums stay within 64 bits

# What reading JSON that is not as expected ends in.
_NONSENSE: Final = (
    ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip

HEADER, CALL, CLOCK, PROCESS, NOTICE, LOSSES, END = b"H", b"C", b"T", b"P", b"N", b"L", b"E"
MAP_BTF, BTF = b"M", b"B"


_OF_CALLS: Final = {Reason.OWN_OPENED, Reason.OWN_READ, Reason.OWN_CHANGED}


class Header(NamedTuple):
    """What the run was."""

    kernel: str
    """``uname -srm``"""
    hostname: str
    host_id: str
    boot_id: str
    probe: str
    kernel_names: Mapping[str, Mapping[int, str]]
    own: frozenset[Identity] = frozenset()
    """The tracer's own maps, programs and links."""
    mount_namespace: int = 0
    """The host's; 0 if not known."""


class Writer(Protocol):
    def write(self, data: bytes) -> object:
        """Takes all of it or raises."""

    def flush(self) -> object:
        """Sees to it that it survives us."""


class Recorder:
    """Writes a recording."""

    def __init__(self, file: Writer, header: Header) -> None:
        self._file = file
        file.write(_MAGIC)
        about = {"wire": WIRE_VERSION, "byteorder": sys.byteorder, **header._asdict()}
        about["own"] = sorted(header.own)
        self._frame(HEADER, json.dumps(about).encode())

    def clock(self, offset_ns: int) -> None:
        """From here on, wall-clock time is boot time plus this."""
        self._frame(CLOCK, _CLOCK.pack(offset_ns))

    def calls(self, records: list[bytes]) -> None:
        for record in records:
            self._frame(CALL, record)
        self._file.flush()

    def process(self, key: Key, surroundings: Surroundings) -> None:
        """What was found out about a process, for its calls from here on."""
        self._frame(PROCESS, json.dumps([*key, _plain(surroundings)]).encode())

    def map_btf(self, about: MapBtf) -> None:
        """Where the types of a map are, for the calls from here on."""
        self._frame(MAP_BTF, _MAP_BTF.pack(*about))

    def btf(self, number: int, data: bytes) -> None:
        """A BTF by its id, ahead of the maps that were made with it."""
        self._frame(BTF, _ID.pack(number) + data)

    def notice(self, notice: Notice) -> None:
        """What was noticed behind the calls so far, without their help."""
        self._frame(NOTICE, json.dumps(_plain(notice)).encode())

    def losses(self, totals: Totals) -> None:
        """What was seen and lost up to here."""
        self._frame(LOSSES, json.dumps(totals._asdict()).encode())

    def end(self, totals: Totals) -> None:
        self._frame(END, json.dumps(totals._asdict()).encode())

    def _frame(self, kind: bytes, payload: bytes) -> None:
        self._file.write(_FRAME.pack(kind[0], len(payload), crc32(payload, kind[0])))
        self._file.write(payload)


class Frame(NamedTuple):
    kind: bytes
    payload: bytes


class Recording:
    """Reads a recording.

    :raises RecordingError: the file is not one, or of another version or byte order.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path
        self._offset = len(_MAGIC)
        magic = self._bytes(len(_MAGIC))
        if magic != _MAGIC:
            raise RecordingError(self._not_ours(magic))
        frame = self._read()
        if frame is None or frame.kind != HEADER:
            raise RecordingError(f"{path}: a recording without a header: it was never begun")
        self.header = self._parsed_header(frame.payload)

    def frames(self) -> Iterator[Frame]:
        """Everything behind the header, the end included.

        :raises RecordingError: after the last frame that is whole, if the file is
            cut short or corrupt.
        """
        while (frame := self._read()) is not None:
            yield frame
            if frame.kind == END:
                return
        raise RecordingError(
            f"{self._path}: has no end: the recording was cut short at a whole record,"
            " and what was lost while it was made is not known"
        )

    def _read(self) -> Frame | None:
        start = self._offset
        head = self._bytes(_FRAME.size)
        if not head:
            return None
        if len(head) < _FRAME.size:
            raise RecordingError(f"{self._path}: cut short in the record at byte {start}")
        kind, length, checksum = _FRAME.unpack(head)
        if length > _MAX_PAYLOAD:
            raise RecordingError(f"{self._path}: corrupt from byte {start} on")
        payload = self._bytes(length)
        if len(payload) < length:
            raise RecordingError(f"{self._path}: cut short in the record at byte {start}")
        if crc32(payload, kind) != checksum:
            raise RecordingError(f"{self._path}: corrupt from byte {start} on")
        self._offset += _FRAME.size + length
        return Frame(bytes((kind,)), payload)

    def _bytes(self, length: int) -> bytes:
        try:
            return self._file.read(length)
        except OSError as error:
            raise RecordingError(f"cannot read {self._path}: {error.strerror}") from error

    def _not_ours(self, magic: bytes) -> str:
        if not magic:
            return f"{self._path}: is empty"
        if _MAGIC.startswith(magic):
            return f"{self._path}: a recording without a header: it was never begun"
        if magic.startswith(_MAGIC[:-2]):
            return (
                f"{self._path}: was recorded in another version of the format:"
                " replay it with the bpfsnoop that made it"
            )
        return f"{self._path}: is not a recording of bpfsnoop"

    def _parsed_header(self, payload: bytes) -> Header:
        try:
            about: dict[str, Any] = json.loads(payload)
            wire, byteorder = int(about.pop("wire")), _printable(about.pop("byteorder"))
            if wire != WIRE_VERSION:
                raise RecordingError(
                    f"{self._path}: holds records of version {wire}, this bpfsnoop reads"
                    f" {WIRE_VERSION}: replay it with the bpfsnoop that made it"
                )
            if byteorder != sys.byteorder:
                raise RecordingError(f"{self._path}: was recorded on a {byteorder}-endian machine")
            names = {
                enum: {int(value): _identifier(name) for value, name in constants.items()}
                for enum, constants in about.pop("kernel_names").items()
            }
            own = frozenset((_number(kind), _number(number)) for kind, number in about.pop("own"))
            mounts = _number(about.pop("mount_namespace"), _U32_MAX)
            texts = {key: _printable(text) for key, text in about.items()}
            return Header(**texts, kernel_names=names, own=own, mount_namespace=mounts)
        except _NONSENSE as error:
            raise RecordingError(f"{self._path}: has a header that makes no sense") from error


def parse_clock(payload: bytes, path: str) -> int:
    """The offset of a CLOCK frame, ns.

    :param path: of the recording, for the message.
    :raises RecordingError: it is not one.
    """
    if len(payload) != _CLOCK.size:
        raise RecordingError(f"{path}: has a clock record of the wrong size")
    offset: int = _CLOCK.unpack(payload)[0]
    return offset


def parse_map_btf(payload: bytes, path: str) -> MapBtf:
    """What a MAP_BTF frame says.

    :param path: of the recording, for the message.
    :raises RecordingError: it is not one.
    """
    if len(payload) != _MAP_BTF.size:
        raise RecordingError(f"{path}: has a map of the wrong size")
    return MapBtf._make(_MAP_BTF.unpack(payload))


def parse_btf(payload: bytes, path: str) -> tuple[int, bytes]:
    """The id and the data of a BTF frame.

    :param path: of the recording, for the message.
    :raises RecordingError: it is not one.
    """
    if len(payload) < _ID.size:
        raise RecordingError(f"{path}: has BTF without an id")
    number: int = _ID.unpack_from(payload)[0]
    return number, payload[_ID.size :]


def parse_totals(payload: bytes, path: str) -> Totals:
    """What a LOSSES or END frame says.

    :param path: of the recording, for the message.
    :raises RecordingError: it is not one.
    """
    try:
        end = json.loads(payload)
        counts = {_slot(slot): CommandCount(*map(_number, count))
                  for slot, count in end.pop("counts").items()}  # fmt: skip
        time_ns = _number(end.pop("time_ns"), _MAX_TIME_NS)
        return Totals(
            counts, **{name: _number(number) for name, number in end.items()}, time_ns=time_ns
        )
    except _NONSENSE as error:
        raise RecordingError(f"{path}: has totals that make no sense") from error


def parse_process(payload: bytes, path: str) -> tuple[Key, Surroundings]:
    """What a PROCESS frame says.

    :param path: of the recording, for the message.
    :raises RecordingError: it is not one.
    """
    try:
        *key, about = json.loads(payload)
        return Key(*(_number(number, _U64_MAX) for number in key)), _surroundings(about)
    except _NONSENSE as error:
        raise RecordingError(f"{path}: has a process that makes no sense") from error


def parse_notice(payload: bytes, path: str) -> Notice:
    """What a NOTICE frame says.

    :param path: of the recording, for the message.
    :raises RecordingError: it is not one.
    """
    try:
        reason, time_ns, prog, pid, tid, during, _, probe = json.loads(payload)
        if Reason(reason) in _OF_CALLS:
            raise ValueError("is told of a call, which is there itself")
        return Notice(
            Reason(reason),
            _number(time_ns, _MAX_TIME_NS),
            _object(prog) if prog else None,
            _number(pid),
            _number(tid),
            _printable(during),
            probe=_printable(probe),
        )
    except _NONSENSE as error:
        raise RecordingError(f"{path}: has a notice that makes no sense") from error


def _object(about: list[Any]) -> Object:
    made = Object(*about)
    name, tag = _bytes(made.name), _bytes(made.tag)
    if len(tag) != TAG_LEN:
        raise ValueError("not a tag")
    for number in made[:-2]:
        _number(number)
    return made._replace(kind=ObjectKind(made.kind), name=name, tag=tag)


def _plain(value: Any) -> Any:
    """What JSON can hold; bytes become text of as many characters."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, Missing | Reason):
        return value.value
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value


def _surroundings(about: list[Any]) -> Surroundings:
    plain = Surroundings(*about)
    container = plain.container
    return Surroundings(
        args=None if plain.args is None else tuple(map(_bytes, plain.args)),
        args_cut=bool(plain.args_cut),
        cwd=_bytes_or_none(plain.cwd),
        ancestors=tuple(
            Ancestor(_number(pid), _bytes(name), _bytes_or_none(exe), _number(ticks, _U64_MAX))
            for pid, name, exe, ticks in plain.ancestors
        ),
        ancestors_cut=bool(plain.ancestors_cut),
        cgroup=_bytes_or_none(plain.cgroup),
        container=Container(*map(_printable, container)) if container else None,
        missing={_identifier(what): Missing(why) for what, why in plain.missing.items()},
        exe_on_host=_truth_or_none(plain.exe_on_host),
    )


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("not a string")
    return text.encode("latin-1")


def _bytes_or_none(text: Any) -> bytes | None:
    return None if text is None else _bytes(text)


def _truth_or_none(value: Any) -> bool | None:
    if value is not None and type(value) is not bool:
        raise ValueError("neither true nor false")
    return value


# What a file says need not be what we wrote: nothing of it may upset a terminal or
# whoever makes a document of it.


def _printable(text: Any) -> str:
    if not isinstance(text, str) or not text.isascii() or not text.isprintable():
        raise ValueError("not a plain string")
    return text


def _identifier(name: Any) -> str:
    if not _printable(name).isidentifier():
        raise ValueError("not the name of a constant")
    return str(name)


def _number(number: Any, most: int = _MAX_COUNT) -> int:
    if type(number) is not int or not 0 <= number <= most:
        raise ValueError("not a count or time")
    return number


def _slot(text: str) -> int:
    if int(text) not in range(COMMAND_SLOTS):
        raise ValueError("not a counter slot")
    return int(text)
