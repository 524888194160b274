"""The entities that Telegram finds in a user's text by itself."""

from __future__ import annotations

import re
from typing import Any

_COMMAND = re.compile(r"(?<![\w/])/[A-Za-z0-9_]{1,64}(?:@[A-Za-z0-9_]{3,32})?(?![\w/@])", re.ASCII)


def utf16_length(text: str) -> int:
    """Return the length of a text in UTF-16 code units, in which Telegram counts."""
    return len(text.encode("utf-16-le")) // 2


def find_commands(text: str) -> list[dict[str, Any]]:
    """Return a ``bot_command`` entity for each ``/command`` or ``/command@bot`` in the text."""
    return [
        {
            "type": "bot_command",
            "offset": utf16_length(text[: match.start()]),
            "length": len(match.group()),
        }
        for match in _COMMAND.finditer(text)
    ]
