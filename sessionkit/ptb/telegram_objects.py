"""python-telegram-bot's own objects in a codec: a ``User``, a ``Message``, a ``ChatType``, ….

An object is kept as the arguments that its class takes, those that are not at their defaults; objects in it
are kept likewise. So it comes back all the way down as it was. Its JSON would not do: of a keyboard, a
result of an inline query and others ``de_json`` makes an object that holds dicts. Of arguments that
python-telegram-bot does not take (any more), ``api_kwargs`` are made, as it does with JSON.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import Enum
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import telegram
from telegram import Bot, TelegramObject, constants
from telegram.ext import ExtBot

from sessionkit.errors import CorruptRecord, UnsupportedType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sessionkit.codec import MsgpackCodec

_UPLOADS: Final = ("InputMedia", "InputPaidMedia", "InputProfilePhoto", "InputSticker", "InputStoryContent")
"""What the names of classes begin with that read a file when they are made of its name. No record may do
that."""

_attached: ContextVar[Bot | None] = ContextVar("sessionkit_bot", default=None)


def register_telegram_objects(codec: MsgpackCodec, bot: Bot | None = None) -> None:
    """Have a codec keep the objects of ``telegram`` and the enumerations of ``telegram.constants``.

    The codec that ``SessionPersistence`` makes for itself does; give one of your own to this function.
    Objects are registered under ``ptb.`` and the name of their class, such as ``ptb.User``. A ``Bot`` is
    refused: handlers have it as ``context.bot``; and so is what describes a file to be sent, such as
    ``InputMediaPhoto``.

    Args:
        codec: The codec.
        bot: The bot that loaded objects work with, for ``message.reply_text`` and the like. Those that a
            ``SessionPersistence`` loads work with its own.

    Raises:
        ConfigurationError: One of the classes or tags is registered already.
    """
    for cls in _public(telegram, TelegramObject):
        tag = f"ptb.{cls.__name__}"
        if cls.__name__.startswith(_UPLOADS):
            codec.register(tag, cls, _refuse_upload, _refuse_upload)
        elif not issubclass(cls, Bot) and cls is not TelegramObject:
            codec.register(tag, cls, _to_arguments, partial(_from_arguments, cls, bot))
    for kind in (Bot, ExtBot):
        codec.register(f"ptb.{kind.__name__}", kind, _refuse_bot, _refuse_bot)
    for enumeration in _public(constants, Enum):
        codec.register_enum(f"ptb.constants.{enumeration.__name__}", enumeration)


@contextmanager
def working_with(bot: Bot | None) -> Iterator[None]:
    """Have the objects that are decoded in the body work with a bot."""
    token = _attached.set(bot)
    try:
        yield
    finally:
        _attached.reset(token)


# Any: what a module holds, and what its classes make.
def _public(module: Any, base: type[Any]) -> list[type[Any]]:
    found = [getattr(module, name) for name in sorted(module.__all__)]
    return [cls for cls in found if isinstance(cls, type) and issubclass(cls, base)]


class _Argument(NamedTuple):
    """An argument of a class.

    Attributes:
        attribute: Where its objects keep it. That is not always what bears its name: some of these are
            properties that warn, or convert what is kept.
        default: Its default, or ``inspect.Parameter.empty``.
    """

    attribute: str
    default: object


@cache
def _arguments_of(cls: type[Any]) -> Mapping[str, _Argument]:
    """Return the arguments of a class by name, without ``api_kwargs``, which all have."""
    kept = {name for base in cls.__mro__ for name in getattr(base, "__slots__", ())}
    return {
        name: _Argument(name if name in kept else f"_{name}", parameter.default)
        for name, parameter in inspect.signature(cls).parameters.items()
        if name != "api_kwargs"
    }


def _to_arguments(obj: TelegramObject) -> dict[str, object]:
    cls: Any = type(obj)
    known = _arguments_of(cls)
    arguments = {}
    for name, (attribute, default) in known.items():
        value = _with_own_utc(getattr(obj, attribute, None))
        if not (value is default or (default is None and value == ())):
            arguments[name] = value
    if obj.api_kwargs:
        arguments["api_kwargs"] = dict(obj.api_kwargs)
    # Tried, as a class may do something else with an argument than to keep it.
    again = _from_arguments(cls, None, arguments)
    for name, value in arguments.items():
        kept = dict(again.api_kwargs) if name == "api_kwargs" else getattr(again, known[name].attribute, None)
        if not (kept is value or (type(kept) is type(value) and kept == value)):
            raise UnsupportedType(f"this {cls.__name__} would come back with another {name!r}")
    return arguments


def _with_own_utc(value: object) -> object:
    """Return a time in Python's own UTC, where python-telegram-bot before 21.11 took that of pytz."""
    if isinstance(value, datetime) and getattr(value.tzinfo, "zone", None) == "UTC":
        return value.replace(tzinfo=UTC)
    return value


def _from_arguments(cls: Any, bot: Bot | None, arguments: Any) -> Any:
    if type(arguments) is not dict or type(arguments.get("api_kwargs", {})) is not dict:
        raise CorruptRecord(f"the arguments of a {cls.__name__} are none")
    known = _arguments_of(cls)
    others = dict(arguments.get("api_kwargs", ()))
    others.update((name, arguments[name]) for name in arguments.keys() - known.keys() - {"api_kwargs"})
    made = cls(**{name: arguments[name] for name in arguments.keys() & known.keys()}, api_kwargs=others)
    made.set_bot(_attached.get() or bot)
    return made


def _refuse_bot(_: object) -> NoReturn:
    raise UnsupportedType("a bot is not kept; handlers have theirs as context.bot")


def _refuse_upload(_: object) -> NoReturn:
    raise UnsupportedType("what describes a file to be sent is not kept; keep its file_id or its name")
