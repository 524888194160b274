"""What this instance knows by itself: its journal, and its copies of what the primary last held."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sessionkit.errors import Applied, BatchRefused, StoreUnavailable, VersionConflict
from sessionkit.resilience.entries import Entry, Kind
from sessionkit.store import ABSENT, RING_SIZE, Absent, Put, Receipt, Record, Version, Where, new_version

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sessionkit.errors import SessionKitError
    from sessionkit.resilience.copies import Copy, LastKnown
    from sessionkit.resilience.entries import Base
    from sessionkit.resilience.journal import Journal
    from sessionkit.store import Clock, Delete


class LocalView:
    """Answers reads and takes writes without the primary.

    Args:
        journal: Takes the writes.
        copies: What the primary last held, and what of ours may arrive there.
        clock: Gives the time in seconds since the Unix epoch.
        keep_bases: Whether entries keep the value they were based on, for a merge to come.

    Attributes:
        journal: As given.
        flights: What of ours may arrive there.
    """

    def __init__(self, journal: Journal, copies: LastKnown, clock: Clock, *, keep_bases: bool) -> None:
        self.journal = journal
        self._copies = copies
        self._clock = clock
        self._keep_bases = keep_bases
        self.flights = copies.flights

    def own(self, key: str) -> Collection[Version | Absent]:
        """Return what our own writes of a key may have left on the primary that what waits replaces."""
        waiting = self.journal.get(key)
        if waiting is None:
            return ()
        return waiting.also_sent(self.flights.of(key, waiting.condition)).sent

    def arrived(self, key: str, makes: Version | Absent, if_version: Version | Absent | None = None) -> None:
        """Take note that the primary has a write: what was journaled for the key meanwhile replaces it.

        Raises:
            VersionConflict: The write was on a condition that does not hold any more.
        """
        waiting = self.journal.get(key)
        if waiting is None:
            return
        if waiting.replaces(if_version):
            self.journal.note(waiting.also_sent([makes], sure=if_version is not None))
        if if_version is not None and waiting.kind is not Kind.TOUCH and waiting.makes != makes:
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

    async def put(self, put: Put, *, sent: bool = False) -> Receipt:
        """Journal a put; one that is known to be done, or to wait, is acknowledged again.

        Args:
            put: The put, checked, with its write id.
            sent: Whether it may have reached the primary.

        Raises:
            VersionConflict: It is known here that the record is at another version.
            JournalFull: There is no room.
            StoreError: The journal's file failed.
        """
        assert put.write_id is not None
        if self._knows(put.key, put.write_id):
            return await self._acknowledge_again([put.key], put.write_id)
        await self.journal.add(self._after_put(put, sent=sent))
        return Receipt(put.write_id, Where.JOURNALED)

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
        await self.journal.add(self._after_delete(key, if_version, sent=sent))
        return known is not ABSENT

    async def write_all(
        self, writes: Sequence[Put | Delete], write_id: Version, *, sent: bool = False
    ) -> Receipt:
        """Journal writes, all or none.

        Args:
            writes: Puts and deletions, checked, each of another key.
            write_id: What every put makes.
            sent: Whether they may have reached the primary.

        Raises:
            BatchRefused: It is known here that records are at other versions.
            JournalFull: There is no room for all.
            StoreError: As ``put``.
        """
        if any(isinstance(write, Put) and self._knows(write.key, write_id) for write in writes):
            return await self._acknowledge_again([write.key for write in writes], write_id)
        # What was journaled since these writes began comes after all of them.
        late = any(
            isinstance(write, Put) and write_id in self.flights.of(write.key, None) for write in writes
        )
        entries: list[Entry] = []
        refusals: dict[str, SessionKitError] = {}
        for write in writes:
            try:
                if isinstance(write, Put):
                    entries.append(self._after_put(write._replace(write_id=write_id), sent=sent))
                else:
                    entries.append(self._after_delete(*write, sent=sent, late=late))
            except VersionConflict as conflict:
                refusals[write.key] = conflict
        if refusals:
            raise BatchRefused(refusals)
        await self.journal.add(*entries)
        return Receipt(write_id, Where.JOURNALED)

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
        renewed = replace(entry, deadline=self._deadline(expires_in), expires_in=expires_in)
        await self.journal.add(self._based(renewed, if_version))
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

    def _knows(self, key: str, write_id: Version) -> bool:
        """Whether a put is known to be done, or what waits stands for it."""
        waiting = self.journal.get(key)
        return (waiting is not None and write_id in waiting.recent) or self.version(key) == write_id

    async def _acknowledge_again(self, keys: Iterable[str], write_id: Version) -> Receipt:
        """Acknowledge what is known to be done, or to be stood for by what waits for these keys.

        Raises:
            JournalFull: As ``put``.
            StoreError: As ``put``: whether the journal's file has what waits is not known here.
        """
        waiting = [entry for key in keys if (entry := self.journal.get(key)) is not None]
        await self.journal.add(*waiting)
        return Receipt(write_id, Where.JOURNALED if waiting else Where.PRIMARY)

    def _after_put(self, put: Put, *, sent: bool) -> Entry:
        """Return what waits for a key once a put is journaled.

        Raises:
            VersionConflict: See ``put``.
        """
        key, value, expires_in, if_version, write_id = put
        assert write_id is not None
        waiting = self.journal.get(key)
        if waiting is not None and sent and waiting.replaces(if_version):
            waiting = waiting.also_sent([write_id])  # it replaces this one, also if that is refused
            self.journal.note(waiting)
        if waiting is not None and if_version is None and self._overtaken(waiting, write_id):
            return replace(waiting, recent=(*waiting.recent[: RING_SIZE - 1], write_id))
        self._check(key, if_version)
        entry = Entry(
            key,
            0,
            write_id,
            Kind.PUT,
            value,
            deadline=self._deadline(expires_in),
            expires_in=expires_in,
            sent=(write_id,) if sent else (),
            recent=(write_id, *(() if waiting is None else waiting.recent[: RING_SIZE - 1])),
        )
        return self._based(entry, if_version)

    def _after_delete(self, key: str, if_version: Version | None, *, sent: bool, late: bool = False) -> Entry:
        """Return what waits for a key once a deletion is journaled.

        Args:
            key: The record's key.
            if_version: See ``delete``.
            sent: See ``delete``.
            late: Whether what was journaled comes after it, unless it is on a condition.

        Raises:
            VersionConflict: See ``delete``.
        """
        waiting = self.journal.get(key)
        if waiting is not None and waiting.kind is not Kind.TOUCH and late and if_version is None:
            return waiting.also_sent([ABSENT]) if sent else waiting
        # What has ended here only, by a renewal that waits, is there all the same.
        if waiting is not None and waiting.kind is Kind.DELETE and not sent:
            return waiting  # again, as in ``_acknowledge_again``
        if self.version(key) is not ABSENT:
            self._check(key, if_version)
        entry = Entry(key, 0, new_version(), Kind.DELETE, sent=(ABSENT,) if sent else ())
        return self._based(entry, if_version)

    def _overtaken(self, waiting: Entry, write_id: Version) -> bool:
        """Whether a put was on its way already when a write of its key was journaled, which replaces it.

        In its place it would be lost together with it: the primary may have the put, and others after it,
        and knows its id as done.
        """
        return waiting.kind is not Kind.TOUCH and write_id in self.flights.of(waiting.key, None)

    def _check(self, key: str, if_version: Version | Absent | None) -> None:
        known = self.version(key)
        if if_version is not None and known is not None and if_version != known:
            raise VersionConflict(key, current=known)

    def _based(self, entry: Entry, if_version: Version | Absent | None) -> Entry:
        """Return a new entry, based on what the first write of its key was based on."""
        key = entry.key
        waiting = self.journal.get(key)
        if waiting is None:
            base = self.version(key) if if_version is None else if_version
            copied = self._copied(key) if self._keep_bases else None
            base_value = copied.value if copied is not None and copied.version == base else None
            conditional = if_version is not None
            earlier: tuple[Version | Absent, ...] = ()
        elif waiting.kind is Kind.DELETE:
            # A new record, whoever has deleted the one before.
            base, base_value, conditional = waiting.base, waiting.base_value, False
            earlier = (*waiting.sent, ABSENT)
        else:
            base, base_value, conditional = waiting.base, waiting.base_value, waiting.conditional
            earlier = waiting.sent
            if waiting.kind is Kind.TOUCH and entry.kind is not Kind.TOUCH:
                conditional = if_version is not None  # the renewal has changed nothing
        own = self.flights.of(key, base if conditional else None)
        others = (makes for makes in own if makes != entry.write_id)
        return replace(
            entry,
            seq=self.journal.next_seq(),
            base=base,
            base_value=base_value,
            conditional=conditional,
            sent=(),
        ).also_sent((*earlier, *others, *entry.sent))

    def _copied(self, key: str, *, renewed: bool = False) -> Copy | None:
        copied = self._copies.get(key)
        if copied is None or (not renewed and copied.until is not None and copied.until <= self._clock()):
            return None
        return copied

    def _deadline(self, expires_in: float | None) -> float | None:
        return None if expires_in is None else self._clock() + expires_in
