"""Bytes are data: whatever they are, they give a value that can be kept or a ``CodecError``, soon."""

from __future__ import annotations

import struct
import tracemalloc
from decimal import Decimal
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.codec import Limits, MsgpackCodec
from sessionkit.codec.envelope import HEADER_BYTES, seal
from sessionkit.codec.leaves import dump_int
from sessionkit.codec.wire import Leaf, Mark
from sessionkit.errors import CodecError, CorruptRecord, RecordTooLarge, UnsupportedType
from sessionkit.testing.equality import exactly_equal
from sessionkit.testing.strategies import values

codec = MsgpackCodec()


def _decode_or_refuse(data: bytes) -> None:
    try:
        value = codec.decode(data)
    except CodecError:
        return
    assert exactly_equal(value, codec.decode(codec.encode(value)))


def ext(code: int, payload: bytes = b"") -> Any:
    return msgpack.ExtType(code, payload)


def body(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    _decode_or_refuse(data)


@given(st.binary(max_size=200))
def test_any_body_in_a_sound_envelope(data: bytes) -> None:
    _decode_or_refuse(seal(data, 1))


@given(values(), st.data())
def test_any_body_near_a_sound_one(value: object, data: st.DataObject) -> None:
    changed = bytearray(codec.encode(value)[HEADER_BYTES:])
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    _decode_or_refuse(seal(bytes(changed), 1))


nodes = st.recursive(
    st.one_of(
        st.none(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
        st.sampled_from(list(Mark)).map(ext),
        st.builds(ext, st.sampled_from(list(Leaf)), st.binary(max_size=24)),
        st.builds(ext, st.integers(0, 127), st.binary(max_size=2)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.builds(
            lambda mark, rest: [ext(mark), *rest], st.sampled_from(list(Mark)), st.lists(inner, max_size=4)
        ),
        st.dictionaries(st.integers() | st.text("ab"), inner, max_size=3),
    ),
    max_leaves=12,
)


@given(nodes)
def test_any_tree_of_marks_and_leaves(node: object) -> None:
    try:
        packed = body(node)
    except OverflowError:
        return
    _decode_or_refuse(seal(packed, 1))


WHOLE = codec.encode({"a": [1, (2, Decimal("1.5")), {3, 4}], "b": None, (1,): b"x"})


def test_every_truncation_is_noticed() -> None:
    for length in range(len(WHOLE)):
        with pytest.raises(CorruptRecord):
            codec.decode(WHOLE[:length])
        with pytest.raises(CorruptRecord):
            codec.decode(seal(WHOLE[HEADER_BYTES:length], 1))
    with pytest.raises(CorruptRecord):
        codec.decode(WHOLE + b"\x00")
    with pytest.raises(CorruptRecord):
        codec.decode(seal(WHOLE[HEADER_BYTES:] + b"\x00", 1))


def test_every_flipped_bit_is_noticed() -> None:
    for bit in range(len(WHOLE) * 8):
        flipped = bytearray(WHOLE)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptRecord):
            codec.decode(bytes(flipped))


def _header(version: int, flags: int, schema: int) -> bytes:
    from zlib import crc32

    head = struct.pack(">BBBH", 0xC1, version, flags, schema)
    return head + struct.pack(">I", crc32(b"\xc0", crc32(head))) + b"\xc0"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the header is missing"),
        (b'{"a": 1, "b": 2}', "the header is missing"),
        (_header(1, 0, 0), "schema 0"),
    ],
)
def test_a_foreign_header_is_told(data: bytes, message: str) -> None:
    with pytest.raises(CorruptRecord, match=message):
        codec.decode(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_header(2, 0, 1), "a record of format 2, .*newer version"),
        (_header(2, 1, 1), "a record of format 2, .*newer version"),
        (_header(1, 4, 1), "flags 0x04: it was written by a newer version"),
        (_header(1, 0x81, 1), "flags 0x81: it was written by a newer version"),
    ],
)
def test_a_whole_record_of_a_newer_version_is_not_corrupt(data: bytes, message: str) -> None:
    with pytest.raises(CodecError, match=message) as caught:
        codec.decode(data)
    assert type(caught.value) is CodecError


@pytest.mark.parametrize(
    "data", [bytearray(WHOLE), memoryview(WHOLE), "text", None], ids=lambda d: type(d).__name__
)
def test_only_bytes_are_decoded(data: Any) -> None:
    with pytest.raises(UnsupportedType, match="a codec decodes bytes"):
        codec.decode(data)


