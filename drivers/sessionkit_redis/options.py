"""Where the server is and how to talk to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sessionkit.errors import ConfigurationError

DEFAULT_PORT: Final = 6379


@dataclass(frozen=True, kw_only=True)
class RedisOptions:
    """Where the server is and how to talk to it.

    Attributes:
        host: Host name or address.
        port: TCP port.
        db: Number of the logical database.
        username: ACL user, or None for the default user.
        password: Password, or None.
        timeout: Seconds an operation may take, connecting included, before it raises ``StoreTimeout``.
        max_connections: The most connections kept per event loop; further callers wait for one.
        client_name: The name the server shows in ``CLIENT LIST``.
    """

    host: str = "localhost"
    port: int = DEFAULT_PORT
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout: float = 5.0
    max_connections: int = 16
    client_name: str = "sessionkit"

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise ConfigurationError(f"redis: timeout is above 0 seconds, not {self.timeout!r}")
        if self.max_connections < 1:
            raise ConfigurationError(f"redis: max_connections is at least 1, not {self.max_connections!r}")
        if self.db < 0:
            raise ConfigurationError(f"redis: a database number is 0 or more, not {self.db!r}")
        if not self.client_name.isascii() or not self.client_name.isprintable() or " " in self.client_name:
            raise ConfigurationError("redis: client_name is printable ASCII without spaces")
