"""Retries: what is tried again, how often, after which pauses, and until when."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.errors import (
    Applied,
    Backpressure,
    ConfigurationError,
    CorruptRecord,
    RecordTooLarge,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
    VersionConflict,
)
from sessionkit.resilience import RetryBudget, RetryPolicy
from sessionkit.resilience.retrying import Retries
from sessionkit.store import ABSENT
from sessionkit.testing.virtual_time import run_in_virtual_time
from tests.resilience.world import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Iterable

MANY = RetryPolicy(attempts=1000, budget_floor=1000)
DEADLINE = 10.0


class Operation:
    """Fails as often as it is given errors, each after some seconds, and notes when it was begun."""

    def __init__(self, errors: Iterable[Exception], seconds: float = 0.0) -> None:
        self._errors = iter(errors)
        self._seconds = seconds
        self.begun: list[float] = []

    async def __call__(self) -> str:
        self.begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self._seconds)
        for error in self._errors:
            raise error
        return "done"


async def repeat(
    operation: Operation,
    first: StoreError,
    policy: RetryPolicy = MANY,
    *,
    deadline: float = DEADLINE,
    elapsed: float = 0.0,
    heard: list[StoreError] | None = None,
) -> str:
    def goes_on(error: StoreError) -> bool:
        if heard is not None:
            heard.append(error)
        return True

    return await Retries(policy, deadline).repeat(first, elapsed, operation, goes_on)


# What is tried again


@in_virtual_time
async def test_what_may_help_is_tried_again_and_every_failure_is_told() -> None:
    errors: list[StoreError] = [StoreUnavailable("1"), StoreTimeout("2"), Backpressure("3")]
    operation = Operation(errors[1:])
    heard: list[StoreError] = []
    assert await repeat(operation, errors[0], heard=heard) == "done"
    assert heard == errors
    assert len(operation.begun) == 3


@pytest.mark.parametrize(
    "error",
    [StoreUnavailable("wrong password", temporary=False), VersionConflict("key", current=ABSENT)],
    ids=lambda error: type(error).__name__,
)
@in_virtual_time
async def test_what_cannot_help_is_raised_at_once(error: StoreError) -> None:
    operation = Operation([])
    heard: list[StoreError] = []
    with pytest.raises(type(error)) as caught:
        await repeat(operation, error, heard=heard)
    assert caught.value is error
    assert heard == []
    assert operation.begun == []


@pytest.mark.parametrize(
    "error", [CorruptRecord("damaged"), RecordTooLarge("too large"), VersionConflict("key", current=ABSENT)]
)
@in_virtual_time
async def test_what_a_later_attempt_meets_ends_it(error: Exception) -> None:
    operation = Operation([error])
    with pytest.raises(type(error)) as caught:
        await repeat(operation, StoreUnavailable("1"))
    assert caught.value is error
    assert len(operation.begun) == 1


@in_virtual_time
async def test_nothing_is_tried_where_the_primary_is_left_alone() -> None:
    operation = Operation([])
    with pytest.raises(StoreUnavailable):
        await Retries(MANY, DEADLINE).repeat(StoreUnavailable("1"), 0.0, operation, lambda _error: False)
    assert operation.begun == []


@pytest.mark.parametrize("attempts", [1, 2, 5])
@in_virtual_time
async def test_the_first_attempt_is_one_of_them(attempts: int) -> None:
    operation = Operation(StoreUnavailable(f"{number}") for number in range(100))
    with pytest.raises(StoreUnavailable):
        await repeat(operation, StoreUnavailable("first"), RetryPolicy(attempts=attempts))
    assert len(operation.begun) == attempts - 1


@given(st.lists(st.sampled_from(Applied), min_size=1, max_size=5))
def test_whether_it_was_applied_is_told_of_all_attempts(told: list[Applied]) -> None:
    first, *later = (StoreUnavailable("", applied=applied) for applied in told)
    with pytest.raises(StoreUnavailable) as caught:
        run_in_virtual_time(repeat(Operation(later), first, RetryPolicy(attempts=len(told))))
    certainly_not = set(told) == {Applied.NO}
    assert caught.value.applied is (Applied.NO if certainly_not else Applied.MAYBE)


# After which pauses


def test_pauses_are_drawn_from_zero_to_a_bound_that_doubles() -> None:
    policy = RetryPolicy(attempts=8, first_pause=0.1, longest_pause=1.0, budget_floor=1000)
    random.seed(7)
    runs = []
    for _ in range(300):
        operation = Operation([StoreUnavailable("again")] * 6)
        run_in_virtual_time(repeat(operation, StoreUnavailable("first"), policy))
        runs.append(
            [
                later - earlier
                for earlier, later in zip([0.0, *operation.begun], operation.begun, strict=False)
            ]
        )
    for pauses, bound in zip(zip(*runs, strict=True), [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0], strict=True):
        assert 0 <= min(pauses) < 0.05 * bound
        assert 0.95 * bound < max(pauses) <= bound * (1 + 1e-9)
        assert 0.4 * bound < sum(pauses) / len(pauses) < 0.6 * bound


# Until when


@given(
    elapsed=st.floats(0, 20),
    seconds=st.floats(0, 15),
    deadline=st.floats(0.01, 15),
    longest_pause=st.floats(0, 5),
)
def test_no_attempt_begins_or_goes_on_after_the_deadline(
    elapsed: float, seconds: float, deadline: float, longest_pause: float
) -> None:
    policy = RetryPolicy(
        attempts=50, first_pause=longest_pause, longest_pause=longest_pause, budget_floor=1000
    )
    operation = Operation((StoreUnavailable("again") for _ in range(1000)), seconds)

    async def run() -> float:
        with pytest.raises(StoreError):
            await repeat(operation, StoreUnavailable("first"), policy, deadline=deadline, elapsed=elapsed)
        return asyncio.get_running_loop().time()

    ended = run_in_virtual_time(run())
    left = max(0.0, deadline - elapsed)
    assert ended <= left + 1e-9
    assert all(begun < left for begun in operation.begun)


@in_virtual_time
async def test_an_attempt_is_cut_at_the_deadline_and_may_have_been_applied() -> None:
    operation = Operation([], seconds=100)
    with pytest.raises(StoreTimeout) as caught:
        await repeat(operation, StoreUnavailable("first"), deadline=5.0, elapsed=1.0)
    assert caught.value.applied is Applied.MAYBE
    assert asyncio.get_running_loop().time() == pytest.approx(4.0)
    assert len(operation.begun) == 1


@in_virtual_time
async def test_a_deadline_that_has_passed_costs_the_budget_nothing() -> None:
    retries = Retries(MANY, DEADLINE)
    with pytest.raises(StoreUnavailable):
        await retries.repeat(StoreUnavailable("first"), DEADLINE, Operation([]), lambda _error: True)
    assert (retries.budget.retries, retries.budget.refused) == (0, 0)


@in_virtual_time
async def test_a_cancel_ends_it() -> None:
    task = asyncio.create_task(repeat(Operation([], seconds=5), StoreUnavailable("first")))
    await asyncio.sleep(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# How often in all


@given(
    floor=st.floats(0, 20),
    ratio=st.floats(0, 2),
    steps=st.lists(st.integers(0, 200) | st.just("take"), max_size=200),
)
def test_retries_stay_within_the_budget(floor: float, ratio: float, steps: list[int | str]) -> None:
    budget = RetryBudget(RetryPolicy(budget_floor=floor, budget_ratio=ratio))
    asked = in_a_row = 0
    for step in steps:
        if isinstance(step, int):
            budget.requests += step
            in_a_row = 0
            continue
        asked += 1
        taken = budget.take()
        in_a_row = in_a_row + 1 if taken else 0
        assert budget.retries <= floor + ratio * budget.requests + 1e-9
        assert in_a_row <= 10 * floor + 1e-9, "what was not used does not add up for ever"
        assert budget.retries + budget.refused == asked
        if not taken:
            # Refused for a reason: without a cap there would be less than one, and the cap never takes more
            # than it lets stand.
            assert floor + ratio * budget.requests - budget.retries < 1 or ratio * budget.requests > 9 * floor


@given(attempts=st.integers(1, 6), operations=st.integers(1, 60))
def test_a_dead_server_gets_no_more_than_the_budget(attempts: int, operations: int) -> None:
    policy = RetryPolicy(attempts=attempts, budget_floor=5, budget_ratio=0.1)
    retries = Retries(policy, DEADLINE)
    made = []

    async def fail(operation: int) -> None:
        made.append(operation)
        raise StoreUnavailable("dead")

    async def run() -> None:
        for operation in range(operations):
            retries.budget.requests += 1
            with pytest.raises(StoreUnavailable):
                await retries.repeat(
                    StoreUnavailable("dead"), 0.0, partial(fail, operation), lambda _error: True
                )

    run_in_virtual_time(run())
    assert len(made) == retries.budget.retries <= 5 + 0.1 * operations
    assert len(made) <= operations * (attempts - 1)
    if retries.budget.refused == 0:
        assert len(made) == operations * (attempts - 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"first_pause": -1.0},
        {"longest_pause": float("nan")},
        {"budget_floor": -0.1},
        {"budget_ratio": float("nan")},
    ],
)
def test_what_is_no_policy_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RetryPolicy(**wrong)  # type: ignore[arg-type]  # one of them is an int
