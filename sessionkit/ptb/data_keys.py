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
        timeouts: The keys of conversations' deadlines, by handler name and conversation key.
        keyboards: The keys of the data behind keyboards, by PTB's id of the keyboard.
        turns: The names of the locks under which updates are processed.
        inboxes: The keys of updates that wait to be processed, by user, or chat where they have none.
        handled: The keys of which updates were processed, by the same.
        set_aside: The keys of updates that are not tried again, by number.
        bot: The key of the bot's data.
        queries: The key of which callback query belongs to which keyboard.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.users = KeySpace("user_data", prefix)
        self.chats = KeySpace("chat_data", prefix)
        self.conversations = KeySpace("conversation", prefix)
        self.timeouts = KeySpace("timeout", prefix)
        self.keyboards = KeySpace("keyboard", prefix)
        self.turns = KeySpace("turn", prefix)
        self.inboxes = KeySpace("inbox", prefix)
        self.handled = KeySpace("handled", prefix)
        self.set_aside = KeySpace("set_aside", prefix)
        self.bot = KeySpace("bot_data", prefix).key(_WHOLE)
        self.queries = KeySpace("callback_query", prefix).key(_WHOLE)

    def conversation(self, name: str, key: ConversationKey) -> str:
        """Return the key of one conversation's state."""
        return self.conversations.key(name, *key)

    def label(self, key: str) -> str:
        """Return what an error calls the value under a key, such as ``user_data.123``."""
        return key.removeprefix(self._prefix).replace(":", ".")

    def kind(self, key: str) -> str | None:
        """Return the kind of the data under a key, for migrations; None for what is not the bot's own."""
        for space in (self.users, self.chats):
            if key.startswith(space.start):
                return space.namespace
        return "bot_data" if key == self.bot else None

    def concerns(self, key: str, user_id: int | None, chat_id: int | None) -> bool:
        """Whether a key is of this user, this chat, one of their conversations, or of the bot as a whole.

        A keyboard is of the message alone that it was sent with.
        """
        if key.startswith(self.keyboards.start):
            return False
        if key.startswith(self.users.start):
            return self.users.parts(key) == (user_id,)
        if key.startswith(self.chats.start):
            return self.chats.parts(key) == (chat_id,)
        for space in (self.inboxes, self.handled):
            if key.startswith(space.start):
                return space.parts(key) in {(user_id,), (chat_id,)}
        for space in (self.conversations, self.timeouts):
            if key.startswith(space.start):
                return not {user_id, chat_id}.isdisjoint(space.parts(key)[1:])
        return True
