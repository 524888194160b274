"""``SessionPersistence``: PTB's data and conversations in a store, one record each."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import stamina
from telegram.ext import BasePersistence, ContextTypes, PersistenceInput

from sessionkit.codec import MsgpackCodec
from sessionkit.errors import CodecError, CorruptRecord, InvalidKey, StoreError
from sessionkit.keys import DEFAULT_PREFIX, KeySpace
from sessionkit.ptb.writes import WriteBuffer
from sessionkit.registry import open_store

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from sessionkit.codec import Codec
    from sessionkit.keys import KeyPart
    from sessionkit.store import SessionStore

logger = logging.getLogger("sessionkit.ptb")

ConversationKey: TypeAlias = tuple[int | str, ...]
CallbackData: TypeAlias = tuple[list[tuple[str, float, dict[str, Any]]], dict[str, str]]

DEFAULT_UPDATE_INTERVAL: Final = 1.0
_PATIENCE: Final = 10.0
_WHOLE: Final = "all"
_PAGE: Final = 500


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
        key_prefix: What every key starts with. Two bots on one server need two prefixes.
        store_data: Which kinds of data to keep; all by default.
        update_interval: Seconds between two runs in which a stock ``Application`` hands changes over. A
            ``SessionApplication`` does so after each update.
        context_types: The application's, if its data are not plain dicts. Their classes must be known to the
            codec.
        codec: What turns data into bytes.
        options: Passed to ``open_store`` with a URL.

    Raises:
        ConfigurationError: The URL or an option is wrong.
        InvalidKey: The prefix cannot be part of a key.
    """

    def __init__(
        self,
        store: SessionStore | str | None = None,
        *,
        key_prefix: str = DEFAULT_PREFIX,
        store_data: PersistenceInput | None = None,
        update_interval: float = DEFAULT_UPDATE_INTERVAL,
        context_types: ContextTypes[Any, Any, Any, Any] | None = None,
        codec: Codec | None = None,
        **options: Any,
    ) -> None:
        super().__init__(store_data=store_data, update_interval=update_interval)
        self.context_types = context_types if context_types is not None else ContextTypes()
        self._given = store
        self._options = options
        self._store: SessionStore | None = self._open()
        self._codec = codec if codec is not None else MsgpackCodec()
        self._users = KeySpace("user_data", key_prefix)
        self._chats = KeySpace("chat_data", key_prefix)
        self._bot = KeySpace("bot_data", key_prefix)
        self._callbacks = KeySpace("callback_data", key_prefix)
        self._conversations = KeySpace("conversation", key_prefix)
        self._writes = WriteBuffer(self._opened)
        self._unreadable: dict[str, CodecError] = {}
        self._refused: dict[str, CodecError] = {}

    async def get_user_data(self) -> dict[int, Any]:
        """Return every user's data."""
        return await self._load_by_id(self._users)

    async def get_chat_data(self) -> dict[int, Any]:
        """Return every chat's data."""
        return await self._load_by_id(self._chats)

    async def get_bot_data(self) -> Any:
        """Return the bot's data, or what the context types make where there is none."""
        data = await self._load_one(self._bot.key(_WHOLE))
        return self.context_types.bot_data() if data is None else data

    async def get_callback_data(self) -> CallbackData | None:
        """Return the callback data, or None where there are none."""
        data: CallbackData | None = await self._load_one(self._callbacks.key(_WHOLE))
        return data or None

    async def get_conversations(self, name: str) -> MutableMapping[ConversationKey, object]:
        """Return the states of the conversations of one handler."""
        loaded = await self._load_all(self._conversations, f"{self._conversations.key(name)}:")
        return {parts[1:]: state for parts, state in loaded.items()}

    async def update_conversation(self, name: str, key: ConversationKey, new_state: object | None) -> None:
        """Keep a conversation's state; None ends it."""
        await self._save(self._conversations.key(name, *key), new_state, f"conversation.{name}")

    async def update_user_data(self, user_id: int, data: Any) -> None:
        """Keep a user's data."""
        await self._save(self._users.key(user_id), data, f"user_data.{user_id}")

    async def update_chat_data(self, chat_id: int, data: Any) -> None:
        """Keep a chat's data."""
        await self._save(self._chats.key(chat_id), data, f"chat_data.{chat_id}")

    async def update_bot_data(self, data: Any) -> None:
        """Keep the bot's data."""
        await self._save(self._bot.key(_WHOLE), data, "bot_data")

    async def update_callback_data(self, data: CallbackData) -> None:
        """Keep the callback data."""
        await self._save(self._callbacks.key(_WHOLE), data, "callback_data")

    async def drop_user_data(self, user_id: int) -> None:
        """Forget a user's data."""
        await self._save(self._users.key(user_id), None, "user_data")

    async def drop_chat_data(self, chat_id: int) -> None:
        """Forget a chat's data."""
        await self._save(self._chats.key(chat_id), None, "chat_data")

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

    async def commit(self, *, user_id: int | None = None, chat_id: int | None = None) -> None:
        """Have stored what PTB has handed over, and make sure of what concerns one user and chat.

        Args:
            user_id: The user of an update, or None if it had none.
            chat_id: The chat of an update, or None if it had none.

        Raises:
            SessionKitError: Data of this user or chat, of one of their conversations, of the bot or of its
                callbacks are not stored. What the store did not acknowledge is kept and tried again.
        """
        await self._writes.send()
        for key, error in {**self._writes.failures(), **self._refused}.items():
            if self._concerns(key, user_id, chat_id):
                raise error

    async def flush(self) -> None:
        """Have everything stored, trying for ten seconds; close the store if it was opened here.

        PTB calls this at shutdown.

        Raises:
            SessionKitError: The store did not acknowledge everything: what is left is lost with the process.
        """
        try:
            async for attempt in stamina.retry_context(on=StoreError, attempts=None, timeout=_PATIENCE):
                with attempt:
                    await self._writes.flush()
        finally:
            await self._writes.aclose()
            store, self._store = self._store, None
            if store is not None and store is not self._given:
                await store.aclose()

    def _open(self) -> SessionStore:
        if self._given is None or isinstance(self._given, str):
            return open_store(self._given, **self._options)
        return self._given

    def _opened(self) -> SessionStore:
        if self._store is None:
            self._store = self._open()
        return self._store

    async def _save(self, key: str, value: object | None, name: str) -> None:
        self._refused.pop(key, None)
        if value is None:
            self._unreadable.pop(key, None)
        elif value == {} and not self._writes.knows(key):
            return  # PTB hands over an empty dict for every user it sees
        try:
            if key in self._unreadable:
                raise CorruptRecord(
                    f"{key!r} is not overwritten, as it was not readable: {self._unreadable[key]}"
                )
            encoded = None if value is None else self._codec.encode(value, name=name)
        except CodecError as error:
            self._refused[key] = error
            raise
        await self._writes.write(key, encoded)

    def _concerns(self, key: str, user_id: int | None, chat_id: int | None) -> bool:
        if key.startswith(self._users.start):
            return self._users.parts(key) == (user_id,)
        if key.startswith(self._chats.start):
            return self._chats.parts(key) == (chat_id,)
        if key.startswith(self._conversations.start):
            return not {user_id, chat_id}.isdisjoint(self._conversations.parts(key)[1:])
        return True

    async def _load_by_id(self, space: KeySpace) -> dict[int, Any]:
        loaded = await self._load_all(space, space.start)
        found: dict[int, Any] = {}
        for parts, value in loaded.items():
            match parts:
                case (int(number),):
                    found[number] = value
        return found

    async def _load_all(self, space: KeySpace, start: str) -> dict[tuple[KeyPart, ...], Any]:
        ours: dict[str, tuple[KeyPart, ...]] = {}
        async for key in self._opened().scan(start):
            try:
                ours[key] = space.parts(key)
            except InvalidKey as error:
                logger.warning("key of somebody else passed over", extra={"error": str(error)})
        keys = list(ours)
        found: dict[tuple[KeyPart, ...], Any] = {}
        for position in range(0, len(keys), _PAGE):
            page = await self._load(keys[position : position + _PAGE])
            found.update({ours[key]: value for key, value in page.items()})
        return found

    async def _load_one(self, key: str) -> Any:
        return (await self._load([key])).get(key)

    async def _load(self, keys: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        records = await self._opened().get_many(keys)
        self._writes.loaded({key: record.value for key, record in records.items()})
        for key, record in records.items():
            try:
                found[key] = self._codec.decode(record.value)
            except CodecError as error:
                self._unreadable[key] = error
                logger.error("record not readable, kept", extra={"key": key, "error": str(error)})
        return found
