"""What two instances of a bot make of each other's changes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import (
    BaseHandler,
    CallbackQueryHandler,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    InvalidCallbackData,
    JobQueue,
    MessageHandler,
    TypeHandler,
    filters,
)

from sessionkit.codec import MsgpackCodec
from sessionkit.errors import ConfigurationError, LockNotAcquired
from sessionkit.ptb import SessionApplication, SessionJobQueue, SessionPersistence, on_commit
from sessionkit.resilience import ConflictFound
from tests.ptb.conftest import message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sessionkit.testing.botapi import BotApiServer
    from tests.ptb.conftest import AnyApplication, Instances, UnsteadyStore

Context = ContextTypes.DEFAULT_TYPE


async def count(_: Update, context: Context) -> None:
    assert context.user_data is not None
    assert context.chat_data is not None
    for data in (context.user_data, context.chat_data, context.bot_data):
        data["n"] = data.get("n", 0) + 1


def counter(application: AnyApplication) -> None:
    application.add_handler(CommandHandler("count", count))


def session(application: AnyApplication) -> SessionApplication:
    assert isinstance(application, SessionApplication)
    return application


async def stored(store: UnsteadyStore) -> tuple[Any, Any, Any]:
    persistence = SessionPersistence(store)
    return (
        await persistence.get_user_data(),
        await persistence.get_chat_data(),
        await persistence.get_bot_data(),
    )


async def test_each_sees_what_the_other_did(store: UnsteadyStore, instance: Instances) -> None:
    async with instance(counter) as one, instance(counter) as two:
        for _ in range(3):
            for application in (one, two):
                await application.process_update(message(application, 1, "/count"))
        assert one.user_data[1] == {"n": 5}, "a cache, until it is needed again"
        assert two.user_data[1] == {"n": 6}
    assert await stored(store) == ({1: {"n": 6}}, {1: {"n": 6}}, {"n": 6})


async def test_what_belongs_to_all_is_counted_exactly(store: UnsteadyStore, instance: Instances) -> None:
    async with instance(counter) as one, instance(counter) as two:
        updates = [
            application.process_update(message(application, user, "/count", -1000 - user % 3))
            for user in range(1, 31)
            for application in (one, two)
        ]
        await asyncio.gather(*updates)
    users, chats, bot = await stored(store)
    assert users == {user: {"n": 2} for user in range(1, 31)}
    assert sum(data["n"] for data in chats.values()) == 60
    assert bot == {"n": 60}


async def test_a_conflict_is_reported_and_theirs_stands(
    store: UnsteadyStore, instance: Instances, caplog: pytest.LogCaptureFixture
) -> None:
    conflicts: list[object] = []
    go_on = asyncio.Event()
    ready = asyncio.Event()

    async def name(_: Update, context: Context) -> None:
        context.bot_data.update(name=context.args, by=context.args, here=1)
        ready.set()
        await go_on.wait()

    def set_up(application: AnyApplication) -> None:
        application.add_handler(CommandHandler("name", name))

    slow = SessionPersistence(store, update_interval=1000)
    slow.subscribe(conflicts.append)
    async with instance(set_up, persistence=slow) as one, instance(set_up) as two:
        update = asyncio.create_task(one.process_update(message(one, 1, "/name one")))
        await ready.wait()
        async with session(two).editing():
            two.bot_data.update(name=["two"], there=2)
        go_on.set()
        await update
        assert one.bot_data == {"name": ["two"], "by": ["one"], "here": 1, "there": 2}
    assert (await stored(store))[2] == one.bot_data
    assert conflicts == [ConflictFound("telegram_bot:bot_data:all", "primary")]
    assert "conflict on telegram_bot:bot_data:all: 1 values" in caplog.text


def greeting(application: AnyApplication) -> None:
    async def start(_: Update, context: Context) -> str:
        return "name"

    async def name(_: Update, context: Context) -> int:
        return ConversationHandler.END

    named: list[BaseHandler[Update, Context, object]] = [
        MessageHandler(filters.TEXT & ~filters.COMMAND, name)
    ]
    application.add_handler(
        ConversationHandler(
            entry_points=[CommandHandler("start", start)],
            states={"name": named},
            fallbacks=[],
            name="greeting",
            persistent=True,
        )
    )


async def test_a_conversation_goes_on_elsewhere(store: UnsteadyStore, instance: Instances) -> None:
    async with instance(greeting) as one, instance(greeting) as two:
        for _ in range(2):
            await one.process_update(message(one, 1, "/start"))
            assert await SessionPersistence(store).get_conversations("greeting") == {(1, 1): "name"}
            await two.process_update(message(two, 1, "Ada"))
            assert await SessionPersistence(store).get_conversations("greeting") == {}
        assert [key async for key in store.scan("")] == [], "what has ended leaves nothing"


async def test_a_conversation_that_is_stored_as_ended_has_ended(
    store: UnsteadyStore, instance: Instances
) -> None:
    await SessionPersistence(store).update_conversation("greeting", (1, 1), ConversationHandler.END)
    async with instance(greeting) as one:
        await one.process_update(message(one, 1, "/start"))
        assert await SessionPersistence(store).get_conversations("greeting") == {(1, 1): "name"}
        await one.process_update(message(one, 1, "Ada"))
    assert await SessionPersistence(store).get_conversations("greeting") == {}


async def test_a_nested_conversation_goes_on_elsewhere(store: UnsteadyStore, instance: Instances) -> None:
    async def to(state: object, update: Update, context: Context) -> object:
        return state

    def step(text: str, state: object) -> BaseHandler[Update, Context, object]:
        async def go(_: Update, __: Context) -> object:
            return state

        return MessageHandler(filters.Regex(f"^{text}$"), go)

    def set_up(application: AnyApplication) -> None:
        inner: ConversationHandler[Context] = ConversationHandler(
            entry_points=[step("in", "deep")],
            states={"deep": [step("out", "done")]},
            fallbacks=[],
            name="inner",
            persistent=True,
            map_to_parent={"done": "after"},
        )
        inside: list[BaseHandler[Update, Context, object]] = [inner]
        application.add_handler(
            ConversationHandler(
                entry_points=[step("begin", "inside")],
                states={"inside": inside, "after": [step("end", ConversationHandler.END)]},
                fallbacks=[],
                name="outer",
                persistent=True,
            )
        )

    def states() -> Any:
        persistence = SessionPersistence(store)
        return asyncio.gather(persistence.get_conversations("outer"), persistence.get_conversations("inner"))

    expected = {
        "begin": [{(1, 1): "inside"}, {}],
        "in": [{(1, 1): "inside"}, {(1, 1): "deep"}],
        "out": [{(1, 1): "after"}, {}],
        "end": [{}, {}],
    }
    async with instance(set_up) as one, instance(set_up) as two:
        for application, (text, after) in zip((one, two, one, two), expected.items(), strict=True):
            await application.process_update(message(application, 1, text))
            assert await states() == after


async def test_a_job_takes_its_turn(store: UnsteadyStore, instance: Instances) -> None:
    done = asyncio.Event()

    async def job(context: Context) -> None:
        assert context.user_data is not None
        assert context.chat_data is not None
        context.user_data["n"] += 10
        context.chat_data["job"] = True
        context.bot_data["job"] = True
        done.set()

    async def later(_: Update, context: Context) -> None:
        assert context.job_queue is not None
        context.job_queue.run_once(job, timedelta(), user_id=1, chat_id=1)

    def set_up(application: AnyApplication) -> None:
        counter(application)
        application.add_handler(CommandHandler("later", later))

    async with instance(set_up) as one, instance(set_up) as two:
        await one.process_update(message(one, 1, "/count"))
        await two.process_update(message(two, 1, "/count"))
        await one.process_update(message(one, 1, "/later"))
        await done.wait()
        await two.process_update(message(two, 1, "/count"))
    assert await stored(store) == ({1: {"n": 13}}, {1: {"n": 3, "job": True}}, {"n": 3, "job": True})


@pytest.mark.parametrize("how", ["create_task", "non-blocking handler"])
async def test_what_a_late_task_changes_is_stored_when_it_ends(
    store: UnsteadyStore, instance: Instances, how: str
) -> None:
    go_on, ended = asyncio.Event(), asyncio.Event()

    async def late(_: Update, context: Context) -> None:
        assert context.user_data is not None
        await go_on.wait()
        context.user_data["late"] = True
        context.user_data["n"] = context.user_data.get("n", 0) + 100
        ended.set()

    async def start(update: Update, context: Context) -> None:
        context.application.create_task(late(update, context), update)

    def set_up(application: AnyApplication) -> None:
        counter(application)
        handler = CommandHandler("late", start if how == "create_task" else late, block=how == "create_task")
        application.add_handler(handler)

    async with instance(set_up, max_cached=2) as one, instance(set_up) as two:
        await one.process_update(message(one, 1, "/late"))
        await two.process_update(message(two, 1, "/count"))
        await one.process_update(message(one, 1, "/count"))
        await one.process_update(message(one, 2, "/count"))
        go_on.set()
        await ended.wait()
        await two.process_update(message(two, 1, "/count"))
        await one.process_update(message(one, 1, "/count"))
    assert (await stored(store))[0] == {1: {"late": True, "n": 104}, 2: {"n": 1}}


async def test_a_state_that_a_late_handler_gives_is_stored_when_it_ends(
    store: UnsteadyStore, instance: Instances
) -> None:
    go_on = asyncio.Event()

    async def start(_: Update, context: Context) -> str:
        await go_on.wait()
        return "name"

    def set_up(application: AnyApplication) -> None:
        application.add_handler(
            ConversationHandler(
                entry_points=[CommandHandler("start", start, block=False)],
                states={"name": []},
                fallbacks=[],
                name="greeting",
                persistent=True,
            )
        )

    async with instance(set_up) as one:
        await one.process_update(message(one, 1, "/start"))
        assert await SessionPersistence(store).get_conversations("greeting") == {}
        go_on.set()
    assert await SessionPersistence(store).get_conversations("greeting") == {(1, 1): "name"}


async def test_others_data_are_edited_in_their_turn(store: UnsteadyStore, instance: Instances) -> None:
    async def give(_: Update, context: Context) -> None:
        assert context.user_data is not None
        application = session(context.application)
        async with application.user_data_of(2) as theirs, application.user_data_of(1) as mine:
            theirs["coins"] = theirs.get("coins", 0) + 1
            mine["coins"] = mine.get("coins", 10) - 1

    def set_up(application: AnyApplication) -> None:
        counter(application)
        application.add_handler(CommandHandler("give", give))

    async with instance(set_up) as one, instance(set_up) as two:
        updates = [app.process_update(message(app, 1, "/give")) for app in (one, two) for _ in range(3)]
        await asyncio.gather(*updates, *(two.process_update(message(two, 2, "/count")) for _ in range(3)))
        async with session(two).chat_data_of(-5) as chat:
            chat["a"] = 1
        with pytest.raises(ZeroDivisionError):
            async with session(two).user_data_of(2) as theirs:
                theirs["coins"] = 0
                raise ZeroDivisionError
        async with session(one).user_data_of(2) as theirs:
            assert theirs == {"coins": 6, "n": 3}
            with pytest.raises(LockNotAcquired):
                async with session(two).user_data_of(2, wait=0.01):
                    pass
    users, chats, _ = await stored(store)
    assert users == {1: {"coins": 4}, 2: {"coins": 6, "n": 3}}
    assert chats[-5] == {"a": 1}


async def test_data_marked_without_being_loaded_are_merged(store: UnsteadyStore, instance: Instances) -> None:
    async def mark(_: Update, context: Context) -> None:
        context.application.user_data[2]["gift"] = True
        context.application.mark_data_for_update_persistence(user_ids=2)
        context.application.mark_data_for_update_persistence(user_ids=[3])

    def set_up(application: AnyApplication) -> None:
        application.add_handler(CommandHandler("mark", mark))

    before = SessionPersistence(store)
    await before.update_user_data(2, {"n": 7})
    await before.update_user_data(3, {"n": 8})
    async with instance(set_up) as one:
        await one.process_update(message(one, 1, "/mark"))
        assert (await stored(store))[0] == {2: {"n": 7, "gift": True}, 3: {"n": 8}}
        assert one.user_data[2] == {"n": 7, "gift": True}


async def test_memory_is_bounded(store: UnsteadyStore, instance: Instances) -> None:
    async with instance(counter, max_cached=20) as one:
        for _ in range(2):
            for user in range(1, 101):
                await one.process_update(message(one, user, "/count"))
        assert len(one.user_data) + len(one.chat_data) <= 20
        assert one.bot_data == {"n": 200}
    assert (await stored(store))[0] == {user: {"n": 2} for user in range(1, 101)}


async def test_what_is_not_stored_is_not_evicted(store: UnsteadyStore, instance: Instances) -> None:
    async with instance(counter, max_cached=4) as one:
        store.down = True
        for user in range(1, 11):
            await one.process_update(message(one, user, "/count"))
        assert len(one.user_data) == 10
        store.down = False
        await one.update_persistence()
        await one.process_update(message(one, 11, "/count"))
        assert len(one.user_data) <= 4
    assert (await stored(store))[0] == {user: {"n": 1} for user in range(1, 12)}


@dataclass
class Profile:
    """Somebody's own type of data."""

    visits: int = 0
    tags: list[str] = field(default_factory=list)


