"""Instances of a bot in processes of their own behind a round-robin webhook proxy, and users in a hurry."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from aiohttp import web

if TYPE_CHECKING:
    import random
    from types import TracebackType

    from sessionkit.testing.botapi import BotApiServer, Call, Group, ScriptedUser

ROOT = Path(__file__).parents[2]


class Instance:
    """One process of the bot.

    Args:
        settings: Its environment variables.
        log: The file its errors go to.
    """

    def __init__(self, settings: dict[str, str], log: Path) -> None:
        self._settings = settings
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self.port: int | None = None

    async def start(self) -> None:
        """Start it; it takes updates as soon as this returns."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.ptb.fleet_bot",
                cwd=ROOT,
                env={**os.environ, **self._settings},
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, f"the bot did not start: {self._log.read_text()[-3000:]}"
        self.port = int(line)

    async def died(self) -> None:
        """Return once it has died by itself."""
        assert self._process is not None
        await self._process.wait()
        self.port = None

    async def kill(self) -> None:
        """Kill it with SIGKILL, if it runs."""
        self.port = None
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


class Fleet:
    """Instances behind a proxy that gives each update to the next one that takes it."""

    def __init__(self, api: BotApiServer, url: str, size: int, folder: Path, **settings: str) -> None:
        self._api = api
        self.logs = [folder / f"{number}.log" for number in range(size)]
        settings = {
            "TELEGRAM_BOT_TOKEN": api.token,
            "TELEGRAM_BASE_URL": api.base_url,
            "SESSIONKIT_URL": url,
            "LEASE": "10",
            **settings,
        }
        self.instances = [Instance(settings, log) for log in self.logs]
        self._turn = count()
        self.kills = 0

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession()
        proxy = web.Application()
        proxy.router.add_post("/", self._forward)
        self._runner = web.AppRunner(proxy, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        await asyncio.gather(*(instance.start() for instance in self.instances))
        params = {"url": f"http://127.0.0.1:{self._runner.addresses[0][1]}/", "max_connections": 100}
        async with self._http.post(f"{self._api.base_url}{self._api.token}/setWebhook", json=params) as reply:
            assert (await reply.json())["ok"]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(instance.kill() for instance in self.instances))
        await self._runner.cleanup()
        await self._http.close()

    def output(self) -> str:
        """Return what all of them complained about."""
        return "".join(log.read_text() for log in self.logs)

    async def _forward(self, request: web.Request) -> web.Response:
        body = await request.read()
        for _ in self.instances:
            port = self.instances[next(self._turn) % len(self.instances)].port
            if port is not None:
                with suppress(aiohttp.ClientError):
                    async with self._http.post(f"http://127.0.0.1:{port}/", data=body) as reply:
                        if reply.status == 200:
                            return web.Response()
        return web.Response(status=503)


class Crowd:
    """Users who each send the next step when they have seen the answer to the last one.

    Attributes:
        seen: How many steps were answered, by user and chat.
        unanswered: How often a user sent a step again, as nobody had answered.
        wrong: What the bot said of steps that came in a wrong state or out of order.
    """

    def __init__(self, api: BotApiServer, patience: float) -> None:
        self._api = api
        self._patience = patience
        self._answers: dict[tuple[int, int, int], asyncio.Event] = {}
        self.seen: dict[tuple[int, int], int] = {}
        self.unanswered = 0
        self.wrong: list[Any] = []
        self.answered = asyncio.Semaphore(0)
        api.on_call(self._hear)

    async def walk(self, user: ScriptedUser, group: Group | None, steps: int) -> None:
        """Take this many steps in the user's private chat, or in a group."""
        speaker = user if group is None else user.in_chat(group)
        for number in range(1, steps + 1):
            step = (user.id, speaker.chat_id, number)
            answered = self._answers[step] = asyncio.Event()
            while not answered.is_set():
                await speaker.send(f"step {number}")
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._patience):
                        await answered.wait()
                self.unanswered += not answered.is_set()
            self.seen[user.id, speaker.chat_id] = number
            del self._answers[step]

    def _hear(self, call: Call) -> None:
        if call.method != "sendMessage":
            return
        answer = json.loads(call.params["text"])
        if "number" not in answer and "wrong" not in answer:
            return
        if "wrong" in answer or answer["last"] < answer["number"] - 1:
            self.wrong.append(answer)
            return
        answered = self._answers.get((answer["user"], answer["chat"], answer["number"]))
        if answered is not None and not answered.is_set():
            answered.set()
            self.answered.release()


async def harass(
    fleet: Fleet, answered: asyncio.Semaphore, kills: int, pause: int, rng: random.Random
) -> None:
    """Kill an instance every so many answers, and start it again."""
    for _ in range(kills):
        for _ in range(rng.randint(1, pause)):
            await answered.acquire()
        instance = rng.choice(fleet.instances)
        await instance.kill()
        fleet.kills += 1
        await instance.start()
