"""What PTB does to every persistence, and what becomes of it here under a stock ``Application``."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from telegram.ext import (
    Application,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    MessageHandler,
    PersistenceInput,
    filters,
)

from sessionkit.errors import ConfigurationError
from sessionkit.ptb import SessionPersistence, migrate_chat
from tests.ptb.conftest import message
from tests.ptb.test_instances import counter, greeting

if TYPE_CHECKING:
    from telegram import Update

    from tests.ptb.conftest import AnyApplication, Instances, UnsteadyStore

Context = ContextTypes.DEFAULT_TYPE


def stock(builder: Any) -> Any:
    return builder.application_class(Application)


async def stored(store: UnsteadyStore) -> tuple[Any, Any, Any]:
    persistence = SessionPersistence(store)
    return (
        await persistence.get_user_data(),
        await persistence.get_chat_data(),
        await persistence.get_conversations("greeting"),
    )


async def test_a_failed_write_is_not_repeated_by_ptb(store: UnsteadyStore, instance: Instances) -> None:
    async with instance(counter, configure=stock) as bot:
        await bot.process_update(message(bot, 1, "/count"))
        store.down = True
        await bot.update_persistence()
        store.down = False
        await bot.update_persistence()
    assert (await stored(store))[0] == {1: {"n": 1}}


async def test_a_value_that_cannot_be_copied_ends_ptbs_saving_but_not_ours(
    store: UnsteadyStore, instance: Instances, caplog: pytest.LogCaptureFixture
) -> None:
    async def keep(_: Update, context: Context) -> None:
        assert context.user_data is not None
        context.user_data["lock"] = threading.Lock()

    def set_up(application: AnyApplication) -> None:
        counter(application)
        application.add_handler(CommandHandler("keep", keep))

    # PTB leaves the coroutines that it has made for other kinds of data by then.
    only_users = PersistenceInput(bot_data=False, chat_data=False, callback_data=False)
    persistence = SessionPersistence(store, update_interval=0.01, store_data=only_users)
    with pytest.raises(TypeError, match="pickle"):
        async with instance(set_up, persistence=persistence, configure=stock) as bot:
            await bot.process_update(message(bot, 1, "/keep"))
            with pytest.raises(TypeError, match="pickle"):
                await bot.update_persistence()
            store.saved.clear()
            await bot.process_update(message(bot, 1, "/keep"))
            await bot.process_update(message(bot, 2, "/count"))
            async with asyncio.timeout(10):
                while 2 not in (await stored(store))[0]:
                    store.saved.clear()
                    await store.saved.wait()
    await persistence.flush()
    assert (await stored(store))[0] == {2: {"n": 1}}
    assert "telegram_bot:user_data:1 is not saved: user_data.1.lock" in caplog.text


async def test_data_dropped_and_filled_again_are_stored_with_the_next_update(
    store: UnsteadyStore, instance: Instances
) -> None:
    async def restart(_: Update, context: Context) -> None:
        context.application.drop_user_data(1)
        context.application.user_data[1]["language"] = "de"

    def set_up(application: AnyApplication) -> None:
        counter(application)
        application.add_handler(CommandHandler("restart", restart))

    async with instance(set_up, configure=stock) as bot:
        await bot.process_update(message(bot, 1, "/count"))
        await bot.update_persistence()
        await bot.process_update(message(bot, 1, "/restart"))
        await bot.update_persistence()
        assert (await stored(store))[0] == {}, "PTB tells of the drop only"
        await bot.process_update(message(bot, 1, "/count"))
    assert (await stored(store))[0] == {1: {"language": "de", "n": 1}}


async def test_a_migration_takes_conversations_along(store: UnsteadyStore, instance: Instances) -> None:
    async def migrate(update: Update, context: Context) -> None:
        assert update.message is not None
        migrate_chat(context.application, update.message)

    def set_up(application: AnyApplication) -> None:
        counter(application)
        greeting(application)
        application.add_handler(MessageHandler(filters.StatusUpdate.MIGRATE, migrate), group=1)
        # The helper says itself whether it is a service message.
        application.add_handler(MessageHandler(filters.ALL, migrate), group=2)

    async with instance(set_up, configure=stock) as bot:
        for text in ("/count", "/start"):
            await bot.process_update(message(bot, 1, text, -5))
        await bot.update_persistence()
        await bot.process_update(message(bot, 9, "moved", -5, migrate_to_chat_id=-1005))
        await bot.update_persistence()
        await bot.process_update(message(bot, 9, "moved", -1005, migrate_from_chat_id=-5))
        await bot.process_update(message(bot, 1, "/count", -1005))
        await bot.update_persistence()
        _, chats, states = await stored(store)
        assert chats == {-1005: {"n": 2}}
        assert states == {(-1005, 1): "name"}
        await bot.process_update(message(bot, 1, "Ada", -1005))
    assert (await stored(store))[2] == {}


async def test_a_conversation_stored_as_ended_has_ended(store: UnsteadyStore, instance: Instances) -> None:
    await SessionPersistence(store).update_conversation("greeting", (1, 1), ConversationHandler.END)
    async with instance(greeting, configure=stock) as bot:
        await bot.process_update(message(bot, 1, "/start"))
        await bot.update_persistence()
        assert (await stored(store))[2] == {(1, 1): "name"}
        await bot.process_update(message(bot, 1, "Ada"))
    assert (await stored(store))[2] == {}


async def test_ptb_keeps_what_it_is_given_and_gives_copies(store: UnsteadyStore, instance: Instances) -> None:
    persistence = SessionPersistence(store, update_interval=1000)
    await persistence.update_user_data(1, {"list": [1]})
    async with instance(counter, persistence=persistence, configure=stock) as bot:
        bot.user_data[1]["list"].append(2)
        assert await persistence.get_user_data() == {1: {"list": [1]}}
        bot.mark_data_for_update_persistence(user_ids=1)
        await bot.update_persistence()
        bot.user_data[1]["list"].append(3)
        assert await persistence.get_user_data() == {1: {"list": [1, 2]}}


async def test_own_types_of_data_and_immutable_ones(store: UnsteadyStore, instance: Instances) -> None:
    types: Any = ContextTypes(user_data=dict, chat_data=int, bot_data=frozenset)

    async def look(_: Update, context: Context) -> None:
        chat: Any = context.chat_data
        assert chat == 7
        context.application.mark_data_for_update_persistence(chat_ids=-5)

    def set_up(application: AnyApplication) -> None:
        application.add_handler(CommandHandler("look", look))

    before = SessionPersistence(store, context_types=types)
    await before.update_chat_data(-5, 7)
    await before.update_bot_data(frozenset({1}))
    persistence = SessionPersistence(store, context_types=types, update_interval=1000)
    async with instance(
        set_up, persistence=persistence, configure=lambda builder: stock(builder).context_types(types)
    ) as bot:
        await bot.process_update(message(bot, 1, "/look", -5))
        assert bot.bot_data == frozenset({1})
    assert (await stored(store))[1] == {-5: 7}


async def test_a_record_that_is_read_lazily_is_never_overwritten_blindly(
    store: UnsteadyStore, instance: Instances
) -> None:
    async def other(_: Update, context: Context) -> None:
        context.application.user_data[2]["n"] = 1
        context.application.user_data[2]["new"] = True
        context.application.mark_data_for_update_persistence(user_ids=2)

    def set_up(application: AnyApplication) -> None:
        counter(application)
        greeting(application)
        application.add_handler(CommandHandler("other", other))

    before = SessionPersistence(store)
    for user in (1, 2, 3):
        await before.update_user_data(user, {"n": 10, "old": user})
    await before.update_conversation("greeting", (1, 1), "name")
    lazy = SessionPersistence(store, loading="lazy", update_interval=1000)
    async with instance(set_up, persistence=lazy, configure=stock) as bot:
        assert bot.user_data == {}
        await bot.process_update(message(bot, 1, "Ada"))
        await bot.process_update(message(bot, 1, "/count"))
        await bot.process_update(message(bot, 1, "/other"))
        await bot.update_persistence()
        assert bot.user_data == {1: {"n": 11, "old": 1}, 2: {"n": 1, "new": True}}
        await bot.process_update(message(bot, 2, "/count"))
    users, _, states = await stored(store)
    assert users[1] == {"n": 11, "old": 1}
    assert users[2] == {"n": 12, "old": 2, "new": True}
    assert users[3] == {"n": 10, "old": 3}
    assert states == {}


async def test_lazy_reading_needs_dicts(store: UnsteadyStore) -> None:
    types: Any = ContextTypes(user_data=int)
    lazy = SessionPersistence(store, loading="lazy", context_types=types)
    with pytest.raises(ConfigurationError, match="int is none"):
        await lazy.get_user_data()
    wrong: Any = "sometimes"
    with pytest.raises(ConfigurationError, match="loading is 'eager', 'lazy' or None"):
        SessionPersistence(store, loading=wrong)
