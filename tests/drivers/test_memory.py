from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import ConfigurationError, StoreUnavailable
from sessionkit.store import Delete, Put, StoreURL
from sessionkit.testing import ManualClock, SessionStoreConformance
from sessionkit_memory import MemoryStore, open_driver

if TYPE_CHECKING:
    from sessionkit.store import SessionStore


class TestMemoryConformance(SessionStoreConformance):
    virtual_time = True

    @pytest.fixture(autouse=True)
    def _clock(self) -> None:
        self.clock = ManualClock()

    def open_store(self) -> SessionStore:
        return MemoryStore(clock=self.clock)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


@pytest.mark.parametrize("url", ["memory://host", "memory:///path", "memory://:1"])
def test_a_memory_url_has_nothing_behind_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="memory://"):
        open_driver(StoreURL.parse(url))


def test_a_bound_must_be_positive() -> None:
    with pytest.raises(ConfigurationError, match="max_bytes"):
        open_driver(StoreURL.parse("memory://?max_bytes=0"))


async def test_at_its_bound_it_refuses_and_keeps_what_it_has() -> None:
    async with open_driver(StoreURL.parse("memory://?max_bytes=5000")) as store:
        for number in range(4):
            await store.put(f"{number}", bytes(600))
        with pytest.raises(StoreUnavailable, match="full"):
            await store.put("more", bytes(600))
        await store.put("0", b"a smaller value in the place of the old one")
        assert len(await store.get_many(list("0123"))) == 4
        assert await store.delete("1") is True
        await store.put("more", bytes(600))


async def test_told_to_evict_it_drops_the_least_recently_used() -> None:
    async with open_driver(StoreURL.parse("memory://?max_bytes=5000&evict=true")) as store:
        for number in range(4):
            await store.put(f"{number}", bytes(600))
        await store.get("0")
        await store.put("more", bytes(600))
        assert set(await store.get_many(["0", "1", "2", "3", "more"])) == {"0", "2", "3", "more"}


@pytest.mark.parametrize("evict", [False, True])
async def test_several_records_find_room_together_or_not_at_all(evict: bool) -> None:
    async with MemoryStore(max_bytes=5000, evict=evict) as store:
        await store.put_many(Put(name, bytes(600)) for name in "abcd")
        before = await store.get_many(list("abcd"))
        with pytest.raises(StoreUnavailable, match="full"):
            await store.write_all([Put("a", b""), Put("e", bytes(3000)), Put("f", bytes(2000)), Delete("b")])
        assert await store.get_many(list("abcdef")) == before
        await store.write_all([Put("e", bytes(600)), Put("d", bytes(900)), Delete("a"), Delete("b")])
        assert set(await store.get_many(list("abcdef"))) == {"c", "d", "e"}


async def test_told_to_evict_it_drops_none_of_those_that_are_written_together() -> None:
    async with MemoryStore(max_bytes=5000, evict=True) as store:
        await store.put_many(Put(name, bytes(600)) for name in "abcd")
        await store.write_all([Put("a", bytes(1900)), Put("b", bytes(1900))])
        assert set(await store.get_many(list("abcd"))) == {"a", "b"}


async def test_told_to_evict_it_drops_none_for_those_that_are_replaced() -> None:
    async with MemoryStore(max_bytes=5000, evict=True) as store:
        await store.put_many([Put("kept", b""), Put("grows", b""), Put("shrinks", bytes(3000))])
        await store.write_all([Put("grows", bytes(3000)), Put("shrinks", b"")])
        assert set(await store.get_many(["kept", "grows", "shrinks"])) == {"kept", "grows", "shrinks"}


async def test_what_expired_makes_room() -> None:
    clock = ManualClock()
    async with MemoryStore(max_bytes=2000, clock=clock) as store:
        await store.put("a", bytes(1000), expires_in=1)
        with pytest.raises(StoreUnavailable):
            await store.put("b", bytes(1000))
        clock.advance(1)
        await store.put("b", bytes(1000))
