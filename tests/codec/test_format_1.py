"""Format 1 is for ever: records written by any release must be read by every later one."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from sessionkit.codec import MAX_SCHEMA, EncryptionKey, Keyring, MsgpackCodec, read_info
from sessionkit.codec.wire import Leaf, Mark
from sessionkit.testing.equality import exactly_equal

DATA = Path(__file__).parent.parent / "data"

CORPUS: dict[str, str] = json.loads((DATA / "codec_v1.json").read_text("utf-8"))
"""Hex of a plain record to the Python expression of its value. Only ever added to."""

WRAPPED: list[dict[str, Any]] = json.loads((DATA / "codec_v1_wrapped.json").read_text("utf-8"))
"""Records of every other kind, with the Python expression of their values. Only ever added to."""

KEYS = Keyring([EncryptionKey("2024", bytes(range(32))), EncryptionKey("k.2_5-", bytes(range(32, 64)))])

NAMES: dict[str, Any] = {
    "Decimal": Decimal,
    "Fraction": Fraction,
    "OrderedDict": OrderedDict,
    "UTC": UTC,
    "UUID": UUID,
    "ZoneInfo": ZoneInfo,
    "date": date,
    "datetime": datetime,
    "deque": deque,
    "inf": float("inf"),
    "nan": float("nan"),
    "time": time,
    "timedelta": timedelta,
    "timezone": timezone,
}


@pytest.mark.parametrize(("record", "expression"), CORPUS.items(), ids=CORPUS.values())
def test_golden(record: str, expression: str) -> None:
    codec = MsgpackCodec()
    value = eval(expression, NAMES.copy())
    assert exactly_equal(codec.decode(bytes.fromhex(record)), value)
    assert codec.encode(value).hex() == record


@pytest.mark.parametrize("golden", WRAPPED, ids=lambda golden: golden["what"])
def test_golden_of_every_flag(golden: dict[str, Any]) -> None:
    record = bytes.fromhex(golden["record"])
    codec = MsgpackCodec(keyring=KEYS, strict=False, schema=MAX_SCHEMA)
    value = eval(golden["value"], NAMES.copy())
    assert exactly_equal(codec.decode(record, key=golden["key"]), value)
    plain = MsgpackCodec(schema=golden["schema"]).pack(value)
    assert codec.unwrap(record, key=golden["key"]) == plain


def test_there_is_a_golden_record_of_every_flag() -> None:
    infos = [read_info(bytes.fromhex(golden["record"])) for golden in WRAPPED]
    assert {(info.compressed, info.key_id is not None) for info in infos} == {
        (False, False),
        (True, False),
        (False, True),
        (True, True),
    }


def test_codes_never_change() -> None:
    assert {mark.name: mark.value for mark in Mark} == {
        "TUPLE": 1,
        "SET": 2,
        "FROZENSET": 3,
        "DEQUE": 4,
        "MAP": 5,
        "ORDERED_DICT": 6,
        "REGISTERED": 7,
        "DEFAULT_DICT": 8,
    }
    assert {leaf.name: leaf.value for leaf in Leaf} == {
        "INT": 16,
        "BYTEARRAY": 17,
        "DECIMAL": 18,
        "FRACTION": 19,
        "COMPLEX": 20,
        "UUID": 21,
        "DATE": 22,
        "TIME": 23,
        "DATETIME": 24,
        "TIMEDELTA": 25,
    }


def test_a_registered_object_is_its_tag_and_what_was_made_of_it() -> None:
    class Money:
        def __init__(self, cents: int) -> None:
            self.cents = cents

    codec = MsgpackCodec(schema=258)
    codec.register("shop.money", Money, lambda money: (money.cents,), lambda parts: Money(*parts))
    record = "c101000102" + "c17a5dbd" + "93c70007" + "aa73686f702e6d6f6e6579" + "92c7000105"
    assert codec.encode(Money(5)).hex() == record
    assert codec.decode(bytes.fromhex(record)).cents == 5
