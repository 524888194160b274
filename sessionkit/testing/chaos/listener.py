"""The port that takes new connections, or refuses them."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

HOST: Final = "127.0.0.1"
_BACKLOG: Final = 512


class Listener:
    """A port of loopback that is ours until ``close``, whether or not it listens.

    It does without ``asyncio.Server``, which loses what it is just accepting when it is closed.

    Attributes:
        port: Its number.
    """

    def __init__(self, accepted: Callable[[socket.socket], None]) -> None:
        """Take a free port, and listen.

        Args:
            accepted: Called with each connection, which then is its own to close.
        """
        self._loop = asyncio.get_running_loop()
        self._accepted = accepted
        self._socket = _bound(0)
        self.port: int = self._socket.getsockname()[1]
        self._listening = False
        self.listen()

    def listen(self) -> None:
        """Take connections from now on; without effect where it does already."""
        if not self._listening:
            self._socket.listen(_BACKLOG)
            self._loop.add_reader(self._socket, self._accept)
            self._listening = True

    def refuse(self) -> None:
        """Refuse connections from now on; without effect where it does already."""
        if self._listening:
            self.close()
            # A socket that is bound and does not listen: nobody else gets the port, nobody gets through.
            self._socket = _bound(self.port)

    def close(self) -> None:
        """Give up the port."""
        if self._listening:
            self._loop.remove_reader(self._socket)
            self._listening = False
        self._socket.close()

    def _accept(self) -> None:
        try:
            connection, _address = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        connection.setblocking(False)
        self._accepted(connection)


def _bound(port: int) -> socket.socket:
    # With its protocol named: asyncio sets TCP_NODELAY only then, and a piece must leave when it is written.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setblocking(False)
        # Our own earlier connections must not keep the port; on Windows they do not anyway.
        if sys.platform != "win32":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
    except BaseException:
        bound.close()
        raise
    return bound
