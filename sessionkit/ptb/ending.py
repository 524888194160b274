"""How a conversation ends by itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from telegram.ext import ApplicationHandlerStop, ConversationHandler

if TYPE_CHECKING:
    from sessionkit.ptb.private import AnyApplication
    from sessionkit.ptb.slots import ConversationSlot

logger = logging.getLogger("sessionkit.ptb")


class Ending:
    """Has the TIMEOUT handlers of a conversation called, and ends it."""

    def __init__(
        self,
        application: AnyApplication,
        handler: ConversationHandler[Any],
        conversation: ConversationSlot,
    ) -> None:
        self._application = application
        self._handler = handler
        self._conversation = conversation

    async def __call__(self, update: Any) -> None:
        """Call the handlers with the conversation's last update."""
        application = self._application
        context = application.context_types.context.from_update(update, application)
        await context.refresh_data()
        for handler in self._handler.states.get(ConversationHandler.TIMEOUT, []):
            check = handler.check_update(update)
            if check is not None and check is not False:
                try:
                    await handler.handle_update(update, application, check, context)
                except ApplicationHandlerStop:
                    logger.warning("ApplicationHandlerStop means nothing to a TIMEOUT handler")
                except Exception as error:
                    await application.process_error(update, error)
        self._conversation.write(None)
