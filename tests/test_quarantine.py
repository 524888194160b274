"""What is damaged is moved aside, listed, put back and removed; nothing is lost on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessionkit.codec import EncryptionKey, Keyring, Limits, MsgpackCodec
from sessionkit.errors import CorruptRecord, DecryptionError, InvalidKey, SessionKitError, VersionConflict
from sessionkit.quarantine import DEFAULT_KEPT_FOR, Quarantine
from sessionkit.store import MAX_VALUE_BYTES, Receipt, Where
from sessionkit.testing import ManualClock
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sessionkit.quarantine import Entry

KEY = "shop:session:7"
ERROR = CorruptRecord("7 bytes that are no sessionkit record")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(clock: ManualClock) -> AsyncIterator[MemoryStore]:
    async with MemoryStore(clock=clock) as store:
        yield store


@pytest.fixture
def quarantine(store: MemoryStore, clock: ManualClock) -> Quarantine:
    return Quarantine(store, MsgpackCodec(), "shop:", clock=clock)


async def damage(
    store: MemoryStore, quarantine: Quarantine, key: str = KEY, value: bytes = b"damaged"
) -> None:
    await store.put(key, value)
    record = await store.get(key)
    assert record is not None
    assert await quarantine.take(key, record, ERROR)
    assert await store.get(key) is None


async def entries(quarantine: Quarantine) -> list[Entry]:
    def none(key: str, error: SessionKitError) -> None:
        raise AssertionError(key, error)

    return [entry async for entry in quarantine.entries(none)]


async def test_an_entry_says_what_it_is_and_goes_after_thirty_days(
    store: MemoryStore, quarantine: Quarantine, clock: ManualClock
) -> None:
    await damage(store, quarantine)
    [entry] = await entries(quarantine)
    assert entry.record_key == KEY
    assert entry.value == b"damaged"
    assert entry.reason == str(ERROR)
    assert entry.moved == clock()
    assert entry.key.startswith("shop:quarantine:shop%3Asession%3A7:")
    assert repr(entry) == f"<Entry '{entry.key}': {ERROR}>"
    assert await quarantine.get(entry.key) == entry
    clock.advance(DEFAULT_KEPT_FOR - 1)
    assert await entries(quarantine) == [entry]
    clock.advance(2)
    assert await entries(quarantine) == []


async def test_a_key_may_be_damaged_twice(store: MemoryStore, quarantine: Quarantine) -> None:
    await damage(store, quarantine, value=b"one")
    await damage(store, quarantine, value=b"two")
    assert {entry.value for entry in await entries(quarantine)} == {b"one", b"two"}


async def test_nothing_is_moved_by_way_of_a_journal(clock: ManualClock) -> None:
    class Journaling(MemoryStore):
        """A store in the middle of an outage."""

        async def put(self, *args: Any, **kwargs: Any) -> Receipt:
            receipt = await super().put(*args, **kwargs)
            return receipt._replace(where=Where.JOURNALED)

    async with Journaling(clock=clock) as store:
        await store.put(KEY, b"damaged")
        record = await store.get(KEY)
        assert record is not None
        with pytest.raises(CorruptRecord):
            await Quarantine(store, MsgpackCodec(), "shop:").take(KEY, record, ERROR)
        assert await store.get(KEY) == record


async def test_restore_puts_it_back_where_nothing_is(
    store: MemoryStore, quarantine: Quarantine, clock: ManualClock
) -> None:
    await damage(store, quarantine)
    [entry] = await entries(quarantine)
    await store.put(KEY, b"new")
    with pytest.raises(VersionConflict):
        await quarantine.restore(entry)
    assert await entries(quarantine) == [entry]
    await store.delete(KEY)
    await quarantine.restore(entry, expires_in=10)
    record = await store.get(KEY)
    assert record is not None
    assert record.value == b"damaged"
    assert await entries(quarantine) == []
    clock.advance(11)
    assert await store.get(KEY) is None


async def test_purge_removes_an_entry_and_nothing_else(store: MemoryStore, quarantine: Quarantine) -> None:
    await damage(store, quarantine)
    [entry] = await entries(quarantine)
    await store.put(KEY, b"new")
    for call in (quarantine.purge(KEY), quarantine.get(KEY)):
        with pytest.raises(InvalidKey):
            await call
    assert await quarantine.purge(entry.key) is True
    assert await quarantine.purge(entry.key) is False
    assert await quarantine.get(entry.key) is None
    assert await store.get(KEY) is not None


async def test_entries_are_encrypted_like_every_record(store: MemoryStore) -> None:
    keyring = Keyring([EncryptionKey("a", bytes(32))])
    quarantine = Quarantine(store, MsgpackCodec(keyring=keyring), "shop:")
    await damage(store, quarantine)
    [entry] = await entries(quarantine)
    record = await store.get(entry.key)
    assert record is not None
    assert b"damaged" not in record.value
    with pytest.raises(DecryptionError):
        await Quarantine(store, MsgpackCodec(), "shop:").get(entry.key)


async def test_an_unreadable_entry_stops_no_other(store: MemoryStore, quarantine: Quarantine) -> None:
    await damage(store, quarantine)
    await store.put("shop:quarantine:a:1", b"damaged")
    await store.put("shop:quarantine:%zz", MsgpackCodec().encode({}))
    [good] = [
        entry
        for entry in [await quarantine.get(key) async for key in store.scan("shop:quarantine:shop%3A")]
        if entry
    ]
    forged = {"key": "shop:session:8", "reason": "", "moved": 1.0, "value": b""}
    await store.put("shop:quarantine:b:1", MsgpackCodec().encode(forged))
    told: dict[str, SessionKitError] = {}
    assert [entry async for entry in quarantine.entries(told.__setitem__)] == [good]
    assert set(told) == {"shop:quarantine:a:1", "shop:quarantine:%zz", "shop:quarantine:b:1"}


async def test_a_damaged_record_of_the_largest_size_is_moved_whole() -> None:
    store, codec = MemoryStore(), MsgpackCodec()
    damaged = b"\xc1" + bytes(3 * 1024 * 1024)
    await store.put("telegram_bot:session:1", damaged)
    quarantine = Quarantine(store, codec, "telegram_bot:")
    record = await store.get("telegram_bot:session:1")
    assert record is not None
    assert await quarantine.take("telegram_bot:session:1", record, CorruptRecord("damaged"))
    [entry] = [entry async for entry in quarantine.entries(lambda *_: None)]
    assert entry.value == damaged


async def test_one_that_leaves_no_room_for_an_entry_stays_and_is_called_damaged() -> None:
    await check_no_room(1000, MsgpackCodec(limits=Limits(stored_bytes=1000)))
    roomy = Limits(stored_bytes=2 * MAX_VALUE_BYTES)
    await check_no_room(MAX_VALUE_BYTES, MsgpackCodec(limits=roomy, compression="off"))


async def check_no_room(size: int, codec: MsgpackCodec) -> None:
    store = MemoryStore()
    receipt = await store.put("telegram_bot:session:1", bytes(size))
    record = await store.get("telegram_bot:session:1")
    assert record is not None
    with pytest.raises(CorruptRecord, match="damaged") as caught:
        await Quarantine(store, codec, "telegram_bot:").take(
            "telegram_bot:session:1", record, CorruptRecord("damaged")
        )
    assert "not moved" in caught.value.__notes__[0]
    there = await store.get("telegram_bot:session:1")
    assert there is not None
    assert there.version == receipt.version
