"""Every error that sessionkit raises.

::

    SessionKitError
    ├── ConfigurationError        a URL, option or setting is wrong
    ├── InvalidKey                a key or an id part cannot be used          (also a ValueError)
    ├── InvalidExpiry             an expiry is not a positive number of seconds (also a ValueError)
    ├── NestedEdit                a session is edited inside its own edit
    ├── SessionExists             create_session found one already there
    ├── UpdateSetAside            an update that was taken up too often is not tried again
    ├── SessionExpired            the session is gone: timed out, cleaned up or never created
    ├── CodecError                bytes or values that cannot be converted
    │   ├── CorruptRecord         bytes that are not what sessionkit wrote
    │   ├── UnsupportedType       a value of a type nobody registered         (also a TypeError)
    │   ├── RecordTooLarge        a value over its bound
    │   └── DecryptionError       bytes that no configured key opens
    └── StoreError                a store could not do, or may not have done, what was asked
        ├── StoreUnavailable      it cannot be reached, or refused to work
        ├── StoreTimeout          no answer within the deadline
        ├── CircuitOpen           not even asked: it failed too often just now
        ├── Backpressure          too much is already waiting
        ├── VersionConflict       somebody else wrote first
        ├── BatchFailed           some writes of a batch failed; each has its own result
        ├── BatchRefused          none of several writes is done, as some cannot be
        ├── CommitPending         an update's changes are kept, and not stored yet
        ├── LockNotAcquired       another holder kept the lock past our wait
        ├── LeaseLost             the lock was lost while it was held
        └── JournalFull           an outage outlasted the room kept for it

A ``StoreError`` answers the two questions a caller has: *is it worth trying again?* (``temporary``) and
*did it happen?* (``applied``). No message carries a password, a URL's credentials or a stored value.
"""

from __future__ import annotations

import traceback
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sessionkit.store.records import Absent, Receipt, Version

__all__ = [
    "Applied",
    "Backpressure",
    "BatchFailed",
    "BatchRefused",
    "CircuitOpen",
    "CodecError",
    "CommitPending",
    "ConfigurationError",
    "CorruptRecord",
    "DecryptionError",
    "InvalidExpiry",
    "InvalidKey",
    "JournalFull",
    "LeaseLost",
    "LockNotAcquired",
    "NestedEdit",
    "RecordTooLarge",
    "SessionExists",
    "SessionExpired",
    "SessionKitError",
    "StoreError",
    "StoreTimeout",
    "StoreUnavailable",
    "UnsupportedType",
    "UpdateSetAside",
    "VersionConflict",
]


class Applied(Enum):
    """Whether the operation an error speaks of took effect in the backend."""

    NO = "no"
    MAYBE = "maybe"
    YES = "yes"


class SessionKitError(Exception):
    """The root: ``except SessionKitError`` catches all that sessionkit raises on purpose."""


class ConfigurationError(SessionKitError):
    """A URL, an option or a setting is wrong; the message says which and what to write instead."""


class InvalidKey(SessionKitError, ValueError):
    """A key, or a part of one, is empty, too long, reserved or not text."""


class InvalidExpiry(SessionKitError, ValueError):
    """An expiry is not a number of seconds greater than zero."""


class NestedEdit(SessionKitError):
    """``edit_session`` was entered for a session that the same task is already editing."""


class SessionExists(SessionKitError):
    """``create_session`` found a live session of that id and was not told to replace it."""


class SessionExpired(SessionKitError):
    """There is no live session of that id: it timed out, was cleaned up, or was never created."""


class UpdateSetAside(SessionKitError):
    """A stored update was taken up too often without being completed, and is not tried again.

    Attributes:
        update_id: Telegram's number of it.
        key: Under which it is kept for thirty days.
    """

    def __init__(self, update_id: int, attempts: int, key: str) -> None:
        super().__init__(
            f"update {update_id} was taken up {attempts} times and never completed: its handlers kill the"
            f" process, block it for longer than the lease, or fail to be stored. It is kept as {key!r} for"
            f" thirty days; `await application.take_back({update_id})` has it processed after all"
        )
        self.update_id = update_id
        self.key = key


