"""What is switched on, for each direction of the traffic."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Flag
from typing import Final

from sessionkit.errors import ConfigurationError


class Direction(Flag):
    """Which way bytes go."""

    REQUESTS = 1
    """From the client to the upstream."""
    REPLIES = 2
    """From the upstream to the client."""
    BOTH = REQUESTS | REPLIES


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of one direction.

    Attributes:
        latency: Seconds that each chunk is held back.
        jitter: The most seconds that are added to that at random.
        fragment: The most bytes that are written at once, or None for no bound.
        reset_probability: How likely the connection is reset instead of passing a piece.
        cut_after: After how many more bytes the connection that carries them is reset, or None.
        drop: Of how many more pieces each is swallowed and its connection reset; may be ``math.inf``.
        black_hole: Whether nothing passes.
    """

    latency: float = 0.0
    jitter: float = 0.0
    fragment: int | None = None
    reset_probability: float = 0.0
    cut_after: int | None = None
    drop: float = 0
    black_hole: bool = False


NO_FAULTS: Final = Faults()


class Lane:
    """One direction of all connections.

    Attributes:
        direction: Which one.
        passed: How many bytes were passed on.
    """

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.passed = 0
        self._faults = NO_FAULTS
        self.clear = True

    @property
    def faults(self) -> Faults:
        """What is switched on."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        # An attribute, as it is looked at for every chunk that passes.
        self.clear = faults == NO_FAULTS


@dataclass(slots=True)
class Conditions:
    """What the connections of a proxy share.

    Attributes:
        upstream: Its host and port.
        seed: Where all randomness comes from.
        resets: How many connections were reset by faults.
    """

    upstream: tuple[str, int]
    seed: int
    resets: int = 0
    requests: Lane = field(default_factory=lambda: Lane(Direction.REQUESTS))
    replies: Lane = field(default_factory=lambda: Lane(Direction.REPLIES))

    def lanes(self, direction: Direction) -> list[Lane]:
        """Return the lanes of a direction: one, or with ``BOTH`` two."""
        return [lane for lane in (self.requests, self.replies) if lane.direction in direction]


def require(holds: bool, otherwise: str) -> None:
    """Refuse a switch's argument.

    Raises:
        ConfigurationError: It does not hold; with this message.
    """
    if not holds:
        raise ConfigurationError(otherwise)
