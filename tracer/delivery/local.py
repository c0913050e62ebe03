# SPDX-License-Identifier: Apache-2.0
"""Where only this host can connect to."""

import os
import socket
import stat
from errno import EADDRINUSE, EADDRNOTAVAIL, EEXIST
from ipaddress import ip_address

from ...events.errors import OutputError
from .address import Address, parse


def listen(where: str) -> socket.socket:
    """A stream socket that listens.

    :param where: ``host:port``, a loopback address, or ``unix:///path``.
    :raises OutputError: it cannot, or others could connect.
    """
    address = parse(where if "://" in where else f"tcp://{where}")
    try:
        return _at_path(address.path) if address.scheme == "unix" else _at_port(address)
    except OSError as error:
        raise OutputError(f"cannot listen at {where}: {error.strerror or error}") from error


def _at_port(address: Address) -> socket.socket:
    host = "127.0.0.1" if address.host == "localhost" else address.host
    if address.scheme != "tcp" or not is_loopback(host):
        raise OSError(EADDRNOTAVAIL, "it must be a loopback address or a unix socket")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, address.port), family=family)
    except OSError as error:  # Python says the address once more
        raise OSError(error.errno, os.strerror(error.errno or 0)) from error


def is_loopback(host: str) -> bool:
    """Whether only this host can connect there."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _at_path(path: str) -> socket.socket:
    """A socket there for owner and group; in place of one that a process of ours left behind."""
    if os.path.lexists(path):
        there = os.lstat(path)
        if not stat.S_ISSOCK(there.st_mode) or there.st_uid != os.geteuid():
            raise OSError(EEXIST, "something is there that is not ours")
        if _is_served(path):
            raise OSError(EADDRINUSE, os.strerror(EADDRINUSE))
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        os.fchmod(listener.fileno(), 0o600)  # from its first moment there
        listener.bind(path)
        os.chmod(path, 0o660)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            pass  # by somebody who has much to do
    return True
