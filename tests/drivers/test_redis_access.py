from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import ConfigurationError, StoreUnavailable
from sessionkit.registry import open_driver
from sessionkit.testing import SessionStoreConformance
from sessionkit.testing.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessionkit.store import SessionStore
    from sessionkit.testing.servers import ServerBinary

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"


def published_rules() -> str:
    """Return the rules of the user whom the docs advise."""
    [line] = re.findall(r"^ACL SETUSER bot on >PASSWORD (.*)$", DOCS.read_text("utf-8"), re.MULTILINE)
    return str(line)


@pytest.fixture(scope="module")
def guarded_server(server_binary: ServerBinary) -> Iterator[RedisServer]:
    config = {"unixsocket": "redis.sock", "user": f"bot on >hunter2 {published_rules()}"}
    with RedisServer(server_binary, config=config) as server:
        yield server


class TestLeastRightsOverUnixSocketConformance(SessionStoreConformance):
    """By the socket's path, as a user who may do what the docs list and nothing else."""

    @pytest.fixture(autouse=True)
    def _server(self, guarded_server: RedisServer) -> None:
        self.server = guarded_server

    @pytest.fixture
    def prefix(self) -> str:
        return f"telegram_bot:{uuid.uuid4().hex}:"

    def open_store(self) -> SessionStore:
        return open_driver(f"redis+unix://bot:hunter2@{self.server.data_dir}/redis.sock")

    async def time_to_live(self, store: SessionStore, key: str) -> float:
        return int(self.server.command("PTTL", key)) / 1000

    async def test_nothing_else_is_allowed(self, store: SessionStore) -> None:
        with pytest.raises(StoreUnavailable, match="does not allow this user this command or key") as caught:
            await store.get("another_bot:key")
        assert not caught.value.temporary


async def test_a_socket_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    async with open_driver(f"redis+unix://{tmp_path}/redis.sock") as store:
        with pytest.raises(
            StoreUnavailable, match=r"cannot be reached \(No such file or directory\): is"
        ) as caught:
            await store.get("key")
    assert caught.value.temporary


def test_the_docs_list_every_parameter_and_every_option() -> None:
    section = DOCS.read_text("utf-8").partition("### `redis://`")[2].partition("\n#### ")[0]
    listed = {}
    for title in ("parameter", "option"):
        rows = section.partition(f"\n| {title} |")[2].partition("\n\n")[0].splitlines()[2:]
        listed[title] = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    with pytest.raises(ConfigurationError) as caught:
        open_driver("rediss+sentinel://host/service?colour=red")
    assert set(str(caught.value).partition("driver are: ")[2].split(", ")) == listed["parameter"]
    with pytest.raises(ConfigurationError) as caught:
        open_driver("rediss+sentinel://host/service", colour="red")
    known = set(str(caught.value).partition("driver are: ")[2].split(", "))
    assert known - listed["parameter"] == listed["option"]


@pytest.mark.parametrize("url", ["redis+unix://host/path", "redis+unix://", "redis+unix:///"])
def test_a_socket_is_given_by_its_path(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"given by its path: redis\+unix:///run/redis\.sock"):
        open_driver(url)
