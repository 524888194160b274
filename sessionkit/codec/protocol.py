"""What a service needs of a codec."""

from __future__ import annotations

from typing import Any, Protocol


class Codec(Protocol):
    """Turns values into bytes and back. Safe to share among tasks and threads."""

    def encode(self, obj: object, *, name: str = "value") -> bytes:
        """Return the bytes of a value; the same value always gives the same bytes.

        Args:
            obj: What to keep.
            name: What error messages call the value; it is the root of the paths they give.

        Raises:
            UnsupportedType: The value holds something that would not come back as it went in; the
                message has the path to it.
            RecordTooLarge: The value exceeds a bound of the codec.
        """
        ...

    def decode(self, data: bytes) -> Any:
        """Return the value that ``encode`` was given, equal and of the same type all the way down.

        ``Any``, as only the caller knows what it stored under a key.

        Raises:
            CorruptRecord: The bytes are damaged or not what ``encode`` wrote.
            UnsupportedType: The record holds a type that is registered nowhere in this codec.
            RecordTooLarge: The record exceeds a bound of the codec.
            CodecError: The record is sound but cannot be read here, such as one of a newer schema.
        """
        ...
