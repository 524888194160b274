"""The invariants of a degraded store, by their numbers, checked against the history."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sessionkit.store import Version
from tests.resilience.history import ACKNOWLEDGED, POSSIBLE, Fate, History, Operation
from tests.resilience.recording import NOBODY, Change

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sessionkit.store import Record

_TOLERANCE = 0.002
"""Seconds: what is left of a life is rounded up to whole milliseconds."""


class Laws:
    """Judges what happens; what breaks a law is kept, as the code under test may swallow an exception.

    Args:
        history: What happened.
        resolving: The instances that do not leave conflicts to the primary.

    Attributes:
        broken: What broke a law.
        exempt: How often something happened that the design does not rule out, by its name.
    """

    def __init__(self, history: History, resolving: Collection[str] = ()) -> None:
        self._history = history
        self._resolving = resolving
        self.broken: list[str] = []
        self.exempt: Counter[str] = Counter()
        self._latest: dict[tuple[str, str, int], Operation] = {}

    def breach(self, number: int, text: str) -> None:
        self.broken.append(f"invariant {number}: {text}")

    # What the primary did.

    def tell(self, *what: Any) -> None:
        """Take note of a change of the primary, and judge it."""
        change = self._history.change(*what)
        if change.call is not NOBODY:
            if change.kind == "put":
                self._judge_put(change)
            self._judge_condition(change)
            if not change.call.late:
                self._judge_life(change)
        if change.kind == "put":
            self._history.applied[change.key, change.version].append(change)
            # What is based on it now is based on what is there.
            self._history.removed.pop((change.key, change.version), None)
        elif change.kind == "delete":
            self._history.removed[change.key, change.version] = change.tick

    def _judge_put(self, change: Change) -> None:
        written = self._history.written.get((change.key, change.version))
        if written is None:
            if change.call.instance not in self._resolving:
                self.breach(3, f"{change} writes what nobody asked for")
            return
        if written.fate is Fate.REFUSED:
            self.breach(10, f"{change} applies a write that was said not to be applied")
        self._judge_repetition(change)
        self._judge_ancestors(change)
        self._judge_order(change, written)

    def _judge_repetition(self, change: Change) -> None:
        applied = self._history.applied[change.key, change.version]
        before = [other for other in applied if other.epoch == change.epoch]
        if not before:
            return
        if self._history.unanswered(change.key, change.version, change.epoch):
            self.exempt["applied again, as no answer had come and the record was gone"] += 1
        elif change.call.late:
            self.exempt["applied again by the network"] += 1
        else:
            self.breach(4, f"{change} applies a write again: {before}")

    def _judge_ancestors(self, change: Change) -> None:
        if change.call.instance in self._resolving or change.call.late:
            return
        put_back = -1
        key = change.key
        for version in self._ancestors(key, change.version):
            by_policy = [
                other.tick
                for other in self._history.applied[key, version]
                if other.call.instance in self._resolving
            ]
            put_back = max([put_back, *by_policy])
            removed = self._history.removed.get((key, version))
            if removed is None:
                continue
            if removed < put_back:
                self.exempt["a deletion undone by a policy, and the value read since"] += 1
                continue
            written = self._history.written.get((key, version))
            ours = written is not None and written.instance == change.call.instance
            if ours and self._history.unanswered(key, version, change.epoch):
                self.exempt["a deletion undone, as no answer had come"] += 1
            else:
                self.breach(3, f"{change} brings back what came from {version!r}, which was deleted")

    def _ancestors(self, key: str, version: Version) -> Iterator[Version]:
        current: object = version
        while isinstance(current, bytes):
            yield Version(current)
            written = self._history.written.get((key, Version(current)))
            current = None if written is None else written.if_version

    def _judge_order(self, change: Change, written: Operation) -> None:
        if change.call.late:
            return
        place = written.instance, written.key, change.epoch
        latest = self._latest.get(place)
        if latest is not None and written.ended is not None and latest.begun > written.ended:
            self.breach(5, f"{change} comes after {latest}, which was asked for later")
        if latest is None or latest.begun < written.begun:
            self._latest[place] = written

    def _judge_condition(self, change: Change) -> None:
        """Others' writes are replaced only by those who know them, or who asked for that."""
        instance, key = change.call.instance, change.key
        if isinstance(change.if_version, bytes):
            own = {operation.version for operation in self._history.operations[instance, key]}
            known = own | self._history.told[instance, key]
            if change.if_version not in known and instance not in self._resolving:
                self.breach(3, f"{change} goes over what {instance} has never seen")
        elif change.if_version is None and not change.call.late:
            if change.kind == "put":
                asked = self._history.written.get((change.key, change.version))
                asks = [] if asked is None else [asked]
            else:
                asks = [] if change.call.request is None else change.call.request.operations
            if not any(
                operation.key == key and operation.if_version is None and operation.ended is None
                for operation in asks
            ):
                self.breach(3, f"{change} has no condition, and is no client's doing")

    def _judge_life(self, change: Change) -> None:
        operations = self._history.operations[change.call.instance, change.key]
        written = self._history.written.get((change.key, change.version)) if change.kind == "put" else None
        since = 0 if written is None else written.begun
        ends = [
            operation.latest_end(change.at)
            for operation in operations
            if operation.fate in POSSIBLE
            and operation.overlaps(since)
            and (operation is written or operation.renews)
        ]
        # What is left of a life is told relative to now, so that it comes to that later by as long as the
        # telling takes.
        on_the_way = change.at - change.call.began
        if change.kind != "delete" and ends and change.expires_at > max(ends) + on_the_way + _TOLERANCE:
            self.breach(6, f"{change} outlives what was asked for, {max(ends)}")

    # What clients were told.

    def judge_read(
        self, operation: Operation, record: Record | None, *, answered: bool, there: bool, now: float
    ) -> None:
        """Judge an answer: a record, or that there is none.

        Args:
            operation: What was asked; over.
            record: The record.
            answered: Whether the primary was asked for it.
            there: Whether the primary has a record now.
            now: Seconds.
        """
        last = self._history.acknowledged(operation.instance, operation.key)
        place = operation.instance, operation.key
        bound = last is not None and last.ended is not None and last.ended > self._history.resets[place]
        if last is not None and last.ended is not None and last.ended > operation.begun:
            bound = False  # it was asked meanwhile
        if record is not None:
            written = self._history.written.get((operation.key, record.version))
            if written is not None and written.value != record.value:
                self.breach(2, f"{operation} read {record}, which is not what was written")
            if bound and last is not None and self._is_older(record.version, last):
                self.breach(2, f"{operation} read {record}, and {last} had been acknowledged")
        elif not self._gone_by_own(operation, now):
            if not answered:
                self.breach(2, f"{operation} was answered None without asking")
            elif bound and not (self._gone_by_others(operation) and not there):
                self.breach(2, f"{operation} was answered None, and {last} had been acknowledged")

    def _is_older(self, version: Version, last: Operation) -> bool:
        if version == last.version:
            return False
        place = last.instance, last.key
        written = self._history.written.get((last.key, version))
        if written is not None and written.instance == last.instance:
            known = written.ended is not None and written.ended < last.begun
        else:
            known = self._history.seen[place].get(version, last.begun) < last.begun
        again = any(
            change.tick > last.begun and (change.call.late or change.call.instance != last.instance)
            for change in self._history.applied[last.key, version]
        )
        return known and not again

    def _gone_by_own(self, read: Operation, now: float) -> bool:
        """Return whether the instance's own operations explain that there is no record."""
        operations = self._history.operations[read.instance, read.key]
        last = self._history.acknowledged(read.instance, read.key)
        if last is not None and last.kind == "delete":
            return True
        since = 0 if last is None else last.begun
        after = [
            operation
            for operation in operations
            if operation is not read and operation.fate in POSSIBLE and operation.overlaps(since)
        ]
        if any(operation.kind == "delete" for operation in after):
            return True
        renewed = [
            operation.begun
            for operation in after
            if operation.fate in ACKNOWLEDGED and (operation is last or operation.renews)
        ]
        since = max(renewed, default=0)
        return any(
            operation.earliest_end() <= now + _TOLERANCE
            for operation in after
            if (operation is last or operation.renews or operation.kind == "put")
            and operation.overlaps(since)
        )

    def _gone_by_others(self, read: Operation) -> bool:
        change = self._history.last.get(read.key)
        return change is not None and (change.call.late or change.call.instance != read.instance)

    def judge_refusal(self, operation: Operation) -> None:
        """Judge that an operation was said not to be applied."""
        if operation.version is not None and self._history.applied[operation.key, operation.version]:
            self.breach(10, f"{operation} was said not to be applied, and was")
        deleted = (
            change
            for change in self._history.changes
            if change.tick > operation.begun
            and change.kind == "delete"
            and change.if_version is None
            and change.call.request is not None
            and operation in change.call.request.operations
            and change.key == operation.key
        )
        if operation.kind == "delete" and any(deleted):
            self.breach(10, f"{operation} was said not to be applied, and was")

    def judge_conflict(self, instance: str, key: str, now: float) -> None:
        """Judge a reported conflict: there must be somebody, or something, that it is with."""
        operations = self._history.operations[instance, key]
        others = any(
            change.key == key and (change.call.late or change.call.instance != instance)
            for change in self._history.changes
        )
        unsure = any(operation.fate is Fate.UNKNOWN for operation in operations)
        at_once = any(one.overlaps(two.begun) for one, two in pairwise(operations))
        ended = any(operation.earliest_end() <= now for operation in operations)
        if not (others or unsure or at_once or ended or instance in self._history.forgetful):
            self.breach(4, f"{instance} reports a conflict on {key}, and has written all of it itself")

    # What became of it all.

    def judge_ends(self, instance: str, now: float) -> None:
        """Judge that every acknowledged write of an instance, which is at rest, has come to an end."""
        for (name, key), operations in self._history.operations.items():
            if name != instance:
                continue
            writes = [other for other in operations if other.kind in {"put", "delete"}]
            for operation in operations:
                if operation.checked or operation.kind != "put" or operation.fate not in ACKNOWLEDGED:
                    continue
                operation.checked = True
                assert operation.ended is not None
                reported = max(self._history.conflicts[name, key], self._history.lost[name])
                ended = (
                    self._history.applied[key, operation.version or Version(b"")]
                    or any(
                        other is not operation and other.fate in POSSIBLE and other.overlaps(operation.begun)
                        for other in writes
                    )
                    or operation.earliest_end() <= now
                    or any(
                        other.renews and other.overlaps(operation.begun) and other.earliest_end() <= now
                        for other in operations
                        if other.fate in POSSIBLE
                    )
                    or reported > operation.ended
                )
                if not ended:
                    self.breach(1, f"{operation} was acknowledged and has come to no end")
