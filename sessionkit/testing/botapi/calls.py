"""The log of the calls that bots made, and the faults that tests plan for them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from sessionkit.errors import ConfigurationError
from sessionkit.testing.botapi.errors import ApiError, ScriptError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CALLS_KEPT = 100_000


@dataclass(frozen=True)
class Call:
    """One call of a Bot API method.

    Attributes:
        number: Counts the calls of one server, from 1.
        token: The bot that called.
        method: The method's name as Telegram spells it, or as the bot did where it is unknown.
        params: Its parameters: text as sent, JSON values, or ``Upload``.
        time: When it came, in seconds since the epoch.
        answer: The JSON object the bot is answered with, or None while the call runs.
    """

    number: int
    token: str = field(repr=False)
    method: str
    params: Mapping[str, Any]
    time: float
    answer: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class _Waiter:
    """Somebody who awaits a call."""

    method: str
    where: Callable[[Call], bool]
    arrival: asyncio.Future[Call]

    def wants(self, call: Call) -> bool:
        return not self.arrival.done() and call.method == self.method and self.where(call)


class CallLog:
    """The last ``CALLS_KEPT`` calls, in the order they came."""

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}
        self._count = 0
        self._awaited: set[int] = set()
        self._waiters: list[_Waiter] = []

    @property
    def calls(self) -> list[Call]:
        """The calls, oldest first."""
        return list(self._calls.values())

    def arrived(self, token: str, method: str, params: Mapping[str, Any]) -> Call:
        """Enter a call that has just come."""
        self._count += 1
        call = Call(self._count, token, method, params, time.time())
        self._calls[call.number] = call
        if len(self._calls) > CALLS_KEPT:
            del self._calls[next(iter(self._calls))]
        for waiter in self._waiters:
            if waiter.wants(call):
                self._awaited.add(call.number)
                waiter.arrival.set_result(call)
                break
        return call

    def answered(self, call: Call, answer: Mapping[str, Any]) -> Call:
        """Enter a call's answer, and return the completed call."""
        call = replace(call, answer=answer)
        if call.number in self._calls:
            self._calls[call.number] = call
        return call

    async def wait(self, method: str, where: Callable[[Call], bool] | None, timeout: float) -> Call:
        """Return the first call of a method, past or to come, that no ``wait`` returned before.

        Raises:
            ScriptError: None came in time.
        """
        arrival: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(method, where or (lambda call: True), arrival)
        for call in self.calls:
            if call.number not in self._awaited and waiter.wants(call):
                self._awaited.add(call.number)
                return call
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                call = await arrival
        except TimeoutError:
            seen = ", ".join(call.method for call in self.calls[-20:]) or "none"
            raise ScriptError(
                f"no new call of {method} within {timeout:g} s; the last calls were: {seen}"
            ) from None
        finally:
            self._waiters.remove(waiter)
        return self._calls.get(call.number, call)


@dataclass
class Fault:
    """An error that the next calls of a method are answered with.

    Attributes:
        method: The method, as Telegram spells it.
        error: What they are answered.
        times: How many calls are left to fail.
        executed: Whether the method still takes effect, so that only its answer is lost.
        token: The bot it is for, or None for all.
    """

    method: str
    error: ApiError
    times: int
    executed: bool
    token: str | None


class Faults:
    """The faults still to come, in the order they were planned."""

    def __init__(self) -> None:
        self._planned: deque[Fault] = deque()

    def plan(self, fault: Fault) -> None:
        """Let the next calls of a method fail.

        Raises:
            ConfigurationError: It would never happen, or is no HTTP error.
        """
        if fault.times < 1:
            raise ConfigurationError(
                f"a fault of {fault.method} must happen at least once, not {fault.times} times"
            )
        if not 400 <= fault.error.code <= 599:
            raise ConfigurationError(f"{fault.error.code} is no HTTP error status; give one from 400 to 599")
        self._planned.append(fault)

    def take(self, method: str, token: str) -> Fault | None:
        """Return the fault that this call meets, or None."""
        for fault in self._planned:
            if fault.method.lower() == method.lower() and fault.token in {None, token}:
                fault.times -= 1
                if not fault.times:
                    self._planned.remove(fault)
                return fault
        return None


def fault_error(code: int, description: str | None, retry_after: int | None) -> ApiError:
    """Return an error in Telegram's words, with its usual description where none is given."""
    if description is None:
        if code == HTTPStatus.TOO_MANY_REQUESTS:
            description = f"Too Many Requests: retry after {retry_after or 1}"
        elif code == HTTPStatus.FORBIDDEN:
            description = "Forbidden: bot was blocked by the user"
        else:
            description = HTTPStatus(code).phrase if code in set(HTTPStatus) else "Error"
    if retry_after is not None:
        return ApiError(code, description, retry_after=retry_after)
    return ApiError(code, description)
