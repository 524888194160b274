"""From a ``sqlite:///`` URL to a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessionkit.errors import ConfigurationError
from sessionkit_sqlite.store import SqliteStore

if TYPE_CHECKING:
    from sessionkit.store import StoreURL

_HOW_TO = (
    "write sqlite:///bot.db for a file in the working directory"
    " or sqlite:////var/lib/bot.db for an absolute path"
)


def open_driver(url: StoreURL, **options: Any) -> SqliteStore:
    """Return the store of a ``sqlite:///`` URL; nothing is opened before the first call.

    Args:
        url: ``sqlite:///bot.db`` (relative to the working directory) or ``sqlite:////var/lib/bot.db``.
        options: ``timeout`` of ``SqliteStore``, also as a parameter.

    Raises:
        ConfigurationError: The URL names no file, or an option is unknown or unusable.
    """
    return SqliteStore(_path(url), **url.read_options({"timeout": float}, options))


def _path(url: StoreURL) -> str:
    if url.host or url.port is not None or url.username is not None or url.password is not None:
        raise ConfigurationError(f"{url}: a SQLite file has no host; with three slashes, {_HOW_TO}")
    path = url.path.removeprefix("/")
    if path == ":memory:":
        raise ConfigurationError(f"{url}: for a store in memory write memory://; for a file, {_HOW_TO}")
    if not path or path.endswith("/") or "\0" in path:
        raise ConfigurationError(f"{url}: it names no file; {_HOW_TO}")
    return path
