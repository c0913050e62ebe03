# SPDX-License-Identifier: Apache-2.0
"""An event as one line for people, in strace's spelling."""

import errno
import os

from .call import Call
from .event import (
    ATTR_PARTLY_READ,
    ENTRY_UNSEEN,
    EXIT_UNSEEN,
    TOCTOU_SUSPECT,
    Event,
    Trailing,
)
from .process import Process, arguments
from .process_document import ALL_CAPABILITIES, NOBODY, capabilities
from .value import Address, Detail, Items, Style, Xlat, escape, hexadecimal, items_text, printable
from .wire import PROCESS_EXE_GONE

_ADDRESS = Address()
PLAIN = Style()

# What a system call returns inside the kernel when a signal interrupted it; user
# space never sees them (include/linux/errno.h).
_RESTART = {
    512: "ERESTARTSYS (To be restarted if SA_RESTART is set)",
    513: "ERESTARTNOINTR (To be restarted)",
    514: "ERESTARTNOHAND (To be restarted if no handler)",
    516: "ERESTART_RESTARTBLOCK (Interrupted by signal)",
}

# Where Python has another name for a number than strace and bpf(2)'s manual page,
# or none: 524 is the kernel's own, which bpf(2) returns all the same.
_ERRNO = {
    errno.EDEADLK: "EDEADLK",
    errno.EOPNOTSUPP: "EOPNOTSUPP",
    524: "ENOTSUPP",
}
_MAX_ERRNO = 4095
_REMARKABLE = ENTRY_UNSEEN, EXIT_UNSEEN, ATTR_PARTLY_READ
_LINE_ARGS = 256  # bytes of arguments that the line of a process shows


def call(event: Event, style: Style = PLAIN) -> str:
    """``bpf(CMD, ATTR, SIZE)``, with arguments 4 and 5 if the caller used them."""
    raw = event.call
    arguments = [command(event, style.xlat), _attr(event, style), str(raw.size)]
    if raw.has_common_attrs and event.command:  # else the bit is noise, as in cmd -1
        arguments += [_ADDRESS.text(raw.common_addr, style), str(raw.common_size)]
    return f"bpf({', '.join(arguments)})"


def command(event: Event, xlat: Xlat) -> str:
    """``BPF_PROG_LOAD``, ``BPF_PROG_LOAD|BPF_COMMON_ATTRS``, ``0x63 /* BPF_??? */``."""
    raw = event.call
    number = hexadecimal(raw.cmd)
    if xlat is Xlat.RAW:
        return number
    if not event.command:
        return f"{number} /* BPF_??? */"
    name = event.command + "|BPF_COMMON_ATTRS" * raw.has_common_attrs
    return name if xlat is Xlat.ABBREV else f"{number} /* {name} */"


def result(event: Event) -> str:
    """What follows ``= ``: ``3<map:12 hash "config">``, ``-1 EPERM (Operation not permitted)``,
    ``? ERESTARTSYS ...``, ``?``.
    """
    return _returned(event) + _remarks(event)


def _remarks(event: Event) -> str:
    # What would otherwise make a wrong line look right, and why the call failed.
    remarks = [note for note in _REMARKABLE if note in event.notes]
    if event.differs:
        remarks.append(f"{TOCTOU_SUSPECT}: {', '.join(event.differs)}")
    if event.reason:
        remarks.append(event.reason.replace("*/", "* /"))
    return f" /* {'; '.join(remarks)} */" if remarks else ""


def _returned(event: Event) -> str:
    retval = event.call.retval
    if not event.call.returned:
        return "?"
    if not -_MAX_ERRNO <= retval < 0:
        return f"{retval}<{event.result}>" if event.result else str(retval)
    if -retval in _RESTART:
        return f"? {_RESTART[-retval]}"
    name = errno_name(-retval)
    return f"-1 {name} ({os.strerror(-retval)})" if name else f"-1 (errno {-retval})"


def errno_name(number: int) -> str:
    """``EPERM`` for 1; empty for a number without a name."""
    if number in _RESTART:
        return _RESTART[number].partition(" ")[0]
    return _ERRNO.get(number) or errno.errorcode.get(number, "")


