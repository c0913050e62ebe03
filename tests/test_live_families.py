# SPDX-License-Identifier: Apache-2.0
"""Who is followed, however short-lived, and calls that outlive the tracing of them."""

import fcntl
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bpfsnoop.tracer.installed import SCHEMA
from running import BPFSNOOP, Trace, Tracer, bpfsnoop_run

pytestmark = pytest.mark.live

TESTS = Path(__file__).resolve().parent

# Children that get the number of one that has just been reaped (clone3(2), set_tid):
# the kernel frees a number long before all traces of its process are gone.
REUSE = """
    import ctypes, os, struct
    from stimulus import attempt, map_freeze

    libc = ctypes.CDLL(None, use_errno=True)

    def clone(pid: int) -> int:
        tids = ctypes.c_int32(pid)
        args = bytearray(88)
        struct.pack_into("=Q", args, 32, 17)  # exit_signal: SIGCHLD
        struct.pack_into("=QQ", args, 64, ctypes.addressof(tids), 1)  # set_tid, set_tid_size
        buffer = ctypes.create_string_buffer(bytes(args), len(args))
        return libc.syscall(435, buffer, ctypes.c_long(len(args)))

    for _ in range({times}):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        child = clone(pid)
        if child == 0:
            attempt(map_freeze, 0)
            os._exit(0)
        assert child == pid, (child, pid, os.strerror(ctypes.get_errno()))
        os.waitpid(child, 0)
"""

# A call that takes as long as it is let.
ENDLESS = """
    import sys
    from stimulus import BPF_PROG_TYPE_SOCKET_FILTER, RETURN_0, prog_load, prog_test_run

    program = prog_load(BPF_PROG_TYPE_SOCKET_FILTER, RETURN_0)
    print("ready", flush=True)
    sys.stdin.readline()
    prog_test_run(program, bytes(64), repeat=(1 << 32) - 1)
"""


def _python(script: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
            + textwrap.dedent(script)]  # fmt: skip


def test_a_child_with_the_number_of_another_is_followed(tmp_path: Path) -> None:
    times, out = 50, tmp_path / "out"
    script = REUSE.format(times=times)
    finished = bpfsnoop_run(
        "--strict", "--json", "-e", "map_freeze", "-o", out, "--", *_python(script)
    )
    assert (finished.status, finished.err) == (0, "")
    assert len(Trace.of(out.read_bytes()).events) == times


def test_a_call_that_has_not_returned_is_accounted_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        _python(ENDLESS), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as endless:
        assert endless.stdin
        assert endless.stdout
        assert endless.stdout.readline() == b"ready\n"
        options = "--strict", "--json", "-o", out, "-d", "1s", "-p", str(endless.pid)
        with Tracer(*options) as tracer:
            tracer.ready()
            endless.stdin.write(b"\n")
            endless.stdin.flush()
            finished = tracer.wait()
        endless.kill()
    trace = Trace.of(out.read_bytes())
    assert trace.events == []
    loss = trace.loss["bpf"]["loss"]
    assert (loss["seen"], loss["lost"], loss["unfinished"], loss["complete"]) == (1, 0, 1, False)
    assert finished.status == 3
    assert "1 calls had begun but not returned" in finished.err


def test_a_pipe_that_does_not_block_gets_everything() -> None:
    """As when another program that shares it made it so: the reader is slow, not gone."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with (
        subprocess.Popen([BPFSNOOP, "schema"], stdout=writer, stderr=subprocess.PIPE) as bpfsnoop,
        os.fdopen(reader, "rb", buffering=0) as pipe,
    ):
        os.close(writer)
        content = b"".join(iter(lambda: pipe.read(1000), b""))
        assert bpfsnoop.stderr
        assert bpfsnoop.stderr.read() == b""
        assert bpfsnoop.wait() == 0
    assert content == SCHEMA.read_bytes()
    assert len(content) > 4096
