"""PTB's own files: written by PTB's own persistences, read by us, and the other way round."""

from __future__ import annotations

import json
import os
import pickle
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from telegram import Bot, User
from telegram.ext import DictPersistence, ExtBot, PicklePersistence

from sessionkit.errors import ConfigurationError
from sessionkit.ptb.contents import Contents
from sessionkit.ptb.pickles import read_json, read_pickle, stand_in_bot, write_pickle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER = User(7, "Ada", is_bot=False)
CALLBACKS: Any = ([("keyboard", 1.5, {"button": ("pay", 1)})], {"query": "keyboard"})
CONTENTS = Contents(
    {7: {"me": USER, 1: (2, {3})}, 8: {}},
    {-100: {"n": 1}},
    {"admins": {7}},
    CALLBACKS,
    {"shop": {(-100, 7): "ASK", ("inline", 7): 2}},
)


@pytest.fixture
def shop() -> Iterator[ModuleType]:
    """A module of a bot, with a class of its own, as long as the test lasts."""
    module = ModuleType("shop_of_a_bot")
    module.Item = type("Item", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    yield module
    sys.modules.pop(module.__name__, None)


async def store_by_ptb(path: Path, contents: Contents, *, single_file: bool = True) -> None:
    """Have PTB's persistence write a file, as an application does."""
    persistence = PicklePersistence[Any, Any, Any](path, single_file=single_file)
    persistence.set_bot(ExtBot("1:own"))
    for user_id, data in contents.users.items():
        await persistence.update_user_data(user_id, data)
    for chat_id, data in contents.chats.items():
        await persistence.update_chat_data(chat_id, data)
    await persistence.update_bot_data(contents.bot)
    assert contents.callbacks is not None
    await persistence.update_callback_data(contents.callbacks)
    for name, states in contents.conversations.items():
        for key, state in states.items():
            await persistence.update_conversation(name, key, state)
    await persistence.flush()


@pytest.mark.parametrize("single_file", [True, False])
async def test_what_ptb_wrote_is_read(tmp_path: Path, single_file: bool) -> None:
    path = tmp_path / "bot.pickle"
    await store_by_ptb(path, CONTENTS, single_file=single_file)
    assert path.exists() is single_file
    assert read_pickle(path) == CONTENTS


async def test_what_is_written_ptb_reads(tmp_path: Path) -> None:
    path, bot, own = tmp_path / "bot.pickle", stand_in_bot(), ExtBot[None]("1:own")
    user = User(7, "Ada", is_bot=False)
    user.set_bot(bot)
    await write_pickle(CONTENTS._replace(users={7: {"me": user}}), path, bot)
    persistence = PicklePersistence[Any, Any, Any](path)
    persistence.set_bot(own)
    loaded = await persistence.get_user_data()
    assert loaded == {7: {"me": user}}
    assert loaded[7]["me"].get_bot() is own
    assert await persistence.get_chat_data() == CONTENTS.chats
    assert await persistence.get_bot_data() == CONTENTS.bot
    assert await persistence.get_callback_data() == CALLBACKS
    assert await persistence.get_conversations("shop") == CONTENTS.conversations["shop"]
    assert os.listdir(tmp_path) == ["bot.pickle"]


async def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "bot.pickle"
    path.write_bytes(b"old")
    with pytest.raises(ConfigurationError, match="cannot be pickled"):
        await write_pickle(CONTENTS._replace(bot={"f": lambda: None}), path, stand_in_bot())
    with pytest.raises(ConfigurationError, match="nothing to export"):
        await write_pickle(Contents({}, {}, {}, None, {}), path, stand_in_bot())
    with pytest.raises(ConfigurationError, match="cannot be written: No such file"):
        await write_pickle(CONTENTS, tmp_path / "missing" / "bot.pickle", stand_in_bot())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["bot.pickle"]


async def test_every_bot_in_a_pickle_is_a_bot(tmp_path: Path) -> None:
    own = ExtBot[None]("1:own")
    user = User(7, "Ada", is_bot=False)
    user.set_bot(own)
    persistence = PicklePersistence[Any, Any, Any](tmp_path / "bot.pickle")
    persistence.set_bot(own)
    await persistence.update_chat_data(1, {"own": own, "user": user})
    with pytest.warns(match="Unknown bot instance"):
        await persistence.update_user_data(7, {"other": ExtBot("2:other")})
    with pytest.warns(match="Unknown bot instance"):
        await persistence.flush()
    contents = read_pickle(tmp_path / "bot.pickle")
    assert isinstance(contents.users[7]["other"], Bot)
    assert isinstance(contents.chats[1]["own"], Bot)
    assert contents.chats[1]["user"].get_bot() is contents.chats[1]["own"]


async def test_classes_are_looked_for_where_the_pickle_says(tmp_path: Path, shop: Any) -> None:
    path = tmp_path / "bot.pickle"
    await store_by_ptb(path, CONTENTS._replace(bot={"item": shop.Item()}))
    assert type(read_pickle(path).bot["item"]) is shop.Item

    del sys.modules[shop.__name__]
    stand_in = type(read_pickle(path).bot["item"])
    assert (stand_in.__module__, stand_in.__qualname__) == ("shop_of_a_bot", "Item")
    assert stand_in is not shop.Item


async def test_classes_of_the_bots_script_are_looked_for_in_its_module(
    tmp_path: Path, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bot.pickle"
    shop.Item.__module__ = "__main__"
    monkeypatch.setattr(sys.modules["__main__"], "Item", shop.Item, raising=False)
    await store_by_ptb(path, CONTENTS._replace(bot={"item": shop.Item()}))
    monkeypatch.undo()
    assert type(read_pickle(path, main=shop).bot["item"]) is shop.Item
    assert type(read_pickle(path).bot["item"]).__module__ == "__main__"


def test_objects_of_missing_classes_take_what_a_pickle_gives_them(tmp_path: Path, shop: Any) -> None:
    path = tmp_path / "bot.pickle"
    attributes = {"__module__": shop.__name__}
    shop.Bag = type("Bag", (list,), {**attributes, "__qualname__": "Bag"})
    shop.Shelf = type("Shelf", (dict,), {**attributes, "__qualname__": "Shelf"})
    shop.Label = type("Label", (str,), {**attributes, "__qualname__": "Label"})
    shop.Tags = type("Tags", (set,), {**attributes, "__qualname__": "Tags"})
    named = shop.Item()
    named.name = "pen"
    odd = [
        named,
        shop.Bag([1]),
        shop.Bag([1, 2]),
        shop.Shelf(a=1),
        shop.Label("x"),
        shop.Tags({1}),
        shop.Item,
    ]
    parts = {"user_data": {7: {"odd": odd}}, "chat_data": {}, "conversations": {}}
    path.write_bytes(pickle.dumps(parts))
    del sys.modules[shop.__name__]
    loaded = read_pickle(path).users[7]["odd"]
    kinds = [thing if isinstance(thing, type) else type(thing) for thing in loaded]
    assert [kind.__qualname__ for kind in kinds] == ["Item", "Bag", "Bag", "Shelf", "Label", "Tags", "Item"]
    assert {kind.__module__ for kind in kinds} == {shop.__name__}


def test_what_is_no_pickle_of_ptb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bot.pickle"
    with pytest.raises(ConfigurationError, match=r"neither .*bot\.pickle nor .*bot\.pickle_user_data"):
        read_pickle(path)
    path.write_bytes(b"not a pickle")
    with pytest.raises(ConfigurationError, match=r"cannot be unpickled \(UnpicklingError\)"):
        read_pickle(path)
    path.write_bytes(pickle.dumps({"user_data": {}}))
    with pytest.raises(ConfigurationError, match="is a pickle, but not of a PicklePersistence"):
        read_pickle(path)


def test_old_files_lack_parts(tmp_path: Path) -> None:
    path = tmp_path / "bot.pickle"
    path.write_bytes(
        pickle.dumps({"user_data": {7: {"n": 1}}, "chat_data": {}, "callback_data": {}, "conversations": {}})
    )
    assert read_pickle(path) == Contents({7: {"n": 1}}, {}, None, None, {})


@pytest.mark.parametrize("as_text", [True, False])
async def test_what_a_dict_persistence_gave_is_read(tmp_path: Path, as_text: bool) -> None:
    persistence = DictPersistence()
    callbacks: Any = ([("keyboard", 1.5, {"button": "pay"})], {"query": "keyboard"})
    await persistence.update_user_data(7, {"n": 1})
    await persistence.update_bot_data({"admins": [7]})
    await persistence.update_callback_data(callbacks)
    await persistence.update_conversation("shop", (-100, 7), "ASK")
    texts = {
        "user_data": persistence.user_data_json,
        "chat_data": persistence.chat_data_json,
        "bot_data": persistence.bot_data_json,
        "callback_data": persistence.callback_data_json,
        "conversations": persistence.conversations_json,
    }
    assert texts["chat_data"] == "null"
    path = tmp_path / "bot.json"
    path.write_text(
        json.dumps(texts if as_text else {part: json.loads(text) for part, text in texts.items()})
    )
    expected = Contents({7: {"n": 1}}, {}, {"admins": [7]}, callbacks, {"shop": {(-100, 7): "ASK"}})
    assert read_json(path) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is no JSON"),
        ("[]", "is to hold one object of user_data, chat_data"),
        ('{"sessions": {}}', "is to hold one object of user_data, chat_data"),
        ('{"user_data": {"Ada": {}}}', "Unable to deserialize user_data_json"),
        ('{"callback_data": {"a": 1}}', "is not of a DictPersistence"),
        ('{"callback_data": [[1], {}]}', "is not of a DictPersistence"),
    ],
)
def test_what_is_no_json_of_ptb_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "bot.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=reason):
        read_json(path)
    with pytest.raises(ConfigurationError, match="No such file"):
        read_json(tmp_path / "missing.json")
