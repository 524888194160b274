from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from sessionkit.cli import main
from sessionkit.cli.main import app
from sessionkit.codec import MsgpackCodec, new_key
from sessionkit.registry import open_store
from sessionkit.testing.servers import RedisServer

if TYPE_CHECKING:
    from sessionkit.testing.servers import ServerBinary
    from tests.command import Command

ROOT = Path(__file__).parent.parent.parent


def run(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, in a folder of its own."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "SESSIONKIT_"))
    }
    return subprocess.run(
        [Path(sys.executable).with_name("sessionkit"), *arguments],
        env={**inherited, "NO_COLOR": "1", **settings},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def check_demo(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line.split(maxsplit=2)[1:] for line in done.stdout.splitlines()[:-1]]
    assert ["bot", "is killed with SIGKILL"] in told
    assert [what for who, what in told if who == "Ada"] == ["/depot", "sends an audio", "150", "yes"]
    assert sum(what.startswith("starts") for who, what in told if who == "bot") == 2
    states = [what.split("'")[1] for who, what in told if who == "store" and "state" in what]
    assert states == ["audio", "amount", "amount", "confirm"]
    assert done.stdout.splitlines()[-1] == "✓ the bot lost its process and nothing else"


def test_demo_on_the_embedded_default(tmp_path: Path) -> None:
    check_demo(run(tmp_path, "demo"))
    assert list(tmp_path.iterdir()) == []


async def test_demo_on_redis(tmp_path: Path, redis_server: RedisServer) -> None:
    url = redis_server.url()
    check_demo(run(tmp_path, "demo", "--url", url))
    async with open_store(url) as store:
        assert [key async for key in store.scan("")] == []


def test_demo_takes_a_path_from_where_the_user_is(tmp_path: Path) -> None:
    check_demo(run(tmp_path, "demo", "--url", "sqlite:///bot.db"))
    assert (tmp_path / "bot.db").is_file()


def test_chaos_demo_loses_nothing(tmp_path: Path, redis_server: RedisServer) -> None:
    done = run(tmp_path, "demo", "--chaos")
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line.split(maxsplit=2)[1:] for line in done.stdout.splitlines()[:-1]]
    assert ["redis", "is killed with SIGKILL"] in told
    assert [what for who, what in told if who == "Ada"] == ["/depot", "sends an audio", "150", "yes"]
    assert sum(what.startswith("starts") for who, what in told if who == "bot") == 1
    states = [what.split("'")[1] for who, what in told if who == "store" and "state" in what]
    assert states == ["audio", "confirm"], "what Redis had, and then has"
    assert (
        done.stdout.splitlines()[-1] == "✓ the user was answered throughout, and nothing is missing in Redis"
    )
    assert list(tmp_path.iterdir()) == []


def test_chaos_demo_takes_no_url(tmp_path: Path) -> None:
    done = run(tmp_path, "demo", "--chaos", "--url", "redis://localhost")
    assert done.returncode == 1
    assert "no --url" in done.stderr


def test_demo_fails_when_a_step_does_not_come_true(tmp_path: Path, server_binary: ServerBinary) -> None:
    """The server answers, and has no room for a session: the demo must notice and say so."""
    with RedisServer(server_binary, config={"maxmemory": "1", "maxmemory-policy": "noeviction"}) as server:
        done = run(tmp_path, "demo", "--url", server.url())
    assert done.returncode == 1
    assert "✗" in done.stdout
    assert "out of memory" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demo", "--url", "redis://:hunter2@127.0.0.1:1/0"], "redis://***@127.0.0.1:1/0 cannot be reached"),
        (["demo", "--url", "memory://"], "dies with it"),
        (["demo", "--url", "redis"], "looks like"),
        (["ping", "--url", "redis://:hunter2@127.0.0.1:1/0"], "cannot be reached"),
        (["show", "key", "--url", "nothing://"], "no driver for nothing://"),
        (["show", "a#b", "--url", "memory://"], "'#'"),
    ],
)
def test_an_error_is_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("sessionkit: ")
    assert says in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


