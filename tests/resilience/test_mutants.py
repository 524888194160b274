"""The machine bites: each mutant of our own code, a mistake one could make, breaks an invariant."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from sessionkit.errors import StoreError, StoreUnavailable
from sessionkit.resilience.entries import Entry, Kind
from sessionkit.resilience.journal import Journal
from sessionkit.resilience.local import LocalView
from sessionkit.resilience.recovery import Recovery
from sessionkit.resilience.replaying import Outcome, Replayer
from sessionkit.resilience.rescue import Rescue
from sessionkit.resilience.retrying import RetryBudget
from sessionkit.resilience.states import State
from sessionkit.store import Put, Receipt, Record, Where
from tests.resilience.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sessionkit.store import Absent, Delete, Version


_EXAMPLES: Final = 150
_SEED: Final = 8


def ack_before_journaling(patch: pytest.MonkeyPatch) -> None:
    """A write is acknowledged before the journal's file has it."""
    add = Journal.add

    async def hasty(self: Journal, *entries: Entry) -> None:
        file, self.file = self.file, None
        try:
            await add(self, *entries)
        finally:
            self.file = file

    patch.setattr(Journal, "add", hasty)


def replay_without_base_check(patch: pytest.MonkeyPatch) -> None:
    """What the journal holds is written over whatever is there."""
    write = Replayer._write

    async def blind(self: Replayer, entry: Entry, _: Version | Absent) -> Outcome:
        if entry.kind is Kind.DELETE:
            return await write(self, entry, entry.base)  # type: ignore[arg-type]
        receipt = await self._primary.put(
            entry.key, entry.value, expires_in=self._left(entry), write_id=entry.write_id
        )
        return Outcome("applied", receipt.version, Record(entry.value, receipt.version))

    patch.setattr(Replayer, "_write", blind)


def evict_at_the_bound(patch: pytest.MonkeyPatch) -> None:
    """A full journal drops its oldest entry."""
    add = Journal.add

    async def lossy(self: Journal, *entries: Entry) -> None:
        for old in self:
            if self.bytes + sum(entry.size for entry in entries) <= self.max_bytes:
                break
            self._drop(old.key)
        await add(self, *entries)

    patch.setattr(Journal, "add", lossy)


def life_begins_anew_at_replay(patch: pytest.MonkeyPatch) -> None:
    """A replayed record lives for as long as if it had been written just now."""
    patch.setattr(Replayer, "_left", lambda _, entry: entry.expires_in)


def none_for_unavailable(patch: pytest.MonkeyPatch) -> None:
    """What cannot be asked is not there."""
    get = LocalView.get

    def sure(self: LocalView, key: str) -> Record | None:
        try:
            return get(self, key)
        except StoreUnavailable:
            return None

    patch.setattr(LocalView, "get", sure)


def retry_without_a_budget(patch: pytest.MonkeyPatch) -> None:
    """Every retry is allowed."""

    def generous(self: RetryBudget) -> bool:
        self.retries += 1
        return True

    patch.setattr(RetryBudget, "take", generous)


def deletions_without_a_condition(patch: pytest.MonkeyPatch) -> None:
    """A deletion is replayed over what was written since."""

    async def remove(self: Replayer, entry: Entry, _: object) -> None:
        await self._primary.delete(entry.key)

    patch.setattr(Replayer, "_delete", remove)


def two_probes(patch: pytest.MonkeyPatch) -> None:
    """Whoever finds the circuit open sends a probe of its own."""

    def eager(self: Recovery) -> None:
        if self.state not in {State.HEALTHY, State.DRAINING}:
            self._task = asyncio.get_running_loop().create_task(self._recover())

    patch.setattr(Recovery, "ensure_probing", eager)


def the_journal_is_not_read(patch: pytest.MonkeyPatch) -> None:
    """Reads are answered from the copies alone."""
    get = LocalView.get

    def forgetful(self: LocalView, key: str) -> Record | None:
        copied = self._copied(key)
        return get(self, key) if copied is None else Record(copied.value, copied.version, stale=True)

    patch.setattr(LocalView, "get", forgetful)


def outages_are_hidden_against_orders(patch: pytest.MonkeyPatch) -> None:
    """``outage="raise"`` journals all the same."""

    def hides(_: Rescue, failure: StoreError) -> bool:
        return failure.temporary

    patch.setattr(Rescue, "_hides", hides)


def a_part_is_journaled(patch: pytest.MonkeyPatch) -> None:
    """What is to be all or none is journaled up to what is in the way."""

    async def in_turn(
        self: LocalView, writes: Sequence[Put | Delete], write_id: Version, *, sent: bool = False
    ) -> Receipt:
        for write in writes:
            if isinstance(write, Put):
                await self.put(write._replace(write_id=write_id), sent=sent)
            else:
                await self.delete(*write, sent=sent)
        return Receipt(write_id, Where.JOURNALED)

    patch.setattr(LocalView, "write_all", in_turn)


MUTANTS: Final[tuple[Callable[[pytest.MonkeyPatch], None], ...]] = (
    ack_before_journaling,
    replay_without_base_check,
    evict_at_the_bound,
    life_begins_anew_at_replay,
    none_for_unavailable,
    retry_without_a_budget,
    deletions_without_a_condition,
    two_probes,
    the_journal_is_not_read,
    outages_are_hidden_against_orders,
    a_part_is_journaled,
)


@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__)
def test_a_mutant_is_caught(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    Machine.totals.clear()
    bounded = settings(
        max_examples=_EXAMPLES,
        stateful_step_count=50,
        phases=[Phase.generate],
        derandomize=False,
        database=None,
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(seed(_SEED)(Machine), settings=bounded)
    breach = str(caught.value).splitlines()[0]
    assert breach.startswith("invariant ")
    print(f"seed {_SEED}, {Machine.totals['examples']} examples: {breach}")  # noqa: T201 - for the curious
