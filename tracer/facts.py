# SPDX-License-Identifier: Apache-2.0
"""What the kernel program must know of the kernel that it runs in."""

import os
import platform
from collections.abc import Iterable, Mapping
from struct import pack
from typing import Any, Final, NamedTuple

from ..decoders import uapi
from ..decoders.loads import KFUNCS
from . import btf, libc, own


class Registers(NamedTuple):
    """Where a machine keeps what a system call is about, bytes (arch/*/include/asm/)."""

    arguments: tuple[int, int, int, int, int]
    """In struct pt_regs, also when the call returns."""
    number: int
    """Of the call, in struct pt_regs."""
    compat: tuple[str, int]
    """The member of struct task_struct, and its bits, that mark a 32-bit call."""
    compat_number: int
    """Of bpf(2) in a 32-bit call."""
    compat_arguments: tuple[int, int, int, int, int]
    """In struct pt_regs, of a 32-bit call."""
    x32: int
    """The bit in the number of a call that marks an ABI with 32-bit pointers; 0: none."""
    function_arguments: tuple[int, int, int, int]
    """Of a function that has just been called, in struct pt_regs."""
    function_result: int


REGISTERS: Final = {
    "x86_64": Registers(
        (112, 104, 96, 56, 72), 120, ("task_struct.thread_info.status", 0x2),
        357, (40, 88, 96, 104, 112), 1 << 30, (112, 104, 96, 88), 80,
    ),
    "aarch64": Registers(
        (272, 8, 16, 24, 32), 280, ("task_struct.thread_info.flags", 1 << 22),
        386, (272, 8, 16, 24, 32), 0, (0, 8, 16, 24), 0,
    ),
}  # fmt: skip
"""By machine."""
TRACEPOINTS: Final = (
    "sys_enter", "sys_exit", "task_newtask", "sched_process_exec", "sched_process_exit"
)  # fmt: skip
"""Those that BTF is asked about."""
FUNCTIONS: Final = ("__sys_bpf", "security_bpf", "bpf_check", "bpf_lsm_bpf")
"""The same."""
KFUNC: Final = 1 << 30
"""In the number of a helper, as the C source calls it: it is a kfunc, and the rest its type."""
_PREEMPTION: Final = ("bpf_preempt_disable", "bpf_preempt_enable")
"""kfuncs, since Linux 6.10."""
_PREEMPTIBLE: Final = 7  # from this version on, tracepoints of system calls are

_TYPE_OF: Final = "btf_trace_{}"  # include/trace/bpf_probe.h
_TASK_PT_REGS: Final = 175  # BPF_FUNC_task_pt_regs, since Linux 5.15
_CURRENT_TASK_BTF: Final = 158  # BPF_FUNC_get_current_task_btf, since Linux 5.11
_PROBE_READ_KERNEL: Final = 113

_TASK: Final = (
    "task_struct.group_leader", "task_struct.real_parent", "task_struct.tgid",
    "task_struct.start_boottime", "task_struct.self_exec_id", "task_struct.cred",
    "task_struct.comm", "task_struct.mm", "task_struct.nsproxy", "task_struct.thread_pid",
    "cred.euid", "cred.cap_effective", "pid.level", "pid.numbers", "upid.ns",
    "pid_namespace.ns.inum", "nsproxy.mnt_ns", "mnt_namespace.ns.inum", "mm_struct.arg_start",
    "mm_struct.arg_end",
)  # fmt: skip
_PATHS: Final = (
    "mm_struct.exe_file", "file.f_path.dentry", "file.f_path.mnt", "dentry.d_parent",
    "dentry.d_name.name", "dentry.d_hash.pprev",
    "vfsmount.mnt_root", "mount.mnt", "mount.mnt_parent", "mount.mnt_mountpoint",
)  # fmt: skip
_EXE: Final = (
    "file.f_inode", "inode.i_uid", "inode.i_mode", "inode.i_ino", "inode.i_sb",
    "super_block.s_dev", "mount.mnt_ns",
)  # fmt: skip
_USER_NAMESPACE: Final = ("cred.user_ns", "user_namespace.ns.inum")
_OBJECTS: Final = (
    "task_struct.files", "files_struct.fdt", "fdtable.max_fds", "fdtable.fd", "file.f_op",
    "file.private_data", "file_operations.release", "bpf_map.id", "bpf_map.map_type",
    "bpf_map.name", "bpf_prog.aux", "bpf_prog.type", "bpf_prog.tag", "bpf_prog_aux.id",
    "bpf_prog_aux.name", "bpf_link.id", "bpf_link.type", "bpf_link.prog", "btf.id",
)  # fmt: skip
_INSNS: Final = ("bpf_prog.len", "bpf_prog.insnsi")
_PROG_MAPS: Final = ("bpf_prog_aux.used_maps", "bpf_prog_aux.used_map_cnt")
_SIZES: Final = ("bpf_map.key_size", "bpf_map.value_size", "bpf_map.max_entries")
"""Read at once with ``bpf_map.map_type``, behind which they stand."""
_OPTIONAL: Final = (
    "task_struct.loginuid",  # CONFIG_AUDIT
    "task_struct.pid",
    *(registers.compat[0] for registers in REGISTERS.values()),
)


