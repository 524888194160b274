from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest

from sessionkit import SessionService, open_store
from sessionkit.codec import MsgpackCodec, new_key, read_info
from sessionkit.errors import ConfigurationError, DecryptionError
from sessionkit.settings import DEFAULT_URL, Settings, Target

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "hunter2"
NAMES = [
    "SESSIONKIT_URL",
    "SESSIONKIT_PREFIX",
    "SESSIONKIT_TIMEOUT",
    "SESSIONKIT_IDLE_TIMEOUT",
    "REDIS_URL",
    "REDIS_PASSWORD",
    "REDIS_DB",
    *(f"SESSIONKIT_SSL_{name}" for name in ("CA_FILE", "CERT_FILE", "KEY_FILE", "KEY_PASSWORD")),
    "SESSIONKIT_SENTINEL_USERNAME",
    "SESSIONKIT_SENTINEL_PASSWORD",
    "SESSIONKIT_COMPRESSION",
    "SESSIONKIT_ENCRYPTION",
    "SESSIONKIT_ENCRYPTION_KEYS",
    "SESSIONKIT_ENCRYPTION_KEYS_FILE",
]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_with_nothing_set_the_embedded_default_is_used() -> None:
    settings = Settings.load()
    assert settings.target() == Target(DEFAULT_URL, {}, "the default")
    assert (settings.prefix, settings.idle_timeout) == ("telegram_bot:", 300)


def test_sessionkit_url_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://other")
    monkeypatch.setenv("REDIS_PASSWORD", SECRET)
    monkeypatch.setenv("SESSIONKIT_URL", "memory://")
    monkeypatch.setenv("SESSIONKIT_TIMEOUT", "2.5")
    assert Settings.load().target() == Target("memory://", {"timeout": 2.5}, "SESSIONKIT_URL")


def test_redis_variables_as_guides_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://localhost:6379")
    monkeypatch.setenv("REDIS_PASSWORD", SECRET)
    monkeypatch.setenv("REDIS_DB", "2")
    expected = Target("redis://localhost:6379", {"password": SECRET, "db": 2}, "REDIS_URL")
    assert Settings.load().target() == expected


@pytest.mark.parametrize(("url", "db"), [("redis://host/0", "1"), ("redis://host/1", "0")])
def test_two_databases_are_an_error(monkeypatch: pytest.MonkeyPatch, url: str, db: str) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("REDIS_DB", db)
    with pytest.raises(ConfigurationError, match=r"REDIS_URL: .* they differ"):
        open_store()


def test_tls_files_and_sentinel_login_go_to_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONKIT_URL", "rediss+sentinel://host/service")
    expected: dict[str, str] = {}
    for name in ("ssl_ca_file", "ssl_cert_file", "ssl_key_file", "ssl_key_password"):
        monkeypatch.setenv(f"SESSIONKIT_{name.upper()}", expected.setdefault(name, f"the {name}"))
    for name in ("sentinel_username", "sentinel_password"):
        monkeypatch.setenv(f"SESSIONKIT_{name.upper()}", expected.setdefault(name, f"the {name}"))
    settings = Settings.load()
    assert settings.target().options == expected
    assert "the ssl_key_password" not in repr(settings)
    assert "the sentinel_password" not in repr(settings)


def test_tls_files_for_a_store_without_tls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONKIT_URL", "redis://host")
    monkeypatch.setenv("SESSIONKIT_SSL_CA_FILE", "ca.pem")
    with pytest.raises(ConfigurationError, match=r"'ssl_ca_file' is for a connection over TLS: rediss://"):
        open_store()


def test_a_dotenv_file_is_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(
        "SESSIONKIT_URL=redis://from-file\nSESSIONKIT_PREFIX=shop:\nUNRELATED=1\nTELEGRAM_BOT_TOKEN=x\n"
    )
    settings = Settings.load()
    assert (settings.target().url, settings.prefix) == ("redis://from-file", "shop:")
    monkeypatch.setenv("SESSIONKIT_URL", "memory://")
    assert Settings.load().target().url == "memory://"


