from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import pytest

from sessionkit.codec import MsgpackCodec
from sessionkit.errors import (
    ConfigurationError,
    CorruptRecord,
    InvalidExpiry,
    InvalidKey,
    LockNotAcquired,
    NestedEdit,
    SessionExists,
    SessionExpired,
    StoreUnavailable,
    UnsupportedType,
    VersionConflict,
)
from sessionkit.service import Session, SessionService
from sessionkit.testing import ManualClock
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sessionkit.store import Receipt

KEY = "telegram_bot:session:7"


class CountingStore(MemoryStore):
    """A memory store that counts its writes."""

    puts = 0

    async def put(self, *args: Any, **kwargs: Any) -> Receipt:
        self.puts += 1
        return await super().put(*args, **kwargs)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(clock: ManualClock) -> AsyncIterator[CountingStore]:
    async with CountingStore(clock=clock) as store:
        yield store


@pytest.fixture
def service(store: CountingStore, clock: ManualClock) -> SessionService:
    return SessionService(store, clock=clock)


async def test_a_session_comes_back_as_it_was_created(service: SessionService, clock: ManualClock) -> None:
    created = await service.create_session(7, {"amount": Decimal("1.5"), 1: (2,)}, state="amount")
    clock.advance(10)
    session = await service.get_session(7)
    assert session is not None
    assert session.id == 7
    assert session.data == {"amount": Decimal("1.5"), 1: (2,)}
    assert session.state == "amount"
    assert session.created_at == created.created_at == datetime.fromtimestamp(clock() - 10, UTC)
    assert session.renewed_at == datetime.fromtimestamp(clock(), UTC)
    assert session.deadline == session.renewed_at + timedelta(minutes=5)
    assert session.degraded is False


async def test_a_session_without_data_is_true(service: SessionService) -> None:
    await service.create_session(7)
    assert await service.get_session(7)


async def test_no_session_is_none(service: SessionService) -> None:
    assert await service.get_session("nobody") is None


async def test_what_is_handed_out_is_a_copy(service: SessionService) -> None:
    data = {"list": [1]}
    session = await service.create_session(7, data)
    session["list"].append(2)
    data["more"] = [3]
    again = await service.get_session(7)
    assert again is not None
    assert again.data == {"list": [1]}


async def test_a_live_session_is_not_created_again(service: SessionService) -> None:
    await service.create_session(7, {"n": 1})
    with pytest.raises(SessionExists, match="7"):
        await service.create_session(7, {"n": 2})
    replaced = await service.create_session(7, {"n": 3}, replace=True)
    assert replaced["n"] == 3
    stored = await service.get_session(7)
    assert stored is not None
    assert stored["n"] == 3


async def test_of_many_creators_one_succeeds(service: SessionService) -> None:
    results = await asyncio.gather(*(service.create_session(7) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, Session) for result in results) == 1
    assert sum(isinstance(result, SessionExists) for result in results) == 19


async def test_silence_ends_a_session(service: SessionService, clock: ManualClock) -> None:
    await service.create_session(7)
    clock.advance(299)
    assert await service.get_session(7) is not None
    clock.advance(299)
    assert await service.get_session(7, renew=False) is not None
    clock.advance(1)
    assert await service.get_session(7) is None
    with pytest.raises(SessionExpired, match="7"):
        async with service.edit_session(7):
            pytest.fail("edited what is gone")
    await service.create_session(7)


async def test_an_edit_is_a_sign_of_life(service: SessionService, clock: ManualClock) -> None:
    await service.create_session(7)
    clock.advance(200)
    async with service.edit_session(7) as session:
        session.state = "next"
    clock.advance(200)
    assert await service.get_session(7, renew=False) is not None


@pytest.mark.parametrize("idle_timeout", [100, timedelta(seconds=100), None], ids=repr)
async def test_a_lifetime_ends_a_session_whatever_renews_it(
    store: CountingStore, clock: ManualClock, idle_timeout: float | timedelta | None
) -> None:
    service = SessionService(store, idle_timeout=idle_timeout, lifetime=250, clock=clock)
    await service.create_session(7)
    for _ in range(4):
        clock.advance(60)
        async with service.edit_session(7) as session:
            session["n"] = session.get("n", 0) + 1
    assert session.deadline == session.created_at + timedelta(seconds=250)
    clock.advance(9)
    assert await service.get_session(7) is not None
    clock.advance(2)
    assert await service.get_session(7) is None
    assert await service.count_sessions() == 0


