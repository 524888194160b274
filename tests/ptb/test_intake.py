"""Which stored update is processed next, and by whom, whatever is stored and whoever fails."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from telegram import CallbackQuery, Update, User
from telegram.ext import CallbackQueryHandler, ContextTypes

from sessionkit.errors import Applied, CorruptRecord, StoreTimeout, StoreUnavailable
from sessionkit.ptb import DurableInbox, SessionApplication, SessionPersistence, intake, pending
from tests.ptb.conftest import UnsteadyStore, message
from tests.ptb.test_inbox import KEYS, Counting, emptied, idle, unstarted, waiting, with_inbox

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sessionkit.store import Receipt, Record
    from sessionkit.testing.botapi import BotApiServer
    from tests.ptb.conftest import AnyApplication, Instances

Context = ContextTypes.DEFAULT_TYPE


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again soon, as no test waits for more than that it is."""
    monkeypatch.setattr(intake, "_FIRST_PAUSE", 0.02)


async def entries_of(store: UnsteadyStore, user_id: int) -> list[Any]:
    """Return what is stored of a user's updates, as it is."""
    key = KEYS.inboxes.key(user_id)
    record = await store.get(key)
    assert record is not None
    return cast("list[Any]", SessionPersistence(store).records.values.open(key, record.value).value)


async def store_entries(store: UnsteadyStore, user_id: int, entries: object) -> None:
    """Store what stands for a user's updates, whatever it is."""
    key, values = KEYS.inboxes.key(user_id), SessionPersistence(store).records.values
    await store.put(key, values.seal(key, values.pack(key, entries).plain))


class Meeting(Counting):
    """The second one's message goes on with the first one's."""

    async def count(self, update: Update, context: Context) -> None:
        assert update.message is not None
        if update.message.text == "second":
            self.go_on.set()
        await super().count(update, context)


async def test_who_waits_to_be_alone_does_not_stop_those_who_wait_for_each_other(
    instance: Instances, store: UnsteadyStore, api: BotApiServer
) -> None:
    bot = Meeting()
    bot.go_on.clear()
    async with instance(bot.set_up, configure=with_inbox, lease=0.2) as application:
        async with unstarted(api, store, bot) as killed:
            await killed.update_queue.put(message(killed, 9, "suspect", update_id=1))
        [[number, since, _, packed]] = await entries_of(store, 9)
        await store_entries(store, 9, [[number, since, 1, packed]])
        await application.update_queue.put(message(application, 1, "first", update_id=11))
        await bot.has_begun("first")
        await application.update_queue.put(message(application, 9, "third", update_id=13))
        await application.update_queue.put(message(application, 2, "second", update_id=12))
        await bot.has_answered("suspect", "first", "second", "third")
        await idle(application)


async def test_who_is_alone_does_not_stop_who_it_waits_for(
    instance: Instances, store: UnsteadyStore, api: BotApiServer
) -> None:
    bot = Meeting()
    bot.go_on.clear()
    async with unstarted(api, store, bot) as killed:
        await killed.update_queue.put(message(killed, 9, "suspect", update_id=1))
    [[number, since, _, packed]] = await entries_of(store, 9)
    await store_entries(store, 9, [[number, since, 1, packed]])
    async with instance(bot.set_up, configure=with_inbox, lease=0.2) as application:
        await bot.has_begun("suspect")
        await application.update_queue.put(message(application, 2, "second", update_id=2))
        try:
            await bot.has_begun("second")
        finally:
            bot.go_on.set()
        await bot.has_answered("suspect", "second")


@pytest.mark.parametrize(
    "odd",
    [
        [[1, None, 0, b""]],
        [[[1], 0.0, 0, b""]],
        [[1, 0.0, 0, b"", 5]],
        [[Decimal("sNaN"), 0.0, 0, b""]] * 2,
        [[10**5000, 0.0, 0, b""]],
        [5],
        5,
    ],
)
async def test_what_is_no_update_stops_nobody_else(
    instance: Instances, store: UnsteadyStore, api: BotApiServer, odd: object
) -> None:
    bot = Counting()
    await store_entries(store, 7, odd)  # it is looked at first
    async with unstarted(api, store, bot) as killed:
        await killed.update_queue.put(message(killed, 9, "9", update_id=9))
    async with instance(bot.set_up, configure=with_inbox):
        await bot.has_answered("9")
    assert await waiting(store) == [KEYS.inboxes.key(7)]


