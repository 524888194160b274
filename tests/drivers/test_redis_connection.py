"""``Connection`` against a peer that the test plays itself, byte by byte, over a pair of sockets."""

from __future__ import annotations

import asyncio
import math
import socket
from collections import deque
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.errors import Applied, Backpressure, StoreError, StoreTimeout, StoreUnavailable
from sessionkit_redis import connection as connection_module
from sessionkit_redis.connection import Connection
from sessionkit_redis.transport import ErrorReply, Reply, pack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

WHERE = "redis://host"
PUSH = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
INFINITE_PATIENCE = math.inf


class Peer:
    """The other end of the connection."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    async def send(self, data: bytes) -> None:
        """Let the connection read these bytes, by themselves."""
        self._end.sendall(data)
        await turns()

    async def received(self) -> bytes:
        """Return what has arrived; there may be nothing."""
        await turns()
        with suppress(BlockingIOError):
            return self._end.recv(1 << 24)
        return b""

    async def receive(self, count: int) -> bytes:
        """Wait until that many bytes have arrived."""
        loop = asyncio.get_running_loop()
        data = bytearray()
        while len(data) < count:
            piece = await loop.sock_recv(self._end, count - len(data))
            assert piece, "the connection was closed"
            data += piece
        return bytes(data)

    async def hang_up(self) -> None:
        """Close this end."""
        self._end.close()
        await turns()


async def turns() -> None:
    """Let the event loop run what is due, and read and write what its sockets are ready for."""
    for _ in range(4):
        await asyncio.sleep(0)


class Pair(NamedTuple):
    connection: Connection
    peer: Peer


@asynccontextmanager
async def connected(patience: float = INFINITE_PATIENCE) -> AsyncIterator[Pair]:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        _, connection = await loop.create_connection(lambda: Connection(WHERE, patience), sock=ours)
        yield Pair(connection, Peer(theirs))
        connection.close()
        await connection.closed


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with connected() as pair:
        yield pair


def later(seconds: float = 60.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def ask(connection: Connection, *names: str, deadline: float | None = None) -> asyncio.Future[list[Reply]]:
    """Make one call of as many commands as there are names."""
    commands = [("GET", name) for name in names]
    return connection.call(pack(commands), len(commands), later() if deadline is None else deadline)


def asked(*names: str) -> bytes:
    return pack([("GET", name) for name in names])


def bulk(text: str) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text.encode())


def told(future: asyncio.Future[list[Reply]]) -> StoreError:
    """Return the error that a caller was told."""
    error = future.exception()
    assert isinstance(error, StoreError)
    return error


def nothing_is_kept(connection: Connection) -> bool:
    return not (connection._due or connection._unsent or connection._packed or connection._unsent_bytes)


# One call of several commands, then two more, with pushes in the middle of all.
STREAM = b"".join(
    (
        bulk("first"),
        PUSH,
        b"-ERR no such thing\r\n",
        PUSH,
        b"_\r\n",
        b"*2\r\n:7\r\n*1\r\n" + bulk("deep"),
        PUSH,
        b"%1\r\n+proto\r\n:3\r\n",
        bulk("line\r\nbreak"),
    )
)
BATCH: list[Reply] = [b"first", ErrorReply("ERR", "ERR no such thing"), None, [7, [b"deep"]]]


async def take_stream(pieces: Sequence[bytes]) -> None:
    async with connected() as (connection, peer):
        changed = connection.watches.add(b"k")
        calls = [ask(connection, "1", "2", "3", "4"), ask(connection, "5"), ask(connection, "6")]
        assert await peer.received() == asked("1", "2", "3", "4", "5", "6")
        for piece in pieces:
            await peer.send(piece)
        assert [call.result() for call in calls] == [BATCH, [{b"proto": 3}], [b"line\r\nbreak"]]
        assert changed.done()
        assert nothing_is_kept(connection)


async def test_replies_may_be_split_at_every_byte() -> None:
    for at in range(len(STREAM) + 1):
        await take_stream([STREAM[:at], STREAM[at:]])


async def test_replies_may_come_byte_by_byte() -> None:
    await take_stream([STREAM[at : at + 1] for at in range(len(STREAM))])


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_replies_may_be_split_anyhow(cuts: list[int]) -> None:
    borders = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in pairwise(borders)]
    asyncio.run(take_stream(pieces))


async def test_no_caller_is_told_before_its_last_reply_is_whole(pair: Pair) -> None:
    connection, peer = pair
    call = ask(connection, "1", "2")
    await peer.send(bulk("first") + b"$6\r\nsecond\r")
    assert not call.done()
    await peer.send(b"\n")
    assert call.result() == [b"first", b"second"]


async def test_what_is_asked_in_one_turn_leaves_in_one_write() -> None:
    written: list[bytes] = []

    class Recorder(asyncio.Transport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            written.append(bytes(data))

        def is_closing(self) -> bool:
            return False

        def abort(self) -> None:
            pass

    connection = Connection(WHERE, INFINITE_PATIENCE)
    connection.connection_made(Recorder())
    calls = [ask(connection, name) for name in "abc"]
    assert written == [], "not before the turn is over"
    await turns()
    assert written == [asked("a", "b", "c")]
    calls.append(ask(connection, "d"))
    await turns()
    assert written == [asked("a", "b", "c"), asked("d")]
    connection.close()
    connection.connection_lost(None)
    assert {told(call).applied for call in calls} == {Applied.MAYBE}


async def test_a_call_cancelled_before_it_is_sent_is_not_sent(pair: Pair) -> None:
    connection, peer = pair
    one, two, three = (ask(connection, name) for name in ("one", "two", "three"))
    two.cancel()
    assert await peer.received() == asked("one", "three")
    await peer.send(bulk("1") + bulk("3"))
    assert (one.result(), three.result()) == ([b"1"], [b"3"])
    assert nothing_is_kept(connection)


async def test_if_all_are_cancelled_before_they_are_sent_nothing_is(pair: Pair) -> None:
    connection, peer = pair
    for name in ("one", "two"):
        ask(connection, name).cancel()
    assert await peer.received() == b""
    assert nothing_is_kept(connection)
    call = ask(connection, "three")
    await peer.send(bulk("3"))
    assert call.result() == [b"3"]


async def test_the_replies_of_a_call_cancelled_on_its_way_are_taken_in_its_place(pair: Pair) -> None:
    connection, peer = pair
    one, two, three = ask(connection, "1"), ask(connection, "2", "2"), ask(connection, "3")
    assert await peer.received() == asked("1", "2", "2", "3")
    two.cancel()
    await peer.send(bulk("one") + bulk("two"))
    # Also in the middle of its replies.
    assert one.result() == [b"one"]
    assert not three.done()
    await peer.send(bulk("two again") + bulk("three"))
    assert three.result() == [b"three"]
    assert connection.usable
    assert nothing_is_kept(connection)


GARBAGE = {
    "no type of RESP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a length that is no number": b"$x\r\n",
    "a push that is broken": b">1\r\n!?",
    "a number that is none": b":seven\r\n",
    "a map with an array for a key": b"%1\r\n*1\r\n:1\r\n:2\r\n",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_ends_the_connection_and_every_caller_is_told(pair: Pair, garbage: bytes) -> None:
    connection, peer = pair
    answered, half, waiting, cancelled = (ask(connection, *names) for names in ("a", "bb", "c", "d"))
    changed = connection.watches.add(b"k")
    await peer.received()
    cancelled.cancel()
    await peer.send(bulk("a") + bulk("b"))
    unsent = ask(connection, "e")
    # Read before the turn in which `unsent` would leave.
    connection.data_received(garbage)
    assert answered.result() == [b"a"]
    for call, applied in ((half, Applied.MAYBE), (waiting, Applied.MAYBE), (unsent, Applied.NO)):
        error = told(call)
        assert type(error) is StoreUnavailable
        assert "does not speak the Redis protocol" in str(error)
        assert error.temporary is True
        assert error.applied is applied
    assert not connection.usable
    with pytest.raises(StoreUnavailable) as caught:
        ask(connection, "f")
    assert caught.value.applied is Applied.NO
    await connection.closed
    assert changed.done()
    assert nothing_is_kept(connection)
    assert await peer.received() == b"", "closed, and nothing of `unsent` was sent"


async def test_each_caller_gets_an_error_of_its_own(pair: Pair) -> None:
    connection, peer = pair
    calls = [ask(connection, name) for name in "abc"]
    await peer.received()
    await peer.hang_up()
    await connection.closed
    assert len({id(told(call)) for call in calls}) == 3


@pytest.mark.parametrize("answered", [0, 1], ids=["before any call", "after the last reply"])
async def test_a_reply_that_nobody_asked_for_ends_the_connection(pair: Pair, answered: int) -> None:
    connection, peer = pair
    calls = [ask(connection, "a") for _ in range(answered)]
    await peer.received()
    unsent = ask(connection, "later")
    connection.data_received(bulk("a") * (answered + 1))
    assert [call.result() for call in calls] == [[b"a"]] * answered
    assert told(unsent).applied is Applied.NO
    await connection.closed
    assert not connection.usable
    assert await peer.received() == b""


async def test_a_refusal_before_any_call_is_what_every_call_is_told(pair: Pair) -> None:
    connection, peer = pair
    unsent = ask(connection, "unsent")
    connection.data_received(b"-ERR max number of clients reached\r\n")
    await connection.closed
    with pytest.raises(StoreUnavailable) as caught:
        ask(connection, "later")
    for error in (told(unsent), caught.value):
        assert "has no connection left (see its maxclients)" in str(error)
        assert error.temporary is True
        assert error.applied is Applied.NO
    assert await peer.received() == b""


async def test_a_server_that_hangs_up_leaves_open_what_it_did(pair: Pair) -> None:
    connection, peer = pair
    sent = ask(connection, "sent")
    assert await peer.received() == asked("sent")
    await peer.hang_up()
    assert told(sent).applied is Applied.MAYBE
    assert "closed the connection" in str(told(sent))
    with pytest.raises(StoreUnavailable, match="closed the connection"):
        ask(connection, "next")


async def test_at_its_deadline_a_caller_is_told_whether_it_was_sent(pair: Pair) -> None:
    connection, peer = pair
    sent = ask(connection, "sent", deadline=later(0.05))
    patient = ask(connection, "patient")
    assert await peer.received() == asked("sent", "patient")
    connection.pause_writing()
    unsent = ask(connection, "unsent", deadline=later(0.05))
    await asyncio.wait([sent, unsent])
    for call, applied in ((sent, Applied.MAYBE), (unsent, Applied.NO)):
        assert type(told(call)) is StoreTimeout
        assert told(call).temporary is True
        assert told(call).applied is applied
    connection.resume_writing()
    assert await peer.received() == b"", "what was told of its deadline is not sent any more"
    # Its reply still has its place.
    await peer.send(bulk("sent") + bulk("patient"))
    assert patient.result() == [b"patient"]
    assert connection.usable
    assert nothing_is_kept(connection)


async def test_no_caller_is_told_of_its_deadline_before_it(pair: Pair) -> None:
    connection, peer = pair
    loop = asyncio.get_running_loop()
    deadlines = [later(0.01 * number) for number in (5, 1, 3, 2, 4)]

    async def told_at(call: asyncio.Future[list[Reply]]) -> float:
        with pytest.raises(StoreTimeout):
            await call
        return loop.time()

    calls = [ask(connection, "a", deadline=deadline) for deadline in deadlines]
    times = await asyncio.gather(*map(told_at, calls))
    assert all(time >= deadline for time, deadline in zip(times, deadlines, strict=True))
    assert await peer.received() == asked("a") * 5
    assert connection.usable


async def test_silence_beyond_its_patience_ends_it_once_a_reply_is_overdue() -> None:
    async with connected(patience=0.0) as (connection, peer):
        overdue = ask(connection, "overdue", deadline=later(0.02))
        other = ask(connection, "other", deadline=later(0.2))
        await peer.received()
        # Held back, so that it is still unsent when the connection is given up.
        connection.pause_writing()
        unsent = ask(connection, "unsent")
        await asyncio.wait([overdue])
        assert type(told(overdue)) is StoreTimeout
        assert type(told(unsent)) is StoreUnavailable
        assert "has stopped answering" in str(told(unsent))
        assert told(unsent).applied is Applied.NO
        with pytest.raises(StoreUnavailable):
            ask(connection, "next")
        assert not other.done(), "an answer may still come"
        assert not connection.closed.done()
        await asyncio.wait([other])
        assert told(other).applied is Applied.MAYBE
        await connection.closed
        assert nothing_is_kept(connection)


async def test_a_reply_that_comes_after_it_was_given_up_still_reaches_who_waits() -> None:
    async with connected(patience=0.0) as (connection, peer):
        overdue = ask(connection, "overdue", deadline=later(0.02))
        other = ask(connection, "other")
        await asyncio.wait([overdue])
        assert not connection.usable
        await peer.send(bulk("overdue") + bulk("other"))
        assert other.result() == [b"other"]
        await connection.closed


async def test_a_sign_of_life_keeps_it_in_spite_of_an_overdue_reply() -> None:
    async with connected(patience=30.0) as (connection, peer):
        await peer.received()
        await peer.send(PUSH)
        overdue = ask(connection, "overdue", deadline=later(0.02))
        await asyncio.wait([overdue])
        assert connection.usable


async def test_silence_ends_it_also_if_every_caller_has_given_up_before_its_deadline() -> None:
    async with connected(patience=0.01) as (connection, peer):
        ask(connection, "early", deadline=later(0.02)).cancel()
        calls = [ask(connection, name, deadline=later(0.02)) for name in ("a", "b")]
        assert await peer.received() == asked("a", "b")
        for call in calls:
            call.cancel()
        async with asyncio.timeout(10):
            await connection.closed
        assert nothing_is_kept(connection)


async def test_an_overdue_reply_is_looked_for_again_once_its_patience_is_over() -> None:
    async with connected(patience=0.2) as (connection, _):
        await asyncio.wait([ask(connection, "overdue", deadline=later(0.02))])
        async with asyncio.timeout(10):
            await connection.closed


async def test_its_patience_begins_when_something_is_asked() -> None:
    async with connected(patience=30.0) as (connection, _):
        connection._silent_since -= 3600  # for an hour nobody asked, and nothing was heard
        await asyncio.wait([ask(connection, "overdue", deadline=later(0.02))])
        assert connection.usable


async def test_paused_writing_holds_back_and_goes_on(pair: Pair) -> None:
    connection, peer = pair
    large = "x" * 8_000_000
    first = ask(connection, large)
    await turns()
    assert connection._paused, "more than the system and asyncio take at once"
    kept, cancelled = ask(connection, "kept"), ask(connection, "cancelled")
    await turns()
    cancelled.cancel()
    expected = asked(large) + asked("kept")
    assert await peer.receive(len(expected)) == expected
    assert not connection._paused
    await peer.send(bulk("large") + bulk("kept"))
    assert (first.result(), kept.result()) == ([b"large"], [b"kept"])
    assert await peer.received() == b""
    assert nothing_is_kept(connection)


async def test_too_many_calls_are_refused_until_some_are_answered(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, peer = pair
    monkeypatch.setattr(connection_module, "MAX_CALLS", 3)
    sent = [ask(connection, "a"), ask(connection, "b")]
    await turns()
    sent.append(ask(connection, "c"))
    # A cancelled one counts: its reply is still due.
    sent[1].cancel()
    for _ in range(2):
        with pytest.raises(Backpressure) as caught:
            ask(connection, "d")
        assert caught.value.temporary is True
        assert caught.value.applied is Applied.NO
    assert await peer.received() == asked("a", "b", "c")
    await peer.send(bulk("a"))
    last = ask(connection, "d")
    assert await peer.received() == asked("d")
    await peer.send(bulk("b") + bulk("c") + bulk("d"))
    assert last.result() == [b"d"]


async def test_too_many_unsent_bytes_are_refused_until_they_are_sent(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, peer = pair
    monkeypatch.setattr(connection_module, "MAX_UNSENT_BYTES", 100)
    first = ask(connection, "x" * 1000)
    with pytest.raises(Backpressure):
        ask(connection, "y")
    await peer.received()
    second = ask(connection, "y")
    await peer.send(bulk("1") + bulk("2"))
    assert (first.result(), second.result()) == ([b"1"], [b"2"])


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("READONLY", "READONLY You can't write against a read only replica."),
        ("ERR", "ERR Error running script (call to f_92): @user_script:29: -READONLY You can't write"),
    ],
)
async def test_a_primary_turned_replica_takes_no_more_calls_and_answers_those_made(
    pair: Pair, code: str, text: str
) -> None:
    connection, peer = pair
    refused, other = ask(connection, "a"), ask(connection, "b")
    await peer.received()
    unsent = ask(connection, "c")
    connection.data_received(b"-%s\r\n" % text.encode())
    assert refused.result() == [ErrorReply(code, text)]
    with pytest.raises(StoreUnavailable) as caught:
        ask(connection, "d")
    assert caught.value.applied is Applied.NO
    assert await peer.received() == asked("c")
    await peer.send(bulk("b"))
    assert other.result() == [b"b"]
    assert not connection.closed.done()
    await peer.send(bulk("c"))
    assert unsent.result() == [b"c"]
    await connection.closed


async def test_retiring_waits_for_who_was_promised_an_answer(pair: Pair) -> None:
    connection, peer = pair
    sent, given_up, unsent = ask(connection, "a"), ask(connection, "b"), ask(connection, "c")
    connection.retire()
    assert await peer.received() == asked("a", "b", "c")
    with pytest.raises(StoreUnavailable):
        ask(connection, "d")
    given_up.cancel()
    await peer.send(bulk("a") + bulk("b"))
    assert not connection.closed.done()
    await peer.send(bulk("c"))
    assert (sent.result(), unsent.result()) == ([b"a"], [b"c"])
    await connection.closed


async def test_retiring_when_nobody_waits_closes_at_once(pair: Pair) -> None:
    connection, peer = pair
    ask(connection, "a").cancel()
    connection.retire()
    await connection.closed
    assert await peer.received() == b""


async def test_a_retired_connection_closes_at_the_last_deadline(pair: Pair) -> None:
    connection, peer = pair
    silent = ask(connection, "a", deadline=later(0.02))
    await peer.received()
    connection.retire()
    await connection.closed
    assert type(told(silent)) is StoreTimeout


async def test_closing_tells_every_caller_and_sends_no_more(pair: Pair) -> None:
    connection, peer = pair
    sent = ask(connection, "a")
    assert await peer.received() == asked("a")
    changed = connection.watches.add(b"k")
    unsent = ask(connection, "b")
    connection.close()
    connection.close()
    for call, applied in ((sent, Applied.MAYBE), (unsent, Applied.NO)):
        assert type(told(call)) is StoreUnavailable
        assert told(call).applied is applied
    await connection.closed
    assert await peer.received() == b""
    assert changed.done()
    assert connection.watches.add(b"k").done(), "who comes too late must not wait"


def replies_to(requests: bytes, reader: hiredis.Reader) -> list[bytes]:
    """Return a reply for each whole request, which says to what."""
    reader.feed(requests)
    replies = []
    while (request := reader.gets()) is not False:
        name = request[1].decode()
        replies.append(b"-ERR %s\r\n" % name.encode() if name.endswith("e") else bulk(name))
    return replies


def expected_reply(name: str) -> Reply:
    return ErrorReply("ERR", f"ERR {name}") if name.endswith("e") else name.encode()


# What may happen, with whom or how much it concerns; the numbers are taken modulo what there is.
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(1, 4)),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("turn"), st.just(0)),
        st.tuples(st.just("send"), st.integers(1, 40)),
        st.tuples(st.just("push"), st.just(0)),
    ),
    max_size=60,
)


@given(actions=ACTIONS)
def test_each_caller_gets_exactly_its_own_replies(actions: list[tuple[str, int]]) -> None:
    asyncio.run(live_through(actions))


async def live_through(actions: list[tuple[str, int]]) -> None:
    async with connected() as (connection, peer):
        requests = hiredis.Reader()
        unanswered: deque[bytes] = deque()
        outgoing = b""
        calls: list[tuple[list[str], asyncio.Future[list[Reply]]]] = []
        for what, number in actions:
            if what == "call":
                names = [f"{len(calls)}.{at}{'e' * (at % 2)}" for at in range(number)]
                calls.append((names, ask(connection, *names)))
            elif what == "cancel" and calls:
                calls[number % len(calls)][1].cancel()
            elif what == "turn":
                unanswered += replies_to(await peer.received(), requests)
            elif what == "send":
                outgoing += b"".join(unanswered)
                unanswered.clear()
                await peer.send(outgoing[:number])
                outgoing = outgoing[number:]
            elif what == "push":
                outgoing += b"".join(unanswered) + PUSH
                unanswered.clear()
        unanswered += replies_to(await peer.received(), requests)
        await peer.send(outgoing + b"".join(unanswered))
        for names, call in calls:
            assert call.done()
            if not call.cancelled():
                assert call.result() == [expected_reply(name) for name in names]
        assert connection.usable
        assert nothing_is_kept(connection)
