"""``on_commit``: what may happen only once an update's changes are safe."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, ParamSpec

from sessionkit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

P = ParamSpec("P")


class Commit:
    """What one update's handlers want done after its commit, in the order they asked."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], Awaitable[object]]] = []
        self._task = asyncio.current_task()
        self._open = True

    @property
    def here(self) -> bool:
        """Whether the update is processed in this very task, and not in one that may outlive it."""
        return self._open and asyncio.current_task() is self._task

    def add(self, callback: Callable[[], Awaitable[object]]) -> None:
        """Take one more.

        Raises:
            ConfigurationError: The update is committed, or this is not the task that processes it.
        """
        if not self.here:
            raise ConfigurationError(
                "on_commit was called outside of its update: a handler with block=False, or a task that a"
                " handler started, may outlive it; call on_commit in a blocking handler, before it returns"
            )
        self._callbacks.append(callback)

    def discard(self) -> None:
        """Forget what was asked for so far, as a handler of the update has failed, and not just some task."""
        if asyncio.current_task() is self._task:
            self._callbacks.clear()

    def close(self) -> list[Callable[[], Awaitable[object]]]:
        """Take no more, and return what was asked for."""
        self._open = False
        return self._callbacks


_current: ContextVar[Commit | None] = ContextVar("sessionkit_commit", default=None)


def current() -> Commit | None:
    """Return the commit of the update being processed, or None outside of any."""
    return _current.get()


@contextmanager
def collecting() -> Iterator[Commit]:
    """Collect in the yielded commit what the body asks for."""
    commit = Commit()
    token = _current.set(commit)
    try:
        yield commit
    finally:
        _current.reset(token)


def on_commit(callback: Callable[P, Awaitable[object]], /, *args: P.args, **kwargs: P.kwargs) -> None:
    """Call ``callback`` once the update's conversation states and data are in the store.

    A reply sent this way is a promise kept: whoever sees it can rely on the bot remembering the step it
    confirms, even if the process is killed the moment after. For instance
    ``on_commit(update.message.reply_text, "Saved. How much?")``.

    While the store does not acknowledge, the callback waits, and the application's error handlers are told
    by a ``CommitPending``. If a handler of the update raises, or a value cannot be stored at all, it is not
    called. Several are called in the order given; one that fails goes to the error handlers, and stops no
    other.

    Args:
        callback: A coroutine function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Raises:
        ConfigurationError: This is not a blocking handler of a ``SessionApplication``.
    """
    commit = _current.get()
    if commit is None:
        raise ConfigurationError(
            "on_commit works in the blocking handlers of a SessionApplication, built with"
            " ApplicationBuilder().application_class(SessionApplication): not in jobs, nor in error handlers"
            " of an update that is over; these send their messages directly"
        )
    commit.add(partial(callback, *args, **kwargs))