def _attr(event: Event, style: Style) -> str:
    if event.attr is None:
        return _ADDRESS.text(event.call.attr_addr, style)
    text = items_text(_detailed(event, event.attr), style)
    if event.wrapper:
        text = f"{event.wrapper}={{{text}}}"
    if event.trailing:
        text += trailing(event.trailing, verbose=style.verbose)
    text = f"{{{text}}}"
    if event.after:
        text += f" => {{{event.wrapper}={{{items_text(event.after, style)}}}}}"
    return text


def trailing(bytes_: Trailing, *, verbose: bool) -> str:
    """``, extra_data="\\x01" /* bytes 92..92 */``, or that there is something."""
    if not verbose:
        return ", ..."
    data = "".join(f"\\x{byte:02x}" for byte in bytes_.data)
    last = bytes_.offset + len(bytes_.data) - 1
    return f', extra_data="{data}" /* bytes {bytes_.offset}..{last} */'


def _detailed(event: Event, attr: Items) -> Items:
    if not event.simple:
        return attr
    details: dict[str, Detail] = dict(event.behind)
    details |= event.memory
    return tuple(item._replace(detail=details.get(item.name)) for item in attr)


def rights(call: Call, *, verbose: bool) -> tuple[int, ...]:
    """What a process line says of the rights with which a call was made, to be compared."""
    few = call.uid, call.euid
    return (*few, call.gid, call.login_uid, call.capabilities) if verbose else few


def process(about: Process, call: Call, *, verbose: bool = False) -> str:
    """``--- bpftool[4242] {exe="/usr/sbin/bpftool", args=["bpftool", "prog"], ...} ---``

    :param call: one that it made.
    :param verbose: also what few want to know.
    """
    parts: list[str] = []
    image = about.image
    if image and image.exe:
        deleted = " (deleted)" * bool(image.flags & PROCESS_EXE_GONE)
        parts.append(f'exe="{escape(image.exe)}"{deleted}')
    args, cut = arguments(about)
    if args:
        parts.append(f"args=[{_process_arguments(args, cut)}]")
    parts += _process_rights(call, verbose)
    if image:
        parts.append(f"parent={printable(image.parent_comm)}[{image.parent_tgid}]")
    surroundings = about.surroundings
    if surroundings and surroundings.container:
        container = surroundings.container
        parts.append(f"container={container.runtime or 'unknown'}:{container.id[:12]}")
    elif surroundings and surroundings.cgroup and surroundings.cgroup != b"/":
        parts.append(f'cgroup="{escape(surroundings.cgroup)}"')
    if verbose:
        parts += _process_rest(about, call)
    return f"--- {printable(call.comm)}[{about.pid}] {{{', '.join(parts)}}} ---"


def _process_arguments(args: list[bytes], cut: bool) -> str:
    shown: list[str] = []
    room = _LINE_ARGS
    for arg in args:
        whole = len(arg) <= room
        shown.append(f'"{escape(arg[:room])}"' + "..." * (not whole))
        if not whole:
            return ", ".join(shown)
        room -= len(arg)
    return ", ".join(shown + ["..."] * cut)


def _process_rights(call: Call, verbose: bool) -> list[str]:
    parts = [f"uid={call.uid}"]
    if call.has_task and call.euid != call.uid:
        parts.append(f"euid={call.euid}")
    if not verbose:
        return parts
    parts.append(f"gid={call.gid}")
    if call.has_task:
        if call.login_uid != NOBODY:
            parts.append(f"loginuid={call.login_uid}")
        names = "|".join(capabilities(call.capabilities)) or "0"
        parts.append(f"caps={'all' if call.capabilities == ALL_CAPABILITIES else names}")
    return parts


def _process_rest(process: Process, call: Call) -> list[str]:
    parts = []
    surroundings = process.surroundings
    if surroundings and surroundings.cwd is not None:
        parts.append(f'cwd="{escape(surroundings.cwd)}"')
    if surroundings and surroundings.ancestors:
        names = [f"{printable(each.name)}[{each.pid}]" for each in surroundings.ancestors]
        parts.append(f"ancestors=[{', '.join(names)}]")
    if call.has_task:
        parts.append(f"mntns={call.mount_namespace}")
        if call.pid_namespace:
            parts.append(f"pidns={call.pid_namespace}")
        if call.user_namespace:
            parts.append(f"userns={call.user_namespace}")
    return parts
