"""The writer: a lane that commits a batch as one transaction."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sessionkit.errors import Applied, SessionKitError
from sessionkit_sqlite import leases, operations
from sessionkit_sqlite.errors import applied_by_commit, primary_code
from sessionkit_sqlite.lane import Lane

if TYPE_CHECKING:
    from sessionkit_sqlite.job import Job

PURGE_STEP: Final = 250
_BUSY_MILLISECONDS: Final = 20


class Writer(Lane):
    """Runs whatever is queued in one transaction and answers only when that is on the disk.

    So as many callers as are waiting share one fsync. Each group also removes a few expired rows, which costs
    no commit of its own; in quiet times the rest follows.
    """

    unanswered: ClassVar[Applied] = Applied.MAYBE
    rest: ClassVar[float | None] = 30.0

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")

    def _serve(self, batch: list[Job[Any]]) -> None:
        self._begin()
        # Claimed only now: while the lock was awaited, a caller could still give up with nothing done.
        group = [job for job in batch if job.claim()]
        if not self._commit_together(group):
            for job in group:
                self._commit_alone(job)

    def _idle(self) -> None:
        while not self._queue and not self._stopped:
            connection = self._begin()
            removed = self._purge(connection, PURGE_STEP)
            connection.execute("COMMIT")
            if removed < PURGE_STEP:
                return

    def _begin(self) -> sqlite3.Connection:
        """Take the write lock of the file.

        SQLite's own waiting backs off to ten tries a second, by which a busy neighbour could keep us out for
        good. Asking anew after each short wait keeps the tries close together.
        """
        connection = self._connected()
        give_up = time.monotonic() + self._timeout
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up:
                    raise
            else:
                return connection

    def _commit_together(self, group: list[Job[Any]]) -> bool:
        """Run and commit the group; return False where it was rolled back for what one job ran into."""
        connection = self._connected()
        now = self._microseconds()
        try:
            for job in group:
                try:
                    job.succeed(job.work(connection, now))
                except SessionKitError as error:
                    job.fail(error)
            self._purge(connection, PURGE_STEP + len(group))
        except Exception:
            self._roll_back()
            return False
        self._commit(group)
        return True

    def _commit_alone(self, job: Job[Any]) -> None:
        try:
            connection = self._begin()
            job.succeed(job.work(connection, self._microseconds()))
        except Exception as error:
            self._roll_back()
            job.fail(self._translate(error))
        else:
            self._commit([job])

    def _commit(self, group: list[Job[Any]]) -> None:
        try:
            self._connected().execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            for job in group:
                job.fail(self._translate(error, applied=applied_by_commit(error)))

    def _purge(self, connection: sqlite3.Connection, limit: int) -> int:
        now = self._microseconds()
        return max(operations.purge(limit, connection, now), leases.purge(limit, connection, now))
