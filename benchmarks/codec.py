"""``python -m benchmarks codec``: the codec beside msgpack, msgspec, pickle and json, in one run."""

from __future__ import annotations

import json
import os
import pickle
import platform
import random
import statistics
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgpack
import msgspec
from rich.console import Console
from rich.table import Table

from sessionkit.codec import MsgpackCodec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

OURS: Final = "sessionkit"
REFERENCE: Final = "msgpack"
RATIO_BAR: Final = 2.0
"""How many times msgpack's time sessionkit may take for plain data of str keys."""

_BATCH_SECONDS: Final = 0.002


@dataclass(frozen=True)
class Entrant:
    """Something that turns values into bytes and back."""

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


@dataclass(frozen=True)
class Shape:
    """A value to measure with.

    Attributes:
        name: What the tables call it.
        value: The value.
        held: Whether it is held to the bar.
    """

    name: str
    value: Any
    held: bool


@dataclass(frozen=True)
class Row:
    """One entrant's figures for one shape.

    Attributes:
        shape: The shape's name.
        entrant: The entrant's name.
        size: Bytes of the encoded value; None if the entrant does not give it back as it was.
        encode_us: Microseconds of the processor for one encoding: the median over the rounds.
        decode_us: The same for one decoding.
        ratio: How many times the reference's time both take: the median of the rounds' ratios.
    """

    shape: str
    entrant: str
    size: int | None
    encode_us: float | None
    decode_us: float | None
    ratio: float | None


def compare_codecs(rounds: int, seed: int, save_to: Path | None) -> None:
    """Measure, print the tables and the bars, and save all figures if asked to.

    Args:
        rounds: Measured rounds of each entrant and shape.
        seed: Decides the order of turns.
        save_to: Where to write JSON.
    """
    rows = [row for shape in make_shapes() for row in _measure(shape, rounds, random.Random(seed))]
    bars = hold_to_bar(rows)
    console = Console(width=110, highlight=False)
    console.print(_figures(rows))
    console.print(_bars(bars))
    console.print(f"seed {seed}")
    if save_to is not None:
        made = {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "arguments": {"rounds": rounds, "seed": seed},
            "versions": {name: version(name) for name in (REFERENCE, "msgspec")},
            "bars": bars,
            "rows": [asdict(row) for row in rows],
        }
        save_to.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def make_entrants() -> list[Entrant]:
    """Return all of them; the reference comes first."""
    codec = MsgpackCodec()
    return [
        Entrant(REFERENCE, msgpack.packb, partial(msgpack.unpackb, strict_map_key=False)),
        Entrant(OURS, codec.encode, codec.decode),
        Entrant("pickle", pickle.dumps, pickle.loads),
        Entrant("json", lambda value: json.dumps(value).encode(), json.loads),
        Entrant("msgspec", msgspec.msgpack.encode, msgspec.msgpack.decode),
    ]


def make_shapes() -> list[Shape]:
    """Return what is measured: from a small session to 100 KB, plain and not."""
    small = {
        "user_id": 123_456_789,
        "state": "AWAITING_CONFIRMATION",
        "audio": "CQACAgIAAxkBAAIBQ2XkAgADHgADr0pASQABAAE",
        "amount": 150.5,
        "currency": "EUR",
        "tags": ["deposit", "vip"],
        "confirmed": False,
        "note": None,
        "step": 3,
        "created": 1_700_000_000.25,
        "address": {"street": "Main Street 1", "city": "Berlin", "zip": "10115"},
        "history": [17, 42, 1023],
    }
    cart = {
        "user": "u1",
        "cart": [
            {
                "sku": f"SKU-{i:06d}",
                "name": f"product number {i}",
                "price": i * 1.25,
                "options": ["red", "xl"],
            }
            for i in range(140)
        ],
    }
    nested = {
        f"user{i}": {
            "name": f"name {i}",
            "tags": ["a", "b"],
            "settings": {"lang": "en", "zone": "UTC", "number": i},
            "history": [{"at": i, "ok": True}, {"at": i + 1, "ok": False}],
        }
        for i in range(1_100)
    }
    ids = {7_919 * i: {"seen": i} for i in range(1_000)}
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rich = [
        {"id": UUID(int=i), "price": Decimal(i) / 4, "at": start + timedelta(hours=i), "key": (i, "a")}
        for i in range(100)
    ]
    return [
        Shape("small session", small, held=True),
        Shape("cart", cart, held=True),
        Shape("nested", nested, held=True),
        Shape("int keys", ids, held=False),
        Shape("rich types", rich, held=False),
    ]


