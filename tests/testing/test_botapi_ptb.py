"""An unmodified python-telegram-bot against the local Bot API server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from telegram import (
    Bot,
    BotCommand,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    Message,
    ReplyKeyboardMarkup,
    Update,
)
from telegram.error import BadRequest, Conflict, InvalidToken, RetryAfter
from telegram.ext import (
    Application,
    ApplicationBuilder,
    CallbackQueryHandler,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    MessageHandler,
    filters,
)
from telegram.request import HTTPXRequest

from sessionkit.testing.botapi import BotApiServer, Call, ScriptError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

AUDIO = bytes(range(256)) * 300
Context = ContextTypes.DEFAULT_TYPE
AnyApplication = Application[Any, Any, Any, Any, Any, Any]


async def ask_audio(update: Update, _context: Context) -> int:
    assert update.message
    await update.message.reply_text("Send me the audio")
    return 1


async def take_audio(update: Update, context: Context) -> int:
    assert update.message
    assert update.message.audio
    file = await update.message.audio.get_file()
    context.bot_data["audio"] = bytes(await file.download_as_bytearray())
    await update.message.reply_text("What amount?", reply_markup=ReplyKeyboardMarkup([["100", "150"]]))
    return 2


async def take_amount(update: Update, _context: Context) -> int:
    assert update.message
    buttons = [[InlineKeyboardButton("Confirm", callback_data="yes")]]
    await update.message.reply_text(
        f"Please confirm {update.message.text}", reply_markup=InlineKeyboardMarkup(buttons)
    )
    return ConversationHandler.END


async def confirm(update: Update, _context: Context) -> None:
    assert update.callback_query
    await update.callback_query.answer("Thanks")
    await update.callback_query.edit_message_text("Done")


def build(api: BotApiServer) -> AnyApplication:
    builder = ApplicationBuilder().token(api.token).base_url(api.base_url).base_file_url(api.base_file_url)
    application: AnyApplication = builder.build()
    states: dict[object, list[Any]] = {
        1: [MessageHandler(filters.AUDIO, take_audio)],
        2: [MessageHandler(filters.TEXT, take_amount)],
    }
    application.add_handler(ConversationHandler([CommandHandler("depot", ask_audio)], states, fallbacks=[]))
    application.add_handler(CallbackQueryHandler(confirm))
    return application


@asynccontextmanager
async def running(api: BotApiServer, **webhook: Any) -> AsyncIterator[AnyApplication]:
    application = build(api)
    async with application:
        assert application.updater
        await application.start()
        if webhook:
            await application.updater.start_webhook(**webhook)
        else:
            await application.updater.start_polling()
        yield application
        await application.updater.stop()
        await application.stop()


def make_bot(api: BotApiServer) -> Bot:
    return Bot(api.token, base_url=api.base_url, base_file_url=api.base_file_url)


async def hold_the_conversation(api: BotApiServer, application: AnyApplication) -> None:
    user = api.user()
    await (
        user.send("/depot now")
        .expects("audio")
        .send_audio(AUDIO, duration=3, title="Song")
        .expects("amount")
        .press(None, "150")
        .expects("confirm 150")
        .press(None, "Confirm")
    )
    assert (await user.edited()).text == "Done"
    assert application.bot_data["audio"] == AUDIO
    assert [str(entry).split("  ", 1)[1] for entry in user.transcript] == [
        "Ann: /depot now",
        "bot: Send me the audio",
        "Ann: <audio>",
        "bot: What amount? [100] [150]",
        "Ann: 150",
        "bot: Please confirm 150 [Confirm]",
        "Ann: (presses) [Confirm]",
        "bot: (notice) Thanks",
        "bot: (edits) Done",
    ]


async def test_a_polling_application_holds_a_conversation() -> None:
    async with BotApiServer() as api, running(api) as application:
        await hold_the_conversation(api, application)
        await api.drained()


async def test_a_webhook_application_holds_a_conversation() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = {"listen": "127.0.0.1", "port": port, "url_path": "hook", "secret_token": "s3cret"}
    async with BotApiServer() as api:
        url = f"http://127.0.0.1:{port}/hook"
        async with running(api, webhook_url=url, drop_pending_updates=True, **where) as application:
            await hold_the_conversation(api, application)
            await api.drained()
            info = await application.bot.get_webhook_info()
            assert (info.url, info.pending_update_count, info.last_error_message) == (url, 0, None)


BOT_SCRIPT = """
import sys
from telegram.ext import ApplicationBuilder, MessageHandler, filters

async def echo(update, context):
    await update.message.reply_text("You said " + update.message.text)