@pytest.mark.parametrize("use", [open_store, lambda: SessionService(open_store("memory://"))])
def test_a_prefix_that_no_key_can_have_is_named(
    monkeypatch: pytest.MonkeyPatch, use: Callable[[], object]
) -> None:
    monkeypatch.setenv("SESSIONKIT_PREFIX", "a b")
    with pytest.raises(
        ConfigurationError, match="; SESSIONKIT_PREFIX: a key prefix is made of letters"
    ) as caught:
        use()
    assert "a b" not in str(caught.value)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://localhost")
    monkeypatch.setenv("REDIS_PASSWORD", "")
    monkeypatch.setenv("REDIS_DB", "")
    assert Settings.load().target() == Target("redis://localhost", {}, "REDIS_URL")


@pytest.mark.parametrize("name", ["REDIS_PASSWORD", "REDIS_DB"])
def test_a_redis_setting_without_a_server_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        Settings.load().target()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_DB", "zero"),
        ("REDIS_DB", "-1"),
        ("SESSIONKIT_TIMEOUT", "soon"),
        ("SESSIONKIT_IDLE_TIMEOUT", "inf"),
        ("SESSIONKIT_IDLE_TIMEOUT", "0"),
    ],
)
def test_what_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        Settings.load()


def test_no_repr_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}@localhost")
    monkeypatch.setenv("REDIS_PASSWORD", SECRET)
    monkeypatch.setenv("SESSIONKIT_URL", f"redis://:{SECRET}@localhost")
    settings = Settings.load()
    assert SECRET not in f"{settings!r} {settings} {settings.target()!r}"


@pytest.mark.parametrize("where", ["environment", "file"])
@pytest.mark.parametrize("name", ["SESSIONKIT_ULR", "SESSIONKIT_PREFX", "SESIONKIT_URL", "sessionkit_ulr"])
def test_a_misspelt_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, where: str
) -> None:
    if where == "file":
        (tmp_path / ".env").write_text(f"{name}={SECRET}\n")
    else:
        monkeypatch.setenv(name, SECRET)
    with pytest.raises(ConfigurationError, match=f"{name} is no setting; did you mean SESSIONKIT_") as caught:
        Settings.load()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("where", ["environment", "file"])
@pytest.mark.parametrize(
    ("name", "others", "meant"),
    [
        ("REDIS_URI", {}, "REDIS_URL"),
        ("REDIS_DSN", {}, "REDIS_URL"),
        ("REDIS_ULR", {}, "REDIS_URL"),
        ("redis_uri", {"REDIS_PASSWORD": SECRET}, "REDIS_URL"),
        ("REDIS_DBS", {"REDIS_URL": "redis://host"}, "REDIS_DB"),
        ("REDISDB", {"REDIS_URL": "redis://host", "REDIS_DB": ""}, "REDIS_DB"),
    ],
)
def test_a_misspelt_redis_variable_is_refused_where_it_is_missed(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    others: dict[str, str],
    meant: str,
    where: str,
) -> None:
    if where == "file":
        (tmp_path / ".env").write_text(f"{name}={SECRET}\n")
    else:
        monkeypatch.setenv(name, SECRET)
    for other, value in others.items():
        monkeypatch.setenv(other, value)
    with pytest.raises(ConfigurationError, match=rf"^{name} is no setting; did you mean {meant}\?") as caught:
        Settings.load().target()
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("SESSIONKIT_URL", "memory://")
    assert Settings.load().target().url == "memory://"


