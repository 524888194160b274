"""The store behind a persistence, and what is known of the records in it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from sessionkit.arguments import check_kind, check_number
from sessionkit.codec import Codec
from sessionkit.errors import ConfigurationError, CorruptRecord, SessionKitError
from sessionkit.ptb.data_keys import DataKeys
from sessionkit.ptb.flights import Flights
from sessionkit.ptb.ledger import Ledger
from sessionkit.ptb.merging import Merging
from sessionkit.ptb.replayed import merge_records
from sessionkit.ptb.telegram_objects import register_telegram_objects
from sessionkit.ptb.values import Values
from sessionkit.ptb.writes import Writer
from sessionkit.quarantine import Quarantine, check_on_corrupt
from sessionkit.registry import open_store
from sessionkit.resilience.states import Subscribers
from sessionkit.settings import Settings
from sessionkit.store import MAX_EXPIRY_SECONDS, SessionStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from telegram import Bot

    from sessionkit.errors import CodecError
    from sessionkit.quarantine import OnCorrupt
    from sessionkit.store import Record

logger = logging.getLogger("sessionkit.ptb")

PATIENCE: Final = 10.0
"""Seconds for which what is left is tried again at the end."""
HANDLED_TTL: Final = 2 * 24 * 3600.0
"""Seconds for which it is known that an update was processed: Telegram sends none again after 24 hours."""


class Records:
    """PTB's records in a store.

    Args:
        store: As for ``SessionPersistence``.
        key_prefix: As for ``SessionPersistence``.
        codec: As for ``SessionPersistence``.
        on_corrupt: As for ``SessionPersistence``.
        callback_ttl: Seconds for which the data behind a keyboard are kept after its last use.
        bot: Gives the bot that loaded objects of python-telegram-bot work with.
        options: Passed to ``open_store`` where no store is passed in.

    Attributes:
        keys: Which record holds what.
        values: Turns values into bytes and back.
        ledger: What is known of the records.
        flights: Keeps writes of the same record apart.
        writer: Writes what waits in the ledger.
        subscribers: Who is told of conflicts.

    Raises:
        ConfigurationError: The URL, an argument or an option is wrong.
        InvalidKey: The prefix cannot be part of a key.
    """

    def __init__(
        self,
        store: SessionStore | str | None,
        key_prefix: str | None,
        codec: Codec | None,
        on_corrupt: OnCorrupt,
        callback_ttl: float | None,
        bot: Callable[[], Bot | None],
        options: Mapping[str, Any],
    ) -> None:
        if isinstance(store, SessionStore) and options:
            raise ConfigurationError(
                f"SessionPersistence does not know {', '.join(sorted(options))};"
                " the options of a store go where it is opened"
            )
        check_on_corrupt(on_corrupt)
        check_kind("codec", codec, Codec)
        if callback_ttl is not None:
            check_number("callback_ttl", callback_ttl, at_most=MAX_EXPIRY_SECONDS)
        if codec is None:
            own = Settings.load().codec()
            register_telegram_objects(own)
            codec = own
        self._codec = codec
        self._prefix = Settings.load().prefix if key_prefix is None else key_prefix
        self._quarantines = on_corrupt == "quarantine"
        self.keys = DataKeys(self._prefix)
        self.subscribers = Subscribers()
        self._given = store
        # What is journaled in an outage is merged as everything else is.
        self._options = {"on_conflict": merge_records(self._codec, key_prefix=self._prefix), **options}
        self._store: SessionStore | None = self._open()
        self.values = Values(self._codec, self.keys, lambda: self.store().capabilities.max_value_bytes, bot)
        self.ledger = Ledger(
            self.store, self.values, Merging(self.values, self.subscribers.tell), self._move_aside
        )
        self._callback_ttl = callback_ttl
        self.flights = Flights(self.ledger)
        self.writer = Writer(self.store, self.ledger, self.flights, self.expiry)

    def store(self) -> SessionStore:
        """Return the store, which is opened again where it was closed."""
        if self._store is None:
            self._store = self._open()
        return self._store

    def expiry(self, key: str) -> float | None:
        """Return the seconds after which a record of this key expires, or None."""
        if key.startswith(self.keys.keyboards.start):
            return self._callback_ttl
        return HANDLED_TTL if key.startswith(self.keys.handled.start) else None

    def check(self, keys: Iterable[str], *, user_id: int | None, chat_id: int | None) -> None:
        """Make sure of what concerns one update.

        Args:
            keys: What was held for it.
            user_id: The user of the update, or None if it had none.
            chat_id: The chat of the update, or None if it had none.

        Raises:
            SessionKitError: Data under one of the keys, of this user or chat, of one of their conversations,
                or of the bot are not stored.
        """
        failures = self.failures()
        if failures:
            own = set(keys)
            for key, error in failures.items():
                if key in own or self.keys.concerns(key, user_id, chat_id):
                    raise error

    def failures(self) -> dict[str, SessionKitError]:
        """Return why each key's newest value is not stored, where an attempt has failed."""
        return {**self.writer.failures(), **self.ledger.refused}

    async def flush(self) -> None:
        """Have everything stored, trying for ten seconds; close the store if it was opened here.

        Raises:
            SessionKitError: The store did not acknowledge everything: what is left is lost with the process.
        """
        try:
            await self.writer.flush(patience=PATIENCE)
        finally:
            await self.writer.aclose()
            store, self._store = self._store, None
            if store is not None and store is not self._given:
                await store.aclose()

    async def _move_aside(self, key: str, record: Record, error: CodecError) -> bool:
        if not self._quarantines or not isinstance(error, CorruptRecord) or record.stale:
            return False
        try:
            return await Quarantine(self.store(), self._codec, self._prefix).take(key, record, error)
        except SessionKitError as failure:
            logger.error("damaged record %s was not moved: %s", key, failure, extra={"key": key})
            return False

    def _open(self) -> SessionStore:
        if isinstance(self._given, SessionStore):
            return self._given
        return open_store(self._given, **self._options)
