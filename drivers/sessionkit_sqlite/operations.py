"""What is done to the records: functions of a connection and the time, each run inside a transaction.

The time is a whole number of microseconds since the Unix epoch, the same for all of a batch. A function that
raises an error of sessionkit has changed nothing.
"""

# ruff: noqa: S608 - statements are put together from constants and question marks only

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sessionkit.errors import BatchRefused, CorruptRecord, SessionKitError, VersionConflict
from sessionkit.store import (
    ABSENT,
    RING_SIZE,
    VERSION_BYTES,
    Delete,
    Put,
    Receipt,
    Record,
    Version,
    milliseconds,
    new_version,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

SCAN_PAGE: Final = 500
_RING_BYTES: Final = RING_SIZE * VERSION_BYTES
_LIVE: Final = "(expires_at IS NULL OR expires_at > ?)"
_LAST_CHARACTER: Final = "\U0010ffff"


def expiry(expires_in: float, now: int) -> int:
    """Return the millisecond in which what is to live for so many seconds expires, never too early."""
    return -(-now // 1000) + milliseconds(expires_in)


def get(key: str, connection: sqlite3.Connection, now: int) -> Record | None:
    """Read the record; see ``SessionStore.get``."""
    row = connection.execute("SELECT ring, expires_at, value FROM records WHERE key = ?", (key,)).fetchone()
    return None if row is None else _record(key, row, now)


def get_many(keys: Sequence[str], connection: sqlite3.Connection, now: int) -> dict[str, Record]:
    """Read one chunk of ``SessionStore.get_many``."""
    rows = connection.execute(
        f"SELECT ring, expires_at, value, key FROM records WHERE key IN ({_places(keys)})", keys
    )
    records = ((row[3], _record(row[3], row, now)) for row in rows)
    return {key: record for key, record in records if record is not None}


def time_left(keys: Sequence[str], connection: sqlite3.Connection, now: int) -> dict[str, float | None]:
    """Read one chunk of ``TimedStore.time_left``."""
    rows = connection.execute(
        f"SELECT key, expires_at FROM records WHERE key IN ({_places(keys)}) AND {_LIVE}",
        (*keys, now // 1000),
    )
    return {
        key: None if expires_at is None else expires_at / 1000 - now / 1_000_000 for key, expires_at in rows
    }


def renew(key: str, expires_in: float, connection: sqlite3.Connection, now: int) -> Record | None:
    """Read the record and set its expiry; see ``SessionStore.get``."""
    record = get(key, connection, now)
    if record is not None:
        touch(key, expires_in, None, connection, now)
    return record


def touch(
    key: str, expires_in: float | None, if_version: Version | None, connection: sqlite3.Connection, now: int
) -> bool:
    """Set the expiry; see ``SessionStore.touch``."""
    _check_version(key, if_version, connection, now)
    expires_at = None if expires_in is None else expiry(expires_in, now)
    changed = connection.execute(
        f"UPDATE records SET expires_at = ? WHERE key = ? AND {_LIVE}", (expires_at, key, now // 1000)
    )
    return changed.rowcount > 0


def put(put: Put, connection: sqlite3.Connection, now: int) -> Receipt:
    """Write the record; see ``SessionStore.put``."""
    ring = _ring(put.key, connection, now)
    version = put.write_id or new_version()
    if version not in _ids(ring):
        _check_condition(put, ring)
        _store(put, version, ring, connection, now)
    return Receipt(version)


def recode(key: str, value: bytes, if_version: Version, connection: sqlite3.Connection, now: int) -> bool:
    """Replace the record's bytes; see ``RecodingStore.recode``."""
    _check_version(key, if_version, connection, now)
    changed = connection.execute(
        f"UPDATE records SET value = ? WHERE key = ? AND {_LIVE}", (value, key, now // 1000)
    )
    return changed.rowcount > 0


def put_many(
    puts: Sequence[Put], connection: sqlite3.Connection, now: int
) -> list[Receipt | SessionKitError]:
    """Write one chunk of ``SessionStore.put_many``; a put that fails leaves its error among the receipts."""
    results: list[Receipt | SessionKitError] = []
    for each in puts:
        try:
            results.append(put(each, connection, now))
        except SessionKitError as error:
            results.append(error.with_traceback(None))
    return results


def write_all(
    writes: Sequence[Put | Delete], version: Version, connection: sqlite3.Connection, now: int
) -> Receipt:
    """Do all of the writes or none; see ``AtomicStore.write_all``.

    Every record is looked at before the first is changed, so that a refusal changes nothing. What SQLite
    itself refuses undoes the transaction, as with any other write.
    """
    rings: dict[str, bytes] = {}
    refusals: dict[str, SessionKitError] = {}
    for write in writes:
        if isinstance(write, Delete) and write.if_version is None:
            continue
        try:
            rings[write.key] = _ring(write.key, connection, now)
            _check_condition(write, rings[write.key])
        except SessionKitError as error:
            refusals[write.key] = error.with_traceback(None)
    puts = [write for write in writes if isinstance(write, Put)]
    if any(version in _ids(rings.get(put.key, b"")) for put in puts):
        return Receipt(version)
    if refusals:
        raise BatchRefused(refusals)
    for put in puts:
        _store(put, version, rings[put.key], connection, now)
    for write in writes:
        if isinstance(write, Delete):
            delete_many([write.key], connection, now)
    return Receipt(version)


def delete(key: str, if_version: Version | None, connection: sqlite3.Connection, now: int) -> bool:
    """Remove the record; see ``SessionStore.delete``."""
    _check_version(key, if_version, connection, now)
    return delete_many([key], connection, now) > 0


def delete_many(keys: Sequence[str], connection: sqlite3.Connection, now: int) -> int:
    """Remove one chunk of ``SessionStore.delete_many``."""
    return connection.execute(
        f"DELETE FROM records WHERE key IN ({_places(keys)}) AND {_LIVE}", (*keys, now // 1000)
    ).rowcount


def scan_page(
    prefix: str, after: str | None, connection: sqlite3.Connection, now: int
) -> tuple[list[str], str | None]:
    """Read the live keys of one page of ``SessionStore.scan``, and where the next page begins, if any.

    A page is bounded by the rows it looks at, not by those that live: many expired ones cost many pages and
    not one long read.
    """
    bounds = ["key >= ?" if after is None else "key > ?"]
    values: list[str | int] = [prefix if after is None else after]
    if (end := _end_of(prefix)) is not None:
        bounds.append("key < ?")
        values.append(end)
    rows = connection.execute(
        f"SELECT key, expires_at FROM records WHERE {' AND '.join(bounds)} ORDER BY key LIMIT {SCAN_PAGE}",
        values,
    ).fetchall()
    live = [key for key, expires_at in rows if expires_at is None or expires_at > now // 1000]
    return live, rows[-1][0] if len(rows) == SCAN_PAGE else None


def purge(limit: int, connection: sqlite3.Connection, now: int) -> int:
    """Remove at most ``limit`` records that have expired, and return how many."""
    return connection.execute(
        "DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE expires_at <= ? LIMIT ?)",
        (now // 1000, limit),
    ).rowcount


def ping(connection: sqlite3.Connection, now: int) -> None:
    """Read the file's first page under SQLite's lock."""
    connection.execute("PRAGMA user_version").fetchone()


def _store(put: Put, version: Version, ring: bytes, connection: sqlite3.Connection, now: int) -> None:
    """Put the record in the place of the one with the ring."""
    connection.execute(
        "INSERT INTO records (key, ring, expires_at, value) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE"
        " SET ring = excluded.ring, expires_at = excluded.expires_at, value = excluded.value",
        (
            put.key,
            (version + ring)[:_RING_BYTES],
            None if put.expires_in is None else expiry(put.expires_in, now),
            put.value,
        ),
    )


def _check_condition(write: Put | Delete, ring: bytes) -> None:
    """Refuse a write whose condition the record with the ring does not meet; deleting none is no conflict."""
    if write.if_version is None or (not ring and isinstance(write, Delete)):
        return
    current = _version(ring) or ABSENT
    if current != write.if_version:
        raise VersionConflict(write.key, current=current)


def _check_version(key: str, if_version: Version | None, connection: sqlite3.Connection, now: int) -> None:
    """Refuse a record that is there and at another version; where none is expected nothing is read."""
    if if_version is not None:
        _check_condition(Delete(key, if_version), _ring(key, connection, now))


def _record(key: str, row: tuple[Any, ...], now: int) -> Record | None:
    ring, expires_at, value = row[:3]
    if expires_at is not None and expires_at <= now // 1000:
        return None
    _check_ring(key, ring, isinstance(value, bytes))
    return Record(value, ring[:VERSION_BYTES])


def _ring(key: str, connection: sqlite3.Connection, now: int) -> bytes:
    """Return the record's ring, empty where there is no record."""
    row = connection.execute(
        f"SELECT ring, typeof(value) = 'blob' FROM records WHERE key = ? AND {_LIVE}", (key, now // 1000)
    ).fetchone()
    if row is None:
        return b""
    ring: bytes = row[0]
    _check_ring(key, ring, row[1])
    return ring


def _check_ring(key: str, ring: object, value_is_bytes: bool) -> None:
    if (
        not value_is_bytes
        or not isinstance(ring, bytes)
        or not 0 < len(ring) <= _RING_BYTES
        or len(ring) % VERSION_BYTES
    ):
        raise CorruptRecord(f"the row of {key[:80]!a} was not written by sessionkit")


def _ids(ring: bytes) -> list[bytes]:
    return [ring[at : at + VERSION_BYTES] for at in range(0, len(ring), VERSION_BYTES)]


def _version(ring: bytes) -> Version | None:
    return Version(ring[:VERSION_BYTES]) if ring else None


def _places(keys: Sequence[str]) -> str:
    return ",".join("?" * len(keys))


def _end_of(prefix: str) -> str | None:
    """Return the least text above every text with the prefix, or None if there is no such text."""
    head = prefix.rstrip(_LAST_CHARACTER)
    if not head:
        return None
    following = ord(head[-1]) + 1
    # Surrogates are no characters of UTF-8, in whose order SQLite compares.
    return head[:-1] + chr(0xE000 if following == 0xD800 else following)