async def test_own_and_immutable_types_of_data(store: UnsteadyStore, instance: Instances) -> None:
    codec = MsgpackCodec()
    codec.register_dataclass("profile", Profile)
    types: Any = ContextTypes(user_data=Profile, chat_data=int, bot_data=Profile)

    async def visit(_: Update, context: Context) -> None:
        user: Any = context.user_data
        bot: Any = context.bot_data
        user.visits += 1
        bot.visits += 1

    def set_up(application: AnyApplication) -> None:
        application.add_handler(CommandHandler("visit", visit))

    def run() -> Any:
        persistence = SessionPersistence(store, context_types=types, codec=codec, update_interval=1000)
        return instance(
            set_up, persistence=persistence, configure=lambda builder: builder.context_types(types)
        )

    async with run() as one, run() as two:
        for application in (one, two, one, two):
            await application.process_update(message(application, 1, "/visit"))
        assert two.user_data[1] == two.bot_data == Profile(4)
        assert two.chat_data[1] == 0


def napping(seconds: float) -> Any:
    async def nap(_: Update, context: Context) -> str:
        return "asleep"

    async def wake(update: Update, context: Context) -> None:
        assert context.user_data is not None
        assert update.effective_chat is not None
        context.user_data["woken in"] = update.effective_chat.id
        context.user_data["woken"] = context.user_data.get("woken", 0) + 1
        on_commit(context.bot.send_message, update.effective_chat.id, "good morning")

    async def stir(_: Update, context: Context) -> None:
        pass

    async def get_up(_: Update, context: Context) -> int:
        return ConversationHandler.END

    def set_up(application: AnyApplication) -> None:
        asleep: list[BaseHandler[Update, Context, object]] = [
            CommandHandler("stir", stir),
            CommandHandler("up", get_up),
        ]
        application.add_handler(
            ConversationHandler(
                entry_points=[CommandHandler("nap", nap)],
                states={"asleep": asleep, ConversationHandler.TIMEOUT: [TypeHandler(Update, wake)]},
                fallbacks=[],
                name="nap",
                persistent=True,
                conversation_timeout=timedelta(seconds=seconds),
            )
        )

    return set_up


