"""Conversations that end by themselves, whatever stands for a deadline."""

from __future__ import annotations

import asyncio
import gc
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from sessionkit.ptb import SessionPersistence, timeouts
from tests.ptb.conftest import UnsteadyStore, message
from tests.ptb.test_inbox import KEYS
from tests.ptb.test_instances import asleep, is_awake, napping, until

if TYPE_CHECKING:
    from tests.ptb.conftest import Instances


async def store_deadline(store: UnsteadyStore, user_id: int, **changed: object) -> None:
    """Store a user's deadline anew, with something changed."""
    key, values = KEYS.timeouts.key("nap", user_id, user_id), SessionPersistence(store).records.values
    record = await store.get(key)
    assert record is not None
    entry: dict[str, Any] = values.open(key, record.value).value
    await store.put(key, values.seal(key, values.pack(key, {**entry, **changed}).plain))


@pytest.mark.parametrize("odd", [10**400, -1, True, math.nan, math.inf, Decimal("sNaN"), "soon"])
async def test_what_is_no_time_is_no_deadline(store: UnsteadyStore, instance: Instances, odd: object) -> None:
    async with instance(napping(0.3)) as one:
        for user in (1, 2):
            await one.process_update(message(one, user, "/nap"))
    await store_deadline(store, 1, deadline=odd)
    async with instance(napping(1000)) as two:
        await until(store, lambda: is_awake(store, 2))
        assert await asleep(store) == {(1, 1): "asleep"}
        await two.process_update(message(two, 1, "/up"))
        assert await asleep(store) == {}


@pytest.mark.parametrize("odd", ["", "no JSON", "null", "5", "[]", "{}", '{"update_id": 2}', "[" * 100_000])
async def test_what_is_no_update_is_no_deadline(
    store: UnsteadyStore,
    instance: Instances,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    odd: str,
) -> None:
    async with instance(napping(0.3)) as one:
        for user in (1, 2):
            await one.process_update(message(one, user, "/nap"))
    await store_deadline(store, 1, update=odd)
    monkeypatch.setattr(timeouts, "_GRACE", 0.0)  # the first one's alarm rings first
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    async with instance(napping(1000)):
        await until(store, lambda: is_awake(store, 2))
    gc.collect()  # tells of tasks whose error nobody has looked at
    assert failures == []
    assert [record.key for record in caplog.records if hasattr(record, "key")] == [
        KEYS.timeouts.key("nap", 1, 1)
    ]
    assert await asleep(store) == {(1, 1): "asleep"}
