"""``sessionkit import-pickle``, ``import-json`` and ``export-pickle``: python-telegram-bot's own files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from rich.console import Console

from sessionkit.cli.codecs import CodecOption, load_codec
from sessionkit.cli.options import PrefixOption
from sessionkit.cli.places import FromOption, OverwriteOption, ToOption
from sessionkit.cli.stores import open_source, open_target
from sessionkit.errors import ConfigurationError
from sessionkit.settings import Settings

if TYPE_CHECKING:
    from collections import Counter

    from sessionkit.cli.codecs import BotCodec
    from sessionkit.ptb.contents import Contents, Outcome

PickleArgument: TypeAlias = Annotated[
    Path, typer.Argument(help="The file of a PicklePersistence, or what the names of its files begin with.")
]
JsonArgument: TypeAlias = Annotated[
    Path, typer.Argument(help="A JSON file with the user_data, chat_data, … of a DictPersistence.")
]
NewPickleArgument: TypeAlias = Annotated[
    Path, typer.Argument(help="The file to write, for a PicklePersistence.")
]
TrialOption: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Say what would become of it, and write nothing.")
]

_UNTRUSTED = (
    "reading a pickle runs code that is in it, with your rights. If nobody else can have written this file,"
    " say so by --i-trust-this-file"
)


def import_pickle(
    file: PickleArgument,
    to: ToOption = None,
    prefix: PrefixOption = None,
    codec: CodecOption = None,
    overwrite: OverwriteOption = False,
    dry_run: TrialOption = False,
    trusted: Annotated[
        bool, typer.Option("--i-trust-this-file", help="Reading a pickle runs code that is in it: let it.")
    ] = False,
) -> None:
    """Put what a PicklePersistence has kept into a store."""
    if not trusted:
        raise ConfigurationError(_UNTRUSTED)
    # Here, as importing python-telegram-bot takes longer than most commands.
    from sessionkit.ptb.pickles import read_pickle

    own = load_codec(codec)
    _import(read_pickle(file, own.module), own, to, prefix, overwrite=overwrite, trial=dry_run)


def import_json(
    file: JsonArgument,
    to: ToOption = None,
    prefix: PrefixOption = None,
    codec: CodecOption = None,
    overwrite: OverwriteOption = False,
    dry_run: TrialOption = False,
) -> None:
    """Put what a DictPersistence has kept into a store."""
    from sessionkit.ptb.pickles import read_json

    _import(read_json(file), load_codec(codec), to, prefix, overwrite=overwrite, trial=dry_run)


def export_pickle(
    file: NewPickleArgument,
    source: FromOption = None,
    prefix: PrefixOption = None,
    codec: CodecOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take what can be read where something cannot.")
    ] = False,
) -> None:
    """Write what a SessionPersistence keeps into a file of a PicklePersistence."""
    if file.exists() and not overwrite:
        raise ConfigurationError(f"{file} is there already; --overwrite replaces it")
    if not asyncio.run(_export(file, load_codec(codec), source, prefix, partial=partial)):
        raise typer.Exit(1)


def _import(
    contents: Contents, own: BotCodec, to: str | None, prefix: str | None, *, overwrite: bool, trial: bool
) -> None:
    from sessionkit.ptb import SessionPersistence
    from sessionkit.ptb.contents import Importer

    async def run() -> Outcome:
        async with open_target(to, trial=trial) as store:
            await store.ping()
            start = Settings.load().prefix if prefix is None else prefix
            persistence = SessionPersistence(store, key_prefix=start, codec=own.codec)
            importer = Importer(persistence, own.codec, store, start, overwrite=overwrite, trial=trial)
            outcome = await importer.run(contents)
            await persistence.flush()
            return outcome

    outcome = asyncio.run(run())
    _print_outcome(outcome, trial=trial)
    if not outcome.complete:
        raise typer.Exit(1)


def _print_outcome(outcome: Outcome, *, trial: bool) -> None:
    aside = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for left_out in outcome.left_out:
        aside.print(f"left out: {left_out}")
    for key in outcome.conflicts:
        aside.print(f"kept: {key} is there with other data; --overwrite replaces it")
    Console(soft_wrap=True, highlight=False).print(
        f"{'would write' if trial else 'written'}: {_kinds(outcome.written)}; unchanged: {outcome.unchanged};"
        f" left out: {len(outcome.left_out)}; conflicts: {len(outcome.conflicts)}"
    )


def _kinds(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()) if number) or "nothing"


async def _export(
    file: Path, own: BotCodec, source: str | None, prefix: str | None, *, partial: bool
) -> bool:
    """Write the file and say what is in it; return whether everything could be read.

    Raises:
        ConfigurationError: Something could not be read, and ``partial`` is false; or there is nothing, or the
            file cannot be written.
    """
    from sessionkit.ptb import SessionPersistence
    from sessionkit.ptb.contents import count_unreadable, read_contents
    from sessionkit.ptb.pickles import stand_in_bot, write_pickle

    bot = stand_in_bot()
    async with open_source(source) as store:
        start = Settings.load().prefix if prefix is None else prefix
        persistence = SessionPersistence(store, key_prefix=start, codec=own.codec)
        persistence.set_bot(bot)
        contents = await read_contents(persistence, store, start)
    unreadable = count_unreadable(persistence)
    if unreadable and not partial:
        raise ConfigurationError(
            f"not readable: {unreadable}, and nothing is written: types of the bot's own need its --codec;"
            " or take what can be read by --partial"
        )
    await write_pickle(contents, file, bot)
    Console(soft_wrap=True, highlight=False).print(
        f"written: {_kinds(contents.counts())}; not readable: {unreadable}"
    )
    return not unreadable
