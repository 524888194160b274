"""Redis is killed under a SessionApplication."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from telegram import Update
from telegram.error import TelegramError
from telegram.ext import (
    BaseHandler,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    MessageHandler,
    filters,
)

from sessionkit.ptb import DurableInbox, SessionApplication, SessionPersistence, on_commit
from sessionkit.registry import open_store
from sessionkit.resilience import ResilientStore, State, StateChanged
from sessionkit.testing.servers import DURABLE, RedisServer

if TYPE_CHECKING:
    from sessionkit.testing.botapi import BotApiServer, ScriptedUser
    from sessionkit.testing.servers import ServerBinary
    from tests.ptb.conftest import AnyApplication, Running

Context = ContextTypes.DEFAULT_TYPE
STATES = ("none", "one", "two")


async def step(update: Update, context: Context) -> str | int:
    assert update.message is not None
    assert context.user_data is not None
    assert context.chat_data is not None
    for data in (context.user_data, context.chat_data, context.bot_data):
        data["n"] = data.get("n", 0) + 1
    number = context.user_data["n"]
    on_commit(update.message.reply_text, f"step {number}")
    return ConversationHandler.END if number % 3 == 0 else STATES[number % 3]


async def tell(update: object, context: Context) -> None:
    if isinstance(update, Update) and update.effective_message is not None:
        assert not isinstance(context.error, TelegramError)
        await update.effective_message.reply_text(f"not now: {type(context.error).__name__}")


def set_up(application: AnyApplication) -> None:
    walk: list[BaseHandler[Update, Context, object]] = [MessageHandler(filters.Regex("^walk$"), step)]
    application.add_handler(
        ConversationHandler(
            entry_points=[CommandHandler("start", step)],
            states={"one": walk, "two": walk},
            fallbacks=[],
            name="walk",
            persistent=True,
        )
    )
    application.add_error_handler(tell)


async def walk(user: ScriptedUser, steps: range) -> None:
    for number in steps:
        await user.send("/start" if number % 3 == 1 else "walk").expects(f"step {number}", timeout=30)


@pytest.mark.parametrize("server_binary", ["valkey"], indirect=True)
@pytest.mark.parametrize("inbox", [False, True])
async def test_a_killed_redis_costs_nobody_an_answer_and_no_state(
    server_binary: ServerBinary, running: Running, api: BotApiServer, inbox: bool
) -> None:
    def configure(builder: Any) -> Any:
        builder.concurrent_updates(8)
        return builder.update_queue(DurableInbox()) if inbox else builder

    users = [api.user(number) for number in range(1, 11)]
    with RedisServer(server_binary, config=DURABLE) as server:
        store = open_store(server.url())
        assert isinstance(store, ResilientStore)
        healthy = asyncio.Event()

        def note(event: object) -> None:
            if isinstance(event, StateChanged) and event.new is State.HEALTHY:
                healthy.set()

        store.subscribe(note)
        async with store:
            persistence = SessionPersistence(store)
            async with running(persistence, set_up, SessionApplication, configure):
                await asyncio.gather(*(walk(user, range(1, 5)) for user in users))
                traffic = asyncio.gather(*(walk(user, range(5, 15)) for user in users))
                await api.wait_for_call("sendMessage", where=lambda call: call.params["text"] == "step 6")
                server.kill()
                await traffic
                stranger = api.user(99)
                await stranger.send("/start").expects("not now")
                assert store.state is not State.HEALTHY
                server.restart()
                async with asyncio.timeout(30):
                    await healthy.wait()
                await asyncio.gather(*(walk(user, range(15, 18)) for user in users))
                if inbox:  # what was not processed is, without being sent again
                    await stranger.expects("step 1", timeout=30)
                else:
                    await stranger.send("/start").expects("step 1")
        async with open_store(server.url()) as fresh:
            stored = SessionPersistence(fresh)
            counts = {user.id: {"n": 17} for user in users} | {99: {"n": 1}}
            assert await stored.get_user_data() == await stored.get_chat_data() == counts
            assert await stored.get_bot_data() == {"n": 17 * 10 + 1}
            states = {(user.id, user.id): "two" for user in users} | {(99, 99): "one"}
            assert await stored.get_conversations("walk") == states
