from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import ssl
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import redis

from sessionkit.errors import (
    Applied,
    BatchRefused,
    ConfigurationError,
    CorruptRecord,
    LeaseLost,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)
from sessionkit.store import (
    ABSENT,
    AtomicStore,
    Delete,
    Put,
    Record,
    SessionStore,
    StoreURL,
    Version,
    new_version,
)
from sessionkit.testing import SessionStoreConformance
from sessionkit.testing.servers import DURABLE, RedisServer
from sessionkit_redis import open_driver
from sessionkit_redis.errors import from_exception, from_reply
from sessionkit_redis.transport import ErrorReply

if TYPE_CHECKING:
    from sessionkit.testing.servers import ServerBinary


class TestRedisConformance(SessionStoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url()
        self.admin = redis.Redis.from_url(self.url)

    def open_store(self) -> SessionStore:
        return open_driver(StoreURL.parse(self.url))

    async def time_to_live(self, store: SessionStore, key: str) -> float:
        return int(str(self.admin.pttl(key))) / 1000

    async def test_a_record_is_one_string_with_redis_own_expiry(self, store: SessionStore, key: str) -> None:
        await store.put(key, b"value", expires_in=300)
        assert self.admin.keys("*") == [key.encode()]
        assert self.admin.type(key) == b"string"
        assert 299 <= int(str(self.admin.ttl(key))) <= 300

    async def test_it_works_after_the_server_forgot_its_scripts(self, store: SessionStore, key: str) -> None:
        first = await store.put(key, b"1")
        self.admin.script_flush()
        second = await store.put(key, b"2", if_version=first.version)
        self.admin.script_flush()
        receipts = await store.put_many([Put(key, b"3", None, second.version), Put(key, b"4")])
        assert await store.get(key) == Record(b"4", receipts[1].version)
        self.admin.script_flush()
        assert isinstance(store, AtomicStore)
        last = await store.write_all([Put(key, b"5", None, receipts[1].version)])
        assert await store.get(key) == Record(b"5", last.version)

    async def test_an_id_that_stands_elsewhere_by_chance_is_no_repeat(
        self, store: SessionStore, key: str
    ) -> None:
        await store.put(key, b"1", write_id=Version(b"abcdefgh"))
        await store.put(key, b"2", write_id=Version(b"ABCDEFGH"))
        across_two_ids = Version(b"EFGHabcd")
        await store.put(key, b"12345678", write_id=across_two_ids)
        assert await store.get(key) == Record(b"12345678", across_two_ids)
        where_an_id_would_be = Version(b"12345678")
        await store.put(key, b"4", write_id=where_an_id_would_be)
        assert await store.get(key) == Record(b"4", where_an_id_would_be)

    @pytest.mark.parametrize(
        "foreign", [b"", b"\x01", b"text of somebody else", b"\x01\x05" + bytes(40), b"\x01\x01short"]
    )
    async def test_a_foreign_string_is_reported_and_kept(
        self, store: SessionStore, key: str, foreign: bytes
    ) -> None:
        self.admin.set(key, foreign)
        calls = (
            store.get(key),
            store.get_many([key]),
            store.put(key, b"mine"),
            store.put(key, b"mine", if_version=ABSENT),
            store.touch(key, expires_in=60),
            store.delete(key, if_version=(await store.put(key + "2", b"v")).version),
        )
        for call in calls:
            with pytest.raises(CorruptRecord, match="did not write"):
                await call
        assert self.admin.get(key) == foreign

    async def test_a_key_that_is_no_string_is_reported_and_kept(self, store: SessionStore, key: str) -> None:
        self.admin.rpush(key, "a", "b")
        for call in (store.get(key), store.get_many([key]), store.get(key, renew_for=1), store.put(key, b"")):
            with pytest.raises(CorruptRecord, match="did not write"):
                await call
        assert self.admin.lrange(key, 0, -1) == [b"a", b"b"]

    @pytest.mark.parametrize("foreign", [b"", b"text of somebody else", None], ids=["empty", "text", "list"])
    async def test_what_is_foreign_refuses_all_that_is_written_with_it(
        self, store: SessionStore, key: str, foreign: bytes | None
    ) -> None:
        assert isinstance(store, AtomicStore)
        if foreign is None:
            self.admin.rpush(key, "a")
        else:
            self.admin.set(key, foreign)
        before = self.admin.dump(key)
        for write in (Put(key, b"mine"), Put(key, b"mine", None, ABSENT), Delete(key, new_version())):
            with pytest.raises(BatchRefused, match="did not write") as caught:
                await store.write_all([Put(f"{key}2", b"mine"), write])
            assert {name: type(error) for name, error in caught.value.refusals.items()} == {
                key: CorruptRecord
            }
            assert self.admin.keys("*") == [key.encode()]
            assert self.admin.dump(key) == before
        receipt = await store.write_all([Put(f"{key}2", b"mine"), Delete(key)])
        assert await store.get_many([key, f"{key}2"]) == {f"{key}2": Record(b"mine", receipt.version)}

    async def test_a_lock_that_is_taken_away_cancels_its_holder(self, store: SessionStore, key: str) -> None:
        with pytest.raises(LeaseLost):
            async with store.lock(key, lease=0.3):
                self.admin.delete(f"{key}#lock")
                await asyncio.Event().wait()

    async def test_a_lock_outlives_its_lease_while_its_holder_does(
        self, store: SessionStore, key: str
    ) -> None:
        async with store.lock(key, lease=0.3):
            for _ in range(4):
                await self.advance(0.15)
                token, _, _ = bytes(self.admin.get(f"{key}#lock") or b"").partition(b":")  # type: ignore[arg-type]  # not awaitable
                assert token

    async def test_a_freed_lock_is_gone_after_a_minute(self, store: SessionStore, key: str) -> None:
        async with store.lock(key):
            pass
        assert 0 < int(str(self.admin.pttl(f"{key}#lock"))) <= 60_000


SECRET = "hunter2"


async def test_a_server_that_is_not_there_is_unavailable_and_nothing_was_applied() -> None:
    async with open_driver(StoreURL.parse(f"redis://:{SECRET}@127.0.0.1:1/0")) as store:
        with pytest.raises(
            StoreUnavailable,
            match=r"redis://\*\*\*@127.0.0.1:1/0 cannot be reached \(Connection refused\): is",
        ) as caught:
            await store.put("key", b"value")
    assert caught.value.temporary is True
    assert caught.value.applied is Applied.NO
    assert_nothing_secret(caught.value)


async def test_a_server_that_hangs_times_out_and_comes_back(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary) as server:
        async with open_driver(StoreURL.parse(f"{server.url()}?timeout=0.2")) as store:
            await store.put("key", b"value")
            os.kill(server.pid, signal.SIGSTOP)
            try:
                # The first is sent on the connection that is there; the next ones never get a new one.
                for call, applied in (
                    (store.put("key", b"other"), Applied.MAYBE),
                    (store.get("key"), Applied.NO),
                    (store.ping(), Applied.NO),
                ):
                    with pytest.raises(StoreTimeout) as caught:
                        await call
                    assert caught.value.temporary is True
                    assert caught.value.applied is applied
            finally:
                os.kill(server.pid, signal.SIGCONT)
            async with asyncio.timeout(10):
                while True:
                    with suppress(StoreTimeout):
                        await store.put("key", b"again")
                        break
            record = await store.get("key")
            assert record is not None
            assert record.value == b"again"


async def test_a_server_that_is_killed_is_unavailable_until_it_is_back(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary, config=DURABLE) as server:
        async with open_driver(StoreURL.parse(server.url())) as store:
            receipt = await store.put("key", b"value")
            server.kill()
            for _ in range(3):
                with pytest.raises(StoreUnavailable) as caught:
                    await store.get("key")
                assert caught.value.temporary is True
            server.restart()
            assert await store.get("key") == Record(b"value", receipt.version)


async def test_ten_thousand_callers_share_two_connections(redis_server: RedisServer) -> None:
    async with open_driver(StoreURL.parse(redis_server.url()), timeout=60.0) as store:
        values = {f"{number}": b"%d" % number for number in range(10_000)}
        await asyncio.gather(*(store.put(key, value) for key, value in values.items()))
        await store.put("long", bytes(100_000))
        found = await asyncio.gather(*(store.get(key) for key in values))
        clients = redis_server.command("CLIENT", "LIST").decode()
    assert [record and record.value for record in found] == list(values.values())
    assert clients.count(" name=sessionkit ") == 2


async def test_a_store_serves_one_event_loop_after_another(redis_server: RedisServer) -> None:
    store = open_driver(StoreURL.parse(redis_server.url()))

    def elsewhere() -> None:
        async def use() -> None:
            await store.put("key", b"from another loop")
            await store.aclose()

        asyncio.run(use())

    await store.ping()
    await asyncio.to_thread(elsewhere)
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.ping()
    async with open_driver(StoreURL.parse(redis_server.url())) as again:
        record = await again.get("key")
        assert record is not None
        assert record.value == b"from another loop"


@pytest.mark.parametrize(
    ("credentials", "options"),
    [
        ("", {}),
        (f":not-{SECRET}@", {}),
        (f"nobody:{SECRET}@", {}),
        ("", {"password": f"not-{SECRET}"}),
    ],
)
async def test_a_wrong_login_is_lasting_and_says_so(
    server_binary: ServerBinary, credentials: str, options: dict[str, str]
) -> None:
    with RedisServer(server_binary, password=SECRET) as server:
        url = StoreURL.parse(f"redis://{credentials}127.0.0.1:{server.port}/0")
        async with open_driver(url, **options) as store:
            with pytest.raises(StoreUnavailable, match="refused the login") as caught:
                await store.get("key")
        assert caught.value.temporary is False
        assert_nothing_secret(caught.value)
        async with open_driver(StoreURL.parse(f"redis://127.0.0.1:{server.port}"), password=SECRET) as store:
            await store.put("key", b"value")


async def test_a_user_without_the_rights_is_told_so(redis_server: RedisServer) -> None:
    redis_server.command("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "+get", "+select", "+client")
    url = StoreURL.parse(f"redis://reader:{SECRET}@127.0.0.1:{redis_server.port}/0")
    async with open_driver(url) as store:
        assert await store.get("key") is None
        with pytest.raises(StoreUnavailable, match="does not allow") as caught:
            await store.put("key", SECRET.encode())
    redis_server.command("ACL", "DELUSER", "reader")
    assert caught.value.temporary is False
    assert_nothing_secret(caught.value)


@pytest.mark.parametrize("missing", ["-set", "-del", "-getrange", "resetkeys ~put* ~old*"])
async def test_a_user_without_all_the_rights_writes_no_part(redis_server: RedisServer, missing: str) -> None:
    rules = f"on >{SECRET} ~* +@all {missing}".split()
    redis_server.command("ACL", "SETUSER", "partial", "reset", *rules)
    async with open_driver(StoreURL.parse(redis_server.url())) as store:
        receipt = await store.put("old", b"old")
        await store.put("key", b"old", write_id=receipt.version)
        refused: list[list[Put | Delete]] = [
            [Delete("old"), Put("put", b"new"), Put("key", b"new")],
            [Put("put", b"new"), Put("old", b"new"), Delete("key", receipt.version)],
        ]
        for writes in refused:
            url = StoreURL.parse(f"redis://partial:{SECRET}@127.0.0.1:{redis_server.port}/0")
            async with open_driver(url) as partial:
                with pytest.raises(StoreUnavailable) as caught:
                    await partial.write_all(writes)
            assert caught.value.applied is Applied.NO
            assert await store.get_many(["put", "old", "key"]) == dict.fromkeys(
                ["old", "key"], Record(b"old", receipt.version)
            )
    redis_server.command("ACL", "DELUSER", "partial")


async def test_a_full_server_writes_no_part(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary) as server:
        async with open_driver(StoreURL.parse(server.url())) as store:
            old = await store.put("old", bytes(100))
            server.command("CONFIG", "SET", "maxmemory", "1")
            refused: list[list[Put | Delete]] = [
                [Put("new", b""), Put("newer", b"")],
                [Delete("old"), Put("new", b"")],
                [Put("new", b""), Delete("old", old.version)],
            ]
            for writes in refused:
                with pytest.raises(StoreUnavailable, match="out of memory") as caught:
                    await store.write_all(writes)
                assert caught.value.temporary is True
                assert caught.value.applied is Applied.NO
                assert await store.get_many(["old", "new", "newer"]) == {
                    "old": Record(bytes(100), old.version)
                }
            await store.write_all([Delete("old", old.version)])
            assert await store.get("old") is None


async def test_a_killed_server_has_no_part_of_what_was_written_together(server_binary: ServerBinary) -> None:
    acknowledged: dict[int, int] = {}
    enough = asyncio.Event()

    async def write(store: AtomicStore, task: int) -> None:
        with suppress(StoreUnavailable):
            for number in range(1_000_000):
                puts = [Put(f"{task}:{part}", b"%d" % number) for part in "abc"]
                await store.write_all(
                    [*puts, Delete(f"{task}:old:{number - 1}"), Put(f"{task}:old:{number}", b"")]
                )
                acknowledged[task] = number
                if sum(acknowledged.values()) > 200:
                    enough.set()

    with RedisServer(server_binary, config=DURABLE) as server:
        for _ in range(2):
            acknowledged.clear()
            enough.clear()
            async with open_driver(StoreURL.parse(server.url())) as store:
                tasks = [asyncio.create_task(write(store, task)) for task in range(8)]
                async with asyncio.timeout(30):
                    await enough.wait()
                server.kill()
                await asyncio.gather(*tasks)
                server.restart()
                for task, number in acknowledged.items():
                    found = await store.get_many(f"{task}:{part}" for part in "abc")
                    [value] = {record.value for record in found.values()}
                    assert len(found) == 3
                    assert int(value) in {number, number + 1}
                    assert [key async for key in store.scan(f"{task}:old:")] == [f"{task}:old:{int(value)}"]
                await store.delete_many([key async for key in store.scan("")])


async def test_a_full_server_says_so(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary, config={"maxmemory": "1mb", "maxmemory-policy": "noeviction"}) as server:
        async with open_driver(StoreURL.parse(server.url())) as store:
            with pytest.raises(StoreUnavailable, match="out of memory") as caught:
                for number in range(100):
                    await store.put(f"{number}", bytes(100_000))
    assert caught.value.temporary is True
    assert caught.value.applied is Applied.NO


async def test_a_replica_refuses_writes_and_says_so(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary) as server:
        server.command("REPLICAOF", "127.0.0.1", "1")
        async with open_driver(StoreURL.parse(server.url())) as store:
            with pytest.raises(StoreUnavailable, match="read-only replica") as caught:
                await store.put("key", b"value")
    assert caught.value.temporary is True


async def test_a_database_out_of_range_is_refused(redis_server: RedisServer) -> None:
    async with open_driver(StoreURL.parse(redis_server.url()), db=0) as store:
        await store.ping()
    async with open_driver(StoreURL.parse(f"redis://127.0.0.1:{redis_server.port}/9999")) as store:
        with pytest.raises(StoreUnavailable, match="database of that number") as caught:
            await store.ping()
    assert caught.value.temporary is False


async def test_something_else_on_the_port_is_no_redis() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_driver(StoreURL.parse(f"redis://127.0.0.1:{port}")) as store:
            with pytest.raises(StoreUnavailable, match=r"protocol|cannot be reached"):
                await store.ping()


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("redis://host/first", {}, "database number"),
        ("redis://host/-1", {}, "database number"),
        ("redis://host/1", {"db": 2}, "'db' is given in the URL and as an option, and they differ"),
        ("redis://host/0", {"db": 1}, "'db' is given in the URL and as an option, and they differ"),
        ("redis://host/1", {"db": 0}, "'db' is given in the URL and as an option, and they differ"),
        ("redis://host/0?db=1", {}, "'db' is given in the URL and as a parameter, and they differ"),
        ("redis+sentinel://host/service/0", {"db": 1}, "they differ"),
        (f"redis://:{SECRET}@host", {"password": "other"}, "they differ"),
        ("redis://host", {"db": -1}, "database number"),
        ("redis://host", {"db": "0"}, "db is a whole number, not of type str"),
        ("redis://host", {"db": 1.0}, "db is a whole number, not of type float"),
        ("redis://host", {"db": True}, "db is a whole number, not of type bool"),
        ("redis://host", {"timeout": "5"}, "timeout is a number of seconds, not of type str"),
        ("redis://host", {"timeout": None}, "timeout is a number of seconds, not of type NoneType"),
        ("redis://host", {"client_name": 3}, "client_name is text, not of type int"),
        ("redis://host", {"username": 3}, "username is text, not of type int"),
        ("redis://host", {"password": SECRET.encode()}, "password is text, not of type bytes"),
        ("redis+sentinel://host/s", {"sentinel_password": SECRET.encode()}, "password is text"),
        ("redis://host?timeout=0", {}, "timeout is above 0"),
        ("redis://host?timeout=nan", {}, "timeout is above 0"),
        ("redis://host?client_name=my%20bot", {}, "client_name"),
        ("redis://host?colour=red", {}, "unknown parameter"),
        ("redis://host", {"pasword": SECRET}, r"unknown option 'pasword' \(did you mean 'password'\?\)"),
        ("redis+sentinel://h/s", {"sentinel_pasword": SECRET}, "did you mean 'sentinel_password'"),
        ("redis://host", {"sentinel_password": SECRET}, r"is for Sentinels: redis\+sentinel://"),
        ("rediss+cluster://h", {"sentinel_username": "a"}, r"is for Sentinels: rediss\+sentinel://"),
        (f"redis://host?password={SECRET}", {}, "security setting"),
    ],
)
def test_wrong_urls_and_options(url: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        open_driver(StoreURL.parse(url), **options)
    assert_nothing_secret(caught.value)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://host/0", {"db": 0}),
        ("redis://host/1?db=1", {}),
        ("redis://host", {"db": 1}),
        (f"redis://:{SECRET}@host", {"username": "bot"}),
        (f"redis://:{SECRET}@host", {"password": SECRET}),
    ],
)
def test_what_is_given_twice_and_agrees_is_taken(url: str, options: dict[str, object]) -> None:
    open_driver(StoreURL.parse(url), **options)


