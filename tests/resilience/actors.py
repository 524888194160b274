"""One instance of a bot, over its own faulty link to the shared primary."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from sessionkit.errors import StoreUnavailable
from sessionkit.resilience import (
    CircuitBreaker,
    ConflictFound,
    Journal,
    Quarantined,
    ResilientStore,
    RetryPolicy,
    State,
    StateChanged,
    StoreFile,
)
from sessionkit.testing.chaos import ChaosStore
from sessionkit.testing.virtual_time import virtual_clock
from tests.resilience.clients import Client
from tests.resilience.wire import Attempts, Disk, DiskHandle, Mortality, Tap

if TYPE_CHECKING:
    from pathlib import Path

    from sessionkit.resilience import Event, Policy
    from sessionkit.store import AtomicStore
    from tests.resilience.history import History
    from tests.resilience.laws import Laws

ATTEMPT_SECONDS = 2.0
RETRY = RetryPolicy(attempts=3, budget_floor=3, budget_ratio=0.2)
BREAKER = CircuitBreaker(failures=3, first_pause=0.5, longest_pause=4.0)


class Actor(Client):
    """An instance, from one start of its process to the next.

    Args:
        name: Its name.
        primary: What all instances share.
        seed: What its link's randomness comes from.
        history: Where everything is written down.
        laws: What judges the answers.
        outage: As of ``ResilientStore``.
        max_bytes: The bound of its journal; None: the default.
        lock_path: The lock of its journal's file; None: it has none.
        on_conflict: As of ``ResilientStore``.

    Attributes:
        link: The link; its faults are switched on and off.
        attempts: What the store takes for the primary.
    """

    def __init__(
        self,
        name: str,
        primary: AtomicStore,
        seed: int,
        history: History,
        laws: Laws,
        *,
        outage: Literal["fallback", "raise"] = "fallback",
        max_bytes: int | None = None,
        lock_path: Path | None = None,
        on_conflict: Policy = "primary_wins",
    ) -> None:
        super().__init__(name, primary, history, laws)
        self.raises = outage == "raise"
        self.link = ChaosStore(Tap(primary, name), seed=seed, clock=virtual_clock)
        self._outage: Literal["fallback", "raise"] = outage
        self._max_bytes = max_bytes
        self._lock_path = lock_path
        self._on_conflict = on_conflict
        self._disk = Disk()
        self.open()

    @property
    def durable(self) -> bool:
        return self._lock_path is not None

    def open(self) -> None:
        """Start the process."""
        self._mortality = Mortality()
        self.attempts = Attempts(self.link, self.name, self._mortality, ATTEMPT_SECONDS)
        self.store = ResilientStore(
            self.attempts,
            journal=self._journal(),
            retry=RETRY,
            breaker=BREAKER,
            deadline=6.0,
            outage=self._outage,
            on_conflict=self._on_conflict,
            clock=virtual_clock,
        )
        self.store.subscribe(self._heard)

    def _journal(self) -> Journal | None:
        if self.raises:
            return None
        file = None
        if self._lock_path is not None:
            file = StoreFile(DiskHandle(self._disk, self._mortality), self._lock_path)
        return Journal(file=file) if self._max_bytes is None else Journal(self._max_bytes, file=file)

    async def kill(self) -> None:
        """End the process without a word, and start another one."""
        self._history.kills.append((self.name, virtual_clock()))
        self._history.forgetful.add(self.name)
        self.counts["kills"] += 1
        self._history.tell(f"{self.name} is killed", virtual_clock())
        self._collect()
        self._mortality.kill()
        await asyncio.sleep(0)
        await self.store.journal.aclose()  # as the system frees the locks of the dead
        self.open()

    async def reopen(self) -> None:
        """Close the store, and open another one."""
        try:
            await self.store.aclose()
        except StoreUnavailable:
            assert not self.durable
            self.counts["lost_at_close"] += 1
            self._history.lose(self.name)
        else:
            if not self.durable and self.store.journal.depth + len(self.store.journal.quarantined):
                self._laws.breach(1, f"{self.name} closed with writes in memory and did not say so")
        self.counts["closed"] += 1
        self._history.forgetful.add(self.name)
        self._collect()
        self._mortality.kill()
        self.open()

    def _heard(self, event: Event) -> None:
        self._history.tell(f"  {self.name}: {event}", virtual_clock())
        match event:
            case StateChanged(_, new, _):
                self.counts[new.value] += 1
            case ConflictFound(key, kept):
                self.counts[f"conflict: {kept}"] += 1
                self._laws.judge_conflict(self.name, key, virtual_clock())
                self._history.conflict(self.name, key)
            case Quarantined(key, _):
                self.counts["quarantined"] += 1
                self._history.forgetful.add(self.name)
                self._history.conflict(self.name, key)

    def _collect(self) -> None:
        counts = self.store.counts
        for name in ("journaled", "replayed", "superseded", "probes"):
            self.counts[name] += getattr(counts, name)
        self.counts["retries"] += self.store.retries.retries
        self.counts["retries refused"] += self.store.retries.refused

    def at_rest(self) -> bool:
        """Whether everything journaled has reached the primary."""
        return self.store.state is State.HEALTHY and self.store.journal.depth == 0

    def judge_itself(self) -> None:
        """Judge what must hold at every moment."""
        store, journal = self.store, self.store.journal
        size = sum(entry.size for entry in (*journal, *journal.quarantined.values()))
        if not journal.bytes == size <= journal.max_bytes:
            self._laws.breach(7, f"{self.name}: {journal.bytes} bytes for {size} of {journal.max_bytes}")
        if store.state is State.HEALTHY and journal.depth:
            self._laws.breach(8, f"{self.name} is healthy with {journal.depth} keys in its journal")
        if self.attempts.most_pings > 1:
            self._laws.breach(9, f"{self.name} made {self.attempts.most_pings} probes at once")
        allowed = RETRY.budget_floor + RETRY.budget_ratio * store.retries.requests
        if store.retries.retries > allowed:
            self._laws.breach(9, f"{self.name}: {store.retries.retries} retries of {allowed}")
        if self.raises and (journal.depth or journal.bytes or journal.quarantined):
            self._laws.breach(11, f"{self.name} raises, and journals {journal.depth} keys")
