"""What becomes of an operation that the primary has failed, or is not asked for."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sessionkit.errors import Applied, JournalFull, LockNotAcquired, StoreError, StoreUnavailable
from sessionkit.resilience.states import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from sessionkit.resilience.local import LocalView
    from sessionkit.resilience.recovery import Recovery
    from sessionkit.resilience.retrying import Retries
    from sessionkit.store import AtomicStore, Delete, Lease, Put, Receipt, Record, SessionStore, Version

T = TypeVar("T")


class Rescue:
    """Tries again where that may help; where it does not, goes by what is known here.

    The methods ``…_after`` are told how a first attempt failed. The others do without the primary.

    Args:
        primary: The primary.
        local: What is known here.
        recovery: Told of failures.
        retries: When another attempt is made.
        most_failures: How many in a row open the circuit.
        raises: Whether failures are raised instead of being hidden.
    """

    def __init__(
        self,
        primary: SessionStore,
        local: LocalView,
        recovery: Recovery,
        retries: Retries,
        *,
        most_failures: int,
        raises: bool,
    ) -> None:
        self._primary = primary
        self._local = local
        self._recovery = recovery
        self._retries = retries
        self._most_failures = most_failures
        self._raises = raises

    async def _again(
        self,
        error: StoreError,
        started: float,
        attempt: Callable[[], Awaitable[T]],
        *keys: str,
        cut: bool = True,
    ) -> T:
        """Return what a later attempt gives.

        Args:
            error: How the first one failed.
            started: When it began, by ``time.monotonic``.
            attempt: Makes another one.
            keys: Of a write, the records'; once another write of one waits, this one must not pass that by.
            cut: Whether the deadline ends an attempt that is under way, too.

        Raises:
            StoreError: The last attempt's error.
        """
        if not error.temporary:
            self._recovery.failures = 0
            raise error  # such as a lost compare-and-set, which is no failure of the primary

        async def in_turn() -> T:
            if self._wait(keys):
                raise StoreUnavailable("an earlier write of the record waits for the store")
            if self._recovery.state not in {State.HEALTHY, State.REPLAYING}:
                raise error  # during the pause others have found the primary away
            return await attempt()

        def goes_on(failure: StoreError) -> bool:
            held = isinstance(failure, LockNotAcquired)  # an answer, and no failure of the primary
            return not held and not self._wait(keys) and self._goes_on(failure)

        result = await self._retries.repeat(error, monotonic() - started, in_turn, goes_on, cut=cut)
        self._recovery.failures = 0
        return result

    def _wait(self, keys: Iterable[str]) -> bool:
        """Return whether a write of one of the keys waits for the primary."""
        return any(key in self._local.journal for key in keys)

    def _open(self, failure: StoreError, *keys: str) -> None:
        """Have the primary left alone after a write whose attempts all failed for now.

        Not if the failure is that another write of a key waits for it.
        """
        if failure.temporary and not self._wait(keys):
            self._recovery.open(str(failure))

    def _hides(self, failure: StoreError) -> bool:
        """Return whether the failure is to be hidden: it is temporary, and an outage is nobody's business."""
        closed = self._recovery.state is State.DRAINING
        return failure.temporary and not self._raises and not closed

    async def get_after(
        self, error: StoreError, started: float, key: str, renew_for: float | None
    ) -> tuple[Record | None, bool]:
        """Read the record again, or return what is known here; and whether it is that."""
        try:
            found = await self._again(error, started, lambda: self._primary.get(key, renew_for=renew_for))
        except StoreError as failure:
            if not self._hides(failure):
                raise
            return await self.get(key, renew_for, failure), True
        return found, False

    async def get(
        self, key: str, renew_for: float | None, failure: StoreError | None = None
    ) -> Record | None:
        """Return what is known here of the record, and journal its renewal.

        Raises:
            StoreError: Nothing is known; the failure, if one is given. Or there is no room for the renewal,
                which may have reached the primary if the failure says so.
        """
        try:
            record = self._local.get(key)
        except StoreUnavailable:
            if failure is None:
                raise
            raise failure from None
        if record is not None and renew_for is not None:
            if failure is not None:
                self._recovery.open(str(failure))
            sent = failure is not None and failure.applied is not Applied.NO
            await self._counted(self._local.touch(key, renew_for, None), sent=sent)
        return record

    async def get_many_after(
        self, error: StoreError, started: float, keys: list[str]
    ) -> tuple[dict[str, Record], bool]:
        """Read the records again, or return what is known here, and whether it is that."""
        try:
            return await self._again(error, started, lambda: self._primary.get_many(keys)), False
        except StoreError as failure:
            if not self._hides(failure):
                raise
            return self.get_many(keys), True

    def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """Return what is known here of the records.

        Raises:
            StoreUnavailable: Of one of them nothing is known.
        """
        found = ((key, self._local.get(key)) for key in keys)
        return {key: record for key, record in found if record is not None}

    async def put_after(self, error: StoreError, started: float, put: Put) -> Receipt:
        """Put again, or into the journal."""
        key, value, expires_in, if_version, write_id = put
        assert write_id is not None
        try:
            return await self._again(
                error,
                started,
                lambda: self._primary.put(
                    key, value, expires_in=expires_in, if_version=if_version, write_id=write_id
                ),
                key,
            )
        except StoreError as failure:
            self._open(failure, key)
            if not self._hides(failure):
                raise
            return await self.put(put, sent=failure.applied is not Applied.NO)

    async def put(self, put: Put, *, sent: bool = False) -> Receipt:
        """Put into the journal.

        Args:
            put: The put, checked, with its write id.
            sent: Whether it may have reached the primary.
        """
        return await self._counted(self._local.put(put, sent=sent), sent=sent)

    async def write_all_after(
        self, error: StoreError, started: float, writes: Sequence[Put | Delete], write_id: Version
    ) -> tuple[Receipt, bool]:
        """Write all of it again, or else into the journal, and return whether it went there."""
        keys = [write.key for write in writes]
        primary = cast("AtomicStore", self._primary)
        try:
            receipt = await self._again(
                error, started, lambda: primary.write_all(writes, write_id=write_id), *keys
            )
        except StoreError as failure:
            self._open(failure, *keys)
            if not self._hides(failure):
                raise
            sent = failure.applied is not Applied.NO
            return await self.write_all(writes, write_id, sent=sent), True
        return receipt, False

    async def write_all(
        self, writes: Sequence[Put | Delete], write_id: Version, *, sent: bool = False
    ) -> Receipt:
        """Write all of it into the journal, or nothing.

        Args:
            writes: Puts and deletions, checked, each of another key.
            write_id: What every put makes.
            sent: Whether they may have reached the primary.
        """
        journaling = self._local.write_all(writes, write_id, sent=sent)
        return await self._counted(journaling, number=len(writes), sent=sent)

    async def delete_after(
        self, error: StoreError, started: float, key: str, if_version: Version | None
    ) -> tuple[bool, bool]:
        """Delete again, or in the journal, and return whether there was something and whether it is that."""
        maybe = error.applied is not Applied.NO

        async def attempt() -> bool:
            nonlocal maybe
            try:
                return await self._primary.delete(key, if_version=if_version)
            except StoreError as failure:
                maybe |= failure.applied is not Applied.NO
                raise

        try:
            deleted = await self._again(error, started, attempt, key)
        except StoreError as failure:
            self._open(failure, key)
            if not self._hides(failure):
                raise
            return await self.delete(key, if_version, sent=failure.applied is not Applied.NO), True
        # What an attempt that was thought lost has deleted is not there for the next one.
        return deleted or maybe, False

    async def delete(self, key: str, if_version: Version | None, *, sent: bool = False) -> bool:
        """Delete in the journal.

        Args:
            key: The record's key.
            if_version: Only at this version.
            sent: Whether the deletion may have reached the primary.
        """
        return await self._counted(self._local.delete(key, if_version, sent=sent), sent=sent)

    async def touch_after(
        self,
        error: StoreError,
        started: float,
        key: str,
        expires_in: float | None,
        if_version: Version | None,
    ) -> tuple[bool, bool]:
        """Renew again, or in the journal what is known here; and return as ``delete_after``."""
        try:
            there = await self._again(
                error,
                started,
                lambda: self._primary.touch(key, expires_in=expires_in, if_version=if_version),
                key,
            )
        except StoreError as failure:
            self._open(failure, key)
            if not self._hides(failure) or self._local.version(key) is None:
                raise
            sent = failure.applied is not Applied.NO
            return await self.touch(key, expires_in, if_version, sent=sent), True
        return there, False

    async def touch(
        self, key: str, expires_in: float | None, if_version: Version | None, *, sent: bool = False
    ) -> bool:
        """Renew in the journal.

        Args:
            key: The record's key.
            expires_in: Seconds until it ends; None: never.
            if_version: Only at this version.
            sent: Whether the renewal may have reached the primary.
        """
        return await self._counted(self._local.touch(key, expires_in, if_version), sent=sent)

    async def lease_after(
        self, error: StoreError, started: float, acquire: Callable[[], Awaitable[Lease]]
    ) -> Lease | None:
        """Acquire a lock again, or return None where the primary cannot be asked for it.

        Raises:
            LockNotAcquired: Another holder has it.
        """
        try:
            # Waiting for another holder is no failure, however long it takes.
            return await self._again(error, started, acquire, cut=False)
        except LockNotAcquired:
            raise
        except StoreError as failure:
            if not self._hides(failure):
                raise
            # Without an outage a lock of our own would stand beside another process's.
            self._recovery.open(str(failure))
            return None

    def _goes_on(self, error: StoreError) -> bool:
        """Count a failed attempt, and return whether the primary may be asked again."""
        self._recovery.failures += 1
        if self._recovery.failures >= self._most_failures:
            self._recovery.open(str(error))
        return self._recovery.state in {State.HEALTHY, State.REPLAYING}

    async def _counted(self, write: Coroutine[Any, Any, T], *, number: int = 1, sent: bool = False) -> T:
        """Return what so many writes into the journal return, and count them; a closed store takes none."""
        if self._recovery.state is State.DRAINING:
            write.close()
            applied = Applied.MAYBE if sent else Applied.NO
            raise StoreUnavailable("the store is closed", temporary=False, applied=applied)
        try:
            result = await write
        except StoreError as error:
            if isinstance(error, JournalFull):
                self._recovery.journal_is_full()
            if sent:
                error.applied = Applied.MAYBE
            raise
        self._recovery.counts.journaled += number
        return result
