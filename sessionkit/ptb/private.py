"""Every private name of python-telegram-bot that sessionkit touches.

PTB tells a persistence of changes through ``Application.update_persistence``, which forgets its marks and
copies the values then: one value that cannot be copied loses the changes of everybody else in that run, and
data dropped and filled again within one run stay dropped. So the marks are read here instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from telegram.ext._handlers.conversationhandler import PendingState
from telegram.ext._utils.trackingdict import TrackingDict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from telegram.ext import Application


class Changes(NamedTuple):
    """What changed since PTB was asked last; None stands for what was dropped or has ended.

    Attributes:
        users: Data by user id.
        chats: Data by chat id.
        conversations: States by handler name and conversation key.
    """

    users: dict[int, Any]
    chats: dict[int, Any]
    conversations: dict[tuple[str, tuple[int | str, ...]], object | None]


def take_changes(application: Application[Any, Any, Any, Any, Any, Any]) -> Changes:
    """Return what PTB has marked as changed, and clear its marks. Nothing is copied."""
    return Changes(
        users=_marked(
            application.user_data,
            application._user_ids_to_be_updated_in_persistence,
            application._user_ids_to_be_deleted_in_persistence,
        ),
        chats=_marked(
            application.chat_data,
            application._chat_ids_to_be_updated_in_persistence,
            application._chat_ids_to_be_deleted_in_persistence,
        ),
        conversations=dict(_states(application)),
    )


def _marked(data: Mapping[int, Any], updated: set[int], deleted: set[int]) -> dict[int, Any]:
    # What was dropped and is there again was filled since.
    marked = {number: data.get(number) for number in deleted}
    marked.update({number: data[number] for number in updated - deleted})
    updated.clear()
    deleted.clear()
    return marked


def _states(
    application: Application[Any, Any, Any, Any, Any, Any],
) -> Iterator[tuple[tuple[str, tuple[int | str, ...]], object | None]]:
    for name, states in application._conversation_handler_conversations.items():
        for key, state in states.pop_accessed_write_items():
            reached = state
            if isinstance(state, PendingState):
                if state.done() and not state.task.cancelled():
                    reached = state.resolve()
                else:
                    # Its handler still runs, or never ended: the state before it is the best there is.
                    if not state.done():
                        states.mark_as_accessed(key)
                    reached = state.old_state
            yield (name, key), None if reached is TrackingDict.DELETED else reached
