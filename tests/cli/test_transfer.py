"""Thousands of records go from store to store by the command, killed on the way, and all arrive."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessionkit.codec import EncryptionKey, Keyring, MsgpackCodec
from sessionkit.registry import open_driver
from sessionkit.store import Put, TimedStore
from sessionkit.testing.servers import RedisServer, find_servers
from sessionkit.testing.servers.waiting import wait_for
from sessionkit.transfer import Digest, SourceReader, TargetWriter
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkit.store import SessionStore
    from tests.command import Command

MANY = 10_000
PATIENCE = 60.0


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command as a user would, in a folder of its own."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "SESSIONKIT_"))
    }
    return subprocess.Popen(
        [Path(sys.executable).with_name("sessionkit"), *arguments],
        env={**inherited, "NO_COLOR": "1"},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_on_the_way(folder: Path, progress: Callable[[], int], *arguments: str) -> None:
    """Run the command and kill it when it has got somewhere."""

    def missing() -> str:
        return "" if progress() else "nothing has arrived"

    with start(folder, *arguments) as process:
        wait_for(missing, PATIENCE)
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was too fast to be killed"


def rows(path: Path) -> int:
    """Return how many records a SQLite file has."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as connection:
        try:
            count: int = connection.execute("SELECT count(*) FROM records").fetchone()[0]
        except sqlite3.OperationalError:
            return 0
    return count


async def fill(store: SessionStore) -> None:
    codec = MsgpackCodec(keyring=Keyring([EncryptionKey("k", bytes(32))]))
    puts = []
    for number in range(MANY):
        key = f"telegram_bot:user_data:{number}"
        value = codec.encode({"n": number}, key=key) if number < 100 else b"%d" % number * (number % 50)
        puts.append(Put(key, value, 5_000.0 if number % 3 else None))
    await store.put_many(puts)


async def digest_of(store: SessionStore) -> Digest:
    reader, digest = SourceReader(store, "telegram_bot:"), Digest()
    async for page in reader.pages(await reader.keys()):
        for record in page:
            digest.add(record.key, record.value)
    return digest


@pytest.mark.skipif(not find_servers(), reason="there is no Redis server")
async def test_records_go_round_through_every_store_and_a_file(tmp_path: Path, command: Command) -> None:
    first, last = f"sqlite:///{tmp_path / 'first.db'}", f"sqlite:///{tmp_path / 'last.db'}"
    file = tmp_path / "records.jsonl"
    async with open_driver(first) as store:
        await fill(store)
        expected = await digest_of(store)
    assert expected.count == MANY

    def written() -> int:
        return file.stat().st_size if file.exists() else 0

    with RedisServer(find_servers()[0]) as server:

        def arrived() -> int:
            return int(server.command("DBSIZE"))

        verified = f"verified: {MANY} records, digest {expected}\n"
        export = ("export", "records.jsonl", "--from", first)
        kill_on_the_way(tmp_path, written, *export)
        done = await asyncio.to_thread(command, *export)
        assert done == (0, f"exported: {MANY} records, digest {expected}; left out: 0\n", "")
        for progress, arguments in (
            (arrived, ("import", "records.jsonl", "--to", server.url())),
            (lambda: rows(tmp_path / "last.db"), ("copy", "--from", server.url(), "--to", last)),
        ):
            kill_on_the_way(tmp_path, progress, *arguments)
            code, told, _ = await asyncio.to_thread(command, *arguments)
            assert code == 0
            assert told.endswith(verified)
            assert "unchanged: 0;" not in told, "nothing of the first run was there"

    async with open_driver(last) as store, MemoryStore() as memory:
        reader, writer = SourceReader(store, "telegram_bot:"), TargetWriter(memory)
        async for page in reader.pages(await reader.keys()):
            await writer.write(page)
        assert writer.transfer.complete
        assert writer.transfer.found == expected == await digest_of(memory)
        assert isinstance(store, TimedStore)
        keys = [f"telegram_bot:user_data:{number}" for number in range(3)]
        for left in (await store.time_left(keys), await memory.time_left(keys)):
            assert left[keys[0]] is None
            assert all(4_000 < (left[key] or 0) <= 5_000 for key in keys[1:])


def put(url: str, values: dict[str, bytes]) -> None:
    """Put records into a store."""

    async def run() -> None:
        async with open_driver(url) as store:
            await store.put_many([Put(key, value) for key, value in values.items()])

    asyncio.run(run())


def test_what_differs_is_named_and_kept(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = f"sqlite:///{tmp_path / 'one.db'}", f"sqlite:///{tmp_path / 'two.db'}"
    put(one, {"shop:a": b"1", "shop:b": b"2", "other": b"3"})
    put(two, {"shop:a": b"other"})
    monkeypatch.setenv("SESSIONKIT_PREFIX", "shop:")
    monkeypatch.setenv("SESSIONKIT_URL", one)
    code, told, aside = command("copy", "--to", two)
    assert (code, aside) == (1, "kept: shop:a is there with another record; --overwrite replaces it\n")
    assert told.startswith("written: 1; unchanged: 0; expired: 0; left out: 0; conflicts: 1\nverified: 1 ")
    code, told, aside = command("copy", "--to", two, "--overwrite")
    assert (code, aside) == (0, "")
    assert told.startswith("written: 2; unchanged: 0; expired: 0; left out: 0; conflicts: 0\nverified: 2 ")
    assert command("ls", "--url", two) == (0, "shop:a\nshop:b\n", "")


def test_a_file_that_is_not_finished_is_taken_only_where_that_is_said(
    tmp_path: Path, command: Command
) -> None:
    one, two = f"sqlite:///{tmp_path / 'one.db'}", f"sqlite:///{tmp_path / 'two.db'}"
    file = tmp_path / "records.jsonl"
    put(one, {"telegram_bot:a": b"1"})
    assert command("export", "records.jsonl", "--from", one)[0] == 0
    file.write_bytes(file.read_bytes()[:-1])
    refused, told, _ = command("import", "records.jsonl", "--to", two)
    assert "is not finished" in str(refused)
    assert told == ""
    code, told, _ = command("import", "records.jsonl", "--to", two, "--partial")
    assert code == 0
    assert "written: 1;" in told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["copy", "--from", "memory://", "--to", "memory://"], "copy needs two stores"),
        (["import", "missing", "--to", "memory://"], "missing cannot be read: No such file"),
        (["export", "here", "--from", "redis://:hunter2@127.0.0.1:1"], "cannot be reached"),
        (["export", "here", "--from", "memory://"], "there is nothing under 'telegram_bot:'; a prefix"),
        (["copy", "--from", "memory://", "--to", "sqlite:///new.db", "--prefix", "x"], "nothing under 'x'"),
    ],
)
def test_what_is_wrong_is_said(command: Command, arguments: list[str], says: str) -> None:
    code, told, aside = command(*arguments)
    assert (told, aside) == ("", "")
    assert isinstance(code, str)
    assert code.startswith("sessionkit: ")
    assert says in code
    assert "hunter2" not in code
    assert list(Path().iterdir()) == []
