"""``SessionPersistence``: PTB's data and conversations in a store, one record each."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from telegram.ext import BasePersistence, ContextTypes, PersistenceInput

from sessionkit.arguments import check_kind, check_number
from sessionkit.errors import CodecError, ConfigurationError, CorruptRecord, InvalidKey, SessionKitError
from sessionkit.ptb.records import Records
from sessionkit.ptb.slots import DictSlot
from sessionkit.store import SessionStore, read_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping

    from telegram import Bot

    from sessionkit.codec import Codec
    from sessionkit.keys import KeyPart, KeySpace
    from sessionkit.ptb.data_keys import ConversationKey
    from sessionkit.quarantine import OnCorrupt
    from sessionkit.resilience import Event

logger = logging.getLogger("sessionkit.ptb")

CallbackData: TypeAlias = tuple[list[tuple[str, float, dict[str, Any]]], dict[str, str]]

DEFAULT_UPDATE_INTERVAL: Final = 1.0
DEFAULT_CALLBACK_TTL: Final = 30 * 24 * 3600.0
_LOOKS: Final = 3


class SessionPersistence(BasePersistence[Any, Any, Any]):
    """A persistence that keeps each user's, chat's and conversation's data in a record of its own.

    - A value is kept until the store has acknowledged it; a failed write is reported to the application's
      error handlers and tried again until it succeeds.
    - What has not changed is not written, and what somebody else wrote is merged, not overwritten.
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
            None: one that compresses and encrypts as the settings say, and keeps python-telegram-bot's own
            objects. Build one with types of your own by ``Settings.load().codec()`` and
            ``register_telegram_objects``.
        on_corrupt: What becomes of a damaged record: ``"raise"`` keeps it, and nothing is written over it
            until it is dropped; ``"quarantine"`` moves it aside for thirty days. A record that can be read
            elsewhere, of a newer schema or by a key that is missing here, is kept in either case.
        loading: ``"eager"``: everything is read at start. ``"lazy"``: a user's or chat's data are read when
            they are first needed; a stock ``Application`` needs plain dicts for that, and still reads all
            conversations at start, as PTB looks at their states before it asks for anything. None: lazy under
            a ``SessionApplication``, which reads conversations when they are needed, else eager.
        callback_ttl: Seconds for which the data behind a keyboard are kept after its last use; None: until
            PTB drops them.
        options: Passed to ``open_store`` where no store is passed in.

    Attributes:
        records: The store and what is known of it; for ``SessionApplication``.

    Raises:
        ConfigurationError: The URL, an argument or an option is wrong.
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
        loading: Literal["eager", "lazy"] | None = None,
        callback_ttl: float | None = DEFAULT_CALLBACK_TTL,
        **options: Any,
    ) -> None:
        check_kind("store_data", store_data, PersistenceInput)
        check_number("update_interval", update_interval)
        check_kind("context_types", context_types, ContextTypes)
        super().__init__(store_data=store_data, update_interval=update_interval)
        if loading not in (None, "eager", "lazy"):
            raise ConfigurationError(f"loading is 'eager', 'lazy' or None, not {loading!r}")
        self.context_types = context_types if context_types is not None else ContextTypes()
        self.records = Records(store, key_prefix, codec, on_corrupt, callback_ttl, lambda: self.bot, options)
        self._keys = self.records.keys
        self._ledger = self.records.ledger
        self._writer = self.records.writer
        self._loading = loading
        self._per_update = False
        self._in_use = False
        self._touched: dict[str, tuple[Any, int]] = {}
        self._behind: asyncio.Task[None] | None = None
        self._keyboards: dict[str, float] = {}

    def serve_each_update(self) -> None:
        """Leave loading and storing to an application that does both for each update.

        Unless told otherwise, everything is lazy then, conversations, too.
        """
        self._per_update = True
        if self._loading is None:
            self._loading = "lazy"

    def set_bot(self, bot: Bot) -> None:
        """Take the bot that loaded objects work with; PTB gives it when an application is built.

        Raises:
            ConfigurationError: An application with another bot uses this persistence: it has loaded from it,
                and was not shut down.
        """
        if self._in_use and bot is not self.bot:
            raise ConfigurationError(
                "this SessionPersistence is in use by another application: give each one of its own, or shut"
                " the other down first"
            )
        super().set_bot(bot)

    def subscribe(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call back at each conflict in which a change of this process was given up for somebody else's.

        The callback must not wait; what it raises is logged. It is called until the returned function is.
        """
        return self.records.subscribers.add(callback)

    async def get_user_data(self) -> dict[int, Any]:
        """Return every user's data; none where they are read lazily."""
        return await self._load_by_id(self._keys.users, self.context_types.user_data)

    async def get_chat_data(self) -> dict[int, Any]:
        """Return every chat's data; none where they are read lazily."""
        return await self._load_by_id(self._keys.chats, self.context_types.chat_data)

    async def get_bot_data(self) -> Any:
        """Return the bot's data, or what the context types make where there is none."""
        data = await self._load_one(self._keys.bot)
        return self.context_types.bot_data() if data is None else data

    async def get_callback_data(self) -> CallbackData | None:
        """Return the callback data, or None where there are none, or where they are read when needed."""
        if self._per_update:
            return None
        found = await self._load_all(self._keys.keyboards, self._keys.keyboards.start)
        keyboards: list[tuple[str, float, dict[str, Any]]] = [
            (str(parts[0]), access_time, buttons) for parts, (access_time, buttons) in found.items()
        ]
        keyboards.sort(key=lambda keyboard: keyboard[1])
        self._keyboards = {uuid: access_time for uuid, access_time, _ in keyboards}
        queries: dict[str, str] = await self._load_one(self._keys.queries) or {}
        return (keyboards, queries) if keyboards or queries else None

    async def get_conversations(self, name: str) -> MutableMapping[ConversationKey, object]:
        """Return the states of the conversations of one handler."""
        if self._per_update and self._loading == "lazy":
            return {}
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
        """Keep the callback data, each keyboard's in a record of its own."""
        keyboards, queries = data
        known, self._keyboards = self._keyboards, {uuid: used for uuid, used, _ in keyboards}
        values: dict[str, object | None] = {self._keys.queries: queries}
        for uuid in known.keys() - self._keyboards.keys():
            values[self._keys.keyboards.key(uuid)] = None
        for uuid, access_time, buttons in keyboards:
            if known.get(uuid) != access_time:
                values[self._keys.keyboards.key(uuid)] = (access_time, buttons)
        error: CodecError | None = None
        for key, value in values.items():
            try:
                self._ledger.hold(key, value)
            except CodecError as refused:  # one must not cost the others
                error = refused
        await self._writer.send()
        if error is not None:
            raise error

    async def drop_user_data(self, user_id: int) -> None:
        """Forget a user's data."""
        await self._drop(self._keys.users.key(user_id))

    async def drop_chat_data(self, chat_id: int) -> None:
        """Forget a chat's data."""
        await self._drop(self._keys.chats.key(chat_id))

    async def refresh_user_data(self, user_id: int, user_data: Any) -> None:
        """Read a user's data where they were not yet, and keep an eye on them."""
        await self._refresh(self._keys.users.key(user_id), user_data)

    async def refresh_chat_data(self, chat_id: int, chat_data: Any) -> None:
        """Read a chat's data where they were not yet, and keep an eye on them."""
        await self._refresh(self._keys.chats.key(chat_id), chat_data)

    async def refresh_bot_data(self, bot_data: Any) -> None:
        """Keep an eye on the bot's data; this process's copy is the newest."""
        self._touch(self._keys.bot, bot_data)

    async def ping(self) -> float:
        """Ask the store for a sign of life and return the seconds it took.

        Raises:
            StoreUnavailable: It gives none.
        """
        return await self.records.store().ping()

    async def commit(self, *, user_id: int | None = None, chat_id: int | None = None) -> None:
        """Have stored what was handed over, and make sure of what concerns a user or a chat.

        Args:
            user_id: The user, or None.
            chat_id: The chat, or None.

        Raises:
            SessionKitError: Data of this user or chat, of one of their conversations, or of the bot are not
                stored. What the store did not acknowledge is kept and tried again.
        """
        await self._writer.send()
        self.records.check((), user_id=user_id, chat_id=chat_id)

    async def flush(self) -> None:
        """Have everything stored, trying for ten seconds; close the store if it was opened here.

        PTB calls this at shutdown.

        Raises:
            SessionKitError: The store did not acknowledge everything: what is left is lost with the process.
        """
        self._in_use = False
        if self._behind is not None:
            self._behind.cancel()
            await asyncio.wait([self._behind])
        self._store_touched()
        await self.records.flush()

    async def _write(self, key: str, value: object | None) -> None:
        self._ledger.hold(key, value)
        await self._writer.settle(key)

    async def _drop(self, key: str) -> None:
        self._touched.pop(key, None)
        await self._write(key, None)

    async def _refresh(self, key: str, live: Any) -> None:
        if self._per_update:
            return
        if self._loading == "lazy" and self._ledger.cell(key).version is None:
            await self._ledger.load([DictSlot(key, live)])
        self._touch(key, live)

    def _touch(self, key: str, live: Any) -> None:
        """Look at this value some more times by ourselves: one that PTB cannot copy ends its own looking."""
        if self._per_update:
            return
        self._touched[key] = (live, _LOOKS)
        if self._behind is None:
            self._behind = asyncio.create_task(self._store_behind())

    async def _store_behind(self) -> None:
        try:
            while self._touched:
                await asyncio.sleep(self.update_interval)
                self._store_touched()
                with suppress(SessionKitError):
                    await self._writer.send()
        finally:
            self._behind = None

    def _store_touched(self) -> None:
        touched, self._touched = self._touched, {}
        for key, (live, looks) in touched.items():
            if looks > 1:
                self._touched[key] = (live, looks - 1)
            refused_before = key in self._ledger.refused
            try:
                self._ledger.hold(key, live)
            except Exception as error:  # one value, whatever is wrong with it, must not cost the others
                if not refused_before:
                    logger.error("%s is not saved: %s", key, error, extra={"key": key})

    async def _load_by_id(self, space: KeySpace, kind: type[Any]) -> dict[int, Any]:
        if self._loading == "lazy":
            if not self._per_update and not issubclass(kind, dict):
                raise ConfigurationError(
                    f"loading='lazy' fills dicts in place, and {kind.__name__} is none:"
                    " use loading='eager', or a SessionApplication"
                )
            self._in_use = True
            return {}
        loaded = await self._load_all(space, space.start)
        found: dict[int, Any] = {}
        for parts, value in loaded.items():
            match parts:
                case (int(number),):
                    found[number] = value
        return found

    async def _load_all(self, space: KeySpace, start: str) -> dict[tuple[KeyPart, ...], Any]:
        found: dict[tuple[KeyPart, ...], Any] = {}
        with self._starting():
            async for key, record in read_all(self.records.store(), start, self._ledger.keep_unreadable):
                try:
                    parts = space.parts(key)
                except InvalidKey as error:
                    logger.warning("key of somebody else passed over: %s", error, extra={"key": key})
                    continue
                with suppress(CodecError):
                    found[parts] = await self._ledger.loaded(key, record)
        return found

    async def _load_one(self, key: str) -> Any:
        with self._starting():
            try:
                record = await self.records.store().get(key)
            except CorruptRecord as error:
                self._ledger.keep_unreadable(key, error)
                return None
            if record is not None:
                with suppress(CodecError):
                    return await self._ledger.loaded(key, record)
        return None

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """Take note that an application uses this, unless what it loads first fails: then it never starts."""
        self._in_use = True
        try:
            yield
        except BaseException:
            self._in_use = False
            raise
