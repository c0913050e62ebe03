# SPDX-License-Identifier: Apache-2.0
"""Filters: who is traced, and which calls; told apart in the kernel where it can be done there."""

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

import stimulus
from bpfsnoop.events.value import printable
from running import (
    COMM,
    NOBODY,
    STIMULUS,
    Document,
    Finished,
    Stimulus,
    Trace,
    Tracer,
    bpfsnoop_run,
    calls_of,
    identity,
    stimulate,
)
from stimulus import MadeCall

pytestmark = pytest.mark.live

HOSTILE = b'\x1b[31m\n"\xff\\x'
LONG = b"sixteen bytes and more"


# --- One busy host, traced by many -------------------------------------------------------

DATA = {
    *("MAP_LOOKUP_ELEM", "MAP_UPDATE_ELEM", "MAP_DELETE_ELEM", "MAP_GET_NEXT_KEY"),
    *("MAP_LOOKUP_AND_DELETE_ELEM", "MAP_LOOKUP_BATCH", "MAP_LOOKUP_AND_DELETE_BATCH"),
    *("MAP_UPDATE_BATCH", "MAP_DELETE_BATCH"),
    *("PROG_GET_NEXT_ID", "MAP_GET_NEXT_ID", "BTF_GET_NEXT_ID", "LINK_GET_NEXT_ID"),
    "OBJ_GET_INFO_BY_FD",
}
"""What @data means, as the design has it: the data of maps, walks over ids and info."""


def _is(*names: str) -> Callable[[Document], bool]:
    return lambda document: document["bpf"]["cmd"] in {f"BPF_{name}" for name in names}


def _number_is(number: int) -> Callable[[Document], bool]:
    return lambda document: document["bpf"]["cmd"] == hex(number)


def _failed(document: Document) -> bool:
    return bool(document["bpf"]["retval"] < 0)


def _is_data(document: Document) -> bool:
    return document["bpf"]["cmd"].removeprefix("BPF_") in DATA


class Filter(NamedTuple):
    options: tuple[str, ...]
    lets_through: Callable[[Document], bool]
    in_kernel: bool = True
    """It is decided before a record is made, so that what is left out costs no room."""


def _named(name: bytes) -> Callable[[Document], bool]:
    return lambda document: document["process"]["name"] == printable(name[:15])


FILTERS: Mapping[str, Filter] = {
    "everything": Filter((), lambda document: True),
    "user": Filter(("-u", str(NOBODY)), lambda d: d["user"]["id"] == str(NOBODY)),
    "users": Filter(("-u", "nobody,0"), lambda d: d["user"]["id"] in ("0", str(NOBODY))),
    "hostile comm": Filter(("--comm", os.fsdecode(HOSTILE)), _named(HOSTILE)),
    "long comm": Filter(("--comm", os.fsdecode(LONG)), _named(LONG)),
    "names": Filter(("-e", "prog_load,BPF_MAP_FREEZE", "-e", "trace=link_detach"),
                    _is("PROG_LOAD", "MAP_FREEZE", "LINK_DETACH")),
    "not": Filter(("-e", "!map_create,prog_load"), lambda d: not _is("MAP_CREATE", "PROG_LOAD")(d)),
    "data": Filter(("-e", "@data"), _is_data),
    "control": Filter(("-e", "@control"), lambda d: not _is_data(d)),
    "part": Filter(("-e", "@data,!map_lookup_elem"),
                   lambda d: _is_data(d) and not _is("MAP_LOOKUP_ELEM")(d)),
    "unknown": Filter(("-e", "63"), _number_is(63), in_kernel=False),
    "large": Filter(("-e", "4000"), _number_is(4000), in_kernel=False),
    "failed": Filter(("-Z",), _failed, in_kernel=False),
    "successful": Filter(("-z",), lambda d: not _failed(d), in_kernel=False),
    "both": Filter(("-e", "prog_load", "-u", str(NOBODY), "-Z"),
                   lambda d: _is("PROG_LOAD")(d) and d["user"]["id"] == str(NOBODY)),
}  # fmt: skip


