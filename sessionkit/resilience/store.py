"""``ResilientStore``: a store that goes on while its primary does not."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final, Literal, cast

from sessionkit.errors import (
    Applied,
    BatchFailed,
    ConfigurationError,
    SessionKitError,
    StoreError,
    StoreUnavailable,
)
from sessionkit.resilience.arrivals import Arrivals
from sessionkit.resilience.batches import delete_each, finish_puts, result_of
from sessionkit.resilience.conflicts import check_policy
from sessionkit.resilience.copies import LastKnown
from sessionkit.resilience.entries import Kind
from sessionkit.resilience.gate import Gate, closed
from sessionkit.resilience.journal import Journal
from sessionkit.resilience.local import LocalView
from sessionkit.resilience.recovery import CircuitBreaker, Recovery
from sessionkit.resilience.replaying import Replayer
from sessionkit.resilience.rescue import Rescue
from sessionkit.resilience.retrying import Retries, RetryPolicy
from sessionkit.resilience.states import State
from sessionkit.resilience.together import Together
from sessionkit.store import (
    ABSENT,
    Absent,
    AtomicStore,
    Capabilities,
    Clock,
    Lease,
    LocalLeases,
    Locks,
    Put,
    Receipt,
    Record,
    SessionStore,
    Version,
    Where,
    check_expiry,
    check_keys_in_turns,
    check_prefix,
    check_put,
    check_puts_in_turns,
    check_version,
    new_version,
    receipts_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from types import TracebackType

    from sessionkit.resilience.batches import Result
    from sessionkit.resilience.conflicts import Policy
    from sessionkit.resilience.flights import Ticket
    from sessionkit.resilience.recovery import Counts
    from sessionkit.resilience.retrying import RetryBudget
    from sessionkit.resilience.states import Event
    from sessionkit.store import Delete

logger = logging.getLogger("sessionkit.resilience")

DEFAULT_DEADLINE: Final = 10.0
_DRAIN_SECONDS: Final = 5.0
_TURN: Final = 1000
# A member looked up in its class costs as much as all else that an operation adds while all is well.
_HEALTHY: Final = State.HEALTHY


class ResilientStore(AtomicStore):
    """A ``SessionStore`` over another one, its primary, that rides out the primary's failures.

    An operation that fails is tried again where its error says that this may help and is safe. When that
    does not help, the store is degraded: writes are kept in a journal and acknowledged as
    ``Where.JOURNALED``, reads are answered from the journal and from copies of what was last seen, marked
    ``stale``, and what is not known here raises ``StoreUnavailable``. A probe finds out when the primary is
    back; then the journal is written to it by compare-and-set. See ``State``.

    It serves one event loop at a time.

    Args:
        primary: The store it stands in front of; closed with it.
        fallback: Copies of what was last seen; None: 64 MiB of them.
        journal: Keeps writes while degraded; None: 64 MiB in this process's memory.
        retry: When a failed operation is tried again.
        breaker: When the primary is left alone, and for how long.
        deadline: Seconds one operation may take with its retries; the primary itself limits an attempt.
        outage: ``"fallback"`` as above; ``"raise"``: nothing is journaled and nothing stale is read, and
            while the primary is left alone everything raises ``CircuitOpen``.
        on_conflict: What becomes of a journaled write where others wrote meanwhile; see ``Policy``.
        clock: Gives the time in seconds since the Unix epoch; tests pass their own.

    Attributes:
        primary: As given.
        journal: The journal: its ``depth``, ``bytes`` and ``quarantined``.

    Raises:
        ConfigurationError: An argument is none of these.
    """

    def __init__(
        self,
        primary: SessionStore,
        fallback: LastKnown | None = None,
        journal: Journal | None = None,
        *,
        retry: RetryPolicy | None = None,
        breaker: CircuitBreaker | None = None,
        deadline: float = DEFAULT_DEADLINE,
        outage: Literal["fallback", "raise"] = "fallback",
        on_conflict: Policy = "primary_wins",
        clock: Clock = time.time,
    ) -> None:
        if outage not in ("fallback", "raise"):
            raise ConfigurationError(f"outage is 'fallback' or 'raise', not {outage!r}")
        if isinstance(deadline, bool) or not isinstance(deadline, (int, float)) or not deadline > 0:
            raise ConfigurationError(f"deadline is a number of seconds above 0, not {deadline!r}")
        for name, given, kind in (
            ("primary", primary, SessionStore),
            ("fallback", fallback, LastKnown),
            ("journal", journal, Journal),
            ("retry", retry, RetryPolicy),
            ("breaker", breaker, CircuitBreaker),
        ):
            if not isinstance(given, kind) and (given is not None or name == "primary"):
                raise ConfigurationError(f"{name} is a {kind.__name__}, not {given!r}")
        if outage == "raise" and journal is not None:
            raise ConfigurationError(
                "a journal is given, and outage='raise' journals nothing: keep one of them"
            )
        check_policy(on_conflict)
        self.journal = Journal() if journal is None else journal
        self.primary = primary
        self._copies = LastKnown() if fallback is None else fallback
        self._young = self._copies.young
        self._clock = clock
        merges = not isinstance(on_conflict, str)
        self._flights = self._copies.flights
        self._local = LocalView(self.journal, self._copies, clock, keep_bases=merges)
        breaker = CircuitBreaker() if breaker is None else breaker
        replayer = Replayer(primary, on_conflict, clock)
        self._recovery = Recovery(primary, self.journal, self._copies, replayer, self._local, breaker)
        retries = Retries(RetryPolicy() if retry is None else retry, deadline)
        self._budget = retries.budget
        raises = outage == "raise"
        self._gate = Gate(self.journal, self._recovery, raises=raises)
        self._rescue = Rescue(
            primary, self._local, self._recovery, retries, most_failures=breaker.failures, raises=raises
        )
        self._arrivals = Arrivals(self._local, self._copies, self._recovery, clock)
        self._together = Together(primary, self._gate, self._rescue, self._arrivals, self._copies)
        self._locks = Locks(LocalLeases(clock))
        self._closed = False

    def __repr__(self) -> str:
        return f"ResilientStore({self.primary!r}, state={self.state.value})"

    @property
    def capabilities(self) -> Capabilities:
        """See ``SessionStore.capabilities``; those of the primary."""
        return self.primary.capabilities

    @property
    def state(self) -> State:
        """Where it stands with its primary."""
        return self._recovery.state

    @property
    def counts(self) -> Counts:
        """How often things happened."""
        return self._recovery.counts

    @property
    def retries(self) -> RetryBudget:
        """How many requests and retries there were."""
        return self._budget

    def subscribe(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call back at each change of state, conflict and quarantine, until the returned function is called.

        The callback must not wait; what it raises is logged.
        """
        return self._recovery.subscribers.add(callback)

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        """See ``SessionStore.get``.

        While degraded: what is known here, marked ``stale``; a renewal is journaled.

        Raises:
            StoreUnavailable: The primary cannot be asked, and nothing is known of this key.
            JournalFull: It is to be renewed, and the journal has no room. Without ``renew_for`` it is read.
        """
        self._budget.requests += 1
        if self._recovery.state is not _HEALTHY and not await self._gate.is_open_for(key):
            check_expiry(renew_for)
            return await self._rescue.get(key, renew_for)
        copies = self._copies
        # As `mark`, and below as `read`, without a call: most operations come this way.
        held = self._young.get(key)
        mark = copies.mark(key) if held is None else held.mark
        started = self._clock()
        try:
            record = await self.primary.get(key, renew_for=renew_for)
        except StoreError as error:
            record, local = await self._rescue.get_after(error, self._began(started), key, renew_for)
            if local:
                return record
        self._recovery.failures = 0
        if record is None:
            copies.read_none(key, mark)
        elif renew_for is not None:
            if copies.mark(key) is mark:
                copies.take(key, record.value, record.version, self._ends(renew_for), mark)
        elif (
            held is None
            or self._young.get(key) is not held
            or held.version != record.version
            or (held.until is not None and held.until <= started)
        ):
            copies.read(key, record, mark, started)
        if renew_for is not None:
            await self._renewed(key)
        return record

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expires_in: float | None = None,
        if_version: Version | Absent | None = None,
        write_id: Version | None = None,
    ) -> Receipt:
        """See ``SessionStore.put``.

        While degraded it is journaled, and ``if_version`` compared with what is known here.

        Raises:
            JournalFull: The primary cannot be asked, and the journal has no room.
        """
        self._budget.requests += 1
        version = new_version() if write_id is None else write_id
        recovery = self._recovery
        if recovery.state is not _HEALTHY and not await self._gate.is_open_for(key):
            put = Put(key, value, expires_in, if_version, version)
            check_put(put, self.capabilities.max_value_bytes)
            return await self._rescue.put(put)
        started = self._clock()
        flights = self._flights
        held = self._young.get(key)
        if held is None or held.ticket is not None or key in flights:
            held, ticket = None, flights.begin(key, version, if_version)
        else:
            ticket = held.ticket = (version, if_version)  # as `begin`, without a call
        try:
            receipt = await self.primary.put(
                key, value, expires_in=expires_in, if_version=if_version, write_id=version
            )
        except StoreError as error:
            with flights.ending(key, ticket):
                put = Put(key, value, expires_in, if_version, version)
                return await self._put_after(error, self._began(started), put, ticket)
        except BaseException as error:
            flights.end(key, ticket, known=isinstance(error, SessionKitError))  # such as a wrong argument
            raise
        recovery.failures = 0
        if recovery.state is _HEALTHY and key not in self.journal.leftovers:
            ends = None if expires_in is None else started + expires_in
            if held is not None and held.ticket is ticket:
                held.ticket = None
                if len(held.value) == len(value):  # as `take`, without a call
                    held.value = value
                    held.version = held.mark = version
                    held.until = ends
                else:
                    self._copies.take(key, value, version, ends)
                return receipt
            if held is None and flights.land(key, ticket):
                self._copies.take(key, value, version, ends)
                return receipt
        with flights.ending(key, ticket):
            put = Put(key, value, expires_in, if_version)
            self._arrivals.stands(put, receipt, ticket)
            await self._arrivals.arrived(key, receipt.version, if_version)
            return receipt

    async def delete(self, key: str, *, if_version: Version | None = None) -> bool:
        """See ``SessionStore.delete``.

        While degraded it is journaled, and returns True where it is not known whether there is a record.

        Raises:
            JournalFull: As ``put``.
        """
        self._budget.requests += 1
        if self._recovery.state is not _HEALTHY and not await self._gate.is_open_for(key):
            check_version(if_version)
            return await self._rescue.delete(key, if_version)
        ticket = self._flights.begin(key, ABSENT, if_version)
        started = monotonic()
        try:
            try:
                deleted = await self.primary.delete(key, if_version=if_version)
            except StoreError as error:
                deleted, local = await self._rescue.delete_after(error, started, key, if_version)
                if local:
                    return deleted
            self._copies.forget(key)
            await self._arrivals.arrived(key, ABSENT, if_version)
        finally:
            self._flights.end(key, ticket)
        return deleted

    async def touch(self, key: str, *, expires_in: float | None, if_version: Version | None = None) -> bool:
        """See ``SessionStore.touch``.

        While degraded it is journaled, for a record that is known here.

        Raises:
            StoreUnavailable: As ``get``.
            JournalFull: As ``put``.
        """
        self._budget.requests += 1
        if self._recovery.state is not _HEALTHY and not await self._gate.is_open_for(key):
            check_expiry(expires_in)
            check_version(if_version)
            return await self._rescue.touch(key, expires_in, if_version)
        mark = self._copies.mark(key)
        started = monotonic()
        try:
            there = await self.primary.touch(key, expires_in=expires_in, if_version=if_version)
        except StoreError as error:
            there, local = await self._rescue.touch_after(error, started, key, expires_in, if_version)
            if local:
                return there
        self._recovery.failures = 0
        if self._copies.mark(key) is mark:
            if there:
                self._copies.renew(key, self._ends(expires_in))
            else:
                self._copies.forget(key)
        await self._renewed(key)
        return there

    async def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """See ``SessionStore.get_many``.

        While degraded: as ``get``, for all or none.

        Raises:
            StoreUnavailable: As ``get``, for one of the keys.
        """
        wanted = await check_keys_in_turns(keys)
        self._budget.requests += 1
        if not await self._gate.is_open():
            return self._rescue.get_many(wanted)
        # What waits for the primary is known here, and better; of a renewal the record itself is there.
        waiting = {entry.key for entry in self.journal if entry.kind is not Kind.TOUCH}
        here = self._rescue.get_many(key for key in wanted if key in waiting)
        there = [key for key in wanted if key not in waiting]
        marks = [self._copies.mark(key) for key in there]
        started = self._clock()
        try:
            found = await self.primary.get_many(there)
        except StoreError as error:
            found, local = await self._rescue.get_many_after(error, self._began(started), there)
            if local:
                return found | here
        self._recovery.failures = 0
        # A renewal that came too late is a conflict, which is told before anybody finds nothing there.
        for key in [key for key in there if key not in found and key in self.journal]:
            if not await self._gate.is_open_for(key):
                here |= self._rescue.get_many([key])
        for at, (key, mark) in enumerate(zip(there, marks, strict=True)):
            if at % _TURN == _TURN - 1:
                await asyncio.sleep(0)
            if (record := found.get(key)) is not None:
                self._copies.read(key, record, mark, started)
            elif key not in here:
                self._copies.read_none(key, mark)
        return found | here

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        """See ``SessionStore.put_many``.

        A put that fails is tried again and journaled as by ``put``, each for itself.

        Raises:
            BatchFailed: As ``SessionStore.put_many``; also where the journal had no room for some.
        """
        batch = [
            put if put.write_id is not None else put._replace(write_id=new_version())
            for put in await check_puts_in_turns(puts, self.capabilities.max_value_bytes)
        ]
        self._budget.requests += 1
        if not await self._gate.is_open():
            return receipts_of([await result_of(self._rescue.put(put)) for put in batch])
        if self.journal.depth and any(put.key in self.journal for put in batch):
            return receipts_of([await result_of(self._put(put)) for put in batch])
        tickets = [
            self._flights.begin(put.key, cast("Version", put.write_id), put.if_version) for put in batch
        ]
        started = monotonic()
        try:
            results: Sequence[Result]
            try:
                results = await self.primary.put_many(batch)
            except BatchFailed as failed:
                results = failed.results
            except StoreError as error:
                results = [error] * len(batch)
            for put, ticket, result in zip(batch, tickets, results, strict=True):
                if isinstance(result, Receipt):
                    self._arrivals.stands(put, result, ticket)
                else:
                    applied = getattr(result, "applied", Applied.NO)
                    self._flights.flight(put.key, ticket).known = applied is Applied.NO

            async def written(at: int, receipt: Receipt) -> Receipt:
                await self._arrivals.arrived(batch[at].key, receipt.version, batch[at].if_version)
                return receipt

            async def again(at: int, error: StoreError) -> Receipt:
                self._flights.flight(batch[at].key, tickets[at]).known = False
                return await self._put_after(error, started, batch[at], tickets[at])

            return receipts_of(await finish_puts(batch, results, written, again))
        finally:
            for put, ticket in zip(batch, tickets, strict=True):
                self._flights.end(put.key, ticket)

    async def delete_many(self, keys: Iterable[str]) -> int:
        """See ``SessionStore.delete_many``.

        While degraded: as ``delete``, for each.

        Raises:
            JournalFull: As ``put``.
        """
        wanted = await check_keys_in_turns(keys)
        self._budget.requests += 1
        if not await self._gate.is_open():
            return await delete_each(wanted, lambda key: self._rescue.delete(key, None))
        if self.journal.depth and any(key in self.journal for key in wanted):
            return await delete_each(wanted, self.delete)
        tickets = [(key, self._flights.begin(key, ABSENT)) for key in wanted]
        started = monotonic()

        async def again(key: str, error: StoreError) -> bool:
            deleted, local = await self._rescue.delete_after(error, started, key, None)
            if not local:
                self._copies.forget(key)
                await self._arrivals.arrived(key, ABSENT)
            return deleted

        try:
            try:
                deleted = await self.primary.delete_many(wanted)
            except StoreError as error:
                first = error
                return await delete_each(wanted, lambda key: again(key, first))
            for key in wanted:
                self._copies.forget(key)
                self._local.arrived(key, ABSENT)
            for key in wanted:
                await self._arrivals.arrived(key, ABSENT)
        finally:
            for key, ticket in tickets:
                self._flights.end(key, ticket)
        return deleted

    async def write_all(self, writes: Iterable[Put | Delete], *, write_id: Version | None = None) -> Receipt:
        """See ``AtomicStore.write_all``.

        While degraded all of it is journaled, or nothing, with the conditions compared with what is known
        here. The journal is written to the primary key by key: others may see a part of it meanwhile, and a
        conflict of one key is settled without the others.

        Raises:
            ConfigurationError: Also where the primary cannot write these records together.
            JournalFull: The primary cannot be asked, and the journal has no room for all.
            StoreError: The journal's file failed (``applied`` is ``MAYBE``): all of it waits for the primary,
                and a retry with the same write id acknowledges it once the file has it.
        """
        self._budget.requests += 1
        return await self._together.write(writes, write_id)

    async def scan(self, prefix: str) -> AsyncIterator[str]:
        """See ``SessionStore.scan``.

        Raises:
            StoreUnavailable: The primary cannot be asked: what is known here need not be all.
        """
        check_prefix(prefix)
        self._budget.requests += 1
        if not await self._gate.is_open():
            raise StoreUnavailable("the store cannot be asked for its keys: it is degraded")
        waiting = {entry.key: entry for entry in self.journal if entry.key.startswith(prefix)}
        async for key in self.primary.scan(prefix):
            if key not in waiting or waiting[key].kind is not Kind.DELETE or key not in self.journal:
                yield key
        now = self._clock()
        for key, entry in waiting.items():
            if entry.kind is Kind.PUT and not entry.expired(now):
                yield key

    @asynccontextmanager
    async def lock(self, key: str, *, lease: float = 30.0, wait: float | None = 10.0) -> AsyncIterator[Lease]:
        """See ``SessionStore.lock``.

        While degraded it is between the tasks of this process only, and says so: ``Lease.local``.
        """
        self._budget.requests += 1
        waits_until = math.inf if wait is None else monotonic() + wait
        async with self._locks.hold(key, lease=lease, wait=wait) as mine:
            local = Lease(key, mine.fence, local=True)
            if not await self._gate.is_open_for(key):
                yield local
                return
            async with AsyncExitStack() as stack:

                async def acquire() -> Lease:
                    left = None if wait is None else max(0.0, waits_until - monotonic())
                    return await stack.enter_async_context(self.primary.lock(key, lease=lease, wait=left))

                started = monotonic()
                theirs: Lease | None
                try:
                    theirs = await acquire()
                    self._recovery.failures = 0
                except StoreError as error:
                    theirs = await self._rescue.lease_after(error, started, acquire)
                yield local if theirs is None else theirs

    async def ping(self) -> float:
        """See ``SessionStore.ping``; it asks the primary in every state."""
        if self._recovery.state is State.DRAINING:
            raise closed()
        return await self.primary.ping()

    async def aclose(self) -> None:
        """See ``SessionStore.aclose``; what is journaled is written while there is time.

        An operation that is under way ends as the primary ends it. One that the primary fails from now on is
        told so, instead of being journaled where nobody may ever read it.

        Raises:
            StoreUnavailable: The primary could not be reached, and the journal is in memory: writes that
                were acknowledged are lost. A journal in a file keeps them for the next start.
        """
        if self._closed:
            return
        # Not in a task of its own: whoever closes inside a lock's body must not be told that it is lost.
        try:
            await self._locks.aclose()
            await self._recovery.drain(_DRAIN_SECONDS)
        finally:
            try:
                await self.journal.aclose()
            finally:
                await self.primary.aclose()
        self._closed = True
        left = [*(entry.key for entry in self.journal), *self.journal.quarantined]
        if left and self.journal.file is not None:
            logger.warning("closed; the journal keeps %d keys for the next start", len(left))
        elif left:
            raise StoreUnavailable(
                f"the writes of {len(left)} keys, such as {left[0][:80]!a}, were acknowledged and have not"
                f" reached {self.primary!r} ({len(self.journal.quarantined)} of them were set aside):"
                " they are lost with this process. A journal in a file would keep them",
                temporary=False,
            )

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the store; an error of the body stays the one that is raised."""
        try:
            await self.aclose()
        except StoreError as error:
            if exc is None:
                raise
            logger.error("%s", error)
            exc.add_note(f"besides: {error}")

    async def _renewed(self, key: str) -> None:
        """Take note that the primary has renewed a record; this replaces no write that was set aside."""
        if key in self.journal.leftovers and key not in self.journal.quarantined:
            await self._arrivals.outdate(key)

    async def _put(self, put: Put) -> Receipt:
        key, value, expires_in, if_version, write_id = put
        return await self.put(key, value, expires_in=expires_in, if_version=if_version, write_id=write_id)

    async def _put_after(self, error: StoreError, started: float, put: Put, ticket: Ticket) -> Receipt:
        try:
            receipt = await self._rescue.put_after(error, started, put)
        except StoreError as failure:
            self._flights.flight(put.key, ticket).known = failure.applied is Applied.NO
            raise
        if receipt.where is Where.JOURNALED:
            self._flights.flight(put.key, ticket).known = True  # the journal knows
            return receipt
        self._arrivals.stands(put, receipt, ticket)
        await self._arrivals.arrived(put.key, receipt.version, put.if_version)
        return receipt

    def _began(self, started: float) -> float:
        """Return when an operation began by ``time.monotonic``, given that by the clock.

        A clock that was set meanwhile makes it more attempts or fewer, and nothing worse.
        """
        return monotonic() - max(0.0, self._clock() - started)

    def _ends(self, expires_in: float | None) -> float | None:
        return None if expires_in is None else self._clock() + expires_in