async def test_an_update_whose_count_may_have_failed_is_not_counted_again(
    instance: Instances, store: UnsteadyStore, api: BotApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot, put, lost = Counting(), store.put, 3
    async with unstarted(api, store, bot) as killed:
        await killed.update_queue.put(message(killed, 7, "1", update_id=1))

    async def put_and_lose(key: str, value: bytes, **conditions: Any) -> Receipt:
        nonlocal lost
        receipt = await put(key, value, **conditions)
        if key == KEYS.inboxes.key(7) and lost:
            lost -= 1
            raise StoreTimeout("no answer", applied=Applied.MAYBE)
        return receipt

    monkeypatch.setattr(store, "put", put_and_lose)
    async with instance(bot.set_up, configure=with_inbox) as application:
        await bot.has_answered("1")
        await idle(application)
    assert [type(error) for error in bot.errors] == [StoreTimeout]
    assert bot.texts == ["1"]


async def test_an_update_waits_while_what_waits_with_it_is_no_update(
    instance: Instances, store: UnsteadyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store_entries(store, 7, [5])
    bot, get_many, reads = Counting(), store.get_many, asyncio.Semaphore(0)

    async def get_many_and_tell(keys: Iterable[str]) -> dict[str, Record]:
        reads.release()
        return await get_many(keys)

    async with instance(bot.set_up, configure=with_inbox, sweep=1000) as application:
        monkeypatch.setattr(store, "get_many", get_many_and_tell)
        await application.update_queue.put(message(application, 7, "1", update_id=1))
        async with asyncio.timeout(30):
            for _ in range(4):
                await reads.acquire()
        assert [type(error) for error in bot.errors] == [CorruptRecord]
        await store.delete(KEYS.inboxes.key(7))
        await bot.has_answered("1")
    assert bot.texts == ["1"]


async def test_what_is_no_number_of_an_update_stops_nobody(instance: Instances, store: UnsteadyStore) -> None:
    key, values = KEYS.handled.key(7), SessionPersistence(store).records.values
    await store.put(key, values.seal(key, values.pack(key, [Decimal("sNaN"), "1", 2]).plain))
    bot = Counting()
    async with instance(bot.set_up, configure=with_inbox) as application:
        for number in (1, 2):
            await application.update_queue.put(message(application, 7, f"{number}", update_id=number))
        await idle(application)
    assert bot.texts == ["1"]
    assert bot.errors == []


@pytest.mark.parametrize("odd", [[], [5], 5])
async def test_what_is_set_aside_and_no_update_is_not_taken_back(
    instance: Instances, store: UnsteadyStore, odd: object
) -> None:
    key, values = KEYS.set_aside.key(1), SessionPersistence(store).records.values
    await store.put(key, values.seal(key, values.pack(key, odd).plain))
    async with instance(lambda _: None, configure=with_inbox) as application:
        assert isinstance(application, SessionApplication)
        with pytest.raises(CorruptRecord):
            await application.take_back(1)
    assert await store.get(key) is not None


@pytest.mark.parametrize(("number", "user_id"), [(1, 8), (0, 7)])
async def test_what_stands_for_another_update_stops_nobody(
    instance: Instances, store: UnsteadyStore, api: BotApiServer, number: int, user_id: int
) -> None:
    bot = Counting()
    async with unstarted(api, store, bot) as killed:
        await killed.update_queue.put(message(killed, user_id, "1", update_id=1))
    [entry] = await entries_of(store, user_id)
    await store.delete(KEYS.inboxes.key(user_id))
    await store_entries(store, 7, [[number, *entry[1:]]])
    async with instance(bot.set_up, configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "2", update_id=2))
        await bot.has_answered("2")
        await idle(application)
    assert bot.texts == ["2"]
    assert await waiting(store) == [KEYS.inboxes.key(7)]


@pytest.mark.parametrize("concurrent", [False, 8])
async def test_an_error_handler_that_is_cancelled_by_itself_leaves_the_update_to_others(
    instance: Instances, store: UnsteadyStore, concurrent: bool | int
) -> None:
    class Cancelled(Counting):
        async def note(self, update: object, context: Context) -> None:
            await super().note(update, context)
            raise asyncio.CancelledError

    bot = Cancelled()
    store.failing = [StoreUnavailable("for now")]

    def configure(builder: Any) -> Any:
        return builder.update_queue(DurableInbox()).concurrent_updates(concurrent)

    async with instance(bot.set_up, configure=configure, sweep=0.05, lease=0.1) as application:
        await application.update_queue.put(message(application, 7, "1", update_id=1))
        await bot.has_failed()
        await bot.has_answered("1")
        await application.update_queue.put(message(application, 8, "2", update_id=2))
        await bot.has_answered("2")
        await idle(application)
    assert bot.texts == ["1", "1", "2"]


async def test_an_update_that_could_not_be_stored_is_kept_while_the_store_is_away(
    instance: Instances, store: UnsteadyStore
) -> None:
    presses: list[object] = []

    async def press(update: Update, context: Context) -> None:
        presses.append(update)

    def set_up(application: AnyApplication) -> None:
        application.add_handler(CallbackQueryHandler(press))

    store.failing = [StoreUnavailable("for now")] * 4
    async with instance(
        set_up, configure=lambda builder: builder.update_queue(DurableInbox(attempts=1))
    ) as application:
        query = CallbackQuery("1", User(7, "Ann", is_bot=False), "1", data=cast("str", object()))
        await application.update_queue.put(Update(1, callback_query=query))
        async with asyncio.timeout(30):
            while await store.get(KEYS.handled.key(7)) is None:
                store.saved.clear()
                await store.saved.wait()
    assert len(presses) == 5


async def test_what_a_clock_that_was_ahead_took_in_is_swept(
    instance: Instances, store: UnsteadyStore, api: BotApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = Counting()
    async with instance(bot.set_up, configure=with_inbox, sweep=0.05, lease=0.1) as application:
        await application.update_queue.put(message(application, 8, "0", update_id=0))
        await bot.has_answered("0")
        async with unstarted(api, store, bot) as killed:
            with monkeypatch.context() as patch:
                patch.setattr(pending, "time", SimpleNamespace(time=lambda: time.time() + 3600))
                await killed.update_queue.put(message(killed, 7, "1", update_id=1))
            await bot.has_answered("1")


async def test_what_another_instance_has_done_meanwhile_is_in_nobodys_hands_here(
    instance: Instances, store: UnsteadyStore, api: BotApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_FIRST_PAUSE", 5.0)
    one, two = Counting(), Counting()
    async with instance(one.set_up, configure=with_inbox, sweep=1000) as first:
        async with unstarted(api, store, one) as killed:
            await killed.update_queue.put(message(killed, 7, "1", update_id=1))
        store.failing = [StoreUnavailable("for now")]
        await first.update_queue.put(message(first, 7, "2", update_id=2))
        await one.has_failed()  # at the first one, and both are tried again soon
        async with instance(two.set_up, configure=with_inbox):
            await emptied(store)
        await idle(first)
        # It stands there again, as if it had been taken back where the process was killed at once.
        aside = pending.PendingUpdates(first, SessionPersistence(store).records)
        await store.delete(KEYS.handled.key(7))
        await aside.add(message(first, 7, "1", update_id=1))
        await first.update_queue.put(message(first, 7, "3", update_id=3))
        await one.has_answered("1", "3")
        await idle(first)
    assert one.texts == ["1", "1", "3"]
    assert two.texts == ["1", "2"]


async def test_what_two_others_had_to_wait_for_is_in_nobodys_hands_once_it_is_done(
    instance: Instances, store: UnsteadyStore, api: BotApiServer
) -> None:
    class Cancelled(Counting):
        """The first one's handler cancels itself the first time, when both others wait for it."""

        async def count(self, update: Update, context: Context) -> None:
            await super().count(update, context)
            if self.texts == ["1"]:
                raise asyncio.CancelledError

    bot = Cancelled()
    bot.go_on.clear()
    async with instance(bot.set_up, configure=with_inbox, sweep=0.05, lease=0.1) as application:
        async with unstarted(api, store, bot) as killed:
            await killed.update_queue.put(message(killed, 7, "1", update_id=1))
        for number in (2, 3):
            await application.update_queue.put(message(application, 7, f"{number}", update_id=number))
        await bot.has_begun("1")
        bot.go_on.set()
        await bot.has_answered("1", "2", "3")
        await idle(application)
        # It stands there again, as if it had been taken back where the process was killed at once.
        await store.delete(KEYS.handled.key(7))
        aside = pending.PendingUpdates(application, SessionPersistence(store).records)
        await aside.add(message(application, 7, "1", update_id=1))
        await emptied(store)
        await idle(application)
    assert bot.texts == ["1", "1", "2", "3", "1"]
