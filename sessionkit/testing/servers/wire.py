"""One command to a server and its reply, without a client library."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sessionkit.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedReader


def ask(port: int, password: str | None, timeout: float, *words: str | bytes) -> bytes:
    """Send one command over a connection of its own, authenticated where there is a password.

    Returns:
        The reply, where it is a status, a number or a string.

    Raises:
        OSError: No connection, or no reply within ``timeout`` seconds.
        StoreUnavailable: An error, or a reply of another type.
    """
    with _connected(port, password, timeout) as (connection, replies):
        return _one(replies, words[0], _send(connection, replies, words))


def ask_array(port: int, password: str | None, timeout: float, *words: str | bytes) -> list[bytes]:
    """Send one command as ``ask`` does, and return its reply, where it is an array of what ``ask`` returns.

    Raises:
        OSError: As ``ask``.
        StoreUnavailable: An error, or a reply of another type.
    """
    with _connected(port, password, timeout) as (connection, replies):
        line = _send(connection, replies, words)
        if line[:1] != b"*" or line == b"*-1":
            raise _unexpected(words[0], line)
        return [_one(replies, words[0], _line(replies)) for _ in range(int(line[1:]))]


@contextmanager
def _connected(
    port: int, password: str | None, timeout: float
) -> Iterator[tuple[socket.socket, BufferedReader]]:
    with (
        socket.create_connection(("127.0.0.1", port), timeout) as connection,
        connection.makefile("rb") as replies,
    ):
        if password is not None:
            _one(replies, "AUTH", _send(connection, replies, ("AUTH", password)))
        yield connection, replies


def _send(connection: socket.socket, replies: BufferedReader, words: Sequence[str | bytes]) -> bytes:
    """Send a command, and return the first line of its reply."""
    parts = [word.encode() if isinstance(word, str) else word for word in words]
    packed = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
    connection.sendall(b"*%d\r\n%b" % (len(parts), packed))
    return _line(replies)


def _line(replies: BufferedReader) -> bytes:
    return replies.readline().rstrip(b"\r\n")


def _one(replies: BufferedReader, command: str | bytes, line: bytes) -> bytes:
    """Return the status, number or string that starts with this line."""
    if line[:1] in {b"+", b":"}:
        return line[1:]
    if line[:1] != b"$" or line == b"$-1":
        raise _unexpected(command, line)
    return replies.read(int(line[1:]) + len(b"\r\n"))[:-2]


def _unexpected(command: str | bytes, line: bytes) -> StoreUnavailable:
    name = command if isinstance(command, str) else command.decode(errors="replace")
    return StoreUnavailable(f"{name}: the server replied {line!r}")
