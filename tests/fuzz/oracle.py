"""What decoding must do with any bytes; the fuzzer, the byte mutations and the corpus share it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sessionkit.codec import MsgpackCodec
from sessionkit.codec.envelope import MAGIC, seal
from sessionkit.errors import CodecError
from sessionkit.testing.equality import exactly_equal

CORPUS = Path(__file__).parent.parent / "data" / "codec_fuzz.txt"
"""Inputs that reach something no other one reaches, in hexadecimal, one a line."""


class Color(enum.Enum):
    RED = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: object
    y: object


@dataclass(frozen=True)
class Item:
    name: object


def make_codec() -> MsgpackCodec:
    """Return a codec that knows a type of each kind that can be registered."""
    codec = MsgpackCodec()
    codec.register_enum("color", Color)
    codec.register_enum("rights", Rights)
    codec.register_namedtuple("point", Point)
    codec.register_dataclass("item", Item)
    return codec


_CODEC = make_codec()


def decode_or_refuse(data: bytes) -> None:
    """Decode a record, or a body in a sound envelope: only a ``CodecError`` may come instead of a value.

    What is decoded was kept for good: it can be encoded and is the same after that.
    """
    record = data if data[:1] == bytes([MAGIC]) else seal(data, 1)
    try:
        value = _CODEC.decode(record)
    except CodecError:
        return
    again = _CODEC.decode(_CODEC.encode(value))
    assert exactly_equal(value, again), (value, again)


def read_corpus() -> list[bytes]:
    """Return the inputs of the corpus."""
    return [bytes.fromhex(line) for line in CORPUS.read_text("ascii").split()]
