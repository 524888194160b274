"""The one place where sqlite3's errors become sessionkit's."""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from sessionkit.errors import (
    Applied,
    RecordTooLarge,
    SessionKitError,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)


class _Meaning(NamedTuple):
    error: type[StoreError]
    temporary: bool
    advice: str


_BUSY: Final = _Meaning(StoreTimeout, True, "another process kept it locked for the whole timeout")
_AGAIN: Final = _Meaning(StoreUnavailable, True, "SQLite could not do it now")
_DENIED: Final = _Meaning(
    StoreUnavailable,
    False,
    "this user may not write the file; correct its permissions",
)
_OTHER: Final = _Meaning(StoreUnavailable, False, "SQLite refused")

_MEANINGS: Final = {
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_PROTOCOL: _BUSY,
    sqlite3.SQLITE_ABORT: _AGAIN,
    sqlite3.SQLITE_INTERRUPT: _AGAIN,
    sqlite3.SQLITE_SCHEMA: _AGAIN,
    sqlite3.SQLITE_NOMEM: _Meaning(StoreUnavailable, True, "there is no memory left"),
    sqlite3.SQLITE_FULL: _Meaning(StoreUnavailable, True, "the disk is full; make room and it works again"),
    sqlite3.SQLITE_IOERR: _Meaning(
        StoreUnavailable, True, "the disk reported an error; check it and its quota"
    ),
    sqlite3.SQLITE_CANTOPEN: _Meaning(
        StoreUnavailable, True, "it cannot be opened; look at its directory and the limit of open files"
    ),
    sqlite3.SQLITE_READONLY: _DENIED,
    sqlite3.SQLITE_PERM: _DENIED,
    sqlite3.SQLITE_AUTH: _DENIED,
    sqlite3.SQLITE_CORRUPT: _Meaning(
        StoreUnavailable, False, "the file is damaged; restore a backup, or rescue it by sqlite3's .recover"
    ),
    sqlite3.SQLITE_NOTADB: _Meaning(
        StoreUnavailable, False, "this is not a SQLite database and was left as it is; choose another path"
    ),
}

_HARMLESS: Final = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG}
)


def primary_code(error: sqlite3.Error | sqlite3.Warning) -> int | None:
    """Return the SQLite result code without its extension, or None where Python's module itself complains."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def translate(
    error: sqlite3.Error | sqlite3.Warning, path: str, *, applied: Applied = Applied.NO
) -> SessionKitError:
    """Return the sessionkit error that says what happened to which file and what to do.

    Args:
        error: What sqlite3 raised; it becomes the cause.
        path: The file.
        applied: Whether what failed may have taken effect.
    """
    code = primary_code(error)
    translated: SessionKitError
    if code == sqlite3.SQLITE_TOOBIG:
        translated = RecordTooLarge(f"{path}: the record is larger than this build of SQLite takes")
    else:
        meaning = _OTHER if code is None else _MEANINGS.get(code, _OTHER)
        translated = meaning.error(
            f"{path}: {meaning.advice} ({type(error).__name__}: {error})",
            temporary=meaning.temporary,
            applied=applied,
        )
    # Without its traceback: that would keep the batch alive, with every value in it.
    translated.__cause__ = error.with_traceback(None)
    return translated


def applied_by_commit(error: sqlite3.Error) -> Applied:
    """Return whether a transaction whose COMMIT failed may still come to light after a crash.

    A commit that found no room or no lock never wrote its last frame. After any other failure that frame may
    be on the disk, and a recovery before the next commit would honour it.
    """
    certain = primary_code(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}
    return Applied.NO if certain else Applied.MAYBE


def spoils_connection(error: sqlite3.Error | sqlite3.Warning) -> bool:
    """Return whether the connection that raised the error is better replaced by a new one."""
    return primary_code(error) not in _HARMLESS
