"""From a URL to a store."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final

from sessionkit.errors import ConfigurationError
from sessionkit_redis.addresses import DEFAULT_PORT, Address
from sessionkit_redis.dialling import DirectDial
from sessionkit_redis.multiplexer import Multiplexer
from sessionkit_redis.options import RedisOptions
from sessionkit_redis.store import RedisStore
from sessionkit_redis.tls import tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sessionkit.store import StoreURL
    from sessionkit_redis.transport import Transport

_MAX_DIGITS: Final = 9
_TLS_OPTIONS: Final[Mapping[str, Callable[[str], object]]] = dict.fromkeys(
    ("ssl_ca_file", "ssl_cert_file", "ssl_key_file", "ssl_key_password", "ssl_check_hostname", "ssl_context"),
    str,
)
_OPTIONS: Final[Mapping[str, Callable[[str], object]]] = {
    "timeout": float,
    "client_name": str,
    "db": int,
    "username": str,
    "password": str,
    "credential_provider": str,
}


def open_driver(url: StoreURL, **options: Any) -> RedisStore:
    """Open one server: ``redis://``, ``rediss://`` (TLS), or ``redis+unix://`` (Unix socket).

    Args:
        url: ``redis[s]://[[user:]password@]host[:port][/db]`` or ``redis+unix://[[user:]password@]/path``;
            user, password and database may be given as options instead, never both ways.
        options: Fields of ``RedisOptions``; for ``rediss``, the arguments of ``tls_context`` with ``ssl_``
            in front, or a context of your own as ``ssl_context``.

    Raises:
        ConfigurationError: The URL or an option is wrong.
    """
    if url.scheme == "redis+unix":
        settings = _settings(url, options)
        if url.host or not url.path.strip("/"):
            raise ConfigurationError(
                f"{url}: a Unix socket is given by its path: redis+unix:///run/redis.sock"
            )
        return _one_server(Address(path=url.path), settings, url)
    settings = _settings(url, options, db=_database(url, url.path.strip("/")))
    if len(url.hosts) > 1:
        raise ConfigurationError(
            f"{url}: this is one server; several are redis+sentinel:// or redis+cluster://"
        )
    return _one_server(Address(url.host or "localhost", url.port or DEFAULT_PORT), settings, url)


def _one_server(address: Address, settings: RedisOptions, url: StoreURL) -> RedisStore:
    return _store(Multiplexer(DirectDial(address, settings, str(url)), str(url), settings.timeout), url)


def _store(transport: Transport, url: StoreURL) -> RedisStore:
    return RedisStore(transport, str(url))


def _settings(url: StoreURL, options: Mapping[str, Any], **in_path: object) -> RedisOptions:
    tls = url.scheme.startswith("rediss")
    given = url.read_options({**_OPTIONS, **(_TLS_OPTIONS if tls else {})}, options)
    in_url = {"username": url.username, "password": url.password, **in_path}
    for name, value in in_url.items():
        if value and given.setdefault(name, value) != value:
            raise ConfigurationError(f"{url}: {name!r} is given in the URL and as an option, and they differ")
    secured = {name.removeprefix("ssl_"): given.pop(name) for name in list(given) if name.startswith("ssl_")}
    return RedisOptions(**given, tls=_context(url, **secured) if tls else None)


def _context(url: StoreURL, context: ssl.SSLContext | None = None, **options: Any) -> ssl.SSLContext:
    if context is None:
        return tls_context(**options)
    if options:
        raise ConfigurationError(f"{url}: ssl_context is given, and ssl_{min(options)} too; keep one of them")
    return context


def _database(url: StoreURL, text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or len(text) > _MAX_DIGITS:
        raise ConfigurationError(f"{url}: the path of a Redis URL is a database number, such as /0")
    return int(text)