def clock(zone: bytes, fold: int = 0) -> bytes:
    return struct.pack(">BBBIB", 1, 2, 3, 4, fold) + zone


BROKEN = {
    "key twice": b"\x82\xa1a\x01\xa1a\x02",
    "keys equal": b"\x82\x01\x01\xc3\x02",
    "key twice among marks": b"\x82\xa1a" + body(ext(Leaf.UUID, bytes(16))) + b"\xa1a\x02",
    "list as key": b"\x81\x90\x01",
    "map as key": b"\x81\x80\x01",
    "tuple as map key": b"\x81" + body([ext(Mark.TUPLE)]) + b"\x01",
    "leaf as map key": b"\x81" + body(ext(Leaf.UUID, bytes(16))) + b"\x01",
    "bad utf-8": b"\xa1\xff",
    "reserved byte": b"\xc1",
    "timestamp 32": body([msgpack.Timestamp(1)]),
    "timestamp 64": body([msgpack.Timestamp(1, 1)]),
    "timestamp 96": body([msgpack.Timestamp(-1, 1)]),
    "timestamp as key": b"\x81" + body(msgpack.Timestamp(1)) + b"\x01",
    "mark alone": body(ext(Mark.TUPLE)),
    "mark in the middle": body([1, ext(Mark.TUPLE)]),
    "mark as value": body({"a": ext(Mark.SET)}),
    "mark as key": b"\x81" + body(ext(Mark.SET)) + b"\x01",
    "mark with payload": body([ext(Mark.TUPLE, b"x"), 1]),
    "set with twins": body([ext(Mark.SET), 1, 1]),
    "set of lists": body([ext(Mark.SET), [1]]),
    "set of sNaN": body([ext(Mark.SET), ext(Leaf.DECIMAL, b"sNaN")]),
    "colliding set": body(
        [ext(Mark.SET), *(ext(Leaf.INT, dump_int(i * (2**61 - 1) << 70)) for i in range(1, 300))]
    ),
    "set with a long int": body([ext(Mark.SET), ext(Leaf.INT, b"\x7f" * 129)]),
    "long int inside a key": body(
        [ext(Mark.MAP), [ext(Mark.TUPLE), [ext(Mark.TUPLE), ext(Leaf.INT, b"\x7f" * 129)]], 1]
    ),
    "pairs with an odd end": body([ext(Mark.MAP), 1]),
    "pairs with twins": body([ext(Mark.MAP), 1, 2, 1, 2]),
    "pairs with a list key": body([ext(Mark.ORDERED_DICT), [], 2]),
    "deque without length": body([ext(Mark.DEQUE)]),
    "deque of text length": body([ext(Mark.DEQUE, b""), "1"]),
    "deque of bool length": body([ext(Mark.DEQUE), True]),
    "deque too long": body([ext(Mark.DEQUE), 1, 2, 3]),
    "deque of negative length": body([ext(Mark.DEQUE), -1]),
    "deque of vast length": body([ext(Mark.DEQUE), 2**64 - 1]),
    "defaultdict without factory": body([ext(Mark.DEFAULT_DICT)]),
    "defaultdict of int factory": body([ext(Mark.DEFAULT_DICT), 1]),
    "defaultdict with an odd end": body([ext(Mark.DEFAULT_DICT), "list", 1]),
    "object without tag": body([ext(Mark.REGISTERED)]),
    "object of int tag": body([ext(Mark.REGISTERED), 1, 1]),
    "int empty": body(ext(Leaf.INT)),
    "int small": body(ext(Leaf.INT, b"\x01")),
    "int padded": body(ext(Leaf.INT, bytes(2) + b"\xff" * 9)),
    "decimal of nothing": body(ext(Leaf.DECIMAL)),
    "decimal of words": body(ext(Leaf.DECIMAL, b"open sesame")),
    "decimal respelled": body(ext(Leaf.DECIMAL, b" 1_000 ")),
    "decimal of vast exponent": body(ext(Leaf.DECIMAL, b"1E+99999999999999999999")),
    "fraction of nothing": body(ext(Leaf.FRACTION)),
    "fraction over zero": body(ext(Leaf.FRACTION, b"\x00\x01\x01\x00")),
    "fraction not reduced": body(ext(Leaf.FRACTION, b"\x00\x01\x02\x04")),
    "fraction too long": body(ext(Leaf.FRACTION, b"\x00\x01\x01" + b"\x7f" * 2000)),
    "complex of half": body(ext(Leaf.COMPLEX, bytes(8))),
    "uuid of fifteen": body(ext(Leaf.UUID, bytes(15))),
    "uuid of odd safety": body(ext(Leaf.UUID, bytes(16) + b"\x02")),
    "date of month 13": body(ext(Leaf.DATE, b"\x07\xe8\x0d\x01")),
    "date of year 0": body(ext(Leaf.DATE, b"\x00\x00\x01\x01")),
    "time without zone": body(ext(Leaf.TIME, clock(b""))),
    "time of fold 2": body(ext(Leaf.TIME, clock(b"\x00", fold=2))),
    "zone of unknown kind": body(ext(Leaf.TIME, clock(b"\x09"))),
    "zone with a tail": body(ext(Leaf.TIME, clock(b"\x01x"))),
    "zone of vast offset": body(ext(Leaf.TIME, clock(b"\x02" + b"\x7f" * 8))),
    "zone of short offset": body(ext(Leaf.TIME, clock(b"\x02\x00"))),
    "zone of bad name": body(ext(Leaf.TIME, clock(b"\x03" + bytes(8) + b"\xff"))),
    "zone key that climbs": body(ext(Leaf.TIME, clock(b"\x04../../etc/passwd"))),
    "zone key that is a path": body(ext(Leaf.TIME, clock(b"\x04/etc/localtime"))),
    "zone key with a dot": body(ext(Leaf.TIME, clock(b"\x04os.path/x"))),
    "zone key of nothing": body(ext(Leaf.TIME, clock(b"\x04"))),
    "timedelta too large": body(ext(Leaf.TIMEDELTA, struct.pack(">iII", 2**31 - 1, 0, 0))),
    "timedelta not normal": body(ext(Leaf.TIMEDELTA, struct.pack(">iII", 0, 86_400, 0))),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_broken_bodies_are_corrupt(broken: bytes) -> None:
    with pytest.raises(CorruptRecord):
        codec.decode(seal(broken, 1))
    with pytest.raises(CorruptRecord):  # on the way of plain data and on that of marks alike
        codec.decode(seal(b"\x92" + body(ext(Leaf.UUID, bytes(16))) + broken, 1))


@pytest.mark.parametrize("unknown", [body([ext(99)]), b"\xc7\x01\x80a"])
def test_an_unknown_extension_is_of_a_newer_version(unknown: bytes) -> None:
    with pytest.raises(CodecError, match="is unknown: a newer version of sessionkit wrote it") as caught:
        codec.decode(seal(unknown, 1))
    assert not isinstance(caught.value, CorruptRecord), "its checksum matches"


@pytest.mark.parametrize(
    ("raised", "wrong"),
    [
        (UnicodeError, b"\xa1\xff"),
        (OverflowError, b"\xc7\x0c\xff" + bytes(4) + b"\x7f" + b"\xff" * 7),
        (ValueError, b"\x92\x01"),
        (TypeError, b"\x81\x90\x01"),
        (msgpack.FormatError, b"\xc1"),
        (msgpack.StackError, b"\x91" * 2000),
        (msgpack.ExtraData, b"\x01\x01"),
    ],
    ids=lambda part: part.__name__ if isinstance(part, type) else "",
)
def test_whatever_msgpack_raises_is_a_codec_error(raised: type[Exception], wrong: bytes) -> None:
    with pytest.raises(raised):
        msgpack.unpackb(wrong, strict_map_key=False, timestamp=3)
    with pytest.raises(CorruptRecord):
        codec.decode(seal(wrong, 1))


def test_a_megabyte_of_empty_maps_is_not_unpacked() -> None:
    maps = _repeated(1 << 20, b"\x80")
    assert _peak_of_decoding(maps, RecordTooLarge) < 3 * len(maps)


@pytest.mark.parametrize("key", [b"Nowhere/Land", b"Europe", b"zone1970"])
def test_a_zone_this_machine_lacks_is_no_corruption(key: bytes) -> None:
    with pytest.raises(
        CodecError, match="is not known on this machine; install or update the tzdata"
    ) as caught:
        codec.decode(seal(body(ext(Leaf.TIME, clock(b"\x04" + key))), 1))
    assert not isinstance(caught.value, CorruptRecord)


LIMITS = Limits()
FULL = LIMITS.stored_bytes - 100
"""Bytes of a body that nearly fills a record."""

BOMBS = {
    "empty maps": b"\xdd" + struct.pack(">I", FULL) + b"\x80" * FULL,
    "nothings": b"\xdd" + struct.pack(">I", FULL) + b"\xc0" * FULL,
    "open lists of empty maps": (b"\xdd\x00\x00\xc3\x50" + b"\x80" * 49_999) * 80 + b"\x80",
    "open lists of nothings": (b"\xdd\x00\x00\xc3\x50" + b"\xc0" * 49_999) * 80 + b"\xc0",
    "lying headers": b"\xdd\x00\xff\xff\xf0" * 1000 + b"\xc0" * (FULL - 5000),
    "lying small headers": b"\xdc\x3f\x00" * 900 + b"\xc0" * 12_000,
    "lying headers alone": b"\xdc\x02\x00" * 170,
    "lists in lists": b"\x91" * FULL,
    "lists in lists, just": b"\x91" * 1000 + b"\xc0",
    "maps in maps": b"\x81\xa0" * 500 + b"\xc0",
    "tuples in tuples": b"\x92\xc7\x00\x01" * 1000 + b"\xc0",
    "huge string claimed": b"\xdb\xff\xff\xff\xff",
    "huge string there": b"\xdb" + struct.pack(">I", FULL) + b"a" * FULL,
    "huge extension claimed": b"\xc9\xff\xff\xff\xff\x10",
    "huge bytearray there": b"\xc9" + struct.pack(">IB", FULL, Leaf.BYTEARRAY) + b"a" * FULL,
    "huge map claimed": b"\xdf\xff\xff\xff\xff",
    "one huge int": b"\xc9" + struct.pack(">IB", FULL, Leaf.INT) + b"\x7f" * FULL,
}


def _peak_of_decoding(body: bytes, *refusals: type[Exception]) -> int:
    data = seal(body, 1)
    tracemalloc.start()
    try:
        if refusals:
            with pytest.raises(refusals):
                codec.decode(data)
        else:
            codec.decode(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bombs_stay_small(bomb: bytes) -> None:
    assert _peak_of_decoding(bomb, CorruptRecord, RecordTooLarge) < 3 * LIMITS.stored_bytes


def _repeated(count: int, item: bytes) -> bytes:
    return b"\xdd" + struct.pack(">I", count) + item * count


WIDE = "a" * (LIMITS.string_bytes - 4) + "🙂"
ITEMS = LIMITS.items

AT_THE_BOUND = {
    "empty lists": _repeated(ITEMS // 2 - 1, b"\x90"),
    "empty lists, uncounted": _repeated(ITEMS - 5, b"\x90"),
    "empty deques": _repeated(ITEMS // 4 - 1, body([ext(Mark.DEQUE), None])),
    "empty deques, uncounted": _repeated(ITEMS // 5 - 1, body([ext(Mark.DEQUE), None])),
    "empty sets, uncounted": _repeated(ITEMS // 4 - 2, body([ext(Mark.SET)])),
    "empty ordered dicts, uncounted": _repeated(ITEMS // 4 - 2, body([ext(Mark.ORDERED_DICT)])),
    "maps of one": _repeated(ITEMS // 4 - 1, b"\x81\x01\xc0"),
    "long decimals": _repeated(90, body(ext(Leaf.DECIMAL, b"9" * 45_000))),
    "named zones": _repeated(ITEMS // 5 - 1, body(ext(Leaf.TIME, clock(b"\x03" + bytes(8) + b"x" * 100)))),
    "wide strings": b"\x93" + body(WIDE) * 3,
    "a wide string packed again": body("a" * (ITEMS - 50) + "🙂"),
    "wide strings as keys": b"\x93" + body({WIDE: None}) * 3,
    "keys": body({f"{key:x}": None for key in range(ITEMS // 2 - 1)}),
    "elements": body([ext(Mark.SET), *map(str, range(ITEMS - 10))]),
}


@pytest.mark.parametrize("full", AT_THE_BOUND.values(), ids=AT_THE_BOUND)
def test_a_decode_takes_at_most_eight_times_the_bound(full: bytes) -> None:
    assert _peak_of_decoding(full) < 8 * LIMITS.stored_bytes


def test_no_payload_in_messages() -> None:
    secret = body({"password": "hunter2"})
    for data in (seal(secret + b"\x00", 1), seal(secret[:-1], 1), seal(b"\x82" + secret[1:] * 2, 1)):
        with pytest.raises(CorruptRecord) as caught:
            codec.decode(data)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__context__ is None or caught.value.__suppress_context__
