"""One command to a server and its reply, without a client library."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from sessionkit.errors import StoreUnavailable

if TYPE_CHECKING:
    from io import BufferedReader


def ask(port: int, password: str | None, timeout: float, *words: str) -> bytes:
    """Send one command over a connection of its own, authenticated where there is a password.

    Returns:
        The reply, where it is a status, a number or a string.

    Raises:
        OSError: No connection, or no reply within ``timeout`` seconds.
        StoreUnavailable: An error, or a reply of another type.
    """
    with (
        socket.create_connection(("127.0.0.1", port), timeout) as connection,
        connection.makefile("rb") as replies,
    ):
        if password is not None:
            _exchange(connection, replies, "AUTH", password)
        return _exchange(connection, replies, *words)


def _exchange(connection: socket.socket, replies: BufferedReader, *words: str) -> bytes:
    parts = [word.encode() for word in words]
    packed = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
    connection.sendall(b"*%d\r\n%b" % (len(parts), packed))
    line = replies.readline().rstrip(b"\r\n")
    if line[:1] in {b"+", b":"}:
        return line[1:]
    if line[:1] != b"$" or line == b"$-1":
        raise StoreUnavailable(f"{words[0]}: the server replied {line!r}")
    return replies.read(int(line[1:]))
