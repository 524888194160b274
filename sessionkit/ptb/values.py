"""PTB's values as the bytes of records."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from sessionkit.errors import RecordTooLarge, SessionKitError, UnsupportedType, described
from sessionkit.ptb.telegram_objects import working_with

if TYPE_CHECKING:
    from collections.abc import Callable

    from telegram import Bot

    from sessionkit.codec import Codec
    from sessionkit.ptb.data_keys import DataKeys


class Packed(NamedTuple):
    """A value, ready to be compared.

    Attributes:
        plain: Its plain record.
        mark: Equal for equal values, so that an unchanged one is known as such.
    """

    plain: bytes
    mark: bytes


class Opened(NamedTuple):
    """What was in a record.

    Attributes:
        value: The value.
        mark: As that of the value when it was stored.
    """

    value: Any
    mark: bytes


class Values:
    """Turns values into records and back.

    Args:
        codec: What does it.
        keys: Which record holds what.
        most: Says how many bytes the store takes at most.
        bot: Gives the bot that loaded objects of python-telegram-bot work with.
    """

    def __init__(
        self, codec: Codec, keys: DataKeys, most: Callable[[], int], bot: Callable[[], Bot | None]
    ) -> None:
        self._codec = codec
        self._keys = keys
        self._most = most
        self._bot = bot

    def pack(self, key: str, value: object) -> Packed:
        """Return a value ready to be compared with what is stored.

        Raises:
            UnsupportedType: It cannot be kept.
            RecordTooLarge: It is too large for the codec.
        """
        name = self._keys.label(key)
        try:
            plain = self._codec.pack(value, name=name)
        except SessionKitError:
            raise
        except Exception as error:  # a value's own code may raise anything
            raise UnsupportedType(f"{name}: it cannot be turned into bytes: {described(error)}") from None
        return Packed(plain, _mark(plain))

    def seal(self, key: str, plain: bytes) -> bytes:
        """Return what is to be stored of a plain record: compressed and encrypted, as the codec does.

        Raises:
            RecordTooLarge: It is too large for the codec or the store.
        """
        data = self._codec.wrap(plain, key=key)
        most = self._most()
        if len(data) > most:
            raise RecordTooLarge(f"{key!r}: {len(data)} bytes, and the store takes at most {most}")
        return data

    def unpack(self, plain: bytes) -> Any:
        """Return the value of a plain record.

        Raises:
            CodecError: It cannot be read.
        """
        with working_with(self._bot()):
            return self._codec.unpack(plain)

    def open(self, key: str, data: bytes) -> Opened:
        """Return what is in a record; what is the bot's own has a kind, and is migrated.

        Raises:
            CodecError: It cannot be read.
        """
        plain = self._codec.unwrap(data, key=key)
        value = self.unpack(plain)
        kind = self._keys.kind(key)
        if kind is not None:
            value = self._codec.migrate(value, plain, kind=kind)
        return Opened(value, _mark(plain))


def _mark(plain: bytes) -> bytes:
    return hashlib.blake2b(plain, digest_size=16).digest()
