"""The data a store takes and gives."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, NamedTuple, NewType, TypeAlias

Version = NewType("Version", bytes)
"""The 8-byte id of the write that produced a record: opaque, compared for equality only."""

Clock: TypeAlias = Callable[[], float]
"""Gives the time in seconds since the Unix epoch, as ``time.time`` does; tests pass their own."""

VERSION_BYTES: Final = 8
RING_SIZE: Final = 4
"""How many recent write ids a record keeps, so that a retried write is recognised as already applied."""

MAX_VALUE_BYTES: Final = 64 * 1024 * 1024
"""The most bytes one record may hold in a built-in driver."""


class Absent(Enum):
    """The type of ``ABSENT``, the version of a record that does not exist."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final[Literal[Absent.ABSENT]] = Absent.ABSENT

# Seeded by the system, and cheaper than asking it for every write. Its own, as a bot may seed the shared one;
# anew in a forked process, which would else give the same ids as its parent.
_random: Final = random.Random()
_bits: Final = _random.getrandbits
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def new_version() -> Version:
    """Return a fresh write id; 64 random bits, so two writes of one key never share it in practice."""
    return Version(_bits(8 * VERSION_BYTES).to_bytes(VERSION_BYTES, "big"))


class Where(Enum):
    """Where an acknowledged write is now."""

    PRIMARY = "primary"
    JOURNALED = "journaled"


class Record(NamedTuple):
    """One key's stored bytes and the version they have.

    Attributes:
        value: The bytes.
        version: Their version.
        stale: Whether they were answered from what is known here, as the backend could not be asked.
    """

    value: bytes
    version: Version
    stale: bool = False

    def __repr__(self) -> str:
        stale = ", stale=True" if self.stale else ""
        return f"Record(value={_unshown(self.value)}, version={self.version!r}{stale})"


class Receipt(NamedTuple):
    """The proof of an acknowledged write: the version it made, and where it is."""

    version: Version
    where: Where = Where.PRIMARY


class Put(NamedTuple):
    """One write of a ``put_many``; the fields mean what the arguments of ``SessionStore.put`` mean."""

    key: str
    value: bytes
    expires_in: float | None = None
    if_version: Version | Absent | None = None
    write_id: Version | None = None

    def __repr__(self) -> str:
        rest = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields[2:], self[2:], strict=True))
        return f"Put(key={self.key!r}, value={_unshown(self.value)}, {rest})"


class Delete(NamedTuple):
    """One deletion of a ``write_all``; the fields mean what the arguments of ``SessionStore.delete`` mean."""

    key: str
    if_version: Version | None = None


def _unshown(value: bytes) -> str:
    """Return what stands for a stored value in a text that may end up in a log."""
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else f"<{type(value).__name__}>"


class Scope(Enum):
    """Who sees the same records."""

    INSTANCE = "instance"
    """Only this store object."""
    HOST = "host"
    """Every process on this machine that opens the same URL."""
    NETWORK = "network"
    """Every process that reaches the same server."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store declares of itself. What is not declared must be absent: the conformance kit checks both.

    Attributes:
        durable: Whether an acknowledged record survives the death of this process.
        scope: Who sees the same records.
        max_value_bytes: The largest value ``put`` takes; a larger one raises ``RecordTooLarge``.
        atomic: Whether it writes several records all or none: it is an ``AtomicStore``, and any of its
            records can be written together.
    """

    durable: bool
    scope: Scope
    max_value_bytes: int = MAX_VALUE_BYTES
    atomic: bool = False
