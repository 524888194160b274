"""What a server says to a new connection, and what its caller is told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import Applied, StoreUnavailable
from sessionkit.registry import open_driver
from sessionkit.testing.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sessionkit.testing.servers import ServerBinary

PROTECTED = (
    b"-DENIED Redis is running in protected mode because protected mode is enabled, no bind address was"
    b" specified, no authentication password is requested to clients. In this mode connections are only"
    b" accepted from the loopback interface.\r\n"
)


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