class CodecError(SessionKitError):
    """A value cannot be turned into bytes, or bytes cannot be turned into a value."""


class CorruptRecord(CodecError):
    """Stored bytes are damaged, foreign, or of a format this version does not know."""


class UnsupportedType(CodecError, TypeError):
    """A value's type is not native to the codec and was not registered; the message has its path."""


class RecordTooLarge(CodecError):
    """A value exceeds a bound of the codec or of the backend."""


class DecryptionError(CodecError):
    """An encrypted record opens with none of the configured keys."""


class StoreError(SessionKitError):
    """A store could not do, or may not have done, what was asked.

    Attributes:
        temporary: Whether the same call may succeed later without anybody changing anything.
        applied: Whether the operation took effect: ``NO``, ``YES``, or ``MAYBE`` where the answer was
            lost. A ``MAYBE`` is safe to repeat only with the same write id.
    """

    default_temporary: ClassVar[bool] = False

    def __init__(self, message: str, *, temporary: bool | None = None, applied: Applied = Applied.NO) -> None:
        super().__init__(message)
        self.temporary = self.default_temporary if temporary is None else temporary
        self.applied = applied


class StoreUnavailable(StoreError):
    """The backend cannot be reached, closed the connection, or refuses to work."""

    default_temporary = True


class StoreTimeout(StoreError):
    """The backend did not answer within the deadline."""

    default_temporary = True


class CircuitOpen(StoreError):
    """The backend was not asked because it failed too often just now."""

    default_temporary = True


class Backpressure(StoreError):
    """The operation was not queued because too many are already waiting."""

    default_temporary = True


class VersionConflict(StoreError):
    """A compare-and-set lost: the record is not at the version the caller expected.

    Attributes:
        current: The record's version now, or ``ABSENT`` where there is no record: what to pass as the
            next ``if_version``.
    """

    def __init__(self, key: str, *, current: Version | Absent) -> None:
        super().__init__(f"{key[:80]!a} is not at the version expected: somebody else wrote or deleted it")
        self.current = current


class BatchFailed(StoreError):
    """Some writes of a ``put_many`` failed; the others took effect.

    Attributes:
        results: One entry per put, in the order given: its receipt, or the error it met.
    """

    def __init__(self, results: Sequence[Receipt | SessionKitError]) -> None:
        failures = [result for result in results if isinstance(result, SessionKitError)]
        super().__init__(
            f"{len(failures)} of {len(results)} writes of the batch failed; the first: {failures[0]}",
            temporary=any(isinstance(failure, StoreError) and failure.temporary for failure in failures),
            applied=Applied.NO if all(map(_not_applied, results)) else Applied.MAYBE,
        )
        self.results = list(results)


class BatchRefused(StoreError):
    """None of the writes of a ``write_all`` is done, as some of them cannot be.

    Attributes:
        refusals: Why, by key: a ``VersionConflict`` or a ``CorruptRecord`` for each record that is in the
            way.
    """

    def __init__(self, refusals: Mapping[str, SessionKitError]) -> None:
        first = next(iter(refusals.values()))
        super().__init__(f"nothing was written, for the sake of {len(refusals)} records; the first: {first}")
        self.refusals = dict(refusals)


class CommitPending(StoreError):
    """An update's changes are kept and tried again, but not stored yet; its answers are held back so long."""

    default_temporary = True


class LockNotAcquired(StoreError):
    """Another holder kept the lock for longer than the caller was willing to wait."""

    default_temporary = True


class LeaseLost(StoreError):
    """The lock expired or was taken over while its holder still ran; the holder was cancelled."""

    default_temporary = True


class JournalFull(StoreError):
    """The journal of an outage has reached its bound; nothing more is acknowledged until it drains."""

    default_temporary = True


def _not_applied(result: Receipt | SessionKitError) -> bool:
    if isinstance(result, StoreError):
        return result.applied is Applied.NO
    return isinstance(result, CodecError)


def described(error: Exception) -> str:
    """Return what an error says; of a foreign one, whose text may hold data, what it is and where from."""
    if isinstance(error, SessionKitError):
        return str(error)
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} ({at.name}, line {at.lineno} of {at.filename})"
