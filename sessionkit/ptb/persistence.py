"""``SessionPersistence``: PTB's data and conversations in a store, one record each."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from telegram.ext import BasePersistence, ContextTypes, PersistenceInput

from sessionkit.errors import (
    CodecError,
    ConfigurationError,
    CorruptRecord,
    InvalidKey,
    RecordTooLarge,
    SessionKitError,
)
from sessionkit.ptb.data_keys import DataKeys
from sessionkit.ptb.writes import WriteBuffer, mark_of
from sessionkit.quarantine import Quarantine
from sessionkit.registry import open_store
from sessionkit.settings import Settings
from sessionkit.store import SessionStore, read_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

    from sessionkit.codec import Codec
    from sessionkit.keys import KeyPart, KeySpace
    from sessionkit.ptb.data_keys import ConversationKey
    from sessionkit.ptb.private import Changes
    from sessionkit.quarantine import OnCorrupt
    from sessionkit.store import Record

logger = logging.getLogger("sessionkit.ptb")

CallbackData: TypeAlias = tuple[list[tuple[str, float, dict[str, Any]]], dict[str, str]]

DEFAULT_UPDATE_INTERVAL: Final = 1.0
_PATIENCE: Final = 10.0


class Held(NamedTuple):
    """What ``hold`` took.

    Attributes:
        keys: The keys of all values.
        errors: Why some cannot be stored, where that is new.
    """

    keys: list[str]
    errors: list[Exception]


class SessionPersistence(BasePersistence[Any, Any, Any]):
    """A persistence that keeps each user's, chat's and conversation's data in a record of its own.

    - A value is kept until the store has acknowledged it; a failed write is reported to the application's
      error handlers and tried again until it succeeds.
    - What has not changed is not written.
    - What is returned is never shared with what is kept.
    - A record that cannot be read is reported, passed over and never overwritten.

    Args:
        store: A store, or a URL for ``open_store``; None: what the settings say. A store that is passed in is
            not closed.
        key_prefix: What every key starts with; None: what the settings say, ``telegram_bot:`` by default.
            Two bots on one store need two prefixes.
        store_data: Which kinds of data to keep; all by default.
        update_interval: Seconds between two runs in which a stock ``Application`` hands changes over. A
            ``SessionApplication`` does so after each update.
        context_types: The application's, if its data are not plain dicts. Their classes must be known to the
            codec.
        codec: What turns data into bytes; its migrations take ``user_data``, ``chat_data`` and ``bot_data``.
            None: one that compresses and encrypts as the settings say. Build one with types of your own by
            ``Settings.load().codec()``.
        on_corrupt: What becomes of a damaged record: ``"raise"`` keeps it, and nothing is written over it
            until it is dropped; ``"quarantine"`` moves it aside for thirty days. A record that can be read
            elsewhere, of a newer schema or by a key that is missing here, is kept in either case.
        options: Passed to ``open_store`` where no store is passed in.

    Raises:
        ConfigurationError: The URL or an option is wrong.
        InvalidKey: The prefix cannot be part of a key.
    """

    def __init__(
        self,
        store: SessionStore | str | None = None,
        *,
        key_prefix: str | None = None,
        store_data: PersistenceInput | None = None,
        update_interval: float = DEFAULT_UPDATE_INTERVAL,
        context_types: ContextTypes[Any, Any, Any, Any] | None = None,
        codec: Codec | None = None,
        on_corrupt: OnCorrupt = "raise",
        **options: Any,
    ) -> None:
        super().__init__(store_data=store_data, update_interval=update_interval)
        self.context_types = context_types if context_types is not None else ContextTypes()
        if isinstance(store, SessionStore) and options:
            raise ConfigurationError(
                f"SessionPersistence does not know {', '.join(sorted(options))};"
                " the options of a store go where it is opened"
            )
        if on_corrupt not in ("raise", "quarantine"):
            raise ConfigurationError(f"on_corrupt is 'raise' or 'quarantine', not {on_corrupt!r}")
        if key_prefix is None:
            key_prefix = Settings.load().prefix
        self._given = store
        self._options = options
        self._store: SessionStore | None = self._open()
        self._codec = codec if codec is not None else Settings.load().codec()
        self._keys = DataKeys(key_prefix)
        self._prefix = key_prefix
        self._on_corrupt = on_corrupt
        self._writes = WriteBuffer(self._opened)
        self._unreadable: dict[str, CodecError] = {}
        self._refused: dict[str, CodecError] = {}

    async def get_user_data(self) -> dict[int, Any]:
        """Return every user's data."""
        return await self._load_by_id(self._keys.users)

    async def get_chat_data(self) -> dict[int, Any]:
        """Return every chat's data."""
        return await self._load_by_id(self._keys.chats)

    async def get_bot_data(self) -> Any:
        """Return the bot's data, or what the context types make where there is none."""
        data = await self._load_one(self._keys.bot, "bot_data")
        return self.context_types.bot_data() if data is None else data

    async def get_callback_data(self) -> CallbackData | None:
        """Return the callback data, or None where there are none."""
        data: CallbackData | None = await self._load_one(self._keys.callbacks)
        return data or None

    async def get_conversations(self, name: str) -> MutableMapping[ConversationKey, object]:
        """Return the states of the conversations of one handler."""
        loaded = await self._load_all(self._keys.conversations, f"{self._keys.conversations.key(name)}:")
        return {parts[1:]: state for parts, state in loaded.items()}

    async def update_conversation(self, name: str, key: ConversationKey, new_state: object | None) -> None:
        """Keep a conversation's state; None ends it."""
        await self._write(self._keys.conversation(name, key), new_state)

    async def update_user_data(self, user_id: int, data: Any) -> None:
        """Keep a user's data."""
        await self._write(self._keys.users.key(user_id), data)

    async def update_chat_data(self, chat_id: int, data: Any) -> None:
        """Keep a chat's data."""
        await self._write(self._keys.chats.key(chat_id), data)

    async def update_bot_data(self, data: Any) -> None:
        """Keep the bot's data."""
        await self._write(self._keys.bot, data)

    async def update_callback_data(self, data: CallbackData) -> None:
        """Keep the callback data."""
        await self._write(self._keys.callbacks, data)

    async def drop_user_data(self, user_id: int) -> None:
        """Forget a user's data."""
        await self._write(self._keys.users.key(user_id), None)

    async def drop_chat_data(self, chat_id: int) -> None:
        """Forget a chat's data."""
        await self._write(self._keys.chats.key(chat_id), None)

    def hold(self, changes: Changes, bot_data: Any, callback_data: CallbackData | None) -> Held:
        """Take what changed, as it is now, to be stored by the next ``commit``.

        Args:
            changes: What PTB has marked.
            bot_data: The bot's data.
            callback_data: The callback data, or None where they are not kept.
        """
        values: list[tuple[Callable[[], str], object | None]] = []
        if self.store_data.user_data:
            values += [
                (partial(self._keys.users.key, number), data) for number, data in changes.users.items()
            ]
        if self.store_data.chat_data:
            values += [
                (partial(self._keys.chats.key, number), data) for number, data in changes.chats.items()
            ]
        values += [
            (partial(self._keys.conversation, name, parts), state)
            for (name, parts), state in changes.conversations.items()
        ]
        if self.store_data.bot_data:
            values.append((lambda: self._keys.bot, bot_data))
        if self.store_data.callback_data and callback_data is not None:
            values.append((lambda: self._keys.callbacks, callback_data))
        held = Held([], [])
        for make_key, value in values:
            try:
                key = make_key()
                refused_before = key in self._refused
                held.keys.append(key)
                try:
                    self._hold(key, value)
                except CodecError:
                    if not refused_before:
                        raise
            except Exception as error:  # one value, whatever is wrong with it, must not cost the others
                held.errors.append(error)
        return held

    async def refresh_user_data(self, user_id: int, user_data: Any) -> None:
        """Do nothing: this process's copy is the newest."""

    async def refresh_chat_data(self, chat_id: int, chat_data: Any) -> None:
        """Do nothing: this process's copy is the newest."""

    async def refresh_bot_data(self, bot_data: Any) -> None:
        """Do nothing: this process's copy is the newest."""

    async def ping(self) -> float:
        """Ask the store for a sign of life and return the seconds it took.

        Raises:
            StoreUnavailable: It gives none.
        """
        return await self._opened().ping()

    async def commit(
        self, keys: Iterable[str] = (), *, user_id: int | None = None, chat_id: int | None = None
    ) -> None:
        """Have stored what is held, and make sure of what concerns one update.

        Args:
            keys: What was held for it.
            user_id: The user of the update, or None if it had none.
            chat_id: The chat of the update, or None if it had none.

        Raises:
            SessionKitError: Data under one of the keys, of this user or chat, of one of their conversations,
                or of the bot are not stored. What the store did not acknowledge is kept and tried again.
        """
        await self._writes.send()
        self.check(keys, user_id=user_id, chat_id=chat_id)

    def check(self, keys: Iterable[str], *, user_id: int | None, chat_id: int | None) -> None:
        """Raise what ``commit`` would, without asking the store again."""
        own = set(keys)
        for key, error in self.failures().items():
            if key in own or self._keys.concerns(key, user_id, chat_id):
                raise error

    def failures(self) -> dict[str, SessionKitError]:
        """Return why each key's newest value is not stored, where an attempt has failed."""
        return {**self._writes.failures(), **self._refused}

    def when_sent(self, callback: Callable[[], object]) -> None:
        """Have a callback called whenever values have been sent to the store, whatever became of them."""
        self._writes.when_sent(callback)

    async def flush(self) -> None:
        """Have everything stored, trying for ten seconds; close the store if it was opened here.

        PTB calls this at shutdown.

        Raises:
            SessionKitError: The store did not acknowledge everything: what is left is lost with the process.
        """
        try:
            await self._writes.flush(patience=_PATIENCE)
        finally:
            await self._writes.aclose()
            store, self._store = self._store, None
            if store is not None and store is not self._given:
                await store.aclose()

    def _open(self) -> SessionStore:
        if isinstance(self._given, SessionStore):
            return self._given
        return open_store(self._given, **self._options)

    def _opened(self) -> SessionStore:
        if self._store is None:
            self._store = self._open()
        return self._store

    async def _write(self, key: str, value: object | None) -> None:
        self._hold(key, value)
        await self._writes.settle(key)

    def _hold(self, key: str, value: object | None) -> None:
        self._refused.pop(key, None)
        if value is None:
            self._unreadable.pop(key, None)
        elif value == {} and (key in self._unreadable or not self._writes.knows(key)):
            return  # PTB hands over an empty dict for every user it sees, and for the bot
        try:
            if value is None:
                self._writes.drop(key)
            else:
                self._hold_value(key, value)
        except CodecError as error:
            self._refused[key] = error
            raise

    def _hold_value(self, key: str, value: object) -> None:
        if key in self._unreadable:
            error = self._unreadable[key]
            raise type(error)(f"{key!r} is not overwritten, as it was not readable: {error}")
        plain = self._codec.pack(value, name=self._keys.label(key))
        mark = mark_of(plain)
        if self._writes.is_stored(key, mark):
            return
        encoded = self._codec.wrap(plain, key=key)
        most = self._opened().capabilities.max_value_bytes
        if len(encoded) > most:
            raise RecordTooLarge(f"{key!r}: {len(encoded)} bytes, and the store takes at most {most}")
        self._writes.hold(key, encoded, mark)

    async def _load_by_id(self, space: KeySpace) -> dict[int, Any]:
        loaded = await self._load_all(space, space.start, space.namespace)
        found: dict[int, Any] = {}
        for parts, value in loaded.items():
            match parts:
                case (int(number),):
                    found[number] = value
        return found

    async def _load_all(
        self, space: KeySpace, start: str, kind: str | None = None
    ) -> dict[tuple[KeyPart, ...], Any]:
        found: dict[tuple[KeyPart, ...], Any] = {}
        async for key, record in read_all(self._opened(), start, self._keep_unreadable):
            try:
                parts = space.parts(key)
            except InvalidKey as error:
                logger.warning("key of somebody else passed over: %s", error, extra={"key": key})
                continue
            with suppress(CodecError):
                found[parts] = await self._decode(key, record, kind)
        return found

    async def _load_one(self, key: str, kind: str | None = None) -> Any:
        try:
            record = await self._opened().get(key)
        except CorruptRecord as error:
            self._keep_unreadable(key, error)
            return None
        if record is not None:
            with suppress(CodecError):
                return await self._decode(key, record, kind)
        return None

    async def _decode(self, key: str, record: Record, kind: str | None) -> Any:
        """Return a record's value; what is the bot's own has a kind, and is migrated."""
        self._unreadable.pop(key, None)
        try:
            plain = self._codec.unwrap(record.value, key=key)
            self._writes.loaded(key, mark_of(plain))
            value = self._codec.unpack(plain)
            return value if kind is None else self._codec.migrate(value, plain, kind=kind)
        except CodecError as error:
            if not await self._moved(key, record, error):
                self._keep_unreadable(key, error)
            raise

    async def _moved(self, key: str, record: Record, error: CodecError) -> bool:
        if self._on_corrupt != "quarantine" or not isinstance(error, CorruptRecord) or record.stale:
            return False
        try:
            moved = await Quarantine(self._opened(), self._codec, self._prefix).take(key, record, error)
        except SessionKitError as failure:
            logger.error("damaged record %s was not moved: %s", key, failure, extra={"key": key})
            return False
        if moved:
            self._writes.forget(key)
        return moved

    def _keep_unreadable(self, key: str, error: CodecError) -> None:
        self._unreadable[key] = error
        logger.error("record %s is not readable and is kept: %s", key, error, extra={"key": key})
