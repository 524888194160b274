"""What a journal holds: for each key the last write that the primary has not acknowledged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import msgpack

from sessionkit.errors import CorruptRecord
from sessionkit.store import ABSENT, Absent, Version

if TYPE_CHECKING:
    from collections.abc import Iterable

Base: TypeAlias = "Version | Absent | None"
"""The version a write was based on; None: not known."""

_FORMAT: Final = 1
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
    value: bytes = b""
    deadline: float | None = None
    expires_in: float | None = None
    base: Base = None
    base_value: bytes | None = None
    sent: tuple[Version, ...] = ()
    recent: tuple[Version, ...] = ()

    @property
    def size(self) -> int:
        """How many bytes it counts for."""
        return _OVERHEAD + len(self.key) + len(self.value) + len(self.base_value or b"")

    def expired(self, now: float) -> bool:
        """Whether what it writes has ended."""
        return self.deadline is not None and self.deadline <= now

    def also_sent(self, ids: Iterable[Version]) -> Entry:
        """Return the entry with more ids that may have reached the primary."""
        return replace(self, sent=tuple(dict.fromkeys((*self.sent, *ids))))

    def encode(self) -> bytes:
        """Return the entry as it stands on disk."""
        packed: bytes = msgpack.packb(
            [
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
        )
        return packed

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        """Return the entry in these bytes.

        Raises:
            CorruptRecord: They hold none.
        """
        try:
            fields: Any = msgpack.unpackb(data, strict_map_key=True)
            form, key, seq, write_id, kind, value, deadline, expires_in, base, base_value, sent, recent = (
                fields
            )
            if form != _FORMAT or not isinstance(key, str) or not isinstance(value, bytes):
                raise ValueError
            return cls(
                key,
                int(seq),
                cast("Version", write_id),
                Kind(kind),
                value,
                deadline,
                expires_in,
                ABSENT if base == b"" else base,
                base_value,
                tuple(sent),
                tuple(recent),
            )
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise CorruptRecord("the journal holds an entry that cannot be read; it is kept") from error
