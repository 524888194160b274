"""Commits that are all or nothing: what is undone with an update, and what is not as it is another's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from telegram.ext import ContextTypes, ConversationHandler, MessageHandler, TypeHandler, filters

from sessionkit.codec import MsgpackCodec
from sessionkit.errors import (
    Applied,
    CodecError,
    StoreError,
    StoreUnavailable,
    UnsupportedType,
    UpdateSetAside,
)
from sessionkit.ptb import SessionApplication, SessionPersistence, intake, on_commit
from tests.ptb.conftest import UnsteadyStore, message
from tests.ptb.test_inbox import KEYS, emptied, idle, stored, waiting, with_inbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from telegram import Update
    from telegram.ext import BaseHandler

    from sessionkit.store import Delete, Put, Receipt, Version
    from tests.ptb.conftest import AnyApplication, Instances

Context = ContextTypes.DEFAULT_TYPE


class GatedStore(UnsteadyStore):
    """Keeps atomic writes waiting while its gate is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()

    async def write_all(self, writes: Iterable[Put | Delete], *, write_id: Version | None = None) -> Receipt:
        self.asked.set()
        await self.gate.wait()
        return await super().write_all(writes, write_id=write_id)


@pytest.fixture
async def store() -> AsyncIterator[GatedStore]:
    async with GatedStore() as store:
        yield store


class Errors(list[Any]):
    """What the error handlers are told."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()

    async def note(self, update: object, context: Context) -> None:
        self.append(context.error)
        self.told.set()


def handled_by(
    *handlers: BaseHandler[Any, Any, Any], errors: Errors | None = None
) -> Callable[[AnyApplication], None]:
    def set_up(application: AnyApplication) -> None:
        for group, handler in enumerate(handlers):
            application.add_handler(handler, group)
        if errors is not None:
            application.add_error_handler(errors.note)

    return set_up


def on_message(callback: Any, **options: Any) -> MessageHandler[Any, Any]:
    return MessageHandler(filters.ALL, callback, **options)


async def count(update: Update, context: Context) -> None:
    assert context.user_data is not None
    context.user_data["n"] = context.user_data.get("n", 0) + 1


async def count_all(update: Update, context: Context) -> None:
    await count(update, context)
    context.bot_data["n"] = context.bot_data.get("n", 0) + 1


async def test_what_a_task_changes_of_the_bots_data_during_a_commit_is_stored(
    instance: Instances, store: GatedStore
) -> None:
    go_on, done = asyncio.Event(), asyncio.Event()

    async def go_on_later(update: Update, context: Context) -> None:
        await go_on.wait()
        context.bot_data["task"] = 1
        done.set()

    handlers = on_message(go_on_later, block=False), on_message(count_all)
    async with instance(handled_by(*handlers), configure=with_inbox) as application:
        store.gate.clear()
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await store.asked.wait()
        go_on.set()
        await done.wait()
        store.gate.set()
        await idle(application)
    assert (await stored(store))[2] == {"n": 1, "task": 1}


async def add_to_bot_data(application: AnyApplication, key: str) -> None:
    assert isinstance(application, SessionApplication)
    async with application.editing():
        application.bot_data[key] = application.bot_data.get(key, 0) + 1


async def test_what_a_job_changes_of_the_bots_data_during_a_failing_commit_is_stored(
    instance: Instances, store: GatedStore
) -> None:
    async with instance(handled_by(on_message(count_all)), configure=with_inbox) as application:
        store.gate.clear()
        store.failing = [StoreUnavailable("for now")]
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await store.asked.wait()
        job = asyncio.create_task(add_to_bot_data(application, "job"))
        for _ in range(20):
            await asyncio.sleep(0)
        store.gate.set()
        await job
        assert (await stored(store))[2].get("job") == 1
        await emptied(store)
    assert (await stored(store))[2] == {"n": 1, "job": 1}


async def test_the_bots_data_never_go_back(instance: Instances, store: GatedStore) -> None:
    async with instance(handled_by(on_message(count_all)), configure=with_inbox) as application:
        store.gate.clear()
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await store.asked.wait()
        await application.update_queue.put(message(application, 7, "b", update_id=2))  # refuses the first try
        job = asyncio.create_task(add_to_bot_data(application, "job"))
        for _ in range(20):
            await asyncio.sleep(0)
        store.gate.set()
        await job
        assert (await stored(store))[2]["job"] == 1
        await idle(application)
        assert (await stored(store))[2] == {"n": 2, "job": 1}


@pytest.mark.parametrize("changed_by_both", [True, False])
async def test_what_a_task_changes_during_a_failing_commit_is_not_undone(
    instance: Instances, store: GatedStore, changed_by_both: bool
) -> None:
    errors, go_on, changed, end = Errors(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def change(update: Update, context: Context) -> None:
        assert update.message is not None
        assert context.user_data is not None
        if update.message.text == "a":
            await go_on.wait()
            context.user_data["task"] = 1
            changed.set()
            await end.wait()

    handlers = [on_message(change, block=False), *([on_message(count)] if changed_by_both else [])]
    async with instance(handled_by(*handlers, errors=errors), configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await idle(application)
        store.gate.clear()
        store.asked.clear()
        store.failing = [StoreUnavailable("for now")]
        await application.update_queue.put(message(application, 7, "b", update_id=2))
        await store.asked.wait()
        go_on.set()
        await changed.wait()
        store.gate.set()
        await errors.told.wait()
        await emptied(store)
        end.set()
    assert (await stored(store))[0] == {7: {"task": 1} | ({"n": 2} if changed_by_both else {})}


class Switching:
    """Sets the same of the bot's data with each message but the first; a slow one waits before."""

    def __init__(self) -> None:
        self.slow = asyncio.Event()
        self.go_on = asyncio.Event()

    async def switch(self, update: Update, context: Context) -> None:
        assert update.message is not None
        if update.message.text == "first":
            context.bot_data["n"] = 5
            return
        context.bot_data["on"] = True
        if update.message.text == "slow":
            self.slow.set()
            await self.go_on.wait()


