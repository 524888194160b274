"""What a process knows of an update while that is in its hands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessionkit.ptb.user_updates import PendingUpdate


@dataclass(slots=True, eq=False)
class InHand:
    """An update that is queued or processed here.

    Attributes:
        stored: Whether it was stored, and would be found if it still waited.
        queued: Whether it is queued here; else it is processed before one that is, or out of PTB's queue.
        counted: Whether it may be begun: it came here first, or the attempt is counted.
        counting: Which attempt is being counted; None: none.
        failures: How often it has failed.
        faults: How often that was its own fault.
        guests: The numbers of those that were to be processed before it, and may not have been queued here.
    """

    stored: bool = True
    queued: bool = True
    counted: bool = False
    counting: int | None = None
    failures: int = 0
    faults: int = 0
    guests: set[int] = field(default_factory=set)

    def count(self, entry: PendingUpdate) -> int:
        """Return which attempt begins: the same again where its count may have been stored."""
        if self.counting is None or self.counting < entry.attempts:
            return entry.attempts + 1
        return self.counting
