"""What a Redis URL and its options may say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sessionkit.errors import ConfigurationError
from sessionkit_redis.connections import ConnectionPool
from sessionkit_redis.store import RedisStore

if TYPE_CHECKING:
    from sessionkit.store import StoreURL

DEFAULT_PORT = 6379


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


def open_driver(url: StoreURL, **options: Any) -> RedisStore:
    """Open ``redis://[[user]:password@]host[:port][/db][?timeout=…&max_connections=…&client_name=…]``.

    Args:
        url: The URL; user, password and database may be given as options instead, never both ways.
        options: Fields of ``RedisOptions``.

    Raises:
        ConfigurationError: The URL or an option is wrong.
    """
    given = url.read_options(
        {
            "timeout": float,
            "max_connections": int,
            "client_name": str,
            "username": str,
            "password": str,
            "db": int,
        },
        options,
    )
    for name, value in _from_url(url).items():
        if given.setdefault(name, value) != value:
            raise ConfigurationError(f"{url}: {name!r} is given in the URL and as an option, and they differ")
    settings = RedisOptions(host=url.host or "localhost", port=url.port or DEFAULT_PORT, **given)
    return RedisStore(ConnectionPool(settings, str(url)), str(url))


def _from_url(url: StoreURL) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if path := url.path.strip("/"):
        if not path.isdecimal():
            raise ConfigurationError(f"{url}: the path of a Redis URL is a database number, such as /0")
        found["db"] = int(path)
    if url.username:
        found["username"] = url.username
    if url.password:
        found["password"] = url.password
    return found
