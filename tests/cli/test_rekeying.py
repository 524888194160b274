"""Rekeying while bots write: nothing of theirs is lost, and every record ends under the first key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessionkit.cli.rekey import Rekeying
from sessionkit.codec import EncryptionKey, Keyring, MsgpackCodec, read_info
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sessionkit.store import Version

OLD, NEW = EncryptionKey("old", bytes(32)), EncryptionKey("new", b"\x01" * 32)
BOTH = MsgpackCodec(keyring=Keyring([NEW, OLD]), strict=False)
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
    assert await Rekeying(store, BOTH, "new").run("bot:")
    found = await values(store)
    assert list(found.values()).count("theirs") > 0
    assert all(value in ("theirs", {"n": int(key[4:])}) for key, value in found.items())
    assert capsys.readouterr().out.startswith("rekeyed 150, ")


async def test_what_is_deleted_meanwhile_stays_so(
    store: RacedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.race = store.delete
    store.races = 10
    assert await Rekeying(store, BOTH, "new").run("bot:")
    assert len(await values(store)) == 140
    assert capsys.readouterr().out == (
        "rekeyed 140, current before 0, gone meanwhile 10, left as not readable 0\n"
    )


async def test_it_goes_on_where_it_stopped(store: RacedStore, capsys: pytest.CaptureFixture[str]) -> None:
    async def fail(key: str) -> None:
        raise RuntimeError("stopped")

    store.race, store.races = fail, 1
    with pytest.raises(RuntimeError):
        await Rekeying(store, BOTH, "new").run("bot:")
    assert await Rekeying(store, BOTH, "new").run("bot:")
    assert len(await values(store)) == 150
    assert await Rekeying(store, BOTH, "new").run("bot:")
    assert capsys.readouterr().out.splitlines()[-1].startswith("rekeyed 0, current before 150, ")


async def test_a_record_that_never_rests_is_reported(
    store: RacedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.race = lambda key: store.put(key, BEFORE.encode("theirs", key=key))
    store.races = 10_000
    assert not await Rekeying(store, BOTH, "new").run("bot:14")
    assert "others kept writing it; run rekey again" in capsys.readouterr().err
