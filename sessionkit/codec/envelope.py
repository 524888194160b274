"""The frame around every record: what wrote it, and whether it is whole.

====== ===== ==================================================================================
offset bytes meaning
====== ===== ==================================================================================
0      1     ``0xC1``: a byte that msgpack, JSON, UTF-8 and pickle never begin with
1      1     format version: 1
2      1     flags: bit 0 compressed, bit 1 encrypted, the others zero
3      2     schema version of the value, 1 to 65535, big endian
5      4     CRC-32 of bytes 0 to 4 followed by the payload, big endian
9      …     payload
====== ===== ==================================================================================

Without flags the record is plain, and its payload is its body: one msgpack object (see ``wire``). Compressed,
the payload is what ``compression`` makes of the body; encrypted, what ``encryption`` makes of either. Every
later format will keep these nine bytes, so that a whole record of a newer sessionkit can be told from a
damaged one.

The checksum notices accidents, among them every flip of one bit; it is no defence against a forger.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final
from zlib import crc32

from sessionkit.errors import CodecError, CorruptRecord

MAGIC: Final = 0xC1
FORMAT: Final = 1
HEADER_BYTES: Final = 9
MAX_SCHEMA: Final = 0xFFFF

COMPRESSED: Final = 1
ENCRYPTED: Final = 2

_HEAD: Final = struct.Struct(">BBBH")
_HEAD_BYTES: Final = _HEAD.size
_HEADER: Final = struct.Struct(">BBBHI")


def head(flags: int, schema: int) -> bytes:
    """Return the first five bytes of a record: what an encrypted one vouches for besides its payload."""
    return _HEAD.pack(MAGIC, FORMAT, flags, schema)


def seal(payload: bytes, schema: int, flags: int = 0) -> bytes:
    """Return the record of a payload."""
    start, checksum = _start(flags, schema)
    return start + crc32(payload, checksum).to_bytes(4, "big") + payload


@lru_cache  # a process writes one schema, with few flags
def _start(flags: int, schema: int) -> tuple[bytes, int]:
    start = head(flags, schema)
    return start, crc32(start)


def open_record(data: bytes) -> tuple[int, int, bytes]:
    """Return the flags, the schema version and the payload of a record.

    Raises:
        CorruptRecord: It is damaged or foreign.
        CodecError: It is whole, and of a newer version of sessionkit.
    """
    if len(data) <= HEADER_BYTES or data[0] != MAGIC:
        raise CorruptRecord(f"{len(data)} bytes that are no sessionkit record: the header is missing")
    _, version, flags, schema, checksum = _HEADER.unpack_from(data)
    payload = data[HEADER_BYTES:]
    if checksum != crc32(payload, crc32(data[:_HEAD_BYTES])):
        raise CorruptRecord(f"{len(data)} bytes of a record whose checksum does not match: it is damaged")
    if version != FORMAT:
        raise CodecError(
            f"a record of format {version}, and this version of sessionkit reads format {FORMAT}:"
            " it was written by a newer version"
        )
    if flags & ~(COMPRESSED | ENCRYPTED):
        raise CodecError(f"a record with flags {flags:#04x}: it was written by a newer version of sessionkit")
    if not schema:
        raise CorruptRecord("a record of schema 0: no sessionkit wrote it")
    return flags, schema, payload


def schema_of(data: bytes) -> int:
    """Return the schema version that a whole record names."""
    return int.from_bytes(data[3:5], "big")
