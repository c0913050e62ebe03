# SPDX-License-Identifier: Apache-2.0
"""The kernel's own records of programs: made by hand, in rings of our own, and live.

On a host others load programs too, so the live tests look at what is theirs.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stimulus
from bpfsnoop.events.errors import CannotStart, WireError
from bpfsnoop.tracer import libc, witness
from bpfsnoop.tracer.libc import perf_event_open
from bpfsnoop.tracer.witness import (
    DATA_HEAD,
    DATA_TAIL,
    Life,
    Lost,
    PerfRing,
    What,
    Witness,
    online_cpus,
    parse,
)
from onlooker import onlooker
from running import NOBODY, PATIENCE_S

PAGE = mmap.PAGESIZE
SIZE = PAGE
POSITION = struct.Struct("=Q")
LOST, BPF_EVENT = 2, 18
TAG = bytes(range(8))
KIND = stimulus.BPF_PROG_TYPE_SOCKET_FILTER
SO_ATTACH_FILTER = 26
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
PERF_EVENT_IOC_DISABLE = 0x2401
BPF_PROG_TYPE_SYSCALL, BPF_F_SLEEPABLE, BPF_FUNC_SYS_BPF = 31, 1 << 4, 166
BPF_PSEUDO_MAP_VALUE = 2


def sample_id(tgid: int = 10, tid: int = 11, time_ns: int = 12, cpu: int = 1) -> bytes:
    return struct.pack("=iiQII", tgid, tid, time_ns, cpu, 0)


def record_of(kind: int, payload: bytes) -> bytes:
    return struct.pack("=IHH", kind, 0, 8 + len(payload)) + payload


def bpf_event(what: int, prog_id: int = 7, **identity: int) -> bytes:
    payload = struct.pack("=HHI8s", what, 0, prog_id, TAG)
    return record_of(BPF_EVENT, payload + sample_id(**identity))


def lost_record(records: int) -> bytes:
    return record_of(LOST, struct.pack("=QQ", 99, records) + sample_id())


# --- Records -----------------------------------------------------------------------------


@pytest.mark.parametrize("what", What)
def test_a_program_that_comes_or_goes(what: What) -> None:
    record = bpf_event(what.value, 7, tgid=10, tid=11, time_ns=1 << 63, cpu=3)
    assert parse(record) == Life(what, 7, TAG, 1 << 63, 10, 11)


@pytest.mark.parametrize("number", [0, -1])
def test_a_thread_that_has_no_number(number: int) -> None:
    life = parse(bpf_event(2, tgid=number, tid=number))
    assert isinstance(life, Life)
    assert (life.tgid, life.tid) == (number, number)


def test_what_was_lost() -> None:
    assert parse(lost_record(318)) == Lost(318)
    assert parse(record_of(LOST, struct.pack("=QQ", 99, 5))) == Lost(5)  # no sample_id


def test_what_the_kernel_claims_but_did_not_write_is_passed_over() -> None:
    """Linux 6.18, of the third who watches: old bytes of the ring stand behind sample_id."""
    written = bpf_event(1, 7)[8:]
    record = record_of(BPF_EVENT, written + b"\xa5" * 48)
    assert parse(record) == parse(bpf_event(1, 7))


@pytest.mark.parametrize("record", [bpf_event(0), bpf_event(3), record_of(17, bytes(40))])
def test_other_records_mean_nothing_here(record: bytes) -> None:
    assert parse(record) is None


@pytest.mark.parametrize(
    "record",
    [
        b"",
        bpf_event(1)[:7],
        bpf_event(1)[:-1],
        bpf_event(1) + b"\0",
        record_of(BPF_EVENT, bytes(32)),
        record_of(LOST, bytes(8)),
        struct.pack("=IHH", BPF_EVENT, 0, 0),
    ],
)
def test_what_is_no_record_is_refused(record: bytes) -> None:
    with pytest.raises(WireError, match="a perf record of"):
        parse(record)


KINDS = st.one_of(st.sampled_from([LOST, BPF_EVENT]), st.integers(0, (1 << 32) - 1))


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=80), st.builds(record_of, KINDS, st.binary(max_size=80))))
def test_any_bytes_are_a_record_or_refused(data: bytes) -> None:
    try:
        found = parse(data)
    except WireError:
        return
    assert found is None or isinstance(found, Life | Lost)


# --- Rings -------------------------------------------------------------------------------


class Producer:
    """The kernel's end, as perf_output_begin() writes.

    :param position: where it begins, as if so many bytes had come and gone.
    """

    def __init__(self, position: int = 0) -> None:
        self.fd = os.memfd_create("perf")
        os.ftruncate(self.fd, PAGE + SIZE)
        self.pages = mmap.mmap(self.fd, PAGE + SIZE)
        self.lost = 0
        self.head = position
        POSITION.pack_into(self.pages, DATA_TAIL, position)

    def close(self) -> None:
        self.pages.close()
        os.close(self.fd)

    @property
    def head(self) -> int:
        number: int = POSITION.unpack_from(self.pages, DATA_HEAD)[0]
        return number

    @head.setter
    def head(self, position: int) -> None:
        POSITION.pack_into(self.pages, DATA_HEAD, position)

    @property
    def tail(self) -> int:
        number: int = POSITION.unpack_from(self.pages, DATA_TAIL)[0]
        return number

    def put(self, record: bytes) -> bool:
        """Whether there was room, also for what has to be told of those that had none."""
        data = (lost_record(self.lost) if self.lost else b"") + record
        if self.head + len(data) - self.tail > SIZE - 1:
            self.lost += 1
            return False
        self.lost = 0
        self.write(data)
        return True

    def write(self, data: bytes) -> None:
        for offset, byte in enumerate(data, self.head):
            self.pages[PAGE + offset % SIZE] = byte
        self.head += len(data)


@pytest.fixture
def producer() -> Iterator[Producer]:
    made = Producer()
    yield made
    made.close()


@pytest.fixture
def ring(producer: Producer) -> Iterator[PerfRing]:
    made = PerfRing(producer.fd, SIZE)
    yield made
    made.close()


def test_the_kernel_never_sees_the_tail_fall_back(producer: Producer, ring: PerfRing) -> None:
    """It would take the ring for full, and lose a record."""
    many = 100_000
    record = lost_record(1)
    with onlooker(producer.fd, DATA_TAIL, until=len(record) * many) as seen:
        for _ in range(many):
            producer.put(record)
            ring.drain()
    assert seen.fallen == 0


def test_nothing_is_there_at_first(ring: PerfRing) -> None:
    assert ring.drain() == []


def test_records_come_in_order_and_once(producer: Producer, ring: PerfRing) -> None:
    records = [bpf_event(1, 1), lost_record(3), record_of(17, bytes(64)), bpf_event(2, 1)]
    for record in records:
        producer.put(record)
    assert ring.drain() == records
    assert producer.tail == producer.head
    assert ring.drain() == []


@pytest.mark.parametrize("before_end", range(8, 56, 8))
def test_a_record_is_put_together_wherever_the_ring_ends(before_end: int) -> None:
    """Of 48 bytes: all of them before the end, some of them, only the header."""
    producer = Producer(5 * SIZE - before_end)
    ring = PerfRing(producer.fd, SIZE)
    producer.put(bpf_event(1, 21))
    producer.put(bpf_event(2, 22))
    assert ring.drain() == [bpf_event(1, 21), bpf_event(2, 22)]
    ring.close()
    producer.close()


def test_a_full_ring_is_read_to_its_end(producer: Producer, ring: PerfRing) -> None:
    records = [bpf_event(1, number) for number in range(200)]
    put = sum(producer.put(record) for record in records)
    assert put == (SIZE - 1) // 48
    assert ring.drain() == records[:put]
    assert producer.put(bpf_event(2, 1))
    assert ring.drain() == [lost_record(200 - put), bpf_event(2, 1)]


@pytest.mark.parametrize(
    "data",
    [
        bytes(48),  # size 0
        struct.pack("=IHH", BPF_EVENT, 0, 4) + bytes(40),
        struct.pack("=IHH", BPF_EVENT, 0, 44) + bytes(40),
        struct.pack("=IHH", BPF_EVENT, 0, 56) + bytes(40),
        struct.pack("=IHH", BPF_EVENT, 0, SIZE - 4) + bytes(SIZE - 8),  # half a header is left
        bytes(4),
    ],
)
def test_a_ring_without_records_is_given_up_once(
    producer: Producer, ring: PerfRing, data: bytes
) -> None:
    producer.write(data)
    with pytest.raises(WireError):
        ring.drain()
    assert producer.tail == producer.head
    assert ring.drain() == []


@pytest.mark.parametrize("head", [SIZE + 8, 1 << 50, (1 << 64) - 8])
def test_positions_that_cannot_be(producer: Producer, ring: PerfRing, head: int) -> None:
    producer.head = head
    with pytest.raises(WireError, match="a perf ring of"):
        ring.drain()


def test_a_position_that_went_back() -> None:
    producer = Producer(3 * SIZE)
    ring = PerfRing(producer.fd, SIZE)
    producer.head = 2 * SIZE
    with pytest.raises(WireError):
        ring.drain()
    ring.close()
    producer.close()


# Over and over until the ring is full; small sizes too, so that much of it is read.
PIECES = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=40),
        st.integers(0, 100).map(lambda size: struct.pack("=IHH", BPF_EVENT, 0, size)),
        st.integers(1, 6).map(lambda words: record_of(17, bytes(8 * words))),
    ),
    min_size=1,
    max_size=9,
)


@settings(deadline=None)
@given(PIECES, st.lists(st.integers(0, 2 * SIZE), max_size=5))
def test_any_ring_has_records_or_is_refused(pieces: list[bytes], heads: list[int]) -> None:
    producer = Producer()
    ring = PerfRing(producer.fd, SIZE)
    data = b"".join(pieces)
    producer.pages[PAGE:] = (data * (SIZE // len(data) + 1))[:SIZE]
    for head in heads:
        producer.head = head
        try:
            records = ring.drain()
        except WireError:
            continue
        assert all(struct.unpack_from("=6xH", record) == (len(record),) for record in records)
    ring.close()
    producer.close()


STEPS = st.lists(
    st.one_of(
        st.binary(max_size=60).map(lambda data: record_of(17, data.ljust(64, b"\0"))),
        st.integers(0, 1000).map(lambda number: bpf_event(1, number)),
        st.none(),  # a drain
    ),
    max_size=150,
)


@settings(deadline=None)
@given(st.integers(0, 1 << 40).map(lambda number: number * 8), STEPS)
def test_what_is_put_in_comes_out(position: int, steps: list[bytes | None]) -> None:
    """In order, wherever the ring ends, and what found no room is told of."""
    producer = Producer(position)
    ring = PerfRing(producer.fd, SIZE)
    put: list[bytes] = []
    taken: list[bytes] = []
    for step in steps:
        if step is None:
            taken += ring.drain()
        elif producer.put(step):
            put.append(step)
    taken += ring.drain()
    told = [found.records for found in map(parse, taken) if isinstance(found, Lost)]
    assert [record for record in taken if record[0] != LOST] == put
    refused = sum(step is not None for step in steps) - len(put)
    assert refused == sum(told) + producer.lost
    ring.close()
    producer.close()


# --- What is asked of the kernel ---------------------------------------------------------

ATTR_C = """
#include <linux/perf_event.h>
#include <stddef.h>
#include <stdio.h>
#include <time.h>
int main(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE, .size = PERF_ATTR_SIZE_VER7,
		.config = PERF_COUNT_SW_DUMMY,
		.sample_type = PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU,
		.read_format = PERF_FORMAT_LOST,
		.disabled = 1, .watermark = 1, .sample_id_all = 1, .use_clockid = 1, .bpf_event = 1,
		.wakeup_watermark = 1, .clockid = CLOCK_BOOTTIME,
	};
	for (size_t i = 0; i < PERF_ATTR_SIZE_VER7; i++)
		printf("%02x", ((unsigned char *)&attr)[i]);
	printf(" %zu %zu %d %d %d %d",
		offsetof(struct perf_event_mmap_page, data_head),
		offsetof(struct perf_event_mmap_page, data_tail),
		PERF_RECORD_LOST, PERF_RECORD_BPF_EVENT,
		PERF_BPF_EVENT_PROG_LOAD, PERF_BPF_EVENT_PROG_UNLOAD);
}
"""


def refusing(number: int, calls: list[bytes]) -> Callable[[bytes, int], int]:
    def refuse(attr: bytes, cpu: int) -> int:
        calls.append(attr)
        raise OSError(number, os.strerror(number))

    return refuse


def test_the_kernel_is_asked_what_the_header_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bytes] = []
    monkeypatch.setattr(libc, "perf_event_open", refusing(errno.EACCES, calls))
    with pytest.raises(CannotStart):
        Witness([0])
    program = str(tmp_path / "attr")
    built = subprocess.run(
        ["gcc", "-x", "c", "-o", program, "-"],
        input=ATTR_C, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "PERF_ATTR_SIZE_VER7" in built.stderr or "PERF_FORMAT_LOST" in built.stderr:
        pytest.skip("<linux/perf_event.h> is older than Linux 6.0")
    assert not built.returncode, built.stderr
    told = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    assert calls[0].hex() == told[0]
    assert [int(number) for number in told[1:]] == [
        DATA_HEAD, DATA_TAIL, LOST, BPF_EVENT, What.LOADED.value, What.UNLOADED.value,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EACCES, "CAP_PERFMON or CAP_SYS_ADMIN (kernel.perf_event_paranoid is "),
        (errno.EPERM, "no seccomp profile or security module"),
        (errno.ENOSYS, "CONFIG_PERF_EVENTS"),
        (errno.EINVAL, "which Linux 5.0 brought"),
        (errno.E2BIG, "which Linux 5.0 brought"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_where_it_is_refused_it_is_said_why(
    monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(libc, "perf_event_open", refusing(number, []))
    with pytest.raises(CannotStart) as error:
        Witness([0])
    assert str(error.value).startswith("programs that come and go cannot be watched: ")
    assert told in str(error.value)
    assert os.listdir("/proc/self/fd") == before


def test_a_kernel_that_cannot_be_asked_what_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.0 PERF_FORMAT_LOST is an invalid argument."""
    calls: list[bytes] = []
    monkeypatch.setattr(libc, "perf_event_open", refusing(errno.EINVAL, calls))
    with pytest.raises(CannotStart):
        Witness([0])
    formats = [witness.PERF_EVENT_ATTR.unpack(attr)[5] for attr in calls]
    assert formats == [1 << 4, 0]


