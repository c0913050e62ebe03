# SPDX-License-Identifier: Apache-2.0
"""What a guest starts from, as the kernel takes it: busybox, a few modules, our scripts."""

import lzma
import stat
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

MODULES: Final = ("virtio_pci", "virtio_console", "virtiofs", "overlay")
"""What it needs before it has the host's files; in some kernels built in."""

_MAGIC: Final = b"070701"
_TRAILER: Final = "TRAILER!!!"

_ELF_SECTIONS: Final = struct.Struct("<40xQ10xHHH")
"""Of Elf64_Ehdr: e_shoff, e_shentsize, e_shnum, e_shstrndx."""
_ELF_SECTION: Final = struct.Struct("<I20xQQ")
"""Of Elf64_Shdr: sh_name, sh_offset, sh_size."""


class File(NamedTuple):
    """What an archive has under a name."""

    content: bytes = b""
    mode: int = stat.S_IFREG | 0o755


_DIRECTORY: Final = File(mode=stat.S_IFDIR | 0o755)


def initramfs(modules: Path, files: Mapping[str, bytes]) -> bytes:
    """The archive, with modules that are to be loaded in the order of their names.

    :param modules: of the guest's kernel.
    :param files: what else is to be in it, executable.
    """
    named = {f"modules/{number:02}.ko": elf for number, elf in enumerate(_loaded(modules))}
    every = {**named, **files}
    above = {str(parent) for name in every for parent in PurePosixPath(name).parents} - {"."}
    return newc(
        dict.fromkeys(sorted(above), _DIRECTORY)
        | {name: File(content) for name, content in every.items()}
    )


def newc(files: Mapping[str, File]) -> bytes:
    """A cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst).

    :param files: a directory stands before what is in it.
    """
    entries = [*files.items(), (_TRAILER, File(mode=0))]
    return b"".join(_entry(inode, *entry) for inode, entry in enumerate(entries, 1))


def _entry(inode: int, name: str, file: File) -> bytes:
    path, size = name.encode() + b"\0", len(file.content)
    # c_ino, c_mode, c_uid, c_gid, c_nlink, c_mtime, c_filesize, two devices, c_namesize, c_chksum
    numbers = (inode, file.mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(path), 0)
    header = _MAGIC + b"".join(b"%08x" % number for number in numbers)
    return _padded(header + path) + _padded(file.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


# --- Modules -----------------------------------------------------------------------------


def _loaded(modules: Path) -> list[bytes]:
    """The modules that this kernel needs, in order."""
    files = {_named(path): path for path in (modules / "kernel").rglob("*.ko*")}
    builtin = {_named(Path(line)) for line in (modules / "modules.builtin").read_text().split()}
    order = load_order(MODULES, lambda name: depends(_elf(files[name])), builtin)
    return [_elf(files[name]) for name in order]


def _named(path: Path) -> str:
    # Files may be called with dashes, what depends on them always says underscores.
    return path.name.split(".", 1)[0].replace("-", "_")


def load_order(
    wanted: Iterable[str], depends_on: Callable[[str], Iterable[str]], builtin: Iterable[str]
) -> list[str]:
    """The wanted modules that are not built in, each once and after what it depends on."""
    order: dict[str, None] = {}

    def load(name: str) -> None:
        if name not in order and name not in builtin:
            for other in depends_on(name):
                load(other)
            order[name] = None

    for name in wanted:
        load(name)
    return list(order)


def _elf(path: Path) -> bytes:
    # busybox can load those of Linux 6.1, but has no xz for the later ones.
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def depends(elf: bytes) -> list[str]:
    """Modules that a module needs, as MODULE_INFO(depends) has them."""
    for line in _section(elf, b".modinfo").split(b"\0"):
        key, _, value = line.partition(b"=")
        if key == b"depends":
            return [name.decode() for name in value.split(b",") if name]
    return []


def _section(elf: bytes, wanted: bytes) -> bytes:
    """What is in the section of that name; nothing if there is none."""
    start, size, count, names = _ELF_SECTIONS.unpack_from(elf)
    headers = [_ELF_SECTION.unpack_from(elf, start + size * index) for index in range(count)]
    for name, offset, length in headers:
        if elf[headers[names][1] + name :].startswith(wanted + b"\0"):
            return elf[offset : offset + length]
    return b""
