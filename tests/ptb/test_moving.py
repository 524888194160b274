"""A bot moves from PicklePersistence to sessionkit, and its users do not notice."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import (
    CallbackQueryHandler,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    ExtBot,
    MessageHandler,
    PicklePersistence,
    filters,
)

from sessionkit.ptb import SessionPersistence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from sessionkit.testing.botapi import BotApiServer
    from tests.command import Command
    from tests.ptb.conftest import AnyApplication, Running

Context = ContextTypes.DEFAULT_TYPE

SHOP = """
from dataclasses import dataclass
from sessionkit.codec import MsgpackCodec
from sessionkit.ptb import register_telegram_objects

@dataclass
class Order:
    item: str

class Scratch:
    pass

codec = MsgpackCodec()
register_telegram_objects(codec)
codec.register_dataclass("order", Order)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[ModuleType]:
    """The module of a bot, in the folder where the command is run."""
    path = tmp_path / "shop_that_moves.py"
    path.write_text(SHOP)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[path.stem]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "SESSIONKIT_"))
    }
    return subprocess.run(
        [Path(sys.executable).with_name("sessionkit"), *arguments],
        env={**inherited, "NO_COLOR": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def order(update: Update, context: Context) -> int:
    assert update.message is not None
    assert context.user_data is not None
    context.user_data["user"] = update.effective_user
    context.user_data["message"] = update.message
    keyboard = [[InlineKeyboardButton("pay", callback_data={"sum": (1, 50)})]]
    await update.message.reply_text("pay?", reply_markup=InlineKeyboardMarkup(keyboard))
    return 1


async def pay(update: Update, context: Context) -> int:
    query = update.callback_query
    assert query is not None
    assert context.user_data is not None
    context.user_data["sum"] = query.data
    await query.answer()
    await query.edit_message_text("whose name?")
    return 2


async def name(update: Update, context: Context) -> int:
    assert update.message is not None
    assert context.user_data is not None
    data = context.user_data
    await data["message"].reply_text(
        f"{update.message.text}, {data['user'].first_name}, {data['sum']['sum']}"
    )
    return ConversationHandler.END


def add_shop(application: AnyApplication) -> None:
    application.add_handler(
        ConversationHandler(
            entry_points=[CommandHandler("order", order)],
            states={1: [CallbackQueryHandler(pay)], 2: [MessageHandler(filters.TEXT, name)]},
            fallbacks=[],
            name="shop",
            persistent=True,
        )
    )


def build(builder: Any) -> Any:
    return builder.arbitrary_callback_data(True)


async def fill(application: AnyApplication, shop: Any) -> None:
    """Give the bot what bots gather: many users, and things of their own."""
    for user_id in range(1000, 2000):
        application.user_data[user_id].update(
            {"n": user_id, "note": f"{user_id} " * 60, "pair": (user_id, {"a"})}
        )
        application.mark_data_for_update_persistence(user_ids=user_id)
    application.bot_data.update({"orders": {1: shop.Order("pen")}, "scratch": shop.Scratch()})
    application.chat_data[5]["cart"] = [shop.Order("ink"), shop.Scratch()]
    application.mark_data_for_update_persistence(chat_ids=5)


async def put_bot(path: Path) -> None:
    """Put a bot where none belongs. PTB's own `Application` cannot: it copies data."""
    bot = ExtBot[None]("1:own")
    persistence = PicklePersistence[Any, Any, Any](path)
    persistence.set_bot(bot)
    data = await persistence.get_bot_data()
    await persistence.update_bot_data({**data, "bot": bot})


@pytest.mark.filterwarnings("ignore:If 'per_message=False'")
async def test_a_bot_moves_in_mid_conversation(
    tmp_path: Path, shop: Any, running: Running, api: BotApiServer, command: Command
) -> None:
    path, url = tmp_path / "bot.pickle", f"sqlite:///{tmp_path / 'bot.db'}"
    ada, bob = api.user(1, first_name="Ada"), api.user(2, first_name="Bob")
    old: Any = PicklePersistence(path, on_flush=True)
    async with running(old, add_shop, configure=build) as application:
        await fill(application, shop)
        await ada.send("/order").expects("pay?")
        await bob.send("/order").expects("pay?").press(None, "pay")
        assert (await bob.edited()).text == "whose name?"
    await put_bot(path)
    assert path.stat().st_size > 300_000

    trusted = ("import-pickle", "bot.pickle", "--to", url, "--i-trust-this-file")
    with_codec = (*trusted, "--codec", "shop_that_moves:codec")
    trial = await asyncio.to_thread(command, *with_codec, "--dry-run")
    assert not (tmp_path / "bot.db").exists()
    done = run(tmp_path, *with_codec)
    assert sorted(done.stderr.splitlines()) == [
        "left out: bot_data.all.bot: a bot is not kept; handlers have theirs as context.bot",
        "left out: bot_data.all.scratch: shop_that_moves.Scratch is not a type sessionkit keeps; register it"
        " with codec.register(...)",
        "left out: chat_data.5.cart, because of chat_data.5.cart[1]: shop_that_moves.Scratch is not a type"
        " sessionkit keeps; register it with codec.register(...)",
    ]
    kinds = "1 bot_data, 1 callback_data, 2 conversation, 1002 user_data"
    assert done.stdout == f"written: {kinds}; unchanged: 0; left out: 3; conflicts: 0\n"
    assert done.returncode == 1
    assert trial == (1, done.stdout.replace("written", "would write"), done.stderr)
    code, told, _ = await asyncio.to_thread(command, *with_codec)
    assert (code, told) == (1, "written: nothing; unchanged: 1006; left out: 3; conflicts: 0\n")

    async with running(SessionPersistence(url, codec=shop.codec), add_shop, configure=build) as application:
        assert application.bot_data == {"orders": {1: shop.Order("pen")}}
        assert application.user_data[1500] == {"n": 1500, "note": "1500 " * 60, "pair": (1500, {"a"})}
        assert 5 not in application.chat_data
        shown = await asyncio.to_thread(command, "show", "telegram_bot:user_data:1", "--url", url)
        assert "User(first_name='Ada', id=1" in shown[1]
        await ada.press(None, "pay")
        assert (await ada.edited()).text == "whose name?"
        await ada.send("Mine").expects("Mine, Ada, (1, 50)")
        await bob.send("Mine").expects("Mine, Bob, (1, 50)")

    export = ("export-pickle", "back.pickle", "--from", url, "--codec", "shop_that_moves:codec")
    counts = "written: 1 bot_data, 1 callback_data, 1002 user_data; not readable: 0\n"
    assert await asyncio.to_thread(command, *export) == (0, counts, "")
    returned: Any = PicklePersistence(tmp_path / "back.pickle")
    async with running(returned, add_shop, configure=build) as application:
        assert application.user_data[1]["sum"] == {"sum": (1, 50)}
        assert application.bot_data == {"orders": {1: shop.Order("pen")}}
        await ada.send("/order").expects("pay?").press(None, "pay")
        assert (await ada.edited()).text == "whose name?"


async def test_without_the_bots_codec_its_classes_are_named(
    tmp_path: Path, shop: Any, command: Command
) -> None:
    path, url = tmp_path / "bot.pickle", f"sqlite:///{tmp_path / 'bot.db'}"
    persistence = PicklePersistence[Any, Any, Any](path)
    persistence.set_bot(ExtBot("1:own"))
    await persistence.update_user_data(7, {"n": 1, "order": shop.Order("pen")})
    import_it = ("import-pickle", str(path), "--to", url, "--i-trust-this-file", "--prefix", "shop:")
    code, told, left_out = await asyncio.to_thread(command, *import_it)
    assert (code, told) == (1, "written: 1 user_data; unchanged: 0; left out: 1; conflicts: 0\n")
    assert left_out.startswith("left out: user_data.7.order: shop_that_moves.Order is not a type")
    assert await asyncio.to_thread(command, "ls", "--url", url) == (0, "shop:user_data:7\n", "")


def test_nothing_is_exported_without_what_cannot_be_read(tmp_path: Path, shop: Any, command: Command) -> None:
    """Neither the bot's data nor a user's may be missing from a file without a word of it."""
    url = f"sqlite:///{tmp_path / 'bot.db'}"
    persistence = SessionPersistence(url, codec=shop.codec)

    async def keep() -> None:
        await persistence.update_bot_data({"order": shop.Order("pen")})
        await persistence.update_user_data(7, {"order": shop.Order("pen")})
        await persistence.update_chat_data(5, {"n": 1})
        await persistence.flush()

    asyncio.run(keep())
    export = ("export-pickle", "back.pickle", "--from", url)
    code, told, _ = command(*export)
    assert told == ""
    assert code == (
        "sessionkit: not readable: 2, and nothing is written: types of the bot's own need its --codec;"
        " or take what can be read by --partial"
    )
    assert not (tmp_path / "back.pickle").exists()
    assert command(*export, "--partial")[:2] == (1, "written: 1 chat_data; not readable: 2\n")
    code, told, _ = command(*export, "--codec", "shop_that_moves:codec", "--overwrite")
    assert (code, told) == (0, "written: 1 bot_data, 1 chat_data, 1 user_data; not readable: 0\n")


def test_json_is_imported(tmp_path: Path, command: Command) -> None:
    url = f"sqlite:///{tmp_path / 'bot.db'}"
    (tmp_path / "bot.json").write_text(
        '{"user_data": {"7": {"n": 1}}, "conversations": {"a": {"[1, 2]": 3}}}'
    )
    counts = "unchanged: 0; left out: 0; conflicts: 0\n"
    assert command("import-json", "bot.json", "--to", url) == (
        0,
        f"written: 1 conversation, 1 user_data; {counts}",
        "",
    )
    (tmp_path / "bot.json").write_text('{"user_data": {"7": {"n": 2}}}')
    code, _, told = command("import-json", "bot.json", "--to", url)
    assert code == 1
    assert told == "kept: telegram_bot:user_data:7 is there with other data; --overwrite replaces it\n"
    assert command("import-json", "bot.json", "--to", url, "--overwrite") == (
        0,
        f"written: 1 user_data; {counts}",
        "",
    )
    assert command("show", "telegram_bot:user_data:7", "--url", url) == (0, "{'n': 2}\n", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["import-json", "missing.json", "--to", "memory://"], "missing.json cannot be read: No such file"),
        (["import-json", "a.json", "--to", "memory://", "--codec", "x"], "--codec is MODULE:ATTRIBUTE"),
        (
            ["import-json", "a.json", "--to", "memory://", "--codec", "nowhere:c"],
            "'nowhere' cannot be imported",
        ),
        (["import-json", "a.json", "--to", "memory://", "--codec", "json:loads"], "'json:loads' is no Codec"),
        (["import-json", "a.json", "--to", "redis://:hunter2@127.0.0.1:1"], "cannot be reached"),
        (["import-pickle", "a.json", "--to", "memory://"], "reading a pickle runs code that is in it"),
        (["export-pickle", "a.json", "--from", "memory://"], "a.json is there already"),
        (["export-pickle", "b.pickle", "--from", "memory://"], "there is nothing to export"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, command: Command, arguments: list[str], says: str) -> None:
    (tmp_path / "a.json").write_text('{"user_data": {"7": {"n": 1}}}')
    code, printed, _ = command(*arguments)
    assert printed == ""
    assert isinstance(code, str)
    assert code.startswith("sessionkit: ")
    assert says in code
    assert "hunter2" not in code
