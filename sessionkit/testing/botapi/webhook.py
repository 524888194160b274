"""Delivery of updates to a bot's webhook."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import aiohttp
from yarl import URL

from sessionkit.testing.botapi.errors import ApiError, bad_request
from sessionkit.testing.botapi.params import Params, parse_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sessionkit.testing.botapi.updates import UpdateQueue

SECRET_HEADER = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 - a name
LONGEST_RETRY_DELAY = 1.0
RESPONSE_TIMEOUT = aiohttp.ClientTimeout(total=60)


@dataclass(frozen=True)
class Webhook:
    """What a bot set by ``setWebhook``.

    Attributes:
        url: Where to deliver, on this machine.
        secret_token: What to send in ``SECRET_HEADER``, or "".
        max_connections: How many deliveries may run at a time.
        certificate: The bot's self-signed certificate in PEM, or b"".
    """

    url: str
    secret_token: str = field(default="", repr=False)
    max_connections: int = 40
    certificate: bytes = field(default=b"", repr=False)


def check_url(text: str) -> None:
    """Refuse a webhook that is not on this machine.

    Raises:
        ApiError: It is not, or it is no URL.
    """
    try:
        url = URL(text)
        is_local = url.host == "localhost" or ip_address(url.host or "").is_loopback
        is_usable = is_local and url.scheme in {"http", "https"}
    except ValueError:
        is_usable = False
    if not is_usable:
        raise bad_request(
            "bad webhook: this test server delivers to loopback addresses only; use a URL like"
            " http://127.0.0.1:8443/path"
        )


def make_ssl_context(certificate: bytes) -> ssl.SSLContext:
    """Return the context that trusts a bot's self-signed certificate.

    Raises:
        ApiError: It is no certificate in PEM.
    """
    try:
        return ssl.create_default_context(cadata=certificate.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise bad_request("bad webhook: the certificate must be a PEM file") from None


class Delivery:
    """Posts updates to a webhook until it acknowledges them with a 2xx status.

    As at Telegram, the updates of one chat go out one at a time and in order, a failing one before the next;
    different chats go out side by side, in the order of their updates, up to ``max_connections``.

    Args:
        webhook: Where to.
        updates: The queue to confirm updates in.
        http: The session to post with.
        retry_delay: Seconds before the first retry of an update; doubled up to ``LONGEST_RETRY_DELAY``.
        run_method: Runs a method that the webhook gave as its answer.
    """

    def __init__(
        self,
        webhook: Webhook,
        updates: UpdateQueue,
        http: aiohttp.ClientSession,
        retry_delay: float,
        run_method: Callable[[str, Params], Awaitable[object]],
    ) -> None:
        self.webhook = webhook
        self.last_error: tuple[float, str] | None = None
        self._updates = updates
        self._http = http
        self._ssl = make_ssl_context(webhook.certificate) if webhook.certificate else True
        self._retry_delay = retry_delay
        self._run_method = run_method
        self._slots = asyncio.Semaphore(webhook.max_connections)
        self._lanes: dict[int, deque[dict[str, Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Deliver what is pending and all that comes."""
        for update in self._updates.pending:
            self.offer(update)
        self._updates.on_added = self.offer

    def offer(self, update: dict[str, Any]) -> None:
        """Deliver an update after the earlier ones of its chat."""
        chat = _chat_of(update)
        if chat in self._lanes:
            self._lanes[chat].append(update)
            return
        self._lanes[chat] = deque([update])
        task = asyncio.get_running_loop().create_task(self._serve(chat))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Stop delivering; what is not acknowledged stays pending."""
        self._updates.on_added = None
        for task in self._tasks:
            task.cancel()

    async def _serve(self, chat: int) -> None:
        lane = self._lanes[chat]
        failures = 0
        while lane:
            async with self._slots:
                error = await self._post(lane[0])
            if error is None:
                lane.popleft()
                failures = 0
                continue
            self.last_error = (time.time(), error)
            await asyncio.sleep(min(self._retry_delay * 2**failures, LONGEST_RETRY_DELAY))
            failures = min(failures + 1, 16)
        del self._lanes[chat]

    async def _post(self, update: dict[str, Any]) -> str | None:
        """Post one update; return what went wrong, or None."""
        headers = {SECRET_HEADER: self.webhook.secret_token} if self.webhook.secret_token else {}
        try:
            # A redirect is not followed: it could lead off this machine.
            async with self._http.post(
                self.webhook.url,
                json=update,
                headers=headers,
                ssl=self._ssl,
                timeout=RESPONSE_TIMEOUT,
                allow_redirects=False,
            ) as response:
                body = await response.read()
        except TimeoutError:
            return "Read timeout expired"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return str(error) or type(error).__name__
        if not 200 <= response.status <= 299:
            return f"Wrong response from the webhook: {response.status} {response.reason}"
        self._updates.confirm(update["update_id"])
        await self._run_answer(response.content_type, body)
        return None

    async def _run_answer(self, content_type: str, body: bytes) -> None:
        """Run the method that a webhook may give as its answer; its result is not told to the bot."""
        try:
            params = Params(parse_body(content_type, body))
        except ApiError:
            return
        if method := params.text("method"):
            await self._run_method(method, params)


def _chat_of(update: dict[str, Any]) -> int:
    """Return what an update must wait its turn for: its chat, else its sender."""
    content = next(value for name, value in update.items() if name != "update_id")
    message = content.get("message", content)
    return int((message.get("chat") or content.get("from") or {"id": 0})["id"])
