"""A chat: its messages, its keyboard, its transcript, and the users who read along."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sessionkit.testing.botapi.errors import bad_request
from sessionkit.testing.botapi.markup import labels

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class BotMessage:
    """A bot's message as its chat shows it.

    Attributes:
        message_id: Its number in the chat.
        text: Its text, or "".
        caption: The text under its file, or "".
        buttons: The labels of its inline or reply keyboard, row by row.
        raw: Telegram's ``Message`` object.
    """

    message_id: int
    text: str
    caption: str
    buttons: tuple[str, ...]
    raw: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class TranscriptEntry:
    """One line of a chat.

    Attributes:
        time: When, in seconds since the epoch.
        who: The user's first name, or "bot".
        text: What was said or done.
    """

    time: float
    who: str
    text: str

    def __str__(self) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(self.time))
        return f"{clock}.{int(self.time % 1 * 1000):03d}  {self.who}: {self.text}"


@dataclass(frozen=True)
class Reader:
    """What is called when the bot posts or edits a message."""

    on_message: Callable[[BotMessage], None]
    on_edit: Callable[[BotMessage], None]


class Chat:
    """One private or group chat with one bot.

    Args:
        info: Telegram's ``Chat`` object.

    Attributes:
        info: The same.
        messages: Telegram's ``Message`` objects by number, in the order they were posted.
        transcript: All that was said and done.
        keyboard: The reply keyboard shown to the users, or None.
        moved_to: The id of the supergroup that took this group's place, or None.
    """

    def __init__(self, info: dict[str, Any]) -> None:
        self.info = info
        self.messages: dict[int, dict[str, Any]] = {}
        self.transcript: list[TranscriptEntry] = []
        self.keyboard: dict[str, Any] | None = None
        self.moved_to: int | None = None
        self._keyboard_message: int | None = None
        self._readers: list[Reader] = []

    @property
    def id(self) -> int:
        """Telegram's id of the chat."""
        return int(self.info["id"])

    def add_reader(self, reader: Reader) -> None:
        """Tell a reader of every message and edit of the bot from now on."""
        self._readers.append(reader)

    def note(self, who: str, text: str) -> None:
        """Add a line to the transcript."""
        self.transcript.append(TranscriptEntry(time.time(), who, text))

    def render(self) -> str:
        """Return the transcript as text, one line per entry."""
        return "\n".join(f"  {entry}" for entry in self.transcript) or "  (nothing was said)"

    def post(self, message: dict[str, Any], markup: dict[str, Any] | None = None) -> dict[str, Any]:
        """Add a message with its reply markup, and return it as Telegram shows it."""
        if markup and "inline_keyboard" in markup:
            message = {**message, "reply_markup": markup}
        elif markup and "keyboard" in markup:
            self.keyboard, self._keyboard_message = markup, message["message_id"]
        elif markup and markup.get("remove_keyboard"):
            self.keyboard, self._keyboard_message = None, None
        self.messages[message["message_id"]] = message
        if message["from"]["is_bot"]:
            shown = self.show(message["message_id"])
            self.note("bot", describe(shown))
            for reader in self._readers:
                reader.on_message(shown)
        else:
            self.note(message["from"]["first_name"], describe(as_bot_message(message)))
        return message

    def edit(self, message_id: int, changes: dict[str, Any]) -> dict[str, Any]:
        """Replace fields of a bot's message; a None removes one.

        Raises:
            ApiError: There is no such message, it is a user's, or nothing changes.
        """
        message = self.messages.get(message_id)
        if message is None:
            raise bad_request("message to edit not found")
        if not message["from"]["is_bot"]:
            raise bad_request("message can't be edited")
        if all(message.get(name) == value for name, value in changes.items()):
            raise bad_request(
                "message is not modified: specified new message content and reply markup are exactly the same"
                " as a current content and reply markup of the message"
            )
        edited = {name: value for name, value in {**message, **changes}.items() if value is not None}
        self.messages[message_id] = edited | {"edit_date": int(time.time())}
        shown = self.show(message_id)
        self.note("bot", f"(edits) {describe(shown)}")
        for reader in self._readers:
            reader.on_edit(shown)
        return self.messages[message_id]

    def delete(self, message_id: int) -> None:
        """Remove a message.

        Raises:
            ApiError: There is no such message.
        """
        message = self.messages.pop(message_id, None)
        if message is None:
            raise bad_request("message to delete not found")
        self.note("bot", f"(deletes) {describe(as_bot_message(message))}")

    def show(self, message_id: int) -> BotMessage:
        """Return a message as its readers see it now."""
        keyboard = self.keyboard if message_id == self._keyboard_message else None
        return as_bot_message(self.messages[message_id], labels(keyboard))


def as_bot_message(message: dict[str, Any], keyboard: tuple[str, ...] = ()) -> BotMessage:
    """Return Telegram's ``Message`` object in the form that tests read."""
    return BotMessage(
        message_id=message["message_id"],
        text=message.get("text", ""),
        caption=message.get("caption", ""),
        buttons=labels(message.get("reply_markup")) or keyboard,
        raw=message,
    )


def describe(message: BotMessage) -> str:
    """Return a message in one line for the transcript."""
    kinds = [kind for kind in ("audio", "document", "photo", "voice") if kind in message.raw]
    parts = [*(f"<{kind}>" for kind in kinds), message.text or message.caption]
    parts += [f"[{label}]" for label in message.buttons]
    return " ".join(part for part in parts if part).replace("\n", "\n    ") or "(service message)"