@pytest.mark.parametrize("fails", [False, True])
async def test_an_update_that_changes_nothing_of_what_is_stored_keeps_nobody_waiting(
    instance: Instances, store: GatedStore, fails: bool
) -> None:
    bot = Switching()
    async with instance(handled_by(on_message(bot.switch)), configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "first", update_id=1))
        await idle(application)
        await application.update_queue.put(message(application, 7, "slow", update_id=2))
        await bot.slow.wait()
        await application.process_update(message(application, 8, "quick", update_id=3))
        store.failing = [StoreUnavailable("for now")] if fails else []
        store.gate.clear()
        store.asked.clear()
        bot.go_on.set()
        await store.asked.wait()
        await add_to_bot_data(application, "job")
        assert (await stored(store))[2] == {"n": 5, "on": True, "job": 1}
        store.gate.set()
        await emptied(store)
    assert (await stored(store))[2] == {"n": 5, "on": True, "job": 1}


async def test_what_another_instance_set_meanwhile_doubles_nothing(
    instance: Instances, store: GatedStore
) -> None:
    bot = Switching()
    set_up = handled_by(on_message(bot.switch))
    async with (
        instance(set_up, configure=with_inbox) as here,
        instance(set_up, configure=with_inbox) as there,
    ):
        await here.update_queue.put(message(here, 7, "first", update_id=1))
        await idle(here)
        store.gate.clear()
        store.asked.clear()
        await here.update_queue.put(message(here, 8, "on", update_id=2))
        await store.asked.wait()
        assert isinstance(there, SessionApplication)
        async with there.editing():
            there.bot_data["on"] = True
        store.failing = [None, StoreUnavailable("for now")]
        store.gate.set()
        await emptied(store)
    assert (await stored(store))[2] == {"n": 5, "on": True}


async def test_a_promise_waits_for_the_bots_data(instance: Instances, store: GatedStore) -> None:
    class Own:
        """An update of the bot's own."""

    promised: list[Any] = []

    async def note() -> None:
        promised.append((await stored(store))[2])

    async def own(update: Own, context: Context) -> None:
        context.bot_data["own"] = 1
        on_commit(note)

    handlers = on_message(count_all), TypeHandler(Own, own)
    async with instance(handled_by(*handlers), configure=with_inbox) as application:
        store.gate.clear()
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await store.asked.wait()
        processing = asyncio.create_task(application.process_update(Own()))
        for _ in range(50):
            await asyncio.sleep(0)
        store.gate.set()
        await processing
    assert promised == [{"n": 1, "own": 1}]


