"""Conversations of a message each, also of inline messages, whose ids are strings and belong to no chat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from telegram import Update
from telegram.ext import (
    Application,
    CallbackQueryHandler,
    ContextTypes,
    ConversationHandler,
)

from sessionkit.ptb import SessionApplication, SessionPersistence

if TYPE_CHECKING:
    from tests.ptb.conftest import AnyApplication, Instances, UnsteadyStore

Context = ContextTypes.DEFAULT_TYPE
ADA = {"id": 1, "is_bot": False, "first_name": "Ada"}


def stepwise(seen: list[tuple[str, object]], **options: Any) -> ConversationHandler[Context]:
    """Return a conversation of two presses; it notes what each one met."""

    def step(name: str, state: object) -> CallbackQueryHandler[Context, object]:
        async def pressed(update: Update, _: Context) -> object:
            assert update.callback_query is not None
            seen.append((name, update.callback_query.data))
            return state

        return CallbackQueryHandler(pressed)

    return ConversationHandler(
        entry_points=[step("first", "begun")],
        states={"begun": [step("second", ConversationHandler.END)]},
        fallbacks=[],
        per_message=True,
        name="poll",
        persistent=True,
        **options,
    )


def press(application: AnyApplication, data: str, **where: object) -> Update:
    query = {"id": "1", "from": ADA, "chat_instance": "1", "data": data, **where}
    update = Update.de_json({"update_id": 1, "callback_query": query}, application.bot)
    assert update is not None
    return update


def under(number: int) -> dict[str, object]:
    """Return what a query says of the message its button is under."""
    chat = {"id": 1, "type": "private"}
    return {"message": {"message_id": number, "date": 1, "chat": chat, "text": "?"}}


@pytest.mark.parametrize("kind", [Application, SessionApplication], ids=["stock", "many instances"])
async def test_each_message_has_a_conversation_that_outlives_the_process(
    kind: type[AnyApplication], store: UnsteadyStore, instance: Instances
) -> None:
    seen: list[tuple[str, object]] = []

    async def process(*presses: tuple[str, int]) -> None:
        async with instance(lambda bot: bot.add_handler(stepwise(seen)), kind=kind) as application:
            for data, number in presses:
                await application.process_update(press(application, data, **under(number)))

    await process(("a", 10), ("b", 11))
    await process(("c", 10))
    await process(("d", 10), ("e", 11))
    assert seen == [("first", "a"), ("first", "b"), ("second", "c"), ("first", "d"), ("second", "e")]
    assert {key async for key in store.scan("telegram_bot:conversation:")} == {
        "telegram_bot:conversation:poll:1:1:10"
    }


@pytest.mark.filterwarnings(
    "ignore:If 'per_message=True' is used, 'per_chat=True'"
)  # an inline message has none
@pytest.mark.parametrize("per_user", [True, False], ids=["of each user", "of all"])
@pytest.mark.parametrize("kind", [Application, SessionApplication], ids=["stock", "many instances"])
async def test_an_inline_message_has_a_conversation_without_a_chat(
    kind: type[AnyApplication], per_user: bool, store: UnsteadyStore, instance: Instances
) -> None:
    seen: list[tuple[str, object]] = []

    async def process(data: str, inline_id: str) -> None:
        conversation = stepwise(seen, per_chat=False, per_user=per_user)
        async with instance(lambda bot: bot.add_handler(conversation), kind=kind) as application:
            await application.process_update(press(application, data, inline_message_id=inline_id))

    for data, inline_id in (("a", "AAQ:7/x*"), ("b", "12"), ("c", "AAQ:7/x*")):
        await process(data, inline_id)
    assert seen == [("first", "a"), ("first", "b"), ("second", "c")]
    (key,) = [key async for key in store.scan("telegram_bot:conversation:")]
    assert SessionPersistence(store).records.keys.conversations.parts(key)[-1] == "12", "a str is not an int"
