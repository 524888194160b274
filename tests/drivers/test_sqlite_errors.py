"""The one boundary at which sqlite3's errors become sessionkit's."""

from __future__ import annotations

import sqlite3

import pytest

from sessionkit.errors import (
    Applied,
    RecordTooLarge,
    SessionKitError,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)
from sessionkit_sqlite.errors import applied_by_commit, spoils_connection, translate

NOT_RESULT_CODES = ("SQLITE_LIMIT_", "SQLITE_DBCONFIG_")
CODES = {
    name: code
    for name, code in vars(sqlite3).items()
    if name.startswith("SQLITE_") and not name.startswith(NOT_RESULT_CODES)
}


def classes(base: type[Exception]) -> set[type[Exception]]:
    return {base}.union(*(classes(each) for each in base.__subclasses__()))


def failure(code: int, kind: type[Exception] = sqlite3.OperationalError) -> sqlite3.Error:
    error = kind("what SQLite said")
    assert isinstance(error, (sqlite3.Error, sqlite3.Warning))
    error.sqlite_errorcode = code  # type: ignore[union-attr]  # read-only to the stubs
    return error  # type: ignore[return-value]  # the caller gives a class of these


@pytest.mark.parametrize("kind", sorted(classes(sqlite3.Error) | {sqlite3.Warning}, key=str))
def test_every_class_of_sqlite3_becomes_one_of_ours(kind: type[sqlite3.Error]) -> None:
    error = kind("what SQLite said")
    translated = translate(error, "/data/bot.db", applied=Applied.MAYBE)
    assert isinstance(translated, StoreUnavailable)
    assert not translated.temporary
    assert translated.applied is Applied.MAYBE
    assert "/data/bot.db" in str(translated)
    assert "what SQLite said" in str(translated)
    assert translated.__cause__ is error


@pytest.mark.parametrize("name", sorted(CODES))
def test_every_result_code_becomes_one_of_ours(name: str) -> None:
    translated = translate(failure(CODES[name]), "/data/bot.db")
    assert isinstance(translated, SessionKitError)
    assert "/data/bot.db" in str(translated)


def test_the_module_knows_all_the_codes_that_matter() -> None:
    assert len(classes(sqlite3.Error)) >= 9
    assert {"SQLITE_FULL", "SQLITE_BUSY_SNAPSHOT", "SQLITE_IOERR_FSYNC", "SQLITE_READONLY_DBMOVED"} <= set(
        CODES
    )


@pytest.mark.parametrize(
    ("code", "kind", "temporary"),
    [
        (sqlite3.SQLITE_BUSY, StoreTimeout, True),
        (sqlite3.SQLITE_BUSY_RECOVERY, StoreTimeout, True),
        (sqlite3.SQLITE_LOCKED, StoreTimeout, True),
        (sqlite3.SQLITE_FULL, StoreUnavailable, True),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreUnavailable, True),
        (sqlite3.SQLITE_NOMEM, StoreUnavailable, True),
        (sqlite3.SQLITE_CANTOPEN, StoreUnavailable, True),
        (sqlite3.SQLITE_READONLY_DIRECTORY, StoreUnavailable, False),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreUnavailable, False),
        (sqlite3.SQLITE_NOTADB, StoreUnavailable, False),
        (sqlite3.SQLITE_ERROR, StoreUnavailable, False),
        (sqlite3.SQLITE_MISUSE, StoreUnavailable, False),
    ],
)
def test_what_a_code_means(code: int, kind: type[StoreError], temporary: bool) -> None:
    translated = translate(failure(code), "bot.db")
    assert type(translated) is kind
    assert isinstance(translated, StoreError)
    assert translated.temporary is temporary
    assert translated.applied is Applied.NO


def test_too_big_a_record_is_no_outage() -> None:
    assert isinstance(translate(failure(sqlite3.SQLITE_TOOBIG, sqlite3.DataError), "bot.db"), RecordTooLarge)


@pytest.mark.parametrize(
    ("code", "applied"),
    [
        (sqlite3.SQLITE_FULL, Applied.NO),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Applied.NO),
        (sqlite3.SQLITE_IOERR_FSYNC, Applied.MAYBE),
        (sqlite3.SQLITE_IOERR_WRITE, Applied.MAYBE),
        (sqlite3.SQLITE_CORRUPT, Applied.MAYBE),
    ],
)
def test_whether_a_failed_commit_may_have_happened(code: int, applied: Applied) -> None:
    assert applied_by_commit(failure(code)) is applied


def test_only_harmless_failures_keep_the_connection() -> None:
    assert not spoils_connection(failure(sqlite3.SQLITE_BUSY))
    assert not spoils_connection(failure(sqlite3.SQLITE_FULL))
    assert spoils_connection(failure(sqlite3.SQLITE_IOERR_FSYNC))
    assert spoils_connection(sqlite3.ProgrammingError("Cannot operate on a closed database."))
