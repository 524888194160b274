"""Keys are made, records are encrypted anew, and damaged ones are looked after, as a user would do it."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import pytest

from sessionkit.codec import EncryptionKey, Keyring, MsgpackCodec, new_key, read_info
from sessionkit.errors import CorruptRecord
from sessionkit.keys import KeySpace
from sessionkit.quarantine import Quarantine
from sessionkit.registry import open_driver
from sessionkit.service import SessionService

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from sessionkit.store import SessionStore
    from sessionkit.testing.servers import RedisServer

OLD, NEW = new_key("2025"), new_key("2026")
PREFIX = "telegram_bot:"


class Done(NamedTuple):
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Awaitable[Done]]:
    """Runs the command in a folder of its own, in this process: a new one takes a second to import it all."""
    from sessionkit.cli.main import run as run_command  # which hides the function sessionkit.cli.main

    monkeypatch.chdir(tmp_path)

    async def run(*arguments: str, **settings: str) -> Done:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["sessionkit", *arguments])
            for name, value in settings.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                await asyncio.to_thread(run_command)
        out, err = capsys.readouterr()
        if isinstance(ended.value.code, str):
            return Done(1, out, f"{err}{ended.value.code}\n")
        return Done(ended.value.code or 0, out, err)

    return run


Run: TypeAlias = "Callable[..., Awaitable[Done]]"


def codec(*keys: str, **options: Any) -> MsgpackCodec:
    return MsgpackCodec(keyring=Keyring(map(EncryptionKey.parse, keys)), **options)


async def key_ids(store: SessionStore, prefix: str = PREFIX) -> dict[str, str | None]:
    """Return which key each record is encrypted by."""
    found: dict[str, str | None] = {}
    async for key in store.scan(prefix):
        record = await store.get(key)
        assert record is not None
        found[key.removeprefix(PREFIX)] = read_info(record.value).key_id
    return found


async def test_a_new_key_is_one(run: Run) -> None:
    made = await run("keys", "new", "--id", "2027")
    assert made.returncode == 0
    assert EncryptionKey.parse(made.stdout).id == "2027"
    assert (await run("keys", "new")).stdout != (await run("keys", "new")).stdout
    wrong = await run("keys", "new", "--id", "a b")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "the id of an encryption key" in wrong.stderr


async def check_rekey(run: Run, url: str) -> None:
    large = {"text": "so it goes " * 10_000, "tuple": (1, 2)}
    async with open_driver(url) as store:
        sessions = SessionService(store, codec=MsgpackCodec(schema=7))
        await sessions.create_session(1, {"n": 1})
        await SessionService(store, codec=codec(OLD)).create_session(2, {"n": 2})
        await SessionService(store, codec=codec(NEW)).create_session(3, {"n": 3})
        user = f"{PREFIX}user_data:4"
        lasting = await store.put(user, codec(OLD).encode(large, key=user))
        foreign = await store.put(f"{PREFIX}user_data:5", b"no record")
        lost = await store.put(f"{PREFIX}user_data:6", codec(new_key("lost")).encode(1, key="x"))
        await store.put("other:user_data:7", MsgpackCodec().encode(1))
        before = await store.get(f"{PREFIX}session:1")
        assert before is not None
    settings = {"SESSIONKIT_URL": url, "SESSIONKIT_ENCRYPTION_KEYS": f"{NEW},{OLD}"}
    done = await run("rekey", **settings)
    assert done.returncode == 1, "something is left"
    assert done.stdout == "rekeyed 3, current before 1, gone meanwhile 0, left as not readable 2\n"
    assert f"left: {PREFIX}user_data:5: 9 bytes that are no sessionkit record" in done.stderr
    assert f"left: {PREFIX}user_data:6: a record encrypted by the key 'lost'" in done.stderr
    async with open_driver(url) as store:
        for key, receipt in (("user_data:5", foreign), ("user_data:6", lost)):
            record = await store.get(PREFIX + key)
            assert record is not None
            assert record.version == receipt.version
        assert await store.delete_many([f"{PREFIX}user_data:5", f"{PREFIX}user_data:6"]) == 2
        ids = await key_ids(store)
        assert ids == dict.fromkeys(("session:1", "session:2", "session:3", "user_data:4"), "2026")
        assert await key_ids(store, "other:") == {"other:user_data:7": None}
        after = await store.get(f"{PREFIX}session:1")
        assert after is not None
        assert after.version == before.version, "who edits it meanwhile does not notice"
        assert read_info(after.value).schema == 7
        for number in (1, 2, 3):
            session = await SessionService(store, codec=codec(NEW, schema=7)).get_session(number)
            assert session is not None
            assert session.data == {"n": number}
        record = await store.get(user)
        assert record is not None
        assert record.version == lasting.version
        assert codec(NEW).decode(record.value, key=user) == large
    again = await run("rekey", **settings)
    assert again.returncode == 0
    assert again.stdout.startswith("rekeyed 0, current before 4, ")
    other = await run("rekey", "--prefix", "other:", **settings)
    assert other.stdout.startswith("rekeyed 1, ")


async def test_rekey_on_sqlite(run: Run, tmp_path: Path) -> None:
    await check_rekey(run, f"sqlite:///{tmp_path / 'bot.db'}")


async def test_rekey_on_redis_keeps_the_expiry(run: Run, redis_server: RedisServer) -> None:
    await check_rekey(run, redis_server.url())
    assert 200_000 < int(redis_server.command("PTTL", f"{PREFIX}session:1")) <= 300_000
    assert int(redis_server.command("PTTL", f"{PREFIX}user_data:4")) == -1


async def test_rekey_needs_keys_and_shows_none(run: Run) -> None:
    done = await run("rekey", "--url", "memory://")
    assert done.returncode == 1
    assert "rekey needs SESSIONKIT_ENCRYPTION_KEYS" in done.stderr
    secret = NEW.partition(":")[2]
    for wrong in (f"{NEW},2025:{secret[:20]}", f"2026{secret}", f"{NEW},{NEW}"):
        done = await run("rekey", "--url", "memory://", SESSIONKIT_ENCRYPTION_KEYS=wrong)
        assert done.returncode == 1
        assert done.stderr.startswith("sessionkit: SESSIONKIT_ENCRYPTION_KEYS: ")
        assert secret[:10] not in done.stderr + done.stdout


async def test_show_decrypts_and_tells_the_header(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'bot.db'}"
    key = KeySpace("user_data").key(7)
    async with open_driver(url) as store:
        await store.put(key, codec(NEW, schema=3).encode({"n": 1}, key=key))
        await store.put("plain", MsgpackCodec(schema=9).encode(["x"] * 20_000))
    settings = {"SESSIONKIT_URL": url, "SESSIONKIT_ENCRYPTION_KEYS": NEW}
    shown = await run("show", key, **settings)
    assert (shown.returncode, shown.stdout) == (0, "{'n': 1}\n")
    shown = await run("show", "--header", key, SESSIONKIT_URL=url)
    assert shown.returncode == 0
    assert "schema: 3\ncompressed: no\nencrypted: by the key '2026', 20" in shown.stdout
    shown = await run("show", "--header", "plain", **settings)
    assert "schema: 9\ncompressed: yes\nencrypted: no\n" in shown.stdout
    shown = await run("show", key, SESSIONKIT_URL=url)
    assert shown.returncode == 1
    assert (
        f"sessionkit: {key}: a record encrypted by the key '2026', and this codec has no keys" in shown.stderr
    )


async def test_quarantine_is_listed_shown_restored_and_purged(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'bot.db'}"
    settings = {"SESSIONKIT_URL": url}
    good = MsgpackCodec().encode({"n": 1})
    async with open_driver(url) as store:
        quarantine = Quarantine(store, MsgpackCodec(schema=5), PREFIX)
        for number, value in ((1, b"damaged"), (2, good)):
            key = f"{PREFIX}session:{number}"
            await store.put(key, value)
            record = await store.get(key)
            assert record is not None
            await quarantine.take(key, record, CorruptRecord("it is damaged"))
    listed = await run("quarantine", "ls", **settings)
    assert listed.returncode == 0
    lines = [line.split("  ") for line in listed.stdout.splitlines()]
    assert [reason for _, _, reason in lines] == ["it is damaged"] * 2
    first, second = sorted(key for key, _, _ in lines)
    shown = await run("quarantine", "show", first, **settings)
    assert f"record: {PREFIX}session:1\n" in shown.stdout
    assert f"begins: {b'damaged'.hex()}\n" in shown.stdout
    assert (await run("quarantine", "show", second, **settings)).stdout.endswith("{'n': 1}\n")
    restored = await run("quarantine", "restore", second, "--expires-in", "100", **settings)
    assert (restored.returncode, restored.stdout) == (0, f"restored {PREFIX}session:2\n")
    async with open_driver(url) as store:
        record = await store.get(f"{PREFIX}session:2")
        assert record is not None
        assert record.value == good
        await store.put(f"{PREFIX}session:1", good)
    restored = await run("quarantine", "restore", first, **settings)
    assert restored.returncode == 1
    assert "somebody else wrote" in restored.stderr
    for command in ("show", "restore"):
        missing = await run("quarantine", command, second, **settings)
        assert missing.returncode == 1
        assert "there is no entry" in missing.stderr
    for arguments in ([], [first, "--all"]):
        refused = await run("quarantine", "purge", *arguments, **settings)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "purge takes the keys of entries, or --all" in refused.stderr
    assert (await run("quarantine", "purge", first, second, **settings)).stdout == "removed 1\n"
    async with open_driver(url) as store:
        await store.put(f"{PREFIX}quarantine:a:1", b"damaged itself")
    listed = await run("quarantine", "ls", **settings)
    assert (listed.returncode, listed.stdout) == (1, "")
    assert f"not readable: {PREFIX}quarantine:a:1: " in listed.stderr
    assert (await run("quarantine", "purge", "--all", **settings)).stdout == "removed 1\n"
    assert (await run("quarantine", "purge", f"{PREFIX}session:1", **settings)).returncode == 1


@pytest.mark.parametrize("command", ["ls", "show x", "restore x", "purge x"])
async def test_quarantine_errors_are_one_line(run: Run, command: str) -> None:
    done = await run("quarantine", *command.split(), "--url", "nothing://")
    assert done.returncode == 1
    assert done.stderr.startswith("sessionkit: there is no driver for nothing://")
