"""Scripted users: what they send, read, press and expect."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from sessionkit.errors import ConfigurationError, SessionKitError
from sessionkit.testing.botapi import BotApiServer, ScriptError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Json = dict[str, Any]


@pytest.fixture
async def api() -> AsyncIterator[BotApiServer]:
    async with BotApiServer() as server:
        yield server


def say(api: BotApiServer, text: str, **markup: Any) -> Json:
    """Post a message as the bot of the server's default user."""
    bot = api.bot()
    chat = bot.chat(str(api.user().id))
    return chat.post(bot.compose(chat, bot.me, {"text": text}), markup)


def last_message(api: BotApiServer) -> Json:
    message: Json = api.pending_updates[-1]["message"]
    return message


async def test_commands_are_marked_in_utf16_units(api: BotApiServer) -> None:
    await api.user().send("🎈 /depot@some_bot 1/2 /help, a/b http://x/y")
    text = "🎈 /depot@some_bot 1/2 /help, a/b http://x/y"
    marked = [(e["offset"], e["length"]) for e in last_message(api)["entities"]]
    utf16 = text.encode("utf-16-le")
    found = [utf16[2 * start : 2 * (start + length)].decode("utf-16-le") for start, length in marked]
    assert found == ["/depot@some_bot", "/help"]


async def test_every_kind_of_file_can_be_sent(api: BotApiServer) -> None:
    user = api.user()
    await user.send_audio(b"a", duration=7, title="T", performer="P", caption="C")
    audio = last_message(api)
    assert (audio["caption"], audio["audio"]["duration"], audio["audio"]["title"]) == ("C", 7, "T")
    await user.send_voice(b"v", duration=2)
    assert last_message(api)["voice"]["duration"] == 2
    await user.send_photo(b"p")
    assert last_message(api)["photo"][-1]["file_size"] == 1
    await user.send_document(b"d", filename="x.pdf", mime_type="application/pdf")
    assert last_message(api)["document"]["file_name"] == "x.pdf"
    with pytest.raises(ConfigurationError, match="non-empty"):
        await user.send_photo(b"")
    with pytest.raises(ConfigurationError, match="without text"):
        await user.send(" ")


async def test_a_script_does_nothing_before_it_is_awaited(api: BotApiServer) -> None:
    script = api.user().send("one").send("two")
    assert api.pending_updates == []
    await script
    assert [update["message"]["text"] for update in api.pending_updates] == ["one", "two"]


def test_a_script_that_is_never_awaited_gives_a_warning() -> None:
    user = BotApiServer().user(7, "Ada")
    with pytest.warns(RuntimeWarning) as caught:
        user.send("/start").expects("Welcome")
    [warning] = caught
    assert str(warning.message) == "a script of <ScriptedUser 'Ada', 7, in chat 7> was never awaited"
    assert warning.filename == __file__


async def test_replies_are_read_in_order_and_once(api: BotApiServer) -> None:
    user = api.user()
    say(api, "first")
    say(api, "second")
    assert (await user.reply()).text == "first"
    last = await user.expects("SECOND").send("thanks")
    assert last.text == "second"
    waiting = asyncio.create_task(user.reply())
    say(api, "third")
    assert (await waiting).text == "third"
    with pytest.raises(
        ScriptError, match=r"the bot did not reply within 0.01 s\n.*Ann so far:\n(.*\n)+.*third"
    ):
        await user.reply(timeout=0.01)
    with pytest.raises(ScriptError, match="the bot edited nothing"):
        await user.edited(timeout=0)


async def test_expectations_are_texts_patterns_or_anything(api: BotApiServer) -> None:
    user = api.user()
    for _ in range(4):
        say(api, "Total: 150 EUR")
    await user.expects("total: 150").expects(re.compile(r"^Total: \d+")).expects(None)
    with pytest.raises(ScriptError, match=r"expected a reply with '\^\\\\d', but got 'Total: 150 EUR'"):
        await user.expects(re.compile(r"^\d"))
    assert issubclass(ScriptError, SessionKitError)


async def test_an_inline_button_gives_a_callback_query(api: BotApiServer) -> None:
    user = api.user()
    buttons = [[{"text": "Yes", "callback_data": "old"}, {"text": "Site", "url": "https://example.org"}]]
    say(api, "old question", inline_keyboard=buttons)
    old = await user.reply()
    assert old.buttons == ("Yes", "Site")
    new = say(api, "new question", inline_keyboard=[[{"text": "Yes", "callback_data": "new"}]])
    await user.press(None, "Yes").press(old, "Yes")
    queries = [update["callback_query"] for update in api.pending_updates]
    assert [query["data"] for query in queries] == ["new", "old"]
    assert queries[0]["message"] == new
    assert queries[0]["from"] == user.info
    assert queries[0]["id"] != queries[1]["id"]
    with pytest.raises(ScriptError, match=r"no button \[No\] under any message"):
        await user.press(None, "No")
    with pytest.raises(ScriptError, match=r"\[Site\] is no callback button"):
        await user.press(old, "Site")
    api.bot().chat(str(user.id)).delete(old.message_id)
    with pytest.raises(ScriptError, match="was deleted"):
        await user.press(old, "Yes")


async def test_a_reply_keyboard_sends_its_label_until_it_is_removed(api: BotApiServer) -> None:
    user = api.user()
    say(api, "How much?", keyboard=[["100", {"text": "150"}]])
    assert (await user.reply()).buttons == ("100", "150")
    say(api, "Well?")
    await user.press(None, "150")
    assert last_message(api)["text"] == "150"
    say(api, "Thanks", remove_keyboard=True)
    with pytest.raises(ScriptError, match=r"no button \[150\]"):
        await user.press(None, "150")


async def test_a_user_is_the_same_for_the_same_id(api: BotApiServer) -> None:
    assert api.user(5) is api.user(5)
    group = api.group()
    assert api.user(5).in_chat(group) is api.user(5).in_chat(api.group())
    assert api.user(5).in_chat(group).chat_id == group.id
    await api.user(5).in_chat(group).send("hi")
    assert [entry.text for entry in group.transcript] == ["hi"]
    assert api.user(5).transcript == []


async def test_waiting_for_a_call_that_never_comes_names_what_came(api: BotApiServer) -> None:
    with pytest.raises(ScriptError, match=r"no new call of getMe within 0.01 s; the last calls were: none"):
        await api.wait_for_call("getMe", timeout=0.01)
    await api.user().send("hello")
    with pytest.raises(ScriptError, match="left 1 updates unconfirmed"):
        await api.drained(timeout=0.01)