async def until(store: UnsteadyStore, look: Callable[[], Awaitable[bool]]) -> None:
    """Return when something is stored."""
    async with asyncio.timeout(20):
        while not await look():
            store.saved.clear()
            await store.saved.wait()


async def asleep(store: UnsteadyStore) -> Any:
    return await SessionPersistence(store).get_conversations("nap")


async def is_awake(store: UnsteadyStore, user: int) -> bool:
    """Whether a user was woken, and the conversation has ended."""
    return user in (await stored(store))[0] and user not in {key[1] for key in await asleep(store)}


async def test_a_conversation_times_out(store: UnsteadyStore, instance: Instances) -> None:
    async with instance(napping(0.05)) as one:
        await one.process_update(message(one, 1, "/nap"))
        await until(store, lambda: is_awake(store, 1))
    assert [key async for key in store.scan("")] == ["telegram_bot:user_data:1"]


async def test_a_deadline_that_was_put_off_elsewhere_counts(
    store: UnsteadyStore, instance: Instances
) -> None:
    async with instance(napping(0.05)) as one, instance(napping(1000)) as two:
        await one.process_update(message(one, 2, "/nap"))
        await two.process_update(message(two, 2, "/stir"))
        await two.process_update(message(two, 3, "/nap"))
        await one.process_update(message(one, 3, "/stir"))
        await one.process_update(message(one, 4, "/nap"))
        await two.process_update(message(two, 4, "/up"))
        await until(store, lambda: is_awake(store, 3))
        assert await asleep(store) == {(2, 2): "asleep"}
        assert (await stored(store))[0] == {3: {"woken in": 3, "woken": 1}}


