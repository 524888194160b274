"""Tables of Bot API methods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from sessionkit.testing.botapi.bots import BotAccount
from sessionkit.testing.botapi.params import Params

Run = Callable[[BotAccount, Params], Awaitable[object] | object]


class Method(NamedTuple):
    """One Bot API method.

    Attributes:
        name: How Telegram spells it.
        run: Takes effect at once and returns the result, or an awaitable of it, or raises ``ApiError``.
    """

    name: str
    run: Run


class MethodTable(dict[str, Method]):
    """Methods by their name in lower case, as Telegram takes any case."""

    def add(self, name: str) -> Callable[[Run], Run]:
        """Decorate the function that is the method of that name."""

        def register(run: Run) -> Run:
            self[name.lower()] = Method(name, run)
            return run

        return register
