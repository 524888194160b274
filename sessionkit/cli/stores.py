"""The stores that the commands work on: one that is read has to be there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sessionkit.errors import ConfigurationError
from sessionkit.registry import open_driver
from sessionkit.resilience import ResilientStore
from sessionkit.settings import Settings
from sessionkit.store import FileStore

if TYPE_CHECKING:
    from sessionkit.store import SessionStore


def open_source(url: str | None) -> ResilientStore:
    """Open a store to look at what is in it; an outage is an error.

    Args:
        url: The store's URL; None: what the settings say.

    Raises:
        ConfigurationError: As ``open_source_driver``.
    """
    return ResilientStore(open_source_driver(url), outage="raise")


def open_source_driver(url: str | None) -> SessionStore:
    """Open the bare driver of a store to look at what is in it.

    A driver creates a file that is missing, so that a mistyped path would read as an empty store.

    Args:
        url: The store's URL; None: what the settings say.

    Raises:
        ConfigurationError: The URL or a setting is wrong, or names a file that is not there.
    """
    store = open_driver(url)
    if isinstance(store, FileStore) and not Path(store.path).exists():
        source = f"{Settings.load().target().source}: " if url is None else ""
        raise ConfigurationError(f"{source}there is no file {store.path}; correct the path")
    return store


def open_target(url: str | None, *, trial: bool = False) -> ResilientStore:
    """Open a store to write to it; an outage is an error.

    Args:
        url: The store's URL; None: what the settings say.
        trial: Whether nothing is to be written: a file that is missing is not created then.

    Raises:
        ConfigurationError: The URL or a setting is wrong.
    """
    driver = open_driver(url)
    if trial and isinstance(driver, FileStore) and not Path(driver.path).exists():
        driver = open_driver("memory://")
    return ResilientStore(driver, outage="raise")
