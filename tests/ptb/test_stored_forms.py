"""PTB's data that are encrypted, of another schema, or damaged."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from sessionkit.codec import EncryptionKey, Keyring, Migration, MsgpackCodec, new_key, read_info
from sessionkit.errors import CodecError, ConfigurationError, CorruptRecord, StoreUnavailable
from sessionkit.ptb import SessionPersistence
from sessionkit.quarantine import Quarantine
from sessionkit.resilience import ConflictFound
from tests.ptb.conftest import UnsteadyStore

if TYPE_CHECKING:
    from sessionkit.quarantine import Entry
    from sessionkit.store import Record

USER = "telegram_bot:user_data:7"
ENCRYPTING = MsgpackCodec(keyring=Keyring([EncryptionKey("2024", bytes(32))]))


async def value_of(store: UnsteadyStore, key: str) -> bytes:
    record = await store.get(key)
    assert record is not None
    return record.value


def written(store: UnsteadyStore) -> list[str]:
    return [put.key for batch in store.batches for put in batch]


async def test_encrypted_data_that_have_not_changed_cost_nothing(store: UnsteadyStore) -> None:
    persistence = SessionPersistence(store, codec=ENCRYPTING)
    for _ in range(3):
        await persistence.update_user_data(7, {"name": "Ada"})
        await persistence.update_bot_data({"n": 1})
        await persistence.update_conversation("depot", (1, 7), "amount")
    assert len(written(store)) == 3
    for key in written(store):
        assert read_info(await value_of(store, key)).key_id == "2024"
    again = SessionPersistence(store, codec=ENCRYPTING)
    assert await again.get_user_data() == {7: {"name": "Ada"}}
    assert await again.get_bot_data() == {"n": 1}
    assert await again.get_conversations("depot") == {(1, 7): "amount"}
    await again.update_user_data(7, {"name": "Ada"})
    await again.update_bot_data({"n": 1})
    assert len(written(store)) == 3
    await again.update_user_data(7, {"name": "Bob"})
    assert len(written(store)) == 4


async def test_nothing_is_compressed_or_encrypted_that_is_not_written(store: UnsteadyStore) -> None:
    class Counting(MsgpackCodec):
        """A codec that counts what it packs and wraps."""

        packed = wrapped = 0

        def pack(self, obj: object, *, name: str = "value") -> bytes:
            self.packed += 1
            return super().pack(obj, name=name)

        def wrap(self, plain: bytes, *, key: str | None = None) -> bytes:
            self.wrapped += 1
            return super().wrap(plain, key=key)

    codec = Counting()
    persistence = SessionPersistence(store, codec=codec)
    for _ in range(3):
        await persistence.update_bot_data({"n": 1})
    assert (codec.packed, codec.wrapped) == (3, 1)


async def test_data_moved_to_another_user_are_not_read(
    store: UnsteadyStore, caplog: pytest.LogCaptureFixture
) -> None:
    persistence = SessionPersistence(store, codec=ENCRYPTING)
    await persistence.update_user_data(7, {"name": "Ada"})
    await store.put("telegram_bot:user_data:8", await value_of(store, USER))
    assert await SessionPersistence(store, codec=ENCRYPTING).get_user_data() == {7: {"name": "Ada"}}
    assert "telegram_bot:user_data:8 is not readable and is kept" in caplog.text


async def test_the_codec_is_what_the_settings_say(
    store: UnsteadyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIONKIT_ENCRYPTION_KEYS", new_key("2026"))
    await SessionPersistence(store).update_user_data(7, {"n": 1})
    assert read_info(await value_of(store, USER)).key_id == "2026"


def rename(data: dict[str, Any]) -> dict[str, Any]:
    """Return data in which the amount has another name."""
    data["total"] = data.pop("amount")
    return data


async def test_schema_1_is_read_at_schema_3_by_two_migrations(store: UnsteadyStore) -> None:
    old = SessionPersistence(store, codec=MsgpackCodec(schema=1))
    await old.update_user_data(7, {"amount": 1})
    await old.update_chat_data(-1, {"amount": 2})
    await old.update_bot_data({"amount": 3})
    await old.update_conversation("depot", (1, 7), "amount")
    callbacks: Any = ([("uuid", 12.5, {"button": 1})], {"query": "uuid"})
    await old.update_callback_data(callbacks)
    migrations: dict[int, Migration] = {1: rename, 2: {"user_data": lambda data: {**data, "seen": False}}}
    now = SessionPersistence(store, codec=MsgpackCodec(schema=3, migrations=migrations))
    assert await now.get_user_data() == {7: {"total": 1, "seen": False}}
    assert await now.get_chat_data() == {-1: {"total": 2}}
    assert await now.get_bot_data() == {"total": 3}
    assert await now.get_conversations("depot") == {(1, 7): "amount"}, "states are not data"
    assert await now.get_callback_data() == callbacks, "PTB's own"
    store.batches.clear()
    for _ in range(2):
        await now.update_bot_data({"total": 3})
    assert written(store) == ["telegram_bot:bot_data:all"], "once, at the schema of today"
    assert read_info(await value_of(store, "telegram_bot:bot_data:all")).schema == 3


NEWER = MsgpackCodec(schema=4)


class Raced(UnsteadyStore):
    """A store in which a newer bot writes a record right after it was read."""

    raced = ""

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        record = await super().get(key, renew_for=renew_for)
        if key == self.raced:
            self.raced = ""
            await self.put(key, NEWER.encode({"n": 1}, key=key))
        return record


async def test_what_a_newer_bot_writes_before_it_is_deleted_stays() -> None:
    async with Raced() as store:
        store.raced = "telegram_bot:user_data:7"
        await SessionPersistence(store, loading="lazy").drop_user_data(7)
        assert NEWER.decode(await value_of(store, "telegram_bot:user_data:7")) == {"n": 1}


async def end_and_fail_to_begin_again(persistence: SessionPersistence, store: UnsteadyStore) -> None:
    await persistence.update_conversation("depot", (1, 7), "amount")
    await persistence.update_conversation("depot", (1, 7), None)
    store.down = True
    with pytest.raises(StoreUnavailable):
        await persistence.update_conversation("depot", (1, 7), "again")
    store.down = False


async def test_what_a_newer_bot_writes_after_an_end_stays(store: UnsteadyStore) -> None:
    key = "telegram_bot:conversation:depot:1:7"
    persistence = SessionPersistence(store)
    await end_and_fail_to_begin_again(persistence, store)
    await store.put(key, NEWER.encode("confirm", key=key))
    with suppress(CodecError):
        await persistence.update_conversation("depot", (1, 7), None)
    assert NEWER.decode(await value_of(store, key)) == "confirm"
    await persistence.records.writer.aclose()


async def test_what_another_bot_writes_after_an_end_stays_and_is_told(store: UnsteadyStore) -> None:
    key = "telegram_bot:conversation:depot:1:7"
    persistence, told = SessionPersistence(store), list[object]()
    persistence.subscribe(told.append)
    await end_and_fail_to_begin_again(persistence, store)
    await store.put(key, MsgpackCodec().encode("theirs", key=key))
    await persistence.update_conversation("depot", (1, 7), None)
    assert MsgpackCodec().decode(await value_of(store, key)) == "theirs"
    assert told == [ConflictFound(key, "primary")]
    await persistence.records.writer.aclose()


async def test_a_keyboard_that_may_not_be_deleted_costs_no_other(store: UnsteadyStore) -> None:
    persistence = SessionPersistence(store)
    await persistence.update_callback_data(([("k1", 1.0, {}), ("k2", 1.0, {})], {}))
    key = "telegram_bot:keyboard:k1"
    await store.put(key, NEWER.encode((1.0, {}), key=key))
    fresh = SessionPersistence(store)
    await fresh.get_callback_data()
    fresh._keyboards["k1"] = 1.0
    with pytest.raises(CodecError, match="is not deleted"):
        await fresh.update_callback_data(([("k2", 2.0, {}), ("k3", 2.0, {})], {}))
    assert {key async for key in store.scan("telegram_bot:keyboard:")} == {
        f"telegram_bot:keyboard:k{number}" for number in (1, 2, 3)
    }


@pytest.mark.parametrize("writer", [MsgpackCodec(schema=4), ENCRYPTING], ids=["newer schema", "missing key"])
@pytest.mark.parametrize("on_corrupt", ["raise", "quarantine"])
async def test_what_can_be_read_elsewhere_is_not_overwritten(
    store: UnsteadyStore, caplog: pytest.LogCaptureFixture, writer: MsgpackCodec, on_corrupt: Any
) -> None:
    theirs = SessionPersistence(store, codec=writer)
    await theirs.update_user_data(7, {"n": 1})
    await theirs.update_bot_data({"n": 1})
    await theirs.update_conversation("depot", (1, 7), "amount")
    before = {key: await value_of(store, key) async for key in store.scan("")}
    ours = SessionPersistence(store, codec=MsgpackCodec(schema=3), on_corrupt=on_corrupt)
    assert await ours.get_user_data() == {}
    assert await ours.get_bot_data() == {}
    assert await ours.get_conversations("depot") == {}
    for call in (
        ours.update_user_data(7, {"n": 2}),
        ours.update_bot_data({"n": 2}),
        ours.update_conversation("depot", (1, 7), "other"),
    ):
        with pytest.raises(CodecError, match="is not overwritten, as it was not readable") as caught:
            await call
        assert not isinstance(caught.value, CorruptRecord)
    unseen = SessionPersistence(store, codec=MsgpackCodec(schema=3), on_corrupt=on_corrupt)
    for persistence in (ours, unseen):
        for call in (persistence.update_conversation("depot", (1, 7), None), persistence.drop_user_data(7)):
            with pytest.raises(CodecError, match="is not deleted, as it can be read elsewhere"):
                await call
        await persistence.drop_user_data(9)
    await ours.update_user_data(7, {})
    await ours.update_bot_data({})
    await ours.update_user_data(8, {"n": 2})
    await ours.flush()
    assert {key: await value_of(store, key) for key in before} == before
    assert len([key async for key in store.scan("")]) == len(before) + 1


async def entries(store: UnsteadyStore) -> list[Entry]:
    quarantine = Quarantine(store, MsgpackCodec(), "telegram_bot:")
    return [entry async for entry in quarantine.entries(lambda key, error: pytest.fail(f"{key}: {error}"))]


async def test_damaged_records_are_moved_aside_and_written_anew(
    store: UnsteadyStore, caplog: pytest.LogCaptureFixture
) -> None:
    await SessionPersistence(store).update_user_data(8, {"n": 8})
    keys = (USER, "telegram_bot:bot_data:all", "telegram_bot:conversation:depot:1:7")
    for key in keys:
        await store.put(key, b"damaged")
    persistence = SessionPersistence(store, on_corrupt="quarantine")
    assert await persistence.get_user_data() == {8: {"n": 8}}
    assert await persistence.get_bot_data() == {}
    assert await persistence.get_conversations("depot") == {}
    assert {entry.record_key for entry in await entries(store)} == set(keys)
    assert f"record {USER} is damaged and was moved to " in caplog.text
    await persistence.update_user_data(7, {"n": 7})
    await persistence.update_bot_data({"n": 0})
    again = SessionPersistence(store)
    assert await again.get_user_data() == {7: {"n": 7}, 8: {"n": 8}}
    assert await again.get_bot_data() == {"n": 0}


async def test_what_cannot_be_moved_is_kept(store: UnsteadyStore, caplog: pytest.LogCaptureFixture) -> None:
    await store.put(USER, b"damaged")
    persistence = SessionPersistence(store, codec=_Full(), on_corrupt="quarantine")
    with caplog.at_level(logging.ERROR):
        assert await persistence.get_user_data() == {}
    assert f"damaged record {USER} was not moved: full" in caplog.text
    with pytest.raises(CorruptRecord, match="not overwritten"):
        await persistence.update_user_data(7, {"n": 1})
    assert await value_of(store, USER) == b"damaged"


class _Full(MsgpackCodec):
    """A codec that has no room for entries."""

    def pack(self, obj: object, *, name: str = "value") -> bytes:
        raise CodecError("full")


def test_on_corrupt_is_one_of_two(store: UnsteadyStore) -> None:
    wrong: Any = "ignore"
    with pytest.raises(ConfigurationError, match="on_corrupt is 'raise' or 'quarantine'"):
        SessionPersistence(store, on_corrupt=wrong)
