"""Conversations that end by themselves, whatever stands for a deadline."""

from __future__ import annotations

import asyncio
import gc
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from telegram.ext import (
    CallbackContext,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    MessageHandler,
    filters,
)

from sessionkit.ptb import SessionPersistence, timeouts
from tests.ptb.conftest import UnsteadyStore, message
from tests.ptb.test_inbox import KEYS
from tests.ptb.test_instances import asleep, is_awake, napping, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from telegram import Message

    from tests.ptb.conftest import AnyApplication, Instances


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


class Failing(filters.MessageFilter):
    """A filter that raises an error."""

    def filter(self, message: Message) -> bool:
        raise ValueError("the filter's own")


def talking(errors: asyncio.Queue[object]) -> Callable[[AnyApplication], None]:
    """Set up a conversation that ends by a filter that raises an error."""

    async def talk(*_: object) -> int:
        return 1

    async def note(_: object, context: Any) -> None:
        await errors.put(context.error)

    def set_up(application: AnyApplication) -> None:
        application.add_handler(
            ConversationHandler(
                entry_points=[CommandHandler("talk", talk)],
                states={1: [], ConversationHandler.TIMEOUT: [MessageHandler(Failing(), talk)]},
                fallbacks=[],
                name="talk",
                persistent=True,
                conversation_timeout=0.05,
            )
        )
        application.add_error_handler(note)

    return set_up


async def test_a_filter_that_fails_ends_the_conversation_all_the_same(
    store: UnsteadyStore, instance: Instances
) -> None:
    errors = asyncio.Queue[object]()
    async with instance(talking(errors)) as application:
        await application.process_update(message(application, 1, "/talk"))
        async with asyncio.timeout(10):
            assert "the filter's own" in str(await errors.get())
    assert await SessionPersistence(store).get_conversations("talk") == {}


async def test_a_context_that_cannot_be_made_ready_is_told(
    store: UnsteadyStore, instance: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(CallbackContext[Any, Any, Any, Any]):
        """Somebody's own."""

    async def fail(_: Own) -> None:
        raise ValueError("the context's own")

    errors = asyncio.Queue[object]()
    types = ContextTypes(context=Own)
    async with instance(
        talking(errors), configure=lambda builder: builder.context_types(types)
    ) as application:
        await application.process_update(message(application, 1, "/talk"))
        monkeypatch.setattr(Own, "refresh_data", fail)
        async with asyncio.timeout(10):
            assert "the context's own" in str(await errors.get())
    assert await SessionPersistence(store).get_conversations("talk") == {(1, 1): 1}
