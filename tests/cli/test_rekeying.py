"""Rekeying while bots write: nothing of theirs is lost, and every record ends under the first key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessionkit.cli.rekey import Rekeying
from sessionkit.codec import MAX_SCHEMA, EncryptionKey, Keyring, MsgpackCodec, read_info
from sessionkit.codec.envelope import head, seal
from sessionkit.errors import CorruptRecord
from sessionkit.quarantine import Quarantine
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sessionkit.errors import SessionKitError
    from sessionkit.store import Version

OLD, NEW = EncryptionKey("old", bytes(32)), EncryptionKey("new", b"\x01" * 32)
KEYS = Keyring([NEW, OLD])
BOTH = MsgpackCodec(keyring=KEYS, schema=MAX_SCHEMA, strict=False)
BEFORE = MsgpackCodec(keyring=Keyring([OLD]))


class RacedStore(MemoryStore):
    """A memory store in which somebody acts before the recodings."""

    race: Callable[[str], Awaitable[object]] | None = None
    races = 0

    async def recode(self, key: str, value: bytes, *, if_version: Version) -> bool:
        if self.race is not None and self.races:
            self.races -= 1
            await self.race(key)
        return await super().recode(key, value, if_version=if_version)


@pytest.fixture
async def store() -> AsyncIterator[RacedStore]:
    async with RacedStore() as store:
        for number in range(150):
            key = f"bot:{number}"
            await store.put(key, BEFORE.encode({"n": number}, key=key))
        yield store


async def values(store: RacedStore) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async for key in store.scan("bot:"):
        record = await store.get(key)
        assert record is not None
        assert read_info(record.value).key_id == "new", key
        found[key] = BOTH.decode(record.value, key=key)
    return found


async def test_a_write_meanwhile_is_kept_and_rekeyed(
    store: RacedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.race = lambda key: store.put(key, BEFORE.encode("theirs", key=key))
    store.races = 9
    assert await Rekeying(store, BOTH, KEYS).run("bot:")
    found = await values(store)
    assert list(found.values()).count("theirs") > 0
    assert all(value in ("theirs", {"n": int(key[4:])}) for key, value in found.items())
    assert capsys.readouterr().out.startswith("rekeyed 150, ")


async def test_what_is_deleted_meanwhile_stays_so(
    store: RacedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.race = store.delete
    store.races = 10
    assert await Rekeying(store, BOTH, KEYS).run("bot:")
    assert len(await values(store)) == 140
    assert capsys.readouterr().out == (
        "rekeyed 140, current before 0, gone meanwhile 10, left as not readable 0\n"
    )


async def test_it_goes_on_where_it_stopped(store: RacedStore, capsys: pytest.CaptureFixture[str]) -> None:
    async def fail(key: str) -> None:
        raise RuntimeError("stopped")

    store.race, store.races = fail, 1
    with pytest.raises(RuntimeError):
        await Rekeying(store, BOTH, KEYS).run("bot:")
    assert await Rekeying(store, BOTH, KEYS).run("bot:")
    assert len(await values(store)) == 150
    assert await Rekeying(store, BOTH, KEYS).run("bot:")
    assert capsys.readouterr().out.splitlines()[-1].startswith("rekeyed 0, current before 150, ")


async def test_a_record_that_never_rests_is_reported(
    store: RacedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.race = lambda key: store.put(key, BEFORE.encode("theirs", key=key))
    store.races = 10_000
    assert not await Rekeying(store, BOTH, KEYS).run("bot:14")
    assert "others kept writing it; run rekey again" in capsys.readouterr().err


async def test_records_in_quarantine_are_rekeyed_as_far_as_a_key_opens_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    key, bot = "bot:session:1", MsgpackCodec(keyring=Keyring([OLD]), schema=7)
    sound = BEFORE.encode({"no": "session"}, key=key)
    damaged = {
        "sound": sound,
        "not decompressed": seal(Keyring([OLD]).encrypt(b"no", head(3, 1), key), 1, 3),
        "truncated": sound[:-1],
        "moved": BEFORE.encode(1, key="bot:session:2"),
        "lost key": MsgpackCodec(keyring=Keyring([EncryptionKey("lost", bytes(32))])).encode(1, key=key),
        "plain": b"no record",
    }
    after: dict[str, bytes] = {}
    async with MemoryStore() as store:
        for reason, value in damaged.items():
            await store.put(key, value)
            record = await store.get(key)
            assert record is not None
            assert await Quarantine(store, bot, "bot:").take(key, record, CorruptRecord(reason))
        await store.put("bot:quarantine:5", BEFORE.encode("none", key="bot:quarantine:5"))
        for outcome in ("rekeyed 7, current before 0,", "rekeyed 0, current before 7,"):
            assert await Rekeying(store, BOTH, KEYS).run("bot:")
            assert capsys.readouterr().out.startswith(outcome)
        left = Quarantine(store, MsgpackCodec(keyring=Keyring([NEW]), schema=7), "bot:")
        told: dict[str, SessionKitError] = {}
        async for entry in left.entries(told.__setitem__):
            after[entry.reason] = entry.value
        assert set(told) == {"bot:quarantine:5"}
    anew = MsgpackCodec(keyring=Keyring([NEW]))
    assert anew.decode(after["sound"], key=key) == {"no": "session"}
    with pytest.raises(CorruptRecord, match="compressed record"):
        anew.decode(after["not decompressed"], key=key)
    for reason in ("truncated", "moved", "lost key", "plain"):
        assert after[reason] == damaged[reason]


async def test_it_says_which_key_is_the_first(store: RacedStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert await Rekeying(store, MsgpackCodec(keyring=Keyring([OLD, NEW])), Keyring([OLD, NEW])).run("bot:")
    out, err = capsys.readouterr()
    assert out.startswith("rekeyed 0, current before 150")
    assert err == (
        "encrypting by 'old', the first of the keys; one that is to take its place has to stand first\n"
    )


async def test_a_record_that_is_only_named_as_if_in_quarantine_is_rekeyed(store: RacedStore) -> None:
    key = "bot:conversation:in%20quarantine:1:7"
    await store.put(key, BEFORE.encode({"n": 1}, key=key))
    assert await Rekeying(store, BOTH, KEYS).run("bot:")
    assert len(await values(store)) == 151
