"""From an outage back to health: the states, the one probe, and the replay of the journal."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sessionkit.errors import ConfigurationError, SessionKitError, StoreError, StoreUnavailable, described
from sessionkit.resilience.entries import Kind
from sessionkit.resilience.states import ConflictFound, Quarantined, State, StateChanged, Subscribers
from sessionkit.store import ABSENT

if TYPE_CHECKING:
    from sessionkit.resilience.copies import LastKnown
    from sessionkit.resilience.entries import Entry
    from sessionkit.resilience.journal import Journal
    from sessionkit.resilience.local import LocalView
    from sessionkit.resilience.replaying import Outcome, Replayer
    from sessionkit.store import SessionStore

logger = logging.getLogger("sessionkit.resilience")

_PAGE: Final = 32
"""Entries that are replayed at once; live operations wait no longer than for these."""

_BREATH: Final = (0.5, 1.5)
"""Pause after a page, in units of the time the page took: about half of the server is left to others."""


@dataclass(frozen=True, kw_only=True)
class CircuitBreaker:
    """When the primary is left alone, and for how long.

    Attributes:
        failures: Failed attempts in a row that open the circuit; so does one write whose attempts all failed.
        first_pause: The bound of the pause before the first probe, in seconds; the pause itself is drawn at
            random, so that all the bots of one server do not come back to it at once.
        longest_pause: The bound doubles with each probe that fails, up to this many seconds.
    """

    failures: int = 5
    first_pause: float = 0.5
    longest_pause: float = 10.0

    def __post_init__(self) -> None:
        if self.failures < 1:
            raise ConfigurationError(f"breaker: failures is 1 or more, not {self.failures!r}")
        if not 0 < self.first_pause <= self.longest_pause:
            raise ConfigurationError(
                f"breaker: first_pause is above 0 and at most longest_pause, not {self.first_pause!r}"
            )


@dataclass(slots=True)
class Counts:
    """How often things happened since the store was opened.

    Attributes:
        journaled: Writes that were acknowledged into the journal.
        replayed: Entries that the primary has, by a replay or by an attempt that was thought lost.
        superseded: Entries that ended without a trace, as others had written since or their time was over.
        conflicts: Entries that met something else than they were based on.
        quarantined: Entries set aside.
        probes: Probes that were made.
    """

    journaled: int = 0
    replayed: int = 0
    superseded: int = 0
    conflicts: int = 0
    quarantined: int = 0
    probes: int = 0


class Recovery:
    """Knows the state, and leads back to ``HEALTHY``.

    Args:
        primary: The primary.
        journal: What must reach it.
        copies: Told of what stands there.
        replayer: Writes one entry.
        local: Knows what of ours may stand on the primary.
        breaker: The pauses between probes.

    Attributes:
        state: The state now.
        reason: Why the primary is left alone, or was the last time.
        failures: Failed attempts in a row; whoever has an answer sets it to 0.
        subscribers: Who is told of events.
        counts: How often things happened.
    """

    def __init__(
        self,
        primary: SessionStore,
        journal: Journal,
        copies: LastKnown,
        replayer: Replayer,
        local: LocalView,
        breaker: CircuitBreaker,
    ) -> None:
        self._primary = primary
        self._journal = journal
        self._copies = copies
        self._replayer = replayer
        self._local = local
        self._breaker = breaker
        self._task: asyncio.Task[None] | None = None
        self._under_way: dict[str, asyncio.Future[None]] = {}
        # What an earlier process left must be taken up before anybody is answered.
        self.state = State.HEALTHY if journal.file is None else State.OPEN
        self.reason = ""
        self.failures = 0
        self.subscribers = Subscribers()
        self.counts = Counts()

    def open(self, reason: str) -> None:
        """Leave the primary alone until a probe succeeds."""
        if self.state in {State.HEALTHY, State.PROBING, State.REPLAYING}:
            self._become(self._away(), reason)
        self.ensure_probing()

    def ensure_probing(self) -> None:
        """Have the primary looked after, if nobody does: an event loop that ended took its task along."""
        loop = asyncio.get_running_loop()
        task = self._task
        if self.state in {State.HEALTHY, State.DRAINING}:
            return
        if task is None or task.done() or task.get_loop() is not loop:
            self._task = loop.create_task(self._recover())

    def journal_is_full(self) -> None:
        """Take note that a write was refused for want of room."""
        if self.state is State.OPEN and self._journal.full:
            self._become(State.SATURATED, "the journal is full")

    async def replay_key(self, key: str) -> None:
        """Write what waits for a key now; if that is under way already, wait for its end.

        Raises:
            StoreError: The primary fails for all, as it seems; the entry stays.
        """
        loop = asyncio.get_running_loop()
        under_way = self._under_way.get(key)
        # What an event loop that ended had begun ends no more.
        if under_way is not None and under_way.get_loop() is loop:
            await asyncio.wait([under_way])
            return
        done = self._under_way[key] = loop.create_future()
        try:
            await self._replay_one(key)
        finally:
            if self._under_way.get(key) is done:
                del self._under_way[key]
            done.set_result(None)

    async def drain(self, patience: float) -> None:
        """Stop looking after the primary, and write it what is journaled while there is time.

        Args:
            patience: Seconds it may take.
        """
        self._become(State.DRAINING, "the store is closed")
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait([task])
        if not self._journal.depth:
            return
        try:
            async with asyncio.timeout(patience):
                await self._primary.ping()
                while self._journal.depth:
                    await self._replay_page()
        except (SessionKitError, TimeoutError):
            return  # what is left is the caller's to tell

    async def start(self) -> None:
        """Ask the primary at once, as an earlier process has left a journal.

        Raises:
            StoreError: It refuses for a reason that lasts, such as a wrong password.
        """
        if not self._journal.depth:
            self.state = State.HEALTHY  # it never was anything else: nobody is told
            return
        try:
            await self._probe()
        except SessionKitError as error:
            # Not found out during an outage that was told already, but its beginning here.
            logger.warning(
                "the store is away at the start (keys that wait: %d): %s", self._journal.depth, error
            )
            self._become(State.OPEN, str(error))
            if not isinstance(error, StoreError) or not error.temporary:
                raise
            self.ensure_probing()
        else:
            self._become_replaying()
            if self.state is State.REPLAYING:
                self._task = asyncio.get_running_loop().create_task(self._recover(answers=True))

    async def _recover(self, *, answers: bool = False) -> None:
        """Probe until the primary answers, and replay the journal.

        Args:
            answers: Whether it has just done so.
        """
        bound = self._breaker.first_pause
        while True:
            try:
                if not answers:
                    await asyncio.sleep(random.uniform(0, bound))
                    bound = min(2 * bound, self._breaker.longest_pause)
                    await self._probe()
                    self._become_replaying()
                answers = False
                await self._replay_all()
            except Exception as error:
                # A driver's mistake, too, must not end the only one who looks after the primary.
                if self.state in {State.PROBING, State.REPLAYING}:
                    self._become(self._away(), described(error))
            else:
                self._become(State.HEALTHY, "the primary answers, and nothing waits for it")
                return

    async def _probe(self) -> None:
        self._become(State.PROBING, "a probe is made")
        self.counts.probes += 1
        await self._primary.ping()

    async def _replay_all(self) -> None:
        """Write the whole journal, and what is added meanwhile.

        Raises:
            StoreError: The primary fails again.
        """
        loop = asyncio.get_running_loop()
        while self._journal.depth:
            started = loop.time()
            await self._replay_page()
            if self.state is not State.REPLAYING:
                raise StoreUnavailable("the primary failed while the journal was replayed")
            await asyncio.sleep((loop.time() - started) * random.uniform(*_BREATH))

    async def _replay_page(self) -> None:
        page = map(self.replay_key, self._journal.oldest(_PAGE))
        for failure in await asyncio.gather(*page, return_exceptions=True):
            if failure is not None:
                raise failure

    async def _replay_one(self, key: str) -> None:
        entry = self._journal.get(key)
        if entry is None:
            return
        if entry.kind is not Kind.TOUCH:
            # Whoever writes this key while its entry is on the way must know that it may arrive.
            self._journal.note(entry.also_sent([entry.makes]))
        flights = self._local.flights
        ticket = flights.begin(key, entry.makes)
        flights.flight(key, ticket).known = True  # the entry knows it
        try:
            outcome = await self._replayer.replay(entry, lambda: self._local.own(key))
        except Exception as error:
            if isinstance(error, StoreError) and error.temporary:
                raise
            # Such as a value the primary does not take, or a merge that fails: nobody else shall wait for it.
            self._set_aside(entry, described(error))
        else:
            written = entry.kind is not Kind.TOUCH and outcome.ending not in {"primary", "superseded"}
            flight = flights.acknowledge(key, ticket) if written else flights.flight(key, ticket)
            if not flight.replaced:
                self._take_copy(entry, outcome, deleted=flight.deleted)
            await self._journal.settle(entry.key, lambda now: _follower(now, entry, outcome))
            self._count(entry, outcome)
        finally:
            flights.end(key, ticket)

    def _take_copy(self, entry: Entry, outcome: Outcome, *, deleted: bool) -> None:
        """Take a copy of what the replay has left on the primary, as far as that is known."""
        if outcome.record is not None and not deleted:
            self._copies.take(entry.key, outcome.record.value, outcome.record.version, entry.deadline)
        elif entry.kind is Kind.TOUCH and outcome.ending == "applied":
            self._copies.renew(entry.key, entry.deadline)
        else:
            self._copies.forget(entry.key)

    def _count(self, entry: Entry, outcome: Outcome) -> None:
        match outcome.ending:
            case "applied":
                self.counts.replayed += 1
            case "superseded":
                self.counts.superseded += 1
            case kept:
                self.counts.conflicts += 1
                self.subscribers.tell(ConflictFound(entry.key, kept))

    def _set_aside(self, entry: Entry, reason: str) -> None:
        now = self._journal.get(entry.key)
        if now is None or now.seq != entry.seq:
            return  # it was written again meanwhile, and that waits on its own account
        self.counts.quarantined += 1
        self.subscribers.tell(Quarantined(entry.key, reason))
        self._journal.set_aside(now)

    def _become_replaying(self) -> None:
        self._become(State.REPLAYING, f"the primary answers; keys that wait: {self._journal.depth}")

    def _away(self) -> State:
        return State.SATURATED if self._journal.full else State.OPEN

    def _become(self, state: State, reason: str) -> None:
        old = self.state
        if old is State.DRAINING:
            return  # whatever is still under way: a closed store stays closed
        if state in {State.OPEN, State.SATURATED}:
            self.reason = reason
        elif state is State.HEALTHY:
            self.failures = 0
            self._journal.full = False
        self.state = state
        if old is not state:
            self.subscribers.tell(StateChanged(old, state, reason))


def _follower(now: Entry, replayed: Entry, outcome: Outcome) -> Entry | None:
    """Return what still waits for a key after one of its entries was replayed, or None if nothing does."""
    again = now.seq != replayed.seq
    if not (again or outcome.renew):
        return None
    if outcome.ending in {"primary", "superseded"}:
        return now  # it was based on what has lost, and meets the same conflict
    base_value = None if outcome.record is None else outcome.record.value
    # A write of ours may come late, and then it is still ours; that nothing is there is nobody's mark.
    sent = tuple(version for version in now.sent if version not in {ABSENT, replayed.makes})
    follower = replace(now, base=outcome.version, base_value=base_value, sent=sent)
    if now.kind is not Kind.PUT or now.write_id != replayed.write_id:
        return follower
    # The same write, renewed meanwhile or before: there may be nothing left of it to renew.
    return None if outcome.version is ABSENT else replace(follower, kind=Kind.TOUCH, value=b"")
