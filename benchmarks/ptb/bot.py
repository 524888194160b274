"""The bot that all entrants run, without a network, and the updates that it is given."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from telegram import Update
from telegram.ext import (
    ApplicationBuilder,
    ContextTypes,
    ConversationHandler,
    MessageHandler,
    PicklePersistence,
    filters,
)
from telegram.request import BaseRequest

from benchmarks.ptb.floor import FloorApplication
from benchmarks.ptb.idle import IdlePersistence
from sessionkit.ptb import SessionApplication, SessionPersistence, on_commit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from telegram import Bot
    from telegram.ext import Application, BasePersistence

    AnyApplication: TypeAlias = Application[Any, Any, Any, Any, Any, Any]

Context: TypeAlias = ContextTypes.DEFAULT_TYPE
Kind: TypeAlias = Literal["none", "idle", "floor", "pickle", "eager", "lazy", "application"]
Answer: TypeAlias = "Callable[[int], Awaitable[object]]"

CONCURRENT: Final = 64
"""How many updates are processed at the same time, where it is more than one."""

CONVERSATION: Final = "steps"

_STEPS: Final = filters.TEXT
_ASKED, _ANSWERED = "asked", "answered"
TOKEN: Final = f"1:{'x' * 35}"
"""Opens nothing but a Bot API server for tests."""

_ME: Final = {"id": 1, "is_bot": True, "first_name": "Benchmark", "username": "benchmark_bot"}


@dataclass(frozen=True)
class Entrant:
    """A way to keep a bot's data.

    Attributes:
        kind: ``"none"``, ``"idle"`` for a persistence that keeps nothing, ``"floor"`` for the least that
            storing costs, PTB's ``"pickle"``, or ours: ``SessionPersistence`` loading ``"eager"`` or
            ``"lazy"``, or a ``SessionApplication``.
        place: The pickle's path, or the store's URL; empty where nothing is kept, or only in a dict.
    """

    kind: Kind
    place: str = ""

    @property
    def name(self) -> str:
        """What the tables call it."""
        names: dict[Kind, str] = {
            "none": "no persistence",
            "idle": "a persistence that does nothing",
            "floor": "floor" if self.place else "floor, a dict",
            "pickle": "PicklePersistence",
            "eager": "SessionPersistence",
            "lazy": "SessionPersistence, lazy",
            "application": "SessionApplication",
        }
        backend = {"sqlite": ", SQLite", "redis": ", Redis"}.get(self.place.partition(":")[0], "")
        return names[self.kind] + backend

    def open(self) -> BasePersistence[Any, Any, Any] | None:
        """Return a new persistence, or None where nothing is kept."""
        match self.kind:
            case "none" | "floor":
                return None
            case "idle":
                return IdlePersistence()
            case "pickle":
                return PicklePersistence(self.place)
            case "application":
                return SessionPersistence(self.place)
            case "eager" | "lazy" as loading:
                return SessionPersistence(self.place, loading=loading)

    def build(self, concurrent: int = 0, answer: Answer | None = None, telegram: str = "") -> AnyApplication:
        """Return the bot.

        Args:
            concurrent: How many updates it may process at the same time; 0: one after the other.
            answer: Called with the user's id at the end of each step.
            telegram: The URL of a Bot API server; empty: there is no network.
        """
        builder: Any = (
            ApplicationBuilder().token(TOKEN).updater(None).concurrent_updates(concurrent or False)
        ).job_queue(None)
        if telegram:
            builder = builder.base_url(telegram)
        else:
            builder = builder.request(OfflineRequest()).get_updates_request(OfflineRequest())
        persistence = self.open()
        if persistence is not None:
            builder = builder.persistence(persistence)
        if self.kind == "application":
            builder = builder.application_class(SessionApplication)
        elif self.kind == "floor":
            builder = builder.application_class(FloorApplication, {"place": self.place})
        application: AnyApplication = builder.build()
        step = _step(answer, when_stored=self.kind == "application")
        application.add_handler(
            ConversationHandler(
                entry_points=[MessageHandler(_STEPS, step)],
                states={_ASKED: [MessageHandler(_STEPS, step)], _ANSWERED: [MessageHandler(_STEPS, step)]},
                fallbacks=[],
                name=CONVERSATION,
                persistent=persistence is not None,
            )
        )
        return application


class OfflineRequest(BaseRequest):
    """Telegram as far as a bot needs it to start."""

    @property
    def read_timeout(self) -> float | None:
        """None: it answers at once."""
        return None

    async def initialize(self) -> None:
        """Do nothing."""

    async def shutdown(self) -> None:
        """Do nothing."""

    async def do_request(self, url: str, *_: object, **__: object) -> tuple[int, bytes]:
        """Answer to ``getMe``, and to nothing else."""
        if not url.endswith("/getMe"):
            return 404, json.dumps({"ok": False, "error_code": 404, "description": "not here"}).encode()
        return 200, json.dumps({"ok": True, "result": _ME}).encode()


def profile(number: int) -> dict[str, Any]:
    """Return what is kept of a user or a chat: about 200 bytes."""
    return {
        "steps": 0,
        "name": f"User {number}",
        "language": "en",
        "currency": "EUR",
        "balance": number * 0.25,
        "address": {"street": f"Main Street {number}", "city": "Berlin", "zip": "10115"},
        "tags": ["deposit", "vip"],
        "history": [number, number + 1, number + 2],
    }


def make_update(bot: Bot, number: int, user_id: int, *, group: bool = False) -> Update:
    """Return a text message as Telegram delivers it.

    Args:
        bot: Who gets it.
        number: Tells it from others.
        user_id: Who sends it.
        group: Whether to a group of the user's own, instead of to the bot itself.
    """
    user = {"id": user_id, "is_bot": False, "first_name": f"User {user_id}", "language_code": "en"}
    chat: dict[str, Any] = {"id": user_id, "type": "private", "first_name": f"User {user_id}"}
    if group:
        chat = {"id": -user_id, "type": "group", "title": f"Group {user_id}"}
    message = {"message_id": number, "date": 1_700_000_000 + number, "from": user, "chat": chat, "text": "on"}
    return Update.de_json({"update_id": number, "message": message}, bot)


def steps_of(application: AnyApplication, user_id: int) -> int:
    """Return how many steps of a user are in PTB's memory."""
    data = application.user_data.get(user_id)
    return data["steps"] if data else 0


def _step(
    answer: Answer | None, *, when_stored: bool
) -> Callable[[Update, Context], Coroutine[Any, Any, str]]:
    async def step(update: Update, context: Context) -> str:
        user = update.effective_user
        assert user is not None
        for data in (context.user_data, context.chat_data):
            assert data is not None
            if not data:
                data.update(profile(user.id))
            data["steps"] += 1
        assert context.user_data is not None
        if answer is not None and when_stored:
            on_commit(answer, user.id)
        elif answer is not None:
            await answer(user.id)
        return _ANSWERED if context.user_data["steps"] % 2 else _ASKED

    return step
