"""Quarantine: damaged records, moved aside so that nobody stumbles over them and nothing is lost.

An entry is an ordinary record of the namespace ``quarantine``; its key holds the damaged record's key and
version.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from sessionkit.errors import (
    CodecError,
    ConfigurationError,
    CorruptRecord,
    InvalidKey,
    RecordTooLarge,
    VersionConflict,
)
from sessionkit.keys import KeySpace
from sessionkit.store import ABSENT, Where, read_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sessionkit.codec import Codec
    from sessionkit.errors import SessionKitError
    from sessionkit.store import Clock, Record, SessionStore

logger = logging.getLogger("sessionkit.quarantine")

OnCorrupt: TypeAlias = Literal["raise", "quarantine"]
"""What becomes of a damaged record that is met: it is kept where it is and raises, or it is moved aside."""

NAMESPACE: Final = "quarantine"
"""The kind part of the entries' keys."""

_PIECE: Final = 256 * 1024

DEFAULT_KEPT_FOR: Final = 30 * 86_400.0
"""Seconds that an entry is kept: thirty days."""


def check_on_corrupt(on_corrupt: str) -> None:
    """Refuse what is no ``OnCorrupt``.

    Raises:
        ConfigurationError: It is none.
    """
    if on_corrupt not in ("raise", "quarantine"):
        raise ConfigurationError(f"on_corrupt is 'raise' or 'quarantine', not {on_corrupt!r}")


class Entry(NamedTuple):
    """A damaged record in quarantine.

    Attributes:
        key: The entry's own key.
        record_key: Where the record was.
        reason: Why it was moved.
        moved: When, in seconds since the Unix epoch.
        value: The record's bytes.
    """

    key: str
    record_key: str
    reason: str
    moved: float
    value: bytes

    def __repr__(self) -> str:
        return f"<Entry {self.key!r}: {self.reason}>"


class Quarantine:
    """The damaged records of a prefix.

    Args:
        store: Where they are.
        codec: What turns entries into bytes.
        prefix: What every key starts with.
        kept_for: Seconds after which an entry is gone.
        clock: Gives the time in seconds since the Unix epoch.
    """

    def __init__(
        self,
        store: SessionStore,
        codec: Codec,
        prefix: str,
        *,
        kept_for: float = DEFAULT_KEPT_FOR,
        clock: Clock = time.time,
    ) -> None:
        self._store = store
        self._codec = codec
        self._keys = KeySpace(NAMESPACE, prefix)
        self._kept_for = kept_for
        self._clock = clock

    async def take(self, key: str, record: Record, error: CorruptRecord) -> bool:
        """Move a damaged record here, and return whether its key is free now.

        It is free unless somebody wrote another record there meanwhile, which is left alone.

        Args:
            key: The record's key.
            record: The record as it was read.
            error: What is wrong with it.

        Raises:
            CorruptRecord: The error itself, as the store cannot be reached now, or there is no room beside
                the record for what an entry says; it is left where it is.
            StoreError: It is not certain that it was moved. It is here, or there, or both.
        """
        entry = self._keys.key(key, record.version.hex())
        content = Entry(entry, key, str(error), self._clock(), record.value)
        try:
            value = self._codec.wrap(self.pack(content), key=entry)
            receipt = await self._store.put(entry, value, expires_in=self._kept_for)
        except RecordTooLarge as large:
            error.add_note(f"it was not moved to quarantine: {large}")
            raise error from None
        if receipt.where is not Where.PRIMARY:
            raise error  # a journal keeps no order between keys: the record might go before its copy is there
        try:
            await self._store.delete(key, if_version=record.version)
        except VersionConflict:
            return False
        logger.error(
            "record %s is damaged and was moved to %s: %s",
            key,
            entry,
            error,
            extra={"key": key, "entry": entry, "reason": str(error)},
        )
        return True

    async def entries(self, unreadable: Callable[[str, SessionKitError], object]) -> AsyncIterator[Entry]:
        """Yield every entry.

        Args:
            unreadable: Told of each key whose entry cannot be read itself.

        Raises:
            StoreError: The store could not be asked.
        """
        async for key, record in read_all(self._store, self._keys.start, unreadable):
            try:
                entry = self._open(key, record)
            except (CodecError, InvalidKey) as error:
                unreadable(key, error)
                continue
            yield entry

    async def get(self, key: str) -> Entry | None:
        """Return the entry of a key, or None if there is none.

        Raises:
            InvalidKey: It is no key of an entry.
            CodecError: The entry cannot be read itself.
            StoreError: The store could not be asked.
        """
        self._keys.parts(key)
        record = await self._store.get(key)
        return None if record is None else self._open(key, record)

    async def restore(self, entry: Entry, *, expires_in: float | None = None) -> None:
        """Put a record back where it was, as it was, and remove its entry.

        Args:
            entry: The entry.
            expires_in: Seconds that the record is to live: what was left when it was moved is not known.
                None: it does not expire.

        Raises:
            VersionConflict: There is another record by now; nothing is done.
            StoreError: It is not certain that it was done.
        """
        await self._store.put(entry.record_key, entry.value, expires_in=expires_in, if_version=ABSENT)
        await self._store.delete(entry.key)

    async def purge(self, key: str) -> bool:
        """Remove an entry, readable or not, and return whether there was one.

        Raises:
            InvalidKey: It is no key of an entry.
            StoreError: It is not certain that it was removed.
        """
        self._keys.parts(key)
        return await self._store.delete(key)

    async def purge_all(self) -> int:
        """Remove every entry, readable or not, and return how many there were.

        Raises:
            StoreError: It is not certain that all were removed.
        """
        return await self._store.delete_many([key async for key in self._store.scan(self._keys.start)])

    def pack(self, entry: Entry) -> bytes:
        """Return the plain record of an entry.

        Raises:
            RecordTooLarge: There is no room beside the record for what an entry says.
        """
        value = entry.value
        # In pieces, as a codec takes no string as long as a record may be.
        pieces = [value[at : at + _PIECE] for at in range(0, len(value), _PIECE)]
        content = {"key": entry.record_key, "reason": entry.reason, "moved": entry.moved, "value": pieces}
        return self._codec.pack(content, name=NAMESPACE)

    def unpack(self, key: str, plain: bytes) -> Entry:
        """Return the entry of a plain record.

        Raises:
            InvalidKey: It is no key of an entry.
            CodecError: It cannot be read, or holds something else.
        """
        # Not migrated: an entry is ours, and no migration of the bot's is for it.
        match self._codec.unpack(plain):
            case {
                "key": str(record_key),
                "reason": str(reason),
                "moved": float(moved),
                "value": [*pieces],
            } if self._keys.parts(key)[0] == record_key and all(type(piece) is bytes for piece in pieces):
                return Entry(key, record_key, reason, moved, b"".join(pieces))
        raise CorruptRecord(f"{key!r} holds something else than a quarantined record")

    def _open(self, key: str, record: Record) -> Entry:
        return self.unpack(key, self._codec.unwrap(record.value, key=key))
