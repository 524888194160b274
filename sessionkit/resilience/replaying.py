"""One journaled write to the primary: by compare-and-set, so that doing it again changes nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from sessionkit.errors import StoreError, StoreUnavailable, VersionConflict, described
from sessionkit.resilience.conflicts import KeyedMerge
from sessionkit.resilience.entries import Kind
from sessionkit.store import ABSENT, VERSION_BYTES, Absent, Record, Version

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from sessionkit.resilience.conflicts import Policy
    from sessionkit.resilience.entries import Base, Entry
    from sessionkit.store import Clock, SessionStore

_SHORTEST: Final = 0.001
_ROUNDS: Final = 20
"""How often others may come first before a resolution gives up for now."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a journaled write.

    Attributes:
        ending: ``applied``, by this replay or before; ``superseded``: others wrote since, and there was
            nothing to keep; or who won a conflict: ``primary``, ``local``, ``merged``.
        version: What stands on the primary now, as far as is known: what a later write is based on.
        record: The record that stands there, if it is ours.
        renew: Whether it may have stood there for long, so that its expiry is still to be set.
    """

    ending: Literal["applied", "superseded", "primary", "local", "merged"]
    version: Base
    record: Record | None = None
    renew: bool = False


class Replayer:
    """Writes journaled entries to the primary.

    Args:
        primary: The primary.
        policy: What becomes of conflicts.
        clock: Gives the time in seconds since the Unix epoch.
    """

    def __init__(self, primary: SessionStore, policy: Policy, clock: Clock) -> None:
        self._primary = primary
        self._policy = policy
        self._clock = clock

    async def replay(self, entry: Entry, sent: Callable[[], Collection[Version | Absent]]) -> Outcome:
        """Write one entry, if the primary still is where the write was based.

        Args:
            entry: The entry.
            sent: Returns what our own writes of the key may have left there by the time of the call.

        Raises:
            SessionKitError: The primary failed or refused; the entry may be replayed again.
        """
        if entry.kind is Kind.TOUCH:
            return await self._touch(entry, sent)
        expected = ABSENT if entry.base is None else entry.base
        for _ in range(_ROUNDS):
            if entry.expired(self._clock()):
                return await self._end(entry)
            try:
                return await self._write(entry, expected)
            except VersionConflict as conflict:
                if conflict.current not in sent() or conflict.current == expected:
                    return await self._resolve(entry, conflict.current)
                # An earlier write of ours that was thought lost arrived after all.
                expected = conflict.current
        raise _unsettled(entry)

    async def _write(self, entry: Entry, expected: Version | Absent) -> Outcome:
        if entry.kind is Kind.DELETE:
            await self._delete(entry, expected)
            return Outcome("applied", ABSENT)
        receipt = await self._primary.put(
            entry.key,
            entry.value,
            expires_in=self._left(entry),
            if_version=expected,
            write_id=entry.write_id,
        )
        record = Record(entry.value, receipt.version)
        if entry.write_id not in entry.sent:
            return Outcome("applied", receipt.version, record)
        # If it came through long ago, this changed nothing: others may have written or renewed it since.
        applied = Outcome("applied", receipt.version, record, renew=True)
        try:
            found = await self._primary.get(entry.key)
        except StoreError:
            return applied  # that has been answered: done again, it might undo a deletion
        if found is None or found.version != entry.write_id:
            return Outcome("superseded", ABSENT if found is None else found.version)
        return applied

    async def _delete(self, entry: Entry, expected: Version | Absent) -> None:
        if isinstance(expected, Absent):
            # There is no deletion on the condition that there is nothing; reading tells as much.
            found = await self._primary.get(entry.key)
            if found is not None:
                raise VersionConflict(entry.key, current=found.version)
        else:
            await self._primary.delete(entry.key, if_version=expected)

    async def _touch(self, entry: Entry, sent: Callable[[], Collection[Version | Absent]]) -> Outcome:
        """Renew what the renewal was of; if somebody wrote since, that has an expiry of its own."""
        if entry.expired(self._clock()):
            return Outcome("superseded", entry.base)  # others may have renewed it since, for longer
        assert not isinstance(entry.base, Absent)
        expected = entry.base
        for _ in range(_ROUNDS):
            try:
                there = await self._primary.touch(
                    entry.key, expires_in=self._left(entry), if_version=expected
                )
            except VersionConflict as conflict:
                current = conflict.current
                if isinstance(current, Absent) or current not in sent() or current == expected:
                    return Outcome("superseded", current)
                expected = current
            else:
                if there:
                    return Outcome("applied", expected)
                # It ended, or was deleted, before it could be renewed.
                return Outcome("superseded" if ABSENT in sent() else "primary", ABSENT)
        raise _unsettled(entry)

    async def _end(self, entry: Entry) -> Outcome:
        """Do what time has done: what the write replaced is gone, and the write as well."""
        current: Base = None
        for version in (entry.base, *entry.sent, entry.write_id):
            if version is None or isinstance(version, Absent):
                continue
            if version == entry.write_id:
                # If it arrived it ends by itself, unless somebody has renewed it since.
                found = await self._primary.get(entry.key)
                if found is None or found.version == version:
                    return Outcome("applied", ABSENT if found is None else version)
                current = found.version
                continue
            try:
                await self._primary.delete(entry.key, if_version=version)
            except VersionConflict as conflict:
                current = conflict.current
            else:
                return Outcome("applied", ABSENT)
        # It may be newer than the write, or older: the base may have been taken on trust, or rolled back.
        return Outcome("primary", current)

    async def _resolve(self, entry: Entry, current: Version | Absent) -> Outcome:
        """Settle a conflict by the policy."""
        if self._policy == "primary_wins":
            return Outcome("primary", current)
        for _ in range(_ROUNDS):
            if entry.expired(self._clock()):
                return await self._end(entry)
            try:
                if self._policy == "local_wins":
                    written = await self._write(entry, current)
                    return replace(written, ending="local")
                return await self._merge(entry)
            except VersionConflict as conflict:
                current = conflict.current
        raise _unsettled(entry)

    async def _merge(self, entry: Entry) -> Outcome:
        assert not isinstance(self._policy, str)
        merge = self._policy.for_key(entry.key) if isinstance(self._policy, KeyedMerge) else self._policy
        theirs = await self._primary.get(entry.key)
        # The entry's own id stands for another value, and one drawn anew would let it be merged twice.
        merged_id = Version(hashlib.blake2b(entry.write_id, digest_size=VERSION_BYTES).digest())
        if theirs is not None and theirs.version == merged_id:
            return Outcome("merged", merged_id, theirs)
        their_value = None if theirs is None else theirs.value
        mine = entry.value if entry.kind is Kind.PUT else None
        try:
            merged = merge(entry.base_value, mine, their_value)
        except Exception as error:
            raise StoreError(f"on_conflict raised {described(error)}", temporary=False) from None
        if merged is not None and not isinstance(merged, bytes):
            kind = type(merged).__name__
            raise StoreError(f"on_conflict returned {kind}: it returns bytes, or None", temporary=False)
        if merged == their_value:
            return Outcome("primary", ABSENT if theirs is None else theirs.version)
        if merged is None:
            assert theirs is not None
            await self._primary.delete(entry.key, if_version=theirs.version)
            return Outcome("merged", ABSENT)
        receipt = await self._primary.put(
            entry.key,
            merged,
            expires_in=self._left(entry),
            if_version=ABSENT if theirs is None else theirs.version,
            write_id=merged_id,
        )
        # Others may have written over an earlier merge, whose answer was lost; then this one changed nothing.
        again = entry.write_id in entry.sent
        return Outcome("merged", receipt.version, None if again else Record(merged, receipt.version))

    def _left(self, entry: Entry) -> float | None:
        if entry.deadline is None or entry.expires_in is None:
            return None
        # A clock that was set back gives no longer life, and some may have passed since it was looked at.
        return max(min(entry.deadline - self._clock(), entry.expires_in), _SHORTEST)


def _unsettled(entry: Entry) -> StoreUnavailable:
    return StoreUnavailable(f"{entry.key[:80]!a}: others kept writing while it was replayed")
