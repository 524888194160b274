"""The commands and how their errors are shown."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from sessionkit.cli.journal import show_journal
from sessionkit.cli.look import list_keys, ping_store, show_record
from sessionkit.cli.options import PrefixOption, StoreOption
from sessionkit.cli.ptb_files import export_pickle, import_json, import_pickle
from sessionkit.cli.quarantine import app as quarantine
from sessionkit.cli.rekey import rekey_records
from sessionkit.cli.transfer import copy, export, import_
from sessionkit.codec import new_key
from sessionkit.errors import ConfigurationError, SessionKitError

app = typer.Typer(
    help="Session storage for Python bots that does not forget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

keys = typer.Typer(help="Make encryption keys.", no_args_is_help=True)
app.add_typer(quarantine, name="quarantine")
app.add_typer(keys, name="keys")


@app.command()
def demo(
    url: Annotated[
        str | None,
        typer.Option(help="Where the bot keeps its sessions. Without it, a SQLite file, removed afterwards."),
    ] = None,
    chaos: Annotated[
        bool,
        typer.Option("--chaos", help="Kill Redis instead of the bot: a server of the demo's own."),
    ] = False,
) -> None:
    """Watch a bot be killed in the middle of a conversation, and carry on."""
    # Here, as they need a bot and a web server that the other commands do without.
    if chaos:
        from sessionkit.cli.chaos import run_chaos

        if url is not None:
            raise ConfigurationError("demo --chaos kills its server: it takes one of its own, and no --url")
        came_true = asyncio.run(run_chaos())
    else:
        from sessionkit.cli.demo import run_demo

        came_true = asyncio.run(run_demo(url))
    if not came_true:
        raise typer.Exit(1)


@app.command("ls")
def ls(
    prefix: Annotated[
        str, typer.Argument(help="What the keys start with, such as telegram_bot:session:.")
    ] = "",
    url: StoreOption = None,
) -> None:
    """Print the keys of the records."""
    asyncio.run(list_keys(prefix, url))


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="The record's whole key, such as telegram_bot:session:123.")],
    url: StoreOption = None,
    header: Annotated[
        bool, typer.Option("--header", help="Print what the record says of itself, without decoding it.")
    ] = False,
) -> None:
    """Print the decoded value of a record."""
    if not asyncio.run(show_record(key, url, header=header)):
        raise typer.Exit(1)


@app.command()
def ping(url: StoreOption = None) -> None:
    """Say whether the store answers, and how fast."""
    asyncio.run(ping_store(url))


@app.command()
def journal(
    url: Annotated[str, typer.Argument(help="The file's URL, such as sqlite:///outage.db.")],
    move_to: Annotated[
        str | None,
        typer.Option(help="The URL of the store that it is for, if that has moved since it was written."),
    ] = None,
) -> None:
    """Print what an outage has left in a journal's file: the next start of the bot writes it to the store."""
    asyncio.run(show_journal(url, move_to))


@app.command()
def rekey(prefix: PrefixOption = None, url: StoreOption = None) -> None:
    """Encrypt every record by the first of the encryption keys."""
    if not asyncio.run(rekey_records(prefix, url)):
        raise typer.Exit(1)


@keys.command()
def new(
    id: Annotated[
        str | None, typer.Option("--id", help="What records call the key. Without it, a random name.")
    ] = None,
) -> None:
    """Print a new encryption key, for SESSIONKIT_ENCRYPTION_KEYS."""
    typer.echo(new_key(id))


app.command("export")(export)
app.command("import")(import_)
app.command("copy")(copy)
for command in (import_pickle, import_json, export_pickle):
    app.command()(command)


def run() -> None:
    """Run the command; an error of sessionkit is one line on standard error and exit status 1."""
    try:
        app()
    except SessionKitError as error:
        sys.exit(f"sessionkit: {error}")
