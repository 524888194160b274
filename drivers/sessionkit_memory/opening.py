"""From a ``memory://`` URL to a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessionkit.errors import ConfigurationError
from sessionkit_memory.store import MemoryStore

if TYPE_CHECKING:
    from sessionkit.store import StoreURL


def open_driver(url: StoreURL, **options: Any) -> MemoryStore:
    """Open ``memory://``, a new and empty store.

    Args:
        url: ``memory://`` and nothing behind it but parameters.
        options: ``max_bytes`` and ``evict`` of ``MemoryStore``, also as parameters; ``timeout`` is taken, as
            from every driver, and means nothing where nothing waits.

    Raises:
        ConfigurationError: The URL has a host, a path or a login, or an option is unknown.
    """
    if url.host or url.path.strip("/") or url.port is not None or url.username or url.password:
        raise ConfigurationError(f"{url}: a memory URL is memory:// alone, and parameters")
    known = url.read_options({"max_bytes": int, "evict": _boolean, "timeout": float}, options)
    known.pop("timeout", None)
    return MemoryStore(**known)


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise ValueError(text) from None