async def test_a_deadline_that_passed_while_nobody_was_there(
    store: UnsteadyStore, instance: Instances
) -> None:
    async with instance(napping(0.3)) as one:
        await one.process_update(message(one, 1, "/nap"))
    async with instance(napping(1000)), instance(napping(1000)):
        await until(store, lambda: is_awake(store, 1))
    assert (await stored(store))[0] == {1: {"woken in": 1, "woken": 1}}


@pytest.mark.parametrize("odd", [{}, {"deadline": "soon", "update": "{}"}])
async def test_what_is_no_deadline_stops_no_conversation(
    store: UnsteadyStore, instance: Instances, odd: object
) -> None:
    async with instance(napping(0.05)) as one:
        await one.process_update(message(one, 1, "/nap"))
        await until(store, lambda: is_awake(store, 1))
    values, key = SessionPersistence(store).records.values, "telegram_bot:timeout:nap:1:1"
    await store.put(key, values.seal(key, values.pack(key, odd).plain))

    async def is_awake_again() -> bool:
        users, _, _ = await stored(store)
        return bool(users == {1: {"woken in": 1, "woken": 2}})

    async with instance(napping(0.05)) as one:
        await one.process_update(message(one, 1, "/nap"))
        await until(store, is_awake_again)


async def test_another_job_queue_does_not_keep_deadlines(instance: Instances) -> None:
    class Own(JobQueue[Any]):
        """Somebody's own."""

    with pytest.raises(ConfigurationError, match="derive it from SessionJobQueue"):
        async with instance(napping(1), configure=lambda builder: builder.job_queue(Own())):
            pass

    class Derived(SessionJobQueue):
        """Derived, as it should be."""

    async with instance(napping(1), configure=lambda builder: builder.job_queue(Derived())):
        pass


