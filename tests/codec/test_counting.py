"""Elements are counted off the bytes as they are counted off the values."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given

from sessionkit.codec import Limits, MsgpackCodec
from sessionkit.codec.counting import check_counts
from sessionkit.codec.envelope import HEADER_BYTES
from sessionkit.codec.lowering import Lowering
from sessionkit.codec.registry import Registry
from sessionkit.errors import RecordTooLarge
from sessionkit.testing.strategies import values

LARGEST = Limits(items=2**40)


def _count(body: bytes) -> int:
    """Return the least bound on items under which a body is read."""
    low, high = 1, 16 * len(body)
    while low < high:
        middle = (low + high) // 2
        try:
            check_counts(body, Limits(items=middle))
            high = middle
        except RecordTooLarge:
            low = middle + 1
    return low


@given(values())
def test_what_is_written_within_a_bound_is_read_within_it(value: object) -> None:
    body = MsgpackCodec().encode(value)[HEADER_BYTES:]
    count = _count(body)
    Lowering(Registry(), Limits(items=count), "value").lower(value)
    if count > 1:
        with pytest.raises(RecordTooLarge):
            Lowering(Registry(), Limits(items=count - 1), "value").lower(value)


@given(values())
def test_only_whole_bodies_are_counted(value: object) -> None:
    body = MsgpackCodec().encode(value)[HEADER_BYTES:]
    for wrong in (body + b"\xc0", body[:-1]):
        with pytest.raises(ValueError, match="a body"):
            check_counts(wrong, LARGEST)


def test_a_claim_is_refused_at_once() -> None:
    for head in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x91\xdc\xff\xff"):
        with contextlib.suppress(ValueError):
            check_counts(head, LARGEST)
        with pytest.raises(RecordTooLarge, match="too many elements, and the limit is 1000: to raise it"):
            check_counts(head, Limits(items=1000))
