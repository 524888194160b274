"""The bot of the demo as a process of its own, to be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sessionkit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_STOP_PATIENCE = 10.0


def example_bot() -> Path:
    """Return the example's file: beside this module in a wheel, else in the checkout's ``examples``.

    Raises:
        ConfigurationError: It is in neither place.
    """
    here = Path(__file__).resolve()
    for path in (here.with_name("depot_bot.py"), here.parents[2] / "examples" / "depot_bot.py"):
        if path.is_file():
            return path
    raise ConfigurationError("the example bot is missing from this installation; reinstall sessionkit")


class BotProcess:
    """The example bot, run by this interpreter.

    Args:
        settings: Its environment variables, beside the inherited ones.
        log: The file its output goes to. Its working directory is that of this process.
    """

    def __init__(self, settings: Mapping[str, str], log: Path) -> None:
        self._settings = settings
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it; it answers as soon as it has loaded."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(example_bot()),
                env={**os.environ, **self._settings},
                stdout=log,
                stderr=log,
            )

    async def kill(self) -> int:
        """Kill it with SIGKILL, which no process can catch, and return the exit status it left."""
        return await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Stop it in good order, if it still runs; kill it if it does not follow."""
        if self._process is None or self._process.returncode is not None:
            return
        try:
            async with asyncio.timeout(_STOP_PATIENCE):
                await self._end(signal.SIGTERM)
        except TimeoutError:
            await self.kill()

    def output(self) -> str:
        """Return the end of what it printed."""
        return self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""

    async def _end(self, how: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(how)
        return await self._process.wait()
