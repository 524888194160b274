"""The reader: a lane that answers a batch from one snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sessionkit.errors import Applied
from sessionkit_sqlite.lane import Lane

if TYPE_CHECKING:
    import sqlite3

    from sessionkit_sqlite.job import Job


class Reader(Lane):
    """Runs whatever is queued in one read transaction.

    The snapshot is taken after the jobs were accepted, so each sees every write acknowledged before it.
    """

    unanswered: ClassVar[Applied] = Applied.NO

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA busy_timeout = {round(self._timeout * 1000)}")
        connection.execute("PRAGMA query_only = ON")

    def _serve(self, batch: list[Job[Any]]) -> None:
        now = self._microseconds()
        for job in batch:
            if job.claim():
                try:
                    job.succeed(job.work(self._snapshot(), now))
                except Exception as error:
                    job.fail(self._translate(error))
        if self._connection is not None and self._connection.in_transaction:
            self._connection.execute("COMMIT")

    def _idle(self) -> None:
        """Nothing is left to do."""

    def _snapshot(self) -> sqlite3.Connection:
        connection = self._connected()
        if not connection.in_transaction:
            connection.execute("BEGIN")
        return connection
