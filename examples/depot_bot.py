"""A deposit bot that does not forget: /depot, an audio, an amount, a confirmation.

Run it with the token that @BotFather gave you::

    pip install 'sessionkit[redis,ptb]'
    TELEGRAM_BOT_TOKEN=… python depot_bot.py

Where it keeps its sessions is a setting, in the environment or a file ``.env``: ``SESSIONKIT_URL``, or
``REDIS_URL`` with ``REDIS_PASSWORD`` and ``REDIS_DB``; with neither it is a SQLite file in the working
directory. Kill it whenever you like: a user in the middle of a deposit goes on from the bot's last answer.
"""

from __future__ import annotations

import logging
import os
import sys
from decimal import Decimal, InvalidOperation
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

from telegram import ReplyKeyboardMarkup, ReplyKeyboardRemove, Update
from telegram.error import InvalidToken, TelegramError
from telegram.ext import (
    ApplicationBuilder,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    MessageHandler,
    filters,
)

from sessionkit import CommitPending, SessionExpired, SessionKitError, SessionService, Settings, open_store
from sessionkit.ptb import SessionApplication, SessionPersistence, on_commit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from telegram.ext import Application

    from sessionkit import Session

T = TypeVar("T")

logger = logging.getLogger("depot_bot")

# What the bot waits for: the state of the session, and of PTB's conversation.
AUDIO: Final = "audio"
AMOUNT: Final = "amount"
CONFIRM: Final = "confirm"
END: Final = ConversationHandler.END

ASK: Final = {
    AUDIO: "Send me the audio of the deposit.",
    AMOUNT: "What is the amount?",
    CONFIRM: "Confirm the deposit? Answer yes or no.",
}
MOST: Final = Decimal(1_000_000)
TEXT: Final = filters.TEXT & ~filters.COMMAND

if TYPE_CHECKING:
    Step = Callable[["DepotBot", Update, ContextTypes.DEFAULT_TYPE], Coroutine[Any, Any, T]]


def in_session(step: Step[T]) -> Step[T | int]:
    """Answer for a step whose session has timed out."""

    @wraps(step)
    async def guarded(bot: DepotBot, update: Update, context: ContextTypes.DEFAULT_TYPE) -> T | int:
        try:
            return await step(bot, update, context)
        except SessionExpired:
            reply(update, "Your deposit timed out. Send /depot to start again.")
            return END

    return guarded


