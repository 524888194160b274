"""The keys of python-telegram-bot's data."""

from __future__ import annotations

from typing import Final, TypeAlias

from sessionkit.keys import KeySpace

ConversationKey: TypeAlias = tuple[int | str, ...]

_WHOLE: Final = "all"


class DataKeys:
    """Which record holds what, under one prefix.

    Args:
        prefix: What every key starts with.

    Attributes:
        users: The keys of users' data, by id.
        chats: The keys of chats' data, by id.
        conversations: The keys of conversation states, by handler name and conversation key.
        bot: The key of the bot's data.
        callbacks: The key of the callback data.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.users = KeySpace("user_data", prefix)
        self.chats = KeySpace("chat_data", prefix)
        self.conversations = KeySpace("conversation", prefix)
        self.bot = KeySpace("bot_data", prefix).key(_WHOLE)
        self.callbacks = KeySpace("callback_data", prefix).key(_WHOLE)

    def conversation(self, name: str, key: ConversationKey) -> str:
        """Return the key of one conversation's state."""
        return self.conversations.key(name, *key)

    def label(self, key: str) -> str:
        """Return what an error calls the value under a key, such as ``user_data.123``."""
        return key.removeprefix(self._prefix).replace(":", ".")

    def concerns(self, key: str, user_id: int | None, chat_id: int | None) -> bool:
        """Whether a key is of this user, this chat, one of their conversations, or of the bot as a whole."""
        if key.startswith(self.users.start):
            return self.users.parts(key) == (user_id,)
        if key.startswith(self.chats.start):
            return self.chats.parts(key) == (chat_id,)
        if key.startswith(self.conversations.start):
            return not {user_id, chat_id}.isdisjoint(self.conversations.parts(key)[1:])
        return True
