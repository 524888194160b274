from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import (
    Application,
    ApplicationBuilder,
    CallbackQueryHandler,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    MessageHandler,
    PersistenceInput,
    filters,
)

from sessionkit.errors import ConfigurationError, StoreUnavailable, UnsupportedType
from sessionkit.ptb import SessionApplication, SessionPersistence, on_commit

if TYPE_CHECKING:
    from sessionkit.testing.botapi import BotApiServer, Call
    from tests.ptb.conftest import AnyApplication, Running, UnsteadyStore

Context = ContextTypes.DEFAULT_TYPE


async def count(update: Update, context: Context) -> None:
    assert update.message is not None
    assert context.user_data is not None
    assert context.chat_data is not None
    for data in (context.user_data, context.chat_data, context.bot_data):
        data["n"] = data.get("n", 0) + 1
    await update.message.reply_text(f"{context.user_data['n']}")


def add_counter(application: AnyApplication) -> None:
    application.add_handler(CommandHandler("count", count))


async def test_a_stock_application_goes_on_where_it_stopped(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    ann, bob = api.user(1), api.user(2, first_name="Bob")
    async with running(SessionPersistence(store), add_counter):
        await ann.send("/count").expects("1").send("/count").expects("2")
        await bob.send("/count").expects("1")
    async with running(SessionPersistence(store), add_counter) as application:
        await ann.send("/count").expects("3")
        assert application.bot_data == {"n": 4}
        assert application.chat_data[1] == {"n": 3}


async def test_a_stock_application_saves_without_being_stopped(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    async with running(SessionPersistence(store, update_interval=0.01), add_counter):
        await api.user(1).send("/count").expects("1")
        async with asyncio.timeout(10):
            while not await SessionPersistence(store).get_user_data():
                store.saved.clear()
                await store.saved.wait()
        assert await SessionPersistence(store).get_user_data() == {1: {"n": 1}}


async def test_a_failed_write_is_not_lost_though_ptb_never_repeats_it(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    errors: asyncio.Queue[BaseException | None] = asyncio.Queue()

    async def note(_: object, context: Context) -> None:
        errors.put_nowait(context.error)

    def set_up(application: AnyApplication) -> None:
        add_counter(application)
        application.add_error_handler(note)

    async with running(SessionPersistence(store, update_interval=0.01), set_up):
        store.down = True
        await api.user(1).send("/count").expects("1")
        assert isinstance(await errors.get(), StoreUnavailable)
        store.saved.clear()
        store.down = False
        async with asyncio.timeout(10):
            await store.saved.wait()
    assert await SessionPersistence(store).get_user_data() == {1: {"n": 1}}


async def test_only_what_is_asked_for_is_kept(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    kept = PersistenceInput(bot_data=False, chat_data=False, callback_data=False)
    async with running(SessionPersistence(store, store_data=kept), add_counter):
        await api.user(1).send("/count").expects("1")
    assert [key async for key in store.scan("")] == ["telegram_bot:user_data:1"]


async def test_callback_data_outlives_the_process(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    async def offer(update: Update, _: Context) -> None:
        assert update.message is not None
        button = InlineKeyboardButton("take", callback_data=("item", 5))
        await update.message.reply_text("offer", reply_markup=InlineKeyboardMarkup([[button]]))

    async def taken(update: Update, _: Context) -> None:
        assert update.callback_query is not None
        await update.callback_query.answer()
        await update.callback_query.edit_message_text(f"taken {update.callback_query.data}")

    def set_up(application: AnyApplication) -> None:
        application.add_handler(CommandHandler("offer", offer))
        application.add_handler(CallbackQueryHandler(taken))

    def configure(builder: Any) -> Any:
        return builder.arbitrary_callback_data(True)

    user = api.user(1)
    async with running(SessionPersistence(store), set_up, configure=configure):
        message = await user.send("/offer").expects("offer")
    async with running(SessionPersistence(store), set_up, configure=configure):
        await user.press(message, "take")
        assert (await user.edited()).text == "taken ('item', 5)"


def conversation(application: AnyApplication) -> None:
    """/start, a name, and answers that are sent only when their step is safe."""

    async def start(update: Update, _: Context) -> str:
        assert update.message is not None
        on_commit(update.message.reply_text, "name?")
        return "name"

    async def name(update: Update, context: Context) -> int:
        assert update.message is not None
        assert context.user_data is not None
        context.user_data["name"] = update.message.text
        on_commit(update.message.reply_text, f"hello {update.message.text}")
        return ConversationHandler.END

    application.add_handler(
        ConversationHandler(
            entry_points=[CommandHandler("start", start)],
            states={"name": [MessageHandler(filters.TEXT, name)]},
            fallbacks=[],
            name="greeting",
            persistent=True,
        )
    )


async def test_what_a_user_saw_answered_is_stored(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    stored: list[tuple[object, object]] = []
    elsewhere = SessionPersistence(store)

    @api.on_call
    async def look(call: Call) -> None:
        if call.method == "sendMessage":
            stored.append((await elsewhere.get_conversations("greeting"), await elsewhere.get_user_data()))

    async with running(SessionPersistence(store, update_interval=1000), conversation, SessionApplication):
        await api.user(1).send("/start").expects("name?").send("Ada").expects("hello Ada")
    assert stored == [({(1, 1): "name"}, {}), ({}, {1: {"name": "Ada"}})]


async def test_an_answer_that_would_promise_too_much_is_not_sent(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    async def apologise(update: object, context: Context) -> None:
        assert isinstance(context.error, StoreUnavailable)
        if isinstance(update, Update) and update.message is not None:
            await update.message.reply_text("sorry")

    def set_up(application: AnyApplication) -> None:
        conversation(application)
        application.add_error_handler(apologise)

    user = api.user(1)
    async with running(SessionPersistence(store, update_interval=1000), set_up, SessionApplication):
        store.down = True
        await user.send("/start").expects("sorry")
        store.down = False
        await user.send("Ada").expects("hello Ada")
    assert [entry.text for entry in user.transcript if entry.who == "bot"] == ["sorry", "hello Ada"]


async def test_a_failed_handler_keeps_no_promise(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    async def fail(update: Update, _: Context) -> None:
        assert update.message is not None
        on_commit(update.message.reply_text, "done")
        raise ZeroDivisionError

    async def report(update: object, context: Context) -> None:
        assert isinstance(update, Update)
        assert update.message is not None
        on_commit(update.message.reply_text, f"failed: {type(context.error).__name__}")

    def set_up(application: AnyApplication) -> None:
        application.add_handler(CommandHandler("fail", fail))
        application.add_error_handler(report)

    user = api.user(1)
    async with running(SessionPersistence(store), set_up, SessionApplication):
        await user.send("/fail").expects("failed: ZeroDivisionError")
    assert [entry.text for entry in user.transcript if entry.who == "bot"] == ["failed: ZeroDivisionError"]


async def test_a_value_that_cannot_be_kept_is_reported_with_its_path(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    errors: list[BaseException | None] = []

    async def keep(update: Update, context: Context) -> None:
        assert update.message is not None
        assert context.user_data is not None
        context.user_data["cart"] = [UnsupportedType]
        on_commit(update.message.reply_text, "kept")

    async def note(_: object, context: Context) -> None:
        errors.append(context.error)

    def set_up(application: AnyApplication) -> None:
        add_counter(application)
        application.add_handler(CommandHandler("keep", keep))
        application.add_error_handler(note)

    ann, bob = api.user(1), api.user(2, first_name="Bob")
    async with running(SessionPersistence(store), set_up, SessionApplication):
        await ann.send("/keep")
        await bob.send("/count").expects("1")
    assert [entry.text for entry in ann.transcript if entry.who == "bot"] == []
    assert any("user_data.1.cart[0]" in str(error) for error in errors)
    assert await SessionPersistence(store).get_user_data() == {2: {"n": 1}}


async def test_on_commit_in_a_handler_that_outlives_its_update_is_refused(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    committed = asyncio.Event()

    async def late(update: Update, _: Context) -> None:
        assert update.message is not None
        await committed.wait()
        on_commit(update.message.reply_text, "never")

    async def note(update: object, context: Context) -> None:
        assert isinstance(update, Update)
        assert update.message is not None
        await update.message.reply_text(f"{type(context.error).__name__}: {context.error}")

    def set_up(application: AnyApplication) -> None:
        application.add_handler(CommandHandler("late", late, block=False))
        add_counter(application)
        application.add_error_handler(note)

    user = api.user(1)
    async with running(SessionPersistence(store), set_up, SessionApplication):
        await user.send("/late").send("/count").expects("1")
        committed.set()
        assert "block=False" in (await user.reply()).text


def test_on_commit_outside_of_a_handler_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="application_class"):
        on_commit(asyncio.sleep, 0)


async def test_another_persistence_is_refused(api: BotApiServer) -> None:
    application = ApplicationBuilder().application_class(SessionApplication).token(api.token).build()
    with pytest.raises(ConfigurationError, match="SessionPersistence"):
        await application.initialize()


async def test_a_store_that_is_down_is_noticed_before_telegram_is_asked(
    store: UnsteadyStore, api: BotApiServer
) -> None:
    store.down = True
    application = (
        ApplicationBuilder()
        .application_class(SessionApplication)
        .token(api.token)
        .base_url(api.base_url)
        .persistence(SessionPersistence(store))
        .build()
    )
    with pytest.raises(StoreUnavailable):
        await application.initialize()
    assert api.calls == []


@pytest.mark.parametrize("kind", [Application, SessionApplication])
async def test_updates_of_many_users_at_once(
    store: UnsteadyStore, running: Running, api: BotApiServer, kind: type[AnyApplication]
) -> None:
    users = [api.user(number, first_name=f"User {number}") for number in range(1, 31)]
    async with running(
        SessionPersistence(store), add_counter, kind, lambda builder: builder.concurrent_updates(16)
    ):
        for user in users:
            await user.send("/count").send("/count")
        for user in users:
            await user.reply()
            await user.reply()
    assert await SessionPersistence(store).get_user_data() == {user.id: {"n": 2} for user in users}
    assert await SessionPersistence(store).get_bot_data() == {"n": 60}