class Host(NamedTuple):
    """What every tracer of the host saw of the same calls."""

    made: list[MadeCall]
    traces: Mapping[str, Trace]
    tracers: Mapping[str, int]
    """Their pids."""
    finished: Mapping[str, Finished]
    maps: str
    """/proc/PID/smaps of the tracer without a filter, while it ran."""
    recording: Path

    def of_ours(self, name: str) -> list[Document]:
        """What a tracer saw of the stimuli; the host may do other things too."""
        return self.traces[name].of_processes({made.tgid for made in self.made})


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    directory = tmp_path_factory.mktemp("host")
    recording = directory / "recording"
    with ExitStack() as stack:
        tracers: dict[str, Tracer] = {}
        for name, wanted in FILTERS.items():
            record = ("--record", recording) if name == "everything" else ()
            options = "--json", "-o", directory / name, *record, *wanted.options
            tracers[name] = stack.enter_context(Tracer(*options))
            if name == "everything":
                tracers[name].ready()  # so that it sees the others start
        for tracer in tracers.values():
            tracer.ready() if tracer is not tracers["everything"] else None
        made = [
            *stimulate("count", "23"),
            *stimulate("every"),
            *stimulate("comm", HOSTILE),
            *stimulate("comm", LONG),
            *stimulate("count", "2", user=NOBODY),
            *stimulate("threads", "4"),
        ]
        plain = tracers["everything"]
        maps = Path(f"/proc/{plain.pid}/smaps").read_text()
        finished = {name: tracer.stop() for name, tracer in tracers.items()}
    return Host(
        made,
        {name: Trace.of((directory / name).read_bytes()) for name in FILTERS},
        {name: tracer.pid for name, tracer in tracers.items()},
        finished,
        maps,
        recording,
    )


def test_a_host_shows_every_process(host: Host) -> None:
    """Each call once, with its process and thread."""
    assert sorted(map(identity, host.of_ours("everything"))) == sorted(map(identity, host.made))


def test_threads_are_told_apart(host: Host) -> None:
    made = host.made[-4:]
    shown = host.traces["everything"].of_processes({made[0].tgid})
    tids = {document["process"]["thread"]["id"] for document in shown}
    assert tids == {call.tid for call in made}
    assert len(tids) == 4
    assert made[0].tgid not in tids
    names = {d["process"]["thread"]["id"]: d["bpf"]["attr"]["map_name"] for d in shown}
    assert names == {call.tid: f"t{number}" for number, call in enumerate(made)}


def test_no_tracer_sees_itself(host: Host) -> None:
    """Though the first one does see the others make their calls."""
    seen = {document["process"]["pid"] for document in host.traces["everything"].events}
    others = {pid for name, pid in host.tracers.items() if name != "everything"}
    assert seen >= others
    for name, pid in host.tracers.items():
        assert not host.traces[name].of_processes({pid})


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_lets_through_what_it_says(host: Host, name: str) -> None:
    def all_about(document: Document) -> object:
        # What is found in /proc depends on when each of them looks.
        kept = {key: value for key, value in document["bpf"].items() if key != "process"}
        return {**kept, "identity": identity(document), "user": document["user"]}

    wanted = FILTERS[name].lets_through
    expected = [all_about(d) for d in host.of_ours("everything") if wanted(d)]
    shown = [all_about(d) for d in host.of_ours(name)]
    assert sorted(shown, key=repr) == sorted(expected, key=repr)
    assert all(wanted(document) for document in host.traces[name].events)
    assert (len(shown) > 0) == (name != "both"), "the test shows nothing"


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_works_on_a_recording_too(host: Host, name: str) -> None:
    finished = bpfsnoop_run("replay", host.recording, "--json", *FILTERS[name].options)
    assert finished.status == 0
    expected = [d for d in host.traces["everything"].events if FILTERS[name].lets_through(d)]
    replayed = Trace.of(finished.out).events
    for document in (*expected, *replayed):
        document["event"].pop("sequence", None)
    assert replayed == expected


@pytest.mark.parametrize("name", ["user", "hostile comm", "long comm", "both"])
def test_a_filter_by_process_works_in_the_kernel(host: Host, name: str) -> None:
    """Of what it leaves out nothing was even counted."""
    trace = host.traces[name]
    assert (trace.seen, trace.lost) == (len(trace.events), 0)


@pytest.mark.parametrize("name", ["names", "not", "data", "control", "part", "unknown"])
def test_a_filter_by_command_works_in_the_kernel(host: Host, name: str) -> None:
    """So it does for all that our tables know; the rest share one bit."""
    trace = host.traces[name]
    counted = {row["cmd"]: row["seen"] for row in trace.loss["bpf"]["loss"]["commands"]}
    shown = Counter(document["bpf"]["cmd"] for document in trace.events)
    unknown = sum(shown.pop(hex(number), 0) for number in (63, 4000))
    assert counted.pop("other", 0) == (2 if unknown else 0)
    # Others on this host may have been in the middle of a call at the end.
    assert set(counted) >= set(shown)
    assert all(0 <= counted[cmd] - shown[cmd] <= 2 for cmd in counted)


