"""Updates that are stored before Telegram is told, and processed once among all instances."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest
from telegram import CallbackQuery, Update, User
from telegram.error import NetworkError
from telegram.ext import (
    Application,
    ApplicationBuilder,
    CallbackQueryHandler,
    ContextTypes,
    MessageHandler,
    TypeHandler,
    filters,
)

from sessionkit.codec import Keyring, MsgpackCodec, new_key
from sessionkit.errors import (
    Applied,
    ConfigurationError,
    DecryptionError,
    SessionKitError,
    StoreUnavailable,
    UpdateSetAside,
)
from sessionkit.ptb import (
    DurableInbox,
    SessionApplication,
    SessionPersistence,
    intake,
    on_commit,
    pending,
    register_telegram_objects,
    user_updates,
)
from sessionkit.ptb.data_keys import DataKeys
from sessionkit.ptb.keyboards import raw_update
from sessionkit.ptb.user_updates import PendingUpdate
from sessionkit.settings import Settings
from sessionkit.store import Capabilities, Receipt, Record, Scope
from sessionkit_memory import MemoryStore
from tests.ptb.conftest import UnsteadyStore, message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sessionkit.testing.botapi import BotApiServer
    from tests.ptb.conftest import AnyApplication, Instances

Context = ContextTypes.DEFAULT_TYPE

PREFIX = "telegram_bot:"
KEYS = DataKeys(PREFIX)


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again soon, as no test waits for more than that it is."""
    monkeypatch.setattr(intake, "_FIRST_PAUSE", 0.02)


