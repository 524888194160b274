"""The frame around every record: what wrote it, and whether it is whole.

====== ===== ==================================================================================
offset bytes meaning
====== ===== ==================================================================================
0      1     ``0xC1``: a byte that msgpack, JSON, UTF-8 and pickle never begin with
1      1     format version: 1
2      1     flags: bit 0 compressed, bit 1 encrypted, the others zero; none is written yet
3      2     schema version of the value, 1 to 65535, big endian
5      4     CRC-32 of bytes 0 to 4 followed by the body, big endian
9      …     body: one msgpack object (see ``wire``)
====== ===== ==================================================================================

The checksum notices accidents, among them every flip of one bit; it is no defence against a forger.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

from sessionkit.errors import CorruptRecord

MAGIC: Final = 0xC1
FORMAT: Final = 1
HEADER_BYTES: Final = 9
MAX_SCHEMA: Final = 0xFFFF

_HEAD: Final = struct.Struct(">BBBH")
_HEAD_BYTES: Final = _HEAD.size


def seal(body: bytes, schema: int) -> bytes:
    """Return the record of a body."""
    head = _HEAD.pack(MAGIC, FORMAT, 0, schema)
    return head + crc32(body, crc32(head)).to_bytes(4, "big") + body


def unseal(data: bytes) -> tuple[int, bytes]:
    """Return the schema version and the body of a record.

    Raises:
        CorruptRecord: It is damaged, foreign, or of a newer version of sessionkit.
    """
    if len(data) <= HEADER_BYTES or data[0] != MAGIC:
        raise CorruptRecord(f"{len(data)} bytes that are no sessionkit record: the header is missing")
    _, version, flags, schema = _HEAD.unpack_from(data)
    if version != FORMAT:
        raise CorruptRecord(
            f"a record of format {version}, and this version of sessionkit reads format {FORMAT}:"
            " it is damaged or was written by a newer version"
        )
    body = data[HEADER_BYTES:]
    checksum = int.from_bytes(data[_HEAD_BYTES:HEADER_BYTES], "big")
    if checksum != crc32(body, crc32(data[:_HEAD_BYTES])):
        raise CorruptRecord(f"{len(data)} bytes of a record whose checksum does not match: it is damaged")
    if flags:
        raise CorruptRecord(
            f"a record with flags {flags:#04x}: it was written by a newer version of sessionkit"
        )
    if not schema:
        raise CorruptRecord("a record of schema 0: no sessionkit wrote it")
    return schema, body
