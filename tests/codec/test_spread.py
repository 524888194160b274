"""Keys chosen to collide are refused, and keys that people have are not."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from sessionkit.codec import MsgpackCodec
from sessionkit.codec.envelope import seal
from sessionkit.codec.raw import pack
from sessionkit.codec.spread import WRITTEN, is_spread, is_spread_set
from sessionkit.codec.wire import Mark
from sessionkit.errors import CorruptRecord, UnsupportedType

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 1024
LONG = 200


def _places(key: int) -> Iterator[int]:
    """Yield where CPython looks for a small int in a dict's table of ``SIZE``."""
    perturb = key
    place = key % SIZE
    while True:
        yield place
        perturb >>= 5
        place = (place * 5 + perturb + 1) % SIZE


def _walkers(fillers: int, count: int) -> list[int]:
    """Return keys that fill a row of places without colliding, then keys that walk along it, all distinct."""
    row = [0]
    while len(row) < fillers:
        row.append((row[-1] * 5 + 1) % SIZE)
    taken = set(row)
    draw = random.Random(5)
    found: dict[int, None] = {}
    while len(found) < count:
        key = draw.randrange(1, 2**12) * SIZE + draw.choice(row)
        seen = _places(key)
        if all(next(seen) in taken for _ in range(LONG)):
            found[key] = None
    return [*row, *found]


DICT_WALKERS = _walkers(400, 200)
TWINS = [i * (2**61 - 1) << 70 for i in range(300)]
"""Ints of one hash."""


def test_walkers_and_twins_are_told() -> None:
    assert len(set(map(hash, DICT_WALKERS))) == len(DICT_WALKERS)
    assert not is_spread(DICT_WALKERS)
    assert not is_spread(DICT_WALKERS[::-1])
    assert not is_spread(TWINS)
    assert not is_spread_set(TWINS)


@pytest.mark.parametrize("others", [0, 1, 1000])
def test_walkers_are_told_at_every_size_of_the_table(others: int) -> None:
    assert not is_spread([*DICT_WALKERS, *range(10**6, 10**6 + others)])


def test_walkers_are_refused_on_the_way_in() -> None:
    codec = MsgpackCodec()
    for value in (
        dict.fromkeys(DICT_WALKERS),
        {(1,): 1} | dict.fromkeys(DICT_WALKERS),
        set(TWINS),
        frozenset(TWINS),
    ):
        with pytest.raises(UnsupportedType, match=r"^value\.a\[0\]: .*hashes collide this often"):
            codec.encode({"a": [value]})


def test_walkers_are_refused_on_the_way_out() -> None:
    from msgpack import ExtType

    for body in (
        dict.fromkeys(DICT_WALKERS),
        [ExtType(Mark.MAP, b""), *(part for key in DICT_WALKERS for part in (key, None))],
        [ExtType(Mark.ORDERED_DICT, b""), *(part for key in DICT_WALKERS for part in (key, None))],
    ):
        with pytest.raises(CorruptRecord):
            MsgpackCodec().decode(seal(pack([body]), 1))


def _ids(count: int) -> list[int]:
    draw = random.Random(1)
    return list(dict.fromkeys(draw.getrandbits(33) for _ in range(count)))


HONEST: dict[str, list[object]] = {
    "numbers": list(range(5000)),
    "chats": [-(10**12) - user for user in _ids(3000)],
    "users": list(_ids(3000)),
    "snowflakes": [(1_700_000_000_000 + 977 * i) << 22 for i in range(3000)],
    "flags": [1 << i for i in range(64)],
    "prices": [i / 100 for i in range(3000)],
    "grid": [i / 1024 for i in range(1024)],
    "pairs": [(user, i) for i, user in enumerate(_ids(3000))],
    "fractions": [Fraction(i, 7) for i in range(1000)],
    "texts": [str(i) for i in range(3000)],
    "mixed": [*map(str, range(500)), *range(500), *_ids(500)],
}


@pytest.mark.parametrize("keys", HONEST.values(), ids=HONEST)
def test_honest_keys_are_kept(keys: list[object]) -> None:
    codec = MsgpackCodec()
    for value in (dict.fromkeys(keys), set(keys), [{(): 1, **dict.fromkeys(keys)}]):
        assert codec.decode(codec.encode(value)) == value


def test_a_reader_takes_a_little_more_than_a_writer_gives() -> None:
    stepwise = [DICT_WALKERS[: 400 + walkers] for walkers in range(200)]
    written = sum(is_spread(keys, WRITTEN) for keys in stepwise)
    assert 0 < written < sum(is_spread(keys) for keys in stepwise) < 200
