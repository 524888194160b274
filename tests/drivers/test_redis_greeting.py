"""What a server says to a new connection, and what its caller is told."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
from redis import exceptions
from redis.credentials import CredentialProvider

from sessionkit.errors import Applied, StoreUnavailable
from sessionkit.registry import open_driver
from sessionkit.testing.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sessionkit.testing.servers import ServerBinary

PROTECTED = (
    b"-DENIED Redis is running in protected mode because protected mode is enabled, no bind address was"
    b" specified, no authentication password is requested to clients. In this mode connections are only"
    b" accepted from the loopback interface.\r\n"
)


SECRET = "hunter2"


class Provider(CredentialProvider):
    """Gives what it was told to give, or fails with it.

    Args:
        given: The credentials, an error, or None for an answer that never comes.
    """

    def __init__(self, given: tuple[str, ...] | Exception | None) -> None:
        self._given = given

    async def get_credentials_async(self) -> tuple[str, str]:
        if self._given is None:
            await asyncio.Event().wait()
        if isinstance(self._given, Exception):
            raise self._given
        return cast("tuple[str, str]", self._given)


@asynccontextmanager
async def refusing(refusal: bytes, *, asked: bool = True) -> AsyncIterator[str]:
    """Run a server that hangs up after one refusal, and give its URL.

    Args:
        refusal: All that it says.
        asked: Whether it waits to be asked something.
    """

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asked:
            await reader.read(1 << 16)
        writer.write(refusal)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/1"


async def told(url: str, **options: object) -> StoreUnavailable:
    """Return the error of whoever opens the store and writes."""
    async with open_driver(url, **options) as store:
        with pytest.raises(StoreUnavailable) as caught:
            await store.put("key", b"value")
    assert caught.value.applied is Applied.NO
    return caught.value


async def test_a_server_without_a_connection_left_says_so(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary) as server:
        async with open_driver(server.url()) as first, open_driver(server.url(db=1)) as second:
            await first.ping()
            server.command("CONFIG", "SET", "maxclients", "1")
            for _ in range(5):
                with pytest.raises(StoreUnavailable, match="has no connection left") as caught:
                    await second.put("key", b"value")
                assert caught.value.temporary
                assert caught.value.applied is Applied.NO


@pytest.mark.parametrize("asked", [False, True], ids=["at once", "when asked"])
async def test_a_server_in_protected_mode_says_so(asked: bool) -> None:
    async with refusing(PROTECTED, asked=asked) as url:
        error = await told(url)
    assert "is in protected mode: it takes remote clients only with a password" in str(error)
    assert not error.temporary


async def test_a_server_that_hangs_up_after_it_refused_the_login_is_heard() -> None:
    async with refusing(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n") as url:
        error = await told(url, password="hunter2")
    assert "refused the login" in str(error)
    assert not error.temporary


async def test_a_socket_that_hangs_up_wants_no_tls(tmp_path: Path) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(hang_up, tmp_path / "redis.sock"):
        error = await told(f"redis+unix://{tmp_path}/redis.sock")
    assert str(error).endswith("closed the connection")


async def test_a_server_that_hangs_up_without_a_word_may_want_tls() -> None:
    async with refusing(b"") as url:
        error = await told(url)
    assert "closed the connection: does it want TLS (rediss://)?" in str(error)
    assert error.temporary


@pytest.mark.parametrize("options", [{}, {"sentinel_username": "bot", "sentinel_password": "hunter2"}])
async def test_a_sentinel_that_refuses_the_login_wants_its_own(
    server_binary: ServerBinary, options: dict[str, str]
) -> None:
    with RedisServer(server_binary, sentinel=True, password="theirs") as sentinel:
        url = f"redis+sentinel://:ours@127.0.0.1:{sentinel.port}/mymaster"
        error = await told(url, **options)
        assert "refused the login" in str(error)
        assert "sentinel_username and sentinel_password" in str(error)
        assert "URL" not in str(error)
        assert not error.temporary
        error = await told(url, sentinel_password="theirs")
        assert "know no service 'mymaster'" in str(error)


@pytest.mark.parametrize("given", [("hunter2",), ("default", "hunter2")])
async def test_a_credential_provider_gives_the_login(
    server_binary: ServerBinary, given: tuple[str, ...]
) -> None:
    with RedisServer(server_binary, password=SECRET) as server:
        url = f"redis://127.0.0.1:{server.port}"
        async with open_driver(url, credential_provider=Provider(given)) as store:
            await store.put("key", b"value")


def errors_of_redis_py() -> list[Exception]:
    """Return one of each kind: a provider that asks another server may raise any."""
    made: list[Exception] = []
    for _, kind in inspect.getmembers(exceptions, inspect.isclass):
        if issubclass(kind, Exception) and kind.__module__.startswith("redis"):
            try:
                made.append(kind(SECRET))
            except Exception:  # some read their message, and want one as the server words it
                made.append(kind.__new__(kind))
    return made


@pytest.mark.parametrize(
    "error",
    [
        *errors_of_redis_py(),
        KeyError(SECRET),
        OSError(SECRET),
        ConnectionRefusedError(111, SECRET),
        TimeoutError(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_credential_provider_that_fails_is_to_blame_and_not_redis(error: Exception) -> None:
    ours = await told("rediss://127.0.0.1:1", credential_provider=Provider(error))
    assert str(ours) == f"rediss://127.0.0.1:1: its credential_provider failed ({type(error).__name__})"
    assert ours.temporary is isinstance(error, OSError)
    assert SECRET not in "".join(traceback.format_exception(ours))


async def test_a_credential_provider_that_hangs_is_to_blame_and_not_redis() -> None:
    ours = await told("redis://127.0.0.1:1?timeout=1", credential_provider=Provider(None))
    assert "its credential_provider failed (TimeoutError)" in str(ours)
    assert ours.temporary


@pytest.mark.parametrize("given", [(), ("a", "b", "c")])
async def test_what_is_no_login_is_the_credential_providers_fault(given: tuple[str, ...]) -> None:
    ours = await told("redis://127.0.0.1:1", credential_provider=Provider(given))
    assert "its credential_provider failed" in str(ours)
    assert not ours.temporary


@pytest.mark.parametrize("database", ["", "/1"])
async def test_a_sentinel_is_no_server(server_binary: ServerBinary, database: str) -> None:
    with RedisServer(server_binary, sentinel=True) as sentinel:
        for kind in ("", "+cluster"):
            error = await told(f"redis{kind}://127.0.0.1:{sentinel.port}{'' if kind else database}")
            assert "is a Sentinel: its URL is redis+sentinel://host:port/service" in str(error)
            assert not error.temporary


async def test_a_server_is_no_sentinel(redis_server: RedisServer) -> None:
    where = f"127.0.0.1:{redis_server.port}"
    error = await told(f"redis+sentinel://{where}/mymaster")
    assert f"the Sentinel {where} of redis+sentinel://{where}/mymaster is none" in str(error)
    assert "redis:// or rediss://" in str(error)
    assert not error.temporary
