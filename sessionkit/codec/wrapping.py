"""From a plain record to what is stored and back: compressed, then encrypted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sessionkit.codec.encryption import read_preface
from sessionkit.codec.envelope import (
    COMPRESSED,
    ENCRYPTED,
    HEADER_BYTES,
    head,
    open_record,
    schema_of,
    seal,
)
from sessionkit.errors import (
    ConfigurationError,
    CorruptRecord,
    DecryptionError,
    RecordTooLarge,
    UnsupportedType,
)

if TYPE_CHECKING:
    from sessionkit.codec.compression import Compressor
    from sessionkit.codec.encryption import Keyring
    from sessionkit.codec.limits import Limits


class RecordInfo(NamedTuple):
    """What a record says of itself without being decoded; of an encrypted one, only decoding proves it.

    Attributes:
        schema: The schema version of its value.
        compressed: Whether its body is.
        key_id: The id of the key it is encrypted by, or None.
        written: When it was encrypted, in seconds since the Unix epoch, or None.
    """

    schema: int
    compressed: bool
    key_id: str | None = None
    written: float | None = None


def read_info(data: bytes) -> RecordInfo:
    """Return what a record says of itself.

    Raises:
        CorruptRecord: It is damaged or foreign.
        CodecError: It is of a newer version of sessionkit.
    """
    flags, schema, payload = open_record(data)
    if not flags & ENCRYPTED:
        return RecordInfo(schema, bool(flags))
    preface = read_preface(payload)
    return RecordInfo(schema, bool(flags & COMPRESSED), preface.key_id, preface.written)


def reencrypt(data: bytes, keyring: Keyring, key: str) -> bytes:
    """Return a record encrypted by the first key, whatever it holds; one that is not encrypted as it is.

    Raises:
        CorruptRecord: It is damaged or foreign.
        DecryptionError: No key opens it.
        CodecError: It is of a newer version of sessionkit.
    """
    flags, schema, payload = open_record(data)
    if not flags & ENCRYPTED:
        return data
    top = head(flags, schema)
    return seal(keyring.encrypt(keyring.decrypt(payload, top, key), top, key), schema, flags)


class Wrapper:
    """Makes of a plain record what is stored, and back.

    Args:
        compressor: Compresses and decompresses.
        keyring: Encrypts and decrypts; None: nothing is encrypted.
        strict: Whether, with a keyring, a record that is not encrypted is refused.
        limits: How large a record may be.

    Attributes:
        smallest: Plain records of fewer bytes are stored as they are.
    """

    def __init__(self, compressor: Compressor, keyring: Keyring | None, strict: bool, limits: Limits) -> None:
        self._compressor = compressor
        self._keyring = keyring
        self._strict = strict and keyring is not None
        self._limits = limits
        self.smallest = HEADER_BYTES + compressor.smallest if keyring is None else 0

    def wrap(self, plain: bytes, key: str | None) -> bytes:
        """Return what is stored of a plain record; see ``Codec.wrap``."""
        if len(plain) < self.smallest:
            return plain
        flags, payload = 0, plain[HEADER_BYTES:]
        shorter = self._compressor.compress(payload)
        if shorter is not None:
            flags, payload = COMPRESSED, shorter
        schema = schema_of(plain)
        if self._keyring is not None:
            flags |= ENCRYPTED
            payload = self._keyring.encrypt(payload, head(flags, schema), _needed(key))
        size = len(payload) + HEADER_BYTES
        if size > self._limits.stored_bytes:
            raise RecordTooLarge(f"{key}: {self._limits.refusal(f'{size} bytes encrypted', 'stored_bytes')}")
        return seal(payload, schema, flags) if flags else plain

    def unwrap(self, data: bytes, key: str | None) -> bytes:
        """Return the plain record of what is stored; see ``Codec.unwrap``."""
        if type(data) is not bytes:
            raise UnsupportedType(f"a codec decodes bytes, not {type(data).__qualname__}")
        if len(data) > self._limits.stored_bytes:
            raise self._limits.refusal(f"a record of {len(data)} bytes", "stored_bytes")
        if not self._strict and (len(data) <= HEADER_BYTES or not data[2]):
            return data  # whether it is whole is looked at when it is unpacked
        flags, schema, payload = open_record(data)
        if flags & ENCRYPTED:
            if self._keyring is None:
                raise DecryptionError(
                    f"a record encrypted by the key {read_preface(payload).key_id!r}, and this codec has no"
                    " keys: set SESSIONKIT_ENCRYPTION_KEYS, or pass MsgpackCodec(keyring=…)"
                )
            payload = self._keyring.decrypt(payload, head(flags, schema), _needed(key))
        elif self._strict:
            raise DecryptionError(
                "a record that is not encrypted, and this codec reads only what is; for records from before"
                " there were keys, run `sessionkit rekey`, or read them with SESSIONKIT_ENCRYPTION=mixed"
                " (MsgpackCodec(strict=False))"
            )
        body = self._compressor.decompress(payload) if flags & COMPRESSED else payload
        if not body:
            raise CorruptRecord("a record that holds nothing")
        return seal(body, schema)


def _needed(key: str | None) -> str:
    if key is None:
        raise ConfigurationError(
            "a record is encrypted for its storage key: pass encode, decode, wrap and unwrap the key"
        )
    return key
