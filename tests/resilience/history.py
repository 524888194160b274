"""What clients asked, what they were told, and what the primary did: all in one order."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from tests.resilience.recording import Change, shown

if TYPE_CHECKING:
    import asyncio

    from sessionkit.store import Absent, Version


class Fate(Enum):
    """What a client was told of its operation."""

    PENDING = "nothing yet"
    DONE = "acknowledged"
    JOURNALED = "acknowledged into the journal"
    REFUSED = "not applied"
    UNKNOWN = "maybe applied"


ACKNOWLEDGED = frozenset({Fate.DONE, Fate.JOURNALED})
POSSIBLE = frozenset({Fate.PENDING, Fate.DONE, Fate.JOURNALED, Fate.UNKNOWN})


@dataclass(eq=False, repr=False)
class Operation:
    """One client's operation on one key.

    Attributes:
        renews: Whether it sets when the record ends.
        begun: Its first tick, and ``ended`` its last one.
        begun_at: When that was, in seconds.
    """

    instance: str
    key: str
    kind: Literal["get", "put", "delete", "touch"]
    version: Version | None = None
    value: bytes = b""
    if_version: Version | Absent | None = None
    expires_in: float | None = None
    renews: bool = False
    begun: int = 0
    begun_at: float = 0.0
    ended: int | None = None
    ended_at: float = 0.0
    fate: Fate = Fate.PENDING
    checked: bool = False

    def __repr__(self) -> str:
        version = "" if self.version is None else f" {shown(self.version)}"
        condition = "" if self.if_version is None else f" if {shown(self.if_version)}"
        life = f" for {self.expires_in} s" if self.renews else ""
        return f"{self.instance}.{self.kind}({self.key}{version}{condition}{life}) #{self.begun}"

    def overlaps(self, tick: int) -> bool:
        """Whether it was not over at this tick."""
        return self.ended is None or self.ended > tick

    def earliest_end(self) -> float:
        """Return the first moment at which the record may end by this operation."""
        return math.inf if self.expires_in is None else self.begun_at + self.expires_in

    def latest_end(self, now: float) -> float:
        """Return the last such moment."""
        at = now if self.ended is None else self.ended_at
        return math.inf if self.expires_in is None else at + self.expires_in


@dataclass(eq=False)
class Request:
    """The operations that a client asked for in one call, and whether the primary answered them."""

    operations: list[Operation]
    task: asyncio.Task[Any] | None = None
    answered: set[str] = field(default_factory=set)
    answered_all: bool = False

    def asked_primary(self, key: str) -> bool:
        return self.answered_all or key in self.answered


class History:
    """Everything that happened in one run of the machine.

    Attributes:
        changes: What the primary did.
        operations: What was asked, by instance and key.
        written: The put of each version of a key; writes that are all or none share one.
        applied: The changes that made it.
        seen: At which tick an instance first had a version of a key in its hands.
        told: The same, with the versions that were only named in conflicts.
        resets: When an instance was last told that its writes of a key may be gone.
        conflicts: When those were reported conflicts.
        removed: At which tick it was deleted.
        kills: Which instance was killed when, in seconds.
        lost: At which tick an instance was told that its journal is gone.
        forgetful: The instances that lost some of what they knew of the primary.
        epoch: How many failovers there were.
        story: All of it in words.
    """

    def __init__(self) -> None:
        self.now = 0
        self.changes: list[Change] = []
        self.last: dict[str, Change] = {}
        self.operations: defaultdict[tuple[str, str], list[Operation]] = defaultdict(list)
        self.written: dict[tuple[str, Version], Operation] = {}
        self.applied: defaultdict[tuple[str, Version], list[Change]] = defaultdict(list)
        self.seen: defaultdict[tuple[str, str], dict[Version, int]] = defaultdict(dict)
        self.told: defaultdict[tuple[str, str], set[Version]] = defaultdict(set)
        self.resets: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.conflicts: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.removed: dict[tuple[str, Version], int] = {}
        self.kills: list[tuple[str, float]] = []
        self.forgetful: set[str] = set()
        self.lost: defaultdict[str, int] = defaultdict(int)
        self.epoch = 0
        self.story: list[str] = []
        self._checkpoint = 0

    def tick(self) -> int:
        self.now += 1
        return self.now

    def tell(self, text: str, at: float) -> None:
        """Add to the story."""
        self.story.append(f"{at % 100_000:9.3f} #{self.now} {text}")

    def begin(self, operation: Operation, now: float) -> None:
        operation.begun = self.tick()
        operation.begun_at = now
        self.operations[operation.instance, operation.key].append(operation)
        self.tell(f"{operation}...", now)
        if operation.version is not None:
            self.written[operation.key, operation.version] = operation

    def end(self, operation: Operation, fate: Fate, now: float) -> None:
        operation.ended = self.tick()
        operation.ended_at = now
        operation.fate = fate
        self.tell(f"{operation}: {fate.value}", now)
        if operation.version is not None:
            self.see(operation.instance, operation.key, operation.version)

    def see(self, instance: str, key: str, version: Version) -> None:
        self.seen[instance, key].setdefault(version, self.tick())
        self.told[instance, key].add(version)

    def last_seen(self, instance: str, key: str) -> Version | None:
        seen = self.seen[instance, key]
        return next(reversed(seen)) if seen else None

    def change(self, at: float, kind: Any, key: str, version: Version, *rest: Any) -> Change:
        replaced, if_version, expires_at, call = rest
        change = Change(
            self.tick(), at, kind, key, version, replaced, if_version, expires_at, call, self.epoch
        )
        self.changes.append(change)
        self.last[key] = change
        self.tell(f"    {change}", at)
        return change

    def conflict(self, instance: str, key: str) -> None:
        self.conflicts[instance, key] = self.resets[instance, key] = self.tick()

    def lose(self, instance: str) -> None:
        """Take note that an instance was told that what it had journaled is gone."""
        self.lost[instance] = self.tick()
        for name, key in self.operations:
            if name == instance:
                self.resets[name, key] = self.now

    def checkpoint(self) -> None:
        self._checkpoint = self.tick()

    def roll_back(self) -> None:
        """Take note that a failover took the primary back to the checkpoint."""
        self.epoch += 1
        self.tick()
        for place in self.operations:
            self.resets[place] = self.now
        self.removed = {made: tick for made, tick in self.removed.items() if tick < self._checkpoint}

    def acknowledged(self, instance: str, key: str) -> Operation | None:
        """Return the last acknowledged put or deletion."""
        done = (
            operation
            for operation in self.operations[instance, key]
            if operation.kind in {"put", "delete"} and operation.fate in ACKNOWLEDGED
        )
        return max(done, key=lambda operation: operation.begun, default=None)

    def unanswered(self, key: str, version: Version, epoch: int) -> bool:
        """Return whether nobody who had sent this write has learned that it was applied.

        Then it may be applied again once its record is gone, as a store remembers nothing of what is not
        there. An answer that a process took with it into its death is no answer.
        """
        return not any(
            change.call.answered
            and not any(
                name == change.call.instance and change.at <= at <= change.at + 1 for name, at in self.kills
            )
            for change in self.applied[key, version]
            if change.epoch == epoch
        )
