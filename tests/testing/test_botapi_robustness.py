"""Vanishing clients, garbage and shutdown: nothing is logged, lost or left hanging."""

from __future__ import annotations

import asyncio
import io
import logging
import random
import socket
import struct
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from sessionkit.testing.botapi import BotApiServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def api(caplog: pytest.LogCaptureFixture) -> AsyncIterator[BotApiServer]:
    """A server after which nothing worse than a warning may have been logged."""
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))
    async with BotApiServer() as server:
        yield server
    assert problems == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection as a killed process does."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def connect(api: BotApiServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = api.base_url.removeprefix("http://").removesuffix("/bot").split(":")
    return await asyncio.open_connection(host, int(port))


def raw_request(
    api: BotApiServer, method: str, body: bytes = b"", content_type: str = "application/json"
) -> bytes:
    head = f"POST /bot{api.token}/{method} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def test_a_poll_of_a_killed_bot_loses_nothing(api: BotApiServer) -> None:
    for _ in range(5):
        _reader, writer = await connect(api)
        writer.write(raw_request(api, "getUpdates", b'{"timeout": 50}'))
        await api.wait_for_call("getUpdates")
        reset(writer)
    await api.user().send("hello")
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{api.base_url}{api.token}/getUpdates") as response,
    ):
        assert [update["message"]["text"] for update in (await response.json())["result"]] == ["hello"]


async def test_a_client_may_vanish_at_any_byte(api: BotApiServer) -> None:
    user = api.user()
    request = raw_request(api, "sendMessage", b'{"chat_id": 1001, "text": "hello"}')
    for cut in range(0, len(request) + 1, 3):
        _reader, writer = await connect(api)
        writer.write(request[:cut])
        await writer.drain()
        reset(writer)
    reader, writer = await connect(api)
    writer.write(request)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    reset(writer)
    assert (await user.reply()).text == "hello"


GARBAGE = [
    ("application/json", b"{"),
    ("application/json", b"[1]"),
    ("application/json", b"\xff\xfe"),
    ("application/json", b'"text"'),
    ("application/json", b"[" * 100_000),
    ("application/json", b'{"chat_id": ' + b"[" * 300 + b"]" * 300 + b"}"),
    ("application/json", b'{"chat_id": 1, "text": NaN}'),
    ("application/json", b'{"chat_id": 1e999, "text": "x"}'),
    ("application/json", b'{"chat_id": ' + b"9" * 5000 + b"}"),
    ("application/json", b'{"chat_id": 1001, "text": "\\ud800"}'),
    ("application/json", b'{"chat_id": 1001, "text": "x", "reply_markup": "{\\"keyboard\\": [[{}]]}"}'),
    ("application/json", b'{"chat_id": 1001, "text": "x", "reply_markup": "\\"\\\\ud800\\""}'),
    ("application/json", b'{"chat_id": 1001, "text": "x", "reply_markup": {"inline_keyboard": 5}}'),
    ("application/json", b'{"chat_id": 1001, "text": "x", "reply_markup": {"inline_keyboard": [[5]]}}'),
    ("application/json", b'{"chat_id": 1001, "text": "x", "entities": [5]}'),
    ("application/json", b'{"chat_id": 1001, "text": "x", "entities": "["}'),
    ("application/json", b'{"chat_id": 1001, "text": "x", "reply_parameters": [1]}'),
    ("application/json", b'{"chat_id": {"a": 1}, "text": ["x"]}'),
    ("application/x-www-form-urlencoded", b"chat_id=%ff&text=%ff"),
    ("application/x-www-form-urlencoded", b"\xff=&&&==&"),
    ("multipart/form-data", b"no boundary"),
    ("multipart/form-data; boundary=x", b"--y\r\n\r\n--y--"),
    ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: nonsense\r\n\r\nabc\r\n--x--\r\n"),
    ("multipart/form-data; boundary=x", b"--x\r\nno header\r\n\r\nabc"),
    (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="chat_id"\r\n'
        b"Content-Type: text/plain; charset=no-such\r\n\r\n\xff\r\n--x--\r\n",
    ),
    (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="chat_id"; filename="f"\r\n\r\n1\r\n--x--\r\n',
    ),
    ("nonsense", b"\0\1\2"),
    ("", b""),
]