def test_a_cpu_that_is_offline_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libc, "perf_event_open", refusing(errno.ENODEV, []))
    nobody = Witness([0, 1])
    assert nobody.drain() == []
    assert nobody.lost == 0
    nobody.close()


@pytest.mark.parametrize(
    ("content", "cpus"),
    [("0\n", [0]), ("0-3\n", [0, 1, 2, 3]), ("0,2-3,64\n", [0, 2, 3, 64]), ("\n", [])],
)
def test_which_cpus_are_online(tmp_path: Path, content: str, cpus: list[int]) -> None:
    path = tmp_path / "online"
    path.write_text(content)
    assert online_cpus(str(path)) == cpus


def test_without_sysfs_it_is_said_how(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="mount sysfs"):
        online_cpus(str(tmp_path / "online"))


# --- Live --------------------------------------------------------------------------------


@pytest.fixture
def watching() -> Iterator[Witness]:
    made = Witness(online_cpus())
    yield made
    made.close()


@pytest.fixture
def one_cpu() -> Iterator[int]:
    """This thread stays on one CPU."""
    before = os.sched_getaffinity(0)
    cpu = min(before)
    os.sched_setaffinity(0, {cpu})
    yield cpu
    os.sched_setaffinity(0, before)


def boottime() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def load() -> int:
    return stimulus.prog_load(KIND, stimulus.RETURN_0)