class DepotBot:
    """The handlers. Each changes the stored session, and answers once its step is safe."""

    def __init__(self, sessions: SessionService) -> None:
        self.sessions = sessions

    def conversation(self) -> ConversationHandler[ContextTypes.DEFAULT_TYPE]:
        """Return the conversation from /depot to yes."""
        return ConversationHandler(
            entry_points=[CommandHandler("depot", self.start)],
            states={
                AUDIO: [MessageHandler(filters.AUDIO | filters.VOICE, self.take_audio)],
                AMOUNT: [MessageHandler(TEXT, self.take_amount)],
                CONFIRM: [
                    MessageHandler(filters.Regex(r"(?i)^\s*yes\s*$"), self.confirm),
                    MessageHandler(filters.Regex(r"(?i)^\s*no\s*$"), self.cancel),
                ],
            },
            fallbacks=[CommandHandler("cancel", self.cancel), MessageHandler(filters.ALL, self.remind)],
            allow_reentry=True,
            name="depot",
            persistent=True,
        )

    async def start(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> str:
        """/depot: open a session; one that is open already makes way for it."""
        await self.sessions.create_session(user_id(update), state=AUDIO, replace=True)
        reply(update, ASK[AUDIO])
        return AUDIO

    @in_session
    async def take_audio(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> str:
        """Keep the audio."""
        assert update.message is not None
        audio = update.message.audio or update.message.voice
        assert audio is not None
        async with self.sessions.edit_session(user_id(update)) as session:
            session["audio"] = audio.file_id
            session.state = AMOUNT
        reply(update, f"Audio saved. {ASK[AMOUNT]}")
        return AMOUNT

    @in_session
    async def take_amount(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> str | None:
        """Keep the amount."""
        assert update.message is not None
        amount = parse_amount(update.message.text or "")
        if amount is None:
            reply(update, f"An amount is a number above 0 and up to {MOST}, such as 150 or 19.99.")
            return None
        async with self.sessions.edit_session(user_id(update)) as session:
            session["amount"] = amount
            session.state = CONFIRM
        reply(
            update,
            f"Amount {amount} saved. {ASK[CONFIRM]}",
            reply_markup=ReplyKeyboardMarkup([["yes", "no"]], one_time_keyboard=True, resize_keyboard=True),
        )
        return CONFIRM

    @in_session
    async def confirm(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> int:
        """Book the deposit and end the session."""
        session = await self.open_session(update)
        assert context.user_data is not None
        deposits = context.user_data.setdefault("deposits", [])
        deposits.append({"audio": session["audio"], "amount": session["amount"]})
        # The session goes only when the deposit is booked: a crash in between leaves it to confirm again.
        on_commit(self.sessions.cleanup_session, user_id(update), f"deposit {len(deposits)}")
        reply(update, f"Deposit {len(deposits)} of {session['amount']} confirmed. Thank you!")
        return END

    async def cancel(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> int:
        """/cancel, or no at the end: drop the session."""
        on_commit(self.sessions.cleanup_session, user_id(update), reason="cancelled")
        reply(update, "Cancelled. Nothing was deposited.")
        return END

    @in_session
    async def remind(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        """Say what the bot waits for."""
        session = await self.open_session(update)
        reply(update, ASK[session.state])

    async def open_session(self, update: Update) -> Session:
        """Return the sender's session."""
        session = await self.sessions.get_session(user_id(update))
        if session is None:
            raise SessionExpired("the deposit timed out")
        return session

    async def explain(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        """Outside of any deposit: say how to start one."""
        reply(update, "No deposit is open. Send /depot to start one, /cancel to leave it.")


async def report(update: object, context: ContextTypes.DEFAULT_TYPE) -> None:
    """Log what went wrong, and tell the user whether their last message counts."""
    logger.error("an update failed: %s", context.error)
    if not isinstance(update, Update) or update.effective_message is None:
        return
    if isinstance(context.error, CommitPending):
        text = "Noted. I will answer as soon as my storage is back; do not send it again."
    else:
        text = "That did not work; please send it again in a moment."
    await update.effective_message.reply_text(text)


def reply(update: Update, text: str, **options: Any) -> None:
    """Answer as soon as everything the handler changed is safe."""
    assert update.message is not None
    options.setdefault("reply_markup", ReplyKeyboardRemove())
    on_commit(update.message.reply_text, text, **options)


def user_id(update: Update) -> int:
    """Return who sent the message; the bot asks Telegram for nothing else."""
    assert update.effective_user is not None
    return update.effective_user.id


def parse_amount(text: str) -> Decimal | None:
    """Return the amount, or None if the text is none."""
    try:
        amount = Decimal(text.strip().replace(",", "."))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 < amount <= MOST else None


def build(token: str) -> Application[Any, Any, Any, Any, Any, Any]:
    """Return the bot, ready to run."""
    store = open_store()
    sessions = SessionService(store, idle_timeout=Settings.load().idle_timeout)

    async def close_store(_application: object) -> None:
        await store.aclose()

    builder = (
        ApplicationBuilder()
        .application_class(SessionApplication)
        .token(token)
        .persistence(SessionPersistence(store))
        .post_shutdown(close_store)
    )
    if base_url := os.environ.get("TELEGRAM_BASE_URL"):  # a Bot API server of your own
        builder = builder.base_url(f"{base_url}/bot").base_file_url(f"{base_url}/file/bot")
    application = builder.build()
    bot = DepotBot(sessions)
    application.add_handler(bot.conversation())
    application.add_handler(MessageHandler(filters.ChatType.PRIVATE, bot.explain))
    application.add_error_handler(report)
    return application


def main() -> None:
    """Run the bot until it is told to stop."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Its errors come to `report`, or to the last lines here; its own log has the token in a traceback.
    logging.getLogger("telegram.ext").setLevel(logging.CRITICAL)
    token = os.environ.get("TELEGRAM_BOT_TOKEN")
    if not token:
        sys.exit("depot_bot: set TELEGRAM_BOT_TOKEN to the token that @BotFather gave you")
    try:
        build(token).run_polling(allowed_updates=["message"])
    except InvalidToken:
        sys.exit("depot_bot: Telegram refused the token in TELEGRAM_BOT_TOKEN")
    except TelegramError as error:
        sys.exit(f"depot_bot: Telegram cannot be asked: {error}")
    except SessionKitError as error:
        sys.exit(f"depot_bot: {error}")


if __name__ == "__main__":
    main()
