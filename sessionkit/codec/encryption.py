"""Encryption of a payload: AES-256-GCM, by one of several keys.

======== ===== ================================================================================
offset   bytes meaning
======== ===== ================================================================================
0        1     n, the length of the key's id
1        n     the key's id, ASCII
1 + n    8     when it was encrypted: milliseconds since the Unix epoch, big endian
9 + n    12    nonce, random
21 + n   …     the encrypted payload and its tag of 16 bytes
======== ===== ================================================================================

Vouched for besides the payload, as associated data: the record's first five bytes (so that neither its flags
nor its schema can be changed), what stands here before the nonce, and the storage key (so that a record
cannot be moved to another key). A record can be put back in its own place, as by who restores a backup; its
time tells.
"""

from __future__ import annotations

import binascii
import os
import re
import secrets
import time
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Final, NamedTuple

from sessionkit.errors import ConfigurationError, CorruptRecord, DecryptionError
from sessionkit.extras import how_to_install

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SECRET_BYTES: Final = 32

_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_TIME_BYTES: Final = 8
_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}", re.ASCII)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]+={0,2}", re.ASCII)


class Preface(NamedTuple):
    """What an encrypted payload says in the clear.

    Attributes:
        key_id: Which key encrypted it.
        written: When, in seconds since the Unix epoch.
        length: How many bytes say so.
    """

    key_id: str
    written: float
    length: int


class EncryptionKey:
    """A key and its id. The secret is handed to the cipher and kept nowhere else, and nothing shows it.

    Args:
        id: What records call the key: 1 to 32 characters of ``A-Z a-z 0-9 _ . -``. It is not secret, and must
            never be given to another secret.
        secret: 32 random bytes; ``sessionkit keys new`` makes some.

    Raises:
        ConfigurationError: One of them is not so, or the package ``cryptography`` is missing.
    """

    __slots__ = ("cipher", "id")

    def __init__(self, id: str, secret: bytes) -> None:
        if not isinstance(id, str) or not _ID.fullmatch(id):
            raise ConfigurationError(
                "the id of an encryption key is 1 to 32 characters of A-Z, a-z, 0-9, '_', '.' and '-'"
            )
        if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
            there = f"{len(secret)} bytes" if isinstance(secret, bytes) else type(secret).__name__
            raise ConfigurationError(
                f"encryption key {id!r}: the secret is {SECRET_BYTES} bytes, not {there};"
                " make one by `sessionkit keys new`, and copy it whole"
            )
        self.id = id
        self.cipher = _cipher(secret)

    def __repr__(self) -> str:
        return f"<EncryptionKey {self.id!r}>"

    @classmethod
    def parse(cls, text: str) -> EncryptionKey:
        """Return the key of its text, ``id:`` and the secret in base64, as ``new_key`` writes it.

        Raises:
            ConfigurationError: It is none. The message shows no part of the text but a sound id.
        """
        id_, colon, encoded = text.strip().partition(":")
        if not colon or not _ID.fullmatch(id_):
            raise ConfigurationError(
                "an encryption key reads id:base64, the id being 1 to 32 characters of A-Z, a-z, 0-9, '_',"
                " '.' and '-'; make one by `sessionkit keys new`"
            )
        try:
            if not _BASE64.fullmatch(encoded):
                raise ValueError
            standard = encoded.rstrip("=").translate(str.maketrans("-_", "+/"))
            secret = b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        except (ValueError, binascii.Error):
            raise ConfigurationError(
                f"encryption key {id_!r}: what follows the ':' is not base64;"
                " copy it whole, as `sessionkit keys new` prints it"
            ) from None
        return cls(id_, secret)


