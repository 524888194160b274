"""``Lane``: how a lost connection is made anew, against a server that the test plays itself."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Any, cast

import hiredis
import pytest
from redis.credentials import CredentialProvider

from sessionkit.errors import Applied, Backpressure, StoreTimeout, StoreUnavailable
from sessionkit_redis import lane as lane_module
from sessionkit_redis.addresses import Address
from sessionkit_redis.dialling import DirectDial
from sessionkit_redis.lane import Lane
from sessionkit_redis.multiplexer import BULK_BYTES, Multiplexer
from sessionkit_redis.options import RedisOptions
from sessionkit_redis.transport import pack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from sessionkit_redis.connection import Connection


class Greeter:
    """A server that answers each command with OK, once it is told to.

    Attributes:
        port: Where it listens.
        accepted: How many connections there were.
    """

    def __init__(self) -> None:
        self.port = 0
        self.accepted = 0
        self._greets = asyncio.Event()
        self._open: list[asyncio.StreamWriter] = []
        self._arrived = asyncio.Condition()

    def greet(self) -> None:
        """Answer, on the connections that wait for it and on later ones."""
        self._greets.set()

    def fall_silent(self) -> None:
        """Leave later connections without an answer."""
        self._greets.clear()

    async def hang_up(self) -> None:
        """Close the connections that there are."""
        writers, self._open = self._open, []
        for writer in writers:
            writer.close()
        for writer in writers:
            with suppress(OSError):  # the lane's end may be closed already
                await writer.wait_closed()

    async def arrivals(self, count: int) -> None:
        """Wait until there were that many connections."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self.accepted >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._open.append(writer)
        async with self._arrived:
            self.accepted += 1
            self._arrived.notify_all()
        requests = hiredis.Reader()
        with closing(writer), suppress(OSError):
            while data := await reader.read(65536):
                await self._greets.wait()
                requests.feed(data)
                while requests.gets() is not False:
                    writer.write(b"+OK\r\n")


@pytest.fixture
async def server() -> AsyncIterator[Greeter]:
    greeter = Greeter()
    async with await asyncio.start_server(greeter.serve, "127.0.0.1", 0) as listener:
        greeter.port = listener.sockets[0].getsockname()[1]
        yield greeter
        greeter.greet()
        await greeter.hang_up()


