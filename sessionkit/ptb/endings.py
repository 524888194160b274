"""How conversations end by themselves."""

from __future__ import annotations

import json
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from telegram import Update
from telegram.ext import ApplicationHandlerStop, ConversationHandler

from sessionkit.errors import CodecError, CorruptRecord, InvalidKey
from sessionkit.ptb.timeouts import read_deadline
from sessionkit.ptb.work import conversation_key
from sessionkit.ptb.writes import may_pass
from sessionkit.store import read_all

if TYPE_CHECKING:
    from sessionkit.ptb.data_keys import ConversationKey
    from sessionkit.ptb.desk import Desk
    from sessionkit.ptb.private import AnyApplication
    from sessionkit.ptb.records import Records
    from sessionkit.ptb.slots import ConversationSlot
    from sessionkit.ptb.steps import Steps
    from sessionkit.ptb.timeouts import Timeouts

logger = logging.getLogger("sessionkit.ptb")

_LATER: Final = 1.0
"""Seconds until a conversation that could not be ended for now is tried again."""


class Endings:
    """Ends conversations at their deadlines, each once among all instances.

    Args:
        application: Whose conversations.
        records: The store and what is known of it.
        desk: Where conversations have their turn.
        steps: Stores what their handlers change.
        timeouts: The deadlines; they ring here.
    """

    def __init__(
        self, application: AnyApplication, records: Records, desk: Desk, steps: Steps, timeouts: Timeouts
    ) -> None:
        self._application = application
        self._records = records
        self._desk = desk
        self._plan = desk.plan
        self._steps = steps
        self._timeouts = timeouts
        timeouts.bind(self.end)

    async def look(self) -> None:
        """Have an alarm set for each deadline that is stored, if there can be any.

        Raises:
            StoreError: The store could not be asked.
        """
        if not any(handler.conversation_timeout for handler in self._plan.conversations):
            return
        space, values = self._records.keys.timeouts, self._records.values
        async for key, record in read_all(self._records.store(), space.start, _passed_over):
            try:
                name, *parts = space.parts(key)
                entry = read_deadline(values.open(key, record.value).value)
            except InvalidKey as error:
                _passed_over(key, CorruptRecord(str(error)))
            except CodecError as error:
                _passed_over(key, error)
            else:
                if entry is None:
                    _passed_over(key, CorruptRecord("what should be a deadline is something else"))
                else:
                    self._timeouts.watch(str(name), tuple(parts), entry["deadline"])

    async def end(self, name: str, key: ConversationKey) -> None:
        """End a conversation whose deadline has passed, unless somebody else has, or it was put off."""
        slot = self._timeouts.slot(name, key)
        try:
            await self._records.ledger.load([slot])
            entry = self._timeouts.read(slot)
            handler = next((each for each in self._plan.conversations if each.name == name), None)
            if entry is None or handler is None:
                return
            update = self._update_of(entry)
            if update is None or conversation_key(handler, update) != key:
                self._timeouts.stop_watching(slot.key)
                _passed_over(slot.key, CorruptRecord("its update is none of the conversation"))
                return
            work = self._plan.update(update)
            async with self._desk.turn(work, None) as give_back:
                entry = self._timeouts.read(slot)
                if entry is None:
                    return
                if entry["deadline"] > time.time():
                    self._timeouts.watch(name, key, entry["deadline"])
                    return
                handle = partial(self._handle, handler, self._plan.conversation(name, key))
                await self._steps.take_by(handle, work, update, give_back)
        except Exception as error:  # whatever it is, nobody else looks at it
            if may_pass(error):
                self._timeouts.watch(name, key, time.time() + _LATER)
            else:
                await self._application.process_error(None, error)

    def _update_of(self, entry: dict[str, Any]) -> Update | None:
        """Return a conversation's last update, or None where there is none."""
        try:
            return Update.de_json(json.loads(entry["update"]), self._application.bot)
        except Exception:  # whatever PTB makes of what is no update
            return None

    async def _handle(
        self, conversation: ConversationHandler[Any], state: ConversationSlot, update: Any
    ) -> None:
        """Call the TIMEOUT handlers of a conversation with its last update, and end it."""
        context = self._application.context_types.context.from_update(update, self._application)
        await context.refresh_data()
        for handler in conversation.states.get(ConversationHandler.TIMEOUT, []):
            try:
                check = handler.check_update(update)
                if check is not None and check is not False:
                    await handler.handle_update(update, self._application, check, context)
            except ApplicationHandlerStop:
                logger.warning("ApplicationHandlerStop means nothing to a TIMEOUT handler")
            except Exception as error:
                await self._application.process_error(update, error)
        state.write(None)


def _passed_over(key: str, error: CodecError) -> None:
    logger.warning("deadline %s is not readable: %s", key, error, extra={"key": key})
