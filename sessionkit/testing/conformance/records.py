"""Records: what is put is what is got."""

from __future__ import annotations

import pytest

from sessionkit.errors import InvalidKey, RecordTooLarge, UnsupportedType
from sessionkit.store import MAX_KEY_BYTES, VERSION_BYTES, SessionStore, Where
from sessionkit.testing.conformance.base import StoreTests

HOSTILE_IDS = (
    "a:b",
    "a",
    "*",
    "a*",
    "?",
    "[a-z]",
    "{x}",
    "{x}y",
    "%",
    "_",
    "a\nb",
    "a\r\nDEL x",
    "\x00",
    "a\x00b",
    " ",
    "\\",
    "'; DROP TABLE records; --",
    "é",
    "e\u0301",
    "😀",
    "\U0010ffff",
    "k" * 4096,
)


class RecordTests(StoreTests):
    """get, put and delete."""

    async def test_an_absent_record_is_none(self, store: SessionStore, key: str) -> None:
        assert await store.get(key) is None

    @pytest.mark.parametrize(
        "value", [b"", b"\x00", bytes(range(256)), b"\r\n$-1\r\n", b"v" * 1_000_000], ids=len
    )
    async def test_a_value_comes_back_as_it_was(self, store: SessionStore, key: str, value: bytes) -> None:
        receipt = await store.put(key, value)
        record = await store.get(key)
        assert record is not None
        assert record.value == value
        assert record.version == receipt.version

    async def test_a_receipt_names_the_primary_and_a_new_version(self, store: SessionStore, key: str) -> None:
        receipts = [await store.put(key, b"same") for _ in range(3)]
        assert {receipt.where for receipt in receipts} == {Where.PRIMARY}
        assert len({receipt.version for receipt in receipts}) == 3
        assert all(len(receipt.version) == VERSION_BYTES for receipt in receipts)

    async def test_a_put_replaces_the_whole_value(self, store: SessionStore, key: str) -> None:
        await store.put(key, b"a long value")
        await store.put(key, b"short")
        record = await store.get(key)
        assert record is not None
        assert record.value == b"short"

    async def test_delete_says_whether_there_was_a_record(self, store: SessionStore, key: str) -> None:
        assert await store.delete(key) is False
        await store.put(key, b"value")
        assert await store.delete(key) is True
        assert await store.get(key) is None
        assert await store.delete(key) is False

    async def test_hostile_ids_are_records_of_their_own(self, store: SessionStore, prefix: str) -> None:
        keys = [prefix + hostile for hostile in HOSTILE_IDS]
        for key in keys:
            await store.put(key, key.encode())
        assert {key: record.value for key, record in (await store.get_many(keys)).items()} == {
            key: key.encode() for key in keys
        }
        for key in keys:
            assert [found async for found in store.scan(key) if found == key] == [key]
        for position, key in enumerate(keys):
            assert await store.delete(key) is True
            assert set(await store.get_many(keys)) == set(keys[position + 1 :])

    @pytest.mark.parametrize(
        "bad", ["", "a#b", "\ud800", "k" * (MAX_KEY_BYTES + 1), b"bytes", 5, None], ids=repr
    )
    async def test_what_is_no_key_is_refused(self, store: SessionStore, bad: str) -> None:
        for call in (
            store.get(bad),
            store.put(bad, b"value"),
            store.delete(bad),
            store.touch(bad, expires_in=1),
            store.get_many([bad]),
            store.delete_many([bad]),
        ):
            with pytest.raises(InvalidKey):
                await call
        with pytest.raises(InvalidKey):
            async with store.lock(bad):
                pass

    async def test_several_keys_are_not_one_str(self, store: SessionStore, key: str) -> None:
        with pytest.raises(InvalidKey, match="several keys"):
            await store.get_many(key)
        with pytest.raises(InvalidKey, match="several keys"):
            await store.delete_many(key)

    @pytest.mark.parametrize("bad", ["text", bytearray(b"b"), memoryview(b"m"), None, 5], ids=type)
    async def test_what_is_not_bytes_is_refused(self, store: SessionStore, key: str, bad: bytes) -> None:
        with pytest.raises(UnsupportedType):
            await store.put(key, bad)
        assert await store.get(key) is None

    async def test_a_value_over_the_declared_bound_is_refused(self, store: SessionStore, key: str) -> None:
        await store.put(key, b"before")
        with pytest.raises(RecordTooLarge):
            await store.put(key, bytes(store.capabilities.max_value_bytes + 1))
        record = await store.get(key)
        assert record is not None
        assert record.value == b"before"
