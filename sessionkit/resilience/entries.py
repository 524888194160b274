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
_NOTHING: Final = b""
"""What stands for ``ABSENT`` among versions."""
_OVERHEAD: Final = 800
"""Bytes an entry takes in this process at most beside its key and values."""

MOST_SENT: Final = 256
"""More writes of one key than are under way at once when an outage begins; they are few in most entries."""


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
        sent: What else may stand there by now, as good as the base: ids of writes of this key that may have
            reached the primary since, and ``ABSENT`` if a deletion may have. The last ``MOST_SENT``; one
            that is not among them any more is met as somebody else's.
        recent: Ids of the last puts, the newest first: a repetition of one of them changes nothing.
        conditional: Whether the first write was on the condition of its base: then what was deleted since,
            even here, is not put back.
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
    sent: tuple[Version | Absent, ...] = ()
    recent: tuple[Version, ...] = ()
    conditional: bool = False

    @property
    def size(self) -> int:
        """How many bytes it counts for."""
        return _OVERHEAD + len(self.key.encode()) + len(self.value) + len(self.base_value or b"")

    def expired(self, now: float) -> bool:
        """Whether what it writes has ended."""
        return self.deadline is not None and self.deadline <= now

    @property
    def makes(self) -> Version | Absent:
        """What stands on the primary once it is applied, if it changes the record at all."""
        return ABSENT if self.kind is Kind.DELETE else self.write_id

    @property
    def condition(self) -> Base:
        """What the first write was on the condition of; None: of nothing."""
        return self.base if self.conditional else None

    def replaces(self, if_version: Version | Absent | None) -> bool:
        """Whether it replaces an earlier write of ours that was on this condition: any, or one on its own."""
        return not self.conditional or self.base == if_version

    def also_sent(self, versions: Iterable[Version | Absent], *, sure: bool = False) -> Entry:
        """Return the entry with more of what may stand on the primary.

        Args:
            versions: What that is, the latest last.
            sure: Whether it is known that our writes have made it, on the same condition as this one. If not,
                what is absent may be so by another's doing.
        """
        sent = dict.fromkeys(self.sent)
        for version in versions:
            if version is ABSENT and self.conditional and not sure:
                continue
            sent.pop(version, None)  # what was sent again is the latest
            sent[version] = None
        return replace(self, sent=tuple(sent)[-MOST_SENT:])

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
            _NOTHING if self.base is ABSENT else self.base,
            self.base_value,
            [_NOTHING if version is ABSENT else version for version in self.sent],
            self.recent,
            self.conditional,
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
            key, seq, write_id, kind, value, deadline, expires_in, base, base_value, *rest = fields
            sent, recent, conditional = rest
            # With its checksum right it is as it was written; nothing of it needs a look.
            return cls(
                key,
                seq,
                write_id,
                Kind(kind),
                value,
                deadline,
                expires_in,
                ABSENT if base == _NOTHING else base,
                base_value,
                tuple(ABSENT if version == _NOTHING else version for version in sent),
                tuple(recent),
                conditional,
            )
        except (ValueError, TypeError) as error:
            raise CorruptRecord("a journal's entry is none that sessionkit wrote") from error


def _checksum(packed: bytes) -> bytes:
    return zlib.crc32(packed).to_bytes(_CHECKSUM_BYTES, "big")