def test_a_repr_shows_no_password() -> None:
    assert SECRET not in repr(open_driver(StoreURL.parse(f"redis://:{SECRET}@host/0")))


@pytest.mark.parametrize(
    ("error", "kind", "temporary"),
    [
        (TimeoutError(SECRET), StoreTimeout, True),
        (ConnectionRefusedError(111, SECRET), StoreUnavailable, True),
        (ConnectionResetError(104, SECRET), StoreUnavailable, True),
        (socket.gaierror(-2, "Name or service not known"), StoreUnavailable, True),
        (ssl.SSLEOFError(8, SECRET), StoreUnavailable, True),
        (ssl.SSLError(1, SECRET), StoreUnavailable, False),
        (UnicodeError(SECRET), StoreUnavailable, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_error_of_the_network_becomes_one_of_ours(
    error: Exception, kind: type[StoreError], temporary: bool
) -> None:
    for applied in Applied:
        ours = from_exception(error, "redis://host", applied)
        assert type(ours) is kind
        assert ours.applied is applied
        assert ours.temporary is temporary
        assert "redis://host" in str(ours)
        assert_nothing_secret(ours)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('::1', 1)"),
            " (Connection refused)",
        ),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), " (Name or service not known)"),
        (OSError("Multiple exceptions: [Errno 111] …, [Errno 101] …"), ""),
    ],
)
def test_why_a_server_cannot_be_reached_is_said_in_the_systems_words(error: OSError, reason: str) -> None:
    ours = from_exception(error, "redis://host", Applied.NO)
    assert str(ours).startswith(f"redis://host cannot be reached{reason}: is the server running")


@pytest.mark.parametrize(
    ("text", "temporary"),
    [
        ("LOADING Redis is loading the dataset in memory", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", True),
        ("READONLY You can't write against a read only replica.", True),
        ("MISCONF Errors writing to the AOF file", True),
        ("CLUSTERDOWN The cluster is down", True),
        ("NOAUTH Authentication required.", False),
        ("NOPERM this user has no permissions", False),
        ("MOVED 3999 127.0.0.1:6381", False),
        ("ERR Error running script: -OOM command not allowed", True),
        (f"ERR unknown command, with args beginning with: '{SECRET}'", False),
        ("", False),
    ],
)
def test_every_refusal_of_the_server_becomes_one_of_ours(text: str, temporary: bool) -> None:
    ours = from_reply(ErrorReply(text.partition(" ")[0], text), "redis://host")
    assert_nothing_secret(ours)
    assert ours.temporary is temporary
    assert ours.applied is Applied.NO


def assert_nothing_secret(error: BaseException) -> None:
    """Neither the error nor anything a traceback would show beside it quotes the password."""
    shown = "".join(traceback.format_exception(error))
    assert SECRET not in shown