@pytest.mark.parametrize(("content_type", "body"), GARBAGE)
async def test_garbage_is_a_refusal(api: BotApiServer, content_type: str, body: bytes) -> None:
    api.user()
    async with aiohttp.ClientSession() as http:
        for method in (
            "sendMessage",
            "sendAudio",
            "getUpdates",
            "setWebhook",
            "setMyCommands",
            "editMessageText",
        ):
            async with http.post(
                f"{api.base_url}{api.token}/{method}", data=body, headers={"Content-Type": content_type}
            ) as response:
                answer = await response.json()
                assert response.status in {200, 400}, (method, answer)
                assert answer.get("error_code", 200) == response.status


async def test_random_parameters_never_break_a_method(api: BotApiServer) -> None:
    chance = random.Random(20)
    names = [
        *("chat_id", "text", "offset", "limit", "message_id", "reply_markup", "allowed_updates", "commands"),
        *("from_chat_id", "caption", "entities", "scope", "file_id", "audio", "reply_parameters", "url"),
    ]
    values: list[Any] = [1001, 1, -1, 0, 2**70, 1.5, True, None, "", "1001", "[", "[[]]", "{}", "x" * 5000]
    values += [
        [],
        {},
        [[]],
        [None],
        {"keyboard": [["a"]]},
        {"inline_keyboard": []},
        {"type": []},
        "http://[",
        "\0",
    ]
    values += [{"inline_keyboard": [[{"text": "a", "callback_data": None}]]}, [{"type": 1, "offset": 2}]]
    from sessionkit.testing.botapi.server import METHODS

    api.user()
    async with aiohttp.ClientSession() as http:
        for _ in range(600):
            method = chance.choice([known.name for known in METHODS.values()])
            params = {name: chance.choice(values) for name in chance.sample(names, 8)}
            async with http.post(f"{api.base_url}{api.token}/{method}", json=params) as response:
                assert response.status in {200, 400, 409}, (method, params, await response.text())


async def test_what_is_no_http_is_hung_up_on(api: BotApiServer) -> None:
    for garbage in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"\r\n" * 10 + b"\0\r\n\r\n",
    ):
        reader, writer = await connect(api)
        writer.write(garbage + b"\r\n\r\n")
        assert b"500 Internal" not in await reader.read()
        writer.close()
    async with aiohttp.ClientSession() as http:
        for path in (
            "",
            "nowhere",
            "bot",
            "file/bot",
            f"bot{api.token}",
            f"bot{api.token}/",
            f"bot{api.token}/a/b",
        ):
            async with http.get(f"{api.base_url.removesuffix('bot')}{path}") as response:
                assert response.status == 404
                assert (await response.json())["ok"] is False


async def test_a_body_over_the_limit_is_refused(api: BotApiServer) -> None:
    body = io.BytesIO(b"x" * (52 * 2**20))
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{api.base_url}{api.token}/sendMessage", data=body) as response,
    ):
        assert response.status == 413
        assert (await response.json())["error_code"] == 413


async def test_the_server_stops_at_once_with_polls_open() -> None:
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as http:
        async with BotApiServer() as api:
            api.bot("42:" + "x" * 35)
            polls = [
                asyncio.create_task(
                    http.post(f"{api.base_url}{token}/getUpdates", json={"timeout": 50}).__aenter__()
                )
                for token in (api.token, "42:" + "x" * 35)
            ]
            for _ in polls:
                await api.wait_for_call("getUpdates")
            started = loop.time()
        assert loop.time() - started < 1.0
        for poll in polls:
            assert (await (await poll).json())["result"] == []
