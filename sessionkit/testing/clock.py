"""A clock that moves when told to."""

from __future__ import annotations

from typing import Final

START: Final = 1_750_000_000.0


class ManualClock:
    """A ``Clock`` that stands still until ``advance`` is called.

    Args:
        now: Seconds since the Unix epoch at which it starts.
    """

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time it shows, in seconds since the Unix epoch."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move it by this many seconds; a negative number moves it back."""
        self.now += seconds
