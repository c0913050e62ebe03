# SPDX-License-Identifier: Apache-2.0
"""``bpfsnoop daemon``: traces until it is told to stop, as somebody with few rights."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, fields
from typing import Final

from ...events import service
from ...events.errors import BpfsnoopError
from ...events.service import Told
from ...events.value import printable
from ...rules.engine import Engine
from ...rules.rule import Rule
from .. import attach, heap, privilege
from ..cache import Cache, Remembered
from ..cgroup import CgroupPaths
from ..config import Config
from ..delivery.settings import Settings
from ..judge import Judge, rules_of
from ..pipeline import Outcome, Stream, collect_seldom
from ..process import ProcFs
from ..program import boottime_ns
from ..say import say
from ..selection import Selection, command_set
from ..source import Live
from ..volume import Folding
from ..watch import Watch
from . import drop
from .courier import Courier
from .dispatch import Dispatch
from .doubts import doubts
from .notify import Notify
from .reload import Fresh, Reload
from .routes import bits_for
from .state import State
from .vitals import Vitals

_SECOND_NS: Final = 1_000_000_000
_STATUS_NS: Final = 5 * _SECOND_NS
_LINGER_S: Final = 0.005  # 300,000 calls a second would fill half of the rings meanwhile
_IN_TIME: Final = 3  # signs of life within the time that systemd waits for one
_HOW: Final = {
    "": "", "stopped": "", "killed": "; the one before it was killed",
    "rebooted": "; the host went down with the one before it",
}  # fmt: skip


def serve(options: Config, reread: Callable[[], Config]) -> Outcome:
    """Traces until SIGTERM or SIGINT.

    What can be wrong is found out first: nothing is begun that cannot go on.

    :param reread: gives the configuration as it is when SIGHUP comes.
    :raises CannotStart, UsageError: see there.
    """
    heap.give_back()
    notify = Notify()  # first: no child is to have what it takes out of the environment
    kept = Remembered(Cache(options.cache))
    rules = rules_of(options, kept)
    engine = Engine(rules)
    commands = command_set(options.events, attach.commands_of_this_kernel)
    privilege.require()
    who = drop.account(options.user) if options.user and os.geteuid() == 0 else None
    early: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, frame: early.append(number))
    with ExitStack() as stack:
        stack.callback(notify.close)
        state = State(options.state, who)
        stack.callback(state.close)
        said: list[str] = []
        settings = _settings(options, {}, state)
        courier = Courier(settings, who, said.append)
        stack.callback(courier.end)
        attached = attach.attached(options, commands, stack, some=False, follow=False)
        watch = stack.enter_context(Watch(attached.fds))
        attach.start(attached.program, attach.kernel_filter(options, commands))
        map_types = options.map_types and privilege.may_open_by_id()
        drop.drop(who, drop.needed(map_types=map_types))
        source = Live(
            attached.program, attached.loaded, watch,
            ProcFs(cgroups=stack.enter_context(CgroupPaths())),
            witness=attached.witness, map_types=map_types, linger_s=_LINGER_S,
        )  # fmt: skip
        judge = Judge(engine, source.origin, options.alert_interval)
        dispatch = Dispatch(courier, source.origin, options, settings.bits)
        stream = Stream(
            source,
            Selection(commands, results=options.results, min_duration_ns=options.min_duration),
            [dispatch],
            judge,
            folding=Folding.of(options, attach.commands_of_this_kernel),
            # Microseconds since the host was started: a number that none of this boot was yet,
            # whatever became of the daemon before this one.
            clock=lambda: boottime_ns() // 1000,
        )
        vitals = Vitals(attached.program, judge, dispatch, courier)
        daemon = Daemon(
            options, rules, stream, judge, dispatch, courier, settings.bits, state, watch, notify,
            vitals, said,
        )  # fmt: skip
        reload = Reload(watch, reread, lambda fresh: rules_of(fresh, kept), daemon.reread)
        stack.callback(reload.close)
        daemon.voice_doubts()
        collect_seldom()
        if early:  # what was read may have changed since
            os.kill(os.getpid(), signal.SIGHUP)
        return daemon.run(source, reload, attach.seen_by(attached.loaded))


def _settings(options: Config, before: Mapping[str, int], state: State) -> Settings:
    sinks = tuple(sink.settings for sink in options.sinks)
    bits = bits_for([sink.name for sink in sinks], before)
    return Settings(sinks, bits, state.spool, options.metrics)


def _other_sinks(before: Config, after: Config) -> Iterator[str]:
    old = {sink.settings.name: sink for sink in before.sinks}
    new = {sink.settings.name: sink for sink in after.sinks}
    for name in {**old, **new}:
        if name not in new:
            yield f"sink {name} goes"
        elif name not in old:
            yield f"sink {name} comes"
        elif old[name] != new[name]:
            yield f"sink {name} changes"


@dataclass
class Daemon:
    """The loop, and what happens in it besides the calls."""

    options: Config
    rules: Sequence[Rule]
    stream: Stream
    judge: Judge
    dispatch: Dispatch
    courier: Courier
    bits: Mapping[str, int]
    state: State
    watch: Watch
    notify: Notify
    vitals: Vitals
    said: list[str]
    """What the courier has to tell of its delivery process."""
    _reloading: bool = False
    _again: bool = False
    """SIGHUP came while it was reloading."""
    _beat_ns: int = field(default_factory=time.monotonic_ns)
    _status_ns: int = 0
    _alive_ns: int = 0
    _undelivered: int = 0
    _problems: Mapping[str, str] = field(default_factory=dict)
    """Of sinks, as they were told."""
    _reload: Reload | None = field(default=None)

    def run(self, source: Live, reload: Reload, seen_by: str) -> Outcome:
        """Until it is told to stop.

        :param seen_by: how the kernel runs us, in words.
        """
        self._reload = reload
        self.courier.watched_by(self.watch)
        self.watch.on_hangup(self._hung_up)
        self._wake_in_time()
        self._started(seen_by)
        for batch in source.batches():
            self.stream.take(batch)
            self._look_around()
            self.courier.flush()
        self.notify.stopping("stopping")
        end = source.end()
        self.stream.rest()
        self._tell(service.STOP, "bpfsnoop stops, as it was told to")
        self.stream.end(end.totals)
        told = self.dispatch.undelivered()
        self.courier.end()
        self._say_undelivered(told)
        with suppress(OSError):  # the disk is full: the next one takes us for killed
            self.state.mark(ended=True)
        return Outcome(end.totals, self.stream.names, end.problem, self.judge.forgotten)

    def _say_undelivered(self, told: Mapping[str, int]) -> None:
        # After the last document: there is nobody else to tell it to.
        for name, count in self.dispatch.undelivered().items():
            if more := count - told.get(name, 0):
                say(f"{more} lines of the end have not arrived at {name or 'any sink'}")

    def voice_doubts(self) -> None:
        """Says what is hardly meant so."""
        for sentence in doubts(self.options, self.judge.telling):
            say(sentence)

    # --- Signs of life -------------------------------------------------------------------

    def _started(self, seen_by: str) -> None:
        before = self.state.previous_end()
        try:
            self.state.mark(ended=False)
        except OSError as error:
            say(f"cannot write to {self.options.state}: {error.strerror}")
        sentence = f"bpfsnoop traces bpf(2) of all processes ({seen_by}){_HOW[before]}"
        self._tell(service.START, sentence, {"previous": before} if before else {})
        self.courier.flush()
        if not self.options.quiet:
            say(sentence)
        self.notify.ready(self.vitals.sentence())

    def _wake_in_time(self) -> None:
        wanted = [_STATUS_NS / _SECOND_NS]
        if self.notify.watchdog_s:
            wanted.append(self.notify.watchdog_s / _IN_TIME)
        if self.options.heartbeat:
            wanted.append(self.options.heartbeat / _SECOND_NS)
        self.watch.pulse_s = min(wanted)

    def _look_around(self) -> None:
        now_ns = time.monotonic_ns()
        for sentence in self.said:
            say(sentence)
            self._tell(service.DELIVERY, sentence, outcome="failure")
        self.said.clear()
        if now_ns - self._status_ns >= _STATUS_NS:
            self._status_ns = now_ns
            self._losses()
            self._say_problems()
            if self.options.metrics:
                self.courier.status(self.vitals.status())
        watchdog_s = self.notify.watchdog_s
        if watchdog_s and now_ns - self._alive_ns >= watchdog_s / _IN_TIME / 2 * _SECOND_NS:
            self._alive_ns = now_ns
            self.notify.alive(self.vitals.sentence())
        if self.options.heartbeat and now_ns - self._beat_ns >= self.options.heartbeat:
            self._beat_ns = now_ns
            interval_s = self.options.heartbeat / _SECOND_NS
            self._tell(service.HEARTBEAT, self.vitals.sentence(), {"interval": interval_s})

    def _say_problems(self) -> None:
        # Who looks for the reason looks into the log: documents of it may be what does not arrive.
        problems = {name: each["problem"] for name, each in self.courier.progress.items()}
        for name, problem in problems.items():
            if bool(problem) != bool(self._problems.get(name)):
                say(f"sink {name}: {problem or 'all is well again'}")
        self._problems = problems

    def _losses(self) -> None:
        undelivered = sum(self.dispatch.undelivered().values())
        if undelivered > self._undelivered:
            self._undelivered = undelivered
            self.stream.losses(self.vitals.totals(), final=False)

    def _tell(
        self, action: str, sentence: str, about: dict[str, object] | None = None, *,
        outcome: str = "success",
    ) -> None:  # fmt: skip
        words = printable(sentence.encode("utf-8", "replace"))  # it may name any file
        told = Told(action, words, {**self.vitals.about(), **(about or {})}, outcome)
        self.dispatch.tell(told, time.time_ns(), self.stream.number())

    # --- Reload --------------------------------------------------------------------------

    def _hung_up(self) -> None:
        if self._reloading:
            self._again = True
            return
        self._reloading = True
        self.notify.reloading()
        if self._reload:
            self._reload.start(self.options, self.rules)

    def reread(self, found: Fresh | BpfsnoopError) -> None:
        """Configuration and rules were read again; the delivery process is asked next."""
        if isinstance(found, BpfsnoopError):
            self._reloaded(str(found).splitlines())
            return
        if sinks := "; ".join(_other_sinks(self.options, found.options)):
            # To those that there were: one that goes, or hears less from now on, is told why.
            self._tell(service.RELOAD, f"about to reload: {sinks}", outcome="unknown")
        settings = _settings(found.options, self.bits, self.state)
        self.courier.offer(settings, lambda wrong: self._answered(found, settings.bits, wrong))

    def _answered(self, fresh: Fresh, bits: Mapping[str, int], wrong: Sequence[str]) -> None:
        changed: list[str] = []
        if not wrong:
            changed = self._changed(fresh)
            self.judge.replace(fresh.rules, fresh.options.alert_interval)
            self.dispatch.adopt(fresh.options, bits)
            self.stream.fold(fresh.folding)
            self.bits = bits
            self.options, self.rules = fresh.options, fresh.rules
            self._wake_in_time()
            self.voice_doubts()
        self._reloaded(wrong, changed)

    def _changed(self, fresh: Fresh) -> list[str]:
        """Keys that have other values. What rules say may change without any."""
        names = (each.name for each in fields(Config))
        old, new = self.options, fresh.options
        keys = [name for name in names if getattr(new, name) != getattr(old, name)]
        if fresh.rules != self.rules and "rules" not in keys:
            keys.append("rules")
        return keys

    def _reloaded(self, wrong: Sequence[str], changed: Sequence[str] = ()) -> None:
        for sentence in wrong:
            say(sentence)
        sentence = (
            f"not reloaded, and all goes on as before: {wrong[0]}" if wrong
            else f"reloaded: {len(self.judge.telling)} rules, {len(self.options.sinks)} sinks"
        )  # fmt: skip
        if changed:
            sentence += f"; changed: {', '.join(changed)}"
        say(sentence)
        self._tell(service.RELOAD, sentence, outcome="failure" if wrong else "success")
        self.notify.ready(self.vitals.sentence())
        self._reloading = False
        if self._again:
            self._again = False
            self._hung_up()