async def test_what_is_changed_of_the_bots_data_while_it_stops_is_stored(
    instance: Instances, store: GatedStore
) -> None:
    async with instance(handled_by(on_message(count_all)), configure=with_inbox) as application:
        store.gate.clear()
        processing = asyncio.create_task(
            application.process_update(message(application, 7, "a", update_id=1))
        )
        await store.asked.wait()
        processing.cancel()
        await asyncio.wait([processing])
        application.bot_data["errors"] = 1
        asyncio.get_running_loop().call_later(0.2, store.gate.set)
    assert (await stored(store))[2] == {"n": 1, "errors": 1}


async def test_what_was_kept_to_be_written_is_not_undone(instance: Instances, store: GatedStore) -> None:
    errors = Errors()
    async with instance(handled_by(on_message(count), errors=errors), configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await idle(application)
        assert isinstance(application, SessionApplication)
        store.refused = KEYS.users.key(7)
        with pytest.raises(StoreUnavailable):
            async with application.user_data_of(7) as data:
                data["kept"] = 1
        store.refused = ""
        store.failing = [StoreUnavailable("for now")]
        await application.update_queue.put(message(application, 7, "b", update_id=2))
        await errors.told.wait()
        await emptied(store)
    assert (await stored(store))[0] == {7: {"n": 2, "kept": 1}}


async def test_what_a_task_has_changed_before_is_not_undone(instance: Instances, store: GatedStore) -> None:
    errors, changed, go_on = Errors(), asyncio.Event(), asyncio.Event()

    async def change(update: Update, context: Context) -> None:
        assert update.message is not None
        assert context.user_data is not None
        if update.message.text == "a":
            context.user_data["task"] = 1
            changed.set()
            await go_on.wait()

    handlers = on_message(change, block=False), on_message(count)
    async with instance(handled_by(*handlers, errors=errors), configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await changed.wait()
        await idle(application)
        store.failing = [StoreUnavailable("for now")]
        await application.update_queue.put(message(application, 7, "b", update_id=2))
        await errors.told.wait()
        await emptied(store)
        go_on.set()
    assert (await stored(store))[0] == {7: {"n": 2, "task": 1}}


async def test_a_handler_that_still_runs_gives_its_state_though_a_commit_failed(
    instance: Instances, store: GatedStore
) -> None:
    errors, go_on = Errors(), asyncio.Event()

    async def enter(update: Update, context: Context) -> int:
        await go_on.wait()
        return 1

    entry: MessageHandler[Any, Any] = MessageHandler(filters.Text(["a"]), enter, block=False)
    conversation: ConversationHandler[Any] = ConversationHandler(
        [entry], {1: [entry]}, [], name="enter", persistent=True
    )
    handlers = conversation, on_message(count)
    async with instance(handled_by(*handlers, errors=errors), configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await idle(application)
        store.failing = [StoreUnavailable("for now")]
        await application.update_queue.put(message(application, 7, "b", update_id=2))
        await errors.told.wait()
        await emptied(store)
        go_on.set()
    assert await SessionPersistence(store).get_conversations("enter") == {(7, 7): 1}


async def test_an_update_that_is_stored_is_answered_whatever_else_is_not(
    instance: Instances, store: GatedStore
) -> None:
    answered, errors = asyncio.Event(), Errors()

    async def answer() -> None:
        answered.set()

    async def answer_later(update: Update, context: Context) -> None:
        await count(update, context)
        on_commit(answer)

    async with instance(
        handled_by(on_message(answer_later), errors=errors), configure=with_inbox
    ) as application:
        assert isinstance(application, SessionApplication)
        store.refused = KEYS.bot
        with pytest.raises(StoreUnavailable):
            async with application.editing():
                application.bot_data["job"] = 1
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await errors.told.wait()
        assert (await stored(store))[0] == {7: {"n": 1}}
        assert not answered.is_set()
        store.refused = ""
        async with asyncio.timeout(30):
            await answered.wait()


@pytest.mark.parametrize("applied", [Applied.NO, Applied.MAYBE])
async def test_what_nobody_stored_of_the_bots_data_counts_once(
    instance: Instances, store: GatedStore, applied: Applied
) -> None:
    errors = Errors()
    async with instance(
        handled_by(on_message(count_all), errors=errors), configure=with_inbox
    ) as application:
        application.bot_data["n"] = 1
        store.failing = [StoreUnavailable("the answer is lost", applied=applied)]
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await errors.told.wait()
        await emptied(store)
        await idle(application)
        await application.update_persistence()
    assert (await stored(store))[2] == {"n": 2}


async def test_nothing_is_held_before_it_can_be_written(instance: Instances, store: GatedStore) -> None:
    second = asyncio.Event()

    async def handle(update: Update, context: Context) -> None:
        await count_all(update, context)
        if update.update_id == 2:
            second.set()

    async with instance(handled_by(on_message(handle)), configure=with_inbox) as application:
        store.gate.clear()
        await application.update_queue.put(message(application, 1, "a", update_id=1))
        await store.asked.wait()
        # PTB's own saving waits for the bot's data, too, and would take along what is held meanwhile.
        saving = asyncio.create_task(application.update_persistence())
        await asyncio.sleep(0)
        await application.update_queue.put(message(application, 2, "b", update_id=2))
        await second.wait()
        await asyncio.sleep(0)
        store.gate.set()
        await saving
        await idle(application)
    assert store.batches == []
    assert await stored(store) == ({1: {"n": 1}, 2: {"n": 1}}, {}, {"n": 2})


async def test_what_a_handler_edits_of_its_own_data_is_stored_with_its_update(
    instance: Instances, store: GatedStore
) -> None:
    async def edit(update: Update, context: Context) -> None:
        await count_all(update, context)
        assert isinstance(context.application, SessionApplication)
        async with context.application.user_data_of(7) as data:
            data["edited"] = data.get("edited", 0) + 1
            context.bot_data["n"] += 1
        async with context.application.user_data_of(8) as data:
            data["n"] = 1

    store.failing = [StoreUnavailable("for now")]
    async with instance(handled_by(on_message(edit)), configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await emptied(store)
        await idle(application)
    assert await stored(store) == ({7: {"n": 1, "edited": 1}, 8: {"n": 1}}, {}, {"n": 2})


async def test_error_handlers_see_what_the_user_has_stored(instance: Instances, store: GatedStore) -> None:
    seen: list[object] = []

    async def look(update: object, context: Context) -> None:
        seen.append(dict(context.user_data or {}))

    def set_up(application: AnyApplication) -> None:
        application.add_handler(on_message(count))
        application.add_error_handler(look)

    async with instance(set_up, configure=with_inbox) as application:
        for number in (1, 2):
            await application.update_queue.put(message(application, 7, "a", update_id=number))
            await emptied(store)
            await idle(application)
            store.failing = [StoreUnavailable("for now")]
    assert seen == [{"n": 1}]
    assert (await stored(store))[0] == {7: {"n": 2}}


async def test_a_state_that_is_never_stored_is_undone_with_its_update(
    instance: Instances, store: GatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_FIRST_PAUSE", 0.02)

    async def step(update: Update, context: Context) -> int:
        await count(update, context)
        assert context.user_data is not None
        return ConversationHandler.END if context.user_data["n"] == 3 else int(context.user_data["n"])

    handlers = [
        ConversationHandler(
            entry_points=[MessageHandler(filters.Text(["1"]), step)],
            states={1: [MessageHandler(filters.Text(["2"]), step)], 2: [on_message(step)]},
            fallbacks=[],
        )
    ]
    async with instance(handled_by(*handlers), configure=with_inbox) as application:
        for number in (1, 2, 3):
            store.failing = [StoreUnavailable("for now")]
            await application.update_queue.put(message(application, 7, f"{number}", update_id=number))
            await emptied(store)
            await idle(application)
    assert (await stored(store))[0] == {7: {"n": 3}}


@pytest.mark.parametrize("fails", [1, 2], ids=["the one that marked", "the other"])
async def test_what_is_marked_for_somebody_in_the_middle_of_an_update_is_stored_apart(
    instance: Instances, store: GatedStore, fails: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_FIRST_PAUSE", 0.02)
    outage: dict[int, list[StoreError | None]] = {fails: [StoreUnavailable("for now")]}
    began, go_on = ({user: asyncio.Event() for user in (1, 2)} for _ in range(2))

    async def handle(update: Update, context: Context) -> None:
        assert update.effective_user is not None
        user = update.effective_user.id
        if user == 1:
            context.application.user_data[2]["gift"] = 1
            context.application.mark_data_for_update_persistence(user_ids=2)
        else:
            await count(update, context)
        began[user].set()
        await go_on[user].wait()
        store.failing = outage.pop(user, [])

    async with instance(handled_by(on_message(handle)), configure=with_inbox) as application:
        for user in (1, 2):
            await application.update_queue.put(message(application, user, "a", update_id=user))
            await began[user].wait()
        for user in (1, 2):
            go_on[user].set()
            while KEYS.inboxes.key(user) in await waiting(store):
                store.saved.clear()
                await store.saved.wait()
        await idle(application)
    assert (await stored(store))[0] == {2: {"gift": 1, "n": 1}}


@pytest.mark.parametrize("spoilt", ["user_data", "chat_data", "bot_data"])
async def test_an_update_that_leaves_what_cannot_be_stored_changes_nothing(
    instance: Instances, store: GatedStore, spoilt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_FIRST_PAUSE", 0.02)
    errors, answered = Errors(), []

    async def answer(text: str) -> None:
        answered.append(text)

    async def spoil(update: Update, context: Context) -> None:
        assert update.message is not None
        assert update.message.text is not None
        await count_all(update, context)
        if update.message.text == "bad":
            getattr(context, spoilt)["x"] = object()
        on_commit(answer, update.message.text)

    async with instance(handled_by(on_message(spoil), errors=errors), configure=with_inbox) as application:
        for number, text in enumerate(["a", "bad", "b"], start=1):
            await application.update_queue.put(message(application, 7, text, update_id=number))
        await emptied(store)
        await idle(application)
    assert answered == ["a", "b"]
    assert await stored(store) == ({7: {"n": 2}}, {}, {"n": 2})
    assert [type(error) for error in errors] == [UnsupportedType] * 4 + [UpdateSetAside]


async def test_an_update_waits_until_the_data_of_its_user_can_be_read(
    instance: Instances, store: GatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_FIRST_PAUSE", 0.02)
    codec, key, errors = MsgpackCodec(schema=9), KEYS.users.key(7), Errors()
    newer = codec.wrap(codec.pack({"n": 5}, name="data"), key=key)
    await store.put(key, newer)
    async with instance(handled_by(on_message(count), errors=errors), configure=with_inbox) as application:
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await errors.told.wait()
        await application.update_queue.put(message(application, 8, "a", update_id=2))
        await idle(application)
    assert [type(error) for error in errors] == [CodecError]
    found = await store.get(key)
    assert found is not None
    assert found.value == newer
    assert await waiting(store) == [KEYS.inboxes.key(7)]
    older = MsgpackCodec()
    await store.put(key, older.wrap(older.pack({"n": 5}, name="data"), key=key))
    async with instance(handled_by(on_message(count), errors=errors), configure=with_inbox) as application:
        await emptied(store)
        await idle(application)
    assert (await stored(store))[0] == {7: {"n": 6}, 8: {"n": 1}}
    assert len(errors) == 1


async def test_an_unreadable_record_of_somebody_else_does_not_undo_an_update(
    instance: Instances, store: GatedStore
) -> None:
    newer, key = MsgpackCodec(schema=9), KEYS.users.key(8)
    data = newer.wrap(newer.pack({}, name="data"), key=key)
    await store.put(key, data)

    async def drop(update: Update, context: Context) -> None:
        await count(update, context)
        context.application.drop_user_data(8)

    async with instance(handled_by(on_message(drop)), configure=with_inbox) as application:
        application.user_data[8]["n"] = 1
        await application.update_queue.put(message(application, 7, "a", update_id=1))
        await idle(application)
        assert await waiting(store) == []
    record = await store.get(key)
    assert record is not None
    assert record.value == data
    assert (await stored(store))[0] == {7: {"n": 1}}
