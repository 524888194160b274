"""What a ``ChaosStore`` does to each operation, switched on and off."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from sessionkit.errors import Applied, SessionKitError, StoreError, StoreTimeout, StoreUnavailable
from sessionkit.testing.chaos.faults import require

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

T = TypeVar("T")

_RANDOM_KINDS: Final = ("refuse", "lose_requests", "lose_replies")


@dataclass(frozen=True, slots=True)
class _On:
    """What is switched on; each field is named after its switch."""

    refuse: StoreError | None = None
    lose_requests: float = 0
    lose_replies: float = 0
    latency: float = 0.0
    jitter: float = 0.0
    fail_randomly: float = 0.0
    hang: bool = False
    fail_key: Mapping[str, SessionKitError] = field(default_factory=dict)


class Mishap(NamedTuple):
    """What an operation, or one put of a batch, meets: its error, and whether it is applied all the same."""

    error: SessionKitError
    applied: bool


class _Held(NamedTuple):
    """An operation that hangs; its caller has given up once ``dropped`` is cancelled."""

    dropped: asyncio.Future[bool]
    go_on: Callable[[], Awaitable[object]] | None


class StoreSwitches:
    """The switches of a ``ChaosStore``. Faults add up and last until ``heal``.

    Each operation first waits (``latency``), then hangs (``hang``), then meets one of ``refuse``,
    ``lose_requests``, ``lose_replies``, ``fail_randomly`` and ``fail_key``, in this order. What is random is
    drawn for each operation from the seed and the operation's number, so that the same calls meet the same
    faults.

    Attributes:
        seed: What all randomness comes from.
        operations: How many operations were begun.
        faults: How often each fault was met, by the name of its method; those of ``fail_randomly`` count
            under what they did.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = random.SystemRandom().randrange(2**32) if seed is None else seed
        self.operations = 0
        self.faults: Counter[str] = Counter()
        self._on = _On()
        self._held: list[_Held] = []
        self._late: set[asyncio.Task[None]] = set()

    def refuse(self, error: StoreError | None = None) -> None:
        """Refuse every operation before it reaches the inner store.

        Args:
            error: What each raises, a copy each time; by default a ``StoreUnavailable`` that is temporary
                and says ``applied=NO``.
        """
        self._on = replace(self._on, refuse=self._refusal() if error is None else error)

    def lose_replies(self, count: int | None = None) -> None:
        """Apply operations, and raise ``StoreTimeout`` with ``applied=MAYBE``, whatever their outcome was.

        Args:
            count: For how many operations; None for all, 0 ends this fault.

        Raises:
            ConfigurationError: ``count`` is negative.
        """
        self._on = replace(self._on, lose_replies=_count("lose_replies", count))

    def lose_requests(self, count: int | None = None) -> None:
        """Apply nothing, and raise ``StoreTimeout`` with ``applied=MAYBE``: nobody can tell the two apart.

        Args:
            count: For how many operations; None for all, 0 ends this fault.

        Raises:
            ConfigurationError: ``count`` is negative.
        """
        self._on = replace(self._on, lose_requests=_count("lose_requests", count))

    def latency(self, seconds: float, jitter: float = 0.0) -> None:
        """Make each operation wait before it is applied. One that is cancelled meanwhile is not applied.

        Args:
            seconds: For how many seconds, by the event loop's clock; 0 ends this fault.
            jitter: The most seconds that are added at random.

        Raises:
            ConfigurationError: A number is negative or not finite.
        """
        for name, value in (("seconds", seconds), ("jitter", jitter)):
            require(0 <= value < math.inf, f"latency: {name} must be 0 or more seconds, not {value!r}")
        self._on = replace(self._on, latency=seconds, jitter=jitter)

    def fail_randomly(self, probability: float) -> None:
        """Do to an operation as ``refuse``, ``lose_requests`` or ``lose_replies`` does, at random.

        Of a ``put_many`` each put is drawn for by itself, so that a batch is half applied.

        Args:
            probability: How likely, for each operation; 0 ends this fault.

        Raises:
            ConfigurationError: ``probability`` is not within 0 and 1.
        """
        require(0 <= probability <= 1, f"fail_randomly: a probability is within 0 and 1, not {probability!r}")
        self._on = replace(self._on, fail_randomly=probability)

    def hang(self) -> None:
        """Let operations wait until ``heal``, which decides what becomes of them."""
        self._on = replace(self._on, hang=True)

    def fail_key(self, key: str, error: SessionKitError) -> None:
        """Make each operation that names this key fail; of a ``put_many``, the puts of this key.

        Args:
            key: A record's key, or a lock's.
            error: What is raised, a copy each time.
        """
        self._on = replace(self._on, fail_key={**self._on.fail_key, key: error})

    def heal(self, *, drop: bool = False) -> None:
        """End all faults. What hangs is applied now, in the order it came.

        That includes what its caller has given up by then, by a timeout or a cancel: a late write, whose
        answer goes to nobody. Locks, scans and pings that were given up are forgotten.

        Args:
            drop: Apply nothing of what hangs; it raises ``StoreTimeout`` with ``applied=MAYBE``.
        """
        self._on = _On()
        held, self._held = self._held, []
        for dropped, go_on in held:
            if not dropped.done():
                dropped.set_result(drop)
            elif go_on is not None and not drop:
                late = dropped.get_loop().create_task(_unheard(go_on))
                self._late.add(late)
                late.add_done_callback(self._late.discard)

    async def _meet(self, serve: Callable[[random.Random], Awaitable[T]], *, late: bool = True) -> T:
        """Carry out an operation past everything that concerns it as a whole.

        Args:
            serve: Does it, given what its random faults draw from.
            late: Whether it may be done after its caller gave up.
        """
        self.operations += 1
        chance = random.Random(f"{self.seed}/{self.operations}")
        on = self._on
        if on.latency or on.jitter:
            self.faults["latency"] += 1
            await asyncio.sleep(on.latency + chance.uniform(0.0, on.jitter))
        reach = partial(self._reach, serve, chance)
        if self._on.hang:
            self.faults["hang"] += 1
            held = _Held(asyncio.get_running_loop().create_future(), reach if late else None)
            self._held.append(held)
            if await held.dropped:
                raise self._timeout()
        return await reach()

    async def _reach(self, serve: Callable[[random.Random], Awaitable[T]], chance: random.Random) -> T:
        return await suffer(self._switched_on(), lambda: serve(chance))

    async def _meet_once(
        self, call: Callable[[], Awaitable[T]], keys: Iterable[str] = (), *, late: bool = True
    ) -> T:
        """Carry out an operation that succeeds or fails as a whole; see ``_meet``.

        Args:
            call: Does it.
            keys: What it names.
            late: Whether it may be done after its caller gave up.
        """
        return await self._meet(lambda chance: suffer(self._mishap(keys, chance), call), late=late)

    def _mishap(self, keys: Iterable[str], chance: random.Random) -> Mishap | None:
        """Return what an operation that names these keys, or one put of a batch, meets by itself."""
        if self._on.fail_randomly and chance.random() < self._on.fail_randomly:
            return self._mishap_of_kind(chance.choice(_RANDOM_KINDS))
        for key in keys:
            error = self._on.fail_key.get(key)
            if error is not None:
                self.faults["fail_key"] += 1
                return Mishap(_copy(error), applied=False)
        return None

    def _switched_on(self) -> Mishap | None:
        on = self._on
        if on.refuse is not None:
            return self._mishap_of_kind("refuse")
        if on.lose_requests:
            self._on = replace(on, lose_requests=on.lose_requests - 1)
            return self._mishap_of_kind("lose_requests")
        if on.lose_replies:
            self._on = replace(on, lose_replies=on.lose_replies - 1)
            return self._mishap_of_kind("lose_replies")
        return None

    def _mishap_of_kind(self, kind: str) -> Mishap:
        self.faults[kind] += 1
        if kind == "refuse":
            return Mishap(_copy(self._on.refuse or self._refusal()), applied=False)
        return Mishap(self._timeout(), applied=kind == "lose_replies")

    def _refusal(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self!r} refuses to work")

    def _timeout(self) -> StoreTimeout:
        return StoreTimeout(f"{self!r} did not answer", applied=Applied.MAYBE)


async def suffer(mishap: Mishap | None, call: Callable[[], Awaitable[T]]) -> T:
    """Do what is asked, or what the mishap makes of it."""
    if mishap is None:
        return await call()
    if mishap.applied:
        # Whatever came of it, the answer is lost.
        with suppress(SessionKitError):
            await call()
    raise mishap.error


async def _unheard(go_on: Callable[[], Awaitable[object]]) -> None:
    with suppress(SessionKitError):
        await go_on()


def _count(fault: str, count: int | None) -> float:
    require(count is None or count >= 0, f"{fault}: count must be 0 or more, not {count!r}")
    return math.inf if count is None else count


def _copy(error: SessionKitError) -> SessionKitError:
    # Not copy.copy: it calls the constructor with the message alone, and some need more.
    copied = type(error).__new__(type(error), *error.args)
    copied.__dict__.update(error.__dict__)
    return copied