@pytest.mark.parametrize("redis_url", [None, "redis://host"])
def test_redis_variables_of_others_are_let_be(monkeypatch: pytest.MonkeyPatch, redis_url: str | None) -> None:
    for word in (
        "HOST",
        "PORT",
        "USER",
        "USERNAME",
        "PASS",
        "PASSWD",
        "TLS_URL",
        "URL2",
        "DB1",
        "DB_HOST",
        "SSL",
    ):
        monkeypatch.setenv(f"REDIS_{word}", "theirs")
    monkeypatch.setenv("QUEUE_REDIS_URL", "theirs")
    if redis_url is not None:
        monkeypatch.setenv("REDIS_URL", redis_url)
        monkeypatch.setenv("REDIS_URI", "theirs")
    assert Settings.load().target().url == (redis_url or DEFAULT_URL)


def test_names_of_others_are_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONKIT_REDIS_SERVICE_HOST", "10.0.0.1")  # as Kubernetes names a service's host
    monkeypatch.setenv("sessionkit_url", "memory://")
    assert Settings.load().target().url == "memory://"


def test_a_dotenv_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"SESSIONKIT_URL=\xff\xfe\n")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        Settings.load()


def test_redis_url_is_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"sqlite:///{SECRET}")
    with pytest.raises(ConfigurationError, match="SESSIONKIT_URL") as caught:
        Settings.load().target()
    assert SECRET not in str(caught.value)


def test_the_codec_compresses_and_encrypts_as_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    value = "so it goes" * 10_000
    assert Settings.load().codec().encode(value) == MsgpackCodec().encode(value)
    old, new = new_key("2025"), new_key("2026")
    monkeypatch.setenv("SESSIONKIT_ENCRYPTION_KEYS", old)
    before = Settings.load().codec().encode(value, key="k")
    monkeypatch.setenv("SESSIONKIT_ENCRYPTION_KEYS", f"{new},{old}")
    monkeypatch.setenv("SESSIONKIT_COMPRESSION", "off")
    codec = Settings.load().codec(schema=3)
    after = codec.encode(value, key="k")
    assert read_info(before)[:3] == (1, True, "2025")
    assert read_info(after)[:3] == (3, False, "2026")
    assert codec.decode(before, key="k") == codec.decode(after, key="k") == value


def test_records_that_are_not_encrypted_are_read_only_where_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = MsgpackCodec().encode(1)
    monkeypatch.setenv("SESSIONKIT_ENCRYPTION_KEYS", new_key())
    for mode in ("", "strict"):
        monkeypatch.setenv("SESSIONKIT_ENCRYPTION", mode)
        with pytest.raises(DecryptionError):
            Settings.load().codec().decode(plain, key="k")
    monkeypatch.setenv("SESSIONKIT_ENCRYPTION", "mixed")
    assert Settings.load().codec().decode(plain, key="k") == 1


def test_keys_are_read_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{new_key('2026')}\n{new_key('2025')}\n")
    monkeypatch.setenv("SESSIONKIT_ENCRYPTION_KEYS_FILE", "keys")
    keyring = Settings.load().keyring()
    assert keyring is not None
    assert keyring.first == "2026"
    monkeypatch.setenv("SESSIONKIT_ENCRYPTION_KEYS", new_key())
    with pytest.raises(ConfigurationError, match="are both set"):
        Settings.load().keyring()
    monkeypatch.delenv("SESSIONKIT_ENCRYPTION_KEYS")
    (tmp_path / "keys").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="KEYS_FILE cannot be read: it is not ASCII"):
        Settings.load().keyring()
    (tmp_path / "keys").unlink()
    for nowhere in ("keys", "keys/0"):
        monkeypatch.setenv("SESSIONKIT_ENCRYPTION_KEYS_FILE", nowhere)
        with pytest.raises(ConfigurationError, match="KEYS_FILE cannot be read: No such file"):
            Settings.load().keyring()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("2025", "line 3: an encryption key reads id:base64.*make one by `sessionkit keys new`"),
        ("2025:{half}", "line 3: encryption key '2025': the secret is 32 bytes, not 15 bytes; make one"),
        ("2025:{half}é", "cannot be read: it is not ASCII text; write it without a byte order mark"),
        ("2025:{half}!", "line 3: encryption key '2025': what follows the ':' is not base64; copy it whole"),
        ("2026:{whole}", "two encryption keys have the same id, '2026': take one away, or give the newer"),
    ],
)
def test_a_wrong_file_of_keys_is_told_by_its_line_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, says: str
) -> None:
    first, whole = new_key("2026"), new_key().partition(":")[2]
    text = f"{first}\n\n{line.format(half=whole[:20], whole=whole)}\n"
    (tmp_path / "keys").write_text(text, "utf-8")
    monkeypatch.setenv("SESSIONKIT_ENCRYPTION_KEYS_FILE", "keys")
    with pytest.raises(ConfigurationError, match=f"^SESSIONKIT_ENCRYPTION_KEYS_FILE:? {says}") as caught:
        Settings.load().keyring()
    error = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert error.__context__ is None
    shown = [each for each in error.format() if "test_settings.py" not in each]
    assert not any(secret in "".join(shown) for secret in (first[5:17], whole[:12]))


