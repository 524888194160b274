"""An ``Application`` that loads before and commits after every update, so that several can share the work."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from telegram import Update
from telegram.ext import Application, JobQueue

from sessionkit.arguments import check_names, check_number, check_whole
from sessionkit.errors import ConfigurationError, SessionKitError
from sessionkit.ptb.commits import current
from sessionkit.ptb.desk import Desk
from sessionkit.ptb.endings import Endings
from sessionkit.ptb.inbox import DurableInbox
from sessionkit.ptb.intake import Intake
from sessionkit.ptb.jobs import SessionJobQueue
from sessionkit.ptb.migration import Migration, migrated_ids
from sessionkit.ptb.persistence import SessionPersistence
from sessionkit.ptb.slots import BotSlot
from sessionkit.ptb.steps import Steps
from sessionkit.ptb.sweeping import Sweeper
from sessionkit.ptb.timeouts import Timeouts
from sessionkit.ptb.transactions import Transactions
from sessionkit.ptb.work import current_work, in_task, making_task

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Collection, Iterable, Sequence

    from telegram import Message
    from telegram.ext import BaseHandler

    from sessionkit.ptb.private import Timeout

DEFAULT_MAX_CACHED: Final = 10_000
DEFAULT_LEASE: Final = 10.0
DEFAULT_SWEEP: Final = 60.0


class SessionApplication(Application[Any, Any, Any, Any, Any, Any]):
    """PTB's ``Application`` for any number of instances behind one webhook, and for one that must not forget.

    For each update it takes the turn of its user and chat among all instances, reads their data, the bot's
    and the states of their conversations, has PTB process the update, and stores what was changed before the
    next turn. Then it calls what handlers passed to ``on_commit``. What PTB holds in memory is a cache.

    Use it as
    ``ApplicationBuilder().application_class(SessionApplication).persistence(SessionPersistence(…))``, with
    arguments ``.application_class(SessionApplication, {"max_cached": 100_000})``.

    Args:
        max_cached: How many records to keep in memory; the least recently used make way, unless something of
            them is not stored yet.
        lease: Seconds after which the turns of an instance that was killed are free again. A handler that
            blocks the event loop for longer loses its turn.
        sweep: Seconds between two looks for deadlines of conversations whose instance was killed.
        kwargs: What the builder gives.

    Raises:
        ConfigurationError: An argument is unknown or out of its range.
    """

    def __init__(
        self,
        *,
        max_cached: int = DEFAULT_MAX_CACHED,
        lease: float = DEFAULT_LEASE,
        sweep: float = DEFAULT_SWEEP,
        **kwargs: Any,
    ) -> None:
        check_names(type(self), kwargs)
        check_whole("max_cached", max_cached)
        check_number("lease", lease)
        check_number("sweep", sweep)
        if isinstance(kwargs.get("update_queue"), type):
            raise ConfigurationError(
                "update_queue takes a queue, not its class: update_queue(DurableInbox())"
            )
        is_ptbs_queue = type(kwargs.get("job_queue")) is JobQueue
        if is_ptbs_queue:
            kwargs["job_queue"] = SessionJobQueue()
        super().__init__(**kwargs)
        if is_ptbs_queue and self.job_queue is not None:
            self.job_queue.set_application(self)
        persistence = self._session_persistence
        persistence.serve_each_update()
        self._records = persistence.records
        self._writer = self._records.writer
        self._timeouts = Timeouts(self, self._records.keys)
        bot = BotSlot(self._records.keys.bot, self)
        self._desk = Desk(self, persistence, self._timeouts, bot, max_cached=max_cached, lease=lease)
        self._plan = self._desk.plan
        transactions = Transactions(self._records, self._desk)
        migration = Migration(self, self._records, self._plan, self._timeouts)
        self._steps = Steps(self, self._records, self._desk, transactions, migration, super().process_update)
        self._intake: Intake | None = None
        endings = Endings(self, self._records, self._desk, self._steps, self._timeouts)
        looks = {"deadlines of conversations": endings.look}
        if isinstance(self.update_queue, DurableInbox):
            self._intake = Intake(
                self, self._records, self._desk, transactions, self.update_queue, self._steps.take, lease
            )
            looks["updates that wait"] = self._intake.look
        self._sweeper = Sweeper(looks, sweep)
        self._reported: Sequence[Exception] = ()

    async def initialize(self) -> None:
        """Initialize as PTB does, but ask the store for a sign of life first.

        Raises:
            StoreUnavailable: It gives none.
            ConfigurationError: Another application uses the persistence; or a persistent conversation has a
                timeout, and the job queue is not a ``SessionJobQueue``; or the queue is a ``DurableInbox``,
                and the store is not atomic.
        """
        self._session_persistence.set_bot(self.bot)
        queue = self.job_queue
        if queue is not None and not isinstance(queue, SessionJobQueue):
            for handler in self._plan.conversations:
                if handler.conversation_timeout:
                    raise ConfigurationError(
                        f"the conversation {handler.name!r} has a timeout, which is to survive restarts, and"
                        f" the job queue is a {type(queue).__name__}: derive it from SessionJobQueue"
                    )
        if self._intake is not None and not self._records.store().capabilities.atomic:
            raise ConfigurationError(
                f"a DurableInbox needs a store that writes several records all or none, and"
                f" {self._records.store()!r} does not: use a single Redis server, Sentinel or SQLite"
            )
        await self._session_persistence.ping()
        await super().initialize()
        self._desk.pin([self._records.keys.bot], 1)  # never evicted

    async def start(self) -> None:
        """Start as PTB does, and look after the deadlines of conversations, and updates that wait."""
        await super().start()
        if self._intake is not None:
            self._intake.start()
        self._sweeper.start()

    async def stop(self) -> None:
        """Stop as PTB does; answers that are still held back are not sent."""
        await self._sweeper.stop()
        await self._timeouts.aclose()
        if self._intake is not None:
            await self._intake.stop()
        await super().stop()
        if self._intake is not None:
            self._intake.forget()
        await self._steps.drop_answers()

    async def shutdown(self) -> None:
        """Shut down as PTB does, once the last turn is given back."""
        await self._desk.aclose()
        await super().shutdown()

    async def process_update(self, update: object) -> None:
        """Process the update in its turn, commit what it changed, then call its ``on_commit`` callbacks.

        While the store does not acknowledge, the answers are held back until it does, and the error handlers
        are told so by a ``CommitPending``. They are also told if the turn cannot be had or the data cannot be
        read: then no handler was called.

        With a ``DurableInbox`` an update that is not stored is as if it had not been processed, and is tried
        again; one that was processed before, by whichever instance, is passed over.
        """
        if self._intake is not None and isinstance(update, Update):
            await self._intake.take(update)
            return
        try:
            work = self._plan.update(update)
            self._desk.keyboards.add_needed(work, update)
            async with self._desk.turn(work, None) as give_back:
                self._desk.check_readable(work)
                await self._steps.take(work, update, give_back)
        except SessionKitError as error:
            await self.process_error(update, error)

    @property
    def bot_data(self) -> Any:
        """The bot's data; with a ``DurableInbox``, in a handler, as the update sees and changes them."""
        work = current_work(self)
        if work is not None and work.open and work.bot is not None and not in_task():
            return work.bot.value
        return self.shared_bot_data

    @bot_data.setter
    def bot_data(self, data: Any) -> None:
        self.shared_bot_data = data

    async def update_persistence(self) -> None:
        """Have stored what has changed outside of any turn, as PTB asks for now and then, and at its end.

        What fails goes to the error handlers, once; nothing is raised, or PTB would not reach its ``flush``.
        """
        if not self.running:
            await self._desk.settle_late()
            await self._desk.bot_stored()  # nobody asks again
        self._desk.hold(self._desk.marked())
        with suppress(SessionKitError):
            await self._writer.send()
        failures = list(self._records.failures().values())
        errors = [error for error in failures if error not in self._reported]
        self._reported = failures
        for error in errors:
            await self.process_error(None, error)

    async def process_error(self, update: object, error: Exception, *args: Any, **kwargs: Any) -> bool:
        """Drop what the failed handler passed to ``on_commit``, then do as PTB does."""
        commit = current()
        if commit is not None:
            commit.discard()
        return await super().process_error(update, error, *args, **kwargs)

    @asynccontextmanager
    async def editing(
        self, *, user_id: int | None = None, chat_id: int | None = None, wait: float | None = 10.0
    ) -> AsyncIterator[None]:
        """Run the body in the turn of a user and a chat, and commit what it changed.

        In it ``application.user_data[user_id]`` and ``application.chat_data[chat_id]`` are what is stored. It
        is how anything that is no handler changes data. In a handler, it is how to change those of others:
        two that wait for each other give up after ``wait`` seconds. With a ``DurableInbox`` a task of
        ``create_task`` waits until the update that it was made in is stored. If the body raises, what it
        changed of these data is forgotten.

        Args:
            user_id: The user, or None.
            chat_id: The chat, or None.
            wait: Seconds to wait for the turn; None: for ever.

        Raises:
            LockNotAcquired: Others took longer than that.
            LeaseLost: Out of the body, which is cancelled: the turn was lost.
            SessionKitError: The data could not be read, or what was changed is not stored yet; it is kept and
                tried again then.
        """
        work = self._plan.ids(user_id, chat_id)
        outer = current_work(self)
        if outer is not None and outer.open and not (outer.inbox is not None and in_task()):
            work.turns -= outer.held  # they are ours already
            if outer.inbox is not None:
                # What is stored with the update must not be stored before it.
                work.bot = outer.bot
                for key in outer.slots:
                    work.slots.pop(key, None)
        async with self._desk.turn(work, wait):
            self._desk.check_readable(work)
            yield
            await self._desk.commit(work)

    @asynccontextmanager
    async def user_data_of(self, user_id: int, *, wait: float | None = 10.0) -> AsyncIterator[Any]:
        """Give a user's data, in that user's turn, and commit what the body changes; see ``editing``."""
        async with self.editing(user_id=user_id, wait=wait):
            yield self.user_data[user_id]

    @asynccontextmanager
    async def chat_data_of(self, chat_id: int, *, wait: float | None = 10.0) -> AsyncIterator[Any]:
        """Give a chat's data, in that chat's turn, and commit what the body changes; see ``editing``."""
        async with self.editing(chat_id=chat_id, wait=wait):
            yield self.chat_data[chat_id]

    async def take_back(self, update_id: int) -> bool:
        """Have an update processed that was set aside, once its handler is mended; see ``UpdateSetAside``.

        Args:
            update_id: Its number, as the error said.

        Returns:
            Whether there is one of this number.

        Raises:
            ConfigurationError: The application has no ``DurableInbox``.
            SessionKitError: The store did not acknowledge it, or it cannot be read; it is kept.
        """
        if self._intake is None:
            raise ConfigurationError("updates are set aside by a DurableInbox, and this application has none")
        return await self._intake.take_back(update_id)

    def add_handler(self, handler: BaseHandler[Any, Any, Any], group: int = 0) -> None:
        """Add a handler as PTB does."""
        super().add_handler(handler, group)
        self._plan.changed()

    def remove_handler(self, handler: BaseHandler[Any, Any, Any], group: int = 0) -> None:
        """Remove a handler as PTB does."""
        super().remove_handler(handler, group)
        self._plan.changed()

    def mark_data_for_update_persistence(
        self, chat_ids: int | Collection[int] | None = None, user_ids: int | Collection[int] | None = None
    ) -> None:
        """Commit these data with the update that is being processed, else soon.

        Data of those whose turn it is in another update are left to that. What is stored of them is merged
        with what was changed here; see ``editing`` for a way to read and change them.
        """
        super().mark_data_for_update_persistence(chat_ids, user_ids)
        self._add_to_work(_ids(user_ids), _ids(chat_ids))

    def drop_user_data(self, user_id: int) -> None:
        """Drop a user's data as PTB does."""
        super().drop_user_data(user_id)
        self._desk.dropped.add(self._records.keys.users.key(user_id))
        self._add_to_work([user_id], ())

    def drop_chat_data(self, chat_id: int) -> None:
        """Drop a chat's data as PTB does."""
        super().drop_chat_data(chat_id)
        self._desk.dropped.add(self._records.keys.chats.key(chat_id))
        self._add_to_work((), [chat_id])

    def migrate_chat_data(
        self,
        message: Message | None = None,
        old_chat_id: int | None = None,
        new_chat_id: int | None = None,
    ) -> None:
        """Do nothing where the chat has moved already, as it has when its service message is processed.

        Else move its data as PTB does, and with the update its conversations and their deadlines.
        """
        ids = None if message is None else migrated_ids(message)
        if old_chat_id is not None and new_chat_id is not None:
            ids = (old_chat_id, new_chat_id)
        if ids is not None and not self.chat_data.get(ids[0]):
            return
        super().migrate_chat_data(message, old_chat_id, new_chat_id)
        work = current_work(self)
        if ids is not None and work is not None and work.open:
            self._add_to_work((), [ids[1]])
            work.moves.append(ids)

    def create_task(
        self, coroutine: Any, update: object | None = None, *, name: str | None = None
    ) -> asyncio.Task[Any]:
        """Create a task as PTB does; what it changes after its update's commit is committed when it ends."""
        work = current_work(self)
        if work is None:
            # It is PTB's own, for an update of its own: that one's commit needs no mark afterwards.
            return super().create_task(coroutine, name=name)
        with making_task():
            task = super().create_task(coroutine, update, name=name)
        pinned = list(work.slots)
        self._desk.pin(pinned, 1)
        task.add_done_callback(lambda _: self._desk.ended_late(work, pinned))
        return task

    def time_out_later(self, timeout: Timeout, seconds: float) -> None:
        """Store with the update that is being processed when its conversation ends by itself."""
        if timeout.handler.name is not None:
            self._timeouts.set(timeout.handler.name, timeout.key, seconds, timeout.update)

    def _add_to_work(self, users: Iterable[int], chats: Iterable[int]) -> None:
        work = current_work(self)
        if work is not None and work.open:
            # What somebody else is in the middle of changing is left to them; PTB has marked it.
            users, chats = (
                [each for each in ids if not self._desk.busy(work, each)] for ids in (users, chats)
            )
            work.users.update(users)
            work.chats.update(chats)
            self._desk.add_data(work, users, chats)

    @property
    def _session_persistence(self) -> SessionPersistence:
        if not isinstance(self.persistence, SessionPersistence):
            raise ConfigurationError(
                "SessionApplication needs a SessionPersistence: ApplicationBuilder().persistence(…)"
            )
        return self.persistence


def _ids(numbers: int | Collection[int] | None) -> Collection[int]:
    if numbers is None:
        return ()
    return (numbers,) if isinstance(numbers, int) else numbers
