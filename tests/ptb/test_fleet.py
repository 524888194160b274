"""Several processes of a bot behind one webhook."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from sessionkit import open_store
from sessionkit.ptb import SessionPersistence
from sessionkit.ptb.data_keys import DataKeys
from sessionkit.ptb.inbox import DEFAULT_ATTEMPTS
from tests.ptb.fleet import Crowd, Fleet, harass

if TYPE_CHECKING:
    from pathlib import Path

    from sessionkit.store import SessionStore
    from sessionkit.testing.botapi import BotApiServer, Call
    from sessionkit.testing.servers import RedisServer

NAPPERS = 5
USERS = 50
GROUPS = 5


@pytest.fixture
def updates(request: pytest.FixtureRequest) -> int:
    return 5_000 if request.config.getoption("heavy") else 300


async def roam(crowd: Crowd, api: BotApiServer, updates: int) -> None:
    """Have everybody walk in their private chat and, at the same time, in one of the groups."""
    steps = updates // (2 * USERS)
    async with asyncio.TaskGroup() as walks:
        for number in range(1, USERS + 1):
            user = api.user(number)
            walks.create_task(crowd.walk(user, None, steps))
            walks.create_task(crowd.walk(user, api.group(-1000 - number % GROUPS), steps))


def expected(seen: dict[tuple[int, int], int]) -> tuple[dict[int, Any], dict[int, Any], Any]:
    """Return the data of users and chats, and the states of conversations, after all that was answered."""
    users: dict[int, Any] = {}
    chats: dict[int, Any] = {}
    states: dict[tuple[int, int], str] = {}
    for (user, chat), steps in seen.items():
        data = users.setdefault(user, {"n": 0})
        data["n"] += steps
        data[f"last in {chat}"] = steps
        chats.setdefault(chat, {"n": 0})["n"] += steps
        if steps % 3:
            states[chat, user] = ("none", "one", "two")[steps % 3]
    return users, chats, states


@pytest.mark.parametrize("server_binary", ["valkey"], indirect=True)
@pytest.mark.parametrize("size", [2, 4])
async def test_several_instances_act_as_one(
    api: BotApiServer,
    redis_server: RedisServer,
    tmp_path: Path,
    size: int,
    updates: int,
    request: pytest.FixtureRequest,
) -> None:
    if size > 2 and not request.config.getoption("heavy"):
        pytest.skip("more than two instances: --heavy")
    async with Fleet(api, redis_server.url(), size, tmp_path) as fleet:
        crowd = Crowd(api, patience=60)
        await roam(crowd, api, updates)
    assert (crowd.wrong, crowd.unanswered, fleet.output()) == ([], 0, "")
    assert sum(crowd.seen.values()) == updates
    stored = SessionPersistence(redis_server.url())
    users, chats, states = expected(crowd.seen)
    assert await stored.get_user_data() == users
    assert await stored.get_chat_data() == chats
    assert await stored.get_bot_data() == {"n": updates}
    assert await stored.get_conversations("steps") == states
    await stored.flush()


@pytest.mark.parametrize("server_binary", ["valkey"], indirect=True)
async def test_instances_that_are_killed_take_no_answer_back(
    api: BotApiServer,
    redis_server: RedisServer,
    tmp_path: Path,
    updates: int,
    request: pytest.FixtureRequest,
    record_property: Any,
) -> None:
    heavy = request.config.getoption("heavy")
    # A process that is killed keeps its turns for as long as the lease.
    lease = "5" if heavy else "1"
    async with Fleet(api, redis_server.url(), 4 if heavy else 2, tmp_path, LEASE=lease) as fleet:
        crowd = Crowd(api, patience=20 if heavy else 5)
        killer = asyncio.create_task(
            harass(fleet, crowd.answered, 25 if heavy else 1, 200 if heavy else 60, random.Random(1))
        )
        await roam(crowd, api, updates)
        killer.cancel()
    record_property("unanswered", crowd.unanswered)
    sys.stdout.write(f"{updates} steps, {fleet.kills} kills, {crowd.unanswered} sent again\n")
    assert crowd.wrong == []
    stored = SessionPersistence(redis_server.url())
    users, chats, states = expected(crowd.seen)
    # Each step was sent until it was answered, and a step that was sent again counts once.
    assert await stored.get_user_data() == users
    assert await stored.get_conversations("steps") == states
    for chat, data in (await stored.get_chat_data()).items():
        assert data["n"] <= chats[chat]["n"]
    assert updates - crowd.unanswered <= (await stored.get_bot_data())["n"] <= updates
    await stored.flush()


async def emptied(api: BotApiServer, store: SessionStore) -> None:
    """Return once every update is processed; looked at, as only the store knows."""
    inboxes = DataKeys("telegram_bot:").inboxes.start
    async with asyncio.timeout(300):
        while True:
            waiting = [key async for key in store.scan(inboxes)]
            if not (waiting or api.pending_updates):
                return
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("server_binary", ["valkey"], indirect=True)
@pytest.mark.parametrize("size", [1, 2, 4])
async def test_with_an_inbox_no_update_is_missing_and_none_counts_twice(
    api: BotApiServer,
    redis_server: RedisServer,
    tmp_path: Path,
    size: int,
    updates: int,
    request: pytest.FixtureRequest,
) -> None:
    heavy = request.config.getoption("heavy")
    if size != 2 and not heavy:
        pytest.skip("other than two instances: --heavy")
    answered = asyncio.Semaphore(0)

    @api.on_call
    def note(call: Call) -> None:
        if call.method == "sendMessage":
            answered.release()

    ticks = list(range(1, updates // (2 * USERS) + 1))
    store = open_store(redis_server.url())
    async with (
        store,
        Fleet(api, redis_server.url(), size, tmp_path, LEASE="5" if heavy else "1", INBOX="50") as fleet,
    ):
        killer = asyncio.create_task(
            harass(fleet, answered, 25 if heavy else 2, 150 if heavy else 60, random.Random(size))
        )
        for number in ticks:  # nobody waits for an answer
            for user in map(api.user, range(1, USERS + 1)):
                await user.send(f"tick {number}")
                await user.in_chat(api.group(-1000 - user.id % GROUPS)).send(f"tick {number}")
        await emptied(api, store)
        killer.cancel()
    sys.stdout.write(f"{updates} updates, {fleet.kills} kills\n")
    assert fleet.kills > 0
    stored = SessionPersistence(redis_server.url())
    groups = {user: -1000 - user % GROUPS for user in range(1, USERS + 1)}
    assert await stored.get_user_data() == {
        user: {"n": 2 * len(ticks), f"ticks in {user}": ticks, f"ticks in {group}": ticks}
        for user, group in groups.items()
    }
    members = Counter(groups.values())
    assert await stored.get_chat_data() == {
        **{user: {"n": len(ticks)} for user in groups},
        **{group: {"n": size * len(ticks)} for group, size in members.items()},
    }
    assert await stored.get_bot_data() == {"n": updates}
    state = ("none", "one", "two")[len(ticks) % 3]
    states = {} if state == "none" else {(c, u): state for u, group in groups.items() for c in (u, group)}
    assert await stored.get_conversations("ticks") == states
    await stored.flush()


@pytest.mark.parametrize("server_binary", ["valkey"], indirect=True)
async def test_an_update_that_kills_each_process_is_set_aside(
    api: BotApiServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with Fleet(api, redis_server.url(), 1, tmp_path, LEASE="0.5", INBOX="50") as fleet:
        [instance] = fleet.instances
        await api.user(1).send("/boom")
        for _ in range(1 + DEFAULT_ATTEMPTS):
            await instance.died()
            await instance.start()
        await api.user(1).send("/hello").expects("hello")
        assert "UpdateSetAside" in fleet.output()


@pytest.mark.parametrize("server_binary", ["valkey"], indirect=True)
@pytest.mark.parametrize("survivors", [1, 2])
async def test_a_conversation_times_out_once_though_the_bot_is_killed_before(
    api: BotApiServer,
    redis_server: RedisServer,
    tmp_path: Path,
    survivors: int,
    request: pytest.FixtureRequest,
) -> None:
    if survivors < 2 and not request.config.getoption("heavy"):
        pytest.skip("by a single instance: --heavy")
    awake: list[Any] = []
    all_awake = asyncio.Event()

    @api.on_call
    def note(call: Call) -> None:
        if call.method == "sendMessage" and "awake" in (answer := json.loads(call.params["text"])):
            awake.append(answer)
            if len({each["awake"] for each in awake}) == NAPPERS:
                all_awake.set()

    async with Fleet(api, redis_server.url(), survivors, tmp_path, LEASE="1", NAP="3") as fleet:
        await asyncio.gather(
            *(api.user(number).send("/nap").expects("asleep") for number in range(1, NAPPERS + 1))
        )
        await asyncio.gather(*(instance.kill() for instance in fleet.instances))
        assert awake == []
        await asyncio.gather(*(instance.start() for instance in fleet.instances))
        async with asyncio.timeout(60):
            await all_awake.wait()
        await asyncio.gather(*(api.user(number).reply() for number in range(1, NAPPERS + 1)))
        # The same users are answered by all instances; who would wake one twice has had its turn.
        for number in range(1, NAPPERS + 1):
            for _ in fleet.instances:
                await api.user(number).send("/hello").expects("hello")
    assert sorted((each["awake"], each["times"]) for each in awake) == [(n, 1) for n in range(1, NAPPERS + 1)]
    stored = SessionPersistence(redis_server.url())
    assert await stored.get_user_data() == {number: {"woken": 1} for number in range(1, NAPPERS + 1)}
    await stored.flush()
