"""One full-duplex connection, shared by all callers of an event loop."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

import hiredis

from sessionkit.errors import Applied, Backpressure, StoreTimeout, StoreUnavailable
from sessionkit_redis.errors import copy_for, from_exception, from_login_reply
from sessionkit_redis.transport import ErrorReply
from sessionkit_redis.watches import Watches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sessionkit.errors import StoreError
    from sessionkit_redis.transport import Reply

MAX_CALLS: Final = 65_536
"""Calls one connection holds, waiting to be sent or answered, before it refuses more."""

MAX_UNSENT_BYTES: Final = 64 * 1024 * 1024
"""Bytes waiting to be sent before it refuses more."""

_Call: TypeAlias = "tuple[asyncio.Future[list[Reply]], int, float]"
"""Who waits, for how many replies, and until when. A bare tuple: this is made for every command."""

_TIMER_SLACK: Final = 0.01
_NOTHING: Final = object()


class Client(NamedTuple):
    """A connection as its server knows it.

    Attributes:
        run_id: Of the server, from its start to its end.
        id: The connection's number, which that server gives only once.
    """

    run_id: bytes
    id: int


class Connection(asyncio.Protocol):
    """Commands out and replies in, matched in order.

    What is asked within one turn of the event loop leaves in one write. A caller that is cancelled, or whose
    deadline passes, leaves its place in the queue to the reply that is still due, so no reply can reach
    another caller. When a reply is overdue, waited for or not, and nothing has been heard for as long as
    ``patience``, the connection is given up: it takes no more calls, and closes once nobody waits for it.

    Args:
        where: The server's URL without credentials, for errors.
        patience: Seconds of silence, while a reply is overdue, that make it dead.

    Attributes:
        usable: Whether it takes calls.
        client: Who it is to the server, where the server tells.
        watches: Who is told of the server's push messages.
        closed: Done once the connection is gone.
    """

    def __init__(self, where: str, patience: float) -> None:
        self.where = where
        self._patience = patience
        self.usable = False
        self.client: Client | None = None
        self.watches = Watches()
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        # hiredis puts in a refusal's place whatever this returns; its types know only of exceptions.
        to_reply = cast("Callable[[str], Exception]", self._refusal)
        self._reader = hiredis.Reader(replyError=to_reply, notEnoughData=_NOTHING)
        self._unsent: list[_Call] = []
        self._packed: list[bytes] = []
        self._unsent_bytes = 0
        self._due: deque[_Call] = deque()
        self._replies: list[Reply] = []
        self._flush_due = False
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._silent_since = 0.0
        self._end: StoreError = StoreUnavailable(f"{where} closed the connection")
        self._lost_calls = False

    def call(self, packed: bytes, replies: int, deadline: float) -> asyncio.Future[list[Reply]]:
        """Send packed commands; the future gives their replies, or ``StoreTimeout`` at the deadline.

        Args:
            packed: The commands.
            replies: How many there are.
            deadline: When the caller must be told, by the event loop's clock.

        Raises:
            Backpressure: Too much is waiting already; nothing was sent.
            StoreUnavailable: The connection is lost; nothing was sent.
        """
        if not self.usable:
            raise copy_for(self._end, Applied.NO)
        unsent = self._unsent
        if len(self._due) + len(unsent) >= MAX_CALLS or self._unsent_bytes > MAX_UNSENT_BYTES:
            raise Backpressure(f"{self.where}: too many calls are waiting")
        future: asyncio.Future[list[Reply]] = asyncio.Future(loop=self._loop)
        unsent.append((future, replies, deadline))
        self._packed.append(packed)
        self._unsent_bytes += len(packed)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        if deadline < self._timer_at:
            self._set_timer(deadline)
        return future

    @property
    def owes(self) -> bool:
        """Whether the server may still come to a call that its caller has given up.

        So it may once the connection is lost: what it has received it carries out, unless it is told not to.
        """
        return self._lost_calls or any(future.done() for future, _, _ in self._due)

    def retire(self) -> None:
        """Take no more calls, and close once those that were made are answered."""
        self.usable = False
        self._close_if_idle()

    def close(self) -> None:
        """Close at once; who still waits is told so."""
        self._lose(StoreUnavailable(f"the connection to {self.where} was closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = cast("asyncio.Transport", transport)
        self._silent_since = self._loop.time()
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._silent_since = self._loop.time()
        due = self._due
        replies = self._replies
        next_reply = self._reader.gets
        self._reader.feed(data)
        try:
            while (reply := next_reply()) is not _NOTHING:
                if reply.__class__ is hiredis.PushNotification:
                    self.watches.push(cast("list[Reply]", reply))
                    continue
                replies.append(reply)
                if len(replies) < due[0][1]:
                    continue
                future = due.popleft()[0]
                if not future.done():
                    future.set_result(replies)
                self._replies = replies = []
        except (hiredis.HiredisError, IndexError, TypeError):
            # Unreadable, nobody asked for it, or a map with keys of a kind that Python has none of: whose the
            # next one is can no longer be told.
            self._lose(self._unasked(replies[-1] if replies and not due else None))
        if not self.usable:
            self._close_if_idle()

    def pause_writing(self) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._paused = True

    def resume_writing(self) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._paused = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        # TLS tells some refusals only after the handshake, such as that of this client's certificate.
        told = isinstance(exc, ssl.SSLError)
        self._lose(from_exception(exc, self.where, Applied.MAYBE) if exc and told else self._end)
        self.watches.end()
        if not self.closed.done():
            self.closed.set_result(None)

    def _flush(self) -> None:
        self._flush_due = False
        if self._paused or not self._unsent or self._transport is None or self._transport.is_closing():
            return
        packed, unsent = self._packed, self._unsent
        self._forget_unsent()
        wanted = [call for call in unsent if not call[0].done()]
        if len(wanted) < len(unsent):
            # For who was cancelled, or told of its deadline, before this, nothing is sent.
            packed = [data for data, call in zip(packed, unsent, strict=True) if not call[0].done()]
        if not self._due:
            # Nobody could hear a server that was asked nothing.
            self._silent_since = self._loop.time()
        self._due.extend(wanted)
        self._transport.write(b"".join(packed))

    def _expire(self) -> None:
        """Fail the calls whose deadline has passed, and judge the connection by them.

        A call that is cancelled counts like any other: if callers give up sooner than their deadlines, theirs
        may be the only ones there are.
        """
        now = self._loop.time()
        self._timer, self._timer_at = None, math.inf
        next_look = math.inf
        overdue = False
        late = f"{self.where} did not answer in time"
        for calls, applied in ((self._due, Applied.MAYBE), (self._unsent, Applied.NO)):
            for future, _, deadline in calls:
                if deadline > now:
                    next_look = min(next_look, deadline)
                    continue
                overdue = True
                if not future.done():
                    future.set_exception(StoreTimeout(late, applied=applied))
        if overdue and self.usable:
            dead_at = self._silent_since + self._patience
            if dead_at <= now:
                self._give_up(StoreUnavailable(f"{self.where} has stopped answering"))
            else:
                next_look = min(next_look, dead_at)
        if next_look < math.inf:
            self._set_timer(max(next_look, now + _TIMER_SLACK))
        if not self.usable:
            self._close_if_idle()

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._expire)

    def _close_if_idle(self) -> None:
        if all(future.done() for future, _, _ in (*self._due, *self._unsent)):
            self.close()

    def _forget_unsent(self) -> None:
        self._unsent = []
        self._packed = []
        self._unsent_bytes = 0

    def _unasked(self, reply: Reply) -> StoreUnavailable:
        """Return what ends the connection if this is a reply to nothing."""
        if isinstance(reply, ErrorReply):
            # Such as that there are too many clients: told before anything was asked, and then it hangs up.
            return from_login_reply(reply, self.where)
        return StoreUnavailable(f"{self.where} does not speak the Redis protocol")

    def _give_up(self, error: StoreError) -> None:
        """Take no more calls, and send none: what is not sent yet never will be, and its callers are told."""
        if self.usable:  # what comes later does not say why
            self._end = error
        self.usable = False
        unsent = self._unsent
        self._forget_unsent()
        _fail(unsent, error, Applied.NO)

    def _lose(self, error: StoreError) -> None:
        self._give_up(error)
        due, self._due = self._due, deque()
        self._lost_calls = self._lost_calls or bool(due)
        _fail(due, error, Applied.MAYBE)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    def _refusal(self, text: str) -> ErrorReply:
        code = text.partition(" ")[0]
        # Redis before 7.0 puts a script's refusal behind words of its own.
        if code == "READONLY" or " -READONLY " in text:
            # A primary that became a replica: who connects anew may be led to the new one.
            self.usable = False
        return ErrorReply(code, text)


def _fail(calls: Iterable[_Call], error: StoreError, applied: Applied) -> None:
    for future, _, _ in calls:
        if not future.done():
            future.set_exception(copy_for(error, applied))