async def test_show_prints_the_decoded_value(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'bot.db'}"
    async with open_store(url) as store:
        await store.put("telegram_bot:user_data:7", MsgpackCodec().encode({"n": (1, {"a"})}))
        await store.put("damaged", b"damaged")
    done = run(tmp_path, "show", "telegram_bot:user_data:7", "--url", url)
    assert (done.returncode, done.stdout) == (0, "{'n': (1, {'a'})}\n")
    done = run(tmp_path, "show", "telegram_bot:user_data:8", "--url", url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no record" in done.stderr
    assert "sessionkit ls" in done.stderr
    done = run(tmp_path, "ls", "telegram_bot:", "--url", url)
    assert (done.returncode, done.stdout) == (0, "telegram_bot:user_data:7\n")
    done = run(tmp_path, "ls", "--url", url)
    assert done.stdout == "damaged\ntelegram_bot:user_data:7\n"
    done = run(tmp_path, "show", "damaged", "--url", url)
    assert done.returncode == 1
    assert done.stderr.startswith("sessionkit: damaged: ")


def test_without_its_libraries_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "sessionkit.cli.main", raising=False)
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit, match=r"sessionkit: 'typer' is missing: pip install 'sessionkit\[cli\]'"):
        main()


def test_ping_reads_the_settings(tmp_path: Path) -> None:
    done = run(tmp_path, "ping", SESSIONKIT_URL="memory://")
    assert done.returncode == 0
    assert done.stdout.startswith("answered in ")


def commands(group: Any, path: str = "") -> dict[str, Any]:
    """Return every command of a group and of the groups in it, by what one types for it."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        found[path + name] = command
        if hasattr(command, "commands"):
            found |= commands(command, f"{path}{name} ")
    return found


COMMANDS = commands(get_command(app))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help_and_is_documented(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    documentation = (ROOT / "docs" / "cli.md").read_text()
    assert f"## sessionkit {name}\n" in documentation
    for parameter in command.params:
        if parameter.name != "help":
            assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"
            assert any(text.upper() in documentation.upper() for text in parameter.opts)


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls"],
        ["show", "telegram_bot:session:1"],
        ["ping"],
        ["rekey"],
        ["quarantine", "ls"],
        ["quarantine", "purge", "--all"],
        ["export", "records.jsonl"],
        ["copy", "--to", "sqlite:///new.db"],
        ["export-pickle", "bot.pickle"],
        ["journal", "sqlite:///missing.db"],
    ],
)
def test_a_missing_file_is_no_empty_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command, arguments: list[str]
) -> None:
    monkeypatch.setenv("SESSIONKIT_URL", "sqlite:///missing.db")
    monkeypatch.setenv("SESSIONKIT_ENCRYPTION_KEYS", new_key("2026"))
    named = "" if arguments[0] == "journal" else "SESSIONKIT_URL: "
    refused = f"sessionkit: {named}there is no file {tmp_path / 'missing.db'}; correct the path"
    assert command(*arguments) == (refused, "", "")
    assert list(tmp_path.iterdir()) == []


def test_a_look_needs_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    """What the bot's settings say of its journal must not stop a command that uses none."""
    (tmp_path / "bot.db").touch()
    monkeypatch.setenv("SESSIONKIT_URL", "sqlite:///bot.db")
    monkeypatch.setenv("SESSIONKIT_JOURNAL", "sqlite:///outage.db")
    assert command("ls") == (0, "", "")


async def test_journal_shows_what_waits_and_moves_it(tmp_path: Path) -> None:
    journal, here = f"sqlite:///{tmp_path / 'outage.db'}", f"sqlite:///{tmp_path / 'bot.db'}"
    async with open_store("redis://127.0.0.1:1/0", journal=journal) as store:
        await store.put("telegram_bot:session:7", b"1234", expires_in=300)
        shown = run(tmp_path, "journal", journal)
        assert shown.returncode == 0
        assert "1 key waits for redis://127.0.0.1:1/0" in shown.stdout
        assert "telegram_bot:session:7" in shown.stdout
        assert run(tmp_path, "journal", journal, "--move-to", here).returncode == 1
    moved = run(tmp_path, "journal", journal, "--move-to", here)
    assert f"1 key waits for sqlite://{tmp_path / 'bot.db'}" in moved.stdout
    async with open_store(here, journal=journal) as store:
        found = await store.get("telegram_bot:session:7")
        assert found is not None
        assert found.value == b"1234"
    assert run(tmp_path, "journal", journal).stdout == f"0 keys wait for sqlite://{tmp_path / 'bot.db'}\n"
