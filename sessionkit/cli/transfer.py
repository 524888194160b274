"""``sessionkit export``, ``import`` and ``copy``: records from one store to another, byte for byte.

They open drivers, without what ``open_store`` puts around one: that cannot tell what life records have left.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import Console
from rich.progress import Progress

from sessionkit.cli.options import PrefixOption
from sessionkit.cli.places import FromOption, OverwriteOption, ToOption
from sessionkit.cli.stores import open_source_driver
from sessionkit.errors import ConfigurationError, CorruptRecord
from sessionkit.registry import open_driver
from sessionkit.settings import Settings
from sessionkit.transfer import ExportFile, ExportWriter, SourceReader, TargetWriter

NewFileArgument: TypeAlias = Annotated[
    Path, typer.Argument(help="The file to write; one that is not finished is gone on with.")
]
FileArgument: TypeAlias = Annotated[Path, typer.Argument(help="A file of `sessionkit export`.")]
PartialOption: TypeAlias = Annotated[
    bool, typer.Option("--partial", help="Take a file that is not finished for what it is.")
]


def export(file: NewFileArgument, source: FromOption = None, prefix: PrefixOption = None) -> None:
    """Write records into a file, as they are stored."""
    _end(asyncio.run(_export(file, source, _prefix(prefix))))


def import_(
    file: FileArgument,
    to: ToOption = None,
    overwrite: OverwriteOption = False,
    partial: PartialOption = False,
) -> None:
    """Put the records of a file into a store, as they were stored."""
    _end(asyncio.run(_import(file, to, overwrite=overwrite, partial=partial)))


def copy(
    source: FromOption = None,
    to: ToOption = None,
    prefix: PrefixOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Put the records of one store into another, as they are stored."""
    if source == to:
        raise ConfigurationError("copy needs two stores: --from and --to name the same")
    _end(asyncio.run(_copy(source, to, _prefix(prefix), overwrite=overwrite)))


async def _export(file: Path, source: str | None, prefix: str) -> bool:
    async with open_source_driver(source) as store:
        reader = SourceReader(store, prefix)
        found = await _keys(reader, prefix)
        with ExportWriter(file, prefix) as writer, _progress() as progress:
            keys = [key for key in found if key not in writer.keys]
            task = progress.add_task("exporting", total=len(keys))
            async for page in reader.pages(keys):
                writer.append(page)
                progress.advance(task, len(page))
            if reader.damaged:
                _tell("left out: {}: it is no record of sessionkit", reader.damaged)
            writer.finish()
    _say(f"exported: {writer.digest.count} records, digest {writer.digest}; left out: {len(reader.damaged)}")
    return not reader.damaged


async def _import(file: Path, to: str | None, *, overwrite: bool, partial: bool) -> bool:
    export = ExportFile(file)
    checked = export.check()
    if checked.last is None and not partial:
        raise ConfigurationError(
            f"{file} is not finished: run `sessionkit export` again, or take what is there by --partial"
        )
    _say(f"the file: {checked.digest.count} records, digest {checked.digest}")
    async with open_driver(to) as store:
        writer = TargetWriter(store, overwrite=overwrite)
        with _progress() as progress:
            task = progress.add_task("importing", total=checked.digest.count)
            for page in export.pages():
                await writer.write(page)
                progress.advance(task, len(page))
    return _report(writer, [])


async def _copy(source: str | None, to: str | None, prefix: str, *, overwrite: bool) -> bool:
    async with open_source_driver(source) as from_store, open_driver(to) as to_store:
        reader, writer = SourceReader(from_store, prefix), TargetWriter(to_store, overwrite=overwrite)
        keys = await _keys(reader, prefix)
        with _progress() as progress:
            task = progress.add_task("copying", total=len(keys))
            async for page in reader.pages(keys):
                await writer.write(page)
                progress.advance(task, len(page))
    return _report(writer, reader.damaged)


async def _keys(reader: SourceReader, prefix: str) -> list[str]:
    keys = await reader.keys()
    if not keys:
        raise ConfigurationError(f"there is nothing under {prefix!r}; a prefix that is not the bot's?")
    return keys


def _report(writer: TargetWriter, damaged: list[str]) -> bool:
    done = writer.transfer
    _tell("left out: {}: it is no record of sessionkit", damaged)
    _tell("left out: {}", done.refused)
    _tell("kept: {} is there with another record; --overwrite replaces it", done.conflicts)
    _say(
        f"written: {done.written}; unchanged: {done.unchanged}; expired: {done.expired};"
        f" left out: {len(damaged) + len(done.refused)}; conflicts: {len(done.conflicts)}"
    )
    if done.sent != done.found:
        raise CorruptRecord(
            f"{done.sent.count} records, digest {done.sent}, should be in the store, and {done.found.count},"
            f" digest {done.found}, are: did somebody else write there? Run it again"
        )
    _say(f"verified: {done.found.count} records, digest {done.found}")
    return done.complete and not damaged


def _prefix(prefix: str | None) -> str:
    return Settings.load().prefix if prefix is None else prefix


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(console=console, disable=not console.is_terminal, transient=True)


def _say(line: str) -> None:
    Console(soft_wrap=True, highlight=False, markup=False).print(line)


def _tell(line: str, items: list[str]) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for item in items:
        console.print(line.format(item))


def _end(complete: bool) -> None:
    if not complete:
        raise typer.Exit(1)