def test_hostile_names_are_harmless(host: Host) -> None:
    """In documents and in lines, and on a terminal too."""
    (document,) = host.of_ours("hostile comm")
    pid = document["process"]["pid"]
    assert document["process"]["name"] == r'\33[31m\n"\377\\x'
    options = "--comm", os.fsdecode(HOSTILE), "-p", f"{pid},1"
    finished = bpfsnoop_run("replay", "-q", host.recording, *options)
    (line,) = finished.lines
    assert line.startswith(rf'\33[31m\n"\377\\x[{pid}] bpf(BPF_MAP_CREATE, ')
    assert line.isprintable()


def test_a_name_that_is_too_long_is_cut_as_the_kernel_cuts_it(host: Host) -> None:
    (document,) = host.of_ours("long comm")
    assert document["process"]["name"] == LONG[:15].decode()


def test_all_of_them_ended_well(host: Host) -> None:
    whom = {
        "user": f" of user {NOBODY}",
        "users": f" of user {NOBODY} or 0",
        "hostile comm": rf" named {printable(HOSTILE)}",
        "long comm": f" named {LONG.decode()}",
    }
    for name, finished in host.finished.items():
        assert finished.status == 0
        said = re.fullmatch(
            r"bpfsnoop: tracing bpf\(2\) of all processes(.*) \([^()]+\); Ctrl-C ends it",
            finished.complaint,
        )
        assert said
        assert name not in whom or said[1] == whom[name]


def test_a_running_tracer_is_small(host: Host) -> None:
    """The compiler was another process's: neither its code nor its memory is here."""
    assert "libpython" in host.maps or "python" in host.maps
    assert "LLVM" not in host.maps
    assert "libbcc" not in host.maps
    assert "clang" not in host.maps
    rings = re.findall(r"anon_inode:bpf-map\n(?:.*\n)*?Rss: +(\d+) kB", host.maps)
    everything = re.findall(r"^Rss: +(\d+) kB", host.maps, re.MULTILINE)
    assert rings  # which --ring-size says, and traffic fills
    assert sum(map(int, everything)) - sum(map(int, rings)) < 30 * 1024


# --- Single processes --------------------------------------------------------------------


class Processes(NamedTuple):
    """Two processes and a family, traced in all ways at the same time."""

    made: Mapping[str, list[MadeCall]]
    traces: Mapping[str, Trace]
    finished: Mapping[str, Finished]


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Processes:
    directory = tmp_path_factory.mktemp("processes")
    with ExitStack() as stack:
        one = stack.enter_context(Stimulus("sleepy"))
        other = stack.enter_context(Stimulus("sleepy"))
        family = stack.enter_context(Stimulus("--wait", "fork", "3"))
        threads = stack.enter_context(Stimulus("--wait", "threads", "3"))
        tracers = {
            name: stack.enter_context(Tracer("--json", "-o", directory / name, *options))
            for name, options in {
                "one": ("-p", f"{one.pid}"),
                "list": ("-p", f"{one.pid},{other.pid}"),
                "twice": ("-p", f"{one.pid}", "-p", f"{threads.pid}"),
                "first": ("-p", f"{family.pid}"),
                "family": ("-p", f"{family.pid}", "-f"),
                "two": ("-f", "-p", f"{family.pid},{other.pid}"),
            }.items()
        }
        for tracer in tracers.values():
            tracer.ready()
        made = {
            "one": one.poke(2),
            "other": other.poke(3),
            "family": calls_of(family.go().end()),
            "threads": calls_of(threads.go().end()),
        }
        made["one"] += one.poke(1)
        one.end()
        finished = {name: tracers[name].wait() for name in ("one", "twice", "first", "family")}
        # These two go on until the last of theirs has ended.
        made["other"] += other.poke(1)
        other.end()
        finished |= {name: tracers[name].wait() for name in ("list", "two")}
    traces = {name: Trace.of((directory / name).read_bytes()) for name in tracers}
    return Processes(made, traces, finished)


