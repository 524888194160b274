"""What this instance knows by itself: its journal, and its copies of what the primary last held."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sessionkit.errors import Applied, StoreUnavailable, VersionConflict
from sessionkit.resilience.entries import MOST_SENT, Entry, Kind
from sessionkit.store import ABSENT, RING_SIZE, Absent, Put, Receipt, Record, Version, Where, new_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sessionkit.resilience.copies import Copy, LastKnown
    from sessionkit.resilience.entries import Base
    from sessionkit.resilience.journal import Journal
    from sessionkit.store import Clock


_MOST_ASTRAY: Final = 1024
"""Of how many keys writes that went astray are remembered; one that is not is met as somebody else's."""


class LocalView:
    """Answers reads and takes writes without the primary.

    Args:
        journal: Takes the writes.
        copies: What the primary last held.
        clock: Gives the time in seconds since the Unix epoch.
        keep_bases: Whether entries keep the value they were based on, for a merge to come.
    """

    def __init__(self, journal: Journal, copies: LastKnown, clock: Clock, *, keep_bases: bool) -> None:
        self.journal = journal
        self._copies = copies
        self._clock = clock
        self._keep_bases = keep_bases
        self._on_their_way: dict[str, list[Version | Absent]] = {}
        self._astray: OrderedDict[str, tuple[Version, ...]] = OrderedDict()

    @contextmanager
    def on_its_way(self, key: str, makes: Version | Absent) -> Iterator[None]:
        """Take note that a write may reach the primary while the body runs: what waits then replaces it.

        Args:
            key: The record's key.
            makes: What stands there once it has arrived.
        """
        sent = self._on_their_way.setdefault(key, [])
        sent.append(makes)
        self.arrived(key, makes)
        try:
            yield
        except BaseException as error:
            # A deletion is not remembered: that nothing is there may be another's doing as well.
            if not isinstance(makes, Absent) and getattr(error, "applied", Applied.MAYBE) is not Applied.NO:
                self.astray(key, makes)
            raise
        finally:
            sent.remove(makes)
            if not sent:
                del self._on_their_way[key]

    def arrived(self, key: str, makes: Version | Absent) -> None:
        """Take note that a write has reached the primary, or may: what waits for it replaces it."""
        if (waiting := self.journal.get(key)) is not None:
            self.journal.note(waiting.also_sent([makes]))

    def astray(self, key: str, write_id: Version) -> None:
        """Take note that a put may arrive after its caller was told that it failed, or has gone.

        Whatever is journaled for the key from now on takes it for one of ours.
        """
        self._astray[key] = (*self._astray.pop(key, ()), write_id)[-MOST_SENT:]
        if len(self._astray) > _MOST_ASTRAY:
            self._astray.popitem(last=False)
        self.arrived(key, write_id)

    def check_current(self, key: str, if_version: Version | Absent | None, version: Version) -> None:
        """Refuse a write on a condition if another write was acknowledged while it was on its way.

        Raises:
            VersionConflict: One was, and will replace this one, which is on the primary until then.
        """
        waiting = None if if_version is None else self.journal.get(key)
        if waiting is not None and waiting.kind is not Kind.TOUCH and waiting.write_id != version:
            conflict = VersionConflict(key, current=waiting.makes)
            conflict.applied = Applied.MAYBE
            raise conflict

    def get(self, key: str) -> Record | None:
        """Return the record as it is here, marked stale; None where it was deleted or has expired here.

        Raises:
            StoreUnavailable: Nothing is known of it.
        """
        here = self._here(key)
        if here is None:
            raise StoreUnavailable(
                f"{key[:80]!a}: the store cannot be asked, and nothing is known of it here"
            )
        return None if isinstance(here, Absent) else here

    async def put(self, put: Put, sent: Iterable[Version] = ()) -> Receipt:
        """Journal a put.

        Args:
            put: The put, checked.
            sent: Its id, if it may have reached the primary.

        Raises:
            VersionConflict: It is known here that the record is at another version.
            JournalFull: There is no room.
            StoreError: The journal's file failed.
        """
        write_id = new_version() if put.write_id is None else put.write_id
        waiting = self.journal.get(put.key)
        if waiting is not None and write_id in waiting.recent:
            # A write again that this entry stands for; whether the journal's file has it is not known here.
            await self.journal.add(waiting)
            return Receipt(write_id, Where.JOURNALED)
        for earlier in sent:
            self.arrived(put.key, earlier)  # what waits replaces it, also where it is refused here
        self._check(put.key, put.if_version)
        await self._add(
            put.key,
            put.if_version,
            Entry(
                put.key,
                0,
                write_id,
                Kind.PUT,
                put.value,
                deadline=self._deadline(put.expires_in),
                expires_in=put.expires_in,
                sent=tuple(sent),
                recent=(write_id, *(() if waiting is None else waiting.recent[: RING_SIZE - 1])),
            ),
        )
        return Receipt(write_id, Where.JOURNALED)

    async def delete(self, key: str, if_version: Version | None, *, sent: bool = False) -> bool:
        """Journal a deletion, and return whether there is something to delete as far as is known.

        Args:
            key: The record's key.
            if_version: Only at this version.
            sent: Whether it may have reached the primary, so that nothing being there is no surprise.

        Raises:
            VersionConflict: As ``put``.
            JournalFull: As ``put``.
            StoreError: As ``put``.
        """
        known = self.version(key)
        waiting = self.journal.get(key)
        # What has ended here only, by a renewal that waits, is there all the same.
        if waiting is not None and waiting.kind is Kind.DELETE and not sent:
            return False
        if known is not ABSENT:
            self._check(key, if_version)
        entry = Entry(key, 0, new_version(), Kind.DELETE, sent=(ABSENT,) if sent else ())
        await self._add(key, if_version, entry)
        return known is not ABSENT

    async def touch(self, key: str, expires_in: float | None, if_version: Version | None) -> bool:
        """Journal a renewal, and return whether there is something to renew.

        Raises:
            StoreUnavailable: That is not known.
            VersionConflict: As ``put``.
            JournalFull: As ``put``.
            StoreError: As ``put``.
        """
        if self.get(key) is None:
            return False
        self._check(key, if_version)
        waiting = self.journal.get(key)
        entry = waiting or Entry(key, 0, new_version(), Kind.TOUCH)
        await self._add(
            key, if_version, replace(entry, deadline=self._deadline(expires_in), expires_in=expires_in)
        )
        return True

    def version(self, key: str) -> Base:
        """Return the version the record has here, or None where nothing is known of it."""
        here = self._here(key)
        return here.version if isinstance(here, Record) else here

    def _here(self, key: str) -> Record | Absent | None:
        """Return the record as it is here, ``ABSENT`` where there is none, None where nothing is known."""
        entry = self.journal.get(key)
        if entry is not None and (entry.kind is Kind.DELETE or entry.expired(self._clock())):
            return ABSENT
        if entry is not None and entry.kind is Kind.PUT:
            return Record(entry.value, entry.write_id, stale=True)
        # A renewal that waits says how long the copy is good.
        copied = self._copied(key, renewed=entry is not None)
        return None if copied is None else Record(copied.value, copied.version, stale=True)

    def _check(self, key: str, if_version: Version | Absent | None) -> None:
        known = self.version(key)
        if if_version is not None and known is not None and if_version != known:
            raise VersionConflict(key, current=known)

    async def _add(self, key: str, if_version: Version | Absent | None, entry: Entry) -> None:
        """Add the entry, based on what the first write of its key was based on."""
        waiting = self.journal.get(key)
        if waiting is None:
            base = self.version(key) if if_version is None else if_version
            copied = self._copied(key) if self._keep_bases else None
            base_value = copied.value if copied is not None and copied.version == base else None
            entry = replace(entry, base=base, base_value=base_value)
            earlier: Iterable[Version | Absent] = self._astray.get(key, ())
        else:
            entry = replace(entry, base=waiting.base, base_value=waiting.base_value)
            earlier = waiting.sent
        sent = (*earlier, *self._on_their_way.get(key, ()), *entry.sent)
        entry = replace(entry, sent=(), seq=self.journal.next_seq()).also_sent(sent)
        await self.journal.add(entry)

    def _copied(self, key: str, *, renewed: bool = False) -> Copy | None:
        copied = self._copies.get(key)
        if copied is None or (not renewed and copied.until is not None and copied.until <= self._clock()):
            return None
        return copied

    def _deadline(self, expires_in: float | None) -> float | None:
        return None if expires_in is None else self._clock() + expires_in
