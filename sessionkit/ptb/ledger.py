"""What this process knows of PTB's records, and how it takes in what others wrote."""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from sessionkit.errors import CodecError, CorruptRecord, StoreError
from sessionkit.ptb.cells import Cell
from sessionkit.store import ABSENT, read_many

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from sessionkit.ptb.cells import Slot
    from sessionkit.ptb.merging import Merging
    from sessionkit.ptb.values import Opened, Values
    from sessionkit.store import Record, SessionStore, Version

logger = logging.getLogger("sessionkit.ptb")


class Ledger:
    """The records this process has read or is about to write, the least recently used first.

    Whatever PTB holds in memory is what was last seen of the record, changed by this process and not stored
    yet. What others wrote meanwhile is merged into it.

    Args:
        store: Gives the store.
        values: Turns values into bytes and back.
        merging: Brings two changes of a record together.
        move_aside: Moves a damaged record out of the way if it may, and returns whether it did.

    Attributes:
        merging: As given.
        waiting: The keys for which something waits to be written.
        failed: The keys of what an attempt has failed for: few to look at where much waits.
        refused: Why the newest value of a key cannot be stored.
        unreadable: Why a record cannot be read; it is kept then, until it is dropped.
    """

    def __init__(
        self,
        store: Callable[[], SessionStore],
        values: Values,
        merging: Merging,
        move_aside: Callable[[str, Record, CodecError], Awaitable[bool]],
    ) -> None:
        self._store = store
        self._values = values
        self.merging = merging
        self._move_aside = move_aside
        self._cells: OrderedDict[str, Cell] = OrderedDict()
        self.waiting: set[str] = set()
        self.failed: set[str] = set()
        self.refused: dict[str, CodecError] = {}
        self.unreadable: dict[str, CodecError] = {}

    def cell(self, key: str) -> Cell:
        """Return what is known of a record."""
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell()
        return cell

    async def loaded(self, key: str, record: Record) -> Any:
        """Take note of a record that was read, and return its value.

        Raises:
            CodecError: It cannot be read, and is kept or was moved aside.
        """
        value, mark = await self._open(key, record)
        self.cell(key).saw(record.version, record.value, mark)
        return value

    def keep_unreadable(self, key: str, error: CodecError) -> None:
        """Take note of a record that cannot be read: it must not be overwritten."""
        self.unreadable[key] = error
        logger.error("record %s is not readable and is kept: %s", key, error, extra={"key": key})

    def hold(self, key: str, value: object | None) -> None:
        """Take a value to be stored, as it is now, or None for a record to be deleted.

        Raises:
            CodecError: It cannot be stored, and the record keeps its last good value; or what is there can be
                read elsewhere, and is not for us to delete.
        """
        cell = self.cell(key)
        self.refused.pop(key, None)
        if value is None:
            if not cell.is_held(None):
                self._check_damaged(key)
                self.unreadable.pop(key, None)
                cell.hold(None, None)
        elif isinstance(value, dict) and not value and (key in self.unreadable or not cell.has_value):
            return  # PTB hands over an empty dict for every user it sees, and for the bot
        else:
            try:
                if key in self.unreadable:
                    error = self.unreadable[key]
                    raise type(error)(f"{key!r} is not overwritten, as it was not readable: {error}")
                packed = self._values.pack(key, value)
                if not cell.is_held(packed.mark):
                    cell.hold(self._values.seal(key, packed.plain), packed.mark)
            except CodecError as error:
                self.refused[key] = error
                raise
        if cell.waiting:
            self.waiting.add(key)

    def _check_damaged(self, key: str) -> None:
        error = self.unreadable.get(key)
        if error is not None and not isinstance(error, CorruptRecord):
            kept = type(error)(f"{key!r} is not deleted, as it can be read elsewhere: {error}")
            self.refused[key] = kept
            raise kept

    async def look_at(self, key: str) -> Version | None:
        """Return the version of a record that is to be deleted, or None where there is none.

        Raises:
            CodecError: It can be read elsewhere, and is not for us to delete.
            StoreError: The store cannot be asked.
        """
        record = await self._store().get(key)
        if record is None:
            return None
        try:
            self._values.open(key, record.value)
        except CorruptRecord:
            return record.version  # damaged, it is dropped whatever it was
        except CodecError as error:
            self.keep_unreadable(key, error)
            self._check_damaged(key)
        return record.version

    async def load(self, slots: Sequence[Slot]) -> None:
        """Read the records of these slots in one round trip, and bring PTB's memory up to date.

        While the store cannot be asked, what this process has read before is as good as it gets.

        Raises:
            StoreError: The store cannot be asked, and one of the records was never read.
        """
        noted: dict[str, int] = {}
        for slot in slots:
            cell = self.cell(slot.key)
            cell.slot = slot
            noted[slot.key] = cell.turns
            self._cells.move_to_end(slot.key)
        records = await self._read(list(noted))
        for key, turns in noted.items():
            cell = self.cell(key)
            if key not in records:
                continue
            record = records[key]
            version = ABSENT if record is None else record.version
            try:
                theirs = None
                if record is not None and version != cell.version:
                    theirs = await self._open(key, record)
            except CodecError:
                continue
            # What was written meanwhile is newer than this reply.
            if version != cell.version and not cell.waiting and cell.turns == turns:
                self._refresh(key, cell, record, theirs)

    async def resolve(self, keys: Sequence[str]) -> None:
        """Merge what waits to be written for these keys with what others have written.

        Raises:
            StoreError: The store cannot be asked.
        """
        records = await read_many(self._store(), keys, self.keep_unreadable)
        for key in keys:
            if key in self.unreadable:
                self.drop_waiting(key)
                self.refused[key] = self.unreadable[key]
                continue
            record = records.get(key)
            try:
                theirs = None if record is None else await self._open(key, record)
                self._resolve(key, self.cell(key), record, theirs)
            except CodecError as error:
                self.drop_waiting(key)
                self.refused[key] = error

    def drop_waiting(self, key: str) -> None:
        """Give up what waits to be written for a key."""
        self.cell(key).waiting.clear()
        self.waiting.discard(key)

    async def drop_damaged(self, key: str) -> None:
        """Delete a record that is damaged and of no use to anybody else.

        Raises:
            StoreError: The store could not be asked.
        """
        if isinstance(self.unreadable.get(key), CorruptRecord):
            await self._store().delete(key)
            logger.warning("record %s is damaged, and is begun anew", key, extra={"key": key})
            del self.unreadable[key]
            self.cell(key).saw(ABSENT, None, None)

    def revert(self, key: str) -> None:
        """Give up what waits for a key, and have PTB hold what was last seen of the record.

        What PTB's value has become since it was held is a task's, and is held by itself.
        """
        cell = self.cell(key)
        newest, seen = cell.newest, self._base(key, cell)
        self.drop_waiting(key)
        self.refused.pop(key, None)
        if cell.slot is not None:
            live = cell.slot.read()
            held = (
                None if newest is None or newest.value is None else self._values.open(key, newest.value).value
            )
            if isinstance(held, dict) and isinstance(live, dict):
                merged = self.merging.merge(key, held, live, seen or {}, quiet=True)
                seen = merged if merged or seen is not None else None
                with suppress(CodecError):  # ``refused`` tells
                    self.hold(key, seen)
            cell.slot.write(seen)

    def forget(self, key: str) -> None:
        """Forget a record, and PTB's value of it, unless something of it is not stored or is in use."""
        cell = self._cells.get(key)
        if cell is not None and not (cell.waiting or cell.pins):
            if cell.slot is not None:
                cell.slot.write(None)
            del self._cells[key]
            self.refused.pop(key, None)

    def evict(self, most: int) -> None:
        """Forget the least recently used records above a number, but nothing that is not stored."""
        for key in list(islice(self._cells, max(0, len(self._cells) - most))):
            cell = self._cells[key]
            lasting = key in self.unreadable or key in self.refused
            if not lasting and (cell.slot is None or self._unchanged(key, cell, cell.slot.read())):
                self.forget(key)
            if key in self._cells:
                self._cells.move_to_end(key)

    async def _read(self, keys: list[str]) -> dict[str, Record | None]:
        damaged: set[str] = set()

        def note(key: str, error: CorruptRecord) -> None:
            damaged.add(key)
            self.keep_unreadable(key, error)

        asked = keys
        try:
            found = await read_many(self._store(), asked, note)
        except StoreError as error:
            asked = [key for key in keys if self.cell(key).version is None]
            if not error.temporary:
                raise
            found = await read_many(self._store(), asked, note) if asked else {}
        return {key: found.get(key) for key in asked if key not in damaged}

    async def _open(self, key: str, record: Record) -> Opened:
        self.unreadable.pop(key, None)
        try:
            return self._values.open(key, record.value)
        except CodecError as error:
            if await self._move_aside(key, record, error):
                self.cell(key).saw(ABSENT, None, None)
            else:
                self.keep_unreadable(key, error)
            raise

    def _refresh(self, key: str, cell: Cell, record: Record | None, theirs: Opened | None) -> None:
        assert cell.slot is not None
        value = None if theirs is None else theirs.value
        live = cell.slot.read()
        if not self._unchanged(key, cell, live):
            value = self.merging.merge(
                key, self._base(key, cell), live, value, known=cell.version is not None
            )
        cell.slot.write(value)
        cell.apart = None
        _saw(cell, record, theirs)

    def _resolve(self, key: str, cell: Cell, record: Record | None, theirs: Opened | None) -> None:
        write, slot, known = cell.newest, cell.slot, cell.version is not None
        assert write is not None
        before = self._base(key, cell)
        mine = None if write.value is None else self._values.open(key, write.value).value
        value = None if theirs is None else theirs.value
        merged = self.merging.merge(key, before, mine, value, known=known)
        if slot is not None:
            slot.write(self.merging.merge(key, before, slot.read(), value, known=known, quiet=True))
        cell.apart = (write.value, write.mark) if slot is None else None
        _saw(cell, record, theirs)
        self.drop_waiting(key)
        self.hold(key, merged)
        if cell.apart is not None and not cell.waiting:
            cell.version = None
            cell.stored, cell.mark = cell.apart

    def _base(self, key: str, cell: Cell) -> Any | None:
        return None if cell.stored is None else self._values.open(key, cell.stored).value

    def _unchanged(self, key: str, cell: Cell, live: Any | None) -> bool:
        """Whether PTB holds what was last seen of the record."""
        if live is None or (isinstance(live, dict) and not live and cell.stored is None):
            return live is not None or cell.stored is None
        try:
            return self._values.pack(key, live).mark == cell.mark
        except CodecError:
            return False

    def concerned(self, keys: Iterable[str]) -> list[Cell]:
        """Return what is known of these records."""
        return [self.cell(key) for key in keys]


def _saw(cell: Cell, record: Record | None, opened: Opened | None) -> None:
    if record is None or opened is None:
        cell.saw(ABSENT, None, None)
    else:
        cell.saw(record.version, record.value, opened.mark)