def load_and_close() -> int:
    """:returns: the id of a program that is gone."""
    fd = load()
    prog_id = stimulus.fdinfo(fd, "prog_id")
    os.close(fd)
    return prog_id


def until(watching: Witness, prog_id: int) -> list[Life]:
    """All that comes, up to the end of this program."""
    poll = select.poll()
    poll.register(watching, select.POLLIN)
    lives: list[Life] = []
    deadline = time.monotonic() + PATIENCE_S
    while (What.UNLOADED, prog_id) not in {(life.what, life.prog_id) for life in lives}:
        assert time.monotonic() < deadline
        lives += watching.drain()
        poll.poll(20)
    return lives


def of(lives: list[Life], prog_id: int) -> list[Life]:
    return [life for life in lives if life.prog_id == prog_id]


@pytest.mark.live
def test_a_program_is_seen_to_come_and_go(watching: Witness) -> None:
    times = [boottime()]
    fd = load()
    times.append(boottime())
    info = stimulus.obj_get_info_by_fd(fd)  # struct bpf_prog_info: type, id, tag
    _, prog_id, tag = struct.unpack_from("=II8s", info)
    times.append(boottime())
    os.close(fd)
    times.append(boottime())
    me = (os.getpid(), threading.get_native_id())
    loaded, unloaded = of(watching.drain(), prog_id)
    assert loaded == Life(What.LOADED, prog_id, tag, loaded.time_ns, *me)
    assert unloaded == Life(What.UNLOADED, prog_id, tag, unloaded.time_ns, *me)
    assert times[0] < loaded.time_ns < times[1]
    assert times[2] < unloaded.time_ns < times[3]


