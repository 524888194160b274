"""What is compressed comes back, costs fewer bytes, and cannot grow past its bound."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.codec import Limits, MsgpackCodec, read_info
from sessionkit.codec.compression import Algorithm, find_zstd
from sessionkit.codec.envelope import COMPRESSED, HEADER_BYTES, seal
from sessionkit.errors import CodecError, ConfigurationError, CorruptRecord, RecordTooLarge
from sessionkit.testing.equality import exactly_equal
from sessionkit.testing.strategies import values

zstd: Any = find_zstd()
LARGE = {"text": "so it goes " * 10_000, "numbers": list(range(1000))}
MEGABYTE = 1 << 20

codecs = pytest.mark.parametrize("compression", ["zlib", "zstd"])


def compressed(algorithm: int, size: int, stream: bytes) -> bytes:
    return seal(struct.pack(">BI", algorithm, size) + stream, 1, COMPRESSED)


@codecs
def test_a_large_record_is_compressed_and_comes_back(compression: Any) -> None:
    codec = MsgpackCodec(compression=compression)
    data = codec.encode(LARGE)
    assert len(data) < len(codec.pack(LARGE)) / 10
    assert read_info(data).compressed
    assert data[HEADER_BYTES] == Algorithm[compression.upper()]
    for reader in (MsgpackCodec(compression="zlib"), MsgpackCodec(compression="off")):
        assert exactly_equal(reader.decode(data), LARGE)


@given(values(), st.sampled_from(["zlib", "zstd"]))
def test_what_goes_in_comes_out(value: object, compression: Any) -> None:
    codec = MsgpackCodec(compression=compression, compress_from=1)
    data = codec.encode(value)
    assert exactly_equal(codec.decode(data), value)
    assert len(data) <= len(codec.pack(value))


def test_zstd_is_the_default_and_zlib_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MsgpackCodec().encode(LARGE)[HEADER_BYTES] == Algorithm.ZSTD
    by_zstd = MsgpackCodec(compression="zstd").encode(LARGE)
    for name in ("compression", "compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    without = MsgpackCodec()
    assert without.encode(LARGE)[HEADER_BYTES] == Algorithm.ZLIB
    with pytest.raises(
        CodecError, match=r"zstd, which is not installed here: .*sessionkit\[zstd\]"
    ) as caught:
        without.decode(by_zstd)
    assert type(caught.value) is CodecError, "nothing is wrong with the record"
    with pytest.raises(ConfigurationError, match=r"sessionkit\[zstd\]"):
        MsgpackCodec(compression="zstd")


@codecs
def test_it_is_kept_only_if_it_saves(compression: Any) -> None:
    codec = MsgpackCodec(compression=compression)
    noise = os.urandom(100_000)
    assert codec.encode(noise) == codec.pack(noise)
    assert codec.encode("x" * 10_000) == codec.pack("x" * 10_000), "below the threshold"
    assert MsgpackCodec(compression="off").encode(LARGE) == codec.pack(LARGE)


@pytest.mark.parametrize(
    "options", [{"compression": "gzip"}, {"compress_from": 0}, {"compress_from": "1k"}], ids=repr
)
def test_wrong_options_are_refused(options: Any) -> None:
    with pytest.raises(ConfigurationError, match="compress"):
        MsgpackCodec(**options)


def _bomb(algorithm: int, size: int) -> bytes:
    body = b"\xc6" + struct.pack(">I", size - 5) + bytes(size - 5)
    return zlib.compress(body, 9) if algorithm == Algorithm.ZLIB else zstd.compress(body, 19)


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_bomb_does_not_unfold(algorithm: Algorithm) -> None:
    codec = MsgpackCodec(limits=Limits(stored_bytes=MEGABYTE))
    bomb = _bomb(algorithm, 200 * MEGABYTE)
    tracemalloc.start()
    try:
        for size in (200 * MEGABYTE, 2**32 - 1):
            with pytest.raises(RecordTooLarge, match="bytes once decompressed, and the limit is"):
                codec.decode(compressed(algorithm, size, bomb))
        for size in (0, 1, MEGABYTE):
            with pytest.raises(CorruptRecord):
                codec.decode(compressed(algorithm, size, bomb))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MEGABYTE


def test_a_zstd_frame_cannot_demand_a_large_window() -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    frame = compressor.compress(b"\xc4\x10" + bytes(16)) + compressor.flush()
    with pytest.raises(CorruptRecord, match="does not decompress"):
        MsgpackCodec().decode(compressed(Algorithm.ZSTD, 18, frame))


def test_what_is_not_what_compression_wrote_is_corrupt() -> None:
    codec = MsgpackCodec()
    body = b"\xc4\x10" + bytes(16)
    for algorithm, stream in (
        (Algorithm.ZLIB, zlib.compress(body)),
        (Algorithm.ZSTD, zstd.compress(body)),
    ):
        assert codec.decode(compressed(algorithm, 18, stream)) == bytes(16)
        for length in range(len(stream)):
            with pytest.raises(CorruptRecord):
                codec.decode(compressed(algorithm, 18, stream[:length]))
        for size in (0, 17, 19):
            with pytest.raises(CorruptRecord):
                codec.decode(compressed(algorithm, size, stream))
        with pytest.raises(CorruptRecord):
            codec.decode(compressed(algorithm, 18, stream + b"\x00"))
        with pytest.raises(CorruptRecord):
            codec.decode(compressed(algorithm, 36, stream + stream))
        for at in range(len(stream)):
            for bit in range(8):
                changed = stream[:at] + bytes([stream[at] ^ 1 << bit]) + stream[at + 1 :]
                try:
                    codec.decode(compressed(algorithm, 18, changed))
                except CorruptRecord:
                    continue
    with pytest.raises(CorruptRecord):
        codec.decode(seal(b"\x01\x00\x00\x00\x00", 1, COMPRESSED))
    with pytest.raises(CodecError, match="algorithm 3: it was written by a newer version") as caught:
        codec.decode(compressed(3, 18, body))
    assert not isinstance(caught.value, CorruptRecord)


@given(st.integers(0, 3), st.integers(0, 300), st.binary(max_size=60))
def test_any_compressed_bytes(algorithm: int, size: int, stream: bytes) -> None:
    with contextlib.suppress(CodecError):
        MsgpackCodec().decode(compressed(algorithm, size, stream))
