"""Values to bytes and back: what goes in comes out, equal and of the same type, or is refused."""

from sessionkit.codec.compression import Compression
from sessionkit.codec.encryption import EncryptionKey, Keyring, new_key
from sessionkit.codec.envelope import MAX_SCHEMA
from sessionkit.codec.limits import Limits
from sessionkit.codec.migrations import Migration
from sessionkit.codec.msgpack import MsgpackCodec
from sessionkit.codec.protocol import Codec
from sessionkit.codec.wrapping import RecordInfo, read_info

__all__ = [
    "MAX_SCHEMA",
    "Codec",
    "Compression",
    "EncryptionKey",
    "Keyring",
    "Limits",
    "Migration",
    "MsgpackCodec",
    "RecordInfo",
    "new_key",
    "read_info",
]
