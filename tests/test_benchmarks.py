"""``python -m benchmarks redis`` against a real server: what it saves is whole."""

from __future__ import annotations

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


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "redis", "--quick", "--seed", str(_SEED), *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def saved(server_binary: ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("benchmark")
    done = _run(
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
    done = _run("--contenders=bare,nobody")
    assert done.returncode == 2
    assert "no such contender: ['nobody']" in done.stderr


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


def test_the_resilient_store_is_measured_in_every_state(tmp_path: Path) -> None:
    if not find_servers():
        pytest.skip("no Redis or Valkey server on this machine")
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "resilience", "--quick", f"--json={file}"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    figures = {figure["what"]: figure for figure in json.loads(file.read_text(encoding="utf-8"))}
    assert all(figure["value"] == figure["value"] for figure in figures.values()), "none is not a number"
    assert figures["replay: keys written"]["met"] is True
    assert figures["replay: conflicts"]["met"] is True
    for words in ("healthy redis put", "circuit open, journal in file, lock", "black hole"):
        assert any(words in what for what in figures), words
