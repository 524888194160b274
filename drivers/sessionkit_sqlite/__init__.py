"""The SQLite driver: the embedded default, one file that several processes may share.

``store`` is the store, ``operations`` and ``leases`` what it does to the file, ``schema`` the file itself.
A ``job`` is what one caller wants; a ``lane`` is a thread that serves jobs in batches: ``writer`` commits a
batch as one transaction, ``reader`` answers one from a single snapshot. ``errors`` is where sqlite3's errors
become sessionkit's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessionkit.errors import ConfigurationError
from sessionkit_sqlite.store import SqliteStore

if TYPE_CHECKING:
    from sessionkit.store import StoreURL

__all__ = ["SqliteStore", "open_driver"]

_HOW_TO = (
    "write sqlite:///bot.db for a file in the working directory"
    " or sqlite:////var/lib/bot.db for an absolute path"
)


def open_driver(url: StoreURL, **options: Any) -> SqliteStore:
    """Return the store of a ``sqlite:///`` URL; nothing is opened before the first call.

    Args:
        url: ``sqlite:///bot.db`` (relative to the working directory) or ``sqlite:////var/lib/bot.db``.
        **options: ``timeout``, in seconds, also as a parameter of the URL; ``clock``, in code only. They
            mean what they mean to ``SqliteStore``.

    Raises:
        ConfigurationError: The URL names no file, or an option is unknown or unusable.
    """
    known = url.read_options({"timeout": float, "clock": _only_in_code}, options)
    return SqliteStore(_path(url), **known)


def _path(url: StoreURL) -> str:
    if url.host or url.port is not None or url.username is not None or url.password is not None:
        raise ConfigurationError(f"{url}: a SQLite file has no host; with three slashes, {_HOW_TO}")
    path = url.path.removeprefix("/")
    if path == ":memory:":
        raise ConfigurationError(f"{url}: for a store in memory write memory://; for a file, {_HOW_TO}")
    if not path or path.endswith("/") or "\0" in path:
        raise ConfigurationError(f"{url}: it names no file; {_HOW_TO}")
    return path


def _only_in_code(text: str) -> object:
    raise ValueError(text)
