"""A record on its way, and the digest of many."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

_MODULUS: Final = 2**256


class MovedRecord(NamedTuple):
    """A record on its way from one store to another.

    Attributes:
        key: Its key.
        value: Its bytes, as they are stored: an encrypted record stays so.
        expires_at: When it expires, in seconds since the Unix epoch; None: it does not.
    """

    key: str
    value: bytes
    expires_at: float | None

    def __repr__(self) -> str:
        return (
            f"MovedRecord(key={self.key!r}, value=<{len(self.value)} bytes>, expires_at={self.expires_at!r})"
        )


class Digest:
    """The number and the digest of records, whatever their order: the sum of their SHA-256 hashes.

    Of a record the length of its key, its key and its value are hashed; its expiry is not, as stores tell it
    with different precision.

    Attributes:
        count: How many records were added.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and (self.count, self._sum) == (other.count, other._sum)

    def __hash__(self) -> int:
        return hash((self.count, self._sum))

    def __str__(self) -> str:
        return f"{self._sum:064x}"

    def add(self, key: str, value: bytes) -> None:
        """Add a record; each is added once."""
        name = key.encode()
        hashed = hashlib.sha256(len(name).to_bytes(8, "big") + name + value).digest()
        self._sum = (self._sum + int.from_bytes(hashed, "big")) % _MODULUS
        self.count += 1
