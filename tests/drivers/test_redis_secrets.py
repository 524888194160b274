"""No password and no payload in any log line, repr, traceback or error."""

from __future__ import annotations

import asyncio
import logging
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import redis

from sessionkit.errors import BatchFailed, SessionKitError
from sessionkit.registry import open_driver
from sessionkit.store import ABSENT, Put
from sessionkit.testing.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sessionkit.store import SessionStore
    from sessionkit.testing.servers import ServerBinary

PASSWORD = "hunter2-password"
PAYLOAD = b"hunter2-payload"
SECRET = "hunter2"


@pytest.fixture
def guarded_server(server_binary: ServerBinary) -> Iterator[RedisServer]:
    with RedisServer(server_binary, password=PASSWORD) as server:
        yield server


@pytest.fixture
async def texts(caplog: pytest.LogCaptureFixture) -> AsyncIterator[list[str]]:
    """What a test adds, and at its end every log line; none may hold a secret."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    shown: list[str] = []
    yield shown
    shown += [caplog.text, *(repr(vars(record)) for record in caplog.records)]
    assert any(shown)
    assert SECRET not in "\n".join(shown)


async def failures_of_every_operation(store: SessionStore) -> list[str]:
    """Return the results of operations of which some must fail, and all that their errors show."""
    shown = []
    operations = (
        lambda: store.put("key", PAYLOAD),
        lambda: store.put("key", PAYLOAD, if_version=ABSENT),
        lambda: store.put("key", PAYLOAD, expires_in=-1),
        lambda: store.put_many([Put("key", PAYLOAD), Put("list", PAYLOAD), Put("k", PAYLOAD, None, ABSENT)]),
        lambda: store.get("key"),
        lambda: store.get("foreign"),
        lambda: store.get_many(["key", "list"]),
        lambda: store.delete("list", if_version=None),
        lambda: store.touch("foreign", expires_in=5),
        lambda: store.lock("list#", wait=0.1).__aenter__(),
        lambda: store.lock("key", wait=0.1).__aenter__(),
        lambda: store.ping(),
    )
    for operation in operations:
        try:
            shown.append(repr(await operation()))
        except SessionKitError as error:
            shown += traceback.format_exception(error)
            shown += [str(error), repr(error), repr(vars(error))]
            if isinstance(error, BatchFailed):
                shown += map(repr, error.results)
    return shown


def reprs_of(thing: object, seen: set[int]) -> Iterator[str]:
    """Yield the repr of each object of ours within reach."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, (list, tuple, set, frozenset, dict)):
        for item in thing.values() if isinstance(thing, dict) else thing:
            yield from reprs_of(item, seen)
    elif type(thing).__module__.startswith("sessionkit"):
        yield repr(thing)
        for value in getattr(thing, "__dict__", {}).values():
            yield from reprs_of(value, seen)


async def test_while_all_is_well_and_while_the_server_is_away(
    guarded_server: RedisServer, texts: list[str]
) -> None:
    admin = redis.Redis(port=guarded_server.port, password=PASSWORD)
    async with open_driver(guarded_server.url(), timeout=0.5) as store:
        admin.set("foreign", PAYLOAD)
        admin.rpush("list", PAYLOAD)
        texts += await failures_of_every_operation(store)
        texts += reprs_of(store, set())
        admin.config_set("maxmemory", 1)
        texts += await failures_of_every_operation(store)
        waiting = asyncio.create_task(store.put("key", PAYLOAD))
        guarded_server.kill()
        with suppress(SessionKitError):
            await waiting
        texts += await failures_of_every_operation(store)
        texts += reprs_of(store, set())


@pytest.mark.parametrize("given", ["in the URL", "as an option"])
async def test_while_the_login_is_refused(guarded_server: RedisServer, texts: list[str], given: str) -> None:
    wrong = f"not-{PASSWORD}"
    if given == "in the URL":
        store = open_driver(f"redis://user:{wrong}@127.0.0.1:{guarded_server.port}")
    else:
        store = open_driver(f"redis://127.0.0.1:{guarded_server.port}", password=wrong)
    async with store:
        texts += await failures_of_every_operation(store)
        texts += reprs_of(store, set())


async def test_a_log_line_is_written_for_a_lost_connection(
    guarded_server: RedisServer, texts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with open_driver(guarded_server.url(), timeout=0.5) as store:
        await store.put("key", PAYLOAD)
        guarded_server.kill()
        texts += await failures_of_every_operation(store)
    assert "connected to redis://***@127.0.0.1" in caplog.text
    assert "failed: redis://***@127.0.0.1" in caplog.text