class Facts(NamedTuple):
    """Taken from BTF; the same as long as the kernel is."""

    names: Mapping[str, Mapping[int, str]]
    """Constants by C type and value."""
    offsets: Mapping[str, int]
    """Of struct members, bytes, by ``struct.member``."""
    upid_size: int
    """``sizeof(struct upid)``, 0 if unknown."""
    helpers: frozenset[int]
    """The helper functions that this kernel has."""
    tracepoints: Mapping[str, int]
    """The ids of their types (``btf_trace_NAME``), by their names."""
    functions: Mapping[str, tuple[int, int]]
    """Their ids, and how many words of 8 bytes their arguments take, by their names."""
    problem: str
    """Why there is nothing in the others; mostly empty."""

    def flags(self, *, kernel_reads: bool) -> list[str]:
        """What of it the kernel program is compiled with.

        :param kernel_reads: a program may read kernel memory.
        """
        flags = []
        paths = self.has_paths and kernel_reads
        if kernel_reads:
            flags.append("-DHAVE_KERNEL_READS=1")
        if self.has_task:
            flags += ["-DHAVE_TASK=1", f"-DSIZE_upid={self.upid_size}"]
            flags += _offset_flags(self.offsets)
            objects = kernel_reads and self.has_objects
            flags += ["-DHAVE_PATHS=1"] * paths + ["-DHAVE_OBJECTS=1"] * objects
            flags += ["-DHAVE_EXE=1"] * (paths and self.has_exe)
            flags += ["-DHAVE_USER_NAMESPACE=1"] * self.has_user_namespace
            flags += ["-DHAVE_PROG_MAPS=1"] * (objects and self._has(*_PROG_MAPS))
        if _is_preemptible() and {*_PREEMPTION} <= self.functions.keys():
            disable, enable = (self.functions[name][0] for name in _PREEMPTION)
            flags += [f"-DPREEMPT_DISABLE={KFUNC | disable}", f"-DPREEMPT_ENABLE={KFUNC | enable}"]
        registers = REGISTERS.get(platform.machine())
        if registers and self.has_registers:
            flags += _register_flags(registers, self.offsets)
        return flags

    @property
    def has_registers(self) -> bool:
        """Whether a program can look at the registers of the system call under way."""
        return {_TASK_PT_REGS, _CURRENT_TASK_BTF} <= self.helpers

    @property
    def has_task(self) -> bool:
        """Whether what is behind the current task can be read."""
        return self._has(*_TASK) and self.upid_size > 0 and _CURRENT_TASK_BTF in self.helpers

    @property
    def has_paths(self) -> bool:
        """Whether the paths of files can be read."""
        return self._has(*_PATHS)

    @property
    def has_exe(self) -> bool:
        """Whether owner, mode and mount namespace of an executable can be read."""
        return self.has_paths and self._has(*_EXE)

    @property
    def has_user_namespace(self) -> bool:
        """Whether the user namespace of a task can be read."""
        return self.has_task and self._has(*_USER_NAMESPACE)

    @property
    def has_insns(self) -> bool:
        """Whether the instructions of a program that is being loaded can be read."""
        return self.has_task and self._has(*_INSNS)

    @property
    def has_objects(self) -> bool:
        """Whether what is behind a descriptor can be read."""
        if not self.has_task or not self._has(*_OBJECTS, *_SIZES):
            return False
        first = self.offsets["bpf_map.map_type"]
        return [self.offsets[name] - first for name in _SIZES] == [4, 8, 12]

    def to_json(self) -> dict[str, Any]:
        return {**self._asdict(), "helpers": sorted(self.helpers)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Facts":
        """:raises ValueError, KeyError, TypeError, AttributeError: it is not ours, or says that
        there was no BTF: that may have changed.
        """
        if data["problem"]:
            raise ValueError(data["problem"])
        return cls(
            {enum: {int(value): str(name) for value, name in names.items()}
             for enum, names in data["names"].items()},
            {str(member): int(offset) for member, offset in data["offsets"].items()},
            int(data["upid_size"]),
            frozenset(map(int, data["helpers"])),
            {str(name): int(number) for name, number in data["tracepoints"].items()},
            {str(name): (int(number), int(words))
             for name, (number, words) in data["functions"].items()},
            str(data["problem"]),
        )  # fmt: skip

    def _has(self, *members: str) -> bool:
        return all(member in self.offsets for member in members)


def _is_preemptible() -> bool:
    major = platform.release().partition(".")[0]
    return major.isdigit() and int(major) >= _PREEMPTIBLE


def _register_flags(registers: Registers, offsets: Mapping[str, int]) -> Iterable[str]:
    yield "-DHAVE_REGISTERS=1"
    yield from (f"-DARG{n}_OFFSET={offset}" for n, offset in enumerate(registers.arguments, 1))
    yield f"-DPT_REGS_NUMBER={registers.number}"
    yield f"-DNR_BPF={libc.SYS_BPF}"
    yield f"-DNR_BPF_COMPAT={registers.compat_number}"
    yield f"-DX32_BIT={registers.x32}"
    member, bits = registers.compat
    if member in offsets:
        yield f"-DCOMPAT_OFFSET={offsets[member]}"
        yield f"-DCOMPAT_BITS={bits}"
        for n, offset in enumerate(registers.compat_arguments, 1):
            yield f"-DCOMPAT_ARG{n}_OFFSET={offset}"


def _offset_flags(offsets: Mapping[str, int]) -> Iterable[str]:
    for member, offset in sorted(offsets.items()):
        yield f"-DOFF_{member.replace('.', '_')}={offset}"


def gather() -> Facts:
    """Reads them from the BTF of this kernel; without it, they are empty and say why."""
    try:
        kernel = btf.Btf(btf.VMLINUX.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Facts({}, {}, 0, frozenset(), {}, {}, f"{btf.VMLINUX}: {reason}")
    names = {enum: found for enum in uapi.ENUMS if (found := kernel.enum(enum))}
    names[KFUNCS] = kernel.tagged(KFUNCS)
    helpers = frozenset(kernel.enum(btf.HELPERS))
    offsets = kernel.offsets(
        [
            *_TASK,
            *_PATHS,
            *_EXE,
            *_USER_NAMESPACE,
            *_OBJECTS,
            *_SIZES,
            *_INSNS,
            *_PROG_MAPS,
            *_OPTIONAL,
        ]
    )
    types = kernel.typedefs(map(_TYPE_OF.format, TRACEPOINTS))
    tracepoints = {
        name: types[kind] for name in TRACEPOINTS if (kind := _TYPE_OF.format(name)) in types
    }
    upid_size = kernel.struct_size("upid") or 0
    functions = kernel.functions([*FUNCTIONS, *_PREEMPTION])
    return Facts(names, offsets, upid_size, helpers, tracepoints, functions, "")


def kernel_identity() -> str:
    """Names this build of the kernel: two that differ in a struct differ in it."""
    about = os.uname()
    try:
        with open("/sys/kernel/notes", "rb") as file:  # the build id is in it
            notes = file.read(1 << 16).hex()
    except OSError:
        notes = ""
    return f"{about.release} {about.version} {about.machine} {notes}"


def may_read_kernel_memory() -> bool:
    """Found out by trying: lockdown=confidentiality forbids it."""
    insns = (
        pack("=BBhi", 0xBF, 0xA1, 0, 0)  # r1 = r10
        + pack("=BBhi", 0x07, 0x01, 0, -8)  # r1 += -8
        + pack("=BBhi", 0xB7, 0x02, 0, 8)  # r2 = 8
        + pack("=BBhi", 0xB7, 0x03, 0, 0)  # r3 = 0
        + pack("=BBhi", 0x85, 0x00, 0, _PROBE_READ_KERNEL)
        + pack("=BBhi", 0xB7, 0x00, 0, 0)  # r0 = 0
        + pack("=BBhi", 0x95, 0x00, 0, 0)  # exit
    )
    try:
        os.close(own.load_program(own.TRACEPOINT, insns, "may_read"))
    except OSError:
        return False
    return True
