from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

import pytest

from sessionkit import registry
from sessionkit.errors import ConfigurationError, StoreUnavailable
from sessionkit.registry import GROUP, known_schemes, open_driver, open_store
from sessionkit.store import SessionStore, Where
from sessionkit_memory import MemoryStore
from sessionkit_sqlite import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path


def test_the_built_in_drivers_are_found() -> None:
    assert {"memory", "sqlite", "redis"} <= set(known_schemes())


async def test_a_url_opens_its_driver(tmp_path: Path) -> None:
    async with (
        open_driver("memory://?max_bytes=1000") as memory,
        open_store(f"sqlite:///{tmp_path / 'bot.db'}") as sqlite,
    ):
        assert isinstance(memory, MemoryStore)
        assert isinstance(sqlite.primary, SqliteStore)
        await sqlite.put("k", b"v")


async def test_without_a_url_the_settings_decide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_store() as store:
        assert isinstance(store.primary, SqliteStore)
        await store.ping()
    assert (tmp_path / "sessionkit.db").is_file()
    monkeypatch.setenv("SESSIONKIT_URL", "memory://")
    async with open_store() as store:
        assert isinstance(store.primary, MemoryStore)


async def test_an_outage_is_hidden_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nowhere = "redis://127.0.0.1:1"
    async with open_store(nowhere, outage="raise") as store:
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await store.put("key", b"value")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESSIONKIT_URL", nowhere)
    monkeypatch.setenv("SESSIONKIT_JOURNAL", "sqlite:///outage.db")
    async with open_store() as store:
        assert (await store.put("key", b"value")).where is Where.JOURNALED
    # The process ends with the outage still on; the next one takes the journal up.
    async with open_store() as store:
        record = await store.get("key")
        assert record is not None
        assert record.stale
        async with open_store() as second:
            with pytest.raises(ConfigurationError, match=r"open already.*outage\.db\.lock"):
                await second.get("key")
    monkeypatch.setenv("SESSIONKIT_OUTAGE", "raise")
    with pytest.raises(ConfigurationError, match="SESSIONKIT_JOURNAL is set"):
        open_store()
    monkeypatch.delenv("SESSIONKIT_JOURNAL")
    async with open_store() as store:
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await store.get("key")


@pytest.mark.parametrize(
    ("journal", "says"),
    [
        ("memory://", "cannot keep a journal"),
        ("outage.db", "journal: a journal is named by a URL"),
        ("sqlite://", "names no file"),
    ],
)
def test_a_journal_is_a_file(journal: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        open_store("memory://", journal=journal)


def test_a_store_and_its_journal_do_not_share_a_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match="a file of its own"):
        open_store(f"sqlite:///{tmp_path / 'bot.db'}", journal=f"sqlite:///{tmp_path / 'link' / 'bot.db'}")


def test_an_unknown_scheme_names_the_known_ones_and_what_to_install() -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store("mysql://user:hunter2@host/db")
    assert "no driver for mysql://" in str(caught.value)
    for known in (
        "memory://, ",
        "redis://, ",
        "rediss+cluster://",
        "sqlite://",
        "pip install 'sessionkit[redis]'",
    ):
        assert known in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_misspelt_scheme_is_suggested() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean sqlite://\?"):
        open_store("sqlight:///bot.db")
    with pytest.raises(ConfigurationError, match=r"no driver for redisx://\. Known"):
        open_store("redisx://host")


@pytest.mark.parametrize(
    "url", ["memory://?colour=red", "sqlite:///x.db?colour=red", "redis://host?colour=red"]
)
def test_an_unknown_parameter_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="unknown parameter 'colour'; those of this driver are"):
        open_store(url)


def test_a_driver_whose_client_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sessionkit_redis"]:
        monkeypatch.delitem(sys.modules, name)
    for name in {"redis", *(name for name in sys.modules if name.startswith("redis."))}:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'sessionkit\[redis\]'"):
        open_store("redis://localhost")


async def test_a_third_party_driver_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("theirs", "sessionkit_memory:open_driver", GROUP)
    installed = [*entry_points(group=GROUP), point]
    monkeypatch.setattr(
        registry,
        "entry_points",
        lambda group, name=None: [p for p in installed if p.group == group and name in (None, p.name)],
    )
    assert "theirs" in known_schemes()
    async with open_store("theirs://") as store:
        assert isinstance(store.primary, MemoryStore)


def test_a_driver_that_forgets_a_method_is_no_store() -> None:
    class Forgetful(SessionStore):
        """It has no method at all, and must not answer None for each."""

    with pytest.raises(TypeError, match="abstract"):
        Forgetful()  # type: ignore[abstract]  # that is the point


def test_a_setting_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONKIT_URL", "somewhere")
    with pytest.raises(ConfigurationError, match=r"^SESSIONKIT_URL: a store's URL looks like"):
        open_store()


def test_every_driver_takes_a_timeout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SESSIONKIT_TIMEOUT", "2.5")
    for url in ("memory://", f"sqlite:///{tmp_path}/bot.db", "redis://localhost"):
        monkeypatch.setenv("SESSIONKIT_URL", url)
        open_store()
