"""One side of a connection through the proxy: what it reads goes to the other side, past the faults."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from collections import deque
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, cast

if TYPE_CHECKING:
    from random import Random

    from sessionkit.testing.chaos.faults import Direction, Lane
    from sessionkit.testing.chaos.link import Link

_MAX_QUEUED: Final = 1 << 20
_NO_LINGER: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class _Mark(Enum):
    """What comes after the last byte."""

    END = "the sender sends no more"
    LOST = "the sender's connection is gone"
    CUT = "a fault ends the connection here"


class _Item(NamedTuple):
    """Something on its way to the other side, and when it is due, by the loop's clock."""

    due: float
    what: memoryview | _Mark


class Side(asyncio.Protocol):
    """One of the two connections of a link.

    Bytes that no fault concerns are written to the other side as they are read. Others wait in a queue, of
    which a pump writes as much as the faults let through. Reading pauses while the other side's transport
    holds anything back, so that nothing piles up.

    Attributes:
        other: The other side of the link.
        transport: Its connection, where there is one.
        full: Whether its transport holds back what was written to it.
    """

    other: Side

    def __init__(self, link: Link, lane: Lane, random: Random) -> None:
        """Prepare a side without a connection.

        Args:
            link: Whose side it is.
            lane: The direction of what it reads.
            random: What its faults draw from.
        """
        self._link = link
        self._lane = lane
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Item] = deque()
        self._queued = 0
        self._next: asyncio.Handle | None = None
        self._ended = False
        self._passed_end = False
        self.transport: asyncio.Transport | None = None
        self.full = False

    @property
    def direction(self) -> Direction:
        """Which way goes what it reads."""
        return self._lane.direction

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be connected."""
        self.transport = cast("asyncio.Transport", transport)
        # `full` is then exactly: something is held back.
        self.transport.set_write_buffer_limits(high=0)
        self._link.side_opened(self)

    def data_received(self, data: bytes) -> None:
        """Pass on what was read, or queue it."""
        target = self.other.transport
        if target is None or self._ended:
            return
        lane = self._lane
        if lane.clear and not self._queue and not self.other.full:
            lane.passed += len(data)
            target.write(data)
        else:
            self._enqueue(memoryview(data))

    def eof_received(self) -> bool:
        """Pass on that nothing more comes; the other direction stays open."""
        self.end()
        return True

    def pause_writing(self) -> None:
        """Make the other side read no more."""
        self.full = True
        self.other.go_on()

    def resume_writing(self) -> None:
        """Let the other side go on."""
        self.full = False
        self.other.go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on that the connection is gone, after what was read from it."""
        self.transport = None
        self.full = False
        self.other.forget()
        if not self._link.ending:
            if self.other.transport is None:
                self._link.abort(reset=True)
            else:
                self._enqueue(_Mark.LOST)
                self.other.go_on()
        self._link.check_closed()

    def end(self) -> None:
        """End this direction after what is queued; what is read from now on goes nowhere."""
        if not self._ended:
            self._ended = True
            self._enqueue(_Mark.END)

    def go_on(self) -> None:
        """Write what can be written, and read or pause, as the conditions are now."""
        self._pump()
        self._read_or_pause()

    def hurry(self) -> None:
        """Hold back no longer what is queued."""
        self._queue = deque(item._replace(due=0.0) for item in self._queue)
        self._unschedule()

    def forget(self) -> None:
        """Drop what is queued."""
        self._queue.clear()
        self._queued = 0
        self._unschedule()

    def shut(self, *, reset: bool) -> None:
        """Close the connection now and forget what was queued; see ``Link.abort``."""
        self.forget()
        if self.transport is not None:
            if reset:
                with contextlib.suppress(OSError):
                    raw = self.transport.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self.transport.abort()

    def _enqueue(self, what: memoryview | _Mark) -> None:
        faults = self._lane.faults
        delay = faults.latency + (self._random.uniform(0.0, faults.jitter) if faults.jitter else 0.0)
        self._queue.append(_Item(self._loop.time() + delay if delay else 0.0, what))
        if isinstance(what, memoryview):
            self._queued += len(what)
        self.go_on()

    def _read_or_pause(self) -> None:
        if self.transport is None:
            return
        held_up = self._lane.faults.black_hole or self.other.full or self._queued >= _MAX_QUEUED
        if self._link.connected and not held_up:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _pump(self) -> None:
        while self._queue and self._may_write():
            due, what = self._queue[0]
            if due > self._loop.time():
                self._next = self._loop.call_at(due, self._resume)
                return
            self._queue.popleft()
            if isinstance(what, _Mark):
                self._pass_mark(what)
            else:
                self._queued -= len(what)
                self._pass_chunk(what)

    def _may_write(self) -> bool:
        held_up = self._lane.faults.black_hole or self.other.full
        return self._link.connected and not held_up and self._next is None

    def _pass_chunk(self, chunk: memoryview) -> None:
        lane, faults = self._lane, self._lane.faults
        if faults.drop:
            lane.faults = replace(faults, drop=faults.drop - 1)
            self._link.reset()
            return
        if faults.reset_probability and self._random.random() < faults.reset_probability:
            self._link.reset()
            return
        size = len(chunk)
        if faults.fragment is not None:
            size = min(size, self._random.randint(1, faults.fragment))
        cut = faults.cut_after is not None and size >= faults.cut_after
        if faults.cut_after is not None:
            size = min(size, faults.cut_after)
            lane.faults = replace(faults, cut_after=None if cut else faults.cut_after - size)
        self._write(chunk[:size])
        if cut:
            self._cut()
            return
        if size < len(chunk):
            self._queue.appendleft(_Item(0.0, chunk[size:]))
            self._queued += len(chunk) - size
        if faults.fragment is not None:
            # One turn of the loop for a reader in it to be told, one to read: it gets each piece by itself.
            self._next = self._loop.call_soon(self._resume_next_turn)

    def _write(self, piece: memoryview) -> None:
        target = self.other.transport
        if target is not None and piece:
            self._lane.passed += len(piece)
            target.write(piece)

    def _cut(self) -> None:
        """Pass nothing more; reset the link once what was passed is written."""
        self.forget()
        self._ended = True
        self._queue.append(_Item(0.0, _Mark.CUT))

    def _pass_mark(self, mark: _Mark) -> None:
        if mark is _Mark.CUT:
            self._link.reset()
        elif mark is _Mark.LOST:
            self._link.abort(reset=True)
        elif self.other.transport is not None:
            self._pass_end(self.other.transport)

    def _pass_end(self, target: asyncio.Transport) -> None:
        try:
            target.write_eof()
        except OSError:  # its peer is gone, and nobody told us yet
            self._link.abort(reset=True)
            return
        self._passed_end = True
        if self.other._passed_end:
            self._link.abort(reset=False)

    def _resume_next_turn(self) -> None:
        self._next = self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._next = None
        self.go_on()

    def _unschedule(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
