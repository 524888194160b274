"""Where a server is."""

from __future__ import annotations

from typing import Final, NamedTuple

DEFAULT_PORT: Final = 6379
DEFAULT_SENTINEL_PORT: Final = 26379
MAX_PORT: Final = 65_535


class Address(NamedTuple):
    """A server's place: host and TCP port, or the path of its Unix socket.

    Attributes:
        host: Host name or address, or "".
        port: TCP port.
        path: Path of a Unix socket, or "".
    """

    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_number(text: str, most: int) -> int | None:
    """Return the number from 0 to ``most`` that a server gave as text, or None if it is none."""
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(most)):
        return None
    number = int(text)
    return number if number <= most else None