async def test_a_renewal_does_not_shorten_the_session_that_takes_its_place(clock: ManualClock) -> None:
    class Meddling(MemoryStore):
        """Another instance replaces the session just as its renewal is cut to its lifetime."""

        async def touch(self, key: str, **options: Any) -> bool:
            await sessions.create_session(7, {"new": True}, replace=True)
            return await super().touch(key, **options)

    async with Meddling(clock=clock) as store:
        sessions = SessionService(store, lifetime=400, clock=clock)
        await sessions.create_session(7)
        clock.advance(290)
        assert await sessions.get_session(7) is not None
        clock.advance(250)
        session = await sessions.get_session(7, renew=False)
        assert session is not None
        assert session["new"] is True


async def test_a_record_that_outlived_its_session_is_in_nobodys_way(clock: ManualClock) -> None:
    class Failing(MemoryStore):
        """The cut of a renewal to the session's lifetime fails, as by a kill in between."""

        async def touch(self, key: str, **options: Any) -> bool:
            raise StoreUnavailable("down")

    async with Failing(clock=clock) as store:
        sessions = SessionService(store, lifetime=400, clock=clock)
        await sessions.create_session(7)
        clock.advance(290)
        with pytest.raises(StoreUnavailable):
            await sessions.get_session(7)
        clock.advance(120)
        await sessions.create_session(7, {"new": True})
        session = await sessions.get_session(7, renew=False)
        assert session is not None
        assert session["new"] is True


async def test_a_copy_from_store_to_store_is_no_nested_edit(clock: ManualClock) -> None:
    async with MemoryStore() as one, MemoryStore() as other:
        for store in (one, other):
            await SessionService(store).create_session(7)
        async with SessionService(one).edit_session(7), SessionService(other).edit_session(7) as session:
            session["copied"] = True


async def test_a_session_without_timeouts_stays(store: CountingStore, clock: ManualClock) -> None:
    service = SessionService(store, idle_timeout=None, clock=clock)
    await service.create_session(7)
    clock.advance(10 * 365 * 86400)
    session = await service.get_session(7)
    assert session is not None
    assert session.deadline is None


@pytest.mark.parametrize("bad", [0, -1, float("nan"), timedelta(0)], ids=repr)
async def test_a_timeout_is_above_zero(store: CountingStore, bad: float | timedelta) -> None:
    with pytest.raises(InvalidExpiry, match=r"^idle_timeout: an expiry is above 0"):
        SessionService(store, idle_timeout=bad)
    with pytest.raises(InvalidExpiry, match=r"^lifetime: an expiry is above 0"):
        SessionService(store, lifetime=bad)


def test_a_timeout_is_no_text(store: CountingStore) -> None:
    with pytest.raises(InvalidExpiry, match=r"^idle_timeout: an expiry is a number of seconds, not str$"):
        SessionService(store, idle_timeout=cast("Any", "5"))


async def test_an_edit_is_kept_when_its_body_ends_well(service: SessionService) -> None:
    await service.create_session(7, {"n": 1}, state="one")
    async with service.edit_session(7) as session:
        session["n"] += 1
        del session["n"]
        session["m"] = {1, 2}
        session.state = "two"
    stored = await service.get_session(7)
    assert stored is not None
    assert stored.data == {"m": {1, 2}}
    assert stored.state == "two"


async def test_an_edit_is_dropped_when_its_body_raises(service: SessionService, store: CountingStore) -> None:
    await service.create_session(7, {"list": [1]}, state="one")
    with pytest.raises(ZeroDivisionError):
        async with service.edit_session(7) as session:
            session["list"].append(2)
            session.state = "two"
            raise ZeroDivisionError
    stored = await service.get_session(7)
    assert stored is not None
    assert (stored.data, stored.state) == ({"list": [1]}, "one")
    assert store.puts == 1


async def test_an_edit_that_changes_nothing_sends_nothing(
    service: SessionService, store: CountingStore
) -> None:
    await service.create_session(7, {"set": {"a", "b", "c"}, "n": [1]})
    async with service.edit_session(7) as session:
        session["n"].append(2)
        session["n"].pop()
        session["set"] = {"c", "b", "a"}
    assert store.puts == 1


async def test_a_change_deep_inside_is_noticed(service: SessionService) -> None:
    await service.create_session(7, {"cart": [{"items": []}]})
    async with service.edit_session(7) as session:
        session["cart"][0]["items"].append("apple")
    stored = await service.get_session(7)
    assert stored is not None
    assert stored.data == {"cart": [{"items": ["apple"]}]}


