"""``sessionkit journal``: what an outage has left in a file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from sessionkit.cli.stores import open_source_driver
from sessionkit.errors import ConfigurationError
from sessionkit.registry import open_driver
from sessionkit.resilience import StoreFile
from sessionkit.store import PlacedStore

if TYPE_CHECKING:
    from sessionkit.resilience import Entry


async def show_journal(url: str, move_to: str | None) -> None:
    """Print what waits in a journal's file, and for which store; it may be in use.

    Args:
        url: The file's URL.
        move_to: The URL of the store that it is to be for from now on, or None.

    Raises:
        ConfigurationError: The URL is that of no file, or ``move_to`` that of no store that tells its place;
            or the journal is to be moved and in use.
    """
    file = StoreFile.of(open_source_driver(url))
    try:
        if move_to is not None:
            await _move(file, move_to)
        entries = await file.read()
        owner = await file.owner()
    finally:
        await file.aclose()
    console = Console(soft_wrap=True, highlight=False, markup=False)
    wait = "1 key waits" if len(entries) == 1 else f"{len(entries)} keys wait"
    console.print(f"{wait} for {'a store that is not known' if owner is None else owner}")
    if entries:
        console.print(_table(entries))


async def _move(file: StoreFile, url: str) -> None:
    async with open_driver(url) as primary:
        if not isinstance(primary, PlacedStore):
            raise ConfigurationError(f"{primary!r} has no place that a journal could be for")
        await file.move_to(primary)


def _table(entries: list[Entry]) -> Table:
    table = Table("key", "write", "bytes", "ends")
    for entry in sorted(entries, key=lambda entry: entry.seq):
        ends = "" if entry.deadline is None else f"{datetime.fromtimestamp(entry.deadline, UTC):%F %T} UTC"
        table.add_row(ascii(entry.key)[1:-1], entry.kind.value, str(len(entry.value)), ends)
    return table
