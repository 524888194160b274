"""The private names of python-telegram-bot, each as this installed version has it."""

from __future__ import annotations

import ast
import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from telegram import Update
from telegram.ext import (
    Application,
    ApplicationBuilder,
    CommandHandler,
    ConversationHandler,
    DictPersistence,
    JobQueue,
    MessageHandler,
    filters,
)

import sessionkit.ptb
from sessionkit.ptb import SessionApplication, application, private
from sessionkit.ptb.private import Marks
from tests.ptb.conftest import message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sessionkit.testing.botapi import BotApiServer
    from tests.ptb.conftest import AnyApplication

PUBLIC_ALL_THE_SAME = {"_asdict", "_field_defaults", "_fields", "_make", "_replace"}
"""What a named tuple offers."""

NOTHING = Marks(set(), set(), set())


class Recording(JobQueue[Any]):
    """A job queue that notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[object, object]] = []

    def run_once(self, callback: Any, when: Any, data: object = None, *args: Any, **kwargs: Any) -> Any:
        self.given.append((callback, data))
        return super().run_once(callback, when, data, *args, **kwargs)


@pytest.fixture
def queue() -> Recording:
    return Recording()


@pytest.fixture
def go_on() -> asyncio.Event:
    """Set when the late handler may end."""
    return asyncio.Event()


@pytest.fixture
async def stock(api: BotApiServer, queue: Recording, go_on: asyncio.Event) -> AsyncIterator[AnyApplication]:
    """A stock application with a conversation."""
    builder = ApplicationBuilder().token(api.token).base_url(api.base_url).updater(None)
    bot = builder.persistence(DictPersistence(update_interval=1000)).job_queue(queue).build()

    async def start(*_: Any) -> str:
        return "on"

    async def late(*_: Any) -> str:
        await go_on.wait()
        return "late"

    async def end(*_: Any) -> int:
        return ConversationHandler.END

    on: list[Any] = [CommandHandler("late", late, block=False), CommandHandler("end", end)]
    bot.add_handler(
        ConversationHandler(
            entry_points=[CommandHandler("start", start)],
            states={"on": on, "late": on},
            fallbacks=[],
            name="talk",
            persistent=True,
            conversation_timeout=timedelta(seconds=1000),
        )
    )
    bot.add_handler(MessageHandler(filters.ALL, end), group=1)
    async with bot:
        await bot.start()
        yield bot
        await bot.stop()


async def test_marks_of_data(stock: AnyApplication) -> None:
    assert private.take_marks(stock) == NOTHING
    await stock.process_update(message(stock, 1, "hello", -5))
    stock.drop_user_data(2)
    stock.drop_chat_data(-6)
    assert private.take_marks(stock) == Marks({1, 2}, {-5, -6}, set())
    assert private.take_marks(stock) == NOTHING
    await stock.process_update(message(stock, 1, "hello", -5))
    stock.drop_user_data(2)
    private.unmark(stock, [1, 2], [-5, 7])
    assert private.take_marks(stock) == NOTHING
    private.mark_again(stock, Marks({3}, {-7}, {("talk", (1, 1))}))
    assert private.take_marks(stock) == Marks({3}, {-7}, {("talk", (1, 1))})


async def test_data_in_memory(stock: AnyApplication) -> None:
    private.put_user_data(stock, 1, {"a": 1})
    private.put_chat_data(stock, -5, {"b": 2})
    assert stock.user_data == {1: {"a": 1}}
    assert stock.chat_data == {-5: {"b": 2}}
    private.put_user_data(stock, 1, None)
    private.put_chat_data(stock, -5, None)
    private.put_chat_data(stock, -5, None)
    assert stock.user_data == stock.chat_data == {}
    assert private.take_marks(stock) == NOTHING


async def test_states_in_memory(stock: AnyApplication) -> None:
    await stock.process_update(message(stock, 1, "/start"))
    assert private.take_marks(stock).conversations == {("talk", (1, 1))}
    assert private.read_state(stock, "talk", (1, 1)) == "on"
    assert private.conversation_keys(stock, "talk") == [(1, 1)]
    assert private.read_state(stock, "unknown", (1, 1)) is None
    private.put_state(stock, "talk", (2, 2), "on")
    private.put_state(stock, "talk", (1, 1), None)
    private.put_state(stock, "talk", (1, 1), None)
    assert private.take_marks(stock).conversations == set()
    assert private.conversation_keys(stock, "talk") == [(2, 2)]
    await stock.process_update(message(stock, 2, "/end"))
    assert private.read_state(stock, "talk", (2, 2)) is None
    private.put_state(stock, "talk", (3, 3), ConversationHandler.END)
    assert private.read_state(stock, "talk", (3, 3)) is None


async def test_a_state_that_gets_another_key(stock: AnyApplication) -> None:
    private.put_state(stock, "talk", (-5, 1), "on")
    private.put_state(stock, "talk", (-5, 2), "on")
    private.put_state(stock, "talk", (-6, 2), "late")
    private.take_state(stock, "talk", (-5, 1), (-6, 1))
    private.take_state(stock, "talk", (-5, 2), (-6, 2))
    assert private.read_state(stock, "talk", (-6, 1)) == "on"
    assert private.read_state(stock, "talk", (-6, 2)) == "late", "what is there stays"
    marked = {("talk", (-5, 1)), ("talk", (-5, 2)), ("talk", (-6, 1))}
    assert private.take_marks(stock).conversations == marked


async def test_the_state_while_a_handler_runs(stock: AnyApplication, go_on: asyncio.Event) -> None:
    await stock.process_update(message(stock, 1, "/start"))
    await stock.process_update(message(stock, 1, "/late"))
    assert private.read_state(stock, "talk", (1, 1)) == "on"
    go_on.set()
    await stock.stop()
    assert private.read_state(stock, "talk", (1, 1)) == "late"
    await stock.start()


async def test_a_timeout_is_told_from_other_jobs(stock: AnyApplication, queue: Recording) -> None:
    async def job(_: object) -> None:
        pass

    update = message(stock, 1, "/start")
    await stock.process_update(update)
    queue.run_once(job, 1000, data=update)
    timeout, other = (private.read_timeout(callback, data) for callback, data in queue.given)
    assert other is None
    assert timeout is not None
    assert timeout.handler.name == "talk"
    assert timeout.key == (1, 1)
    assert timeout.update is update
    assert isinstance(update, Update)


def test_ours_do_not_hide_ptbs() -> None:
    """No private name of ours is one of PTB's own."""
    ours = {
        node.attr
        for node in ast.walk(ast.parse(Path(application.__file__).read_bytes()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    mine = {name for name in ours if name.startswith("_")} | {
        name for name in vars(SessionApplication) if name.startswith("_") and not name.endswith("__")
    }
    assert len(mine) > 10
    assert mine.isdisjoint(set(dir(Application)) - {"_abc_impl"})


def test_only_one_module_touches_them() -> None:
    """No other module imports from a private module of PTB, or reads a private attribute but of its own."""
    for path in Path(sessionkit.ptb.__file__).parent.glob("*.py"):
        if path.name == "private.py":
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("telegram"):
                assert "._" not in f".{node.module}", f"{path.name}:{node.lineno}"
                assert not any(alias.name.startswith("_") for alias in node.names)
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
                if node.attr in PUBLIC_ALL_THE_SAME:
                    continue
                assert isinstance(node.value, ast.Name), f"{path.name}:{node.lineno}"
                assert node.value.id in {"self", "cls"}, f"{path.name}:{node.lineno}: {node.attr}"
