"""What becomes of stored updates that are journaled while an outage begins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from telegram.ext import ContextTypes

from sessionkit.errors import Applied, StoreTimeout
from sessionkit.ptb import SessionPersistence, merge_records, register_telegram_objects
from sessionkit.ptb.user_updates import PendingUpdate, write_entries
from sessionkit.resilience import ResilientStore, State
from sessionkit.settings import Settings
from tests.ptb.conftest import UnsteadyStore, message
from tests.ptb.test_inbox import KEYS, emptied, idle, stored, with_inbox
from tests.ptb.test_transactions import count, handled_by, on_message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from telegram import Update

    from sessionkit.codec import Codec
    from sessionkit.store import Delete, Put, Receipt, Record, Version
    from tests.ptb.conftest import Instances

Context = ContextTypes.DEFAULT_TYPE
numbers = st.frozensets(st.integers(1, 8))


def codec_of_bots() -> Codec:
    codec = Settings.load().codec()
    register_telegram_objects(codec)
    return codec


CODEC = codec_of_bots()
MERGE = merge_records(CODEC)


def kept(key: str, value: Any) -> bytes | None:
    return CODEC.wrap(CODEC.pack(value), key=key) if value else None


def merged(key: str, *sides: Any) -> Any:
    result = MERGE.for_key(key)(*(kept(key, side) for side in sides))
    return [] if result is None else CODEC.unpack(CODEC.unwrap(result, key=key))


def entries(numbers: Iterable[int]) -> list[list[object]]:
    return write_entries(PendingUpdate(number, 0.0, 0, b"") for number in sorted(numbers))


@given(numbers, numbers, numbers)
def test_an_update_waits_until_one_side_has_processed_it(
    base: frozenset[int], mine: frozenset[int], theirs: frozenset[int]
) -> None:
    key = KEYS.inboxes.key(7)
    left = (mine & theirs) | (mine - base) | (theirs - base)
    assert merged(key, *map(entries, (base, mine, theirs))) == entries(left)


@given(numbers, numbers)
def test_what_either_side_has_processed_is_processed(mine: frozenset[int], theirs: frozenset[int]) -> None:
    assert set(merged(KEYS.handled.key(7), [], list(mine), list(theirs))) == mine | theirs


def test_all_else_is_merged_key_by_key() -> None:
    sides = {"n": 1}, {"n": 3, "mine": 1}, {"n": 2, "theirs": 1}
    assert merged(KEYS.users.key(7), *sides) == {"n": 4, "mine": 1, "theirs": 1}


class BreakingStore(UnsteadyStore):
    """Goes away while it is writing an update's changes: they arrive, and their answer does not."""

    def __init__(self) -> None:
        super().__init__()
        self.breaks = False
        self.broken, self.give_up = asyncio.Event(), asyncio.Event()

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        self._check_up()
        return await super().get(key, renew_for=renew_for)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        self._check_up()
        return await super().get_many(keys)

    async def write_all(self, writes: Iterable[Put | Delete], *, write_id: Version | None = None) -> Receipt:
        receipt = await super().write_all(writes, write_id=write_id)
        if self.breaks:
            self.breaks, self.down = False, True
            self.broken.set()
            await self.give_up.wait()
            raise StoreTimeout("no answer", applied=Applied.MAYBE)
        return receipt


async def test_updates_taken_in_while_an_answer_is_awaited_are_processed_after_the_outage(
    instance: Instances,
) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def handle(update: Update, context: Context) -> None:
        await count(update, context)
        began.set()
        await go_on.wait()

    primary = BreakingStore()
    async with ResilientStore(primary, on_conflict=MERGE) as store:
        healthy = asyncio.Event()
        store.subscribe(lambda _: healthy.set() if store.state is State.HEALTHY else None)
        persistence = SessionPersistence(store)
        async with instance(
            handled_by(on_message(handle)), persistence=persistence, configure=with_inbox
        ) as application:
            await application.update_queue.put(message(application, 7, "a", update_id=1))
            await began.wait()
            primary.breaks = True
            go_on.set()
            await primary.broken.wait()
            for number in (2, 3, 4):
                # From a group of which nothing is known here, so that they wait for the store.
                await application.update_queue.put(message(application, 7, "a", -100, update_id=number))
                primary.give_up.set()
            primary.down = False
            async with asyncio.timeout(30):
                await healthy.wait()
            await emptied(primary)
            await idle(application)
        assert (await stored(primary))[0] == {7: {"n": 4}}
