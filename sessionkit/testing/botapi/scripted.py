"""Users and groups that tests speak for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sessionkit.errors import ConfigurationError
from sessionkit.testing.botapi.chats import BotMessage, Chat, Reader, TranscriptEntry
from sessionkit.testing.botapi.entities import find_commands
from sessionkit.testing.botapi.errors import ApiError, ScriptError
from sessionkit.testing.botapi.markup import inline_button, labels
from sessionkit.testing.botapi.script import Actions, Script, Step

if TYPE_CHECKING:
    from sessionkit.testing.botapi.bots import BotAccount


class Group:
    """A group chat; ``user.in_chat(group)`` speaks there.

    The bot sees every message of it, as with privacy mode switched off.
    """

    def __init__(self, account: BotAccount, chat: Chat) -> None:
        self._account = account
        self._chat = chat

    @property
    def id(self) -> int:
        """Telegram's id of the group."""
        return self._chat.id

    @property
    def transcript(self) -> list[TranscriptEntry]:
        """All that was said and done in the group."""
        return list(self._chat.transcript)

    def migrate_to(self, new_id: int) -> Group:
        """Turn the group into a supergroup, and tell the bot as Telegram does: once in each of the two chats.

        From now on the bot's calls for the old id fail with ``migrate_to_chat_id``.

        Raises:
            ConfigurationError: The new id is no supergroup's: one looks like -1001234567890.
        """
        if new_id > -1_000_000_000_000:
            raise ConfigurationError(f"{new_id} is no supergroup's id; one looks like -1001234567890")
        successor = self._account.group(new_id, self._chat.info["title"])
        admin = {"id": 1087968824, "is_bot": True, "first_name": "Group", "username": "GroupAnonymousBot"}
        for group, service in (
            (self, {"migrate_to_chat_id": new_id}),
            (successor, {"migrate_from_chat_id": self.id}),
        ):
            message = self._account.compose(group._chat, admin, service)
            group._chat.note("Telegram", f"(the group moves from {self.id} to {new_id})")
            self._account.updates.add("message", message)
        self._chat.moved_to = new_id
        return successor


class ScriptedUser(Actions[None]):
    """A user, in one chat with the bot, who does what a test says.

    Messages and edits of the bot are read in order, each once, by ``reply`` and ``edited``. The actions
    (``send``, ``press``, …) return a ``Script``: nothing happens before it is awaited.

    Attributes:
        info: Telegram's ``User`` object.
    """

    def __init__(self, account: BotAccount, info: dict[str, Any], chat: Chat) -> None:
        self.info = info
        self._account = account
        self._chat = chat
        self._in_chats: dict[int, ScriptedUser] = {}
        self._replies: asyncio.Queue[BotMessage] = asyncio.Queue()
        self._edits: asyncio.Queue[BotMessage] = asyncio.Queue()
        chat.add_reader(Reader(self._replies.put_nowait, self._edits.put_nowait))

    def __repr__(self) -> str:
        return f"<ScriptedUser {self.info['first_name']!r}, {self.id}, in chat {self.chat_id}>"

    @property
    def id(self) -> int:
        """Telegram's id of the user."""
        return int(self.info["id"])

    @property
    def chat_id(self) -> int:
        """Telegram's id of the chat the user is in."""
        return self._chat.id

    @property
    def transcript(self) -> list[TranscriptEntry]:
        """All that was said and done in the user's chat."""
        return list(self._chat.transcript)

    def in_chat(self, group: Group) -> ScriptedUser:
        """Return this user in a group, reading what the bot posts there from now on; the same each time."""
        if group.id not in self._in_chats:
            self._in_chats[group.id] = ScriptedUser(self._account, self.info, group._chat)
        return self._in_chats[group.id]

    async def reply(self, timeout: float = 10.0) -> BotMessage:
        """Return the bot's next message in this chat that was not read yet.

        Args:
            timeout: Seconds to wait for it.

        Raises:
            ScriptError: None came.
        """
        return await self._read(self._replies, timeout, "the bot did not reply")

    async def edited(self, timeout: float = 10.0) -> BotMessage:
        """Return the next edit of a bot's message in this chat that was not read yet.

        Args:
            timeout: Seconds to wait for it.

        Raises:
            ScriptError: None came.
        """
        return await self._read(self._edits, timeout, "the bot edited nothing")

    def failure(self, reason: str) -> ScriptError:
        """Return the error to raise for a conversation that went wrong; it shows the whole chat."""
        return ScriptError(f"{reason}\nThe chat of {self.info['first_name']} so far:\n{self._chat.render()}")

    def say(self, content: dict[str, Any]) -> None:
        """Post a message with these fields of Telegram's ``Message``, and queue its update.

        Raises:
            ConfigurationError: Its text is empty.
        """
        if "text" in content:
            if not content["text"].strip():
                raise ConfigurationError("a user cannot send a message without text")
            if entities := find_commands(content["text"]):
                content = {**content, "entities": entities}
        self._account.receive(self._chat, self.info, content)

    def say_file(self, kind: str, data: bytes, caption: str | None, **details: Any) -> None:
        """Post a file, and queue its update.

        Raises:
            ConfigurationError: It is empty or too big.
        """
        try:
            content = self._account.files.add(kind, data, **details).as_content()
        except ApiError as error:
            raise ConfigurationError(f"a user cannot send this {kind}: {error}") from None
        self.say({**content, "caption": caption} if caption else content)

    def push(self, message: BotMessage | None, label: str) -> None:
        """Press a button; see ``Actions.press``."""
        shown = [message.message_id] if message else list(reversed(self._chat.messages))
        for message_id in shown:
            if message_id not in self._chat.messages:
                raise self.failure(f"message {message_id} was deleted, so [{label}] cannot be pressed")
            markup = self._chat.messages[message_id].get("reply_markup")
            if button := inline_button(markup, label):
                if "callback_data" not in button:
                    raise self.failure(f"[{label}] is no callback button: {button}")
                self._chat.note(self.info["first_name"], f"(presses) [{label}]")
                self._account.receive_press(self._chat, self.info, message_id, button["callback_data"])
                return
        if label not in labels(self._chat.keyboard):
            where = f"message {message.message_id}" if message else "any message"
            raise self.failure(f"there is no button [{label}] under {where} or on the reply keyboard")
        self.say({"text": label})

    def _then(self, step: Step) -> Script[None]:
        return Script(self, (step,))

    async def _read(self, queue: asyncio.Queue[BotMessage], timeout: float, miss: str) -> BotMessage:
        try:
            async with asyncio.timeout(timeout):
                return await queue.get()
        except TimeoutError:
            raise self.failure(f"{miss} within {timeout:g} s") from None
