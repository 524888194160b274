"""What tasks change beside the update that they were made in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from telegram.ext import ContextTypes

from sessionkit.errors import StoreUnavailable
from sessionkit.ptb import SessionApplication, intake
from tests.ptb.conftest import message
from tests.ptb.test_inbox import emptied, idle, stored, with_inbox
from tests.ptb.test_transactions import GatedStore, count, handled_by, on_message, store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from telegram import Update

    from tests.ptb.conftest import Instances

Context = ContextTypes.DEFAULT_TYPE

__all__ = ["store"]


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_FIRST_PAUSE", 0.02)


async def pay(context: Context) -> None:
    application = context.application
    assert isinstance(application, SessionApplication)
    async with application.user_data_of(7) as data:
        data["paid"] = data.get("paid", 0) + 1


@pytest.mark.parametrize(
    "paying",
    [pay, lambda context: asyncio.gather(pay(context)), lambda context: asyncio.wait_for(pay(context), 10)],
    ids=["itself", "gather", "wait_for"],
)
async def test_what_a_handler_edits_of_its_own_user_is_stored_with_its_update(
    instance: Instances, store: GatedStore, paying: Callable[[Context], Awaitable[object]]
) -> None:
    outage = [StoreUnavailable("for now")]

    async def handle(update: Update, context: Context) -> None:
        await count(update, context)
        await paying(context)
        store.failing, outage[:] = list(outage), []

    async with instance(handled_by(on_message(handle)), configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await emptied(store)
        await idle(application)
    assert (await stored(store))[0] == {7: {"n": 1, "paid": 1}}


async def test_a_task_edits_once_its_update_is_stored(instance: Instances, store: GatedStore) -> None:
    order: list[str] = []
    paid = asyncio.Event()

    async def task(context: Context) -> None:
        await pay(context)
        order.append("paid")
        paid.set()

    async def handle(update: Update, context: Context) -> None:
        await count(update, context)
        await asyncio.wait([context.application.create_task(task(context))], timeout=0.2)
        order.append("handled")

    async with instance(handled_by(on_message(handle)), configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await paid.wait()
        await idle(application)
    assert order == ["handled", "paid"]
    assert (await stored(store))[0] == {7: {"n": 1, "paid": 1}}


async def test_a_task_sees_the_bots_data_themselves(instance: Instances, store: GatedStore) -> None:
    began, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def outlive(update: Update, context: Context) -> None:
        bot_data = context.bot_data
        began.set()
        await go_on.wait()
        bot_data["late"] = 1
        done.set()

    async def wait(update: Update, context: Context) -> None:
        await began.wait()

    handlers = handled_by(on_message(outlive, block=False), on_message(wait))
    async with instance(handlers, configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await idle(application)
        go_on.set()
        await done.wait()
    assert (await stored(store))[2] == {"late": 1}


async def test_a_task_lets_go_of_no_more_than_it_held(instance: Instances, store: GatedStore) -> None:
    ended, tasks = asyncio.Event(), []

    async def handle(update: Update, context: Context) -> None:
        tasks.append(context.application.create_task(ended.wait()))
        context.application.user_data[8]["gift"] = 1
        context.application.mark_data_for_update_persistence(user_ids=8)

    async with instance(handled_by(on_message(handle)), configure=with_inbox) as application:
        assert isinstance(application, SessionApplication)
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await idle(application)
        ended.set()
        await asyncio.wait(tasks)
        await application._desk.settle_late()
        [cell] = application._records.ledger.concerned([application._records.keys.users.key(8)])
        assert cell.pins == 0
    assert (await stored(store))[0] == {8: {"gift": 1}}
