"""All that a persistence of python-telegram-bot keeps, taken out of a store and put into one."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from telegram.ext import ConversationHandler

from sessionkit.codec.path import Index, Item, render
from sessionkit.errors import CodecError, InvalidKey, UnsupportedType
from sessionkit.ptb.data_keys import DataKeys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sessionkit.codec import Codec
    from sessionkit.ptb.data_keys import ConversationKey
    from sessionkit.ptb.persistence import CallbackData, SessionPersistence
    from sessionkit.store import SessionStore

_AT_ONCE: Final = 200


class Contents(NamedTuple):
    """All that a persistence keeps. ``Any``: a bot's data are what it makes of them.

    Attributes:
        users: Data by user id.
        chats: Data by chat id.
        bot: The bot's data, or None.
        callbacks: The callback data, or None.
        conversations: States by handler name and conversation key.
    """

    users: dict[int, Any]
    chats: dict[int, Any]
    bot: Any
    callbacks: CallbackData | None
    conversations: dict[str, dict[ConversationKey, object]]

    def counts(self) -> Counter[str]:
        """Return how many values there are, by kind; the bot's data and the callback data are one each."""
        return Counter(
            user_data=len(self.users),
            chat_data=len(self.chats),
            bot_data=int(not _is_empty(self.bot)),
            callback_data=int(self.callbacks is not None),
            conversation=sum(map(len, self.conversations.values())),
        )


async def read_contents(persistence: SessionPersistence, store: SessionStore, prefix: str) -> Contents:
    """Return all that a persistence keeps in a store; what cannot be read is logged and left out.

    Args:
        persistence: The persistence.
        store: Its store.
        prefix: The prefix of its keys.

    Raises:
        StoreError: The store could not be asked.
    """
    keys = DataKeys(prefix).conversations
    names = {str(keys.parts(key)[0]) async for key in store.scan(keys.start)}
    return Contents(
        await persistence.get_user_data(),
        await persistence.get_chat_data(),
        await persistence.get_bot_data(),
        await persistence.get_callback_data(),
        {name: dict(await persistence.get_conversations(name)) for name in sorted(names)},
    )


def count_unreadable(persistence: SessionPersistence) -> int:
    """Return how many records ``read_contents`` left out, as the persistence could not read them."""
    return len(persistence.records.ledger.unreadable)


