"""From a ``redis://`` URL to a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessionkit.errors import ConfigurationError
from sessionkit_redis.addresses import DEFAULT_PORT, Address
from sessionkit_redis.dialling import DirectDial
from sessionkit_redis.multiplexer import Multiplexer
from sessionkit_redis.options import RedisOptions
from sessionkit_redis.store import RedisStore

if TYPE_CHECKING:
    from sessionkit.store import StoreURL


_MAX_DIGITS = 9


def open_driver(url: StoreURL, **options: Any) -> RedisStore:
    """Open ``redis://[[user]:password@]host[:port][/db][?timeout=…&client_name=…]``.

    Args:
        url: The URL; user, password and database may be given as options instead, never both ways.
        options: Fields of ``RedisOptions``.

    Raises:
        ConfigurationError: The URL or an option is wrong.
    """
    given = url.read_options(
        {
            "timeout": float,
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
    settings = RedisOptions(**given)
    address = Address(url.host or "localhost", url.port or DEFAULT_PORT)
    dial = DirectDial(address, settings, str(url))
    return RedisStore(Multiplexer(dial, str(url), settings.timeout), str(url))


def _from_url(url: StoreURL) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if path := url.path.strip("/"):
        if not path.isdecimal() or len(path) > _MAX_DIGITS:
            raise ConfigurationError(f"{url}: the path of a Redis URL is a database number, such as /0")
        found["db"] = int(path)
    if url.username:
        found["username"] = url.username
    if url.password:
        found["password"] = url.password
    return found
