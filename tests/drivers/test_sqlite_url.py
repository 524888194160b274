"""How a URL or a path names the file, and what comes with it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from sessionkit.errors import ConfigurationError
from sessionkit.store import SessionStore, StoreURL
from sessionkit.testing import ManualClock
from sessionkit_sqlite import SqliteStore, open_driver

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_700_000_000.1)


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def test_a_relative_url_is_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        repr(open_driver(StoreURL.parse("sqlite:///bot.db"))) == f"SqliteStore({str(tmp_path / 'bot.db')!r})"
    )


def test_an_absolute_url_has_four_slashes() -> None:
    assert repr(open_driver(StoreURL.parse("sqlite:////var/lib/bot.db"))) == "SqliteStore('/var/lib/bot.db')"


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("sqlite://bot.db", "sqlite:///bot.db"),
        ("sqlite://localhost:1/bot.db", "sqlite:///bot.db"),
        ("sqlite://user:secret@/bot.db", "sqlite:///bot.db"),
        ("sqlite://", "sqlite:///bot.db"),
        ("sqlite:///", "sqlite:///bot.db"),
        ("sqlite:///data/", "sqlite:///bot.db"),
        ("sqlite:///%00", "sqlite:///bot.db"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///bot.db?journal=off", "timeout"),
        ("sqlite:///bot.db?timeout=soon", "timeout"),
        ("sqlite:///bot.db?timeout=0", "timeout"),
        ("sqlite:///bot.db?timeout=nan", "timeout"),
        ("sqlite:///bot.db?timeout=inf", "timeout"),
    ],
)
def test_an_unusable_url_is_refused_with_what_to_write(url: str, advice: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_driver(StoreURL.parse(url))
    assert advice in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b"])
def test_a_path_that_names_no_file_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError):
        SqliteStore(path)


async def test_options_come_by_url_or_by_code(tmp_path: Path) -> None:
    url = StoreURL.parse(f"sqlite:///{tmp_path}/odd%20name%3F%23.db?timeout=2.5")
    async with open_driver(url) as store:
        await store.put("a", b"1")
    assert [path.name for path in files(tmp_path)] == ["odd name?#.db"]
    with pytest.raises(ConfigurationError):
        open_driver(url, timeout=1)


async def test_construction_touches_nothing(tmp_path: Path) -> None:
    threads = threading.active_count()
    store = SqliteStore(tmp_path / "bot.db")
    assert isinstance(store, SessionStore)
    await store.aclose()
    assert files(tmp_path) == []
    assert threading.active_count() == threads
