"""Units of work: an update, a job or an edit, with the records it needs and what it promised."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from telegram import Update
from telegram.ext import ConversationHandler

from sessionkit.ptb.slots import ChatSlot, ConversationSlot, PassingState, UserSlot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from telegram.ext import BaseHandler

    from sessionkit.ptb.bot_copy import BotCopy
    from sessionkit.ptb.cells import Slot
    from sessionkit.ptb.data_keys import ConversationKey
    from sessionkit.ptb.persistence import SessionPersistence
    from sessionkit.ptb.private import AnyApplication
    from sessionkit.ptb.slots import BotSlot
    from sessionkit.ptb.timeouts import Timeouts
    from sessionkit.ptb.user_updates import UserUpdates


class Work:
    """What one update, job or edit needs.

    Args:
        owner: The application that does it.
        users: The ids of its users; None is passed over.
        chats: The ids of its chats; None is passed over.

    Attributes:
        owner: As given.
        users: The ids of its users.
        chats: The ids of its chats.
        turns: The names under which it is processed: one after the other with all that share one.
        slots: Its records, by key.
        pinned: The keys of those that are kept in memory for it.
        moves: The old and the new ids of chats that a handler has moved.
        gone: The keys of data that have moved: PTB may make an empty dict in their place.
        held: Its turns, and those of the work that it is part of.
        open: Whether it is still being processed.
        undone: Whether PTB holds again what it held before, after it has failed.
        bot: The bot's data as it sees them, where it is stored by itself; None: as everybody does.
        inbox: The updates of its user, where they are stored first; None once it is stored itself.
        passing: The states of its conversations that are not persistent.
        running: The keys of conversations in which an earlier update's handler still ran as it began.
    """

    def __init__(
        self, owner: AnyApplication, users: Iterable[int | None], chats: Iterable[int | None]
    ) -> None:
        self.owner = owner
        self.users = {number for number in users if number is not None}
        self.chats = {number for number in chats if number is not None}
        self.turns: set[str] = set()
        self.slots: dict[str, Slot] = {}
        self.pinned: list[str] = []
        self.moves: list[tuple[int, int]] = []
        self.gone: set[str] = set()
        self.held: set[str] = set()
        self.open = True
        self.undone = False
        self.bot: BotCopy | None = None
        self.inbox: UserUpdates | None = None
        self.passing: list[PassingState] = []
        self.running: set[str] = set()

    def again(self) -> Work:
        """Return the same work, to be done once more."""
        again = Work(self.owner, self.users, self.chats)
        again.turns = set(self.turns)
        again.slots = dict(self.slots)
        return again

    def add(self, *slots: Slot) -> None:
        """Add records to it."""
        self.slots.update((slot.key, slot) for slot in slots)


class WorkPlan:
    """Says what an update, a job or an edit needs.

    Args:
        application: Whose handlers decide.
        persistence: Which kinds of data are kept.
        timeouts: The deadlines of conversations.
        bot: Where the bot's data live.

    Attributes:
        bot: As given.
    """

    def __init__(
        self,
        application: AnyApplication,
        persistence: SessionPersistence,
        timeouts: Timeouts,
        bot: BotSlot,
    ) -> None:
        self._application = application
        self._persistence = persistence
        self._timeouts = timeouts
        self._keys = persistence.records.keys
        self._conversations: list[ConversationHandler[Any]] | None = None
        self._passing: list[ConversationHandler[Any]] = []
        self.bot = bot

    def changed(self) -> None:
        """Take note that handlers were added or removed."""
        self._conversations = None

    @property
    def conversations(self) -> list[ConversationHandler[Any]]:
        """The persistent conversations, nested ones included."""
        if self._conversations is None:
            handlers = [handler for group in self._application.handlers.values() for handler in group]
            every = list(_conversations(handlers, lasting=True))
            self._conversations = [handler for handler, lasts in every if lasts]
            self._passing = [handler for handler, lasts in every if not lasts]
        return self._conversations

    def update(self, update: object) -> Work:
        """Return what an update needs."""
        if not isinstance(update, Update):
            return self.ids()
        (user_id, chat_id), message = whose(update), update.effective_message
        moved = (message.migrate_to_chat_id, message.migrate_from_chat_id) if message else ()
        work = self.ids(user_id, chat_id, *moved)
        for handler in self.conversations:
            key = conversation_key(handler, update)
            if key is not None and handler.name is not None:
                work.add(self.conversation(handler.name, key))
                if handler.conversation_timeout:
                    work.add(self._timeouts.slot(handler.name, key))
                if not (handler.per_user or handler.per_chat):
                    work.turns.add(self._keys.turns.key("message", *key))
        for handler in self._passing:
            key = conversation_key(handler, update)
            if key is not None:
                work.passing.append(PassingState(handler, key))
        if user_id is None and chat_id is None:
            work.turns.add(self._keys.turns.key("update", update.update_id))
        return work

    def ids(self, user_id: int | None = None, *chat_ids: int | None) -> Work:
        """Return what a job or an edit for these ids needs."""
        work = Work(self._application, [user_id], chat_ids)
        # Of a private chat both ids are the same, and so is the turn.
        work.turns = {self._keys.turns.key(number) for number in work.users | work.chats}
        self.add_data(work, work.users, work.chats)
        if self._persistence.store_data.bot_data:
            work.add(self.bot)
        return work

    def add_data(self, work: Work, users: Iterable[int], chats: Iterable[int]) -> None:
        """Add the data of more users and chats."""
        if self._persistence.store_data.user_data:
            work.add(*(UserSlot(self._keys.users.key(each), self._application, each) for each in users))
        if self._persistence.store_data.chat_data:
            work.add(*(ChatSlot(self._keys.chats.key(each), self._application, each) for each in chats))

    def conversation(self, name: str, key: ConversationKey) -> ConversationSlot:
        """Return where the state of a conversation lives."""
        return ConversationSlot(self._keys.conversation(name, key), self._application, name, key)


def whose(update: object) -> tuple[int | None, int | None]:
    """Return the ids of an update's user and chat."""
    if not isinstance(update, Update):
        return None, None
    user, chat = update.effective_user, update.effective_chat
    return None if user is None else user.id, None if chat is None else chat.id


