"""The benchmarks against a real server: what they save is whole."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from sessionkit.testing.servers import find_servers

if TYPE_CHECKING:
    from types import ModuleType

    from sessionkit.testing.servers import ServerBinary

_ROOT = Path(__file__).parent.parent
_CONTENDERS = ("bare", "sessionkit", "redis-py")
_SEED = 20
_OURS = tuple(
    f"{how}, {where}" for where in ("SQLite", "Redis") for how in ("SessionPersistence", "SessionApplication")
)
_FLOORS = tuple(f"floor, {where}" for where in ("a dict", "SQLite", "Redis"))


def _run(benchmark: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", benchmark, "--quick", "--seed", str(_SEED), *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def saved(server_binary: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("benchmark")
    done = _run(
        "redis",
        "--server",
        server_binary.name,
        "--loop=asyncio",
        "--callers=1,16",
        f"--contenders={','.join(_CONTENDERS)}",
        f"--json={folder / 'figures.json'}",
        f"--svg={folder / 'chart.svg'}",
    )
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    return figures | {"printed": done.stdout, "svg": (folder / "chart.svg").read_text(encoding="utf-8")}


def test_the_codec_is_compared_with_those_that_keep_the_value(tmp_path: Path) -> None:
    done = _run("codec", f"--json={tmp_path / 'figures.json'}")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    rows = {(row["shape"], row["entrant"]): row for row in figures["rows"]}
    for (shape, entrant), row in rows.items():
        kept = row["size"] is not None
        assert kept or (shape, entrant) not in {("small session", "msgpack"), (shape, "sessionkit")}
        assert kept == (row["ratio"] is not None)
    assert rows["int keys", "json"]["size"] is None
    assert rows["small session", "msgpack"]["ratio"] == 1.0
    assert [bar["shape"] for bar in figures["bars"]] == ["small session", "cart", "nested"]
    assert all(bar["met"] == (bar["seen"] <= 2) for bar in figures["bars"])
    assert "ratio of both" in done.stdout


@pytest.fixture(scope="module")
def bots(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not (servers := find_servers()):
        pytest.skip("no Redis server is installed")
    path = tmp_path_factory.mktemp("benchmark") / "figures.json"
    # A process for each start takes its time.
    parts = "loss,start,save,pace" if request.config.getoption("heavy") else "save,pace"
    done = _run("ptb", "--server", servers[0].name, f"--parts={parts}", f"--json={path}")
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return figures


def test_no_bot_forgets_a_step_while_it_runs(bots: dict[str, Any]) -> None:
    seen = [(pace["chats"], pace["answers"], pace["entrant"]) for pace in bots["paces"]]
    silent = [
        (chats, False, entrant)
        for chats in ("private", "group")
        for entrant in (
            "no persistence",
            "a persistence that does nothing",
            *_FLOORS,
            *_OURS,
        )
    ]
    assert seen == [
        *silent,
        *(("private", True, entrant) for entrant in ("no persistence", "PicklePersistence", *_OURS)),
    ]
    assert {pace["lost"] for pace in bots["paces"]} == {0}


def test_what_is_asked_of_a_bot_stands_beside_what_was_seen(bots: dict[str, Any]) -> None:
    seen = {(bar["work"], bar["entrant"]): bar for bar in bots["bars"]}
    for save in bots["saves"][1:]:
        bar = seen["save 1 of 100 users", save["entrant"]]
        assert bar["met"] == (save["ratio"] >= 100)
    for pace in bots["paces"]:
        answers = ", each answered" if pace["answers"] else ""
        bar = seen.get((f"{pace['chats']} chats, 64 updates at once{answers}", pace["entrant"]))
        assert (bar is not None) == pace["entrant"].startswith("Session")
        if bar is not None:
            assert bar["seen"] == f"{pace['ratio']:.3f}"


def test_a_killed_bot_forgets_what_was_not_stored(
    bots: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("heavy"):
        pytest.skip("kills bots: --heavy")
    lost = {loss["entrant"]: (loss["lost"], loss["answered"]) for loss in bots["losses"]}
    assert lost["PicklePersistence"][0] == lost["PicklePersistence"][1] > 0
    assert {lost[entrant][0] for entrant in _OURS if entrant.startswith("SessionApplication")} == {0}
    assert len(bots["starts"]) == 2 * 8


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    # It is in no wheel. What is imported already, sessionkit among it, stays the one that is installed.
    monkeypatch.syspath_prepend(_ROOT)
    return importlib.import_module("benchmarks.load")


def test_every_contender_has_figures_for_each_work_and_number_of_callers(saved: dict[str, Any]) -> None:
    assert [(row["work"], row["callers"], row["entrant"]) for row in saved["rows"]] == [
        (work, callers, name) for work in ("put", "get") for callers in (1, 16) for name in _CONTENDERS
    ]
    for row in saved["rows"]:
        assert row["rate"] > 0
        assert len(row["rates"]) == 1
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["cpu_us"] > 0


def test_no_contender_meets_an_error_or_reads_another_keys_value(saved: dict[str, Any]) -> None:
    assert [(row["errors"], row["mismatches"]) for row in saved["rows"]] == [({}, 0)] * 12


def test_a_reference_has_the_ratio_one_to_itself(saved: dict[str, Any]) -> None:
    assert {row["to_pool"] for row in saved["rows"] if row["entrant"] == "redis-py"} == {1.0}
    assert {row["to_bare"] for row in saved["rows"] if row["entrant"] == "bare"} == {1.0}


def test_the_bars_stand_beside_what_was_seen(saved: dict[str, Any]) -> None:
    ours = {(row["work"], row["callers"]): row for row in saved["rows"] if row["entrant"] == "sessionkit"}
    assert len(saved["bars"]) == 8
    for bar in saved["bars"]:
        row = ours[bar["work"], bar["callers"]]
        reference = "to_bare" if bar["asked"].endswith("bare") else "to_pool"
        assert bar["seen"] == f"{row[reference]:.2f}"


def test_what_was_run_is_saved_with_it(saved: dict[str, Any], server_binary: ServerBinary) -> None:
    assert saved["server"] == {"name": server_binary.name, "version": server_binary.version}
    assert saved["seed"] == _SEED
    assert saved["arguments"]["callers"] == [1, 16]
    assert set(saved["versions"]) == {"hiredis", "redis", "sessionkit"}
    assert f"seed {_SEED}" in saved["printed"]


def test_the_chart_has_a_line_for_each_contender_in_each_panel(saved: dict[str, Any]) -> None:
    chart = ElementTree.fromstring(saved["svg"])
    assert len(list(chart.iter("{http://www.w3.org/2000/svg}polyline"))) == 2 * len(_CONTENDERS)
    texts = {text.text for text in chart.iter("{http://www.w3.org/2000/svg}text")}
    assert texts >= {*_CONTENDERS, "put, asyncio: throughput ÷ redis-py's"}


def test_a_contender_that_does_not_exist_is_refused() -> None:
    done = _run("redis", "--contenders=bare,nobody")
    assert done.returncode == 2
    assert "no such contender: ['nobody']" in done.stderr


@pytest.fixture(scope="module")
def outage(server_binary: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("benchmark") / "figures.json"
    done = _run("resilience", "--server", server_binary.name, f"--json={path}")
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return figures


def test_a_resilient_store_stands_beside_its_driver(outage: dict[str, Any]) -> None:
    assert [(cost["store"], cost["work"], cost["callers"]) for cost in outage["costs"]] == [
        (store, work, callers)
        for store in ("redis", "memory")
        for work in ("put", "get")
        for callers in (1, 16, 128)
    ]
    for cost in outage["costs"]:
        assert cost["ratio"] == pytest.approx(cost["rates"][0] / cost["driver_rates"][0], rel=0.05)
        assert cost["wrong"] == 0


def test_every_operation_of_an_outage_is_timed_and_none_fails(outage: dict[str, Any]) -> None:
    works = ("get", "put if_version", "lock", "put")
    timed = outage["circuit_open"]
    assert [(each["work"], each["callers"]) for each in timed] == [
        (work, callers) for work in works for callers in (1, 16)
    ] * 2
    for each in (*timed, *outage["black_hole"]["then"]):
        assert each["done"] > 0
        assert 0 < each["p50_ms"] <= each["p99_ms"]
        assert each["wrong"] == 0


def test_a_replay_loses_nothing_and_goes_on_beside_live_callers(outage: dict[str, Any]) -> None:
    replay = outage["replay"]
    assert (replay["passes"], replay["replayed"], replay["conflicts"], replay["lost"]) == (1, 500, 0, 0)
    for timed in (replay["before"], replay["during"]):
        assert timed["done"] > 0
        assert timed["wrong"] == 0


def test_what_is_asked_of_a_resilient_store_stands_beside_what_was_seen(outage: dict[str, Any]) -> None:
    seen = {(bar["work"], bar["callers"]): bar for bar in outage["bars"]}
    assert {work for work, _ in seen} == {
        "put, redis",
        "get, redis",
        "get, circuit open",
        "put if_version, circuit open",
        "lock, circuit open",
        "put, circuit open",
        "black hole",
        "replay",
        "save and load",
    }
    [cost] = [
        cost
        for cost in outage["costs"]
        if (cost["store"], cost["work"], cost["callers"]) == ("redis", "get", 128)
    ]
    assert seen["get, redis", 128]["seen"] == f"{cost['ratio']:.2f}"
    assert seen["get, redis", 128]["met"] is (cost["ratio"] >= 0.85)


def test_a_part_that_does_not_exist_is_refused() -> None:
    done = _run("resilience", "--parts=healthy,none")
    assert done.returncode == 2
    assert "no such part: ['none']" in done.stderr


async def test_a_caller_that_meets_an_error_is_counted_and_stops(load: ModuleType) -> None:
    calls = 0

    async def refuse_the_first_three(_: int) -> object:
        nonlocal calls
        calls += 1
        if calls <= 3:
            raise ConnectionError("Too many connections")
        return None

    seen = await load.run_load(refuse_the_first_three, callers=10, seconds=0)
    assert seen.errors == {"ConnectionError: Too many connections": 3}
    assert seen.done == 7


async def test_a_value_of_another_key_is_counted(load: ModuleType) -> None:
    stored = list(range(load.KEYS))

    async def get(number: int) -> object:
        return number if number else "another's"

    seen = await load.run_load(get, callers=load.KEYS, seconds=0, stored=stored)
    assert (seen.done, seen.mismatches) == (load.KEYS, 1)


async def test_callers_stop_once_it_is_over(load: ModuleType) -> None:
    done = 0

    async def count(_: int) -> object:
        nonlocal done
        done += 1
        await asyncio.sleep(0)
        return None

    seen = await load.run_load(count, callers=2, seconds=3600, over=lambda: done >= 10)
    assert seen.done == done == 10
