"""What a resilient store is given, and what it says of what it cannot use."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from sessionkit.errors import ConfigurationError, JournalFull, StoreUnavailable
from sessionkit.registry import open_store
from sessionkit.resilience import (
    Journal,
    LastKnown,
    Quarantined,
    ResilientStore,
    RetryPolicy,
    State,
    StoreFile,
)
from sessionkit.store import ABSENT
from sessionkit_memory import MemoryStore
from sessionkit_sqlite import SqliteStore
from tests.resilience.world import World, in_virtual_time, world

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def later(*_: object) -> None:
    """Be a function that has to be awaited."""


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ResilientStore("redis://x"), "primary is a SessionStore"),  # type: ignore[arg-type]
        (lambda: ResilientStore(MemoryStore(), Journal()), "fallback is a LastKnown"),  # type: ignore[arg-type]
        (
            lambda: ResilientStore(MemoryStore(), journal="sqlite:///o.db"),  # type: ignore[arg-type]
            "journal is a Journal",
        ),
        (lambda: ResilientStore(MemoryStore(), retry=3), "retry is a RetryPolicy"),  # type: ignore[arg-type]
        (lambda: ResilientStore(MemoryStore(), deadline="3"), "deadline is a number"),  # type: ignore[arg-type]
        (lambda: ResilientStore(MemoryStore(), on_conflict=later), "not awaited"),  # type: ignore[arg-type]
        (lambda: ResilientStore(MemoryStore()).subscribe(later), "not awaited"),
        (lambda: ResilientStore(MemoryStore()).subscribe(5), "plain function, not 5"),  # type: ignore[arg-type]
        (lambda: LastKnown("64MB"), "whole number"),  # type: ignore[arg-type]
        (lambda: Journal("64MB"), "whole number"),  # type: ignore[arg-type]
        (lambda: RetryPolicy(first_pause=5), "at most longest_pause"),
        (lambda: open_store(5), "named by a URL, not int"),  # type: ignore[arg-type]
        (lambda: open_store("memory://", journal="outage.db"), "journal: a journal is named by a URL"),
        (lambda: open_store("memory://", journal=True), "or a Journal, not True"),  # type: ignore[arg-type]
        (lambda: open_store("memory://?journal=x"), "argument of open_store, not of the URL"),
        (lambda: open_store("memory://", deadline=3), "an argument of ResilientStore"),
    ],
)
def test_what_it_cannot_use_is_refused_at_once(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        make()


@in_virtual_time
async def test_a_merge_of_another_type_is_named() -> None:
    here = World(on_conflict=lambda *_: "text")
    here.link.refuse()
    await here.store.put("key", b"mine", if_version=ABSENT)
    await here.primary.put("key", b"theirs")
    await here.heal()
    (event,) = [event for event in here.events if isinstance(event, Quarantined)]
    assert event.reason == "on_conflict returned str: it returns bytes, or None"
    with pytest.raises(StoreUnavailable, match="such as 'key'"):
        await here.store.aclose()


@in_virtual_time
async def test_told_to_raise_a_write_that_fails_opens_the_circuit_as_well() -> None:
    async with world(outage="raise", retry=RetryPolicy(attempts=1)) as here:
        here.link.refuse()
        with pytest.raises(StoreUnavailable):
            await here.store.put("key", b"1")
        assert here.store.state is State.OPEN


@in_virtual_time
async def test_an_error_of_the_body_is_not_covered_up() -> None:
    here = World(retry=RetryPolicy(attempts=1))
    here.link.refuse()
    with pytest.raises(KeyError) as caught:
        async with here.store:
            await here.store.put("key", b"1")
            raise KeyError
    assert "are lost with this process" in caught.value.__notes__[0]


async def test_a_start_in_an_outage_and_its_end_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = "redis://127.0.0.1:1"
    journal = f"sqlite:///{tmp_path / 'outage.db'}"
    async with open_store(nowhere, journal=journal) as store:
        await store.put("key", b"1")
    assert "closed; the journal keeps 1 keys for the next start" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        async with open_store(nowhere, journal=journal) as store:
            assert await store.get("key") is not None
            assert "the store is away at the start (keys that wait: 1)" in caplog.text


@in_virtual_time
async def test_a_full_journal_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    here = World(journal=Journal(max_bytes=1500), retry=RetryPolicy(attempts=1))
    here.link.refuse()
    await here.store.put("first", bytes(100))
    for _ in range(3):
        with pytest.raises(JournalFull, match="refused"):
            await here.store.put("key", bytes(100))
    assert caplog.text.count("the journal is full, 1 keys: writes are refused") == 1
    here.link.heal()
    await here.store.aclose()


async def test_a_journal_for_another_store_is_refused_while_it_holds_writes(tmp_path: Path) -> None:
    file = tmp_path / "outage.db"
    journal = f"sqlite:///{file}"
    async with open_store("redis://127.0.0.1:1/0", journal=journal) as store:
        await store.put("key", b"1")
    other = f"sqlite:///{tmp_path / 'bot.db'}"
    for url in (other, "redis://127.0.0.1:1/2"):
        async with open_store(url, journal=journal) as store:
            with pytest.raises(
                ConfigurationError, match=r"writes of 1 keys for redis://127\.0\.0\.1:1/0"
            ) as caught:
                await store.get("key")
            assert "sessionkit journal --move-to" in str(caught.value)
    # Neither the login nor the encryption makes it another one.
    async with open_store("redis://me:secret@127.0.0.1:1", journal=journal) as store:
        assert await store.get("key") is not None
    moved = StoreFile.of(SqliteStore(file))
    primary = SqliteStore(tmp_path / "bot.db")
    await moved.move_to(primary)
    await moved.aclose()
    await primary.aclose()
    async with open_store(other, journal=journal) as store:
        await store.get("key")
        await store.aclose()
    # Empty, it is anybody's.
    async with open_store("redis://127.0.0.1:1/2", journal=journal) as store:
        await store.put("key", b"2")