@pytest.mark.parametrize(
    ("name", "traced"),
    {
        "one": ["one"],
        "list": ["one", "other"],
        "twice": ["one", "threads"],
        "family": ["family"],
        "two": ["family", "other"],
    }.items(),
)
def test_only_these_processes_are_traced(
    processes: Processes, name: str, traced: list[str]
) -> None:
    """All calls of theirs, up to the last one, and not one of another."""
    trace = processes.traces[name]
    made = [made for who in traced for made in processes.made[who]]
    assert sorted(map(identity, trace.events)) == sorted(map(identity, made))
    assert (trace.seen, trace.lost) == (len(made), 0)


def test_a_family_is_all_its_generations(processes: Processes) -> None:
    assert processes.traces["family"].map_names() == ["g3", "g2", "g1", "g0"]
    assert len({made.tgid for made in processes.made["family"]}) == 4


def test_without_f_children_are_not_traced(processes: Processes) -> None:
    assert processes.traces["first"].map_names() == ["g3"]


def test_the_tracer_ends_when_the_last_of_its_processes_does(processes: Processes) -> None:
    for finished in processes.finished.values():
        assert finished.status == 0
    pids = {who: made[0].tgid for who, made in processes.made.items()}
    told = {name: re.sub(r" \([^()]+\);", ";", finished.complaint)
            for name, finished in processes.finished.items()}  # fmt: skip
    assert told == {
        name: f"bpfsnoop: tracing bpf(2) of {whom}; Ctrl-C ends it"
        for name, whom in {
            "one": f"process {pids['one']}",
            "list": f"processes {pids['one']}, {pids['other']}",
            "twice": f"processes {pids['one']}, {pids['threads']}",
            "first": f"process {pids['family']}",
            "family": f"process {pids['family']} and children",
            "two": f"processes {pids['family']}, {pids['other']} and children",
        }.items()
    }


# --- Cgroups and pid namespaces ----------------------------------------------------------


class Places(NamedTuple):
    """Processes in a cgroup, below it and outside; one of them in a pid namespace too."""

    made: Mapping[str, list[MadeCall]]
    traces: Mapping[str, Trace]