@pytest.mark.parametrize("seen_by", ["both", "old", "new"])
async def test_a_group_that_becomes_a_supergroup_takes_everything_along(
    store: UnsteadyStore, instance: Instances, seen_by: str
) -> None:
    old, new = -5, -1005

    async def migrate(update: Update, context: Context) -> None:
        context.application.migrate_chat_data(update.message)

    def set_up(application: AnyApplication) -> None:
        counter(application)
        greeting(application)
        napping(0.5)(application)
        application.add_handler(MessageHandler(filters.StatusUpdate.MIGRATE, migrate), group=1)

    async with instance(set_up) as one, instance(set_up) as two:
        await one.process_update(message(one, 1, "/count", old))
        await one.process_update(message(one, 1, "/start", old))
        await two.process_update(message(two, 2, "/nap", old))
        if seen_by != "new":
            await one.process_update(message(one, 9, "moved", old, migrate_to_chat_id=new))
        if seen_by != "old":
            await two.process_update(message(two, 9, "moved", new, migrate_from_chat_id=old))
        assert (await stored(store))[1] == {new: {"n": 1}}
        persistence = SessionPersistence(store)
        assert await persistence.get_conversations("greeting") == {(new, 1): "name"}
        await two.process_update(message(two, 1, "/count", new))
        await two.process_update(message(two, 1, "Ada", new))
        await until(store, lambda: is_awake(store, 2))
        assert (await stored(store))[0][2] == {"woken in": new, "woken": 1}
        assert await persistence.get_conversations("greeting") == {}
    assert (await stored(store))[1] == {new: {"n": 2}}
    assert [key async for key in store.scan("") if "-5" in key] == []


