"""Several servers that are started and stopped as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Self

from sessionkit.errors import ConfigurationError
from sessionkit.testing.servers.waiting import wait_for, wait_for_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from sessionkit.testing.servers.process import RedisServer
    from sessionkit.testing.servers.waiting import Missing

READY_SECONDS: Final = 30.0
"""What a group may take to become ready, or ready again."""


class ServerGroup(ABC):
    """Servers that act as one, as a context manager of either kind, or by ``start()`` and ``stop()``.

    Like any ``RedisServer`` they are killed when the thread that started them ends.
    """

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._everyone():
            # Not as an operator would: a primary would wait for its replicas, and nobody reads it again.
            if server.running:
                server.kill()
            server.__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        self._check_stopped()
        try:
            for missing in self._steps():
                await wait_for_async(missing, READY_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def start(self) -> Self:
        """Run them all, and return itself once they act as one; blocks for some seconds.

        Raises:
            ConfigurationError: Some of them run already.
            StoreUnavailable: One did not start, or they did not find together; the message says why.
        """
        self._check_stopped()
        try:
            for missing in self._steps():
                wait_for(missing, READY_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End those that run, as an operator would; ``start()`` takes them up again."""
        # The last ones first: a primary that is stopped waits for a replica that lags.
        for server in reversed(self._everyone()):
            server.stop()

    def _check_stopped(self) -> None:
        if running := [str(server.port) for server in self._everyone() if server.running]:
            raise ConfigurationError(f"running already, on port {', '.join(running)}; stop() first")

    @abstractmethod
    def _everyone(self) -> list[RedisServer]:
        """Return all its servers, in the order of their start."""

    @abstractmethod
    def _steps(self) -> Iterator[Missing]:
        """Start everything, in steps: after each one it is waited until nothing is missing."""


def data_port(server: RedisServer) -> int:
    """Return where the others of its group, and their clients, reach a server."""
    return server.tls_port or server.port


def in_sync(replica: RedisServer) -> bool:
    """Return whether a replica has its primary's data."""
    return b"master_link_status:up" in replica.command("INFO", "replication")
