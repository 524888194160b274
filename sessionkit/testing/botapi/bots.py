"""One bot's whole world: its updates, chats, files, commands and webhook."""

from __future__ import annotations

import re
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from sessionkit.errors import ConfigurationError
from sessionkit.testing.botapi.chats import Chat
from sessionkit.testing.botapi.errors import ApiError, bad_request
from sessionkit.testing.botapi.files import FileStore
from sessionkit.testing.botapi.scripted import Group, ScriptedUser
from sessionkit.testing.botapi.updates import UpdateQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkit.testing.botapi.webhook import Delivery, Webhook

_TOKEN = re.compile(r"([1-9][0-9]{0,15}):[A-Za-z0-9_-]{35}", re.ASCII)
_TOKEN_START = re.compile(r"[0-9]+:", re.ASCII)


def check_token(token: str) -> int:
    """Return the id of the bot that a token belongs to.

    Raises:
        ApiError: The token is malformed: 404 where it looks like no token at all, else 401, as Telegram.
    """
    if match := _TOKEN.fullmatch(token):
        return int(match[1])
    raise ApiError(401, "Unauthorized") if _TOKEN_START.match(token) else ApiError(404, "Not Found")


class BotAccount:
    """The server's side of one bot. It lives as long as the server, however often the bot restarts.

    Args:
        token: A well-formed token.
        make_delivery: Makes the delivery to a webhook of this bot.
        first_update_id: The number of its first update.

    Attributes:
        token: The same.
        me: The bot's ``User`` object.
        updates: What the bot was not told yet.
        files: What it sent or received.
        commands: Its command lists, by scope and language.
        callback_queries: The chats of the callback queries that wait for an answer, by the query's id.
        delivery: The webhook's delivery, or None while the bot polls.
    """

    def __init__(
        self, token: str, make_delivery: Callable[[BotAccount, Webhook], Delivery], first_update_id: int
    ) -> None:
        bot_id = check_token(token)
        self.token = token
        self.me: dict[str, Any] = {
            "id": bot_id,
            "is_bot": True,
            "first_name": "Test bot",
            "username": f"test_{bot_id}_bot",
        }
        self.updates = UpdateQueue(first_update_id)
        self.files = FileStore()
        self.commands: dict[tuple[str, str], list[dict[str, str]]] = {}
        self.callback_queries: dict[str, Chat] = {}
        self.delivery: Delivery | None = None
        self._make_delivery = make_delivery
        self._chats: dict[int, Chat] = {}
        self._users: dict[int, ScriptedUser] = {}
        self._message_ids = count(1)
        self._query_ids = count(4_000_000_000_000_000_001)

    def user(
        self,
        id: int = 1001,
        first_name: str = "Ann",
        *,
        last_name: str | None = None,
        username: str | None = None,
        language_code: str = "en",
    ) -> ScriptedUser:
        """Return the user of that id in the private chat with this bot; the same one each time.

        Raises:
            ConfigurationError: The id is not a positive number.
        """
        if id in self._users:
            return self._users[id]
        if id < 1:
            raise ConfigurationError(f"a user's id is a positive number, not {id}; groups have negative ones")
        names = {"first_name": first_name, "last_name": last_name, "username": username}
        names = {name: value for name, value in names.items() if value}
        info = {"id": id, "is_bot": False, **names, "language_code": language_code}
        chat = self._chats[id] = Chat({"id": id, "type": "private", **names})
        self._users[id] = ScriptedUser(self, info, chat)
        return self._users[id]

    def group(self, id: int = -1002001, title: str = "Test group") -> Group:
        """Return the group of that id; the same one each time. Ids from -1000000000000 down are supergroups.

        Raises:
            ConfigurationError: The id is not a negative number.
        """
        if id >= 0:
            raise ConfigurationError(f"a group's id is a negative number, not {id}; users have positive ones")
        if id not in self._chats:
            kind = "supergroup" if id <= -1_000_000_000_000 else "group"
            self._chats[id] = Chat({"id": id, "type": kind, "title": title})
        return Group(self, self._chats[id])

    def chat(self, chat_id: str) -> Chat:
        """Return the chat that a method's ``chat_id`` names.

        Raises:
            ApiError: There is none, or the group became a supergroup.
        """
        if not chat_id:
            raise bad_request("chat_id is empty")
        is_number = re.fullmatch(r"-?[0-9]{1,18}", chat_id, re.ASCII)
        chat = self._chats.get(int(chat_id)) if is_number else None
        if chat is None:
            raise bad_request("chat not found")
        if chat.moved_to is not None:
            raise ApiError(
                400,
                "Bad Request: group chat was upgraded to a supergroup chat",
                migrate_to_chat_id=chat.moved_to,
            )
        return chat

    def make_delivery(self, webhook: Webhook) -> Delivery:
        """Return a delivery to a webhook, not started.

        Raises:
            ApiError: The webhook's certificate cannot be read.
        """
        return self._make_delivery(self, webhook)

    def compose(self, chat: Chat, sender: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
        """Return a new ``Message`` object with the next number."""
        header = {"message_id": next(self._message_ids), "from": sender, "chat": chat.info}
        return {**header, "date": int(time.time()), **content}

    def receive(self, chat: Chat, sender: dict[str, Any], content: dict[str, Any]) -> None:
        """Post a user's message and queue its update."""
        self.updates.add("message", chat.post(self.compose(chat, sender, content)))

    def receive_press(self, chat: Chat, sender: dict[str, Any], message_id: int, data: str) -> None:
        """Queue the update of an inline button that a user pressed."""
        query_id = str(next(self._query_ids))
        self.callback_queries[query_id] = chat
        query = {
            "id": query_id,
            "from": sender,
            "message": chat.messages[message_id],
            "chat_instance": str(abs(chat.id) * 7_919),
            "data": data,
        }
        self.updates.add("callback_query", query)
