"""The updates that wait to be processed, and which ones were, as records."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from telegram import Update
from telegram.ext import ExtBot

from sessionkit.errors import (
    BatchRefused,
    CodecError,
    CorruptRecord,
    SessionKitError,
    StoreUnavailable,
    VersionConflict,
)
from sessionkit.ptb.keyboards import raw_update
from sessionkit.ptb.user_updates import (
    HandledSlot,
    PendingSlot,
    PendingUpdate,
    UserUpdates,
    read_entries,
    read_ids,
    write_entries,
)
from sessionkit.ptb.work import whose
from sessionkit.store import ABSENT, AtomicStore, Delete, Put, read_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from sessionkit.keys import KeyPart
    from sessionkit.ptb.private import AnyApplication
    from sessionkit.ptb.records import Records
    from sessionkit.store import Absent, Record, Version

logger = logging.getLogger("sessionkit.ptb")

ASIDE_TTL: Final = 30 * 24 * 3600.0


class SetAside(NamedTuple):
    """An update that is not tried again.

    Attributes:
        key: Its record's key.
        update: It itself.
    """

    key: str
    update: Update


class PendingUpdates:
    """The stored updates, in one record for each user, or chat where an update has no user.

    Args:
        application: Whose updates.
        records: The store and what is known of it.
    """

    def __init__(self, application: AnyApplication, records: Records) -> None:
        self._application = application
        self._records = records
        self._keys = records.keys
        self._memory: dict[str, Any] = {}

    def of(self, update: Update) -> UserUpdates:
        """Return the updates that share this one's user."""
        owner = _owner_of(update)
        return UserUpdates(
            PendingSlot(self._keys.inboxes.key(*owner), self._memory),
            HandledSlot(self._keys.handled.key(*owner), self._memory),
        )

    async def add(self, update: Update) -> None:
        """Store an update; one that is stored already stays as it is.

        Raises:
            UnsupportedType: The objects behind the pressed button cannot be stored.
            SessionKitError: The store did not acknowledge it.
        """
        new = self._entry_of(update)

        def with_new(there: list[PendingUpdate]) -> list[PendingUpdate]:
            return there if any(each.update_id == new.update_id for each in there) else [*there, new]

        await self._change(self._keys.inboxes.key(*_owner_of(update)), with_new)

    async def found(self, update: Update) -> bool:
        """Return whether an update that was stored waits, or is known to be processed.

        While the store is away, what was read together with other records may be old: it is read by itself.

        Raises:
            StoreUnavailable: It waits, and was not there when it was read.
            SessionKitError: The store could not be asked.
        """
        number, (pending, handled) = update.update_id, self.of(update)
        if pending.key in self._records.ledger.unreadable or self._is_known(number, pending, handled):
            return True
        record = await self._records.store().get(pending.key)
        if record is None:
            return False
        entries = read_entries(self._records.values.open(pending.key, record.value).value)
        if all(entry.update_id != number for entry in entries):
            return False
        await self._records.ledger.load([pending])
        if not self._is_known(number, pending, handled):
            raise StoreUnavailable(f"update {number} waits, and was not there when it was read")
        return True

    def _entry_of(self, update: Update) -> PendingUpdate:
        fields, raw = raw_update(update)
        packed = self._records.values.pack(f"update.{update.update_id}", [fields, raw]).plain
        return PendingUpdate(update.update_id, time.time(), 0, packed)

    def _is_known(self, update_id: int, pending: PendingSlot, handled: HandledSlot) -> bool:
        return update_id in handled.ids or any(entry.update_id == update_id for entry in pending.entries)

    async def count_attempt(self, slot: PendingSlot, update_id: int, attempts: int) -> None:
        """Take note that an update is taken up again, for this many times by then, before it is.

        Raises:
            SessionKitError: The store did not acknowledge it; it may have been stored.
        """

        def counted(there: list[PendingUpdate]) -> list[PendingUpdate]:
            return [
                each._replace(attempts=max(each.attempts, attempts)) if each.update_id == update_id else each
                for each in there
            ]

        version = self._records.ledger.cell(slot.key).version
        await self._change(slot.key, counted, ABSENT if version is None else version, slot.entries)
        await self._records.ledger.load([slot])

    async def set_aside(self, entry: PendingUpdate) -> str:
        """Keep an update for thirty days where nobody processes it, and return its key.

        Raises:
            SessionKitError: The store did not acknowledge it.
        """
        key = self._keys.set_aside.key(entry.update_id)
        await self._records.store().put(key, self._seal(key, [entry]), expires_in=ASIDE_TTL)
        return key

    async def read_set_aside(self, update_id: int) -> SetAside | None:
        """Return an update that was set aside, or None where there is none.

        Raises:
            CodecError: It cannot be read.
            StoreError: The store could not be asked.
        """
        key = self._keys.set_aside.key(update_id)
        record = await self._records.store().get(key)
        if record is None:
            return None
        entries = read_entries(self._records.values.open(key, record.value).value)
        update = self.open(entries[0]) if entries else None
        if update is None:
            raise CorruptRecord(f"update {update_id} is not readable, and is kept as {key!r}")
        return SetAside(key, update)

    async def take_back(self, aside: SetAside) -> bool:
        """Have an update wait again, and not count as processed, in one atomic step; its turn must be had.

        Returns:
            Whether it was still set aside.

        Raises:
            SessionKitError: The store did not acknowledge it.
        """
        store = self._records.store()
        assert isinstance(store, AtomicStore)
        new, (pending, handled) = self._entry_of(aside.update), self.of(aside.update)
        while True:
            found = await store.get_many([aside.key, pending.key, handled.key])
            if aside.key not in found:
                return False
            entries = read_entries(self._value_of(pending.key, found))
            waiting = [*(each for each in entries if each.update_id != new.update_id), new]
            writes: list[Put | Delete] = [
                Delete(aside.key),
                self._put_of(pending.key, found, write_entries(waiting)),
            ]
            if handled.key in found:
                done = read_ids(self._value_of(handled.key, found))
                left = [number for number in done if number != new.update_id]
                writes.append(self._put_of(handled.key, found, left))
            try:
                await store.write_all(writes)
            except BatchRefused as refused:
                if not all(isinstance(each, VersionConflict) for each in refused.refusals.values()):
                    raise
            else:
                return True

    def open(self, entry: PendingUpdate) -> Update | None:
        """Return the update of an entry, or None where it cannot be read: it is kept then, and logged."""
        try:
            fields, raw = self._records.values.unpack(entry.packed)
            bot = self._application.bot
            update = Update.de_json(fields, bot)
            if raw and isinstance(bot, ExtBot):
                bot.insert_callback_data(update)
        except Exception as error:  # whatever PTB makes of what another version of it has written
            logger.error("update %d is not readable, and is kept: %s", entry.update_id, type(error).__name__)
            return None
        if update is None or update.update_id != entry.update_id:
            logger.error("what stands for update %d is another one, and is kept", entry.update_id)
            return None
        return update

    async def all(self) -> AsyncIterator[PendingUpdate]:
        """Yield every update that waits, those of one user in their order.

        Raises:
            StoreError: The store could not be asked.
        """
        start = self._keys.inboxes.start
        async for key, record in read_all(self._records.store(), start, _passed_over):
            try:
                entries = read_entries(self._records.values.open(key, record.value).value)
            except CodecError as error:
                _passed_over(key, error)
                continue
            for entry in entries:
                yield entry

    async def _change(
        self,
        key: str,
        change: Callable[[list[PendingUpdate]], list[PendingUpdate]],
        version: Version | Absent = ABSENT,
        there: Sequence[PendingUpdate] = (),
    ) -> None:
        """Change a record by compare-and-set, beginning with what it most likely is."""
        store, values = self._records.store(), self._records.values
        entries = list(there)
        while (changed := change(entries)) != entries:
            try:
                await store.put(key, self._seal(key, changed), if_version=version)
            except VersionConflict:
                record = await store.get(key)
                version = ABSENT if record is None else record.version
                entries = [] if record is None else read_entries(values.open(key, record.value).value)
            else:
                return

    def _value_of(self, key: str, found: Mapping[str, Record]) -> Any:
        return self._records.values.open(key, found[key].value).value if key in found else None

    def _put_of(self, key: str, found: Mapping[str, Record], value: object) -> Put:
        """Return the put of a value on the condition that its record still is what was found."""
        values = self._records.values
        version = found[key].version if key in found else ABSENT
        data = values.seal(key, values.pack(key, value).plain)
        return Put(key, data, self._records.expiry(key), version)

    def _seal(self, key: str, entries: Iterable[PendingUpdate]) -> bytes:
        values = self._records.values
        return values.seal(key, values.pack(key, write_entries(entries)).plain)


def _owner_of(update: Update) -> tuple[KeyPart, ...]:
    """Return whose update it is: its user's, else its chat's, else nobody's but its own."""
    for owner in whose(update):
        if owner is not None:
            return (owner,)
    return ("update", update.update_id)


def _passed_over(key: str, error: SessionKitError) -> None:
    logger.error("updates under %s are not readable, and are kept: %s", key, error, extra={"key": key})
