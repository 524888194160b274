"""A lane: one thread with one connection, which serves whatever is waiting as a batch."""

from __future__ import annotations

import asyncio
import copy
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from sessionkit.errors import Applied, Backpressure, SessionKitError, StoreTimeout, StoreUnavailable
from sessionkit_sqlite import schema
from sessionkit_sqlite.errors import spoils_connection, translate
from sessionkit_sqlite.job import Job, Tick

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sessionkit.store import Clock
    from sessionkit_sqlite.job import Work

T = TypeVar("T")

BATCH: Final = 1000
WAITING: Final = 65_536


class Lane(ABC):
    """A thread that opens the file at the first job and serves jobs in batches until it is stopped.

    It may be used from several event loops, one after the other or at once.
    """

    unanswered: ClassVar[Applied]
    """Whether a job that has started and whose caller stopped waiting may have taken effect."""
    rest: ClassVar[float | None] = None
    """Seconds without a job after which ``_idle`` is called; None: never."""

    def __init__(self, path: str, *, clock: Clock, timeout: float, waiting: int = WAITING) -> None:
        self._path = path
        self._clock = clock
        self._timeout = timeout
        self._waiting = waiting
        self._queue: deque[Job[Any]] = deque()
        self._gate = threading.Lock()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._work_waits = threading.Event()
        self._tick: Tick | None = None
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    async def run(self, work: Work[T]) -> T:
        """Have the work done and return what it returns, or raise what it raises.

        Raises:
            Backpressure: Too many jobs are waiting.
            StoreTimeout: It was not done within the timeout.
            StoreUnavailable: The file cannot be used, or the lane is stopped.
        """
        loop = asyncio.get_running_loop()
        job = Job(work, loop)
        self._accept(job)
        tick = self._tick
        if tick is None or tick.loop is not loop:
            tick = self._tick = Tick(loop, self._timeout, self._end_tick, self._give_up)
        tick.jobs.add(job)
        try:
            return await job.future
        finally:
            job.claim()  # Of a cancelled caller: what has not started never will.
            tick.remove(job)

    def stop(self) -> None:
        """Accept nothing more; the thread ends when it has finished what was accepted."""
        with self._gate:
            self._stopped = True
        self._work_waits.set()

    async def stopped(self) -> None:
        """Wait until the thread has ended."""
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _accept(self, job: Job[Any]) -> None:
        with self._gate:
            if self._stopped:
                raise StoreUnavailable(f"{self._path}: the store is closed; open a new one", temporary=False)
            if len(self._queue) >= self._waiting:
                raise Backpressure(f"{self._path}: {self._waiting} operations are waiting already; try later")
            self._queue.append(job)
            if self._thread is None:
                name = f"sessionkit-sqlite-{type(self).__name__.lower()}"
                self._thread = threading.Thread(target=self._live, name=name, daemon=True)
                self._thread.start()

    def _end_tick(self) -> None:
        self._tick = None
        self._work_waits.set()

    def _give_up(self, jobs: Iterable[Job[Any]]) -> None:
        for job in jobs:
            if not job.future.done():
                error = StoreTimeout(
                    f"{self._path}: not done within {self._timeout} seconds; another process may hold"
                    " the file's lock",
                    applied=Applied.NO if job.claim() else self.unanswered,
                )
                job.future.set_exception(error)

    def _live(self) -> None:
        for batch in self._batches():
            try:
                if batch:
                    self._check_identity()
                    self._serve(batch)
                else:
                    self._idle()
            except BaseException as error:
                self._fail(batch, error)
            self._post(batch)
            del batch
        self._disconnect()

    def _batches(self) -> Iterator[list[Job[Any]]]:
        """Yield what waits, and an empty batch after each rest, until the lane is stopped and empty.

        What a tick brings is not taken before the tick has ended, so that it meets in one batch.
        """
        stopped = False
        while not stopped:
            if not self._work_waits.wait(self.rest):
                yield []
                continue
            self._work_waits.clear()
            stopped = self._stopped
            due = len(self._queue)
            while due > 0:
                batch = self._take(min(due, BATCH))
                due -= BATCH
                if batch:
                    yield batch
                del batch  # Nor does it stay in memory while the lane rests.

    def _take(self, number: int) -> list[Job[Any]]:
        """Take so many off the queue; return those whose callers still wait."""
        taken = [self._queue.popleft() for _ in range(number)]
        return [job for job in taken if not job.future.done()]

    @abstractmethod
    def _serve(self, batch: list[Job[Any]]) -> None:
        """Give every job that can be claimed an outcome; what this raises becomes the outcome of all."""

    @abstractmethod
    def _idle(self) -> None:
        """Do what is left for quiet times."""

    @abstractmethod
    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Set what is special to this lane on a new connection."""

    def _post(self, batch: list[Job[Any]]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[Job[Any]]] = {}
        for job in batch:
            by_loop.setdefault(job.loop, []).append(job)
        for loop, jobs in by_loop.items():
            try:
                loop.call_soon_threadsafe(_post_all, jobs)
            except RuntimeError:
                continue  # The loop is closed: nobody waits any more.

    def _fail(self, batch: list[Job[Any]], error: BaseException) -> None:
        self._roll_back()
        for job in batch:
            # Each caller gets its own: raising an exception writes into it.
            own = copy.copy(error) if isinstance(error, SessionKitError) else self._translate(error)
            job.fail(own)

    def _translate(self, error: BaseException, *, applied: Applied = Applied.NO) -> BaseException:
        """Return what to tell the caller, and part with the connection where it is of no more use."""
        if not isinstance(error, (sqlite3.Error, sqlite3.Warning)):
            return error
        if spoils_connection(error):
            self._disconnect()
        return translate(error, self._path, applied=applied)

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = schema.connect(self._path, timeout=self._timeout)
            self._prepare(connection)
            self._connection = connection
            self._identity = schema.identity(self._path)
        return self._connection

    def _check_identity(self) -> None:
        if self._connection is not None and schema.identity(self._path) != self._identity:
            raise StoreUnavailable(
                f"{self._path}: the file was removed or replaced while it was open; what is written now would"
                " be lost: stop every process that uses it, then start again",
                temporary=False,
            )

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._disconnect()  # Closing it abandons the transaction for good.

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _microseconds(self) -> int:
        # By way of microseconds, because 0.1 s must be 100 ms although neither is exact in binary.
        return round(self._clock() * 1_000_000)


def _post_all(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        job.post()