@pytest.mark.live
def test_it_is_readable_when_something_came(watching: Witness) -> None:
    with select.epoll() as poll:
        poll.register(watching, select.EPOLLIN)
        for _ in range(3):
            watching.drain()
            fd = load()
            prog_id = stimulus.fdinfo(fd, "prog_id")
            assert poll.poll(PATIENCE_S)
            while not (found := of(watching.drain(), prog_id)):
                poll.poll(PATIENCE_S)  # that was somebody else's
            assert [life.what for life in found] == [What.LOADED]
            os.close(fd)


@pytest.mark.live
def test_the_thread_is_that_which_calls(watching: Witness) -> None:
    made: list[tuple[int, int]] = []
    thread = threading.Thread(
        target=lambda: made.append((load_and_close(), threading.get_native_id()))
    )
    thread.start()
    thread.join()
    ((prog_id, tid),) = made
    assert tid != os.getpid()
    found = of(watching.drain(), prog_id)
    assert [(life.what, life.tgid, life.tid) for life in found] == [
        (What.LOADED, os.getpid(), tid),
        (What.UNLOADED, os.getpid(), tid),
    ]


@pytest.mark.live
def test_300_programs_in_a_row(watching: Witness) -> None:
    ids = [load_and_close() for _ in range(300)]
    lives = watching.drain()
    assert watching.lost == 0
    assert [(life.prog_id, life.what) for life in lives if life.prog_id in set(ids)] == [
        (prog_id, what) for prog_id in ids for what in What
    ]