IN_PLACES: Mapping[str, list[str]] = {
    "cgroup": ["in", "below", "apart"],
    "relative": ["in", "below", "apart"],
    "below": ["below"],
    "both": ["in", "below", "apart", "outside"],
    "cgroup and pid": ["in"],
    "cgroup and other pid": [],
    "cgroup and user": ["in", "below", "apart"],
    "cgroup and other user": [],
    "cgroup and name": ["in", "below", "apart"],
    "cgroup and other name": [],
    "pidns": ["apart"],
    "pidns file": ["apart"],
    "our pidns": ["in", "below", "outside"],
    "our pidns and cgroup": ["in", "below"],
    "pidns and other cgroup": [],
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    directory = tmp_path_factory.mktemp("places")
    with ExitStack() as stack:
        cgroup = stack.enter_context(stimulus.temporary_cgroup())
        below = stack.enter_context(stimulus.temporary_cgroup(cgroup))
        elsewhere = stack.enter_context(stimulus.temporary_cgroup())
        sleepy = {
            name: stack.enter_context(Stimulus("sleepy", under=under))
            for name, under in {
                "in": (), "below": (), "outside": (),
                "apart": ("unshare", "-p", "-f", "--kill-child"),
            }.items()
        }  # fmt: skip
        pids = {name: each.pid for name, each in sleepy.items()}
        children = f"/proc/{pids['apart']}/task/{pids['apart']}/children"
        pids["apart"] = int(Path(children).read_text())
        homes = {"in": cgroup, "below": below, "outside": elsewhere, "apart": cgroup}
        for name, home in homes.items():
            (home / "cgroup.procs").write_text(str(pids[name]))
        relative = str(cgroup.relative_to(stimulus.cgroup_root()))
        inside, our = ("--cgroup", str(cgroup)), ("--pidns", str(os.getpid()))
        options = {
            "cgroup": inside,
            "relative": ("--cgroup", relative),
            "below": ("--cgroup", f"/{relative}/{below.name}"),
            "both": (*inside, "--cgroup", str(elsewhere)),
            "cgroup and pid": (*inside, "-p", f"{pids['in']},{pids['outside']}"),
            "cgroup and other pid": (*inside, "-p", f"{pids['outside']}"),
            "cgroup and user": (*inside, "-u", "root"),
            "cgroup and other user": (*inside, "-u", str(NOBODY)),
            "cgroup and name": (*inside, "--comm", COMM),
            "cgroup and other name": (*inside, "--comm", "nobody is called so"),
            "pidns": ("--pidns", str(pids["apart"])),
            "pidns file": ("--pidns", f"/proc/{pids['apart']}/ns/pid"),
            "our pidns": our,
            "our pidns and cgroup": (*our, *inside),
            "pidns and other cgroup": ("--pidns", str(pids["apart"]), "--cgroup", str(below)),
        }
        assert set(options) == set(IN_PLACES)
        tracers = {
            name: stack.enter_context(Tracer("--json", "-o", directory / name, *wanted))
            for name, wanted in options.items()
        }
        for tracer in tracers.values():
            tracer.ready()
        made = {name: each.poke(2) for name, each in sleepy.items()}
        # It knows itself by another number.
        made["apart"] = [
            call._replace(tgid=pids["apart"], tid=pids["apart"]) for call in made["apart"]
        ]
        for tracer in tracers.values():
            assert tracer.stop().status == 0
    return Places(made, {name: Trace.of((directory / name).read_bytes()) for name in tracers})


@pytest.mark.parametrize("name", IN_PLACES)
def test_only_those_in_this_place_are_traced(places: Places, name: str) -> None:
    pids = {made[0].tgid for made in places.made.values()}
    expected = [identity(made) for who in IN_PLACES[name] for made in places.made[who]]
    trace = places.traces[name]
    assert sorted(map(identity, trace.of_processes(pids))) == sorted(expected)
    if "our pidns" not in name:  # which others of this host are in as well
        assert (trace.seen, trace.lost) == (len(expected), 0)


@pytest.mark.parametrize(
    ("options", "complaint"),
    {
        ("--cgroup", "/no/such"): r"--cgroup: '/no/such' is not a cgroup: there is no such"
        r" directory under '.+', where cgroup2 is mounted",
        ("--cgroup", "/etc"): r"--cgroup: '/etc' is not a cgroup: .+",
        ("--pidns", "4194304"): r"--pidns: cannot look at /proc/4194304/ns/pid: No such file"
        r" or directory",
        ("--pidns", "/proc/self/ns/mnt"): r"--pidns: /proc/self/ns/mnt is not a pid namespace: give"
        r" a PID or /proc/PID/ns/pid",
        ("--pidns", "/etc/passwd"): r"--pidns: /etc/passwd is not a pid namespace: .+",
        ("--pidns", "/etc"): r"--pidns: /etc is not a pid namespace: .+",
    }.items(),
)
def test_a_wrong_place_is_said_so(options: tuple[str, ...], complaint: str) -> None:
    finished = bpfsnoop_run(*options, "-d", "100ms")
    assert re.fullmatch(f"bpfsnoop: {complaint}", finished.complaint)
    assert finished.status == 1


# --- More threads than the kernel program keeps ------------------------------------------


def test_many_threads_at_a_time(tmp_path: Path) -> None:
    """700 of them live while each makes calls, several times in turn."""
    out = tmp_path / "out"
    finished = bpfsnoop_run("--json", "-o", out, "--", *STIMULUS, "crowd", "700")
    assert finished.status == 0
    made = calls_of(finished.out)
    assert len(made) == 2100
    trace = Trace.of(out.read_bytes(), validate_each=50)
    loss = trace.loss["bpf"]["loss"]
    assert trace.seen == 2100
    assert loss["unfinished"] == 0
    assert trace.seen == len(trace.events) + trace.lost
    assert {*map(identity, trace.events)} <= {*map(identity, made)}
    if not trace.lost:
        assert sorted(map(identity, trace.events)) == sorted(map(identity, made))
    assert len({d["process"]["entity_id"] for d in trace.events}) == 1


def test_threads_leave_room_for_others(tmp_path: Path) -> None:
    """Those that ended do not stay in the table."""
    out = tmp_path / "out"
    script = f"for i in 1 2 3 4; do {' '.join(STIMULUS)} threads 300; done"
    finished = bpfsnoop_run("--json", "--strict", "-o", out, "--", "sh", "-c", script)
    assert (finished.status, finished.err) == (0, "")
    trace = Trace.of(out.read_bytes(), validate_each=50)
    assert sorted(map(identity, trace.events)) == sorted(map(identity, calls_of(finished.out)))
    assert (trace.seen, trace.lost) == (1200, 0)
