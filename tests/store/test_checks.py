from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.errors import InvalidExpiry, InvalidKey, RecordTooLarge
from sessionkit.store import (
    MAX_EXPIRY_SECONDS,
    Put,
    check_keys_in_turns,
    check_puts_in_turns,
    milliseconds,
)


@given(st.floats(min_value=1e-9, max_value=MAX_EXPIRY_SECONDS))
def test_an_expiry_is_rounded_up_to_a_millisecond(seconds: float) -> None:
    result = milliseconds(seconds)
    assert result >= 1
    assert result - 1 <= seconds * 1000 <= result


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), MAX_EXPIRY_SECONDS + 1, True, "1", None])
def test_what_is_no_expiry_is_refused(bad: float) -> None:
    with pytest.raises(InvalidExpiry):
        milliseconds(bad)


def test_a_driver_takes_no_timedelta() -> None:
    with pytest.raises(InvalidExpiry, match=r"not timedelta \(pass its \.total_seconds\(\)\)$"):
        milliseconds(cast("Any", timedelta(seconds=5)))


async def test_a_long_batch_is_checked_to_its_end_while_others_run() -> None:
    turns = 0

    async def run_beside() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    keys = [f"key{number}" for number in range(10_000)]
    puts = [Put(key, b"value") for key in keys]
    beside = asyncio.create_task(run_beside())
    assert await check_keys_in_turns([*keys, *keys]) == keys
    assert turns >= 9
    assert await check_puts_in_turns(iter(puts), 5) == puts
    assert turns >= 18
    for last in ("", "a#b"):
        with pytest.raises(InvalidKey):
            await check_keys_in_turns([*keys, last])
    with pytest.raises(RecordTooLarge):
        await check_puts_in_turns([*puts, Put("key", b"longer")], 5)
    with pytest.raises(InvalidKey, match="this is one str"):
        await check_keys_in_turns("key")
    beside.cancel()