async def test_a_button_is_known_to_an_instance_that_did_not_send_it(
    store: UnsteadyStore, instance: Instances, api: BotApiServer
) -> None:
    pressed: list[object] = []

    async def offer(update: Update, context: Context) -> None:
        assert update.message is not None
        button = InlineKeyboardButton("take", callback_data=("item", {"n": 5}))
        on_commit(update.message.reply_text, "offer", reply_markup=InlineKeyboardMarkup([[button]]))

    async def take(update: Update, context: Context) -> None:
        assert update.callback_query is not None
        pressed.append(update.callback_query.data)
        if len(pressed) == 3:
            context.drop_callback_data(update.callback_query)

    def set_up(application: AnyApplication) -> None:
        application.add_handler(CommandHandler("offer", offer))
        application.add_handler(CallbackQueryHandler(take))

    def arbitrary(builder: Any) -> Any:
        return builder.arbitrary_callback_data(True)

    def press(application: AnyApplication, data: str) -> Update:
        """Return the update as PTB makes it of what Telegram sends."""
        sender = {"id": 1, "is_bot": False, "first_name": "Ann"}
        chat = {"id": 1, "type": "private"}
        keyboard = {"inline_keyboard": [[{"text": "take", "callback_data": data}]]}
        me = {"id": application.bot.id, "is_bot": True, "first_name": "bot"}
        sent = {"message_id": 2, "date": 1, "chat": chat, "from": me, "reply_markup": keyboard}
        query = {"id": "7", "from": sender, "chat_instance": "x", "data": data, "message": sent}
        update = Update.de_json({"update_id": 1, "callback_query": query}, application.bot)
        application.bot.insert_callback_data(update)
        return update

    async with (
        instance(set_up, configure=arbitrary) as one,
        instance(set_up, configure=arbitrary) as two,
        instance(set_up, configure=arbitrary) as three,
        instance(set_up, configure=arbitrary) as four,
    ):
        await one.process_update(message(one, 1, "/offer"))
        call = await api.wait_for_call("sendMessage")
        [[button]] = json.loads(call.params["reply_markup"])["inline_keyboard"]
        for application in (one, two, three, four):
            await application.process_update(press(application, button["callback_data"]))
    expected: list[object] = [("item", {"n": 5})] * 3
    assert pressed[:3] == expected
    assert isinstance(pressed[3], InvalidCallbackData), "it was dropped"
    assert [key async for key in store.scan("")] == []
