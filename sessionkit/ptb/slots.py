"""Where in PTB's memory a record's value lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from telegram.ext import ConversationHandler

from sessionkit.ptb.private import (
    is_running,
    passing_states,
    put_chat_data,
    put_state,
    put_user_data,
    read_state,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from telegram.ext import ContextTypes

    from sessionkit.ptb.data_keys import ConversationKey
    from sessionkit.ptb.private import AnyApplication


class DictSlot:
    """A dict that PTB has handed over, filled in place.

    Args:
        key: The record's key.
        live: The dict.
    """

    __slots__ = ("_live", "key")

    def __init__(self, key: str, live: dict[Any, Any]) -> None:
        self.key = key
        self._live = live

    def read(self) -> object | None:
        """See ``Slot.read``."""
        return self._live

    def write(self, value: object | None) -> None:
        """See ``Slot.write``."""
        refill(self._live, value or {})


class UserSlot:
    """A user's data.

    Args:
        key: The record's key.
        application: Whose memory.
        user_id: The user.
    """

    __slots__ = ("_application", "key", "user_id")

    def __init__(self, key: str, application: AnyApplication, user_id: int) -> None:
        self.key = key
        self.user_id = user_id
        self._application = application

    def read(self) -> object | None:
        """See ``Slot.read``."""
        return _peek(self._application.user_data, self.user_id)

    def write(self, value: object | None) -> None:
        """See ``Slot.write``."""
        live = self.read()
        put_user_data(self._application, self.user_id, value if value is None else refill(live, value))


class ChatSlot:
    """A chat's data.

    Args:
        key: The record's key.
        application: Whose memory.
        chat_id: The chat.
    """

    __slots__ = ("_application", "chat_id", "key")

    def __init__(self, key: str, application: AnyApplication, chat_id: int) -> None:
        self.key = key
        self.chat_id = chat_id
        self._application = application

    def read(self) -> object | None:
        """See ``Slot.read``."""
        return _peek(self._application.chat_data, self.chat_id)

    def write(self, value: object | None) -> None:
        """See ``Slot.write``."""
        live = self.read()
        put_chat_data(self._application, self.chat_id, value if value is None else refill(live, value))


class BotDataHolder(Protocol):
    """An application whose handlers may each see a copy of the bot's data."""

    shared_bot_data: Any
    """The bot's data as the process holds them."""

    @property
    def context_types(self) -> ContextTypes[Any, Any, Any, Any]:
        """See ``Application.context_types``."""
        ...


class BotSlot:
    """The bot's data.

    Args:
        key: The record's key.
        application: Whose memory.

    Attributes:
        before: What they were, packed, before what an update is storing now; None while none is.
    """

    __slots__ = ("_application", "before", "key")

    def __init__(self, key: str, application: BotDataHolder) -> None:
        self.key = key
        self.before: bytes | None = None
        self._application = application

    def read(self) -> object | None:
        """See ``Slot.read``."""
        data: object = self._application.shared_bot_data
        return data

    def write(self, value: object | None) -> None:
        """See ``Slot.write``; where there is none, it is what the context types make."""
        if value is None:
            value = self._application.context_types.bot_data()
        self._application.shared_bot_data = refill(self._application.shared_bot_data, value)


class ConversationSlot:
    """The state of a conversation.

    Args:
        key: The record's key.
        application: Whose memory.
        name: The handler's name.
        parts: The conversation's key.
    """

    __slots__ = ("_application", "key", "name", "parts")

    def __init__(self, key: str, application: AnyApplication, name: str, parts: ConversationKey) -> None:
        self.key = key
        self.name = name
        self.parts = parts
        self._application = application

    @property
    def running(self) -> bool:
        """Whether a non-blocking handler may still give it another state."""
        return is_running(self._application, self.name, self.parts)

    def read(self) -> object | None:
        """See ``Slot.read``."""
        return read_state(self._application, self.name, self.parts)

    def write(self, value: object | None) -> None:
        """See ``Slot.write``; what is stored as ended has ended."""
        state = None if value == ConversationHandler.END else value
        put_state(self._application, self.name, self.parts, state)


class PassingState:
    """The state of a conversation that is not persistent: it can be put back, and is never stored.

    Args:
        handler: The conversation's handler.
        key: The conversation's key.
    """

    __slots__ = ("_before", "_key", "_states")

    def __init__(self, handler: ConversationHandler[Any], key: ConversationKey) -> None:
        self._states = passing_states(handler)
        self._key = key
        self._before: object | None = None

    def note(self) -> None:
        """Take note of the state as it is now."""
        self._before = self._states.get(self._key)

    def put_back(self) -> None:
        """Have PTB hold the state that was noted."""
        if self._before is None:
            self._states.pop(self._key, None)
        else:
            self._states[self._key] = self._before


def refill(live: object | None, value: object) -> object:
    """Return the value, as the dict that is there already if both are dicts: others may hold on to it."""
    if type(live) is not type(value) or not isinstance(live, dict) or not isinstance(value, dict):
        return value
    if live is not value:
        live.clear()
        live.update(value)
    return live


def _peek(data: Mapping[int, Any], number: int) -> object | None:
    # Not by index: PTB's mapping would make what is not there.
    found: object | None = data.get(number)
    return found