@dataclass
class Outcome:
    """What became of contents that were put into a store.

    Attributes:
        written: How many values were, or would have been in a trial, by kind.
        unchanged: How many were there already.
        left_out: Each value that cannot be kept: the path to it, and why.
        conflicts: The keys under which the store has something else, which was kept.
    """

    written: Counter[str] = field(default_factory=Counter)
    unchanged: int = 0
    left_out: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether everything is in the store now."""
        return not (self.left_out or self.conflicts)


class Importer:
    """Puts contents into a store, as an application would that had them.

    Args:
        persistence: Where to put them.
        codec: Its codec.
        store: Its store.
        prefix: The prefix of its keys.
        overwrite: Whether to write over other data that is there.
        trial: Whether to find out only what would become of them.
    """

    def __init__(
        self,
        persistence: SessionPersistence,
        codec: Codec,
        store: SessionStore,
        prefix: str,
        *,
        overwrite: bool = False,
        trial: bool = False,
    ) -> None:
        self._persistence = persistence
        self._codec = codec
        self._store = store
        self._prefix = prefix
        self._keys = DataKeys(prefix)
        self._overwrite = overwrite
        self._trial = trial

    async def run(self, contents: Contents) -> Outcome:
        """Put contents into the store, and return what became of them.

        Of data with a value that cannot be kept, the entry of the innermost dict around it is left out, and
        the rest is kept. It can be done again, as after a failure: what is there already is left.

        Raises:
            StoreError: The store failed; what was written until then stays.
        """
        outcome = Outcome()
        there = dict(
            self._values(await read_contents(self._persistence, self._store, self._prefix), Outcome())
        )
        waiting: list[tuple[str, _Value]] = []
        for key, value in self._values(contents, outcome):
            try:
                kept = self._prune(value.data, self._keys.label(key), outcome, ())
                if _is_empty(kept):
                    continue
                if key in there:
                    if self._is_same(value.kind, kept, there[key].data):
                        outcome.unchanged += 1
                        continue
                    if not self._overwrite:
                        outcome.conflicts.append(key)
                        continue
            except CodecError as error:
                outcome.left_out.append(str(error))
                continue
            waiting.append((key, value._replace(data=kept)))
        for start in range(0, len(waiting), _AT_ONCE):
            await self._write(waiting[start : start + _AT_ONCE], outcome)
        return outcome

    def _values(self, contents: Contents, outcome: Outcome) -> Iterator[tuple[str, _Value]]:
        """Yield what is there and not empty, by its key."""
        by_id: list[
            tuple[str, Callable[[int], str], dict[int, Any], Callable[[int, Any], Awaitable[None]]]
        ] = [
            ("user_data", self._keys.users.key, contents.users, self._persistence.update_user_data),
            ("chat_data", self._keys.chats.key, contents.chats, self._persistence.update_chat_data),
        ]
        for kind, make_key, data_by_id, update in by_id:
            for number, data in data_by_id.items():
                if type(number) is not int:
                    outcome.left_out.append(f"{kind}: an id is an int, not {type(number).__name__}")
                elif not _is_empty(data):
                    yield make_key(number), _Value(kind, data, partial(update, number))
        if not _is_empty(contents.bot):
            yield self._keys.bot, _Value("bot_data", contents.bot, self._persistence.update_bot_data)
        if contents.callbacks:
            # Not a key: how many records they are in is the persistence's business.
            yield (
                "callback_data",
                _Value("callback_data", contents.callbacks, self._persistence.update_callback_data),
            )
        for name, states in contents.conversations.items():
            for parts, state in states.items():
                try:
                    key = self._keys.conversation(name, parts)
                except (InvalidKey, TypeError) as error:
                    outcome.left_out.append(f"conversations of {name!r}: {error}")
                    continue
                if state is not None and state != ConversationHandler.END:
                    update_state = partial(self._persistence.update_conversation, name, parts)
                    yield key, _Value("conversation", state, update_state)

    def _is_same(self, kind: str, one: Any, other: Any) -> bool:
        if kind == "callback_data":  # their order is when they were used
            one, other = (
                (sorted(data[0], key=itemgetter(0)), dict(sorted(data[1].items()))) for data in (one, other)
            )
        return self._codec.pack(one) == self._codec.pack(other)

    def _prune(self, value: Any, path: str, outcome: Outcome, around: tuple[int, ...]) -> Any:
        """Return what of a value can be kept.

        Raises:
            UnsupportedType: Nothing, as there is no dict in it that could go without the entry.
            CodecError: It cannot be kept for another reason.
        """
        try:
            self._codec.pack(value, name=path)
        except UnsupportedType:
            if id(value) in around:  # it contains itself
                raise
            around = (*around, id(value))
            if type(value) is dict:
                return self._prune_dict(value, path, outcome, around)
            if type(value) is list or type(value) is tuple:
                return type(value)(
                    self._prune(item, render(path, [Index(at)]), outcome, around)
                    for at, item in enumerate(value)
                )
            raise
        return value

    def _prune_dict(
        self, value: dict[Any, Any], path: str, outcome: Outcome, around: tuple[int, ...]
    ) -> dict[Any, Any]:
        kept = {}
        for key, item in value.items():
            entry = render(path, [Item(key)])
            try:
                self._codec.pack({key: None}, name=path)
                kept[key] = self._prune(item, entry, outcome, around)
            except UnsupportedType as error:
                reason = str(error)
                outcome.left_out.append(
                    reason if reason.startswith(f"{entry}: ") else f"{entry}, because of {reason}"
                )
        return kept

    async def _write(self, values: list[tuple[str, _Value]], outcome: Outcome) -> None:
        results: list[object] = [None] * len(values)
        if not self._trial:
            results = await asyncio.gather(
                *(value.write(value.data) for _, value in values), return_exceptions=True
            )
        for (_, value), result in zip(values, results, strict=True):
            if isinstance(result, CodecError):
                outcome.left_out.append(str(result))
            elif isinstance(result, BaseException):
                raise result
            else:
                outcome.written[value.kind] += 1


class _Value(NamedTuple):
    """A record's value."""

    kind: str
    data: Any
    write: Callable[[Any], Awaitable[None]]


def _is_empty(data: Any) -> bool:
    """Whether data is what PTB makes by itself for everybody it sees."""
    return data is None or (isinstance(data, dict) and not data)
