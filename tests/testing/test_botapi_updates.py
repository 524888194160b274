"""getUpdates and webhooks, as a bot without a library sees them."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from sessionkit.errors import ConfigurationError
from sessionkit.testing.botapi import BotApiServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Json = dict[str, Any]


class Client:
    """A bot of the fewest lines."""

    def __init__(self, api: BotApiServer, http: aiohttp.ClientSession) -> None:
        self.api = api
        self.http = http

    async def __call__(self, method: str, **params: object) -> Any:
        url = f"{self.api.base_url}{self.api.token}/{method}"
        async with self.http.post(url, json=params) as response:
            answer = await response.json()
            assert response.status == answer.get("error_code", 200)
            return answer["result"] if answer["ok"] else answer


@pytest.fixture
async def api() -> AsyncIterator[BotApiServer]:
    async with BotApiServer(webhook_retry_delay=0.001) as server:
        yield server


@pytest.fixture
async def call(api: BotApiServer) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as http:
        yield Client(api, http)


def texts(updates: list[Json]) -> list[str]:
    return [update["message"]["text"] for update in updates]


async def test_an_update_comes_again_until_it_is_confirmed(api: BotApiServer, call: Client) -> None:
    await api.user().send("one").send("two").send("three")
    first = await call("getUpdates")
    assert texts(first) == ["one", "two", "three"]
    assert await call("getUpdates") == first
    assert await call("getUpdates", offset=first[0]["update_id"]) == first
    assert texts(await call("getUpdates", offset=first[1]["update_id"], limit=1)) == ["two"]
    assert texts(api.pending_updates) == ["two", "three"]
    assert await call("getUpdates", offset=first[2]["update_id"] + 1) == []
    assert api.pending_updates == []
    await api.user().send("four")
    assert [update["update_id"] for update in await call("getUpdates")] == [first[2]["update_id"] + 1]


async def test_a_later_server_takes_other_numbers() -> None:
    """A bot whose store outlives the server would take the update of a known number for processed."""
    last = 0
    for _ in range(3):
        async with BotApiServer() as server:
            await server.user().send("one").send("two")
            ids = [update["update_id"] for update in server.pending_updates]
        assert last < ids[0] < ids[1] < 2**31
        last = ids[1]


async def test_the_first_number_can_be_chosen() -> None:
    async with BotApiServer(first_update_id=7) as server:
        await server.user().send("one")
        assert server.pending_updates[0]["update_id"] == 7
    with pytest.raises(ConfigurationError, match="first_update_id is a whole number above 0, not 0"):
        BotApiServer(first_update_id=0)


async def test_a_negative_offset_keeps_the_last_updates(api: BotApiServer, call: Client) -> None:
    await api.user().send("one").send("two").send("three")
    assert texts(await call("getUpdates", offset=-2)) == ["two", "three"]
    assert texts(await call("getUpdates", offset=-5)) == ["two", "three"]


async def test_a_long_poll_ends_with_the_update_or_the_timeout(api: BotApiServer, call: Client) -> None:
    assert await call("getUpdates", timeout=0.01) == []
    poll = asyncio.create_task(call("getUpdates", timeout=30))
    await api.wait_for_call("getUpdates", where=lambda call: call.params["timeout"] == 30)
    await api.user().send("hello")
    assert texts(await poll) == ["hello"]


async def test_a_later_poll_ends_an_earlier_one(api: BotApiServer, call: Client) -> None:
    older = asyncio.create_task(call("getUpdates", timeout=30))
    await api.wait_for_call("getUpdates")
    newer = asyncio.create_task(call("getUpdates", timeout=30))
    assert (await older)["error_code"] == 409
    await api.user().send("hello")
    assert texts(await newer) == ["hello"]


async def test_only_allowed_kinds_are_queued(api: BotApiServer, call: Client) -> None:
    await call("getUpdates", allowed_updates=["callback_query"])
    await api.user().send("unwanted")
    await call("getUpdates")
    await api.user().send("still unwanted")
    await call("getUpdates", allowed_updates=[])
    await api.user().send("wanted")
    assert texts(await call("getUpdates")) == ["wanted"]


async def test_bots_are_apart(api: BotApiServer, call: Client) -> None:
    other = api.bot("42:" + "x" * 35)
    await other.user().send("for the other bot")
    assert await call("getUpdates") == []
    assert texts(other.updates.pending) == ["for the other bot"]


Answer = web.Response | None


@asynccontextmanager
async def webhook(answer: Callable[[web.Request, Json], Awaitable[Answer]]) -> AsyncIterator[str]:
    async def serve(request: web.Request) -> web.Response:
        return await answer(request, await request.json()) or web.Response()

    app = web.Application()
    app.router.add_post("/hook", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


async def test_a_webhook_gets_each_update_in_order_with_the_secret(api: BotApiServer, call: Client) -> None:
    got: list[tuple[str | None, str]] = []

    async def answer(request: web.Request, update: Json) -> Answer:
        got.append((request.headers.get("X-Telegram-Bot-Api-Secret-Token"), update["message"]["text"]))
        return None

    user = api.user()
    await user.send("before")
    async with webhook(answer) as url:
        assert await call("setWebhook", url=url, secret_token="abc-_9") is True
        for number in range(20):
            await user.send(str(number))
        await api.drained()
        assert got == [("abc-_9", text) for text in ["before", *map(str, range(20))]]
        info = await call("getWebhookInfo")
        assert (info["url"], info["pending_update_count"], info["max_connections"]) == (url, 0, 40)


async def test_a_failing_webhook_is_tried_again_before_the_next_update(
    api: BotApiServer, call: Client
) -> None:
    got: list[str] = []

    async def answer(_request: web.Request, update: Json) -> Answer:
        got.append(update["message"]["text"])
        return web.Response(status=503) if len(got) < 4 else None

    async with webhook(answer) as url:
        await call("setWebhook", url=url)
        await api.user().send("one").send("two")
        await api.drained()
        assert got == ["one"] * 4 + ["two"]
        info = await call("getWebhookInfo")
        assert info["last_error_message"] == "Wrong response from the webhook: 503 Service Unavailable"


async def test_an_unreachable_webhook_keeps_its_updates(api: BotApiServer, call: Client) -> None:
    async def answer(_request: web.Request, _update: Json) -> Answer:
        return None

    async with webhook(answer) as url:
        pass
    await call("setWebhook", url=url)
    await api.user().send("hello")
    assert await call("deleteWebhook") is True
    assert texts(await call("getUpdates")) == ["hello"]
    await call("setWebhook", url=url)
    assert await call("deleteWebhook", drop_pending_updates=True) is True
    assert await call("getUpdates") == []


async def test_no_more_than_max_connections_deliveries_run(api: BotApiServer, call: Client) -> None:
    running: set[int] = set()
    most = 0
    started: list[int] = []
    two_run = asyncio.Event()

    async def answer(_request: web.Request, update: Json) -> Answer:
        nonlocal most
        started.append(update["update_id"])
        running.add(update["update_id"])
        most = max(most, len(running))
        if len(running) == 2:
            two_run.set()
        await two_run.wait()
        running.discard(update["update_id"])
        return None

    async with webhook(answer) as url:
        await call("setWebhook", url=url, max_connections=2)
        for number in range(1, 9):
            await api.user(number).send("hello")
        await api.drained()
    assert most == 2
    assert len(started) == 8


async def test_a_webhook_may_answer_with_a_method(api: BotApiServer, call: Client) -> None:
    async def answer(_request: web.Request, update: Json) -> Answer:
        chat_id = update["message"]["chat"]["id"]
        return web.json_response({"method": "sendMessage", "chat_id": chat_id, "text": "in reply"})

    async with webhook(answer) as url:
        await call("setWebhook", url=url)
        await api.user().send("hello").expects("in reply")


async def test_webhook_and_polling_exclude_each_other(api: BotApiServer, call: Client) -> None:
    poll = asyncio.create_task(call("getUpdates", timeout=30))
    await api.wait_for_call("getUpdates")
    await call("setWebhook", url="http://localhost:9/hook")
    assert (await poll)["description"] == "Conflict: terminated by setWebhook request"
    refused = await call("getUpdates")
    assert refused["error_code"] == 409
    assert "webhook is active" in refused["description"]


@pytest.mark.parametrize(
    "url", ["https://example.org/hook", "http://10.0.0.1/", "ftp://127.0.0.1/", "127.0.0.1", "http://[", "x"]
)
async def test_a_webhook_elsewhere_is_refused(call: Client, url: str) -> None:
    refused = await call("setWebhook", url=url)
    assert refused["error_code"] == 400
    assert "delivers to loopback addresses only" in refused["description"]


async def test_a_bad_secret_or_certificate_changes_nothing(api: BotApiServer, call: Client) -> None:
    assert (await call("setWebhook", url="http://127.0.0.1:9/", secret_token="a b"))["error_code"] == 400
    form = aiohttp.FormData({"url": "https://127.0.0.1:9/"})
    form.add_field("certificate", b"no certificate", filename="cert.pem")
    async with call.http.post(f"{api.base_url}{api.token}/setWebhook", data=form) as response:
        assert "must be a PEM file" in json.loads(await response.text())["description"]
    assert (await call("getWebhookInfo"))["url"] == ""
