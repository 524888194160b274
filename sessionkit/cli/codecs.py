"""The codec of a bot, for the commands that need its types."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeAlias, cast

import typer

from sessionkit.codec import Codec
from sessionkit.errors import ConfigurationError
from sessionkit.settings import Settings

if TYPE_CHECKING:
    from types import ModuleType

CodecOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--codec",
        metavar="MODULE:ATTRIBUTE",
        help="The bot's codec, if it has one of its own, such as bot:codec. The module is imported.",
    ),
]


class BotCodec(NamedTuple):
    """A codec, and the module it is from, or None for the default codec."""

    codec: Codec
    module: ModuleType | None


def load_codec(where: str | None) -> BotCodec:
    """Return the codec that a bot uses; modules are looked for in the working directory, too.

    Args:
        where: The codec's module and name, ``module:attribute``; None: the one of a ``SessionPersistence``
            that is given none.

    Raises:
        ConfigurationError: It is not there, or no codec; or the settings are wrong.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    if where is None:
        # Here, as importing python-telegram-bot takes longer than most commands.
        from sessionkit.ptb import register_telegram_objects

        own = Settings.load().codec()
        register_telegram_objects(own)
        return BotCodec(own, None)
    name, _, attribute = where.partition(":")
    if not name or not attribute:
        raise ConfigurationError(f"--codec is MODULE:ATTRIBUTE, such as bot:codec, not {where!r}")
    try:
        module = import_module(name)
    except Exception as error:  # it may raise anything
        raise ConfigurationError(f"--codec: {name!r} cannot be imported: {error!r}") from error
    codec = getattr(module, attribute, None)
    if Codec not in type(codec).__mro__:
        raise ConfigurationError(f"--codec: {where!r} is no Codec, but {type(codec).__qualname__}")
    return BotCodec(cast("Codec", codec), module)