class Counting:
    """A bot that counts its messages in everything that is stored, and notes what it was told.

    Attributes:
        texts: What was processed, in order, each time it was.
        errors: What the error handlers were told.
        answered: What was sent once it was stored.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.errors: list[Any] = []
        self.answered: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.done = asyncio.Condition()

    def set_up(self, application: AnyApplication) -> None:
        application.add_handler(MessageHandler(filters.ALL, self.count))
        application.add_error_handler(self.note)

    async def count(self, update: Update, context: Context) -> None:
        assert update.message is not None
        assert update.message.text is not None
        for data in (context.user_data, context.chat_data, context.bot_data):
            assert data is not None
            data["n"] = data.get("n", 0) + 1
        assert context.user_data is not None
        context.user_data.setdefault("texts", []).append(update.message.text)
        self.texts.append(update.message.text)
        async with self.done:
            self.done.notify_all()
        await self.go_on.wait()
        on_commit(self.answer, update.message.text)

    async def answer(self, text: str) -> None:
        self.answered.append(text)
        async with self.done:
            self.done.notify_all()

    async def note(self, update: object, context: Context) -> None:
        self.errors.append(context.error)
        async with self.done:
            self.done.notify_all()

    async def has_begun(self, *texts: str) -> None:
        async with asyncio.timeout(30), self.done:
            await self.done.wait_for(lambda: set(texts) <= set(self.texts))

    async def has_answered(self, *texts: str) -> None:
        async with asyncio.timeout(30), self.done:
            await self.done.wait_for(lambda: set(texts) <= set(self.answered))

    async def has_failed(self) -> None:
        async with asyncio.timeout(30), self.done:
            await self.done.wait_for(lambda: self.errors)


def with_inbox(builder: Any) -> Any:
    return builder.update_queue(DurableInbox()).concurrent_updates(8)


async def stored(store: MemoryStore) -> tuple[dict[int, Any], dict[int, Any], Any]:
    """Return the data of users, chats and the bot."""
    persistence = SessionPersistence(store)
    return (
        await persistence.get_user_data(),
        await persistence.get_chat_data(),
        await persistence.get_bot_data(),
    )


async def waiting(store: MemoryStore) -> list[str]:
    return [key async for key in store.scan(KEYS.inboxes.start)]


async def emptied(store: UnsteadyStore) -> None:
    """Return once nothing waits in the store."""
    async with asyncio.timeout(60):
        while await waiting(store):
            store.saved.clear()
            await store.saved.wait()


async def idle(application: AnyApplication) -> None:
    """Return once everything that was queued is processed."""
    async with asyncio.timeout(30):
        await application.update_queue.join()


async def test_an_update_is_stored_before_it_is_acknowledged_and_dropped_once_processed(
    instance: Instances, store: UnsteadyStore
) -> None:
    bot = Counting()
    bot.go_on.clear()
    async with instance(bot.set_up, configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        assert await waiting(store) == [KEYS.inboxes.key(7)]
        bot.go_on.set()
        await bot.has_answered("a")
        await idle(application)
        assert await waiting(store) == []
    assert await stored(store) == ({7: {"n": 1, "texts": ["a"]}}, {7: {"n": 1}}, {"n": 1})
    assert bot.errors == []


async def test_an_update_that_comes_again_is_passed_over(instance: Instances, store: UnsteadyStore) -> None:
    bot = Counting()
    async with instance(bot.set_up, configure=with_inbox) as application:
        for _ in range(2):
            for _ in range(3):
                await application.update_queue.put(message(application, 7, "a", update_id=1))
            await idle(application)
    async with instance(bot.set_up, configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await idle(application)
        await application.update_queue.put(message(application, 7, "b", update_id=2))
        await idle(application)
    assert bot.texts == ["a", "b"]
    assert await stored(store) == ({7: {"n": 2, "texts": ["a", "b"]}}, {7: {"n": 2}}, {"n": 2})
    assert await waiting(store) == []


async def test_an_update_that_comes_again_after_a_hundred_others_is_passed_over(
    instance: Instances, store: UnsteadyStore
) -> None:
    bot = Counting()
    async with instance(bot.set_up, configure=with_inbox) as application:
        # As polling does with a full answer of Telegram, of which the last update could not be stored.
        for _ in range(2):
            for number in range(100):
                await application.update_queue.put(message(application, 7, f"{number}", update_id=number))
            await idle(application)
    assert bot.texts == [f"{number}" for number in range(100)]


def unstarted(api: BotApiServer, store: MemoryStore, bot: Counting, **options: Any) -> AnyApplication:
    """Return an instance that takes updates in and is killed before it processes one."""
    application: AnyApplication = with_inbox(
        ApplicationBuilder()
        .application_class(SessionApplication, options)
        .token(api.token)
        .base_url(api.base_url)
        .persistence(SessionPersistence(store, update_interval=1000))
        .updater(None)
    ).build()
    bot.set_up(application)
    return application


async def test_what_was_queued_at_a_kill_is_taken_up_at_the_next_start(
    instance: Instances, store: UnsteadyStore, api: BotApiServer
) -> None:
    bot = Counting()
    async with unstarted(api, store, bot) as killed:
        for number in range(1, 6):
            await killed.update_queue.put(message(killed, number % 2, f"{number}", update_id=number))
    async with instance(bot.set_up, configure=with_inbox):
        await bot.has_answered(*"12345")
    users, _, bot_data = await stored(store)
    assert users == {0: {"n": 2, "texts": ["2", "4"]}, 1: {"n": 3, "texts": ["1", "3", "5"]}}
    assert bot_data == {"n": 5}
    assert await waiting(store) == []


async def test_what_another_instance_left_comes_before_the_users_next_update(
    instance: Instances, store: UnsteadyStore, api: BotApiServer
) -> None:
    bot = Counting()
    async with (
        instance(bot.set_up, configure=with_inbox, sweep=1000) as alive,
        unstarted(api, store, bot) as killed,
    ):
        for number in (4, 2, 3):
            await killed.update_queue.put(message(killed, 7, f"{number}", update_id=number))
        await alive.update_queue.put(message(alive, 7, "5", update_id=5))
        await bot.has_answered("5")
        await idle(alive)
    assert bot.texts == ["2", "3", "4", "5"]
    assert await waiting(store) == []


async def test_two_instances_that_have_the_same_update_process_it_once(
    instance: Instances, store: UnsteadyStore
) -> None:
    one, two = Counting(), Counting()
    async with (
        instance(one.set_up, configure=with_inbox) as first,
        instance(two.set_up, configure=with_inbox) as second,
    ):
        for number in range(1, 21):
            await asyncio.gather(
                first.update_queue.put(message(first, 7, f"{number}", update_id=number)),
                second.update_queue.put(message(second, 7, f"{number}", update_id=number)),
            )
        await asyncio.gather(idle(first), idle(second))
    assert sorted(one.texts + two.texts, key=int) == [f"{number}" for number in range(1, 21)]
    assert await stored(store) == (
        {7: {"n": 20, "texts": [f"{number}" for number in range(1, 21)]}},
        {7: {"n": 20}},
        {"n": 20},
    )
    assert await waiting(store) == []


@pytest.mark.parametrize("applied", [Applied.NO, Applied.MAYBE])
async def test_an_update_whose_commit_fails_counts_once(
    instance: Instances, store: UnsteadyStore, applied: Applied
) -> None:
    bot = Counting()
    store.failing = [StoreUnavailable("for now", applied=applied)]
    async with instance(bot.set_up, configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await bot.has_failed()
        assert bot.answered == []
        await application.update_queue.put(message(application, 7, "b", update_id=2))
        await bot.has_answered("b")
        await idle(application)
    assert await stored(store) == ({7: {"n": 2, "texts": ["a", "b"]}}, {7: {"n": 2}}, {"n": 2})
    # What may have been stored and was is not done again, and its answer is not sent.
    assert bot.texts == (["a", "a", "b"] if applied is Applied.NO else ["a", "b"])
    assert bot.answered == (["a", "b"] if applied is Applied.NO else ["b"])


async def test_what_an_update_changed_of_the_bots_data_is_not_stored_with_another(
    instance: Instances, store: UnsteadyStore
) -> None:
    bot = Counting()
    bot.go_on.clear()
    async with instance(bot.set_up, configure=with_inbox) as application:
        await application.update_queue.put(message(application, 1, "a", update_id=1))
        await application.update_queue.put(message(application, 2, "b", update_id=2))
        await bot.has_begun("a", "b")
        store.failing = [StoreUnavailable("for now"), None]
        bot.go_on.set()
        await bot.has_failed()
        await bot.has_answered("a" if bot.answered == ["b"] else "b")
        assert application.bot_data == {"n": len(bot.answered)}
        await bot.has_answered("a", "b")
        await idle(application)
        assert application.bot_data == {"n": 2}
    assert (await stored(store))[2] == {"n": 2}


async def test_an_update_that_is_cancelled_before_its_commit_leaves_nothing(instance: Instances) -> None:
    class Slow(UnsteadyStore):
        """Its atomic writes wait until they may go on."""

        def __init__(self) -> None:
            super().__init__()
            self.begun = asyncio.Event()
            self.go_on = asyncio.Event()

        async def write_all(self, *arguments: Any, **options: Any) -> Any:
            self.begun.set()
            await self.go_on.wait()
            return await super().write_all(*arguments, **options)

    bot = Counting()
    async with (
        Slow() as store,
        instance(bot.set_up, configure=with_inbox, persistence=SessionPersistence(store)) as application,
    ):
        one, two = (
            asyncio.create_task(application.process_update(message(application, user, "a", update_id=user)))
            for user in (1, 2)
        )
        await store.begun.wait()
        async with bot.done:
            await bot.done.wait_for(lambda: len(bot.texts) == 2)
        for _ in range(10):  # until its commit waits for the other's; nothing tells of that
            await asyncio.sleep(0)
        two.cancel()
        await asyncio.wait([two])
        store.go_on.set()
        await one
        await application.update_persistence()
        assert await stored(store) == ({1: {"n": 1, "texts": ["a"]}}, {1: {"n": 1}}, {"n": 1})


async def test_an_update_that_comes_again_is_not_acknowledged_before_it_is_stored(
    instance: Instances, store: UnsteadyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = Counting()
    put, storing, fail = store.put, asyncio.Event(), asyncio.Event()

    async def put_later(key: str, value: bytes, **conditions: Any) -> Receipt:
        storing.set()
        await fail.wait()
        return await put(key, value, **conditions)

    async with instance(bot.set_up, configure=with_inbox) as application:
        monkeypatch.setattr(store, "put", put_later)
        first = asyncio.create_task(application.update_queue.put(message(application, 7, "a", update_id=1)))
        await storing.wait()
        again = asyncio.create_task(application.update_queue.put(message(application, 7, "a", update_id=1)))
        store.down = True
        fail.set()
        for task in (first, again):
            with pytest.raises(NetworkError):
                await task


async def test_an_update_whose_put_was_cancelled_is_queued_when_it_comes_again(
    instance: Instances, store: UnsteadyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = Counting()
    bot.go_on.clear()
    put, kept = store.put, asyncio.Event()

    async def put_and_tell(key: str, value: bytes, **conditions: Any) -> Receipt:
        receipt = await put(key, value, **conditions)
        if key == KEYS.inboxes.key(3):
            kept.set()
        return receipt

    monkeypatch.setattr(store, "put", put_and_tell)
    async with instance(
        bot.set_up, configure=lambda builder: builder.update_queue(DurableInbox(2)), sweep=1000
    ) as application:
        await application.update_queue.put(message(application, 1, "1", update_id=1))
        await bot.has_begun("1")
        await application.update_queue.put(message(application, 2, "2", update_id=2))
        third = asyncio.create_task(application.update_queue.put(message(application, 3, "3", update_id=3)))
        await kept.wait()
        third.cancel()  # as Updater.stop does
        await asyncio.wait([third])
        bot.go_on.set()
        await idle(application)
        await application.update_queue.put(message(application, 3, "3", update_id=3))
        await bot.has_answered("3")


async def test_what_was_to_be_tried_again_at_a_stop_is_taken_up_at_the_next_start(
    instance: Instances, store: UnsteadyStore
) -> None:
    bot = Counting()
    store.failing = [StoreUnavailable("for now")]
    async with instance(bot.set_up, configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await bot.has_failed()
        await application.stop()
        await application.start()
        await bot.has_answered("a")
    assert bot.texts == ["a", "a"]


@dataclass
class Stats:
    n: int = 0


@pytest.mark.parametrize("failing", [[], [StoreUnavailable("for now")]])
async def test_bot_data_of_an_own_class_are_stored(
    instance: Instances, store: UnsteadyStore, failing: list[Any]
) -> None:
    codec = Settings.load().codec()
    register_telegram_objects(codec)
    codec.register_dataclass("stats", Stats)
    types = ContextTypes(bot_data=Stats)

    async def count(update: Update, context: Any) -> None:
        context.bot_data.n += 1

    def persistence() -> SessionPersistence:
        return SessionPersistence(store, codec=codec, context_types=types, update_interval=1000)

    async with instance(
        lambda application: application.add_handler(MessageHandler(filters.ALL, count)),
        persistence=persistence(),
        configure=lambda builder: with_inbox(builder).context_types(types),
    ) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await idle(application)
        store.failing = failing
        await application.update_queue.put(message(application, 8, "b", update_id=2))
        await emptied(store)
        await idle(application)
        assert application.bot_data == Stats(2)
    assert await persistence().get_bot_data() == Stats(2)


async def test_an_update_that_cannot_be_stored_is_not_acknowledged(
    instance: Instances, store: UnsteadyStore
) -> None:
    bot = Counting()
    async with instance(bot.set_up, configure=with_inbox) as application:
        update = message(application, 7, "a", update_id=1)
        store.down = True
        with pytest.raises(NetworkError, match="update 1 could not be stored"):
            await application.update_queue.put(update)
        store.down = False
        await application.update_queue.put(update)
        await bot.has_answered("a")
    assert bot.texts == ["a"]


async def test_an_update_that_was_taken_up_too_often_is_set_aside(
    instance: Instances, store: UnsteadyStore, api: BotApiServer
) -> None:
    bot = Counting()
    async with unstarted(api, store, bot) as killed:
        await killed.update_queue.put(message(killed, 7, "1", update_id=1))
    for _ in range(3):
        # Its commit never succeeds, as if its process were killed each time.
        store.failing = [StoreUnavailable("for good", temporary=False)]
        stuck = Counting()
        async with instance(stuck.set_up, configure=with_inbox):
            await stuck.has_failed()
        assert stuck.texts == ["1"]
    async with instance(bot.set_up, configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "2", update_id=2))
        await bot.has_answered("2")
        await idle(application)
    [error] = bot.errors
    assert isinstance(error, UpdateSetAside)
    assert error.update_id == 1
    assert "take_back(1)" in str(error)
    assert await store.get(error.key) is not None
    assert bot.texts == ["2"]
    assert await stored(store) == ({7: {"n": 1, "texts": ["2"]}}, {7: {"n": 1}}, {"n": 1})
    assert await waiting(store) == []
    async with instance(bot.set_up, configure=with_inbox) as application:
        assert isinstance(application, SessionApplication)
        assert await application.take_back(1)
        await bot.has_answered("1")
        await idle(application)
        assert not await application.take_back(1)
    assert await stored(store) == ({7: {"n": 2, "texts": ["2", "1"]}}, {7: {"n": 2}}, {"n": 2})
    assert await store.get(error.key) is None
    assert await waiting(store) == []


async def test_an_update_taken_up_is_not_set_aside_for_a_store_that_fails_for_now(
    instance: Instances, store: UnsteadyStore, api: BotApiServer
) -> None:
    bot = Counting()
    async with unstarted(api, store, bot) as killed:
        await killed.update_queue.put(message(killed, 7, "1", update_id=1))
    store.failing = [StoreUnavailable("for now")] * 2
    inbox = DurableInbox(attempts=1)
    async with instance(bot.set_up, configure=lambda builder: builder.update_queue(inbox)):
        await bot.has_answered("1")
    assert bot.texts == ["1", "1", "1"]


async def test_a_handler_that_is_cancelled_by_itself_does_not_keep_its_user_waiting(
    instance: Instances, store: UnsteadyStore
) -> None:
    class Cancelled(Counting):
        async def count(self, update: Update, context: Context) -> None:
            assert update.message is not None
            if update.message.text == "1":
                raise asyncio.CancelledError
            await super().count(update, context)

    bot = Cancelled()

    def configure(builder: Any) -> Any:
        return builder.update_queue(DurableInbox(attempts=1)).concurrent_updates(8)

    async with instance(bot.set_up, configure=configure) as application:
        for number in (1, 2, 3):
            await application.update_queue.put(message(application, 7, f"{number}", update_id=number))
            await idle(application)
    assert [type(error) for error in bot.errors] == [UpdateSetAside]
    assert bot.texts == ["2", "3"]


@pytest.mark.parametrize("message_", ["none", {"message_id": 1, "date": 1, "chat": 5, "entities": [5]}])
async def test_an_update_that_ptb_cannot_read_stops_no_other(
    instance: Instances, store: UnsteadyStore, message_: object
) -> None:
    values = SessionPersistence(store).records.values
    key = KEYS.inboxes.key(7)
    packed = values.pack("update", [{"update_id": 1, "message": message_}, False]).plain
    await store.put(key, values.seal(key, values.pack(key, [[1, 0.0, 0, packed]]).plain))
    bot = Counting()
    async with instance(bot.set_up, configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "2", update_id=2))
        await bot.has_answered("2")
    assert bot.errors == []
    assert await waiting(store) == [key]


async def test_a_failing_handler_is_not_tried_again(instance: Instances, store: UnsteadyStore) -> None:
    errors: list[Any] = []

    async def fail(update: Update, context: Context) -> None:
        assert context.user_data is not None
        context.user_data["tried"] = True
        raise ValueError("the handler's own")

    async def note(update: object, context: Context) -> None:
        errors.append(context.error)

    def set_up(application: AnyApplication) -> None:
        application.add_handler(MessageHandler(filters.ALL, fail))
        application.add_error_handler(note)

    async with instance(set_up, configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await idle(application)
    assert [type(error) for error in errors] == [ValueError]
    assert (await stored(store))[0] == {7: {"tried": True}}
    assert await waiting(store) == []


async def test_an_update_of_nobody_is_processed_once(instance: Instances, store: UnsteadyStore) -> None:
    seen: list[int] = []

    async def see(update: Update, context: Context) -> None:
        seen.append(update.update_id)
        context.bot_data["n"] = context.bot_data.get("n", 0) + 1

    async with instance(
        lambda application: application.add_handler(TypeHandler(Update, see)), configure=with_inbox
    ) as application:
        for _ in range(2):
            for update_id in (1, 2):
                await application.update_queue.put(Update(update_id))
            await idle(application)
    assert sorted(seen) == [1, 2]
    assert (await stored(store))[2] == {"n": 2}
    assert await waiting(store) == []


async def test_a_pressed_button_keeps_the_object_behind_it(
    instance: Instances, store: UnsteadyStore, api: BotApiServer
) -> None:
    pressed: list[Any] = []
    seen = asyncio.Event()

    async def press(update: Update, context: Context) -> None:
        assert update.callback_query is not None
        pressed.append(update.callback_query.data)
        seen.set()

    class Pressing(Counting):
        def set_up(self, application: AnyApplication) -> None:
            application.add_handler(CallbackQueryHandler(press))

    async with unstarted(api, store, Pressing()) as killed:
        user = User(7, "Ann", is_bot=False)
        # As PTB has put the object behind the button into it.
        update = Update(
            1, callback_query=CallbackQuery("1", user, "1", data=cast("str", ("an", {"object": 1})))
        )
        await killed.update_queue.put(update)
    async with instance(Pressing().set_up, configure=with_inbox):
        async with asyncio.timeout(30):
            await seen.wait()
    assert pressed == [("an", {"object": 1})]


async def test_what_is_no_update_is_queued_as_it_is(instance: Instances) -> None:
    inbox = DurableInbox(2)
    inbox.put_nowait("one")
    await inbox.put("two")
    assert inbox.full()
    assert (inbox.get_nowait(), await inbox.get()) == ("one", "two")


@pytest.mark.parametrize("at_once", [1, 8])
async def test_put_waits_while_as_many_wait_or_are_processed_as_may(
    instance: Instances, store: UnsteadyStore, api: BotApiServer, at_once: int
) -> None:
    bot, killed_bot = Counting(), Counting()
    bot.go_on.clear()
    async with unstarted(api, store, killed_bot) as killed:
        for number in range(20, 23):
            await killed.update_queue.put(message(killed, number, f"{number}", update_id=number))
    put: list[int] = []

    async def fill(application: AnyApplication) -> None:
        for number in range(1, 11):
            await application.update_queue.put(message(application, number, f"{number}", update_id=number))
            put.append(number)

    async with instance(
        bot.set_up,
        configure=lambda builder: builder.update_queue(DurableInbox(2)).concurrent_updates(at_once),
    ) as application:
        filling = asyncio.create_task(fill(application))
        done, _ = await asyncio.wait([filling], timeout=0.5)
        assert not done
        assert len(put) <= 2
        bot.go_on.set()
        await filling
        await bot.has_answered("10", "20", "21", "22")
        await idle(application)
    assert sorted(map(int, bot.texts)) == [*range(1, 11), 20, 21, 22]


@pytest.mark.parametrize(
    "arguments", [{"maxsize": 0}, {"maxsize": -1}, {"attempts": 0}, {"maxsize": "10"}, {"attempts": None}]
)
def test_bounds_are_whole_numbers_above_zero(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="is a whole number above 0"):
        DurableInbox(**arguments)


async def test_an_update_must_not_be_queued_without_being_stored(instance: Instances) -> None:
    async with instance(lambda _: None, configure=with_inbox) as application:
        with pytest.raises(ConfigurationError, match=r"await inbox\.put"):
            application.update_queue.put_nowait(message(application, 7, "a"))


async def test_an_inbox_is_of_one_session_application(api: BotApiServer, store: UnsteadyStore) -> None:
    inbox = DurableInbox()
    stock = ApplicationBuilder().token(api.token).updater(None).update_queue(inbox).build()
    assert isinstance(stock, Application)
    with pytest.raises(ConfigurationError, match="SessionApplication"):
        await inbox.put(message(stock, 7, "a"))

    def build() -> AnyApplication:
        builder = ApplicationBuilder().application_class(SessionApplication).token(api.token).updater(None)
        return builder.persistence(SessionPersistence(store)).update_queue(inbox).build()

    build()
    with pytest.raises(ConfigurationError, match="one application"):
        build()


async def test_a_store_that_is_not_atomic_is_refused(api: BotApiServer) -> None:
    class Plain(MemoryStore):
        @property
        def capabilities(self) -> Capabilities:
            return Capabilities(durable=False, scope=Scope.INSTANCE)

    async with Plain() as store:
        application = unstarted(api, store, Counting())
        with pytest.raises(ConfigurationError, match="all or none"):
            await application.initialize()


@pytest.mark.parametrize("seed", [0, 1, 2, 80, 111])
async def test_every_update_counts_once_whatever_fails(
    instance: Instances, store: UnsteadyStore, seed: int
) -> None:
    rng = random.Random(seed)
    users, most = 3, 30
    bot = Counting()

    def failures() -> list[Any]:
        return [
            rng.choice(
                [None, None, StoreUnavailable("lost", applied=Applied.MAYBE), StoreUnavailable("refused")]
            )
            for _ in range(rng.randint(0, 4))
        ]

    async with (
        instance(bot.set_up, configure=with_inbox, sweep=0.2, lease=5) as one,
        instance(bot.set_up, configure=with_inbox, sweep=0.2, lease=5) as two,
    ):
        for number in range(1, most + 1):
            store.failing += failures()
            for application in rng.sample([one, two], rng.randint(1, 2)):
                update = message(application, number % users, f"{number}", update_id=number)
                try:
                    await application.update_queue.put(update)
                except NetworkError:
                    pytest.fail("only atomic writes fail here")
            if rng.random() < 0.3:
                await asyncio.sleep(0)
        await emptied(store)
        await asyncio.gather(idle(one), idle(two))
    expected = {
        user: [f"{number}" for number in range(1, most + 1) if number % users == user]
        for user in range(users)
    }
    found, _, bot_data = await stored(store)
    assert {user: data["texts"] for user, data in found.items()} == expected
    assert {user: data["n"] for user, data in found.items()} == {u: len(t) for u, t in expected.items()}
    assert bot_data == {"n": most}
    assert all(isinstance(error, SessionKitError) for error in bot.errors)


async def test_a_failed_update_leaves_alone_what_another_is_in_the_middle_of(
    instance: Instances, store: UnsteadyStore
) -> None:
    bot = Counting()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handle(update: Update, context: Context) -> None:
        assert update.effective_user is not None
        assert context.user_data is not None
        if update.effective_user.id == 2:
            context.user_data["first"] = 1
            begun.set()
            await go_on.wait()
            context.user_data["then"] = 2
        else:
            context.application.user_data[2]["gift"] = 3
            context.application.mark_data_for_update_persistence(user_ids=2)

    def set_up(application: AnyApplication) -> None:
        application.add_handler(MessageHandler(filters.ALL, handle))
        application.add_error_handler(bot.note)

    async with instance(set_up, configure=with_inbox) as application:
        await application.update_queue.put(message(application, 2, "a", update_id=1))
        await begun.wait()
        store.failing = [StoreUnavailable("for now")]
        await application.update_queue.put(message(application, 1, "b", update_id=2))
        await bot.has_failed()
        go_on.set()
        await emptied(store)
        await idle(application)
    assert (await stored(store))[0][2] == {"first": 1, "then": 2, "gift": 3}


async def test_an_update_that_could_not_be_stored_is_not_tried_for_ever(
    instance: Instances, store: UnsteadyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_FIRST_PAUSE", 0.0)
    presses: list[object] = []

    async def press(update: Update, context: Context) -> None:
        presses.append(update)
        store.failing = [StoreUnavailable("never", temporary=False)]

    async with instance(
        lambda application: application.add_handler(CallbackQueryHandler(press)),
        configure=lambda builder: builder.update_queue(DurableInbox(attempts=2)),
    ) as application:
        query = CallbackQuery("1", User(7, "Ann", is_bot=False), "1", data=cast("str", object()))
        await application.update_queue.put(Update(1, callback_query=query))
        for _ in range(500):
            await asyncio.sleep(0)
    assert len(presses) == 3


async def test_a_damaged_note_of_what_was_processed_keeps_no_answers_back(
    instance: Instances, store: UnsteadyStore
) -> None:
    bot = Counting()
    await store.put(KEYS.handled.key(7), b"damaged")
    async with instance(bot.set_up, configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await bot.has_answered("a")
        await idle(application)
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await idle(application)
    assert bot.texts == ["a"]
    assert bot.errors == []


async def test_nothing_is_taken_back_without_an_inbox(instance: Instances) -> None:
    async with instance(lambda _: None) as application:
        assert isinstance(application, SessionApplication)
        with pytest.raises(ConfigurationError, match="DurableInbox"):
            await application.take_back(1)


async def test_a_copy_of_what_another_instance_has_processed_long_ago_is_not_run(
    instance: Instances, store: UnsteadyStore, api: BotApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_updates, "_MOST_HANDLED", 4)
    bot = Counting()
    async with (
        instance(bot.set_up, configure=with_inbox, sweep=1000) as quick,
        unstarted(api, store, bot, sweep=1000) as slow,
    ):
        for number in range(1, 21):
            await slow.update_queue.put(message(slow, 7, f"{number}", update_id=number))
        await quick.update_queue.put(message(quick, 7, "21", update_id=21))
        await idle(quick)
        await slow.start()
        await idle(slow)
        await slow.stop()
    assert bot.texts == [f"{number}" for number in range(1, 22)]
    assert (await stored(store))[2] == {"n": 21}


@pytest.mark.parametrize("attempts", [0, 1])
async def test_what_was_taken_up_before_is_processed_alone(
    instance: Instances, store: UnsteadyStore, api: BotApiServer, attempts: int
) -> None:
    """Else an update that kills its process would have those of others set aside with it."""
    bot = Counting()
    async with unstarted(api, store, bot) as killed:
        for user in (1, 2, 3):
            await killed.update_queue.put(message(killed, user, f"{user}", update_id=user))
    values = SessionPersistence(store).records.values
    for key in await waiting(store):
        record = await store.get(key)
        assert record is not None
        [entry] = cast("Any", values.open(key, record.value).value)
        entry[2] = attempts
        await store.put(key, values.seal(key, values.pack(key, [entry]).plain))
    inside = most = 0

    class Watched(Counting):
        async def count(self, update: Update, context: Context) -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            for _ in range(50):
                await asyncio.sleep(0)
            await super().count(update, context)
            inside -= 1

    watched = Watched()
    async with instance(watched.set_up, configure=with_inbox) as application:
        await watched.has_answered("1", "2", "3")
        await application.update_queue.put(message(application, 4, "4", update_id=4))
        await watched.has_answered("4")
        await idle(application)
    assert most == (1 if attempts else 3)
    assert watched.errors == []


async def test_an_inbox_is_given_and_not_its_class(api: BotApiServer, store: UnsteadyStore) -> None:
    builder: Any = ApplicationBuilder().application_class(SessionApplication).token(api.token).updater(None)
    with pytest.raises(ConfigurationError, match="not its class"):
        builder.persistence(SessionPersistence(store)).update_queue(DurableInbox).build()


async def test_a_queued_copy_of_what_was_processed_out_of_its_turn_is_not_run(
    instance: Instances, store: UnsteadyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_updates, "_MOST_HANDLED", 4)
    bot = Counting()
    async with instance(bot.set_up, configure=with_inbox) as application:
        numbers = list(range(1, 21))
        # The last one comes first, and has all the others processed before itself.
        for number in [20, *numbers[:-1]]:
            update = message(application, 7, f"{number}", update_id=number)
            await application.update_queue.put(update)
        await idle(application)
        assert bot.texts == [f"{number}" for number in numbers]
    assert (await stored(store))[2] == {"n": 20}


async def test_an_update_is_not_taken_for_processed_while_the_store_cannot_be_asked(
    instance: Instances, store: UnsteadyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = Counting()

    async def fail(keys: Iterable[str]) -> dict[str, Record]:
        raise StoreUnavailable("not even asked")

    async with instance(bot.set_up, configure=with_inbox, sweep=1000) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await bot.has_answered("a")
        monkeypatch.setattr(store, "get_many", fail)
        await application.update_queue.put(message(application, 7, "b", update_id=2))
        await bot.has_failed()
        monkeypatch.undo()
        await bot.has_answered("b")
        await idle(application)
    assert bot.texts == ["a", "b"]
    assert await waiting(store) == []


async def test_an_update_waits_while_it_cannot_be_read_whether_it_was_processed(
    instance: Instances, store: UnsteadyStore
) -> None:
    """By a key that this process has not: not a damaged record, which is begun anew."""
    rings = [Keyring.parse(new_key(name)) for name in ("a", "b")]
    bot = Counting()

    def persistence(keyring: Keyring) -> SessionPersistence:
        codec = MsgpackCodec(keyring=keyring)
        register_telegram_objects(codec)
        return SessionPersistence(store, codec=codec, update_interval=1000)

    async with instance(bot.set_up, configure=with_inbox, persistence=persistence(rings[0])) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await bot.has_answered("a")
        await idle(application)
    handled = await store.get(KEYS.handled.key(7))
    async with instance(bot.set_up, configure=with_inbox, persistence=persistence(rings[1])) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await bot.has_failed()
        assert isinstance(bot.errors[0], DecryptionError)
    assert bot.texts == ["a"]
    assert await store.get(KEYS.handled.key(7)) == handled


async def set_aside(store: UnsteadyStore, application: AnyApplication, text: str) -> None:
    """Set aside an update of the number 1, of user 7."""
    records = SessionPersistence(store).records
    fields, _ = raw_update(message(application, 7, text, update_id=1))
    packed = records.values.pack("update", [fields, False]).plain
    await pending.PendingUpdates(application, records).set_aside(PendingUpdate(1, 0.0, 3, packed))


async def test_what_is_taken_back_is_not_dropped_by_its_users_next_update(
    instance: Instances, store: UnsteadyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = Counting()
    async with instance(bot.set_up, configure=with_inbox) as application:
        assert isinstance(application, SessionApplication)
        await application.update_queue.put(message(application, 7, "1", update_id=1))
        await bot.has_answered("1")
        await set_aside(store, application, "again")
        write_all, tasks = store.write_all, list[asyncio.Task[None]]()

        async def write_all_and_process(*arguments: Any, **options: Any) -> Receipt:
            receipt = await write_all(*arguments, **options)
            if not tasks:  # its user's next update comes just now
                update = message(application, 7, "2", update_id=2)
                tasks.append(asyncio.create_task(application.process_update(update)))
                for _ in range(100):
                    await asyncio.sleep(0)
            return receipt

        monkeypatch.setattr(store, "write_all", write_all_and_process)
        assert await application.take_back(1)
        await bot.has_answered("again", "2")
        await idle(application)
    assert bot.texts == ["1", "again", "2"]
    assert await waiting(store) == []


@pytest.mark.parametrize("applied", [Applied.NO, Applied.MAYBE])
async def test_what_is_taken_back_is_processed_once(
    instance: Instances, store: UnsteadyStore, applied: Applied
) -> None:
    bot = Counting()
    async with instance(bot.set_up, configure=with_inbox) as application:
        assert isinstance(application, SessionApplication)
        await set_aside(store, application, "again")
        store.failing = [StoreUnavailable("for now", applied=applied)]
        with pytest.raises(StoreUnavailable):
            await application.take_back(1)
        # Whether it was taken back is not known, and that it is asked for again makes no second one.
        taken = await asyncio.gather(application.take_back(1), application.take_back(1))
        assert sorted(taken) == [False, applied is Applied.NO]
        await application.update_queue.put(message(application, 7, "2", update_id=2))
        await bot.has_answered("again", "2")
        await idle(application)
    assert bot.texts == ["again", "2"]
    assert await waiting(store) == []
