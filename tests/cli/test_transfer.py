"""Thousands of records go from store to store by the command, killed on the way, and all arrive."""

from __future__ import annotations

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

MANY = 10_000
PATIENCE = 60.0


def command(folder: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start the command as a user would, in a folder of its own."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "SESSIONKIT_"))
    }
    return subprocess.Popen(
        [Path(sys.executable).with_name("sessionkit"), *arguments],
        env={**inherited, "NO_COLOR": "1", **settings},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, *arguments: str, **settings: str) -> tuple[int, str, str]:
    """Run the command to its end, and return its exit status and what it prints."""
    with command(folder, *arguments, **settings) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def run_killed_once(folder: Path, progress: Callable[[], int], *arguments: str) -> tuple[int, str, str]:
    """Run the command, kill it when it has got somewhere, and run it again to its end."""

    def missing() -> str:
        return "" if progress() else "nothing has arrived"

    with command(folder, *arguments) as process:
        wait_for(missing, PATIENCE)
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was too fast to be killed"
    return run(folder, *arguments)


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
async def test_records_go_round_through_every_store_and_a_file(tmp_path: Path) -> None:
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

        code, out, _ = run_killed_once(tmp_path, written, "export", "records.jsonl", "--from", first)
        assert (code, out) == (0, f"exported: {MANY} records, digest {expected}; left out: 0\n")

        code, out, _ = run_killed_once(tmp_path, arrived, "import", "records.jsonl", "--to", server.url())
        assert code == 0
        assert f"verified: {MANY} records, digest {expected}\n" in out
        assert "unchanged: 0;" not in out, "the second run found what the first had brought"

        copy = ("copy", "--from", server.url(), "--to", last)
        code, out, _ = run_killed_once(tmp_path, lambda: rows(tmp_path / "last.db"), *copy)
        assert code == 0
        assert f"verified: {MANY} records, digest {expected}\n" in out
        assert "unchanged: 0;" not in out

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


async def test_what_differs_is_named_and_kept(tmp_path: Path) -> None:
    one, two = f"sqlite:///{tmp_path / 'one.db'}", f"sqlite:///{tmp_path / 'two.db'}"
    async with open_driver(one) as store:
        await store.put("shop:a", b"1")
        await store.put("shop:b", b"2")
    async with open_driver(two) as store:
        await store.put("shop:a", b"other")
    settings = {"SESSIONKIT_PREFIX": "shop:", "SESSIONKIT_URL": one}
    code, out, err = run(tmp_path, "copy", "--to", two, **settings)
    assert code == 1
    assert err == "kept: shop:a is there with another record; --overwrite replaces it\n"
    assert out.startswith(
        "written: 1; unchanged: 0; expired: 0; left out: 0; conflicts: 1\nverified: 1 records"
    )
    code, _, err = run(tmp_path, "copy", "--to", two, "--overwrite", **settings)
    assert (code, err) == (0, "")
    async with open_driver(two) as store:
        record = await store.get("shop:a")
        assert record is not None
        assert record.value == b"1"


async def test_a_file_that_is_not_finished_is_taken_only_where_that_is_said(tmp_path: Path) -> None:
    one, two = f"sqlite:///{tmp_path / 'one.db'}", f"sqlite:///{tmp_path / 'two.db'}"
    file = tmp_path / "records.jsonl"
    async with open_driver(one) as store:
        await store.put("telegram_bot:a", b"1")
    assert run(tmp_path, "export", "records.jsonl", "--from", one)[0] == 0
    file.write_bytes(file.read_bytes()[:-1])
    code, _, err = run(tmp_path, "import", "records.jsonl", "--to", two)
    assert code == 1
    assert "is not finished" in err
    code, out, _ = run(tmp_path, "import", "records.jsonl", "--to", two, "--partial")
    assert code == 0
    assert "written: 1;" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["copy", "--from", "memory://", "--to", "memory://"], "copy needs two stores"),
        (["import", "missing", "--to", "memory://"], "missing cannot be read: No such file"),
        (["export", "here", "--from", "redis://:hunter2@127.0.0.1:1"], "cannot be reached"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, arguments: list[str], says: str) -> None:
    code, out, err = run(tmp_path, *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("sessionkit: ")
    assert says in err
    assert "hunter2" not in err