def test_a_wrong_dotenv_file_hangs_on_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for content in (f"SESSIONKIT_ENCRYPTION_KEYS={SECRET}\xff\n", f"REDIS_PASSWORD={SECRET}\nREDIS_DB=one\n"):
        (tmp_path / ".env").write_text(content, "latin-1")
        with pytest.raises(ConfigurationError, match=r"^the settings cannot be read; ") as caught:
            Settings.load()
        assert caught.value.__context__ is None
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "SESSIONKIT_ENCRYPTION_KEYS",
            "hunter2hunter2",
            "_KEYS: entry 1: an encryption key reads id:base64",
        ),
        (
            "SESSIONKIT_ENCRYPTION_KEYS",
            "a:hunter2",
            "SESSIONKIT_ENCRYPTION_KEYS: entry 1: encryption key 'a'",
        ),
        ("SESSIONKIT_ENCRYPTION_KEYS", ",", "SESSIONKIT_ENCRYPTION_KEYS: there is no key in it; make one by"),
        ("SESSIONKIT_ENCRYPTION_KEY", "a:hunter2", "did you mean SESSIONKIT_ENCRYPTION_KEYS"),
        ("SESSIONKIT_ENCRIPTION_KEYS", "a:hunter2", "did you mean SESSIONKIT_ENCRYPTION_KEYS"),
        ("SESSIONKIT_ENCRYPTION", "hunter2", "SESSIONKIT_ENCRYPTION: Input should be 'strict' or 'mixed'"),
        ("SESSIONKIT_ENCRYPTION", "strict", "is set, but neither SESSIONKIT_ENCRYPTION_KEYS"),
        ("SESSIONKIT_ENCRYPTION", "mixed", "is set, but neither SESSIONKIT_ENCRYPTION_KEYS"),
        ("SESSIONKIT_COMPRESSION", "hunter2", "SESSIONKIT_COMPRESSION: Input should be 'auto'"),
    ],
)
def test_a_wrong_setting_of_the_codec_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=message) as caught:
        Settings.load().codec()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", ["2026{secret}", "2026:{secret}x", "2026:{half}", "2026:{secret},2026:{secret}"]
)
def test_no_traceback_shows_a_key_even_with_local_variables(
    monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    secret = new_key().partition(":")[2]
    monkeypatch.setenv("SESSIONKIT_ENCRYPTION_KEYS", wrong.format(secret=secret, half=secret[:20]))
    with pytest.raises(ConfigurationError) as caught:
        Settings.load().codec()
    error = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert error.__context__ is None
    shown = [line for line in error.format() if "test_settings.py" not in line]
    assert shown
    assert secret[:12] not in "".join(shown)


def test_a_repr_shows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key("2026")
    monkeypatch.setenv("SESSIONKIT_ENCRYPTION_KEYS", key)
    settings = Settings.load()
    for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.codec())):
        assert key.partition(":")[2] not in shown
