"""Values of older schemas are read as today's; those of newer ones are refused."""

from __future__ import annotations

from typing import Any

import pytest

from sessionkit.codec import EncryptionKey, Keyring, MsgpackCodec
from sessionkit.errors import CodecError, ConfigurationError, CorruptRecord, DecryptionError


def split_name(data: dict[str, Any]) -> dict[str, Any]:
    """Return data in which the name has two parts."""
    first, _, last = data.pop("name").partition(" ")
    return {**data, "first": first, "last": last}


def count_steps(data: dict[str, Any]) -> dict[str, Any]:
    """Return data that know how many steps there were."""
    data["steps"] = len(data["done"])
    return data


STEPS = {1: split_name, 2: count_steps}
OLD = {"name": "Ada Lovelace", "done": ["audio", "amount"]}
NOW = {"done": ["audio", "amount"], "first": "Ada", "last": "Lovelace", "steps": 2}


@pytest.mark.parametrize(
    "keyring", [None, Keyring([EncryptionKey("a", bytes(32))])], ids=["plain", "encrypted"]
)
def test_schema_1_is_read_at_schema_3_by_two_migrations(keyring: Keyring | None) -> None:
    now = MsgpackCodec(schema=3, migrations=STEPS, keyring=keyring)
    assert now.decode(MsgpackCodec(schema=1, keyring=keyring).encode(OLD, key="k"), key="k") == NOW
    half = {"first": "Ada", "last": "", "done": [1]}
    assert now.decode(MsgpackCodec(schema=2, keyring=keyring).encode(half, key="k"), key="k")["steps"] == 1
    assert now.decode(now.encode(OLD, key="k"), key="k") == OLD, "a value of today is not touched"


def test_a_newer_schema_is_refused() -> None:
    newer = MsgpackCodec(schema=4).encode(OLD)
    with pytest.raises(
        CodecError, match="a record of schema 4, and this codec knows schemas up to 3"
    ) as caught:
        MsgpackCodec(schema=3, migrations=STEPS).decode(newer)
    assert not isinstance(caught.value, (CorruptRecord, DecryptionError))


def test_without_migrations_older_values_are_read_as_they_are() -> None:
    assert MsgpackCodec(schema=7).decode(MsgpackCodec(schema=2).encode(OLD)) == OLD


def test_a_mapping_migrates_the_kinds_it_names() -> None:
    codec = MsgpackCodec(schema=2, migrations={1: {"session": split_name}})
    plain = MsgpackCodec().pack(OLD)
    migrated = codec.migrate(codec.unpack(plain), plain, kind="session")
    assert migrated == {"done": ["audio", "amount"], "first": "Ada", "last": "Lovelace"}
    assert codec.migrate(codec.unpack(plain), plain, kind="user_data") == OLD
    assert codec.decode(plain) == OLD


@pytest.mark.parametrize(
    ("schema", "migrations", "message"),
    [
        (3, {1: split_name}, "from 1 to 2, and 2 has none"),
        (3, {2: split_name}, "from 1 to 2, and 1 has none"),
        (4, {1: split_name, 3: split_name}, "from 1 to 3, and 2 has none"),
        (2, {1: split_name, 2: split_name}, "is none of these|say which one"),
        (1, {0: split_name}, "is none of these|say which one"),
        (2, {"1": split_name}, "and 1 has none"),
        (2, {1: None}, "the migration from schema 1 is a function"),
        (2, {1: {"session": None}}, "the migration from schema 1 is a function"),
    ],
)
def test_gaps_are_refused(schema: int, migrations: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MsgpackCodec(schema=schema, migrations=migrations)


def test_a_migration_that_fails_is_named_and_is_no_corruption() -> None:
    plain = MsgpackCodec().encode({"secret": "hunter2"})
    failing = MsgpackCodec(schema=2, migrations={1: split_name})
    with pytest.raises(CodecError, match="the migration from schema 1 raised KeyError") as caught:
        failing.decode(plain)
    assert not isinstance(caught.value, CorruptRecord)
    assert "hunter2" not in str(caught.value)
    forgetful = MsgpackCodec(schema=2, migrations={1: lambda data: data.update(more=1)})
    with pytest.raises(CodecError, match="from schema 1 returned None"):
        forgetful.decode(plain)
    assert (
        MsgpackCodec(schema=2, migrations={1: lambda data: data}).decode(MsgpackCodec().encode(None)) is None
    )


@pytest.mark.parametrize(
    ("migrations", "says"),
    [
        ([print], "a mapping of schema numbers"),
        ({"1": print}, "1 has none"),
        ({1: print, 2: print}, "2 is none of these"),
        ({1: {}}, "names no kind"),
        ({1: {"sesion": print}}, "did you mean 'session'"),
        ({1: {"conversation": print}}, "never migrated"),
        ({1: {7: print}}, "a kind is a str, not int"),
    ],
)
def test_what_would_migrate_nothing_is_refused(migrations: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        MsgpackCodec(schema=2, migrations=migrations)


def test_a_namespace_that_begins_as_a_kind_does_is_one() -> None:
    codec = MsgpackCodec(schema=2, migrations={1: {"sessions": lambda data: {**data, "new": 1}}})
    old = MsgpackCodec().pack({"n": 1})
    assert codec.migrate(codec.unpack(old), old, kind="sessions") == {"n": 1, "new": 1}
    assert codec.migrate(codec.unpack(old), old, kind="session") == {"n": 1}


def test_migrations_to_nowhere_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="say which one they lead to"):
        MsgpackCodec(migrations={1: print})
