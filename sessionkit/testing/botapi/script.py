"""Chains of a user's actions and expectations."""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Generator

    from sessionkit.testing.botapi.chats import BotMessage
    from sessionkit.testing.botapi.scripted import ScriptedUser

SAMPLE = b"a file of the sessionkit test server"

Step = Callable[["ScriptedUser"], Awaitable["BotMessage | None"]]
T_co = TypeVar("T_co", covariant=True)


class Actions(ABC, Generic[T_co]):
    """What a user can do; each action adds a step to a script."""

    @abstractmethod
    def _then(self, step: Step) -> Script[T_co]:
        """Add a step, and return the script."""

    def _act(self, act: Callable[[ScriptedUser], None]) -> Script[T_co]:
        async def step(user: ScriptedUser) -> None:
            act(user)

        return self._then(step)

    def send(self, text: str, *, reply_to: BotMessage | None = None) -> Script[T_co]:
        """Send a text; commands in it are marked as Telegram marks them."""
        content: dict[str, Any] = {"text": text}
        if reply_to:
            content["reply_to_message"] = reply_to.raw
        return self._act(lambda user: user.say(content))

    def send_audio(
        self,
        data: bytes = SAMPLE,
        *,
        duration: int = 3,
        title: str | None = None,
        performer: str | None = None,
        filename: str = "audio.mp3",
        mime_type: str = "audio/mpeg",
        caption: str | None = None,
    ) -> Script[T_co]:
        """Send an audio file; ``duration`` is in seconds."""
        details = {"duration": duration, "title": title, "performer": performer}
        names = {"filename": filename, "mime_type": mime_type}
        return self._act(lambda user: user.say_file("audio", data, caption, **names, **details))

    def send_voice(
        self, data: bytes = SAMPLE, *, duration: int = 3, caption: str | None = None
    ) -> Script[T_co]:
        """Send a voice message; ``duration`` is in seconds."""
        return self._act(lambda user: user.say_file("voice", data, caption, duration=duration))

    def send_photo(self, data: bytes = SAMPLE, *, caption: str | None = None) -> Script[T_co]:
        """Send a photo; the bytes are not looked at."""
        return self._act(lambda user: user.say_file("photo", data, caption))

    def send_document(
        self,
        data: bytes = SAMPLE,
        *,
        filename: str = "document.bin",
        mime_type: str = "application/octet-stream",
        caption: str | None = None,
    ) -> Script[T_co]:
        """Send a file."""
        names = {"filename": filename, "mime_type": mime_type}
        return self._act(lambda user: user.say_file("document", data, caption, **names))

    def press(self, message: BotMessage | None, label: str) -> Script[T_co]:
        """Press the button of that label.

        An inline button gives a callback query, a button of the reply keyboard sends its label.

        Args:
            message: The message the button is under, looked at as it is when the step runs. None: the latest
                message with such a button, else the reply keyboard.
            label: The whole label.
        """
        return self._act(lambda user: user.push(message, label))

    def expects(
        self, content: str | re.Pattern[str] | None = None, timeout: float = 10.0
    ) -> Script[BotMessage]:
        """Read the bot's next message, and check its text or caption.

        Args:
            content: A text it must contain, whatever the case; a compiled pattern to search for; or None:
                anything will do.
            timeout: Seconds to wait for it.

        Raises:
            ScriptError: When the step runs: no message came, or another one; with the chat's transcript.
        """

        async def step(user: ScriptedUser) -> BotMessage:
            message = await user.reply(timeout)
            if not _matches(content, message.text or message.caption):
                wanted = repr(content.pattern if isinstance(content, re.Pattern) else content)
                raise user.failure(
                    f"expected a reply with {wanted}, but got {message.text or message.caption!r}"
                )
            return message

        return cast("Script[BotMessage]", self._then(step))


class Script(Actions[T_co]):
    """Steps that run in order when the script is awaited, and each time it is.

    Awaiting resolves to the last reply that was expected, or to None where none was. One that is forgotten
    before it was awaited, or went on as a longer one, gives a ``RuntimeWarning``, as a coroutine does.
    """

    def __init__(self, user: ScriptedUser, steps: tuple[Step, ...]) -> None:
        self._user = user
        self._steps = steps
        self._used = False

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if not self._used:
            _warn(f"a script of {self._user!r} was never awaited", RuntimeWarning, stacklevel=2, source=self)

    def __await__(self) -> Generator[Any, None, T_co]:
        """Run the steps."""
        self._used = True
        return self._run().__await__()

    async def _run(self) -> T_co:
        last: BotMessage | None = None
        for step in self._steps:
            last = await step(self._user) or last
        return cast("T_co", last)

    def _then(self, step: Step) -> Script[T_co]:
        self._used = True
        return Script(self._user, (*self._steps, step))


def _matches(content: str | re.Pattern[str] | None, text: str) -> bool:
    if content is None:
        return True
    if isinstance(content, re.Pattern):
        return content.search(text) is not None
    return content.casefold() in text.casefold()
