"""Hypothesis strategies for what sessionkit keeps; needs ``sessionkit[testing]``.

``values()`` draws every type that is kept natively, nested in one another; what a store gives back for it is
to be ``sessionkit.testing.exactly_equal``. The other strategies are its parts::

    @given(values())
    def test_nothing_is_lost(value): ...

Registered types come in by composing, such as ``st.builds(Profile, name=text(), data=values())``.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import cache, reduce
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

from sessionkit.extras import needing

with needing("testing"):
    from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "datetimes",
    "decimals",
    "integers",
    "keys",
    "leaves",
    "nested_values",
    "plain_values",
    "scalars",
    "text",
    "times",
    "uuids",
    "values",
    "zones",
]

DEEPEST: Final = 20
"""How many containers ``values`` and ``nested_values`` put inside one another."""

_ZONES: Final = ("UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia")
_EDGES: Final = (-(2**63), -(2**63) - 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64)
_SIGNS: Final = st.sampled_from([1, -1])
_MOMENTS: Final = (
    datetime.min,
    datetime.max,
    datetime(2024, 10, 27, 2, 30),  # twice in Berlin
    datetime(2024, 10, 27, 2, 30, fold=1),
    datetime(2024, 3, 31, 2, 30),  # never there
    datetime(2011, 12, 30),  # a day that Apia skipped
)
_FACTORIES: Final = (None, list, dict, set, int, float, str, bool, tuple, frozenset)


@cache
def text() -> st.SearchStrategy[str]:
    """Return a strategy for str that UTF-8 can hold."""
    return st.text(st.characters(exclude_categories=["Cs"]))


@cache
def integers() -> st.SearchStrategy[int]:
    """Return a strategy for ints: small ones, those around 64 bits, and some of up to 4,000 digits."""
    return _short_integers() | st.builds(
        lambda digits, sign: sign * 10**digits, st.integers(400, 3_999), _SIGNS
    )


@cache
def _short_integers() -> st.SearchStrategy[int]:
    return st.one_of(st.integers(), st.integers(-(2**70), 2**70), st.sampled_from(_EDGES))


@cache
def decimals() -> st.SearchStrategy[Decimal]:
    """Return a strategy for Decimals, quiet NaNs with and without a payload among them."""
    numbers = st.decimals().filter(lambda number: not number.is_snan())
    return numbers | st.sampled_from([Decimal("NaN"), Decimal("-NaN12"), Decimal("-0E+5"), Decimal("1.10")])


@cache
def uuids() -> st.SearchStrategy[UUID]:
    """Return a strategy for UUIDs, known to be safe, unsafe or neither."""
    return st.builds(
        lambda uuid, is_safe: UUID(int=uuid.int, is_safe=is_safe), st.uuids(), st.sampled_from(SafeUUID)
    )


@cache
def zones() -> st.SearchStrategy[tzinfo]:
    """Return a strategy for time zones: UTC, offsets to the microsecond, with and without a name, by key."""
    day = timedelta(days=1) - timedelta(microseconds=1)
    offsets = st.timedeltas(-day, day)
    return st.one_of(
        st.just(UTC),
        st.builds(timezone, offsets),
        st.builds(timezone, offsets, text()),
        st.sampled_from(_ZONES).map(ZoneInfo),
    )


@cache
def times() -> st.SearchStrategy[time]:
    """Return a strategy for times, naive and aware, of both folds."""
    return st.times(timezones=st.none() | zones())


@cache
def datetimes() -> st.SearchStrategy[datetime]:
    """Return a strategy for datetimes: naive and aware, of both folds, of the years 1 to 9999."""
    maybe_zone = st.none() | zones()
    edges = st.builds(lambda moment, zone: moment.replace(tzinfo=zone), st.sampled_from(_MOMENTS), maybe_zone)
    return st.datetimes(timezones=maybe_zone) | edges


@cache
def scalars() -> st.SearchStrategy[Any]:
    """Return a strategy for None, bool, int of 64 bits, float with -0.0 and NaN, str and bytes."""
    whole = st.integers(-(2**63), 2**64 - 1)
    return st.one_of(st.none(), st.booleans(), whole, st.floats(), text(), st.binary())


@cache
def plain_values() -> st.SearchStrategy[Any]:
    """Return a strategy for plain data: scalars in lists and in dicts with scalar keys."""
    return st.recursive(
        scalars(),
        lambda inner: st.one_of(
            st.lists(inner, max_size=6),
            st.dictionaries(text(), inner, max_size=6),
            st.dictionaries(scalars(), inner, max_size=6),
        ),
        max_leaves=20,
    )


@cache
def leaves() -> st.SearchStrategy[Any]:
    """Return a strategy for every native type that holds no others."""
    # Not among the keys are a signaling NaN, which has no hash, and long ints.
    return st.one_of(_hashable_leaves(), integers(), st.binary().map(bytearray), st.just(Decimal("-sNaN123")))


@cache
def keys() -> st.SearchStrategy[Any]:
    """Return a strategy for hashable values, tuples and frozensets among them."""
    return st.recursive(
        _hashable_leaves(), lambda inner: _tuples(inner) | st.frozensets(inner, max_size=4), max_leaves=6
    )


@cache
def values() -> st.SearchStrategy[Any]:
    """Return a strategy for every type that sessionkit keeps natively, nested in one another."""
    return st.recursive(leaves(), _containers, max_leaves=20) | nested_values()


def nested_values(depth: int = DEEPEST) -> st.SearchStrategy[Any]:
    """Return a strategy for a native value inside up to ``depth`` containers of all kinds, one in another."""
    boxes = st.lists(st.sampled_from(_BOXES), max_size=depth)
    return st.builds(
        lambda leaf, around: reduce(lambda inner, box: box(inner), around, leaf), leaves(), boxes
    )


_BOXES: Final[tuple[Callable[[Any], Any], ...]] = (
    lambda inner: [inner],
    lambda inner: (inner, None),
    lambda inner: {"a": inner, 1: "int", "1": -0.0},
    lambda inner: {True: inner, "1": 1},
    lambda inner: {(1, "a"): inner},
    lambda inner: {date(1, 1, 1): inner, math.inf: []},
    lambda inner: deque([inner], maxlen=3),
    lambda inner: OrderedDict(b=1, a=inner),
    lambda inner: defaultdict(list, {"a": inner}),
    lambda inner: [{}, inner, (), set(), frozenset()],
)


@cache
def _hashable_leaves() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.none(),
        st.booleans(),
        _short_integers(),
        st.floats(),
        text(),
        st.binary(),
        st.complex_numbers(),
        decimals(),
        st.fractions(),
        uuids(),
        st.dates(),
        st.timedeltas(),
        times(),
        datetimes(),
    )


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=6),
        _tuples(inner),
        st.dictionaries(text(), inner, max_size=6),
        st.dictionaries(keys(), inner, max_size=4),
        st.dictionaries(keys(), inner, max_size=4).map(OrderedDict),
        st.builds(defaultdict, st.sampled_from(_FACTORIES), st.dictionaries(keys(), inner, max_size=4)),
        st.sets(keys(), max_size=4),
        st.frozensets(keys(), max_size=4),
        st.builds(deque, st.lists(inner, max_size=4), st.none() | st.integers(0, 6)),
    )


def _tuples(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(inner, max_size=4).map(tuple)
