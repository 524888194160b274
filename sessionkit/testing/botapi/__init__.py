"""A Telegram Bot API server for tests, and scripted users to talk to a bot through it."""

from sessionkit.extras import needing

with needing("testing"):
    from sessionkit.testing.botapi.bots import BotAccount
    from sessionkit.testing.botapi.calls import Call
    from sessionkit.testing.botapi.chats import BotMessage, TranscriptEntry
    from sessionkit.testing.botapi.errors import ApiError, ScriptError
    from sessionkit.testing.botapi.params import Upload
    from sessionkit.testing.botapi.script import Script
    from sessionkit.testing.botapi.scripted import Group, ScriptedUser
    from sessionkit.testing.botapi.server import DEFAULT_TOKEN, BotApiServer

__all__ = [
    "DEFAULT_TOKEN",
    "ApiError",
    "BotAccount",
    "BotApiServer",
    "BotMessage",
    "Call",
    "Group",
    "Script",
    "ScriptError",
    "ScriptedUser",
    "TranscriptEntry",
    "Upload",
]
