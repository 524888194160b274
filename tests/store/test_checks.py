from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.errors import InvalidExpiry
from sessionkit.store import MAX_EXPIRY_SECONDS, milliseconds


@given(st.floats(min_value=1e-9, max_value=MAX_EXPIRY_SECONDS))
def test_an_expiry_is_rounded_up_to_a_millisecond(seconds: float) -> None:
    result = milliseconds(seconds)
    assert result >= 1
    assert result - 1 <= seconds * 1000 <= result


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), MAX_EXPIRY_SECONDS + 1, True, "1", None])
def test_what_is_no_expiry_is_refused(bad: float) -> None:
    with pytest.raises(InvalidExpiry):
        milliseconds(bad)
