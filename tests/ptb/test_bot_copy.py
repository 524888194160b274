"""The bot's data while several updates, jobs and tasks change them at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from telegram import User
from telegram.ext import ContextTypes

from sessionkit.codec import MsgpackCodec
from sessionkit.errors import UnsupportedType
from sessionkit.ptb import on_commit
from tests.ptb.conftest import message
from tests.ptb.test_inbox import KEYS, idle, stored, with_inbox
from tests.ptb.test_transactions import Errors, GatedStore, count_all, handled_by, on_message, store

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest
    from telegram import Update

    from sessionkit.store import Put, Receipt
    from tests.ptb.conftest import Instances

Context = ContextTypes.DEFAULT_TYPE

__all__ = ["store"]


async def test_what_python_telegram_bot_calls_equal_is_told_apart(
    instance: Instances, store: GatedStore
) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def handle(update: Update, context: Context) -> None:
        assert update.message is not None
        if update.message.text == "slow":
            context.bot_data["n"] = 1
            began.set()
            await go_on.wait()
        else:
            context.bot_data["owner"] = User(5, update.message.text or "", is_bot=False)

    async with instance(handled_by(on_message(handle)), configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "old", update_id=1))
        await idle(application)
        await application.update_queue.put(message(application, 7, "slow", update_id=2))
        await began.wait()
        await application.update_queue.put(message(application, 8, "new", update_id=3))
        while (await stored(store))[2]["owner"].first_name != "new":
            store.saved.clear()
            await store.saved.wait()
        go_on.set()
        await idle(application)
    _, _, bot_data = await stored(store)
    assert (bot_data["n"], bot_data["owner"].first_name) == (1, "new")


async def test_an_update_is_stored_though_others_never_rest(
    instance: Instances, store: GatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = asyncio.Event()

    async def answer() -> None:
        answered.set()

    async def handle(update: Update, context: Context) -> None:
        await count_all(update, context)
        on_commit(answer)

    async with instance(handled_by(on_message(handle)), configure=with_inbox) as application:
        write = store.put_many

        async def never_rest(puts: Iterable[Put]) -> list[Receipt]:
            receipts = await write(puts)
            application.bot_data["ticks"] = application.bot_data.get("ticks", 0) + 1
            return receipts

        monkeypatch.setattr(store, "put_many", never_rest)
        application.bot_data["ticks"] = 1
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        async with asyncio.timeout(30):
            await answered.wait()
        monkeypatch.undo()
        await idle(application)
        ticks = application.bot_data["ticks"]
    assert await stored(store) == ({7: {"n": 1}}, {}, {"n": 1, "ticks": ticks})


async def test_what_others_spoil_costs_no_update_its_own_change(
    instance: Instances, store: GatedStore
) -> None:
    began, go_on, errors = asyncio.Event(), asyncio.Event(), Errors()

    async def handle(update: Update, context: Context) -> None:
        await count_all(update, context)
        began.set()
        await go_on.wait()

    handlers = handled_by(on_message(handle), errors=errors)
    async with instance(handlers, configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await began.wait()
        application.bot_data["spoilt"] = object()
        go_on.set()
        await idle(application)
        assert [type(error) for error in errors] == [UnsupportedType]
        assert (await stored(store))[0] == {7: {"n": 1}}
        del application.bot_data["spoilt"]
        await application.update_persistence()
    assert (await stored(store))[2] == {"n": 1}


async def test_bot_data_that_cannot_be_read_are_kept_and_go_on_in_memory(
    instance: Instances, store: GatedStore
) -> None:
    newer, errors = MsgpackCodec(schema=9), Errors()
    data = newer.wrap(newer.pack({}, name="data"), key=KEYS.bot)
    await store.put(KEYS.bot, data)
    handlers = handled_by(on_message(count_all), errors=errors)
    async with instance(handlers, configure=with_inbox) as application:
        for number in (1, 2, 3):
            await application.update_queue.put(message(application, 7, "a", update_id=number))
        await idle(application)
        assert application.bot_data == {"n": 3}
    found = await store.get(KEYS.bot)
    assert found is not None
    assert found.value == data
