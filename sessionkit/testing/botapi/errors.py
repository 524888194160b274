"""What a Bot API method answers when it refuses, and what a scripted conversation raises."""

from __future__ import annotations

from typing import Any

from sessionkit.errors import SessionKitError


class ScriptError(SessionKitError, AssertionError):
    """A scripted conversation did not go as expected; the message ends with the chat's transcript."""


class ApiError(Exception):
    """A refusal in Telegram's words, turned into an ``"ok": false`` answer by the server.

    Args:
        code: The HTTP status, and ``error_code``.
        description: The text that bots see.
        parameters: Telegram's ``ResponseParameters``, such as ``retry_after``.
    """

    def __init__(self, code: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.parameters = parameters

    def as_answer(self) -> dict[str, Any]:
        """Return the JSON object that a bot receives."""
        answer: dict[str, Any] = {"ok": False, "error_code": self.code, "description": self.description}
        return answer | ({"parameters": self.parameters} if self.parameters else {})


def bad_request(reason: str) -> ApiError:
    """Return the error Telegram gives for parameters it cannot act on."""
    return ApiError(400, f"Bad Request: {reason}")
