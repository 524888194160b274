"""Compression of a body: kept only where it saves bytes, and undone only within its bound.

====== ===== ==================================================================================
offset bytes meaning
====== ===== ==================================================================================
0      1     algorithm: 1 zlib, 2 zstd
1      4     length of the body, big endian
5      …     the compressed body: one zlib stream or zstd frame, and nothing after it
====== ===== ==================================================================================
"""

from __future__ import annotations

import struct
import sys
import zlib
from enum import IntEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from sessionkit.errors import CodecError, ConfigurationError, CorruptRecord
from sessionkit.extras import how_to_install

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from sessionkit.codec.limits import Limits

Compression: TypeAlias = Literal["auto", "zstd", "zlib", "off"]
"""``auto`` is zstd where it is installed, else zlib."""

_HEAD: Final = struct.Struct(">BI")
_ZLIB_LEVEL: Final = 1
_INSTALL: Final = how_to_install("zstd")


class Algorithm(IntEnum):
    """What a record says it was compressed with."""

    ZLIB = 1
    ZSTD = 2


def find_zstd() -> ModuleType | None:
    """Return Python's zstd module (3.14) or its backport (the extra ``zstd``), or None without either."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


class Compressor:
    """Compresses by one algorithm, and decompresses by all that are installed.

    Args:
        compression: How bodies are compressed.
        smallest: From how many bytes on they are.
        limits: How large a body may be.

    Attributes:
        smallest: From how many bytes on bodies are compressed.

    Raises:
        ConfigurationError: The compression is none, or zstd is asked for and not installed; or ``smallest``
            is no number above zero.
    """

    def __init__(self, compression: Compression, smallest: int, limits: Limits) -> None:
        if compression not in ("auto", "zstd", "zlib", "off"):
            raise ConfigurationError(f"compression is 'auto', 'zstd', 'zlib' or 'off', not {compression!r}")
        if type(smallest) is not int or smallest < 1:
            raise ConfigurationError(f"compress_from is a whole number above zero, not {smallest!r}")
        self._zstd = find_zstd()
        if compression == "zstd" and self._zstd is None:
            raise ConfigurationError(f"compression 'zstd' needs {_INSTALL}")
        self._compress: Callable[[bytes], tuple[Algorithm, bytes]] | None
        if compression == "off":
            self._compress, smallest = None, sys.maxsize
        elif compression == "zlib" or self._zstd is None:
            self._compress = _zlib
        else:
            self._compress = self._by_zstd
        self._limits = limits
        self.smallest = smallest

    def compress(self, body: bytes) -> bytes | None:
        """Return a payload that is shorter than the body, or None."""
        if self._compress is None or len(body) < self.smallest:
            return None
        algorithm, packed = self._compress(body)
        payload = _HEAD.pack(algorithm, len(body)) + packed
        return payload if len(payload) < len(body) else None

    def decompress(self, payload: bytes) -> bytes:
        """Return the body of a payload.

        Raises:
            CorruptRecord: It is none.
            RecordTooLarge: The body has more bytes than are read.
            CodecError: It is compressed by what is not known or not installed here.
        """
        if len(payload) <= _HEAD.size:
            raise CorruptRecord("a compressed record without its content")
        algorithm, size = _HEAD.unpack_from(payload)
        if size > self._limits.stored_bytes:
            raise self._limits.refusal(f"a record of {size} bytes once decompressed", "stored_bytes")
        packed = payload[_HEAD.size :]
        if algorithm == Algorithm.ZLIB:
            return _decompress(zlib.decompressobj(), packed, size, zlib.error)
        if algorithm != Algorithm.ZSTD:
            raise CodecError(
                f"a record compressed by algorithm {algorithm}: it was written by a newer version of"
                " sessionkit"
            )
        if self._zstd is None:
            raise CodecError(f"a record compressed with zstd, which is not installed here: {_INSTALL}")
        # The window is memory, whose size the frame chooses.
        window = {self._zstd.DecompressionParameter.window_log_max: max(10, size.bit_length())}
        return _decompress(self._zstd.ZstdDecompressor(options=window), packed, size, self._zstd.ZstdError)

    def _by_zstd(self, body: bytes) -> tuple[Algorithm, bytes]:
        assert self._zstd is not None
        return Algorithm.ZSTD, self._zstd.compress(body)


def _zlib(body: bytes) -> tuple[Algorithm, bytes]:
    return Algorithm.ZLIB, zlib.compress(body, _ZLIB_LEVEL)


# Any: what zlib's and zstd's decompressors have in common has no name.
def _decompress(decompressor: Any, packed: bytes, size: int, failure: type[Exception]) -> bytes:
    try:
        # One byte more than was announced, so that more can be told from enough; 0 would be no bound.
        body: bytes = decompressor.decompress(packed, size + 1)
    except MemoryError:
        raise CodecError("a compressed record cannot be read here and now (MemoryError)") from None
    except failure as error:
        raise CorruptRecord(
            f"a compressed record that does not decompress ({type(error).__name__})"
        ) from None
    if len(body) != size or not decompressor.eof or decompressor.unused_data:
        raise CorruptRecord("a compressed record that is not as long as it says")
    return body
