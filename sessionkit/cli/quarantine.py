"""``sessionkit quarantine``: a look at damaged records that were moved aside, and what becomes of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.pretty import Pretty

from sessionkit.cli.options import PrefixOption, StoreOption
from sessionkit.cli.reading import reading_codec, showing_codec, time_of
from sessionkit.cli.stores import open_source
from sessionkit.errors import CodecError, ConfigurationError, SessionKitError
from sessionkit.quarantine import Entry, Quarantine
from sessionkit.settings import Settings

if TYPE_CHECKING:
    from sessionkit.store import SessionStore

app = typer.Typer(help="Look after damaged records that were moved aside.", no_args_is_help=True)

EntryArgument = Annotated[str, typer.Argument(help="The entry's whole key, as `quarantine ls` prints it.")]

_SHOWN_BYTES = 256


@app.command("ls")
def ls(prefix: PrefixOption = None, url: StoreOption = None) -> None:
    """List the entries: key, when it was moved, and why."""
    if not asyncio.run(_list(prefix, url)):
        raise typer.Exit(1)


@app.command()
def show(entry: EntryArgument, prefix: PrefixOption = None, url: StoreOption = None) -> None:
    """Print an entry, and its record's value where it can be decoded by now, else its first bytes."""
    if not asyncio.run(_show(entry, prefix, url)):
        raise typer.Exit(1)


@app.command()
def restore(
    entry: EntryArgument,
    prefix: PrefixOption = None,
    url: StoreOption = None,
    expires_in: Annotated[
        float | None,
        typer.Option("--expires-in", help="Seconds the record is to live. Without it, it does not expire."),
    ] = None,
) -> None:
    """Put a record back where it was, unless there is another one by now."""
    if not asyncio.run(_restore(entry, prefix, url, expires_in)):
        raise typer.Exit(1)


@app.command()
def purge(
    entries: Annotated[
        list[str] | None, typer.Argument(help="The entries' whole keys, as `quarantine ls` prints them.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Remove all entries, readable or not.")] = False,
    prefix: PrefixOption = None,
    url: StoreOption = None,
) -> None:
    """Remove entries for good."""
    if bool(entries) == every:
        raise ConfigurationError("purge takes the keys of entries, or --all")
    asyncio.run(_purge(entries or [], every, prefix, url))


async def _list(prefix: str | None, url: str | None) -> bool:
    all_readable = True

    def unreadable(key: str, error: SessionKitError) -> None:
        nonlocal all_readable
        all_readable = False
        _console(stderr=True).print(f"not readable: {key}: {error}")

    async with open_source(url) as store:
        async for entry in _quarantine(store, prefix).entries(unreadable):
            _console().print(f"{entry.key}  {time_of(entry.moved)}  {entry.reason}")
    return all_readable


async def _show(key: str, prefix: str | None, url: str | None) -> bool:
    async with open_source(url) as store:
        entry = await _quarantine(store, prefix).get(key)
    if entry is None:
        return _missing(key)
    console = _console()
    console.print(f"record: {entry.record_key}")
    console.print(f"moved: {time_of(entry.moved)}")
    console.print(f"reason: {entry.reason}")
    console.print(f"bytes: {len(entry.value)}")
    _print_value(entry)
    return True


def _print_value(entry: Entry) -> None:
    try:
        value = showing_codec().decode(entry.value, key=entry.record_key)
    except CodecError as error:
        _console().print(f"not readable: {error}")
        _console().print(f"begins: {entry.value[:_SHOWN_BYTES].hex()}")
    else:
        Console().print(Pretty(value))


async def _restore(key: str, prefix: str | None, url: str | None, expires_in: float | None) -> bool:
    async with open_source(url) as store:
        quarantine = _quarantine(store, prefix)
        entry = await quarantine.get(key)
        if entry is None:
            return _missing(key)
        await quarantine.restore(entry, expires_in=expires_in)
    _console().print(f"restored {entry.record_key}")
    return True


async def _purge(keys: list[str], every: bool, prefix: str | None, url: str | None) -> None:
    async with open_source(url) as store:
        quarantine = _quarantine(store, prefix)
        removed = (
            await quarantine.purge_all() if every else sum([await quarantine.purge(key) for key in keys])
        )
    _console().print(f"removed {removed}")


def _quarantine(store: SessionStore, prefix: str | None) -> Quarantine:
    return Quarantine(store, reading_codec(), Settings.load().prefix if prefix is None else prefix)


def _missing(key: str) -> bool:
    _console(stderr=True).print(f"there is no entry {key!r}; sessionkit quarantine ls lists them")
    return False


def _console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False)
