"""The HTTP server, and what tests hold in their hands."""

from __future__ import annotations

import asyncio
import logging
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Self, TypeVar

import aiohttp
from aiohttp import web

from sessionkit.arguments import check_whole
from sessionkit.errors import ConfigurationError
from sessionkit.testing.botapi.bots import BotAccount, check_token
from sessionkit.testing.botapi.calls import Call, CallLog, Fault, Faults, fault_error
from sessionkit.testing.botapi.errors import ApiError, ScriptError
from sessionkit.testing.botapi.files import UPLOAD_LIMIT
from sessionkit.testing.botapi.methods import ACCOUNT_METHODS
from sessionkit.testing.botapi.params import Params, read_params
from sessionkit.testing.botapi.sending import SENDING_METHODS
from sessionkit.testing.botapi.updates import first_ids
from sessionkit.testing.botapi.webhook import Delivery, Webhook

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from sessionkit.testing.botapi.scripted import Group, ScriptedUser

METHODS = ACCOUNT_METHODS | SENDING_METHODS
DEFAULT_TOKEN = "1234567890:AA-sessionkit-local-test-bot-token0"  # noqa: S105 - opens nothing but this server
BODY_LIMIT = UPLOAD_LIMIT + 2**20
SHUTDOWN_TIMEOUT = 0.3

_log = logging.getLogger(__name__)
# What aiohttp logs are clients that vanish or send garbage: what tests do on purpose.
_http_log = logging.getLogger(f"{__name__}.http")
_http_log.setLevel(logging.CRITICAL)

Callback = TypeVar("Callback", bound="Callable[[Call], Awaitable[object] | object]")


