"""Answers that are held back until what they promise is stored."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from sessionkit.errors import SessionKitError
from sessionkit.ptb.writes import may_pass

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

Answer: TypeAlias = "Callable[[], Awaitable[object]]"


@dataclass(eq=False)
class Answers:
    """What one update's handlers passed to ``on_commit``, and what must be stored before it is called.

    Attributes:
        update: The update.
        callbacks: What is to be called, in this order.
        keys: What must be stored.
        user: The id of the update's user.
        chat: The id of its chat.
    """

    update: object
    callbacks: Sequence[Answer]
    keys: Collection[str]
    user: int | None
    chat: int | None

    def follows(self, other: Answers) -> bool:
        """Whether the other's answers must be sent before these: they are for the same user or chat."""
        return (self.user is not None and self.user == other.user) or (
            self.chat is not None and self.chat == other.chat
        )


class HeldBack:
    """The answers that wait, in order for each user and chat.

    Args:
        check: Raises while what such answers promise is not stored.
        send: Sends them.
        give_up: Told of answers that will never be true, and why.
    """

    def __init__(
        self,
        check: Callable[[Answers], object],
        send: Callable[[Answers], Awaitable[object]],
        give_up: Callable[[Answers, SessionKitError], Awaitable[object]],
    ) -> None:
        self._check = check
        self._send = send
        self._give_up = give_up
        self._waiting: list[Answers] = []
        self._sender: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look again whether something is stored by now."""
        self._wake.set()

    def follows(self, answers: Answers) -> bool:
        """Whether some that wait must be sent before these."""
        return any(map(answers.follows, self._waiting))

    def add(self, answers: Answers) -> None:
        """Send these as soon as they are true."""
        self._waiting.append(answers)
        self._wake.set()
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._run())

    async def drop(self) -> None:
        """Send none of those that wait."""
        self._waiting.clear()
        sender = self._sender
        if sender is not None:
            sender.cancel()
            await asyncio.wait([sender])

    async def _run(self) -> None:
        try:
            while self._waiting:
                self._wake.clear()
                await self._send_what_is_true()
                if self._waiting:
                    await self._wake.wait()
        finally:
            self._sender = None

    async def _send_what_is_true(self) -> None:
        kept: list[Answers] = []
        for answers in list(self._waiting):
            if any(map(answers.follows, kept)):
                kept.append(answers)
                continue
            try:
                self._check(answers)
            except SessionKitError as error:
                if may_pass(error):
                    kept.append(answers)
                    continue
                self._drop(answers)
                await self._give_up(answers, error)
            else:
                await self._send(answers)
                self._drop(answers)

    def _drop(self, answers: Answers) -> None:
        if answers in self._waiting:  # an answer may go on though it is cancelled with all that wait
            self._waiting.remove(answers)
