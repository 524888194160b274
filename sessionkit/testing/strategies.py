"""Hypothesis strategies for what sessionkit keeps; needs ``sessionkit[testing]``."""

from __future__ import annotations

from collections import OrderedDict, deque
from datetime import UTC, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

_ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia")
_SIGNALING_NAN = Decimal("-sNaN123")
"""Not among the keys: it has no hash."""


def text() -> st.SearchStrategy[str]:
    """Return a strategy for str that UTF-8 can hold."""
    return st.text(st.characters(exclude_categories=["Cs"]))


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


def keys() -> st.SearchStrategy[Any]:
    """Return a strategy for hashable values, tuples and frozensets among them."""
    return st.recursive(
        _hashable_leaves(), lambda inner: _tuples(inner) | st.frozensets(inner, max_size=4), max_leaves=6
    )


def values() -> st.SearchStrategy[Any]:
    """Return a strategy for every type that sessionkit keeps natively, nested in one another."""
    leaves = _hashable_leaves() | st.binary().map(bytearray) | st.just(_SIGNALING_NAN)
    return st.recursive(leaves, _containers, max_leaves=20)


def _hashable_leaves() -> st.SearchStrategy[Any]:
    maybe_zone = st.none() | zones()
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        text(),
        st.binary(),
        st.complex_numbers(),
        st.decimals().filter(lambda number: not number.is_snan()),
        st.fractions(),
        st.uuids(),
        st.dates(),
        st.timedeltas(),
        st.times(timezones=maybe_zone),
        st.datetimes(timezones=maybe_zone),
    )


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=6),
        _tuples(inner),
        st.dictionaries(text(), inner, max_size=6),
        st.dictionaries(keys(), inner, max_size=4),
        st.dictionaries(keys(), inner, max_size=4).map(OrderedDict),
        st.sets(keys(), max_size=4),
        st.frozensets(keys(), max_size=4),
        st.builds(deque, st.lists(inner, max_size=4), st.none() | st.integers(0, 6)),
    )


def _tuples(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(inner, max_size=4).map(tuple)