async def test_a_change_of_type_alone_is_noticed(service: SessionService) -> None:
    await service.create_session(7, {"flag": 1})
    async with service.edit_session(7) as session:
        session["flag"] = True
    stored = await service.get_session(7)
    assert stored is not None
    assert stored["flag"] is True


async def test_edits_of_one_session_take_turns(service: SessionService) -> None:
    async def increment() -> None:
        async with service.edit_session(7, wait=None) as session:
            seen = session["n"]
            await asyncio.sleep(0)
            session["n"] = seen + 1

    await service.create_session(7, {"n": 0})
    await asyncio.gather(*(increment() for _ in range(50)))
    stored = await service.get_session(7)
    assert stored is not None
    assert stored["n"] == 50


async def test_an_edit_inside_itself_is_noticed(service: SessionService) -> None:
    await service.create_session(7)
    await service.create_session(8)
    async with service.edit_session(7), service.edit_session(8):
        with pytest.raises(NestedEdit, match="7"):
            async with service.edit_session(7):
                pytest.fail("entered")
        with pytest.raises(NestedEdit):
            await asyncio.create_task(_edit(service, 7))
    async with service.edit_session(7):
        pass


async def test_a_task_left_behind_by_an_edit_may_edit_after_it(service: SessionService) -> None:
    await service.create_session(7)
    over = asyncio.Event()

    async def later() -> None:
        await over.wait()
        await _edit(service, 7)

    async with service.edit_session(7):
        task = asyncio.create_task(later())
    over.set()
    await task


async def test_an_edit_waits_no_longer_than_told(service: SessionService) -> None:
    await service.create_session(7)
    inside, leave = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with service.edit_session(7):
            inside.set()
            await leave.wait()

    holder = asyncio.create_task(hold())
    await inside.wait()
    with pytest.raises(LockNotAcquired):
        async with service.edit_session(7, wait=0):
            pytest.fail("entered")
    leave.set()
    await holder


async def test_a_write_past_an_edit_is_not_overwritten(service: SessionService) -> None:
    await service.create_session(7, {"n": 0})
    with pytest.raises(VersionConflict):
        async with service.edit_session(7) as session:
            session["n"] = 1
            await service.create_session(7, {"n": 2}, replace=True)
    stored = await service.get_session(7)
    assert stored is not None
    assert stored["n"] == 2


async def test_a_session_ended_inside_its_edit_stays_ended(service: SessionService) -> None:
    await service.create_session(7, {"n": 0})
    async with service.edit_session(7):
        assert await service.cleanup_session(7) is True
    assert await service.get_session(7) is None


async def test_what_cannot_be_kept_is_refused_with_its_path(service: SessionService) -> None:
    with pytest.raises(UnsupportedType, match=r"session 7.*data.*cart.*\[1\]"):
        await service.create_session(7, {"cart": [1, object()]})
    assert await service.get_session(7) is None
    await service.create_session(7, {"cart": []})
    with pytest.raises(UnsupportedType, match=r"cart"):
        async with service.edit_session(7) as session:
            session["cart"].append(object())
    stored = await service.get_session(7)
    assert stored is not None
    assert stored.data == {"cart": []}


async def test_updates_lose_no_increment(service: SessionService) -> None:
    async def increment(session: Session) -> None:
        seen = session["n"]
        await asyncio.sleep(0)
        session["n"] = seen + 1

    await service.create_session(7, {"n": 0})
    await asyncio.gather(*(service.update_session(7, increment) for _ in range(20)))
    updated = await service.update_session(7, lambda session: session.update(done=True))
    assert updated.data == {"n": 20, "done": True}


async def test_an_update_gives_up_when_others_never_stop_writing(service: SessionService) -> None:
    async def interfere(session: Session) -> None:
        session["mine"] = True
        await service.create_session(7, {"theirs": session.get("theirs", 0) + 1}, replace=True)

    await service.create_session(7)
    with pytest.raises(VersionConflict):
        await service.update_session(7, interfere)
    stored = await service.get_session(7)
    assert stored is not None
    assert "mine" not in stored


async def test_an_update_of_nothing_is_expired(service: SessionService) -> None:
    with pytest.raises(SessionExpired):
        await service.update_session(7, lambda session: session.clear())


