"""The files of ``PicklePersistence`` and the texts of ``DictPersistence``.

This is the only place where sessionkit reads a pickle.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

from telegram.ext import DictPersistence, ExtBot, PicklePersistence

from sessionkit.errors import ConfigurationError
from sessionkit.ptb.contents import Contents
from sessionkit.ptb.private import BotUnpickler

if TYPE_CHECKING:
    from types import ModuleType

    from telegram import Bot

PARTS: Final = ("user_data", "chat_data", "bot_data", "callback_data", "conversations")
"""What a persistence's files hold, by the names that ``PicklePersistence`` gives them."""


def stand_in_bot() -> ExtBot[None]:
    """Return a bot that stands for the one that pickles refer to; it talks to nobody."""
    return ExtBot("0:stand-in")


def read_pickle(path: Path, main: ModuleType | None = None) -> Contents:
    """Return what a ``PicklePersistence`` has kept in a file, or in files that begin with this name.

    **Reading a pickle runs code that is in it**: do so only with a file that nobody else can have written.

    Classes are imported from where the pickle says. What is not to be had there is read as an object of a
    class that has its name and nothing else, so that everything else can be read.

    Args:
        path: The file, or what the names of the files ``…_user_data``, ``…_chat_data``, ``…_bot_data``,
            ``…_callback_data`` and ``…_conversations`` begin with.
        main: Where classes are to be found that the bot's own script defined; its name was ``__main__``.

    Raises:
        ConfigurationError: There is no such file, or it is none of ``PicklePersistence``.
    """
    if path.is_file():
        parts = _load(path, main)
        if not isinstance(parts, dict) or not parts.keys() >= {"user_data", "chat_data", "conversations"}:
            raise ConfigurationError(f"{path} is a pickle, but not of a PicklePersistence")
    else:
        files = {part: Path(f"{path}_{part}") for part in PARTS}
        parts = {part: _load(file, main) for part, file in files.items() if file.is_file()}
        if not parts:
            raise ConfigurationError(f"there is neither {path} nor {files['user_data']}, nor its like")
    return _contents(parts)


async def write_pickle(contents: Contents, path: Path, bot: ExtBot[Any]) -> None:
    """Write a file that ``PicklePersistence`` reads; it replaces one that is there when it is complete.

    Args:
        contents: What to keep in it.
        path: The file.
        bot: The bot that objects in it work with; ``PicklePersistence`` puts its own in its place.

    Raises:
        ConfigurationError: It cannot be written, or a value in it not be pickled.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    persistence = PicklePersistence[Any, Any, Any](unfinished, on_flush=True)
    persistence.set_bot(bot)
    persistence.user_data = contents.users
    persistence.chat_data = contents.chats
    persistence.bot_data = contents.bot
    persistence.callback_data = contents.callbacks
    persistence.conversations = contents.conversations
    try:
        await persistence.flush()
        if not unfinished.exists():
            raise ConfigurationError("there is nothing to export; a prefix that is not the bot's?")
        unfinished.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"what is in the store cannot be pickled: {error}") from None
    finally:
        unfinished.unlink(missing_ok=True)


def read_json(path: Path) -> Contents:
    """Return what a ``DictPersistence`` has kept, from a file that holds its texts.

    Args:
        path: A JSON file of one object with the entries ``user_data``, ``chat_data``, ``bot_data``,
            ``callback_data`` and ``conversations``, or some of them. Each is what the persistence's attribute
            of that name and ``_json`` gave: that text itself, or what is in it.

    Raises:
        ConfigurationError: There is no such file, or it holds something else.
    """
    try:
        parts = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigurationError(f"{path} is no JSON") from None
    if not isinstance(parts, dict) or not parts or not parts.keys() <= set(PARTS):
        raise ConfigurationError(f"{path} is to hold one object of {', '.join(PARTS)}, or some of them")
    texts = {
        part: value if isinstance(value, str) else json.dumps(value)
        for part, value in parts.items()
        if value not in (None, {}, "null", "{}")  # in old files {} stands for no callback data
    }
    try:
        persistence = DictPersistence(
            user_data_json=texts.get("user_data", ""),
            chat_data_json=texts.get("chat_data", ""),
            bot_data_json=texts.get("bot_data", ""),
            conversations_json=texts.get("conversations", ""),
            callback_data_json=texts.get("callback_data", ""),
        )
    except (TypeError, ValueError, LookupError) as error:
        raise ConfigurationError(f"{path} is not of a DictPersistence: {error}") from None
    return Contents(
        persistence.user_data or {},
        persistence.chat_data or {},
        persistence.bot_data,
        persistence.callback_data,
        {name: dict(states) for name, states in (persistence.conversations or {}).items()},
    )


class _Unpickler(BotUnpickler):
    """Reads a pickle as ``PicklePersistence`` does, but for classes that are not to be had."""

    def __init__(self, file: IO[bytes], main: ModuleType | None) -> None:
        self._bot_there = stand_in_bot()
        super().__init__(self._bot_there, file)
        self._main = main

    def persistent_load(self, pid: str) -> Bot:
        """Return a bot for each mark of one; for a bot that it did not know, PTB would return None."""
        return super().persistent_load(pid) or self._bot_there

    def find_class(self, module: str, name: str) -> Any:
        """Return the class of that name, or a stand-in for it."""
        if module == "__main__" and self._main is not None:
            module = self._main.__name__
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return type(name, (_StandIn,), {"__module__": module, "__qualname__": name})


class _StandIn:
    """Takes whatever a pickle gives an object of a class that is not to be had. No codec keeps it."""

    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass

    def __setitem__(self, _key: object, _value: object) -> None:
        pass

    def append(self, _item: object) -> None:
        """Take what a pickle gives a list."""

    def add(self, _item: object) -> None:
        """Take what a pickle gives a set."""


def _load(path: Path, main: ModuleType | None) -> Any:
    try:
        with path.open("rb") as file:
            return _Unpickler(file, main).load()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # a pickle may raise anything
        raise ConfigurationError(f"{path} cannot be unpickled ({type(error).__name__})") from error


def _contents(parts: dict[str, Any]) -> Contents:
    return Contents(
        dict(parts.get("user_data") or {}),
        dict(parts.get("chat_data") or {}),
        parts.get("bot_data"),
        parts.get("callback_data") or None,  # in old files {} stands for None
        {name: dict(states) for name, states in (parts.get("conversations") or {}).items()},
    )
