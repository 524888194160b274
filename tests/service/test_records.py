"""Sessions that are encrypted, of another schema, or damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessionkit.codec import EncryptionKey, Keyring, MsgpackCodec, new_key, read_info
from sessionkit.errors import (
    CodecError,
    ConfigurationError,
    CorruptRecord,
    DecryptionError,
    SessionExists,
    StoreUnavailable,
    VersionConflict,
)
from sessionkit.quarantine import Quarantine
from sessionkit.service import Session, SessionService
from sessionkit.store import ABSENT, Record
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sessionkit.store import Receipt

KEY = "telegram_bot:session:7"
ENCRYPTING = MsgpackCodec(keyring=Keyring([EncryptionKey("2024", bytes(32))]))


class CountingStore(MemoryStore):
    """A memory store that counts its writes, and lets a test act before one."""

    puts = 0
    before_delete: Callable[[], Awaitable[object]] | None = None
    down = False

    async def get(self, *args: Any, **kwargs: Any) -> Record | None:
        if self.down:
            raise StoreUnavailable("the store is down")
        return await super().get(*args, **kwargs)

    async def put(self, *args: Any, **kwargs: Any) -> Receipt:
        self.puts += 1
        return await super().put(*args, **kwargs)

    async def delete(self, *args: Any, **kwargs: Any) -> bool:
        if self.before_delete is not None:
            act, self.before_delete = self.before_delete, None
            await act()
        return await super().delete(*args, **kwargs)


@pytest.fixture
async def store() -> AsyncIterator[CountingStore]:
    async with CountingStore() as store:
        yield store


async def value_of(store: CountingStore, key: str = KEY) -> bytes:
    record = await store.get(key)
    assert record is not None
    return record.value


def rename(data: dict[str, Any]) -> dict[str, Any]:
    """Return data in which the amount has another name."""
    data["total"] = data.pop("amount")
    return data


MIGRATIONS = {1: rename, 2: lambda data: {**data, "currency": "EUR"}}


async def test_an_encrypted_session_that_is_not_changed_is_not_written(store: CountingStore) -> None:
    service = SessionService(store, codec=ENCRYPTING)
    await service.create_session(7, {"amount": 1})
    assert b"amount" not in await value_of(store)
    puts = store.puts
    async with service.edit_session(7) as session:
        session["amount"] = 1
    await service.update_session(7, lambda session: session.update(amount=1))
    assert store.puts == puts
    async with service.edit_session(7) as session:
        session["amount"] = 2
    assert store.puts == puts + 1
    changed = await service.get_session(7)
    assert changed is not None
    assert changed.data == {"amount": 2}
    assert [listed.data async for listed in service.active_sessions()] == [{"amount": 2}]


async def test_a_session_moved_to_another_user_is_refused(store: CountingStore) -> None:
    service = SessionService(store, codec=ENCRYPTING)
    await service.create_session(7, {"amount": 1})
    await store.put("telegram_bot:session:8", await value_of(store))
    with pytest.raises(DecryptionError, match=r"session 8: .*written for another storage key"):
        await service.get_session(8)
    assert [session.id async for session in service.active_sessions()] == [7]


async def test_the_codec_is_what_the_settings_say(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIONKIT_ENCRYPTION_KEYS", new_key("2026"))
    await SessionService(store).create_session(7, {"amount": 1})
    assert read_info(await value_of(store)).key_id == "2026"


async def test_a_session_of_schema_1_is_read_at_schema_3(store: CountingStore) -> None:
    await SessionService(store, codec=MsgpackCodec(schema=1)).create_session(7, {"amount": 5}, state="one")
    service = SessionService(store, codec=MsgpackCodec(schema=3, migrations=MIGRATIONS))
    session = await service.get_session(7)
    assert session is not None
    assert (session.data, session.state) == ({"total": 5, "currency": "EUR"}, "one")
    async with service.edit_session(7) as session:
        session["total"] += 1
    assert read_info(await value_of(store)).schema == 3
    session = await service.get_session(7)
    assert session is not None
    assert session.data == {"total": 6, "currency": "EUR"}
    old = SessionService(store, codec=MsgpackCodec(schema=1))
    with pytest.raises(CodecError, match="session 7: a record of schema 3"):
        await old.get_session(7)


async def test_migrations_are_of_the_services_namespace(store: CountingStore) -> None:
    await SessionService(store, "depot", codec=MsgpackCodec()).create_session(7, {"amount": 5})
    for kind, data in (("depot", {"total": 5}), ("session", {"amount": 5})):
        codec = MsgpackCodec(schema=2, migrations={1: {kind: rename}})
        session = await SessionService(store, "depot", codec=codec).get_session(7)
        assert session is not None
        assert session.data == data


async def test_a_migration_that_makes_no_dict_is_told(store: CountingStore) -> None:
    await SessionService(store, codec=MsgpackCodec()).create_session(7, {"amount": 5})
    codec = MsgpackCodec(schema=2, migrations={1: list})
    with pytest.raises(
        CodecError, match="session 7: the migrations made list of the session's data"
    ) as caught:
        await SessionService(store, codec=codec, on_corrupt="quarantine").get_session(7)
    assert not isinstance(caught.value, CorruptRecord)


def clear(session: Session) -> None:
    session.clear()


async def edit(service: SessionService) -> None:
    async with service.edit_session(7) as session:
        session.clear()


UNREADABLE = {
    "newer schema": MsgpackCodec(schema=4),
    "missing key": ENCRYPTING,
}


@pytest.mark.parametrize("writer", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("on_corrupt", ["raise", "quarantine"])
async def test_what_can_be_read_elsewhere_is_not_overwritten(
    store: CountingStore, writer: MsgpackCodec, on_corrupt: Any
) -> None:
    await SessionService(store, codec=writer).create_session(7, {"amount": 5})
    stored = await store.get(KEY)
    service = SessionService(
        store, codec=MsgpackCodec(schema=3, migrations=MIGRATIONS), on_corrupt=on_corrupt
    )
    await service.create_session(8)
    for call in (
        service.get_session(7),
        service.create_session(7),
        service.create_session(7, {"amount": 6}, replace=True),
        service.update_session(7, clear),
        edit(service),
    ):
        with pytest.raises(CodecError, match="session 7: ") as caught:
            await call
        assert not isinstance(caught.value, CorruptRecord)
    assert [session.id async for session in service.active_sessions()] == [8]
    assert await store.get(KEY) == stored
    assert sorted([key async for key in store.scan("")]) == [KEY, "telegram_bot:session:8"]


async def test_a_session_is_replaced_over_one_that_comes_meanwhile(store: CountingStore) -> None:
    service = SessionService(store)

    class Racing(CountingStore):
        """A store in which somebody is always faster, once."""

        raced = False

        async def put(self, *args: Any, **kwargs: Any) -> Receipt:
            if not self.raced:
                self.raced = True
                await self.put(args[0], b"theirs", if_version=ABSENT)
            return await super().put(*args, **kwargs)

    async with Racing() as racing:
        service = SessionService(racing)
        await service.create_session(7, {"n": 1}, replace=True)
        session = await service.get_session(7)
        assert session is not None
        assert session.data == {"n": 1}


async def test_what_cannot_be_looked_at_is_not_replaced(store: CountingStore) -> None:
    service = SessionService(store)
    await service.create_session(7, {"n": 1})
    store.down = True
    with pytest.raises(StoreUnavailable):
        await service.create_session(7, {"n": 2}, replace=True)
    await service.create_session(8, {"n": 3}, replace=True)
    store.down = False
    for number, n in ((7, 1), (8, 3)):
        session = await service.get_session(number)
        assert session is not None
        assert session.data == {"n": n}


DAMAGED = [b"", b"garbage", MsgpackCodec().encode({"no": "session"})]


@pytest.mark.parametrize("damaged", DAMAGED, ids=repr)
async def test_a_damaged_session_is_moved_aside_and_reads_as_absent(
    store: CountingStore, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    receipt = await store.put(KEY, damaged)
    service = SessionService(store, on_corrupt="quarantine")
    assert await service.get_session(7) is None
    entry = f"telegram_bot:quarantine:telegram_bot%3Asession%3A7:{receipt.version.hex()}"
    moved = await Quarantine(store, MsgpackCodec(), "telegram_bot:").get(entry)
    assert moved is not None
    assert (moved.record_key, moved.value) == (KEY, damaged)
    assert f"record {KEY} is damaged and was moved to {entry}: session 7: " in caplog.text
    assert caplog.records[-1].__dict__["key"] == KEY
    await service.create_session(7, {"n": 1})
    assert len([key async for key in store.scan("telegram_bot:quarantine:")]) == 1


@pytest.mark.parametrize("damaged", DAMAGED, ids=repr)
async def test_a_session_takes_the_place_of_a_damaged_one(store: CountingStore, damaged: bytes) -> None:
    service = SessionService(store, on_corrupt="quarantine")
    await store.put(KEY, damaged)
    await service.create_session(7)
    await store.put(KEY, damaged)
    await service.create_session(7, replace=True)
    assert len([key async for key in store.scan("telegram_bot:quarantine:")]) == 2
    await store.put(KEY, damaged)
    await SessionService(store).create_session(7, replace=True)
    assert len([key async for key in store.scan("telegram_bot:quarantine:")]) == 2
    with pytest.raises(SessionExists):
        await service.create_session(7)


async def test_a_good_record_written_meanwhile_is_not_lost(store: CountingStore) -> None:
    service = SessionService(store, on_corrupt="quarantine")
    await service.create_session(7, {"n": 1})
    good = await value_of(store)
    await store.put(KEY, b"damaged")
    store.before_delete = lambda: store.put(KEY, good)
    session = await service.get_session(7)
    assert session is not None
    assert session.data == {"n": 1}
    assert await value_of(store) == good


async def test_a_stale_copy_is_not_moved(store: CountingStore) -> None:
    class Stale(CountingStore):
        """A store that answers from what it remembers."""

        async def get(self, *args: Any, **kwargs: Any) -> Record | None:
            record = await super().get(*args, **kwargs)
            return None if record is None else record._replace(stale=True)

    async with Stale() as stale:
        await stale.put(KEY, b"damaged")
        service = SessionService(stale, on_corrupt="quarantine")
        with pytest.raises(CorruptRecord):
            await service.get_session(7)
        assert await value_of(stale) == b"damaged"


async def test_a_move_that_fails_is_an_error_and_loses_nothing(store: CountingStore) -> None:
    service = SessionService(store, on_corrupt="quarantine")
    await store.put(KEY, b"damaged")

    async def fail() -> None:
        raise StoreUnavailable("the store is down")

    store.before_delete = fail
    with pytest.raises(StoreUnavailable):
        await service.get_session(7)
    assert await value_of(store) == b"damaged"
    assert await service.get_session(7) is None
    assert len([key async for key in store.scan("telegram_bot:quarantine:")]) == 1, "the same entry again"


def test_on_corrupt_is_one_of_two(store: CountingStore) -> None:
    wrong: Any = "ignore"
    with pytest.raises(ConfigurationError, match="on_corrupt is 'raise' or 'quarantine', not 'ignore'"):
        SessionService(store, on_corrupt=wrong)


async def test_replacing_gives_up_after_a_hundred_losses() -> None:
    class Busy(MemoryStore):
        """A store in which somebody is always faster."""

        async def put(self, *args: Any, **kwargs: Any) -> Receipt:
            raise VersionConflict(args[0], current=ABSENT)

    async with Busy() as busy:
        with pytest.raises(VersionConflict):
            await SessionService(busy).create_session(7, replace=True)
