"""Several processes on one file, killed ones, and a disk that runs full under one."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sessionkit_sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Sequence

CHILD = [sys.executable, "-W", "error", str(Path(__file__).with_name("sqlite_child.py"))]
PATIENCE = 120


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*CHILD, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(children: Sequence[subprocess.Popen[str]]) -> list[str]:
    """Wait for the children and return what they said; none may have complained."""
    outputs = [child.communicate(timeout=PATIENCE) for child in children]
    assert [(child.returncode, errors) for child, (_, errors) in zip(children, outputs, strict=True)] == [
        (0, "")
    ] * len(children)
    return [said for said, _ in outputs]


async def test_four_processes_count_exactly_while_others_scan(tmp_path: Path) -> None:
    file = tmp_path / "bot.db"
    finish([start("count", file, 200) for _ in range(4)] + [start("watch", file, 4) for _ in range(2)])
    async with SqliteStore(file) as store:
        record = await store.get("counter")
        assert record is not None
        assert record.value == b"800"


async def test_many_processes_create_one_file_at_once(tmp_path: Path) -> None:
    for round_ in range(3):
        file = tmp_path / f"bot{round_}.db"
        children = [start("open_at_once", file) for _ in range(8)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        assert finish_at_once(children) == ["used\n"] * 8
        async with SqliteStore(file) as store:
            assert len([key async for key in store.scan("by:")]) == 8


def finish_at_once(children: Sequence[subprocess.Popen[str]]) -> list[str]:
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    return finish(children)


def told_until_killed(command: str, file: Path, lives: int, most: int) -> list[str]:
    """Run a child again and again, kill it in the midst of its writes, and return what was acknowledged."""
    moments = random.Random(20)
    acknowledged: list[str] = []
    for life in range(lives):
        child = start(command, file, life)
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(moments.randint(1, most))]
        child.kill()
        rest, _ = child.communicate(timeout=PATIENCE)
        lines = "".join(told) + rest
        acknowledged += lines[: lines.rfind("\n")].split("\n")
    return acknowledged


async def test_what_a_killed_process_was_told_is_there(tmp_path: Path) -> None:
    file = tmp_path / "bot.db"
    acknowledged = told_until_killed("write", file, 10, 800)
    async with SqliteStore(file) as store:
        found = await store.get_many(acknowledged)
    assert len(acknowledged) == len(found) > 1000
    assert all(record.value.startswith(key.encode()) for key, record in found.items())


async def test_a_killed_process_leaves_no_part_of_what_it_wrote_together(tmp_path: Path) -> None:
    file = tmp_path / "bot.db"
    acknowledged = told_until_killed("write_all", file, 2, 400)
    parts: dict[str, str] = {}
    async with SqliteStore(file) as store:
        async for key in store.scan(""):
            triple, _, part = key.rpartition(":")
            parts[triple] = parts.get(triple, "") + part
    # Of each task the last triple is whole, and of each one before it one record is left.
    assert set(parts) >= set(acknowledged)
    assert set(parts.values()) == {"abc", "c"}
    for triple, left in parts.items():
        task, _, number = triple.rpartition(":")
        assert (left == "c") == (f"{task}:{int(number) + 1}" in parts)


def check_full(report: dict[str, Any], applied: str) -> None:
    assert report["acknowledged"] == report["there in want"] > 0
    assert report["acknowledged later"] == 20
    assert report["there later"] == report["acknowledged"] + 20
    assert report["errors"] == [f"StoreUnavailable True {applied}"]


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are those of POSIX")
def test_a_file_size_limit_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    (said,) = finish([start("fill", tmp_path / "bot.db", "limit")])
    check_full(json.loads(said), "MAYBE")


def small_disk(directory: Path) -> list[str]:
    """Return the command that runs another one with a disk of 3 MB mounted on the directory."""
    mount = f"mount -t tmpfs -o size=3m none '{directory}' && exec \"$@\""
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    wrapper = small_disk(tmp_path)
    if shutil.which("unshare") is None or subprocess.run([*wrapper, "true"], check=False).returncode:
        pytest.skip("this machine lets us mount no disk of our own (unshare --user --mount)")
    child = subprocess.run(
        [*wrapper, *CHILD, "fill", str(tmp_path / "bot.db"), "disk"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (child.returncode, child.stderr) == (0, "")
    check_full(json.loads(child.stdout), "NO")


async def test_a_store_that_is_not_closed_does_not_delay_the_exit(tmp_path: Path) -> None:
    file = tmp_path / "bot.db"
    started = time.monotonic()
    finish([start("forget", file)])
    assert time.monotonic() - started < 20, "well under the 30 seconds that an idle writer rests"
    async with SqliteStore(file) as store:
        assert await store.get("a") is not None
