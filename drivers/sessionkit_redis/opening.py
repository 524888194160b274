"""From a URL to a store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sessionkit.errors import ConfigurationError
from sessionkit_redis.addresses import DEFAULT_PORT, DEFAULT_SENTINEL_PORT, Address
from sessionkit_redis.cluster import Cluster
from sessionkit_redis.dialling import DirectDial
from sessionkit_redis.multiplexer import Multiplexer
from sessionkit_redis.options import RedisOptions
from sessionkit_redis.sentinel import SentinelDial
from sessionkit_redis.store import RedisStore
from sessionkit_redis.tls import tls_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from sessionkit.store import StoreURL

_MAX_DIGITS: Final = 9
_PARAMETERS: Final[Mapping[str, Callable[[str], object]]] = {"timeout": float, "client_name": str, "db": int}
_OPTIONS: Final = frozenset({"username", "password", "credential_provider"})
_TLS_OPTIONS: Final = frozenset(
    {"ssl_ca_file", "ssl_cert_file", "ssl_key_file", "ssl_key_password", "ssl_check_hostname", "ssl_context"}
)
_SENTINEL_OPTIONS: Final = frozenset({"sentinel_username", "sentinel_password"})


def open_driver(url: StoreURL, **options: Any) -> RedisStore:
    """Open one server, or several that act as one; ``rediss`` in place of ``redis`` is over TLS.

    ::

        redis[s]://[[user:]password@]host[:port][/db]
        redis+unix://[[user:]password@]/path/of/socket
        redis[s]+sentinel://[[user:]password@]host[:port][,host[:port]…]/service[/db]
        redis[s]+cluster://[[user:]password@]host[:port][,host[:port]…]

    Args:
        url: Such a URL; user, password and database may be given as options instead, never both ways.
        options: Fields of ``RedisOptions``; for ``rediss``, the arguments of ``tls_context`` with ``ssl_``
            in front, or a context of your own as ``ssl_context``; for Sentinels, their own login as
            ``sentinel_username`` and ``sentinel_password``.

    Raises:
        ConfigurationError: The URL or an option is wrong.
    """
    if url.scheme == "redis+unix":
        settings = _settings(url, _given(url, options))
        if url.host or not url.path.strip("/"):
            raise ConfigurationError(
                f"{url}: a Unix socket is given by its path: redis+unix:///run/redis.sock"
            )
        return _one_server(Address(path=url.path), settings, url)
    if url.scheme.endswith("+sentinel"):
        return _open_sentinel(url, options)
    if url.scheme.endswith("+cluster"):
        return _open_cluster(url, options)
    settings = _settings(url, _given(url, options, db=_database(url, url.path.strip("/"))))
    if len(url.hosts) > 1:
        raise ConfigurationError(
            f"{url}: this is one server; several are redis+sentinel:// or redis+cluster://"
        )
    return _one_server(Address(url.host or "localhost", url.port or DEFAULT_PORT), settings, url)


def _open_sentinel(url: StoreURL, options: Mapping[str, Any]) -> RedisStore:
    service, _, database = url.path.strip("/").partition("/")
    if not service:
        raise ConfigurationError(
            f"{url}: name the service that the Sentinels watch, and its database if it is not 0:"
            " redis+sentinel://host:26379/mymaster/0"
        )
    given = _given(url, options, db=_database(url, database))
    theirs = {name: given.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    settings = _settings(url, given)
    dial = SentinelDial(
        [Address(host or "localhost", port or DEFAULT_SENTINEL_PORT) for host, port in url.hosts],
        service,
        settings,
        replace(settings, db=0, credential_provider=None, **theirs),
        str(url),
    )
    # Whichever Sentinels are asked, the service is the same.
    place = f"redis+sentinel://{service}/{settings.db}"
    return RedisStore(Multiplexer(dial, str(url), settings.timeout), str(url), place, atomic=True)


def _open_cluster(url: StoreURL, options: Mapping[str, Any]) -> RedisStore:
    settings = _settings(url, _given(url, options, db=_database(url, url.path.strip("/"))))
    if settings.db:
        raise ConfigurationError(f"{url}: a cluster has database 0 only, not {settings.db}")
    seeds = [Address(host or "localhost", port or DEFAULT_PORT) for host, port in url.hosts]
    place = f"redis+cluster://{','.join(sorted(map(str, seeds)))}"
    return RedisStore(Cluster(seeds, settings, str(url)), str(url), place, atomic=False)


def _one_server(address: Address, settings: RedisOptions, url: StoreURL) -> RedisStore:
    dial = DirectDial(address, settings, str(url))
    place = f"redis://{address}/{settings.db}"
    return RedisStore(Multiplexer(dial, str(url), settings.timeout), str(url), place, atomic=True)


def _given(url: StoreURL, options: Mapping[str, Any], **in_path: object) -> dict[str, Any]:
    """Return what the URL and the options say together, by the options' names."""
    base, _, kind = url.scheme.partition("+")
    tls, sentinel = base == "rediss", kind == "sentinel"
    over_tls = "a Unix socket has none" if kind == "unix" else f"{url.scheme.replace('redis', 'rediss')}://"
    for prefix, fits, needed in (
        ("ssl_", tls, f"a connection over TLS: {over_tls}"),
        ("sentinel_", sentinel, f"Sentinels: {base}+sentinel://"),
    ):
        if not fits and (refused := [name for name in options if name.startswith(prefix)]):
            raise ConfigurationError(f"{url}: {min(refused)!r} is for {needed}")
    known = _OPTIONS | (_TLS_OPTIONS if tls else set()) | (_SENTINEL_OPTIONS if sentinel else set())
    given = url.read_options(_PARAMETERS, options, known)
    in_url = {"username": url.username, "password": url.password, **in_path}
    for name, value in in_url.items():
        # An empty user is that of redis://:password@host, which names none; database 0 is one.
        if value not in (None, "") and given.setdefault(name, value) != value:
            beside = "a parameter" if name in url.query else "an option"
            raise ConfigurationError(f"{url}: {name!r} is given in the URL and as {beside}, and they differ")
    return given


def _settings(url: StoreURL, given: Mapping[str, Any]) -> RedisOptions:
    secured = {name.removeprefix("ssl_"): given[name] for name in given if name in _TLS_OPTIONS}
    others = {name: given[name] for name in given if name not in _TLS_OPTIONS}
    return RedisOptions(**others, tls=_context(url, **secured) if url.scheme.startswith("rediss") else None)


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
