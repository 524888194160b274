"""What a service needs of a codec."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol


class Codec(Protocol):
    """Turns values into bytes and back, in two steps. Safe to share among tasks and threads.

    ``pack`` makes a plain record, which is the same for the same value, and so tells whether something has
    changed; ``wrap`` makes of it what is stored: compressed and encrypted, as the codec does. ``unwrap`` and
    ``unpack`` are the way back. A codec of one's own inherits from this class and needs ``pack`` and
    ``unpack``.
    """

    @abstractmethod
    def pack(self, obj: object, *, name: str = "value") -> bytes:
        """Return the plain record of a value; the same value always gives the same bytes.

        Args:
            obj: What to keep.
            name: What error messages call the value; it is the root of the paths they give.

        Raises:
            UnsupportedType: The value holds something that would not come back as it went in; the
                message has the path to it.
            RecordTooLarge: The value exceeds a bound of the codec.
        """
        ...

    @abstractmethod
    def unpack(self, plain: bytes) -> Any:
        """Return the value that ``pack`` was given, equal and of the same type all the way down.

        ``Any``, as only the caller knows what it stored under a key.

        Raises:
            CorruptRecord: The bytes are damaged or not what ``pack`` wrote.
            UnsupportedType: The record holds a type that is registered nowhere in this codec.
            RecordTooLarge: The record exceeds a bound of the codec.
            CodecError: The record is sound but cannot be read here, such as one of a newer schema, or of a
                registered type that has changed.
        """
        ...

    def migrate(self, value: Any, plain: bytes, *, kind: str | None = None) -> Any:
        """Return a value as it is today that was unpacked from an older record.

        It is apart from ``unpack``, as the application's values may be a part only of what is stored.

        Args:
            value: What ``unpack`` returned, or a part of it. It may be changed.
            plain: The record it was unpacked from.
            kind: What kind of value it is, such as ``session``; see ``Migration``.

        Raises:
            CodecError: It cannot be done.
        """
        return value

    def wrap(self, plain: bytes, *, key: str | None = None) -> bytes:
        """Return what is to be stored of a plain record.

        Args:
            plain: What ``pack`` returned.
            key: The key it is stored under, for which alone it is encrypted.

        Raises:
            ConfigurationError: The codec encrypts, and ``key`` is None.
            RecordTooLarge: It exceeds a bound of the codec.
        """
        return plain

    def unwrap(self, data: bytes, *, key: str | None = None) -> bytes:
        """Return the plain record of what was stored.

        Whether that is whole may come out as late as in ``unpack``.

        Args:
            data: What ``wrap`` returned.
            key: The key it was stored under.

        Raises:
            CorruptRecord: The bytes are damaged or not what ``wrap`` wrote.
            DecryptionError: No key of this codec opens the record under this storage key, or it is not
                encrypted where it should be.
            RecordTooLarge: The record exceeds a bound of the codec.
            CodecError: The record is sound but cannot be read here.
            ConfigurationError: The record is encrypted, and ``key`` is None.
        """
        return data

    def encode(self, obj: object, *, key: str | None = None, name: str = "value") -> bytes:
        """Return what is to be stored of a value: ``wrap`` of ``pack``.

        Raises:
            CodecError: As they do.
            ConfigurationError: As ``wrap``.
        """
        return self.wrap(self.pack(obj, name=name), key=key)

    def decode(self, data: bytes, *, key: str | None = None) -> Any:
        """Return the value of what was stored, as it is today: ``migrate`` of ``unpack`` of ``unwrap``.

        Raises:
            CodecError: As they do.
            ConfigurationError: As ``unwrap``.
        """
        plain = self.unwrap(data, key=key)
        return self.migrate(self.unpack(plain), plain)