def conversation_key(handler: ConversationHandler[Any], update: Update) -> ConversationKey | None:
    """Return the key that PTB gives this update's conversation, or None where the handler cannot take it."""
    chat, user, query = update.effective_chat, update.effective_user, update.callback_query
    if update.channel_post or update.edited_channel_post:
        return None
    if (handler.per_chat and chat is None) or (handler.per_user and user is None):
        return None
    if query is not None and handler.per_chat and query.message is None:
        return None
    key: list[int | str] = []
    if handler.per_chat and chat is not None:
        key.append(chat.id)
    if handler.per_user and user is not None:
        key.append(user.id)
    if handler.per_message:
        if query is None:
            return None
        if query.inline_message_id:
            key.append(query.inline_message_id)
        elif query.message is not None:
            key.append(query.message.message_id)
    return tuple(key)


_current: ContextVar[Work | None] = ContextVar("sessionkit_work", default=None)
_in_task: ContextVar[bool] = ContextVar("sessionkit_task", default=False)


def current_work(owner: AnyApplication) -> Work | None:
    """Return the application's work that the running task belongs to, which may be over, or None."""
    work = _current.get()
    return work if work is not None and work.owner is owner else None


def in_task() -> bool:
    """Whether this runs in a task of ``create_task``, which may outlive the work that it was made in."""
    return _in_task.get()


@contextmanager
def making_task() -> Iterator[None]:
    """Mark the tasks that the body makes as such."""
    token = _in_task.set(True)
    try:
        yield
    finally:
        _in_task.reset(token)


@contextmanager
def working(work: Work) -> Iterator[None]:
    """Mark this work as being processed while the body runs."""
    outer = current_work(work.owner)
    work.held = work.turns | (outer.held if outer is not None and outer.open else set())
    token = _current.set(work)
    try:
        yield
    finally:
        work.open = False
        _current.reset(token)


def _conversations(
    handlers: Iterable[BaseHandler[Any, Any, Any]], *, lasting: bool
) -> Iterator[tuple[ConversationHandler[Any], bool]]:
    """Yield conversations, nested ones too, and whether they are persistent, and those around them are."""
    for handler in handlers:
        if isinstance(handler, ConversationHandler):
            lasts = lasting and handler.persistent
            yield handler, lasts
            inner: list[BaseHandler[Any, Any, Any]] = [*handler.entry_points, *handler.fallbacks]
            for state in handler.states.values():
                inner += state
            yield from _conversations(list(dict.fromkeys(inner)), lasting=lasts)
