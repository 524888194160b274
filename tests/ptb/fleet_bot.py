"""One instance of a counting bot behind a webhook: ``fleet_bot.py``, with its settings in the environment."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from aiohttp import web
from telegram import Update
from telegram.ext import (
    ApplicationBuilder,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    MessageHandler,
    TypeHandler,
    filters,
)

from sessionkit.ptb import DurableInbox, SessionApplication, SessionPersistence, on_commit

Context = ContextTypes.DEFAULT_TYPE

STATES = ("none", "one", "two")
"""The state that a conversation is in before each of its steps, over and over."""


async def step(update: Update, context: Context) -> str | int | None:
    """Take ``step K``, which must come after ``step K-1`` of the same user in the same chat, or again."""
    message, user, chat = update.message, update.effective_user, update.effective_chat
    assert message is not None
    assert message.text is not None
    assert user is not None
    assert chat is not None
    assert context.user_data is not None
    assert context.chat_data is not None
    number = int(message.text.split()[1])
    last = context.user_data.get(f"last in {chat.id}", 0)
    if number == last + 1:
        for data in (context.user_data, context.chat_data, context.bot_data):
            data["n"] = data.get("n", 0) + 1
        context.user_data[f"last in {chat.id}"] = number
    answer = {"user": user.id, "chat": chat.id, "number": number, "last": last, "by": os.getpid()}
    on_commit(context.bot.send_message, chat.id, json.dumps(answer))
    if number != last + 1:
        return None
    return ConversationHandler.END if number % 3 == 0 else STATES[number % 3]


async def wrong(update: Update, context: Context) -> None:
    """Say that a step was taken in a state in which it cannot come, unless it is an old one, late."""
    assert update.effective_chat is not None
    assert update.message is not None
    assert update.message.text is not None
    assert context.user_data is not None
    chat_id = update.effective_chat.id
    if int(update.message.text.split()[1]) > context.user_data.get(f"last in {chat_id}", 0):
        wrong = {"wrong": update.message.text, "chat": chat_id}
        on_commit(context.bot.send_message, chat_id, json.dumps(wrong))


def tick_to(state: str | int) -> Any:
    """Return a handler that counts ``tick K``, whatever K is, and leads to a state."""

    async def tick(update: Update, context: Context) -> str | int:
        message, user, chat = update.message, update.effective_user, update.effective_chat
        assert message is not None
        assert message.text is not None
        assert user is not None
        assert chat is not None
        assert context.user_data is not None
        assert context.chat_data is not None
        for data in (context.user_data, context.chat_data, context.bot_data):
            data["n"] = data.get("n", 0) + 1
        context.user_data.setdefault(f"ticks in {chat.id}", []).append(int(message.text.split()[1]))
        on_commit(context.bot.send_message, chat.id, json.dumps({"tick": message.text}))
        return state

    return MessageHandler(filters.Regex(r"^tick \d+$"), tick)


async def boom(update: Update, context: Context) -> None:
    """Kill the process."""
    os.kill(os.getpid(), signal.SIGKILL)


async def nap(update: Update, context: Context) -> str:
    """Begin a conversation that ends by itself."""
    assert update.effective_user is not None
    on_commit(context.bot.send_message, update.effective_user.id, json.dumps({"asleep": os.getpid()}))
    return "asleep"


async def hello(update: Update, context: Context) -> None:
    """Answer."""
    assert update.effective_user is not None
    on_commit(context.bot.send_message, update.effective_user.id, json.dumps({"hello": os.getpid()}))


async def wake(update: Update, context: Context) -> None:
    """Count that it has."""
    assert update.effective_user is not None
    assert context.user_data is not None
    context.user_data["woken"] = context.user_data.get("woken", 0) + 1
    awake = {"awake": update.effective_user.id, "times": context.user_data["woken"]}
    on_commit(context.bot.send_message, update.effective_user.id, json.dumps(awake))


async def report(update: object, context: Context) -> None:
    """Print what went wrong."""
    sys.stderr.write(f"error: {context.error!r}\n")


def taking(remainder: int) -> list[Any]:
    """Return handlers of the steps that come in one state, and of the one before it, which may come again."""
    return [MessageHandler(STEP & _Remainder(remainder, (remainder - 1) % 3), step)]


class _Remainder(filters.MessageFilter):
    def __init__(self, *remainders: int) -> None:
        super().__init__()
        self.remainders = remainders

    def filter(self, message: Any) -> bool:
        return int(message.text.split()[1]) % 3 in self.remainders


STEP = filters.Regex(r"^step \d+$")


async def main() -> None:
    """Serve until killed."""
    builder = ApplicationBuilder()
    if "INBOX" in os.environ:
        builder.update_queue(DurableInbox(int(os.environ["INBOX"])))
    application = (
        builder.application_class(SessionApplication, {"lease": float(os.environ["LEASE"]), "sweep": 1.0})
        .token(os.environ["TELEGRAM_BOT_TOKEN"])
        .base_url(os.environ["TELEGRAM_BASE_URL"])
        .persistence(SessionPersistence())
        .concurrent_updates(int(os.environ.get("CONCURRENT", "16")))
        .updater(None)
        .build()
    )
    application.add_handler(
        ConversationHandler(
            entry_points=taking(1),
            states={"one": taking(2), "two": taking(0)},
            fallbacks=[MessageHandler(STEP, wrong)],
            name="steps",
            persistent=True,
        )
    )
    application.add_handler(
        ConversationHandler(
            entry_points=[CommandHandler("nap", nap)],
            states={ConversationHandler.TIMEOUT: [TypeHandler(Update, wake)], "asleep": []},
            fallbacks=[],
            name="nap",
            persistent=True,
            conversation_timeout=float(os.environ.get("NAP", "60")),
        ),
        group=1,
    )
    application.add_handler(
        ConversationHandler(
            entry_points=[tick_to("one")],
            states={"one": [tick_to("two")], "two": [tick_to(ConversationHandler.END)]},
            fallbacks=[],
            name="ticks",
            persistent=True,
        ),
        group=2,
    )
    application.add_handler(CommandHandler("hello", hello), group=3)
    application.add_handler(CommandHandler("boom", boom), group=3)
    application.add_error_handler(report)

    async def receive(request: web.Request) -> web.Response:
        await application.update_queue.put(Update.de_json(await request.json(), application.bot))
        return web.Response()

    server = web.Application()
    server.router.add_post("/", receive)
    runner = web.AppRunner(server, access_log=None)
    await runner.setup()
    async with application:
        await application.start()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        sys.stdout.write(f"{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