@pytest.mark.live
def test_the_verifier_and_classic_filters_leave_no_record(watching: Witness) -> None:
    reads_r5 = stimulus.mov64_reg(stimulus.BPF_REG_0, 5) + stimulus.exit_insn()
    assert stimulus.attempt(stimulus.prog_load, KIND, reads_r5) is None
    code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF_0000))  # ret ALLOW
    filters = struct.pack("=H6xQ", 1, ctypes.addressof(code))  # struct sock_fprog
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filters)
    # Of this thread only, which ends.
    thread = threading.Thread(target=allow_by_seccomp, args=(filters,))
    thread.start()
    thread.join()
    last = load_and_close()
    assert {life.prog_id for life in watching.drain() if life.tgid == os.getpid()} == {last}


def allow_by_seccomp(filters: bytes) -> None:
    prctl = ctypes.CDLL(None).prctl
    assert prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert prctl(PR_SET_SECCOMP, 2, filters) == 0


@pytest.mark.live
def test_a_load_that_finds_no_descriptor_was_one(watching: Witness) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    attr = stimulus.prog_load_attr(KIND, stimulus.RETURN_0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    made = stimulus.call(stimulus.BPF_PROG_LOAD, attr)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert made.retval == -errno.EMFILE
    loaded, unloaded = (life for life in watching.drain() if life.tgid == os.getpid())
    assert (loaded.what, unloaded.what) == (What.LOADED, What.UNLOADED)
    assert loaded.prog_id == unloaded.prog_id


@pytest.mark.live
def test_a_program_that_a_program_loads_is_seen(watching: Witness) -> None:
    """bpf_sys_bpf(), since Linux 5.14: no system call shows this load."""
    loader = stimulus.attempt(load_loader)
    if loader is None:
        pytest.skip("this kernel has no programs that make system calls")
    watching.drain()
    made = stimulus.call(stimulus.BPF_PROG_TEST_RUN, stimulus.TEST.pack(prog_fd=loader)).check()
    fd = stimulus.TEST.get(made.exit, "retval")
    prog_id = stimulus.fdinfo(fd, "prog_id")
    me = (os.getpid(), threading.get_native_id())
    (loaded,) = of(watching.drain(), prog_id)
    assert (loaded.what, loaded.tgid, loaded.tid) == (What.LOADED, *me)
    os.close(fd)
    os.close(loader)


def load_loader() -> int:
    """A SYSCALL program that loads another one: its attr, code and license are in a map."""
    code_at, license_at, room = 256, 272, 512
    size = stimulus.PROG_LOAD.fields["prog_name"][0] + 16
    attr = stimulus.PROG_LOAD.pack(prog_type=KIND, insn_cnt=2)[:size]
    value = attr.ljust(code_at, b"\0") + stimulus.RETURN_0 + b"GPL"
    map_fd = stimulus.map_create(stimulus.BPF_MAP_TYPE_ARRAY, 4, room, 1)
    stimulus.map_update_elem(map_fd, bytes(4), value.ljust(room, b"\0"))
    code = stimulus.raw_insn(0x18, 6, BPF_PSEUDO_MAP_VALUE, imm=map_fd) + stimulus.raw_insn(0)
    for field, at in (("insns", code_at), ("license", license_at)):
        code += stimulus.mov64_reg(1, 6) + stimulus.alu64_imm(stimulus.BPF_ADD, 1, at)
        code += stimulus.raw_insn(0x7B, 6, 1, stimulus.PROG_LOAD.fields[field][0])  # *(u64 *)
    code += stimulus.mov64_imm(1, stimulus.BPF_PROG_LOAD) + stimulus.mov64_reg(2, 6)
    code += stimulus.mov64_imm(3, size) + stimulus.emit_call(BPF_FUNC_SYS_BPF)
    with stimulus.closed(map_fd):
        return stimulus.prog_load(
            BPF_PROG_TYPE_SYSCALL, code + stimulus.exit_insn(), prog_flags=BPF_F_SLEEPABLE
        )


@pytest.mark.live
def test_what_a_link_lets_go_is_told_later(watching: Witness) -> None:
    """Its thread is whichever ran when RCU was done: nothing is said of it."""
    fd = stimulus.prog_load(stimulus.BPF_PROG_TYPE_RAW_TRACEPOINT, stimulus.RETURN_0)
    prog_id = stimulus.fdinfo(fd, "prog_id")
    link = stimulus.raw_tracepoint_open(b"task_rename", fd)
    os.close(fd)
    assert [life.what for life in of(watching.drain(), prog_id)] == [What.LOADED]
    os.close(link)
    assert [life.what for life in of(until(watching, prog_id), prog_id)] == [What.UNLOADED]


@pytest.fixture
def two_cpus() -> Iterator[tuple[int, int]]:
    """The rings of which are read in this order."""
    before = os.sched_getaffinity(0)
    cpus = sorted(before)[:2]
    if len(cpus) == 1:
        pytest.skip("one CPU")
    yield cpus[0], cpus[1]
    os.sched_setaffinity(0, before)


def load_and_close_on(load_cpu: int, close_cpu: int) -> int:
    """:returns: the id."""
    os.sched_setaffinity(0, {load_cpu})
    fd = load()
    prog_id = stimulus.fdinfo(fd, "prog_id")
    os.sched_setaffinity(0, {close_cpu})
    os.close(fd)
    return prog_id


@pytest.mark.live
def test_time_is_the_order_of_all_cpus(two_cpus: tuple[int, int], watching: Witness) -> None:
    first, second = two_cpus
    ids = [load_and_close_on(second, first), load_and_close_on(first, second)]
    lives = [life for life in watching.drain() if life.prog_id in ids]
    assert [(life.prog_id, life.what) for life in lives] == [
        (prog_id, what) for prog_id in ids for what in What
    ]


@pytest.mark.live
def test_the_end_is_never_told_before_the_beginning(
    two_cpus: tuple[int, int], watching: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program comes on a CPU whose ring has just been read and goes on the next one."""
    really_drain = PerfRing.drain
    made: list[int] = []

    def drain(ring: PerfRing) -> list[bytes]:
        records = really_drain(ring)
        if not made:
            made.append(load_and_close_on(*two_cpus))
        return records

    monkeypatch.setattr(PerfRing, "drain", drain)
    assert [life.what for life in of(watching.drain(), made[0])] == [*What]


def deaf(attr: bytes, cpu: int) -> int:
    """perf_event_open(2) before Linux 6.0: what was lost cannot be asked."""
    if witness.PERF_EVENT_ATTR.unpack(attr)[5]:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return perf_event_open(attr, cpu)


@pytest.mark.live
@pytest.mark.parametrize("opened", [perf_event_open, deaf])
def test_what_finds_no_room_is_counted(
    one_cpu: int, monkeypatch: pytest.MonkeyPatch, opened: Callable[[bytes, int], int]
) -> None:
    """Exactly: one who looks all the time saw as many as came to a full ring and were lost."""
    looks = Witness([one_cpu])
    monkeypatch.setattr(libc, "perf_event_open", opened)
    looks_away = Witness([one_cpu])
    lives = looks.drain()
    for _ in range(500):
        load_and_close()
        lives += looks.drain()
    assert looks_away.lost > 200 or opened is deaf
    seen = looks_away.drain()
    last = load_and_close()  # PERF_RECORD_LOST stands ahead of it
    seen += looks_away.drain()
    lives += looks.drain()
    names = [(life.what, life.prog_id) for life in seen]
    all_names = [(life.what, life.prog_id) for life in lives]
    end = (What.UNLOADED, last)
    came = all_names.index(end) + 1 - all_names.index(names[0])
    assert came == names.index(end) + 1 + looks_away.lost
    assert looks_away.lost > 200
    assert looks.lost == 0
    looks.close()
    looks_away.close()


@pytest.mark.live
def test_several_who_watch_see_the_same() -> None:
    watchers = [Witness(online_cpus()) for _ in range(3)]
    prog_id = load_and_close()
    found = [[life._replace(time_ns=0) for life in of(each.drain(), prog_id)] for each in watchers]
    assert [life.what for life in found[0]] == [*What]
    assert found[0] == found[1] == found[2]
    for each in watchers:
        each.close()


@pytest.mark.live
def test_an_event_that_was_disabled_is_enabled_again(watching: Witness) -> None:
    """As the kernel leaves it when a CPU went and came back, for which no CPU is taken here."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        if os.path.islink(link := f"/proc/self/fd/{fd}") and "perf_event" in os.readlink(link):
            fcntl.ioctl(fd, PERF_EVENT_IOC_DISABLE, 0)
    missed = load_and_close()
    watching.follow(online_cpus())
    seen = load_and_close()
    lives = watching.drain()
    assert not of(lives, missed)
    assert [life.what for life in of(lives, seen)] == [*What]


@pytest.mark.live
def test_nothing_is_left_open() -> None:
    before = os.listdir("/proc/self/fd")
    Witness(online_cpus()).close()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.live
def test_who_may_not_is_told_what_is_missing() -> None:
    level = Path("/proc/sys/kernel/perf_event_paranoid").read_text(encoding="ascii").strip()
    if int(level) < 1:
        pytest.skip("everybody may, here")
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.setuid(NOBODY)
        try:
            Witness(online_cpus())
        except CannotStart as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as told:
        assert f"kernel.perf_event_paranoid is {level}" in told.read()
    os.waitpid(child, 0)
