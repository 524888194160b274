"""Whether and when a failed operation is tried again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_any, wait_random_exponential
from tenacity.stop import stop_base

from sessionkit.errors import Applied, ConfigurationError, StoreError, StoreTimeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tenacity import RetryCallState

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often a failed operation is tried again, and after which pauses.

    A pause is drawn anew each time, from 0 up to a bound that doubles ("Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015). All operations share one budget, so that retries cannot multiply the load on a
    server that is overloaded ("Handling Overload", Site Reliability Engineering, 2016).

    Attributes:
        attempts: The most attempts of one operation, the first included.
        first_pause: The bound of the first pause, in seconds.
        longest_pause: The largest bound, in seconds.
        budget_floor: Retries that are allowed whatever the number of requests.
        budget_ratio: Retries allowed for each request besides; what is not used adds up to at most ten times
            the floor.
    """

    attempts: int = 3
    first_pause: float = 0.05
    longest_pause: float = 1.0
    budget_floor: float = 10.0
    budget_ratio: float = 0.1

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigurationError(f"retry: attempts is 1 or more, not {self.attempts!r}")
        for name in ("first_pause", "longest_pause", "budget_floor", "budget_ratio"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(f"retry: {name} is 0 or more, not {getattr(self, name)!r}")
        if self.first_pause > self.longest_pause:
            raise ConfigurationError(
                f"retry: first_pause is at most longest_pause, not {self.first_pause!r} before"
                f" {self.longest_pause!r}"
            )


class RetryBudget:
    """A bucket of tokens: each retry takes one, each request puts a part of one in.

    Attributes:
        requests: How many requests there were; whoever makes one counts it here.
        retries: How many retries were allowed.
        refused: How many were not.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._ratio = policy.budget_ratio
        self._most = policy.budget_floor * 10
        self._tokens = policy.budget_floor
        self._counted = 0
        self.requests = 0
        self.retries = 0
        self.refused = 0

    def __repr__(self) -> str:
        return (
            f"RetryBudget(requests={self.requests}, retries={self.retries}, refused={self.refused},"
            f" left={self._tokens:.1f})"
        )

    def take(self) -> bool:
        """Take a token for one retry, and return whether there was one."""
        earned = self._ratio * (self.requests - self._counted)
        self._counted = self.requests
        self._tokens = min(self._most, self._tokens + earned)
        if self._tokens < 1:
            self.refused += 1
            return False
        self._tokens -= 1
        self.retries += 1
        return True


class _StopOver(stop_base):
    """Ends the attempts once the budget has no token for another one."""

    def __init__(self, budget: RetryBudget) -> None:
        self._budget = budget

    def __call__(self, retry_state: RetryCallState) -> bool:
        return not self._budget.take()


class _StopBefore(stop_base):
    """Ends the attempts where the next one could not end in time.

    Args:
        ends: The deadline, by the event loop's clock.
        lasts: Gives how many seconds the next attempt is likely to take.
    """

    def __init__(self, ends: float, lasts: Callable[[], float]) -> None:
        self._ends = ends
        self._lasts = lasts

    def __call__(self, retry_state: RetryCallState) -> bool:
        begins = asyncio.get_running_loop().time() + retry_state.upcoming_sleep
        return begins + self._lasts() >= self._ends


class Retries:
    """Repeats what has failed once, as far as its policy, its budget and its deadline allow.

    Args:
        policy: How often, and after which pauses.
        deadline: Seconds that an operation may take with all its attempts.

    Attributes:
        budget: What all operations share.
    """

    def __init__(self, policy: RetryPolicy, deadline: float) -> None:
        self._policy = policy
        self._deadline = deadline
        self.budget = RetryBudget(policy)

    async def repeat(
        self,
        first: StoreError,
        elapsed: float,
        operation: Callable[[], Awaitable[T]],
        goes_on: Callable[[StoreError], bool],
        *,
        cut: bool = True,
    ) -> T:
        """Return what a later attempt returns.

        Args:
            first: How the first attempt failed.
            elapsed: How many seconds that took.
            operation: Makes one attempt; safe to repeat.
            goes_on: Told of each failure, also the first one; whether another attempt makes sense.
            cut: Whether the deadline ends an attempt that is under way, too.

        Raises:
            StoreError: The last attempt's error, where there may be no further one.
        """
        clock = asyncio.get_running_loop().time
        ends = clock() + self._deadline - elapsed
        # Who has not answered once will hardly answer sooner the next time.
        silence = elapsed if isinstance(first, StoreTimeout) else 0.0
        untold: StoreError | None = first
        maybe = first.applied is not Applied.NO

        async def attempt() -> T:
            nonlocal untold, maybe, silence
            if untold is not None:
                error, untold = untold, None
                raise error
            started = clock()
            try:
                async with asyncio.timeout_at(ends if cut else None):
                    return await operation()
            except TimeoutError:
                maybe = True
                raise StoreTimeout("no answer within the deadline", applied=Applied.MAYBE) from None
            except StoreError as error:
                maybe |= error.applied is not Applied.NO
                silence = clock() - started if isinstance(error, StoreTimeout) else 0.0
                raise

        def worth_another(error: BaseException) -> bool:
            return isinstance(error, StoreError) and error.temporary and goes_on(error)

        retrying = AsyncRetrying(
            # The budget is asked last, as it is charged for its answer.
            stop=stop_any(
                stop_after_attempt(self._policy.attempts),
                _StopBefore(ends, lambda: silence),
                _StopOver(self.budget),
            ),
            wait=wait_random_exponential(multiplier=self._policy.first_pause, max=self._policy.longest_pause),
            retry=retry_if_exception(worth_another),
            sleep=asyncio.sleep,
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except StoreError as error:
            if maybe:
                error.applied = Applied.MAYBE
            raise