class Keyring:
    """The keys of a codec: the first encrypts, all decrypt.

    To change keys: add the new one behind the old one everywhere, then put it first, run ``sessionkit
    rekey``, and only then take the old one away.

    Args:
        keys: One or more, the one that encrypts first.

    Raises:
        ConfigurationError: There is none, or two have the same id.
    """

    def __init__(self, keys: Iterable[EncryptionKey]) -> None:
        listed = list(keys)
        if not listed or not all(isinstance(key, EncryptionKey) for key in listed):
            raise ConfigurationError("a Keyring is made of one or more EncryptionKeys")
        self._keys = {key.id: key for key in listed}
        if len(self._keys) < len(listed):
            twice = next(key.id for key in listed if self._keys[key.id] is not key)
            raise ConfigurationError(
                f"two encryption keys have the same id, {twice!r}: take one away, or give the newer another"
            )
        self._first = listed[0]

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """Return the keyring of its text: ``id:base64``, separated by commas or white space.

        Raises:
            ConfigurationError: It is none, as for ``EncryptionKey.parse``; the message says which entry is
                wrong, or of a text of several lines, which line.
        """
        keys = []
        for number, entry in enumerate(re.finditer(r"[^\s,]+", text), 1):
            try:
                keys.append(EncryptionKey.parse(entry[0]))
            except ConfigurationError as error:
                lines = text.count("\n", 0, entry.start())
                where = f"line {lines + 1}" if "\n" in text else f"entry {number}"
                raise ConfigurationError(f"{where}: {error}") from None
        if not keys:
            raise ConfigurationError("there is no key in it; make one by `sessionkit keys new`")
        return cls(keys)

    @property
    def first(self) -> str:
        """The id of the key that encrypts."""
        return self._first.id

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(map(repr, self._keys))}>"

    def encrypt(self, payload: bytes, head: bytes, key: str) -> bytes:
        """Return the encrypted payload of a record.

        Args:
            payload: What to encrypt.
            head: The record's first bytes.
            key: The key it is stored under.
        """
        id_ = self._first.id.encode("ascii")
        preface = bytes([len(id_)]) + id_ + (time.time_ns() // 1_000_000).to_bytes(_TIME_BYTES, "big")
        nonce = os.urandom(_NONCE_BYTES)
        return preface + nonce + self._first.cipher.encrypt(nonce, payload, _bound(head, preface, key))

    def decrypt(self, payload: bytes, head: bytes, key: str) -> bytes:
        """Return what ``encrypt`` was given.

        Raises:
            CorruptRecord: It is too short to be an encrypted payload.
            DecryptionError: No key here has the record's key id; or the record was encrypted by another key
                of that id, for another storage key, or was tampered with.
        """
        preface = read_preface(payload)
        opener = self._keys.get(preface.key_id)
        if opener is None:
            raise DecryptionError(
                f"a record encrypted by the key {preface.key_id!r}, which is not in this keyring:"
                " add it behind the first of SESSIONKIT_ENCRYPTION_KEYS"
            )
        from cryptography.exceptions import InvalidTag

        start = preface.length
        nonce, encrypted = payload[start : start + _NONCE_BYTES], payload[start + _NONCE_BYTES :]
        try:
            return opener.cipher.decrypt(nonce, encrypted, _bound(head, payload[:start], key))
        except InvalidTag:
            raise DecryptionError(
                f"a record that the key {preface.key_id!r} does not open: it was encrypted by another key of"
                " that id, was written for another storage key, or was tampered with"
            ) from None


def read_preface(payload: bytes) -> Preface:
    """Return what an encrypted payload says in the clear; only ``Keyring.decrypt`` proves it.

    Raises:
        CorruptRecord: It says nothing.
    """
    end = 1 + payload[0]
    key_id = payload[1:end].decode("ascii", "replace")
    if len(payload) < end + _TIME_BYTES + _NONCE_BYTES + _TAG_BYTES or not _ID.fullmatch(key_id):
        raise CorruptRecord("an encrypted record that lacks its key's id, its nonce or its tag")
    written = int.from_bytes(payload[end : end + _TIME_BYTES], "big")
    return Preface(key_id, written / 1000, end + _TIME_BYTES)


def new_key(id: str | None = None) -> str:
    """Return the text of a new random key, ``id:`` and the secret in base64.

    Args:
        id: The key's id; None: a random one.

    Raises:
        ConfigurationError: The id is none, or the package ``cryptography`` is missing.
    """
    secret = secrets.token_bytes(SECRET_BYTES)
    key = EncryptionKey(f"k{secrets.token_hex(4)}" if id is None else id, secret)
    return f"{key.id}:{b64encode(secret).decode('ascii')}"


def _bound(head: bytes, preface: bytes, key: str) -> bytes:
    # All parts but the last are of known length, so no two records share the whole.
    return head + preface + key.encode("utf-8", "surrogatepass")


def _cipher(secret: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise ConfigurationError(f"encryption needs {how_to_install('crypto')}") from None
    return AESGCM(secret)