@pytest.fixture
async def lane(server: Greeter) -> AsyncIterator[Lane]:
    where = f"redis://127.0.0.1:{server.port}"
    lane = Lane(DirectDial(Address("127.0.0.1", server.port), RedisOptions(), where), where, 30.0)
    yield lane
    await lane.aclose()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The longest that each pause could have been; none is made."""
    longest: list[float] = []

    def shortest(low: float, high: float) -> float:
        assert low == 0, "full jitter"
        longest.append(high)
        return low

    monkeypatch.setattr(random, "uniform", shortest)
    return longest


def later(seconds: float = 30.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def start(coroutine: Coroutine[Any, Any, Connection]) -> asyncio.Task[Connection]:
    return asyncio.get_running_loop().create_task(coroutine)


def refused(task: asyncio.Task[Connection]) -> StoreUnavailable:
    """Return the error that a waiter was told."""
    error = task.exception()
    assert isinstance(error, StoreUnavailable)
    assert error.applied is Applied.NO
    return error


async def test_many_waiters_share_one_attempt(lane: Lane, server: Greeter) -> None:
    waiters = [start(lane.connected(later())) for _ in range(100)]
    await server.arrivals(1)
    waiters += [start(lane.connected(later())) for _ in range(100)]
    await asyncio.sleep(0)
    server.greet()
    connections = await asyncio.gather(*waiters)
    assert set(connections) == {lane.connection}
    assert connections[0].usable
    assert await lane.connected(later()) is connections[0]
    assert server.accepted == lane.connections_made == 1


async def test_waiters_are_served_in_the_order_in_which_they_came(lane: Lane, server: Greeter) -> None:
    served: list[int] = []

    async def wait(number: int) -> Connection:
        connection = await lane.connected(later())
        served.append(number)
        return connection

    waiters = [start(wait(number)) for number in range(50)]
    await server.arrivals(1)
    await server.hang_up()
    await asyncio.wait(waiters[:1])
    waiters += [start(wait(number)) for number in range(50, 100)]
    server.greet()
    await asyncio.wait(waiters)
    assert served == list(range(1, 100))
    refused(waiters[0])


async def test_who_came_first_is_told_of_a_failure_and_who_came_late_of_the_next_one(
    lane: Lane, server: Greeter
) -> None:
    first = start(lane.connected(later()))
    await server.arrivals(1)
    late = [start(lane.connected(later())) for _ in range(2)]
    await asyncio.sleep(0)
    await server.hang_up()
    await asyncio.wait([first])
    assert "closed the connection" in str(refused(first))
    await server.arrivals(2)
    assert not any(task.done() for task in late)
    await server.hang_up()
    await asyncio.wait(late)
    assert [refused(task).temporary for task in late] == [True, True]
    assert refused(late[0]) is not refused(late[1]), "a shared error would collect their tracebacks"
    assert server.accepted == 2
    assert lane.connections_made == 0


async def test_a_late_waiter_gets_the_connection_of_the_next_attempt(lane: Lane, server: Greeter) -> None:
    first = start(lane.connected(later()))
    await server.arrivals(1)
    late = start(lane.connected(later()))
    await asyncio.sleep(0)
    await server.hang_up()
    server.greet()
    assert (await late).usable
    refused(first)
    assert lane.connections_made == 1


async def test_without_a_late_waiter_no_attempt_follows_a_failure(
    lane: Lane, server: Greeter, pauses: list[float]
) -> None:
    only = start(lane.connected(later()))
    await server.arrivals(1)
    gives_up = start(lane.connected(later()))
    await asyncio.sleep(0)
    gives_up.cancel()
    await asyncio.wait([gives_up])
    await server.hang_up()
    await asyncio.wait([only])
    await asyncio.sleep(0)
    assert lane._attempt is None
    assert pauses == []
    assert server.accepted == 1


async def test_a_waiter_that_gives_up_does_not_end_the_attempt(lane: Lane, server: Greeter) -> None:
    impatient, cancelled = start(lane.connected(later(0.05))), start(lane.connected(later()))
    await server.arrivals(1)
    patient = start(lane.connected(later()))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(StoreTimeout, match="cannot be reached in time") as caught:
        await impatient
    assert caught.value.applied is Applied.NO
    assert caught.value.temporary is True
    server.greet()
    assert (await patient).usable
    assert cancelled.cancelled()
    assert server.accepted == 1
    assert not lane._waiters
    assert not lane._late


async def test_an_attempt_goes_on_when_everybody_has_given_up(lane: Lane, server: Greeter) -> None:
    only = start(lane.connected(later()))
    await server.arrivals(1)
    only.cancel()
    await asyncio.wait([only])
    server.greet()
    assert (await lane.connected(later())).usable
    assert server.accepted == lane.connections_made == 1


async def test_an_attempt_ends_by_itself(server: Greeter) -> None:
    where = "redis://host"
    lane = Lane(DirectDial(Address("127.0.0.1", server.port), RedisOptions(), where), where, 0.05)
    with pytest.raises(StoreTimeout) as caught:
        await lane.connected(later())
    assert caught.value.applied is Applied.NO
    server.greet()
    assert (await lane.connected(later())).usable
    assert server.accepted == 2
    await lane.aclose()


async def test_closing_while_connecting_tells_who_waits(lane: Lane, server: Greeter) -> None:
    before = asyncio.all_tasks()
    waiters = [start(lane.connected(later())) for _ in range(3)]
    await server.arrivals(1)
    serving = asyncio.all_tasks() - before - set(waiters)
    await lane.aclose()
    await asyncio.wait(waiters)
    assert [refused(task).temporary for task in waiters] == [False] * 3
    with pytest.raises(StoreUnavailable, match="closed") as caught:
        await lane.connected(later())
    assert caught.value.temporary is False
    # The server's own task ends once it reads that the attempt's connection is closed.
    server.greet()
    await asyncio.wait(serving)
    assert asyncio.all_tasks() - before == set()
    await lane.aclose()
    assert server.accepted == 1


class FailingDial:
    """A ``Dial`` that fails once it is told to."""

    def __init__(self) -> None:
        self.fails = asyncio.Event()

    async def __call__(self, deadline: float, predecessor: Connection | None = None) -> Connection:
        await self.fails.wait()
        raise StoreUnavailable("not there")

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("turns", range(4))
async def test_closing_around_the_turn_in_which_an_attempt_fails_tells_all(turns: int) -> None:
    dial = FailingDial()
    lane = Lane(dial, "redis://host", 30.0)
    waiters = []
    for _ in range(2):  # the second one comes late
        waiters.append(start(lane.connected(later())))
        await asyncio.sleep(0)
    dial.fails.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    await lane.aclose()
    await asyncio.wait(waiters, timeout=10)
    for waiter in waiters:
        refused(waiter)


async def test_closing_in_the_turn_in_which_the_connection_is_made_leaves_none(
    lane: Lane, server: Greeter
) -> None:
    server.greet()
    waiter = start(lane.connected(later()))
    await asyncio.sleep(0)
    attempt = lane._attempt
    assert attempt is not None
    await asyncio.wait([attempt])
    await lane.aclose()
    connection = attempt.result()
    assert connection.closed.done()
    assert await waiter is connection
    with pytest.raises(StoreUnavailable):
        connection.call(pack([("PING",)]), 1, later())


async def test_closing_waits_until_the_connections_are_gone(lane: Lane, server: Greeter) -> None:
    server.greet()
    connection = await lane.connected(later())
    server.fall_silent()
    call = connection.call(pack([("PING",)]), 1, later())
    await asyncio.sleep(0)
    await lane.aclose()
    assert connection.closed.done()
    error = call.exception()
    assert isinstance(error, StoreUnavailable)
    assert error.applied is Applied.MAYBE


async def test_a_retired_connection_is_replaced(lane: Lane, server: Greeter) -> None:
    server.greet()
    first = await lane.connected(later())
    lane.retire()
    assert not first.usable
    second = await lane.connected(later())
    assert second is not first
    assert second.usable
    await first.closed
    assert lane.connections_made == server.accepted == 2
    assert lane._live == {second}


async def test_a_connection_that_the_server_closes_is_replaced(lane: Lane, server: Greeter) -> None:
    server.greet()
    for number in range(1, 4):
        connection = await lane.connected(later())
        assert lane.connections_made == server.accepted == number
        await server.hang_up()
        await connection.closed
    assert lane._live == set()


async def test_a_retired_connection_and_its_successor_are_both_closed_at_the_end(
    lane: Lane, server: Greeter
) -> None:
    server.greet()
    retired = await lane.connected(later())
    server.fall_silent()
    call = retired.call(pack([("PING",)]), 1, later())
    await asyncio.sleep(0)
    retired.retire()
    server.greet()
    successor = await lane.connected(later())
    assert successor is not retired
    await lane.aclose()
    assert retired.closed.done()
    assert successor.closed.done()
    await asyncio.wait([call])


async def test_too_many_waiters_are_refused(
    lane: Lane, server: Greeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "MAX_CALLS", 2)
    waiters = [start(lane.connected(later())) for _ in range(2)]
    await server.arrivals(1)
    with pytest.raises(Backpressure) as caught:
        await lane.connected(later())
    assert caught.value.temporary is True
    assert caught.value.applied is Applied.NO
    server.greet()
    await asyncio.gather(*waiters)
    assert (await lane.connected(later())).usable


async def test_pauses_between_attempts_double_up_to_a_bound(
    lane: Lane, server: Greeter, pauses: list[float]
) -> None:
    for number in range(1, 7):
        attempt = start(lane.connected(later()))
        await server.arrivals(number)
        await server.hang_up()
        await asyncio.wait([attempt])
        refused(attempt)
    assert pauses == [0.1, 0.2, 0.4, 0.4, 0.4], "and none before the first"


@pytest.mark.usefixtures("pauses")
async def test_an_outage_is_logged_once(
    lane: Lane, server: Greeter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sessionkit.redis")
    for number in (1, 2, 3):
        attempt = start(lane.connected(later()))
        await server.arrivals(number)
        await server.hang_up()
        await asyncio.wait([attempt])
        refused(attempt)
    server.greet()
    connection = await lane.connected(later())
    server.fall_silent()
    await server.hang_up()
    await connection.closed
    attempt = start(lane.connected(later()))
    await server.arrivals(5)
    await server.hang_up()
    await asyncio.wait([attempt])
    refused(attempt)
    failed = [record.levelname for record in caplog.records if "to connect failed" in record.getMessage()]
    assert failed == ["INFO", "DEBUG", "DEBUG", "INFO"]


@pytest.mark.parametrize(("settled", "expected"), [(0.0, []), (3600.0, [0.1, 0.2])])
async def test_only_a_connection_that_has_lasted_is_replaced_without_a_pause(
    lane: Lane,
    server: Greeter,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    settled: float,
    expected: list[float],
) -> None:
    monkeypatch.setattr(lane_module, "_SETTLED", settled)
    server.greet()
    for _ in range(3):
        connection = await lane.connected(later())
        await server.hang_up()
        await connection.closed
    assert pauses == expected


async def test_a_pause_is_made(lane: Lane, server: Greeter, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    first = start(lane.connected(later()))
    await server.arrivals(1)
    await server.hang_up()
    await asyncio.wait([first])
    monkeypatch.setattr(random, "uniform", lambda _, high: high / 2)
    monkeypatch.setattr(asyncio, "sleep", cast("Any", noted))
    server.greet()
    await lane.connected(later())
    refused(first)
    assert slept == [0.05]


@pytest.mark.parametrize("size", [10, BULK_BYTES], ids=["short", "long"])
async def test_too_many_bytes_that_wait_for_a_connection_are_refused(
    server: Greeter, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(lane_module, "MAX_UNSENT_BYTES", size)
    where = f"redis://127.0.0.1:{server.port}"
    transport = Multiplexer(DirectDial(Address("127.0.0.1", server.port), RedisOptions(), where), where, 30.0)
    calls = [asyncio.ensure_future(transport.call([("SET", "key", bytes(size))])) for _ in range(3)]
    await server.arrivals(1)
    assert [call.done() for call in calls] == [False, True, True]
    for refused_one in calls[1:]:
        error = refused_one.exception()
        assert isinstance(error, Backpressure)
        assert error.applied is Applied.NO
    server.greet()
    assert await calls[0] == [b"OK"]
    assert await transport.call([("SET", "key", bytes(size))]) == [b"OK"], "they do not wait any more"
    await transport.aclose()


async def test_a_silent_address_of_a_host_name_does_not_hide_one_that_answers(
    server: Greeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    server.greet()
    # Its queue is full, so that a further connection is neither made nor refused.
    with socket.create_server(("127.0.0.2", server.port), backlog=0) as silent, ExitStack() as fillers:
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())

        async def resolve(*_: object, **__: object) -> object:
            kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*kind, (host, server.port)) for host in ("127.0.0.2", "127.0.0.1")]

        monkeypatch.setattr(loop, "getaddrinfo", resolve)
        dial = DirectDial(Address("redis.example", server.port), RedisOptions(), "redis://redis.example")
        connection = await dial(later(10.0))
        connection.close()
        await connection.closed


async def test_a_credential_provider_that_cancels_does_not_pass_for_a_closed_store(server: Greeter) -> None:
    class Cancelling(CredentialProvider):
        def get_credentials(self) -> tuple[str]:
            raise AssertionError("it is asked by the method that may wait")

        async def get_credentials_async(self) -> tuple[str]:
            raise asyncio.CancelledError

    options = RedisOptions(credential_provider=Cancelling())
    lane = Lane(DirectDial(Address("127.0.0.1", server.port), options, "redis://host"), "redis://host", 30.0)
    with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
        await lane.connected(later())
    assert caught.value.temporary is True
    await lane.aclose()
