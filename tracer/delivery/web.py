# SPDX-License-Identifier: Apache-2.0
"""A few pages over HTTP, for anybody on this host, and so for whoever means harm.

One thread serves all connections, each for one request. What a connection can hold is bounded, in
bytes and in time, and so is their number: one too many ends the oldest, so that whoever opens
many and says nothing keeps nobody out.
"""

import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from threading import Thread
from typing import Final, NamedTuple

CONNECTIONS_MAX: Final = 32
HEAD_MAX: Final = 8192
"""Bytes of a request."""
REQUEST_S: Final = 5.0
"""From a connection to its end."""

_PAUSE_S: Final = 1.0  # when a connection cannot be had
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"
)


class Page(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes


Pages = Callable[[str, str], Page | None]
"""Path and ``Accept`` of a request -> what is there, or None."""


class Server:
    """Serves from the moment it is made until :meth:`close`.

    :param listener: a stream socket that listens; the server's from here on.
    :param pages: called in the server's thread.
    """

    def __init__(self, listener: socket.socket, pages: Pages) -> None:
        self._listener = listener
        self._listener.setblocking(False)
        self._pages = pages
        self._connections: dict[int, _Connection] = {}
        """By descriptor, the oldest first."""
        self._over = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector = DefaultSelector()
        self._selector.register(self._over, EVENT_READ)
        self._selector.register(self._listener, EVENT_READ)
        self._thread = Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends all connections. Nothing is left when it returns, also not of a socket's path."""
        os.eventfd_write(self._over, 1)
        self._thread.join()
        if self._listener.family == socket.AF_UNIX:
            with suppress(OSError):  # somebody else saw to that
                os.unlink(self._listener.getsockname())
        self._selector.close()
        self._listener.close()
        os.close(self._over)
        for connection in self._connections.values():
            connection.socket.close()

    # --- The thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select(self._time_left()):
                if key.fd == self._over:
                    return
                if key.fd == self._listener.fileno():
                    self._accept()
                elif connection := self._connections.get(key.fd):
                    self._serve(connection)
            self._expire()

    def _time_left(self) -> float | None:
        oldest = next(iter(self._connections.values()), None)
        return None if oldest is None else max(oldest.deadline - time.monotonic(), 0)

    def _expire(self) -> None:
        now = time.monotonic()
        for connection in list(self._connections.values()):
            if connection.deadline <= now:
                self._end(connection)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it went before it came
        except OSError:
            # No descriptor or no memory is left, and the listener stays readable.
            select.select((self._over,), (), (), _PAUSE_S)
            return
        if len(self._connections) == CONNECTIONS_MAX:
            self._end(next(iter(self._connections.values())))
        accepted.setblocking(False)
        connection = _Connection(accepted)
        self._connections[accepted.fileno()] = connection
        self._selector.register(accepted, EVENT_READ)
        self._serve(connection)  # who is quick has said it all

    def _serve(self, connection: "_Connection") -> None:
        try:
            if connection.answer is None:
                self._listen_to(connection)
            if connection.answer is not None:
                connection.answer = connection.answer[connection.socket.send(connection.answer) :]
        except BlockingIOError:
            return
        except OSError:
            connection.answer = memoryview(b"")  # nobody is there
        if connection.answer is not None and not connection.answer:
            self._end(connection)

    def _listen_to(self, connection: "_Connection") -> None:
        said = connection.socket.recv(HEAD_MAX)
        connection.head += said
        if not said:
            connection.answer = memoryview(b"")
        elif b"\r\n\r\n" in connection.head or b"\n\n" in connection.head:
            connection.answer = memoryview(answer(bytes(connection.head), self._pages))
        elif len(connection.head) > HEAD_MAX:
            connection.answer = memoryview(_TOO_LARGE)
        if connection.answer is not None:
            self._selector.modify(connection.socket, EVENT_WRITE)

    def _end(self, connection: "_Connection") -> None:
        del self._connections[connection.socket.fileno()]
        self._selector.unregister(connection.socket)
        connection.socket.close()


class _Connection:
    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.deadline = time.monotonic() + REQUEST_S
        self.head = bytearray()
        self.answer: memoryview | None = None
        """What is left to send; None: there is no answer yet."""


def answer(head: bytes, pages: Pages) -> bytes:
    """The response to a request, whatever its bytes are; empty if it says nothing."""
    return _Request(head, pages).wfile.getvalue()


class _Request(BaseHTTPRequestHandler):
    """The standard library's reading of a request, from memory instead of a socket."""

    protocol_version = "HTTP/1.1"

    def __init__(self, head: bytes, pages: Pages) -> None:
        self._pages = pages
        self.client_address = ("", 0)
        self.rfile = BytesIO(head)
        self.wfile: BytesIO = BytesIO()
        self.handle_one_request()

    def do_GET(self) -> None:
        try:
            page = self._pages(self.path.partition("?")[0], self.headers.get("Accept", ""))
        except Exception:  # a mistake of ours must not end the thread
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def version_string(self) -> str:
        return "bpfsnoop"

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass  # it would be on standard error, as often as anybody likes
