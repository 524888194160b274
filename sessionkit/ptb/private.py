"""Every private name of python-telegram-bot that sessionkit touches.

PTB tells a persistence of changes through ``Application.update_persistence``, which forgets its marks and
copies the values then: one value that cannot be copied loses the changes of everybody else in that run, and
data dropped and filled again within one run stay dropped. So the marks are read here instead. And PTB reads
conversations once, at start; what another process made of them has to be put into its memory.

========================================================  =================================================
name                                                      what for
========================================================  =================================================
``Application._user_data``, ``._chat_data``               put there, and removed, what others wrote
``Application._{user,chat}_ids_to_be_{updated,deleted}_in_persistence``  what changed outside of an update
``Application._conversation_handler_conversations``       the states by handler name
``ConversationHandler._conversations``                    the states of one that is not persistent
``TrackingDict``                                          a state changed, or put there unmarked
``PendingState``                                          the state while a non-blocking handler runs
``ConversationHandler._trigger_timeout``                  tells a conversation's timeout from other jobs
``_ConversationTimeoutContext``                           the key and the update of such a timeout
``_picklepersistence._BotUnpickler``                      reads files of ``PicklePersistence``
========================================================  =================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from telegram.ext import ConversationHandler
from telegram.ext._handlers.conversationhandler import PendingState, _ConversationTimeoutContext
from telegram.ext._picklepersistence import _BotUnpickler
from telegram.ext._utils.trackingdict import TrackingDict

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from telegram import Update
    from telegram.ext import Application

    from sessionkit.ptb.data_keys import ConversationKey

    AnyApplication: TypeAlias = Application[Any, Any, Any, Any, Any, Any]


class Marks(NamedTuple):
    """What PTB has marked as changed.

    Attributes:
        users: The ids of users.
        chats: The ids of chats.
        conversations: Handler names and conversation keys.
    """

    users: set[int]
    chats: set[int]
    conversations: set[tuple[str, ConversationKey]]


class Timeout(NamedTuple):
    """A conversation's timeout as PTB hands it to its job queue.

    Attributes:
        handler: The conversation's handler.
        key: The conversation's key.
        update: Its last update.
    """

    handler: ConversationHandler[Any]
    key: ConversationKey
    update: Update


def take_marks(application: AnyApplication) -> Marks:
    """Return what PTB has marked as changed or dropped, and clear its marks."""
    users = application._user_ids_to_be_updated_in_persistence
    dropped_users = application._user_ids_to_be_deleted_in_persistence
    chats = application._chat_ids_to_be_updated_in_persistence
    dropped_chats = application._chat_ids_to_be_deleted_in_persistence
    marks = Marks(users | dropped_users, chats | dropped_chats, set())
    for ids in (users, dropped_users, chats, dropped_chats):
        ids.clear()
    for name, states in application._conversation_handler_conversations.items():
        marks.conversations.update((name, key) for key in states.pop_accessed_keys())
    return marks


def unmark(application: AnyApplication, users: Iterable[int], chats: Iterable[int]) -> None:
    """Clear PTB's marks of these users and chats."""
    application._user_ids_to_be_updated_in_persistence.difference_update(users)
    application._user_ids_to_be_deleted_in_persistence.difference_update(users)
    application._chat_ids_to_be_updated_in_persistence.difference_update(chats)
    application._chat_ids_to_be_deleted_in_persistence.difference_update(chats)


def mark_again(application: AnyApplication, marks: Marks) -> None:
    """Mark what was taken, to be looked at later."""
    application._user_ids_to_be_updated_in_persistence.update(marks.users)
    application._chat_ids_to_be_updated_in_persistence.update(marks.chats)
    for name, key in marks.conversations:
        application._conversation_handler_conversations[name].mark_as_accessed(key)


def put_user_data(application: AnyApplication, user_id: int, data: object | None) -> None:
    """Put a user's data into PTB's memory; None: remove them."""
    _put(application._user_data, user_id, data)


def put_chat_data(application: AnyApplication, chat_id: int, data: object | None) -> None:
    """Put a chat's data into PTB's memory; None: remove them."""
    _put(application._chat_data, chat_id, data)


def read_state(application: AnyApplication, name: str, key: ConversationKey) -> object | None:
    """Return the state of a conversation, or None where it has ended.

    While a non-blocking handler still runs, it is the state before it.
    """
    state = _states(application, name).get(key)
    if isinstance(state, PendingState):
        # A handler that never ended leaves the state before it, the best there is.
        ended = state.done() and not state.task.cancelled()
        state = state.resolve() if ended else state.old_state
    return None if state == ConversationHandler.END else state


def is_running(application: AnyApplication, name: str, key: ConversationKey) -> bool:
    """Whether a non-blocking handler may still give the conversation its state."""
    return isinstance(_states(application, name).get(key), PendingState)


def put_state(application: AnyApplication, name: str, key: ConversationKey, state: object | None) -> None:
    """Put the state of a conversation into PTB's memory, unmarked; None: it has ended."""
    states = _states(application, name)
    if state is None:
        states.data.pop(key, None)
    else:
        states.update_no_track({key: state})


def passing_states(handler: ConversationHandler[Any]) -> MutableMapping[ConversationKey, object]:
    """Return the states of a handler that is not persistent, as PTB has them in memory."""
    return handler._conversations


def conversation_keys(application: AnyApplication, name: str) -> list[ConversationKey]:
    """Return the keys of a handler's conversations that PTB has in memory."""
    return list(_states(application, name))


def take_state(
    application: AnyApplication, name: str, key: ConversationKey, new_key: ConversationKey
) -> None:
    """Give a conversation another key, and mark both as changed."""
    states = _states(application, name)
    states.setdefault(new_key, states.pop(key))


def read_timeout(callback: object, data: object) -> Timeout | None:
    """Return the timeout that PTB gives its job queue with this callback and these data, or None."""
    handler = getattr(callback, "__self__", None)
    if isinstance(data, _ConversationTimeoutContext) and isinstance(handler, ConversationHandler):
        trigger = ConversationHandler._trigger_timeout
        if getattr(callback, "__func__", None) is trigger:
            return Timeout(handler, data.conversation_key, data.update)
    return None


def _put(memory: dict[int, Any], number: int, data: object | None) -> None:
    if data is None:
        memory.pop(number, None)
    else:
        memory[number] = data


def _states(application: AnyApplication, name: str) -> TrackingDict[ConversationKey, Any]:
    found = application._conversation_handler_conversations.get(name)
    # One whose handler came after the start, and is not known to PTB yet.
    return TrackingDict() if found is None else found


BotUnpickler = _BotUnpickler
"""Reads the pickles of ``PicklePersistence``, in which marks stand for bots."""