def hold_to_bar(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return how sessionkit stands to what is asked of it, for each shape that is held to it."""
    held = {shape.name for shape in make_shapes() if shape.held}
    return [
        {
            "shape": row.shape,
            "asked": f"at most {RATIO_BAR:g} times {REFERENCE}'s time",
            "seen": row.ratio,
            "met": row.ratio is not None and row.ratio <= RATIO_BAR,
        }
        for row in rows
        if row.entrant == OURS and row.shape in held
    ]


def _measure(shape: Shape, rounds: int, draw: random.Random) -> list[Row]:
    entrants = make_entrants()
    sizes = {entrant.name: _size(entrant, shape.value) for entrant in entrants}
    able = [entrant for entrant in entrants if sizes[entrant.name] is not None]
    times: dict[str, list[tuple[float, float]]] = {entrant.name: [] for entrant in able}
    for _ in range(rounds):
        for entrant in draw.sample(able, len(able)):
            data = entrant.encode(shape.value)
            encoding = _seconds(partial(entrant.encode, shape.value))
            times[entrant.name].append((encoding, _seconds(partial(entrant.decode, data))))
    # Where msgpack cannot keep the value, pickle is the reference.
    reference = times.get(REFERENCE, times.get("pickle", []))
    return [_row(shape.name, entrant.name, sizes[entrant.name], times, reference) for entrant in entrants]


def _size(entrant: Entrant, value: object) -> int | None:
    try:
        data = entrant.encode(value)
        return len(data) if entrant.decode(data) == value else None
    except (TypeError, ValueError):
        return None


def _seconds(work: Callable[[], object]) -> float:
    """Return the processor time of one call, from a batch of them."""
    started = time.perf_counter()
    work()
    calls = max(1, int(_BATCH_SECONDS / max(time.perf_counter() - started, 1e-7)))
    begun = time.process_time()
    for _ in range(calls):
        work()
    return (time.process_time() - begun) / calls


def _row(
    shape: str,
    entrant: str,
    size: int | None,
    times: dict[str, list[tuple[float, float]]],
    reference: list[tuple[float, float]],
) -> Row:
    mine = times.get(entrant)
    if mine is None:
        return Row(shape, entrant, None, None, None, None)
    ratios = [sum(one) / sum(other) for one, other in zip(mine, reference, strict=True) if sum(other)]
    encoding, decoding = (statistics.median(column) * 1e6 for column in zip(*mine, strict=True))
    ratio = round(statistics.median(ratios), 2) if ratios else None
    return Row(shape, entrant, size, round(encoding, 2), round(decoding, 2), ratio)


def _figures(rows: Sequence[Row]) -> Table:
    table = Table("value", "codec", title="one encoding and one decoding", title_justify="left")
    for name in ("bytes", "encode µs", "decode µs", "ratio of both"):
        table.add_column(name, justify="right")
    shape = None
    for row in rows:
        if shape not in {None, row.shape}:
            table.add_section()
        shape = row.shape
        if row.size is None:
            table.add_row(row.shape, row.entrant, "not kept", "-", "-", "-")
        else:
            table.add_row(
                row.shape,
                row.entrant,
                f"{row.size:,}",
                f"{row.encode_us:,}",
                f"{row.decode_us:,}",
                f"{row.ratio}",
            )
    return table


def _bars(bars: Sequence[dict[str, object]]) -> Table:
    table = Table("value", "asked", "seen", "", title=OURS, title_justify="left")
    for bar in bars:
        table.add_row(
            str(bar["shape"]), str(bar["asked"]), str(bar["seen"]), "met" if bar["met"] else "MISSED"
        )
    return table
