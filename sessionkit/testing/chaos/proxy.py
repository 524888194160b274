"""The proxy and its switches."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from sessionkit.errors import ConfigurationError
from sessionkit.testing.chaos.faults import NO_FAULTS, Conditions, Direction, require
from sessionkit.testing.chaos.link import Link
from sessionkit.testing.chaos.listener import HOST, Listener

if TYPE_CHECKING:
    import socket
    from types import TracebackType


class ChaosProxy:
    """A TCP proxy on loopback whose faults are switched on and off while it runs.

    An async context manager; leaving it closes its connections at once. Faults add up, concern open and new
    connections alike, and last until ``heal``, except for the ones that are said to happen once. All methods
    belong to the thread of the event loop that runs the proxy; on Windows that must be a selector loop.

    What is random is drawn for each connection from the seed and the connection's number, so that the same
    traffic meets the same faults. A *chunk* is what was read at once: of a client that waits for each
    reply, a request or a reply. With ``fragment`` it is one of the pieces.
    """

    def __init__(self, host: str, port: int, *, seed: int | None = None) -> None:
        """Prepare a proxy; it listens once it is entered.

        Args:
            host: The upstream's host.
            port: The upstream's port.
            seed: What all randomness comes from; without one it is drawn. ``repr`` shows it.
        """
        seed = random.SystemRandom().randrange(2**32) if seed is None else seed
        self._conditions = Conditions((host, port), seed)
        self._listener: Listener | None = None
        self._links: set[Link] = set()
        self._accepted = 0

    def __repr__(self) -> str:
        host, port = self._conditions.upstream
        return f"ChaosProxy({host!r}, {port}, seed={self._conditions.seed})"

    async def __aenter__(self) -> Self:
        if self._listener is not None:
            raise ConfigurationError(f"{self!r} is running already; enter it once")
        self._listener = Listener(self._accept)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running().close()
        self._listener = None
        links = list(self._links)
        for link in links:
            link.abort(reset=False)
        for link in links:
            await link.closed.wait()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1.

        Raises:
            ConfigurationError: It is not running.
        """
        return self._running().port

    @property
    def connections(self) -> int:
        """How many connections it has accepted."""
        return self._accepted

    @property
    def open_connections(self) -> int:
        """How many of them are open."""
        return sum(not link.ending for link in self._links)

    @property
    def resets(self) -> int:
        """How many connections its faults have reset."""
        return self._conditions.resets

    @property
    def request_bytes(self) -> int:
        """How many bytes it has passed on to the upstream."""
        return self._conditions.requests.passed

    @property
    def reply_bytes(self) -> int:
        """How many bytes it has passed on to clients."""
        return self._conditions.replies.passed

    def url(self, upstream: str) -> str:
        """Return a URL of the upstream with the proxy's host and port instead; all else stays.

        Raises:
            ConfigurationError: It is not running, or the URL has no host.
        """
        parts = urlsplit(upstream)
        if not parts.hostname:
            raise ConfigurationError(
                "url: there is no host in it to replace; pass e.g. 'redis://127.0.0.1:6379/0'"
            )
        credentials, at, _address = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{credentials}{at}{HOST}:{self.port}").geturl()

    def latency(self, seconds: float, jitter: float = 0.0, *, direction: Direction = Direction.BOTH) -> None:
        """Deliver each chunk later; their order stays.

        Args:
            seconds: By how many seconds; 0 ends this fault.
            jitter: The most seconds that are added at random.
            direction: Which way.

        Raises:
            ConfigurationError: A number is negative or not finite.
        """
        for name, value in (("seconds", seconds), ("jitter", jitter)):
            require(0 <= value < math.inf, f"latency: {name} must be 0 or more seconds, not {value!r}")
        for lane in self._conditions.lanes(direction):
            lane.faults = replace(lane.faults, latency=seconds, jitter=jitter)

    def fragment(self, max_bytes: int | None, *, direction: Direction = Direction.BOTH) -> None:
        """Write what passes in pieces of random size, each by itself.

        A reader in the same event loop gets every piece alone; elsewhere the system may join some.

        Args:
            max_bytes: The longest piece; None ends this fault.
            direction: Which way.

        Raises:
            ConfigurationError: ``max_bytes`` is less than 1.
        """
        require(
            max_bytes is None or max_bytes >= 1, f"fragment: max_bytes must be 1 or more, not {max_bytes!r}"
        )
        for lane in self._conditions.lanes(direction):
            lane.faults = replace(lane.faults, fragment=max_bytes)

    def reset_all(self) -> None:
        """Reset every open connection, to the client and to the upstream, now and once."""
        for link in list(self._links):
            link.reset()

    def reset_randomly(self, probability: float, *, direction: Direction = Direction.BOTH) -> None:
        """Reset a connection instead of passing a chunk, at random.

        Args:
            probability: How likely, for each chunk; 0 ends this fault.
            direction: Which way.

        Raises:
            ConfigurationError: ``probability`` is not within 0 and 1.
        """
        require(
            0 <= probability <= 1, f"reset_randomly: a probability is within 0 and 1, not {probability!r}"
        )
        for lane in self._conditions.lanes(direction):
            lane.faults = replace(lane.faults, reset_probability=probability)

    def drop_replies(self, count: int | None = None) -> None:
        """Pass requests, swallow the reply and reset its connection: it was done, and nobody was told.

        Args:
            count: For how many replies, of all connections together; None for all, 0 ends this fault.

        Raises:
            ConfigurationError: ``count`` is negative.
        """
        require(count is None or count >= 0, f"drop_replies: count must be 0 or more, not {count!r}")
        lane = self._conditions.replies
        lane.faults = replace(lane.faults, drop=math.inf if count is None else count)

    def cut_after(self, count: int | None, *, direction: Direction) -> None:
        """Pass this many bytes more, of all connections together; reset the one that carried the last, once.

        The bytes before the cut are sent; whether a receiver that reads late still gets them is up to its
        system (on Linux it does).

        Args:
            count: After how many bytes; with 0 the next chunk is not passed at all. None ends this fault.
            direction: Which way; with ``BOTH`` each way has its own count.

        Raises:
            ConfigurationError: ``count`` is negative.
        """
        require(count is None or count >= 0, f"cut_after: count must be 0 or more bytes, not {count!r}")
        for lane in self._conditions.lanes(direction):
            lane.faults = replace(lane.faults, cut_after=count)

    def half_close(self, direction: Direction) -> None:
        """End one direction of every open connection, once: its receiver reads the end of the stream.

        What is on its way still arrives, what is sent later is lost, and the other direction goes on.

        Args:
            direction: Which way.
        """
        for link in list(self._links):
            link.half_close(direction)

    def black_hole(self, *, direction: Direction = Direction.BOTH) -> None:
        """Pass nothing, not even that somebody closed; connections stay open and new ones are accepted.

        Args:
            direction: Which way. With ``REPLIES`` requests are still carried out, and nobody hears of it.
        """
        for lane in self._conditions.lanes(direction):
            lane.faults = replace(lane.faults, black_hole=True)
        self._conditions_changed()

    def refuse(self) -> None:
        """Refuse new connections; open ones stay.

        Raises:
            ConfigurationError: It is not running.
        """
        self._running().refuse()

    def heal(self, *, resume: bool = False) -> None:
        """End all faults; what latency held back passes at once, and the port listens again.

        Args:
            resume: Let connections that were in a black hole go on where they stopped, instead of resetting
                them.
        """
        lanes = self._conditions.lanes(Direction.BOTH)
        in_black_hole = any(lane.faults.black_hole for lane in lanes)
        for lane in lanes:
            lane.faults = NO_FAULTS
        if in_black_hole and not resume:
            self.reset_all()
        self._conditions_changed(hurry=True)
        if self._listener is not None:
            self._listener.listen()

    def _running(self) -> Listener:
        if self._listener is None:
            raise ConfigurationError(f"{self!r} is not running; enter it first: 'async with'")
        return self._listener

    def _accept(self, connection: socket.socket) -> None:
        self._accepted += 1
        self._links.add(Link(self._accepted, connection, self._conditions, self._links.discard))

    def _conditions_changed(self, *, hurry: bool = False) -> None:
        for link in list(self._links):
            link.conditions_changed(hurry=hurry)