class BotApiServer:
    """A Telegram Bot API server for tests, on this machine, with scripted users in place of real ones.

    Any bot talks to it that lets you set the API's address; with python-telegram-bot::

        async with BotApiServer() as api:
            builder = ApplicationBuilder().token(api.token)
            application = builder.base_url(api.base_url).base_file_url(api.base_file_url).build()
            ...
            user = api.user()
            await user.send("/start").expects("Welcome")

    Bots may be killed and started anew while it runs: chats, files and unconfirmed updates stay. Every
    well-formed token is a bot of its own. Use the server, its users and its groups in the event loop that
    entered it.

    Args:
        host: Where to listen.
        port: The port, or 0 for any free one.
        token: The token of the default bot.
        webhook_retry_delay: Seconds before the first retry of a failed webhook delivery; doubled each time,
            up to one second.
        first_update_id: The number of each bot's first update; None: one that no earlier server has used, as
            a bot with a ``DurableInbox`` passes over a number that it has processed.

    Raises:
        ConfigurationError: The token is malformed, or the number not above zero.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        token: str = DEFAULT_TOKEN,
        webhook_retry_delay: float = 0.05,
        first_update_id: int | None = None,
    ) -> None:
        if first_update_id is not None:
            check_whole("first_update_id", first_update_id)
        try:
            check_token(token)
        except ApiError:
            raise ConfigurationError(
                "a bot's token looks like 1234567890:<35 letters, digits, - or _>"
            ) from None
        self.token = token
        self._host = host
        self._port = port
        self._retry_delay = webhook_retry_delay
        self._first_update_id = first_ids.take() if first_update_id is None else first_update_id
        self._accounts: dict[str, BotAccount] = {}
        self._log = CallLog()
        self._faults = Faults()
        self._callbacks: list[Callable[[Call], Awaitable[object] | object]] = []
        self._callback_errors: list[Exception] = []
        self._runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None

    @property
    def base_url(self) -> str:
        """What to give as the Bot API's ``base_url``; a token follows it."""
        return f"{self._root}/bot"

    @property
    def base_file_url(self) -> str:
        """What to give as ``base_file_url``; a token follows it."""
        return f"{self._root}/file/bot"

    @property
    def calls(self) -> list[Call]:
        """The calls of all bots, oldest first; the last 100,000."""
        return self._log.calls

    @property
    def pending_updates(self) -> list[dict[str, Any]]:
        """The updates that the default bot did not confirm yet, oldest first."""
        return self.bot().updates.pending

    def bot(self, token: str | None = None) -> BotAccount:
        """Return what the server keeps of the bot of that token, or of the default one.

        Raises:
            ApiError: The token is malformed.
        """
        token = token or self.token
        if token not in self._accounts:
            self._accounts[token] = BotAccount(token, self._make_delivery, self._first_update_id)
        return self._accounts[token]

    def user(
        self,
        id: int = 1001,
        first_name: str = "Ann",
        *,
        last_name: str | None = None,
        username: str | None = None,
        language_code: str = "en",
    ) -> ScriptedUser:
        """Return a user in a private chat with the default bot; the same one for the same id.

        Raises:
            ConfigurationError: The id is not a positive number.
        """
        return self.bot().user(
            id, first_name, last_name=last_name, username=username, language_code=language_code
        )

    def group(self, id: int = -1002001, title: str = "Test group") -> Group:
        """Return a group that the default bot is in; the same one for the same id.

        Raises:
            ConfigurationError: The id is not a negative number.
        """
        return self.bot().group(id, title)

    async def wait_for_call(
        self, method: str, *, where: Callable[[Call], bool] | None = None, timeout: float = 10.0
    ) -> Call:
        """Return the first call of a method, past or to come, that was not returned here before.

        Args:
            method: The method's name as Telegram spells it.
            where: Take only calls for which this is true.
            timeout: Seconds to wait for it.

        Raises:
            ScriptError: None came; the message names the last calls that did.
        """
        return await self._log.wait(method, where, timeout)

    async def drained(self, timeout: float = 10.0) -> None:
        """Wait until the default bot has confirmed every update.

        Raises:
            ScriptError: It did not within ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self.bot().updates.drained()
        except TimeoutError:
            left = len(self.pending_updates)
            raise ScriptError(f"the bot left {left} updates unconfirmed for {timeout:g} s") from None

    def on_call(self, callback: Callback) -> Callback:
        """Call back with each finished call, after it took effect and before the bot gets its answer.

        An awaitable that the callback returns is awaited first. An exception it raises is raised anew
        when the server is left. Can be used as a decorator.
        """
        self._callbacks.append(callback)
        return callback

    def fail_next(
        self,
        method: str,
        *,
        error_code: int,
        description: str | None = None,
        retry_after: int | None = None,
        times: int = 1,
        executed: bool = False,
        token: str | None = None,
    ) -> None:
        """Answer the next calls of a method with an error.

        Args:
            method: The method's name.
            error_code: The HTTP status, from 400 to 599.
            description: What to say; None: what Telegram usually says.
            retry_after: Seconds after which the bot is told to try again, as with 429.
            times: How many calls to fail.
            executed: Let them take effect and lose only their answer.
            token: Fail this bot's calls only.

        Raises:
            ConfigurationError: An argument is out of its range.
        """
        error = fault_error(error_code, description, retry_after)
        self._faults.plan(Fault(method, error, times, executed, token))

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_route("*", r"/bot{token:[^/]*}/{method:[^/]*}", self._serve_method)
        app.router.add_route("*", r"/file/bot{token:[^/]*}/{path:.*}", self._serve_file)
        app.router.add_route("*", "/{path:.*}", self._serve_nothing)
        self._runner = web.AppRunner(
            app, access_log=None, logger=_http_log, shutdown_timeout=SHUTDOWN_TIMEOUT, handle_signals=False
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = self._runner.addresses[0][1]
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for account in self._accounts.values():
            account.updates.wake()
            if account.delivery:
                account.delivery.stop()
        if self._runner:
            await self._runner.cleanup()
        if self._http:
            await self._http.close()
        if self._callback_errors and exc is None:
            raise self._callback_errors[0]

    @property
    def _root(self) -> str:
        if self._runner is None:
            raise ConfigurationError(
                "the server has no address before it is entered: async with BotApiServer() as api"
            )
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def _make_delivery(self, account: BotAccount, webhook: Webhook) -> Delivery:
        async def run_method(method: str, params: Params) -> object:
            return await self._run(account, method, params)

        assert self._http is not None
        return Delivery(webhook, account.updates, self._http, self._retry_delay, run_method)

    async def _serve_method(self, request: web.Request) -> web.StreamResponse:
        try:
            account = self.bot(request.match_info["token"] or "-")
            answer = await self._run(account, request.match_info["method"], await read_params(request))
        except ApiError as error:
            answer = error.as_answer()
        except web.HTTPRequestEntityTooLarge:
            answer = ApiError(413, "Request Entity Too Large").as_answer()
        return web.json_response(answer, status=answer.get("error_code", 200))

    async def _serve_file(self, request: web.Request) -> web.StreamResponse:
        try:
            stored = self.bot(request.match_info["token"] or "-").files.by_path(request.match_info["path"])
        except ApiError as error:
            return web.json_response(error.as_answer(), status=error.code)
        if stored is None:
            return web.json_response(ApiError(404, "Not Found").as_answer(), status=404)
        return web.Response(body=stored.data, content_type="application/octet-stream")

    async def _serve_nothing(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(ApiError(404, "Not Found").as_answer(), status=404)

    async def _run(self, account: BotAccount, method: str, params: Params) -> dict[str, Any]:
        """Run a method, tell the callbacks, and return its answer."""
        known = METHODS.get(method.lower())
        call = self._log.arrived(account.token, known.name if known else method, params.values)
        try:
            fault = self._faults.take(call.method, account.token)
            if fault and not fault.executed:
                raise fault.error
            if known is None:
                _log.warning("a bot called %r, a method this test server does not have", method)
                raise ApiError(404, "Not Found: method not found")
            result = known.run(account, params)
            answer = {"ok": True, "result": await result if isawaitable(result) else result}
            if fault:
                raise fault.error
        except ApiError as error:
            answer = error.as_answer()
        except Exception:
            _log.exception("%s failed inside the test server", call.method)
            answer = ApiError(500, "Internal Server Error").as_answer()
        call = self._log.answered(call, answer)
        for callback in list(self._callbacks):
            try:
                outcome = callback(call)
                if isawaitable(outcome):
                    await outcome
            except Exception as error:
                _log.exception("a callback of on_call failed")
                self._callback_errors.append(error)
        return answer
