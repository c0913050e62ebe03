# SPDX-License-Identifier: Apache-2.0
"""What the daemon needs besides a kernel that can be traced: its user, directory, rules, sinks.

Sinks are tried as the user that will speak to them, by the code that will.
"""

import os
from collections.abc import Callable, Collection, Iterator
from errno import EADDRINUSE
from functools import partial
from importlib.util import find_spec
from typing import Final

from ...events.errors import BpfsnoopError, CannotStart
from ..conditions import Verdict, bad, looked_at, ok, warning
from ..config import Config
from ..delivery.local import listen
from ..delivery.outlets import make_outlet
from ..delivery.settings import SinkSettings
from ..judge import engine_of
from ..private import require_private
from . import drop
from .doubts import doubts
from .state import require_ours

_SAID_MAX: Final = 1000  # characters
_IN_USE: Final = os.strerror(EADDRINUSE)


def daemon_checks(options: Config) -> Iterator[tuple[str, Verdict]]:
    """Each thing, and what came of looking at it."""
    yield "user", looked_at(partial(_user, options))
    yield "state", looked_at(partial(_state, options))
    rules, verdict = _rules(options)
    yield "rules", verdict
    for sink in options.sinks:
        yield f"sink {sink.settings.name}", looked_at(partial(_sink, options, sink.settings))
    if rules is not None:
        for sentence in doubts(options, rules):
            yield "sinks", warning(sentence)
    if options.metrics:
        yield "metrics", looked_at(partial(_metrics, options))


def _user(options: Config) -> Verdict:
    if not options.user:
        return warning("none: it remains who starts it", "set 'user'")
    try:
        who = drop.account(options.user)
    except CannotStart as error:
        return bad(str(error), "")  # in which is what helps
    if not who.uid:
        return warning(f"{options.user} is root, if without capabilities", "name another 'user'")
    if found := _as_user(options, _cannot_read):
        return bad(
            f"{options.user} cannot read bpfsnoop where it is installed: {found}",
            "install it where everybody can read, such as below /usr",
        )
    return ok(f"{options.user} ({who.uid}), which can read bpfsnoop")


def _cannot_read() -> str:
    try:
        os.listdir(os.path.dirname(__file__))
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""


def _state(options: Config) -> Verdict:
    path = options.state
    if not os.path.exists(path):
        return ok(f"{path} is not there, and will be made")
    try:
        _look_into(path, options.user)
    except OSError as error:
        return bad(f"{path}: {error.strerror}", "name a directory of its own, with mode 700")
    room = os.statvfs(path)
    free = room.f_bavail * room.f_frsize
    spools = sum(sink.settings.spool for sink in options.sinks)
    if free < spools:
        return warning(
            f"{path} has {free >> 20} MB left, and spools may take {spools >> 20}",
            "make room, or the spools of sinks smaller",
        )
    return ok(f"{path}, {free >> 20} MB free, of which spools may take {spools >> 20}")


def _look_into(path: str, user: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        require_ours(fd, drop.account(user) if user and not os.geteuid() else None)
    except CannotStart:  # there is no such user, as is said elsewhere: whose it should be is open
        require_private(fd, {os.fstat(fd).st_uid})
    finally:
        os.close(fd)


def _rules(options: Config) -> tuple[Collection[str] | None, Verdict]:
    # Also the names of those that may raise alerts, if nothing is wrong with any.
    try:
        engine = engine_of(options)
    except BpfsnoopError as error:
        first, *others = str(error).splitlines()
        more = f", and {len(others)} more" if others else ""
        return None, bad(f"{first}{more}", "see 'bpfsnoop rules check'")
    if engine is None:
        return (), warning("none", "set 'rules' to [default]")
    return engine.telling, ok(f"{len(engine.telling)}")


def _sink(options: Config, sink: SinkSettings) -> Verdict:
    makes = _cannot_write if sink.kind == "file" else _cannot_make
    if wrong := _as_user(options, partial(makes, sink)):
        return bad(wrong, "mend that: until then the daemon does not start")
    if sink.kind != "file" and (wrong := _as_user(options, partial(_cannot_open, sink))):
        return warning(wrong, f"mend that: until then its lines wait in {options.state}/spool")
    where = sink.options.get("address") or sink.options.get("path") or sink.options.get("topic", "")
    return ok(f"{sink.kind} {where}".strip())


def _cannot_write(sink: SinkSettings) -> str:
    # Without making the file.
    path = sink.options["path"]
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        return f"{directory} is not a directory"
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"cannot write to {directory}, which rotation needs"
    if os.path.exists(path) and not os.access(path, os.W_OK):
        return f"cannot write to {path}"
    return ""


def _cannot_make(sink: SinkSettings) -> str:
    try:
        make_outlet(sink.kind, sink.options).close()
    except OSError as error:
        return error.strerror or str(error)
    except (BpfsnoopError, ImportError) as error:
        return str(error)
    return ""


def _cannot_open(sink: SinkSettings) -> str:
    outlet = make_outlet(sink.kind, sink.options)
    try:
        outlet.open()
    except OSError as error:
        return error.strerror or str(error)
    finally:
        outlet.close()
    return ""


def _metrics(options: Config) -> Verdict:
    if find_spec("prometheus_client") is None:
        return bad("the Python package prometheus-client is missing",
                   "pip install prometheus-client, or leave 'metrics' empty")  # fmt: skip
    if wrong := _as_user(options, partial(_cannot_listen, options.metrics)):
        if wrong.endswith(_IN_USE):
            return warning(wrong, "name another address, unless it is this daemon that runs")
        return bad(wrong, "mend that: until then the daemon does not start")
    return ok(f"at {options.metrics}")


def _cannot_listen(where: str) -> str:
    # Without making a socket file, nor taking the place of one.
    path = where.removeprefix("unix://")
    if path == where:
        try:
            listen(where).close()
        except BpfsnoopError as error:
            return str(error)
        return ""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        return f"{directory} is not a directory"
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"cannot write to {directory}"
    return ""


def _as_user(options: Config, attempt: Callable[[], str]) -> str:
    """What that returns in a child that is the daemon's user, without any capability."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        said = "it ended without a word"
        try:
            who = drop.account(options.user) if options.user and not os.geteuid() else None
            drop.drop(who, 0)
            said = attempt()
        except BpfsnoopError as error:
            said = str(error)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, said[:_SAID_MAX].encode("utf-8", "replace"))
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        found = pipe.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return found
