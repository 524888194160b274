"""What the fuzzer found stays mended, and bytes near sound ones are looked at everywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sessionkit.codec.envelope import HEADER_BYTES
from sessionkit.testing.strategies import values
from tests.fuzz.oracle import decode_or_refuse, make_codec, read_corpus

codec = make_codec()


def test_the_corpus() -> None:
    corpus = read_corpus()
    assert len(corpus) > 100
    for data in corpus:
        decode_or_refuse(data)


def test_the_corpus_cut_short() -> None:
    for data in read_corpus():
        if len(data) < 100:
            for length in range(len(data)):
                decode_or_refuse(data[:length])


changes = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 8), st.none() | st.binary(max_size=8)), min_size=1, max_size=4
)
"""Where, as a part of the length; how many bytes go; and what comes in their place, None for them twice."""


@given(values(), changes)
def test_bodies_near_sound_ones(value: object, places: list[tuple[float, int, bytes | None]]) -> None:
    body = codec.encode(value)[HEADER_BYTES:]
    for place, length, new in places:
        start = int(place * len(body))
        old = body[start : start + length]
        body = body[:start] + (old * 2 if new is None else new) + body[start + length :]
    decode_or_refuse(body)