token, base_url = sys.argv[1:]
application = ApplicationBuilder().token(token).base_url(base_url).build()
application.add_handler(MessageHandler(filters.TEXT, echo))
application.run_polling()
"""


async def test_bots_can_be_killed_before_they_get_an_answer() -> None:
    """One dies before it hears of the update, which stays; one dies at its reply, which was sent."""
    async with BotApiServer() as api, AsyncExitStack() as cleanup:
        user = api.user()
        bots: list[asyncio.subprocess.Process] = []
        kill_at = ["getUpdates", "sendMessage"]

        async def start_bot() -> None:
            arguments = (sys.executable, "-c", BOT_SCRIPT, api.token, api.base_url)
            bot = await asyncio.create_subprocess_exec(*arguments, stderr=asyncio.subprocess.DEVNULL)
            bots.append(bot)
            cleanup.push_async_callback(stop, bot)

        @api.on_call
        async def kill(call: Call) -> None:
            if kill_at and call.method == kill_at[0] and call.answer and call.answer["result"]:
                kill_at.pop(0)
                os.kill(bots[-1].pid, signal.SIGKILL)
                await bots[-1].wait()

        await user.send("hello")
        await start_bot()
        assert await bots[0].wait() == -signal.SIGKILL
        assert [update["message"]["text"] for update in api.pending_updates] == ["hello"]
        await start_bot()
        await user.expects("You said hello", timeout=30)
        assert await bots[1].wait() == -signal.SIGKILL
        await start_bot()
        await user.send("again")
        while (await user.reply(timeout=30)).text != "You said again":
            pass  # the second bot may have died before its next poll confirmed "hello"
        await api.drained()


async def stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


async def test_errors_become_the_errors_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTB_TIMEDELTA", "true")  # PTB 22 deprecates what RetryAfter is without it
    async with BotApiServer() as api, make_bot(api) as bot, make_bot(api) as rival:
        user = api.user()
        with pytest.raises(BadRequest, match="Chat not found"):
            await bot.send_message(424242, "hello")
        with pytest.raises(BadRequest, match="Message text is empty"):
            await bot.send_message(user.id, " ")
        with pytest.raises(BadRequest, match="Message is too long"):
            await bot.send_message(user.id, "x" * 4097)
        message = await bot.send_message(user.id, "x" * 4096)
        with pytest.raises(BadRequest, match="Message is not modified"):
            await message.edit_text("x" * 4096)
        api.fail_next("sendMessage", error_code=429, retry_after=7)
        with pytest.raises(RetryAfter, match=r"Retry in (7 seconds|0:00:07)"):
            await bot.send_message(user.id, "hello")
        await bot.send_message(user.id, "hello")
        waiting = asyncio.create_task(bot.get_updates(timeout=20))
        await api.wait_for_call("getUpdates")
        await rival.get_updates(timeout=0)
        with pytest.raises(Conflict, match="terminated by other getUpdates request"):
            await waiting
        async with HTTPXRequest() as request:
            with pytest.raises(InvalidToken):
                await Bot("123:short", base_url=api.base_url, request=request).get_me()


async def test_files_go_both_ways_byte_by_byte() -> None:
    async with BotApiServer() as api, make_bot(api) as bot:
        user = api.user()
        senders: dict[str, Callable[..., Awaitable[Message]]] = {
            "audio": bot.send_audio,
            "document": bot.send_document,
            "photo": bot.send_photo,
            "voice": bot.send_voice,
        }
        for kind, send in senders.items():
            message = await send(user.id, AUDIO, caption=f"my {kind}")
            attachment: Any = message.effective_attachment
            sent = attachment[-1] if kind == "photo" else attachment
            assert bytes(await (await sent.get_file()).download_as_bytearray()) == AUDIO
            again = await send(user.id, sent.file_id)
            assert again.message_id > message.message_id
            assert (await user.reply()).caption == f"my {kind}"
            assert (await user.reply()).raw[kind] == again.to_dict()[kind]


async def test_commands_chats_and_copies() -> None:
    async with BotApiServer() as api, make_bot(api) as bot:
        user = api.user(77, "Bea", last_name="Lee")
        assert await bot.set_my_commands([BotCommand("depot", "Pay in")])
        assert await bot.get_my_commands() == (BotCommand("depot", "Pay in"),)
        assert await bot.delete_my_commands()
        assert await bot.get_my_commands() == ()
        chat = await bot.get_chat(77)
        assert (chat.first_name, chat.last_name, chat.type) == ("Bea", "Lee", "private")
        original = await bot.send_message(77, "original")
        copied = await bot.copy_message(77, 77, original.message_id)
        forwarded = await bot.forward_message(77, 77, copied.message_id)
        assert forwarded.forward_origin
        reply = await forwarded.reply_text("indeed", do_quote=True)
        assert reply.reply_to_message
        assert reply.reply_to_message.message_id == forwarded.message_id
        assert [(await user.reply()).text for _ in range(4)] == ["original", "original", "original", "indeed"]
        assert await original.delete()
        with pytest.raises(BadRequest, match="Message to delete not found"):
            await original.delete()
        assert await bot.send_chat_action(77, "typing")
        assert await bot.log_out()
        assert await bot.close()


async def test_a_miss_shows_the_transcript() -> None:
    async with BotApiServer() as api, running(api):
        user = api.user()
        with pytest.raises(ScriptError) as caught:
            await user.send("/depot").expects("a pony")
        assert isinstance(caught.value, AssertionError)
        report = str(caught.value)
        assert "expected a reply with 'a pony', but got 'Send me the audio'" in report
        assert "Ann: /depot" in report
        assert "bot: Send me the audio" in report