async def test_cleanup_says_whether_there_was_a_session_and_logs_why(
    service: SessionService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sessionkit.service")
    await service.create_session(7, {"secret": "tune"})
    assert await service.cleanup_session(7, "deposit 9", reason="cancelled") is True
    assert await service.cleanup_session(7) is False
    ended = caplog.records[1]
    assert ended.message == "session ended"
    assert (vars(ended)["reason"], vars(ended)["reference"]) == ("cancelled", "deposit 9")
    assert "tune" not in caplog.text


async def test_active_sessions_are_all_of_them_and_no_others(
    service: SessionService, store: CountingStore, clock: ManualClock
) -> None:
    ids = [7, "7", (1, "a:b"), *range(100, 600)]
    for session_id in ids:
        await service.create_session(session_id, {"id": session_id})
    await SessionService(store, "session_of_another_kind", clock=clock).create_session(9)
    found = {session.id: session.data async for session in service.active_sessions()}
    assert found == {session_id: {"id": session_id} for session_id in ids}
    assert await service.count_sessions() == len(ids)
    clock.advance(301)
    assert [session async for session in service.active_sessions()] == []
    assert await service.count_sessions() == 0


async def test_listing_renews_nothing(service: SessionService, clock: ManualClock) -> None:
    await service.create_session(7)
    clock.advance(200)
    [session] = [session async for session in service.active_sessions()]
    assert session.deadline == session.created_at + timedelta(minutes=5)
    clock.advance(100)
    assert await service.get_session(7) is None


async def test_listing_may_be_left_early(service: SessionService) -> None:
    for session_id in range(5):
        await service.create_session(session_id)
    async with aclosing(service.active_sessions()) as sessions:  # type: ignore[type-var]  # it is a generator
        async for _ in sessions:
            break


@pytest.mark.parametrize("stored", [b"", b"garbage", MsgpackCodec().encode({"no": "session"})], ids=repr)
async def test_a_damaged_session_is_reported_and_stops_no_other(
    service: SessionService, store: CountingStore, caplog: pytest.LogCaptureFixture, stored: bytes
) -> None:
    await store.put(KEY, stored)
    await service.create_session(8)
    for call in (
        service.get_session(7),
        service.update_session(7, lambda session: session.clear()),
        _edit(service, 7),
    ):
        with pytest.raises(CorruptRecord, match="session 7: "):
            await call
    assert [session.id async for session in service.active_sessions()] == [8]
    assert f"session {KEY} is not readable, passed over" in caplog.text
    record = await store.get(KEY)
    assert record is not None
    assert record.value == stored


async def test_a_repr_shows_no_data(service: SessionService) -> None:
    session = await service.create_session(7, {"name": "Ada"}, state="one")
    assert "Ada" not in repr(session)
    assert "one" in repr(session)


async def test_an_edit_of_a_session_that_ends_meanwhile_says_that_it_ended(
    service: SessionService, clock: ManualClock
) -> None:
    await service.create_session(7)
    with pytest.raises(SessionExpired):
        async with service.edit_session(7) as session:
            session["n"] = 1
            await service.cleanup_session(7)
    assert await service.get_session(7) is None
    await service.create_session(7)
    with pytest.raises(SessionExpired):
        async with service.edit_session(7) as session:
            session["n"] = 1
            clock.advance(301)
    assert await service.get_session(7) is None


async def test_what_is_no_data_is_refused(service: SessionService) -> None:
    with pytest.raises(UnsupportedType, match="session 7: data is a mapping, not list"):
        await service.create_session(7, cast("Any", [1]))


def test_a_service_works_on_a_store() -> None:
    with pytest.raises(ConfigurationError, match="open_store"):
        SessionService(cast("Any", "sqlite:///bot.db"))


def test_an_argument_of_another_type_is_refused(store: CountingStore) -> None:
    with pytest.raises(ConfigurationError, match=r"^codec is a Codec or None, not 3$"):
        SessionService(store, codec=cast("Any", 3))
    with pytest.raises(InvalidKey, match=r"^3: a key prefix is made of"):
        SessionService(store, prefix=cast("Any", 3))
    with pytest.raises(InvalidKey, match=r"^3: a namespace is made of"):
        SessionService(store, cast("Any", 3))


async def test_the_prefix_and_the_namespace_are_the_keys(store: CountingStore) -> None:
    await SessionService(store, "depot", prefix="shop:").create_session((1, "a:b"))
    assert [key async for key in store.scan("")] == ["shop:depot:1:a%3Ab"]
    with pytest.raises(InvalidKey):
        SessionService(store, "a:b")


async def _edit(service: SessionService, session_id: int) -> None:
    async with service.edit_session(session_id):
        pass
