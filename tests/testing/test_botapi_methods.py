"""The methods that write into chats, and the errors in Telegram's shape."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from sessionkit.errors import ConfigurationError
from sessionkit.testing.botapi import ApiError, BotApiServer, Call, Upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Json = dict[str, Any]
INLINE = {"inline_keyboard": [[{"text": "Yes", "callback_data": "y"}, {"text": "No", "callback_data": "n"}]]}


class Client:
    """A bot of the fewest lines."""

    def __init__(self, api: BotApiServer, http: aiohttp.ClientSession) -> None:
        self.url = api.base_url + api.token
        self.http = http

    async def __call__(self, method: str, /, **params: object) -> Any:
        async with self.http.post(f"{self.url}/{method}", json=params) as response:
            answer = await response.json()
            assert response.status == answer.get("error_code", 200)
            return answer["result"] if answer["ok"] else answer

    async def refused(self, method: str, /, **params: object) -> str:
        answer = await self(method, **params)
        assert answer["ok"] is False
        return f"{answer['error_code']} {answer['description']}"


@pytest.fixture
async def api() -> AsyncIterator[BotApiServer]:
    async with BotApiServer() as server:
        yield server


@pytest.fixture
async def call(api: BotApiServer) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as http:
        yield Client(api, http)


async def test_parameters_come_in_every_way(api: BotApiServer, call: Client) -> None:
    user = api.user()
    url = f"{call.url}/sendMessage"
    given = {"chat_id": str(user.id), "text": "hällo 🎈", "reply_markup": json.dumps(INLINE)}
    multipart = aiohttp.FormData(given, default_to_multipart=True)
    for request in (
        call.http.get(url, params=given),
        call.http.post(url, params=given),
        call.http.post(url, data=given),
        call.http.post(url, data=multipart),
        call.http.post(url, json={"chat_id": user.id, "text": given["text"], "reply_markup": INLINE}),
        call.http.post(url.replace("sendMessage", "SENDMESSAGE"), params=given),
    ):
        async with request as response:
            assert response.status == 200
        message = await user.reply()
        assert (message.text, message.buttons) == ("hällo 🎈", ("Yes", "No"))
    assert {entry.method for entry in api.calls} == {"sendMessage"}


@pytest.mark.parametrize(
    ("method", "params", "refusal"),
    [
        ("noSuchMethod", {}, "404 Not Found: method not found"),
        ("sendMessage", {}, "400 Bad Request: chat_id is empty"),
        ("sendMessage", {"chat_id": 5, "text": "x"}, "400 Bad Request: chat not found"),
        ("sendMessage", {"chat_id": "@nobody", "text": "x"}, "400 Bad Request: chat not found"),
        ("sendMessage", {"chat_id": 1001}, "400 Bad Request: message text is empty"),
        ("sendMessage", {"chat_id": 1001, "text": "x" * 4097}, "400 Bad Request: message is too long"),
        (
            "sendMessage",
            {"chat_id": 1001, "text": "x", "reply_parameters": {"message_id": 99}},
            "400 Bad Request: message to be replied not found",
        ),
        (
            "sendMessage",
            {"chat_id": 1001, "text": "x", "parse_mode": "RTF"},
            "400 Bad Request: unsupported parse_mode",
        ),
        (
            "sendMessage",
            {"chat_id": 1001, "text": "x", "reply_markup": {}},
            None,
        ),
        (
            "sendMessage",
            {"chat_id": 1001, "text": "x", "reply_markup": {"what": 1}},
            "400 Bad Request: object expected as reply markup",
        ),
        (
            "sendMessage",
            {
                "chat_id": 1001,
                "text": "x",
                "reply_markup": {"inline_keyboard": [[{"text": "a", "callback_data": "ä" * 33}]]},
            },
            "400 Bad Request: BUTTON_DATA_INVALID",
        ),
        ("sendAudio", {"chat_id": 1001}, "400 Bad Request: there is no audio in the request"),
        ("getFile", {"file_id": "nothing"}, "400 Bad Request: invalid file_id"),
        (
            "editMessageText",
            {"chat_id": 1001, "message_id": 99, "text": "x"},
            "400 Bad Request: message to edit not found",
        ),
        (
            "deleteMessage",
            {"chat_id": 1001, "message_id": "x"},
            "400 Bad Request: message identifier is not specified",
        ),
        ("sendChatAction", {"chat_id": 1001}, "400 Bad Request: wrong parameter action in request"),
        ("setMyCommands", {"commands": [{"command": "Bad!"}]}, "400 Bad Request: BOT_COMMAND_INVALID"),
        (
            "answerCallbackQuery",
            {"callback_query_id": "1"},
            "400 Bad Request: query is too old and response timeout expired or query ID is invalid",
        ),
    ],
)
async def test_refusals_are_in_the_words_of_telegram(
    api: BotApiServer, call: Client, method: str, params: Json, refusal: str | None
) -> None:
    api.user()
    if refusal is None:
        assert (await call(method, **params))["message_id"] == 1
    else:
        assert await call.refused(method, **params) == refusal


@pytest.mark.parametrize(
    ("token", "status"), [("", 404), ("nonsense", 404), ("123:short", 401), ("1:" + "!" * 35, 401)]
)
async def test_a_malformed_token_is_refused(api: BotApiServer, call: Client, token: str, status: int) -> None:
    for url in (f"{api.base_url}{token}/getMe", f"{api.base_file_url}{token}/photos/file_0.jpg"):
        async with call.http.get(url) as response:
            assert response.status == status
            assert (await response.json())["error_code"] == status
    with pytest.raises(ConfigurationError, match="looks like 1234567890:"):
        BotApiServer(token=token)


async def test_edits_change_the_message_once(api: BotApiServer, call: Client) -> None:
    user = api.user()
    sent = await call("sendMessage", chat_id=user.id, text="old", reply_markup=INLINE)
    where = {"chat_id": user.id, "message_id": sent["message_id"]}
    assert "is not modified" in await call.refused(
        "editMessageText", **where, text="old", reply_markup=INLINE
    )
    edited = await call("editMessageText", **where, text="new", reply_markup=INLINE)
    assert (edited["text"], edited["reply_markup"]) == ("new", INLINE)
    assert "reply_markup" not in await call("editMessageReplyMarkup", **where)
    assert "is not modified" in await call.refused("editMessageReplyMarkup", **where)
    assert [(await user.edited()).buttons for _ in range(2)] == [("Yes", "No"), ()]
    assert (await user.reply()).text == "old"
    await user.send("mine")
    mine = api.pending_updates[-1]["message"]["message_id"]
    refusal = await call.refused("editMessageText", chat_id=user.id, message_id=mine, text="x")
    assert refusal == "400 Bad Request: message can't be edited"


async def test_an_attached_upload_is_found(api: BotApiServer, call: Client) -> None:
    user = api.user()
    form = aiohttp.FormData({"chat_id": str(user.id), "document": "attach://part", "caption": "mine"})
    form.add_field("part", b"\0\xff bytes", filename="../evil name.tar.gz", content_type="application/gzip")
    async with call.http.post(f"{call.url}/sendDocument", data=form) as response:
        document = (await response.json())["result"]["document"]
    assert (document["mime_type"], document["file_size"]) == ("application/gzip", 8)
    path = (await call("getFile", file_id=document["file_id"]))["file_path"]
    assert path == "documents/file_0.gz"
    async with call.http.get(f"{api.base_file_url}{api.token}/{path}") as response:
        assert await response.read() == b"\0\xff bytes"
    async with call.http.get(f"{api.base_file_url}{api.token}/documents/other.gz") as response:
        assert response.status == 404
    upload = api.calls[0].params["part"]
    assert isinstance(upload, Upload)
    assert "bytes" not in repr(upload)


async def test_planned_faults_happen_so_often_and_no_more(api: BotApiServer, call: Client) -> None:
    user = api.user()
    api.fail_next("sendMessage", error_code=429, retry_after=3, times=2)
    api.fail_next("sendMessage", error_code=500, executed=True)
    api.fail_next("getMe", error_code=502, token="42:" + "x" * 35)
    for _ in range(2):
        answer = await call("sendMessage", chat_id=user.id, text="never sent")
        assert answer == {
            "ok": False,
            "error_code": 429,
            "description": "Too Many Requests: retry after 3",
            "parameters": {"retry_after": 3},
        }
    assert await call.refused("sendMessage", chat_id=user.id, text="sent") == "500 Internal Server Error"
    assert (await call("sendMessage", chat_id=user.id, text="sent too"))["text"] == "sent too"
    assert [(await user.reply()).text for _ in range(2)] == ["sent", "sent too"]
    assert (await call("getMe"))["is_bot"] is True
    with pytest.raises(ConfigurationError, match="no HTTP error status"):
        api.fail_next("getMe", error_code=200)
    with pytest.raises(ConfigurationError, match="at least once"):
        api.fail_next("getMe", error_code=500, times=0)


async def test_a_callback_sees_the_call_before_the_bot_does(api: BotApiServer, call: Client) -> None:
    order: list[str] = []

    @api.on_call
    async def note(entry: Call) -> None:
        assert entry.answer
        order.append(f"{entry.method} {entry.answer['ok']} {len(user.transcript)}")

    user = api.user()
    await call("sendMessage", chat_id=user.id, text="hello")
    order.append("answered")
    await call("sendMessage", chat_id=user.id)
    assert order == ["sendMessage True 1", "answered", "sendMessage False 1"]
    assert [entry.answer for entry in api.calls][1]["error_code"] == 400  # type: ignore[index]  # it has been answered


async def test_an_error_in_a_callback_is_not_swallowed(caplog: pytest.LogCaptureFixture) -> None:
    async def call_once() -> None:
        async with BotApiServer() as api, aiohttp.ClientSession() as http:

            @api.on_call
            def refuse(entry: Call) -> None:
                raise AssertionError(f"unwanted {entry.method}")

            async with http.get(f"{api.base_url}{api.token}/getMe") as response:
                assert response.status == 200

    with pytest.raises(AssertionError, match="unwanted getMe"):
        await call_once()
    assert "a callback of on_call failed" in caplog.text


async def test_a_group_has_its_own_chat_and_may_migrate(api: BotApiServer, call: Client) -> None:
    group = api.group(-55, "Club")
    ann, bob = api.user(1, "Ann").in_chat(group), api.user(2, "Bob").in_chat(group)
    await ann.send("/start@test_1234567890_bot")
    await call("sendMessage", chat_id=-55, text="welcome")
    assert (await ann.reply()).text == (await bob.reply()).text == "welcome"
    update = (await call("getUpdates"))[0]["message"]
    assert update["chat"] == {"id": -55, "type": "group", "title": "Club"}
    assert update["entities"] == [{"type": "bot_command", "offset": 0, "length": 26}]
    assert (await call("getChat", chat_id=-55))["title"] == "Club"
    successor = group.migrate_to(-1001234567890)
    moved = [update["message"] for update in await call("getUpdates", offset=-2)]
    assert moved[0]["migrate_to_chat_id"] == successor.id == -1001234567890
    assert moved[1]["migrate_from_chat_id"] == -55
    answer = await call("sendMessage", chat_id=-55, text="anyone?")
    assert answer["parameters"] == {"migrate_to_chat_id": successor.id}
    with pytest.raises(ConfigurationError):
        group.migrate_to(-3)
    with pytest.raises(ConfigurationError):
        api.group(3)
    with pytest.raises(ConfigurationError):
        api.user(-3)


def test_neither_pytest_nor_hypothesis_is_needed() -> None:
    code = (
        "import sys; sys.modules.update(pytest=None, hypothesis=None, telegram=None);"
        " import sessionkit.testing.botapi"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_server_that_is_not_entered_has_no_address() -> None:
    with pytest.raises(ConfigurationError, match="async with BotApiServer"):
        _ = BotApiServer().base_url
    with pytest.raises(ApiError):
        BotApiServer().bot("nonsense")
