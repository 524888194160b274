"""Groups that become supergroups: their chat's id changes, and everything under the old one moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from telegram import Message, Update

from sessionkit.errors import InvalidKey
from sessionkit.ptb.private import conversation_keys, take_state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sessionkit.ptb.data_keys import ConversationKey
    from sessionkit.ptb.private import AnyApplication
    from sessionkit.ptb.records import Records
    from sessionkit.ptb.timeouts import Timeouts
    from sessionkit.ptb.work import Work, WorkPlan


def migrated_ids(update: object) -> tuple[int, int] | None:
    """Return the old and the new id of the chat whose service message this is, or None if it is none."""
    message = update if isinstance(update, Message) else None
    if isinstance(update, Update):
        message = update.effective_message
    if message is not None and message.migrate_to_chat_id is not None:
        return message.chat.id, message.migrate_to_chat_id
    if message is not None and message.migrate_from_chat_id is not None:
        return message.migrate_from_chat_id, message.chat.id
    return None


def migrate_chat(application: AnyApplication, message: Message) -> None:
    """Move a group's data and its conversations to its supergroup, under a stock ``Application``.

    Call it in a handler of ``filters.StatusUpdate.MIGRATE`` in place of ``application.migrate_chat_data``,
    which leaves conversations behind, and empties the supergroup's data at the second of the two service
    messages. A ``SessionApplication`` does all of it by itself.

    Args:
        application: The application.
        message: Either service message; any other changes nothing.
    """
    ids = migrated_ids(message)
    if ids is None:
        return
    old, new = ids
    if application.chat_data.get(old):
        application.migrate_chat_data(message)
    for handlers in application.handlers.values():
        for name in {name for handler in handlers if (name := getattr(handler, "name", None)) is not None}:
            for key in conversation_keys(application, name):
                if key[0] == old:
                    take_state(application, name, key, (new, *key[1:]))


class Migration:
    """Moves what is stored of a chat, whoever of all instances has it in memory.

    Args:
        application: Whose chats.
        records: The store and what is known of it.
        plan: Gives the slots of records.
        timeouts: The deadlines of conversations.
    """

    def __init__(
        self, application: AnyApplication, records: Records, plan: WorkPlan, timeouts: Timeouts
    ) -> None:
        self._application = application
        self._records = records
        self._plan = plan
        self._timeouts = timeouts

    async def move(self, work: Work, old: int, new: int) -> None:
        """Move everything from a chat's old id to its new one, to be committed with this work.

        What the new one has already stays; moving again changes nothing.

        Raises:
            StoreError: The store could not be asked.
        """
        self._move_data(work, old, new)
        for handler in self._plan.conversations:
            if not handler.per_chat or handler.name is None:
                continue
            async for key in self._keys(handler.name, old):
                await self._move_conversation(work, handler.name, key, old, new)

    def _move_data(self, work: Work, old: int, new: int) -> None:
        keys = self._records.keys.chats
        work.gone.add(keys.key(old))
        source, target = work.slots.get(keys.key(old)), work.slots.get(keys.key(new))
        if source is None or target is None:
            return
        data: Any = source.read()
        if data:
            there: Any = target.read()
            if isinstance(data, dict) and isinstance(there, dict):
                target.write({**data, **there})
            elif not there:
                target.write(data)
            source.write(None)

    async def _move_conversation(
        self, work: Work, name: str, key: ConversationKey, old: int, new: int
    ) -> None:
        moved = (new, *key[1:])
        source, target = self._plan.conversation(name, key), self._plan.conversation(name, moved)
        deadline, put_off = self._timeouts.slot(name, key), self._timeouts.slot(name, moved)
        slots = (source, target, deadline, put_off)
        await self._records.ledger.load(slots)
        if target.read() is None:
            target.write(source.read())
            self._timeouts.move(deadline, put_off, old, new)
        source.write(None)
        work.add(*slots)

    async def _keys(self, name: str, chat_id: int) -> AsyncIterator[ConversationKey]:
        """Yield the keys of a chat's conversations that are stored."""
        space = self._records.keys.conversations
        alone = space.key(name, chat_id)
        found: set[ConversationKey] = set()
        async for key in self._records.store().scan(alone):
            if key == alone or key.startswith(f"{alone}:"):
                try:
                    found.add(space.parts(key)[1:])
                except InvalidKey:
                    continue  # somebody else's
        for parts in found:
            yield parts
