"""One connection through the proxy: the client's side and the upstream's."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from sessionkit.testing.chaos.side import Side

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine

    from sessionkit.testing.chaos.faults import Conditions, Direction


class Link:
    """Two sides, from an accepted connection until both are closed.

    Attributes:
        client: The side that was accepted.
        upstream: The side that was then opened.
        connected: Whether the upstream's side was opened.
        ending: Whether both sides are closed or about to be.
        closed: Set once nothing is left of it.
    """

    def __init__(
        self,
        number: int,
        accepted: socket.socket,
        conditions: Conditions,
        on_closed: Callable[[Link], None],
    ) -> None:
        """Serve a connection.

        Args:
            number: Which connection of the proxy it is; with the seed it decides what is random.
            accepted: The client's connection.
            conditions: The faults.
            on_closed: Called once, when ``closed`` is set.
        """
        self._conditions = conditions
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self.client, self.upstream = (
            Side(self, lane, random.Random(f"{conditions.seed}/{number}/{lane.direction.name}"))
            for lane in (conditions.requests, conditions.replies)
        )
        self.client.other, self.upstream.other = self.upstream, self.client
        self.connected = False
        self.ending = False
        self._by_reset = False
        self.closed = asyncio.Event()
        self._connecting: asyncio.Task[None] | None = None
        self._accepting = self._start(self._accept(accepted))

    def side_opened(self, side: Side) -> None:
        """Take note that a side is connected."""
        if self.ending:
            side.shut(reset=self._by_reset)
            return
        self.connected = self.connected or side is self.upstream
        self.conditions_changed()

    def conditions_changed(self, *, hurry: bool = False) -> None:
        """Act on what was switched on or off: hold back, or go on.

        Args:
            hurry: Let what is held back by latency pass at once.
        """
        if self.ending:
            return
        if hurry:
            for side in (self.client, self.upstream):
                side.hurry()
        accepted, silent = self.client.transport is not None, self._conditions.requests.faults.black_hole
        if self._connecting is None and accepted and not silent:
            self._connecting = self._start(self._connect())
        for side in (self.client, self.upstream):
            side.go_on()

    def half_close(self, direction: Direction) -> None:
        """End one direction, or both, after what is on its way."""
        for side in (self.client, self.upstream):
            if side.direction in direction:
                side.end()

    def reset(self) -> None:
        """Reset both sides now, as a fault."""
        if not self.ending:
            self._conditions.resets += 1
            self.abort(reset=True)

    def abort(self, *, reset: bool) -> None:
        """Close both sides now.

        Args:
            reset: Tell the peers by a reset that they see as an error, instead of as an end of the stream.
        """
        if self.ending:
            return
        self.ending, self._by_reset = True, reset
        if self._connecting is not None:
            self._connecting.cancel()
        self.client.shut(reset=reset)
        self.upstream.shut(reset=reset)

    def check_closed(self) -> None:
        """Take note that a side was closed, or will not open."""
        opening = any(task is not None and not task.done() for task in (self._accepting, self._connecting))
        open_sides = any(side.transport is not None for side in (self.client, self.upstream))
        if self.ending and not opening and not open_sides and not self.closed.is_set():
            self.closed.set()
            self._on_closed(self)

    def _start(self, opening: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(opening)
        task.add_done_callback(lambda _task: self.check_closed())
        return task

    async def _accept(self, connection: socket.socket) -> None:
        await self._loop.connect_accepted_socket(lambda: self.client, connection)

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: self.upstream, *self._conditions.upstream)
        except OSError:
            self.abort(reset=True)
