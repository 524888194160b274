from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.error import BadRequest
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

from sessionkit.codec import MsgpackCodec
from sessionkit.errors import (
    CodecError,
    CommitPending,
    ConfigurationError,
    StoreUnavailable,
    UnsupportedType,
)
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


async def test_an_answer_is_held_back_until_its_step_is_safe(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    async def wait_a_moment(update: object, context: Context) -> None:
        if isinstance(update, Update) and update.message is not None:
            assert isinstance(context.error, CommitPending)
            await update.message.reply_text("one moment")

    def set_up(application: AnyApplication) -> None:
        conversation(application)
        application.add_error_handler(wait_a_moment)

    stored: list[object] = []

    @api.on_call
    async def look(call: Call) -> None:
        if call.method == "sendMessage":
            stored.append(await SessionPersistence(store).get_conversations("greeting"))

    user = api.user(1)
    async with running(SessionPersistence(store, update_interval=1000), set_up, SessionApplication):
        store.down = True
        await user.send("/start").expects("one moment")
        store.down = False
        await user.expects("name?").send("Ada").expects("hello Ada")
    assert stored == [{}, {(1, 1): "name"}, {}]


async def test_answers_held_back_come_in_the_order_of_their_steps(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    async def step(update: Update, context: Context) -> None:
        assert update.message is not None
        assert context.user_data is not None
        assert context.args is not None
        context.user_data["step"] = context.args[0]
        on_commit(update.message.reply_text, f"step {context.args[0]}")

    noted = asyncio.Semaphore(0)

    async def note(_: object, context: Context) -> None:
        if isinstance(context.error, CommitPending):
            noted.release()

    def set_up(application: AnyApplication) -> None:
        application.add_handler(CommandHandler("step", step))
        application.add_error_handler(note)

    users = [api.user(1), api.user(2, first_name="Bob")]
    async with running(SessionPersistence(store, update_interval=1000), set_up, SessionApplication):
        store.down = True
        for number in range(5):
            for user in users:
                await user.send(f"/step {number}")
                await noted.acquire()
        store.down = False
        for user in users:
            await user.send("/step 5")
        for user in users:
            for number in range(6):
                await user.expects(f"step {number}")
    assert await SessionPersistence(store).get_user_data() == {1: {"step": "5"}, 2: {"step": "5"}}


async def test_one_users_trouble_holds_back_no_others_answers(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    ann, bob = api.user(1), api.user(2, first_name="Bob")
    async with running(SessionPersistence(store, update_interval=1000), conversation, SessionApplication):
        store.refused = "telegram_bot:conversation:greeting:1:1"
        await ann.send("/start")
        await bob.send("/start").expects("name?").send("Bob").expects("hello Bob")
        assert [entry for entry in ann.transcript if entry.who == "bot"] == []
        store.refused = ""
        await ann.expects("name?")


async def test_a_change_of_somebody_elses_data_is_part_of_the_promise(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    async def give(update: Update, context: Context) -> None:
        assert update.message is not None
        context.application.user_data[5]["gift"] = True
        context.application.mark_data_for_update_persistence(user_ids=5)
        on_commit(update.message.reply_text, "given")

    def set_up(application: AnyApplication) -> None:
        application.add_handler(CommandHandler("give", give))

    ann = api.user(1)
    async with running(SessionPersistence(store, update_interval=1000), set_up, SessionApplication):
        store.refused = "telegram_bot:user_data:5"
        await ann.send("/give")
        await store.failed.wait()
        assert [entry for entry in ann.transcript if entry.who == "bot"] == []
        store.refused = ""
        await ann.expects("given")
    assert await SessionPersistence(store).get_user_data() == {5: {"gift": True}}


async def test_answers_held_back_do_not_hold_up_the_end(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    user = api.user(1)
    persistence = SessionPersistence(store, update_interval=1000)
    async with running(persistence, conversation, SessionApplication) as application:
        store.down = True
        await user.send("/start")
        await store.failed.wait()
        await application.stop()
        store.down = False
        await application.start()
    assert [entry for entry in user.transcript if entry.who == "bot"] == []
    assert await SessionPersistence(store).get_conversations("greeting") == {(1, 1): "name"}


async def test_an_answer_that_fails_stops_no_other(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    errors: list[BaseException | None] = []

    async def answer(update: Update, _: Context) -> None:
        assert update.message is not None
        on_commit(update.message.reply_text, "")
        on_commit(update.message.reply_text, "after all")

    async def note(_: object, context: Context) -> None:
        errors.append(context.error)

    def set_up(application: AnyApplication) -> None:
        application.add_handler(CommandHandler("answer", answer))
        application.add_error_handler(note)

    async with running(SessionPersistence(store), set_up, SessionApplication):
        await api.user(1).send("/answer").expects("after all")
    assert [type(error) for error in errors] == [BadRequest]


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


async def test_a_button_that_cannot_be_kept_concerns_its_message_alone(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    async def ask(update: Update, context: Context) -> None:
        assert update.message is not None
        button = InlineKeyboardButton("?", callback_data=object())
        await update.message.reply_text("which?", reply_markup=InlineKeyboardMarkup([[button]]))
        on_commit(update.message.reply_text, "asked")

    def set_up(application: AnyApplication) -> None:
        add_counter(application)
        application.add_handler(CommandHandler("ask", ask))

    ann, bob = api.user(1), api.user(2, first_name="Bob")

    def configure(builder: Any) -> Any:
        return builder.arbitrary_callback_data(True)

    async with running(SessionPersistence(store), set_up, SessionApplication, configure) as application:
        assert isinstance(application, SessionApplication)
        await ann.send("/ask").expects("which?")
        await bob.send("/count").expects("1")
        async with application.user_data_of(3) as data:
            data["n"] = 1
    assert [entry.text for entry in ann.transcript if entry.who == "bot"] == ["which? [?]"]


async def test_somebody_whose_data_cannot_be_read_is_not_taken_for_a_stranger(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    errors: list[BaseException | None] = []

    async def note(_: object, context: Context) -> None:
        errors.append(context.error)

    def set_up(application: AnyApplication) -> None:
        add_counter(application)
        application.add_error_handler(note)

    key = "telegram_bot:user_data:1"
    newer = MsgpackCodec(schema=9)
    await store.put(key, newer.wrap(newer.pack({"n": 41}, name="data"), key=key))
    ann, bob = api.user(1), api.user(2, first_name="Bob")
    async with running(SessionPersistence(store), set_up, SessionApplication) as application:
        assert isinstance(application, SessionApplication)
        await ann.send("/count")
        await bob.send("/count").expects("1")
        with pytest.raises(CodecError, match="schema"):
            async with application.user_data_of(1):
                raise AssertionError("these are not to be had")
        older = MsgpackCodec()
        await store.put(key, older.wrap(older.pack({"n": 41}, name="data"), key=key))
        await ann.send("/count").expects("42")
    assert [type(error) for error in errors] == [CodecError]


class Uncopyable:
    """What ``copy.deepcopy`` refuses, as it does a lock or a connection."""

    def __deepcopy__(self, memo: object) -> object:
        raise TypeError("cannot be copied")


@pytest.mark.parametrize("where", ["user_data", "bot_data"])
async def test_a_value_that_cannot_be_copied_costs_nobody_else_anything(
    store: UnsteadyStore, running: Running, api: BotApiServer, where: str
) -> None:
    errors: list[BaseException | None] = []

    async def keep(update: Update, context: Context) -> None:
        getattr(context, where)["it"] = Uncopyable()

    async def note(_: object, context: Context) -> None:
        errors.append(context.error)

    def set_up(application: AnyApplication) -> None:
        add_counter(application)
        application.add_handler(CommandHandler("keep", keep))
        application.add_error_handler(note)

    users = [api.user(number) for number in range(1, 11)]
    persistence = SessionPersistence(store, update_interval=0.01)
    async with running(persistence, set_up, SessionApplication, lambda b: b.concurrent_updates(8)):
        await api.user(99).send("/keep")
        for user in users:
            await user.send("/count").expects("1")
    assert await SessionPersistence(store).get_user_data() == {user.id: {"n": 1} for user in users}
    assert errors
    assert all(isinstance(error, UnsupportedType) for error in errors)


async def test_data_dropped_and_filled_again_in_one_update_are_kept(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    async def restart(update: Update, context: Context) -> None:
        assert update.message is not None
        context.application.drop_user_data(1)
        context.application.drop_chat_data(1)
        context.application.user_data[1]["language"] = "de"
        on_commit(update.message.reply_text, "saved")

    async def leave(update: Update, context: Context) -> None:
        assert update.message is not None
        context.application.drop_user_data(1)
        on_commit(update.message.reply_text, "left")

    def set_up(application: AnyApplication) -> None:
        add_counter(application)
        application.add_handler(CommandHandler("restart", restart))
        application.add_handler(CommandHandler("leave", leave))

    user = api.user(1)
    async with running(SessionPersistence(store), set_up, SessionApplication):
        await user.send("/count").expects("1").send("/restart").expects("saved")
        assert await SessionPersistence(store).get_user_data() == {1: {"language": "de"}}
        assert await SessionPersistence(store).get_chat_data() == {}
        await user.send("/leave").expects("left")
        assert await SessionPersistence(store).get_user_data() == {}


async def test_the_buttons_of_an_answer_are_safe_too(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    async def offer(update: Update, _: Context) -> None:
        assert update.message is not None
        button = InlineKeyboardButton("take", callback_data=("item", 5))
        on_commit(update.message.reply_text, "offer", reply_markup=InlineKeyboardMarkup([[button]]))

    def set_up(application: AnyApplication) -> None:
        application.add_handler(CommandHandler("offer", offer))
        add_counter(application)

    def configure(builder: Any) -> Any:
        return builder.arbitrary_callback_data(True)

    persistence = SessionPersistence(store, update_interval=1000)
    async with running(persistence, set_up, SessionApplication, configure):
        await api.user(1).send("/offer").expects("offer").send("/count").expects("1")
        stored = await SessionPersistence(store).get_callback_data()
    assert stored is not None
    assert [list(buttons.values()) for _, _, buttons in stored[0]] == [[("item", 5)]]


async def test_the_state_of_a_handler_that_still_runs_is_kept_when_it_ends(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    leave = asyncio.Event()

    async def start(update: Update, _: Context) -> str:
        assert update.message is not None
        await update.message.reply_text("one moment")
        await leave.wait()
        return "next"

    def set_up(application: AnyApplication) -> None:
        application.add_handler(
            ConversationHandler(
                entry_points=[CommandHandler("start", start, block=False)],
                states={"next": []},
                fallbacks=[],
                name="slow",
                persistent=True,
            )
        )
        application.add_handler(CommandHandler("count", count), group=1)

    user = api.user(1)
    async with running(SessionPersistence(store), set_up, SessionApplication):
        await user.send("/start").expects("one moment").send("/count").expects("1")
        assert await SessionPersistence(store).get_conversations("slow") == {}
        leave.set()
    assert await SessionPersistence(store).get_conversations("slow") == {(1, 1): "next"}


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


async def test_on_commit_in_a_task_of_a_handler_is_refused_though_the_update_is_open(
    store: UnsteadyStore, running: Running, api: BotApiServer
) -> None:
    refused = asyncio.Event()

    async def quick(update: Update, _: Context) -> None:
        assert update.message is not None
        on_commit(update.message.reply_text, "never")

    async def wait(update: Update, _: Context) -> None:
        assert update.message is not None
        await refused.wait()
        on_commit(update.message.reply_text, "in order")

    async def note(_: object, context: Context) -> None:
        assert isinstance(context.error, ConfigurationError)
        refused.set()

    def set_up(application: AnyApplication) -> None:
        application.add_handler(CommandHandler("quick", quick, block=False))
        application.add_handler(CommandHandler("quick", wait), group=1)
        application.add_error_handler(note)

    user = api.user(1)
    async with running(SessionPersistence(store), set_up, SessionApplication):
        await user.send("/quick").expects("in order")


def test_on_commit_outside_of_a_handler_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="application_class"):
        on_commit(asyncio.sleep, 0)


async def test_another_persistence_is_refused(api: BotApiServer) -> None:
    builder = ApplicationBuilder().application_class(SessionApplication).token(api.token)
    with pytest.raises(ConfigurationError, match="SessionPersistence"):
        builder.build()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"leese": 3}, r"SessionApplication does not know 'leese' \(did you mean 'lease'\?\)"),
        ({"max_cached": 1.5}, "max_cached is a whole number above 0, not 1.5"),
        ({"lease": 0}, "lease is a number above 0, not 0"),
        ({"sweep": "60"}, "sweep is a number above 0, not '60'"),
    ],
)
async def test_a_wrong_argument_is_refused(api: BotApiServer, arguments: dict[str, Any], says: str) -> None:
    builder = ApplicationBuilder().application_class(SessionApplication, arguments).token(api.token)
    with pytest.raises(ConfigurationError, match=f"^{says}$"):
        builder.persistence(SessionPersistence("memory://")).build()


async def test_an_application_derived_from_it_has_arguments_of_its_own(api: BotApiServer) -> None:
    class Shop(SessionApplication):
        def __init__(self, *, name: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.name = name

    builder = ApplicationBuilder().application_class(Shop, {"name": "Ada's", "lease": 3}).token(api.token)
    application = builder.persistence(SessionPersistence("memory://")).build()
    assert isinstance(application, Shop)
    assert application.name == "Ada's"


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
