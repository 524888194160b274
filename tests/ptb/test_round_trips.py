"""What an update costs on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from telegram.ext import CommandHandler, ContextTypes, ConversationHandler, MessageHandler, filters

from sessionkit.ptb import DurableInbox, SessionApplication, SessionPersistence, on_commit
from sessionkit_redis.scripts import DROP_LEASE
from tests.ptb.wire import Recorder

if TYPE_CHECKING:
    from telegram import Update

    from sessionkit.testing.botapi import BotApiServer, Call
    from sessionkit.testing.servers import RedisServer
    from tests.ptb.conftest import AnyApplication, Running

Context = ContextTypes.DEFAULT_TYPE

RELEASE = str(DROP_LEASE.by_name((), ())[1]).encode()

MOST = 3
"""Lock, load, commit."""


def is_waited_for(request: bytes) -> bool:
    """Whether it is more than giving back the last update's turn."""
    return not 0 < request.count(b"EVALSHA") == request.count(RELEASE)


async def start(update: Update, context: Context) -> str:
    """Change everything that can be changed, and begin a conversation."""
    assert update.message is not None
    assert context.user_data is not None
    assert context.chat_data is not None
    for data in (context.user_data, context.chat_data, context.bot_data):
        data["n"] = data.get("n", 0) + 1
    on_commit(update.message.reply_text, "name?")
    return "name"


async def end(update: Update, context: Context) -> int:
    """Change everything, and end the conversation."""
    await start(update, context)
    return ConversationHandler.END


async def look(update: Update, _context: Context) -> None:
    """Change nothing."""
    assert update.message is not None
    on_commit(update.message.reply_text, "nothing")


def set_up(application: AnyApplication) -> None:
    application.add_handler(
        ConversationHandler(
            entry_points=[CommandHandler("start", start)],
            states={"name": [MessageHandler(filters.TEXT & ~filters.COMMAND, end)]},
            fallbacks=[],
            name="greeting",
            persistent=True,
        )
    )
    application.add_handler(CommandHandler("look", look))


@pytest.mark.parametrize("server_binary", ["valkey"], indirect=True)
@pytest.mark.parametrize("place", ["private", "group"])
@pytest.mark.parametrize("inbox", [False, True])
async def test_an_update_waits_for_three_round_trips_at_most(
    redis_server: RedisServer, running: Running, api: BotApiServer, place: str, inbox: bool
) -> None:
    port = int(redis_server.url().rpartition(":")[2].partition("/")[0])
    trips: list[int] = []
    async with Recorder(port) as recorder:

        @api.on_call
        def count(call: Call) -> None:
            if call.method == "sendMessage":
                trips.append(sum(map(is_waited_for, recorder.requests)))

        persistence = SessionPersistence(recorder.url, update_interval=1000)
        configure = (lambda builder: builder.update_queue(DurableInbox())) if inbox else (lambda same: same)
        async with running(persistence, set_up, SessionApplication, configure):
            user = api.user(1)
            speaker = user if place == "private" else user.in_chat(api.group())
            # The scripts are told to the server, and the first records made.
            await speaker.send("/start").expects("name?").send("Ada").expects("name?")
            for text in ("/start", "Ada", "/look"):
                recorder.chunks.clear()
                await speaker.send(text).expects()
    if inbox:  # the update itself is stored before, and that it was processed after, whatever it changed
        assert trips[2:] == [MOST + 1] * 3
    else:
        assert trips[2:] == [MOST, MOST, MOST - 1]
