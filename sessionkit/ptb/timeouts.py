"""The deadlines of conversations: stored with them, and kept by whoever is alive."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from sessionkit.ptb.private import read_state

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from telegram import Update

    from sessionkit.ptb.data_keys import ConversationKey, DataKeys
    from sessionkit.ptb.private import AnyApplication

_GRACE: Final = 0.5
"""Seconds by which who only found a deadline lets its owner go first, at most."""

_LATEST: Final = 1e15
"""Later than any deadline, in seconds since the Unix epoch: there are ints too large for a clock."""


class Timeouts:
    """The conversations that time out, as far as this process knows of them, and an alarm for each.

    Args:
        application: Whose conversations.
        keys: Gives the keys of the records.
    """

    def __init__(self, application: AnyApplication, keys: DataKeys) -> None:
        self._application = application
        self._keys = keys
        self._end: Callable[[str, ConversationKey], Coroutine[Any, Any, None]] | None = None
        self._entries: dict[str, dict[str, Any]] = {}
        self._alarms: dict[str, asyncio.TimerHandle] = {}
        self._running: set[asyncio.Task[None]] = set()

    def bind(self, end: Callable[[str, ConversationKey], Coroutine[Any, Any, None]]) -> None:
        """Have this called at each deadline, with the name of the handler and the key of the conversation."""
        self._end = end

    def slot(self, name: str, key: ConversationKey) -> TimeoutSlot:
        """Return where the deadline of a conversation lives."""
        return TimeoutSlot(self._keys.timeouts.key(name, *key), self, name, key)

    def set(self, name: str, key: ConversationKey, seconds: float, update: Update) -> None:
        """Have a conversation end this many seconds from now; its last update goes to the handlers then."""
        deadline = time.time() + seconds
        # The objects behind buttons are no JSON, and are not needed to know whose conversation has ended.
        text = json.dumps(update.to_dict(), default=lambda _: None)
        self._entries[self.slot(name, key).key] = {"deadline": deadline, "update": text}
        self.watch(name, key, deadline, mine=True)

    def watch(self, name: str, key: ConversationKey, deadline: float, *, mine: bool = False) -> None:
        """Ring at a deadline; the last one that was asked for counts."""
        record = self._keys.timeouts.key(name, *key)
        self.stop_watching(record)
        grace = 0.0 if mine else random.uniform(0, _GRACE)
        delay = max(0.0, deadline - time.time()) + grace
        self._alarms[record] = asyncio.get_running_loop().call_later(delay, self._ring, record, name, key)

    def stop_watching(self, record: str) -> None:
        """Do not ring for this record."""
        alarm = self._alarms.pop(record, None)
        if alarm is not None:
            alarm.cancel()

    async def aclose(self) -> None:
        """Ring no more, and wait for those who are at it."""
        for record in list(self._alarms):
            self.stop_watching(record)
        while self._running:
            await asyncio.wait(self._running)

    def read(self, slot: TimeoutSlot) -> dict[str, Any] | None:
        """Return the deadline of a conversation and its last update, or None where it has none."""
        return self._entries.get(slot.key)

    def write(self, slot: TimeoutSlot, entry: dict[str, Any] | None) -> None:
        """Take note of what is stored."""
        if entry is None:
            # The alarm stays: the record may only have been evicted from memory.
            self._entries.pop(slot.key, None)
        else:
            self._entries[slot.key] = entry
            self.watch(slot.name, slot.parts, entry["deadline"])

    def drop_ended(self, slot: TimeoutSlot) -> None:
        """Forget the deadline if the conversation has ended."""
        if read_state(self._application, slot.name, slot.parts) is None:
            self._entries.pop(slot.key, None)
            self.stop_watching(slot.key)

    def move(self, slot: TimeoutSlot, to: TimeoutSlot, chat_id: int, new_chat_id: int) -> None:
        """Give a deadline to the conversation that took this one's place in another chat."""
        entry = self._entries.pop(slot.key, None)
        self.stop_watching(slot.key)
        if entry is not None:
            with suppress(ValueError, RecursionError):  # no update, no deadline
                update = _in_chat(json.loads(entry["update"]), chat_id, new_chat_id)
                self.write(to, {"deadline": entry["deadline"], "update": json.dumps(update)})

    def _ring(self, record: str, name: str, key: ConversationKey) -> None:
        del self._alarms[record]
        assert self._end is not None
        task = asyncio.get_running_loop().create_task(self._end(name, key))
        self._running.add(task)
        task.add_done_callback(self._running.discard)


class TimeoutSlot:
    """The deadline of a conversation and its last update.

    Args:
        key: The record's key.
        timeouts: Whose memory.
        name: The handler's name.
        parts: The conversation's key.
    """

    __slots__ = ("_timeouts", "key", "name", "parts")

    def __init__(self, key: str, timeouts: Timeouts, name: str, parts: ConversationKey) -> None:
        self.key = key
        self.name = name
        self.parts = parts
        self._timeouts = timeouts

    def read(self) -> object | None:
        """See ``Slot.read``."""
        return self._timeouts.read(self)

    def write(self, value: object | None) -> None:
        """See ``Slot.write``; what is no deadline counts as none."""
        self._timeouts.write(self, read_deadline(value))


def read_deadline(value: object) -> dict[str, Any] | None:
    """Return what a record's value says of a deadline, or None where it is no deadline."""
    if not isinstance(value, dict):
        return None
    deadline, update = value.get("deadline"), value.get("update")
    if isinstance(deadline, bool) or not isinstance(deadline, (int, float)) or not isinstance(update, str):
        return None
    return value if 0 <= deadline <= _LATEST else None


def _in_chat(value: Any, chat_id: int, new_chat_id: int) -> Any:
    """Return an update's JSON with the id of a chat replaced."""
    if isinstance(value, list):
        return [_in_chat(each, chat_id, new_chat_id) for each in value]
    if not isinstance(value, dict):
        return value
    moved = {name: _in_chat(each, chat_id, new_chat_id) for name, each in value.items()}
    match moved.get("chat"):
        case {"id": number} if number == chat_id:
            moved["chat"]["id"] = new_chat_id
    return moved
