"""The states of a resilient store, and what it tells its subscribers."""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, TypeAlias

from sessionkit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("sessionkit.resilience")


class State(Enum):
    """Where a resilient store stands with its primary.

    ::

        HEALTHY → OPEN → PROBING → REPLAYING → HEALTHY
        OPEN → SATURATED → PROBING      any → DRAINING
        PROBING, REPLAYING → OPEN       where the primary fails again; SATURATED if the journal is full
    """

    HEALTHY = "healthy"
    """Every operation goes to the primary."""
    OPEN = "open"
    """The primary is left alone; writes are journaled, reads are answered from what is known here."""
    PROBING = "probing"
    """One probe asks whether the primary is back; everybody else is served as in ``OPEN``."""
    REPLAYING = "replaying"
    """The journal is being written to the primary, which serves every key that is not in it."""
    SATURATED = "saturated"
    """As ``OPEN``, with the journal full: writes that need room in it raise ``JournalFull``."""
    DRAINING = "draining"
    """Closing: what is journaled is written while there is time, and nothing new is taken."""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The store went from one state to another.

    Attributes:
        old: The state it was in.
        new: The state it is in now.
        reason: Why, in words.
    """

    old: State
    new: State
    reason: str


@dataclass(frozen=True, slots=True)
class ConflictFound:
    """A journaled write met something else on the primary than what it was based on.

    Attributes:
        key: The record's key.
        kept: What stands now: the primary's record, the journaled write, or what ``merge`` made of them.
    """

    key: str
    kept: Literal["primary", "local", "merged"]


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A journaled write was set aside because the primary refuses it for a reason that lasts.

    Attributes:
        key: The record's key.
        reason: Why, in words.
    """

    key: str
    reason: str


Event: TypeAlias = StateChanged | ConflictFound | Quarantined


class Subscribers:
    """Who is told of every event, and the log of all of them."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Event], object]] = []

    def add(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call back at each event from now on, until the function that is returned is called.

        Raises:
            ConfigurationError: It is no function, or one that would have to be awaited.
        """
        check_function("a subscriber", callback)
        self._callbacks.append(callback)

        def remove() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return remove

    def tell(self, event: Event) -> None:
        """Log the event and call everybody; what a callback raises is logged, and stops nobody else."""
        match event:
            case StateChanged(old, new, reason):
                # The end of an outage is told as loudly as its beginning; what is in between is not. That the
                # journal is full, the journal tells.
                loud = new is State.HEALTHY or (new is State.OPEN and old is not State.PROBING)
                level = logging.WARNING if loud else logging.INFO
                facts = {"state": new.value, "was": old.value}
                logger.log(level, "%s, was %s: %s", new.value, old.value, reason, extra=facts)
            case ConflictFound(key, kept):
                logger.warning("conflict on %s: kept %s", key, kept, extra={"key": key, "kept": kept})
            case Quarantined(key, reason):
                logger.error("journaled write of %s set aside: %s", key, reason, extra={"key": key})
        for callback in list(self._callbacks):
            try:
                callback(event)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                # Also a cancellation that is none of ours, such as that of a future it asks for its result.
                error.__context__ = None  # the outage's own error, if there is one, is told elsewhere
                logger.exception("a subscriber failed at %s", type(event).__name__)


def check_function(what: str, function: object) -> None:
    """Refuse what cannot be called and has its result at once.

    Raises:
        ConfigurationError: It cannot.
    """
    if not callable(function) or inspect.iscoroutinefunction(function):
        kind = "a coroutine function" if callable(function) else repr(function)
        raise ConfigurationError(f"{what} is a plain function, not {kind}: it is called and not awaited")
