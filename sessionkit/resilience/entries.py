"""What a journal holds: for each key the last write that the primary has not acknowledged."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import msgpack

from sessionkit.errors import CorruptRecord
from sessionkit.store import ABSENT, Absent, Version

if TYPE_CHECKING:
    from collections.abc import Iterable

Base: TypeAlias = "Version | Absent | None"
"""The version a write was based on; None: not known."""

_FORMAT: Final = 1
_CHECKSUM_BYTES: Final = 4
_OVERHEAD: Final = 400
"""Bytes an entry takes in this process beside its key and values."""


class Kind(Enum):
    """What a journaled write does."""

    PUT = "put"
    DELETE = "delete"
    TOUCH = "touch"


@dataclass(frozen=True, slots=True)
class Entry:
    """All the writes of one key that wait for the primary, as one.

    Attributes:
        key: The record's key.
        seq: Its place among all the writes that were ever journaled.
        write_id: The id of the last write.
        kind: What it does.
        value: What a ``PUT`` writes; else empty.
        deadline: When the record ends, in seconds since the Unix epoch; None: never, or it does not say.
        expires_in: How long that was from the write on, in seconds: the most it may live from its replay.
        base: The version the first write was based on.
        base_value: What stood there then, if it is known and a merge may ask for it.
        sent: Ids of writes of this key that may have reached the primary since: as good as the base.
        recent: Ids of the last puts, the newest first: a repetition of one of them changes nothing.
    """

    key: str
    seq: int
    write_id: Version
    kind: Kind
    value: bytes = field(default=b"", repr=False)
    deadline: float | None = None
    expires_in: float | None = None
    base: Base = None
    base_value: bytes | None = field(default=None, repr=False)
    sent: tuple[Version, ...] = ()
    recent: tuple[Version, ...] = ()

    @property
    def size(self) -> int:
        """How many bytes it counts for."""
        return _OVERHEAD + len(self.key.encode()) + len(self.value) + len(self.base_value or b"")

    def expired(self, now: float) -> bool:
        """Whether what it writes has ended."""
        return self.deadline is not None and self.deadline <= now

    def also_sent(self, ids: Iterable[Version]) -> Entry:
        """Return the entry with more ids that may have reached the primary."""
        return replace(self, sent=tuple(dict.fromkeys((*self.sent, *ids))))

    def encode(self) -> bytes:
        """Return the entry as it stands on disk."""
        fields = [
            _FORMAT,
            self.key,
            self.seq,
            self.write_id,
            self.kind.value,
            self.value,
            self.deadline,
            self.expires_in,
            b"" if self.base is ABSENT else self.base,
            self.base_value,
            self.sent,
            self.recent,
        ]
        packed = cast("bytes", msgpack.packb(fields))
        return _checksum(packed) + packed

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        """Return the entry in these bytes.

        Raises:
            CorruptRecord: They are damaged, or of a format this version does not know.
        """
        packed = data[_CHECKSUM_BYTES:]
        if _checksum(packed) != data[:_CHECKSUM_BYTES]:
            raise CorruptRecord("a journal's entry is damaged")
        try:
            form, *fields = msgpack.unpackb(packed)
            if form != _FORMAT:
                raise CorruptRecord("a journal's entry was written by another version of sessionkit")
            key, seq, write_id, kind, value, deadline, expires_in, base, base_value, sent, recent = fields
            # With its checksum right it is as it was written; nothing of it needs a look.
            return cls(
                key,
                seq,
                write_id,
                Kind(kind),
                value,
                deadline,
                expires_in,
                ABSENT if base == b"" else base,
                base_value,
                tuple(sent),
                tuple(recent),
            )
        except (ValueError, TypeError) as error:
            raise CorruptRecord("a journal's entry is none that sessionkit wrote") from error


def _checksum(packed: bytes) -> bytes:
    return zlib.crc32(packed).to_bytes(_CHECKSUM_BYTES, "big")
