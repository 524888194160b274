"""A store that fails on demand, and PTB applications that run against a local Bot API server."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import pytest
from telegram import Update
from telegram.ext import Application, ApplicationBuilder

from sessionkit.errors import Applied, BatchFailed, StoreError, StoreUnavailable
from sessionkit.ptb import SessionApplication, SessionPersistence
from sessionkit.store import Receipt, new_version
from sessionkit.testing.botapi import BotApiServer
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from sessionkit.store import Delete, Put, Version

AnyApplication: TypeAlias = "Application[Any, Any, Any, Any, Any, Any]"


class UnsteadyStore(MemoryStore):
    """A memory store that is down when told to be, and notes its batches.

    Attributes:
        failing: What the next atomic writes raise, once done if that says so; None: nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.lasting = False
        self.refused = ""
        self.failing: list[StoreError | None] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self.batches: list[list[Put]] = []
        self.failed = asyncio.Event()
        self.saved = asyncio.Event()

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        batch = list(puts)
        self._check_up()
        self.batches.append(batch)
        if any(put.key == self.refused for put in batch):
            await super().put_many([put for put in batch if put.key != self.refused])
            self.failed.set()
            raise BatchFailed(
                [
                    StoreUnavailable("refused for now") if put.key == self.refused else Receipt(new_version())
                    for put in batch
                ]
            )
        receipts = await super().put_many(batch)
        self.saved.set()
        return receipts

    async def write_all(self, writes: Iterable[Put | Delete], *, write_id: Version | None = None) -> Receipt:
        self._check_up()
        failing = self.failing.pop(0) if self.failing else None
        if failing is not None and failing.applied is Applied.NO:
            raise failing
        receipt = await super().write_all(writes, write_id=write_id)
        self.saved.set()
        if failing is not None:
            raise failing
        return receipt

    async def put(self, key: str, value: bytes, **conditions: Any) -> Receipt:
        self._check_up()
        return await super().put(key, value, **conditions)

    async def delete(self, key: str, *, if_version: Version | None = None) -> bool:
        self._check_up()
        deleted = await super().delete(key, if_version=if_version)
        self.saved.set()
        return deleted

    async def ping(self) -> float:
        self._check_up()
        return await super().ping()

    def _check_up(self) -> None:
        if self.lasting:
            raise StoreUnavailable("the unsteady store is down for good", temporary=False)
        if self.down:
            self.meanwhile()
            self.failed.set()
            raise StoreUnavailable("the unsteady store is down")


class Running(Protocol):
    """Runs an application, built with a persistence, while the body lasts."""

    def __call__(
        self,
        persistence: SessionPersistence,
        set_up: Callable[[AnyApplication], object],
        kind: type[AnyApplication] = ...,
        configure: Callable[[Any], Any] = ...,
    ) -> AbstractAsyncContextManager[AnyApplication]: ...


@pytest.fixture
async def store() -> AsyncIterator[UnsteadyStore]:
    async with UnsteadyStore() as store:
        yield store


@pytest.fixture
async def api() -> AsyncIterator[BotApiServer]:
    async with BotApiServer() as api:
        yield api


@pytest.fixture
def running(api: BotApiServer) -> Running:
    @asynccontextmanager
    async def run(
        persistence: SessionPersistence,
        set_up: Callable[[AnyApplication], object],
        kind: type[AnyApplication] = Application,
        configure: Callable[[Any], Any] = lambda builder: builder,
    ) -> AsyncIterator[AnyApplication]:
        builder = (
            ApplicationBuilder()
            .application_class(kind)
            .token(api.token)
            .base_url(api.base_url)
            .base_file_url(api.base_file_url)
            .persistence(persistence)
        )
        application = configure(builder).build()
        set_up(application)
        async with application:
            await application.start()
            await application.updater.start_polling(poll_interval=0)
            try:
                yield application
            finally:
                await application.updater.stop()
                await application.stop()

    return run


class Instances(Protocol):
    """Runs an instance of a bot that is given its updates by hand, while the body lasts."""

    def __call__(
        self,
        set_up: Callable[[AnyApplication], object],
        *,
        configure: Callable[[Any], Any] = ...,
        persistence: SessionPersistence | None = ...,
        kind: type[AnyApplication] = ...,
        **options: Any,
    ) -> AbstractAsyncContextManager[AnyApplication]: ...


@pytest.fixture
def instance(api: BotApiServer, store: UnsteadyStore) -> Instances:
    @asynccontextmanager
    async def run(
        set_up: Callable[[AnyApplication], object],
        *,
        configure: Callable[[Any], Any] = lambda builder: builder,
        persistence: SessionPersistence | None = None,
        kind: type[AnyApplication] = SessionApplication,
        **options: Any,
    ) -> AsyncIterator[AnyApplication]:
        builder = (
            ApplicationBuilder()
            .application_class(kind, options)
            .token(api.token)
            .base_url(api.base_url)
            .persistence(persistence or SessionPersistence(store, update_interval=1000))
            .updater(None)
        )
        application = configure(builder).build()
        set_up(application)
        async with application:
            await application.start()
            try:
                yield application
            finally:
                await application.stop()

    return run


def message(
    application: AnyApplication, user_id: int, text: str, chat_id: int | None = None, **fields: Any
) -> Update:
    """Return the update of a message, in the user's private chat where no other is given."""
    chat = {"id": user_id, "type": "private"} if chat_id is None else {"id": chat_id, "type": "supergroup"}
    sender = {"id": user_id, "is_bot": False, "first_name": "Ann"}
    command = {"type": "bot_command", "offset": 0, "length": len(text.split(maxsplit=1)[0])}
    entities = [command] if text.startswith("/") else []
    content = {"message_id": 1, "date": 1, "chat": chat, "from": sender, "text": text, "entities": entities}
    update_id = fields.pop("update_id", 1)
    update = Update.de_json({"update_id": update_id, "message": {**content, **fields}}, application.bot)
    assert update is not None
    return update
