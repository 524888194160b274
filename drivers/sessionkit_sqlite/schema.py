"""The file: how it is recognised, created and opened."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from pathlib import Path
from typing import Final

from sessionkit.errors import StoreUnavailable
from sessionkit_sqlite.errors import primary_code

APPLICATION_ID: Final = 0x53_53_4B_31
"""In the header of every file of ours: ``SSK1``."""
SCHEMA_VERSION: Final = 1

_TABLES: Final = (
    """
    CREATE TABLE records (
        key TEXT NOT NULL PRIMARY KEY,
        ring BLOB NOT NULL,        -- the last write ids, newest first; the newest is the version
        expires_at INTEGER,        -- milliseconds since the Unix epoch, or NULL
        value BLOB NOT NULL
    )
    """,
    "CREATE INDEX records_expiry ON records (expires_at) WHERE expires_at IS NOT NULL",
    """
    CREATE TABLE locks (
        key TEXT NOT NULL PRIMARY KEY,
        token TEXT NOT NULL,       -- the holder's, or '' once released
        fence INTEGER NOT NULL,    -- stays after the release, so that the next one is larger
        expires_at INTEGER NOT NULL
    )
    """,
    "CREATE INDEX locks_expiry ON locks (expires_at)",
)

_PRAGMAS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = ON",  # where a plain fsync does not reach the platter (macOS)
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA journal_size_limit = 67108864",
)

_OPENING_BUSY_SECONDS: Final = 0.02


def connect(path: str, *, timeout: float) -> sqlite3.Connection:
    """Open the file in autocommit mode, and create it where there is none.

    A file that is not ours is refused before anything is written to it.

    Args:
        path: An absolute path.
        timeout: Seconds to wait while other processes create or recover the same file.

    Raises:
        StoreUnavailable: The place or the file cannot be used; the message says why.
        sqlite3.Error: Anything else.
    """
    _check_place(path)
    give_up = time.monotonic() + timeout
    while True:
        try:
            return _open(path)
        except sqlite3.OperationalError as error:
            # Creation and the switch to WAL meet locks that SQLite does not wait for by itself.
            if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up:
                raise
        time.sleep(random.uniform(0.001, 0.01))


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells the file at the path from another one put in its place, or None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_place(path: str) -> None:
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        raise _refused(path, "this is a directory; name a file in it")
    if not os.path.isdir(directory):
        raise _refused(path, f"the directory {directory} does not exist; create it or correct the path")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise _refused(
            path,
            f"this user may not write in {directory}; correct its permissions",
        )
    if os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK):
        raise _refused(path, "this user may not read and write the file; correct its permissions")


def _open(path: str) -> sqlite3.Connection:
    _refuse_foreign(path)
    connection = _connect(path, "mode=rwc")
    try:
        if _number(connection, "user_version") == 0:
            _create(connection, path)
        version = _number(connection, "user_version")
        if version != SCHEMA_VERSION:
            raise _refused(
                path,
                f"its schema is version {version} and this sessionkit knows version {SCHEMA_VERSION};"
                " update sessionkit, or choose another path",
            )
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise _refused(path, "its file system cannot share memory between processes; use a local disk")
        for pragma in _PRAGMAS:
            connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_foreign(path: str) -> None:
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return
    # Immutable: neither locks, logs nor recovery; a foreign file and what lies beside it stay untouched. The
    # header tells enough, because a file of ours gets its id before it is switched to WAL.
    probe = _connect(path, "mode=ro&immutable=1")
    try:
        application = _number(probe, "application_id")
    except sqlite3.DatabaseError as error:
        if primary_code(error) == sqlite3.SQLITE_NOTADB:
            raise
        return  # Perhaps another process is writing it just now: opening it for good will tell.
    finally:
        probe.close()
    if application != APPLICATION_ID:
        raise _foreign(path)


def _create(connection: sqlite3.Connection, path: str) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    try:
        if _number(connection, "application_id") == APPLICATION_ID:
            return  # Another process was faster.
        (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if objects:
            raise _foreign(path)
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _connect(path: str, parameters: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{Path(path).as_uri()}?{parameters}", uri=True, timeout=_OPENING_BUSY_SECONDS, isolation_level=None
    )


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    (number,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(number)


def _foreign(path: str) -> StoreUnavailable:
    return _refused(path, "another application's file, and left as it was; choose another path")


def _refused(path: str, why: str) -> StoreUnavailable:
    return StoreUnavailable(f"{path}: {why}", temporary=False)
