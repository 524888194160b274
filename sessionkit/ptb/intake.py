"""Takes in updates that are stored first: each is processed once among all instances, a user's in order."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Final

from sessionkit.errors import CodecError, LeaseLost, UpdateSetAside
from sessionkit.ptb.bot_copy import BotCopy
from sessionkit.ptb.in_hand import InHand
from sessionkit.ptb.pending import PendingUpdates
from sessionkit.ptb.room import Room
from sessionkit.ptb.work import current_work
from sessionkit.ptb.writes import may_pass

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from telegram import Update

    from sessionkit.ptb.desk import Desk
    from sessionkit.ptb.inbox import DurableInbox
    from sessionkit.ptb.private import AnyApplication
    from sessionkit.ptb.records import Records
    from sessionkit.ptb.transactions import Transactions
    from sessionkit.ptb.user_updates import PendingSlot, PendingUpdate
    from sessionkit.ptb.work import Work

logger = logging.getLogger("sessionkit.ptb")

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 10.0


class Intake:
    """Decides which of a user's stored updates is processed next, and whether it still is to be.

    Args:
        application: Whose updates.
        records: The store and what is known of it.
        desk: Where updates are processed.
        transactions: Stores what they change.
        inbox: The application's queue.
        process: Processes an update in its turn, and stores what it changed.
        lease: Seconds for which an update that came to another instance is left to it.
    """

    def __init__(
        self,
        application: AnyApplication,
        records: Records,
        desk: Desk,
        transactions: Transactions,
        inbox: DurableInbox,
        process: Callable[[Work, Update, Callable[[], None]], Awaitable[None]],
        lease: float,
    ) -> None:
        self._application = application
        self._records = records
        self._desk = desk
        self._transactions = transactions
        self._inbox = inbox
        self._process = process
        self._lease = lease
        self._pending = PendingUpdates(application, records)
        self._here: dict[int, InHand] = {}
        self._storing: dict[int, asyncio.Future[None]] = {}
        self._room = Room()
        self._again: set[asyncio.Task[None]] = set()
        self._looked = self._running = False
        inbox.bind(self.keep, self.leave)

    async def keep(self, update: Update) -> bool:
        """Store an update, and return whether it is to be queued: it is not queued already.

        Raises:
            SessionKitError: The store did not acknowledge it.
        """
        number = update.update_id
        while (storing := self._storing.get(number)) is not None:
            await asyncio.wait([storing])  # it came again, and is not acknowledged before it is stored
        known = self._here.get(number)
        if known is not None and (known.queued or known.stored):
            return False
        known = self._here[number] = InHand(counted=True)
        self._storing[number] = asyncio.get_running_loop().create_future()
        try:
            await self._pending.add(update)
        except CodecError as error:
            # Telegram would send it again and again.
            known.stored = False
            logger.error("update %d is processed, but not stored before: %s", number, error)
        except BaseException:
            self.leave(update)
            raise
        finally:
            self._storing.pop(number).set_result(None)
        return True

    def leave(self, update: Update) -> None:
        """Take note that an update is not queued here any more, nor what was to be processed before it."""
        known = self._here.pop(update.update_id, None)
        for number in () if known is None else known.guests:
            if number in self._here and not self._here[number].queued:
                del self._here[number]

    async def take(self, update: Update) -> None:
        """Process an update, and before it those of its user that came earlier, unless somebody else has."""
        host = self._here.setdefault(update.update_id, InHand(stored=False, queued=False))
        due = [(update, host)]
        while due:
            next_, known = due[-1]
            try:
                try:
                    earlier = await self._take_safely(next_, known)
                except Exception as error:  # whatever it is, nothing of the update is stored
                    await self._tell(next_, known, error)
                    if not isinstance(error, UpdateSetAside):
                        self._try_again(update, known, error)
                        return
                    earlier = None
            except BaseException as error:
                known.counted = False  # the next time is counted
                self.leave(update)
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling():
                    logger.error("update %d is not processed: a handler cancelled itself", next_.update_id)
                    return  # PTB before 21.3 would wait for this update at its stop, for ever
                raise
            if earlier is None:
                due.pop()
                if next_ is update or not known.queued:  # else a copy of it is queued here
                    self.leave(next_)
            else:
                host.guests.add(earlier.update_id)
                due.append((earlier, self._here.setdefault(earlier.update_id, InHand(queued=False))))

    async def take_back(self, update_id: int) -> bool:
        """Queue an update that was set aside, and return whether there is one.

        Raises:
            SessionKitError: The store did not acknowledge it, or it cannot be read. It is kept.
        """
        aside = await self._pending.read_set_aside(update_id)
        if aside is None:
            return False
        update = aside.update
        work = self._desk.plan.ids()
        work.turns = self._desk.plan.update(update).turns
        async with self._desk.turn(work, None):  # who has it finds out whether it is processed, or waits
            if not await self._pending.take_back(aside):
                return False
        self._here[update_id] = InHand(counted=True)
        await self._inbox.put_kept(update)
        return True

    async def look(self) -> None:
        """Take up what waits and is in nobody's hands, as its instance was killed.

        Raises:
            StoreError: The store could not be asked.
        """
        now, looked = time.time(), self._looked
        async for entry in self._pending.all():
            # What has just come is left to where it came; not what a clock that was ahead says came later.
            is_new = looked and now - self._lease <= entry.since <= now + self._lease
            if entry.update_id not in self._here and not is_new:
                update = self._pending.open(entry)
                if update is not None:
                    self._here[entry.update_id] = InHand()
                    await self._inbox.put_kept(update)
        self._looked = True

    def start(self) -> None:
        """Try again, from now on, what could not be processed."""
        self._running = True

    async def stop(self) -> None:
        """Try nothing again; what is not processed by now stays stored."""
        self._running = self._looked = False
        for task in list(self._again):
            task.cancel()
            await asyncio.wait([task])

    def forget(self) -> None:
        """Take note that nothing is queued here any more: what was and is not processed stays stored."""
        self._here.clear()

    async def _take_safely(self, update: Update, known: InHand) -> Update | None:
        """Do as ``_take``; what may have killed a process is processed alone, so no other is suspected.

        Not where the others, or it itself, take longer than a lease: then they are processed side by side.
        """
        work = current_work(self._application)
        if work is not None and work.open:  # a handler processes it, and is in the room already
            return await self._take(update, known, alone=True)
        try:
            async with self._room.enter():
                return await self._take(update, known, alone=False)
        except _Suspected:
            async with self._room.enter(alone_for=self._lease):
                return await self._take(update, known, alone=True)

    async def _take(self, update: Update, known: InHand, *, alone: bool) -> Update | None:
        """Process an update if it is the next one of its user, else return that one.

        Args:
            update: The update.
            known: What is known of it.
            alone: Whether nothing else is processed here now, as far as that can be had.

        Raises:
            _Suspected: It was taken up before, and is to be processed alone.
            _Unreadable: It cannot be begun for now.
        """
        work = self._desk.plan.update(update)
        work.inbox = pending, handled = self._pending.of(update)
        bot = self._desk.plan.bot
        if bot.key in work.slots:
            work.bot = BotCopy(bot, self._records.ledger, self._records.values)
        work.add(pending, handled)
        self._desk.keyboards.add_needed(work, update)
        async with self._desk.turn(work, None) as give_back:
            try:
                await self._transactions.begin(work)
                waits = not known.stored or await self._pending.found(update)
                entries = {entry.update_id: entry for entry in pending.entries}
            except CodecError as error:
                raise _Unreadable(error) from error
            if not waits:
                return None  # somebody has processed it, and it may be too long ago to be among the handled
            if update.update_id in handled.ids:
                if update.update_id in entries:
                    await self._transactions.commit(work, update.update_id)
                return None
            earlier = self._first(pending, handled.ids, update.update_id)
            if earlier is not None:
                return earlier
            entry = entries.get(update.update_id)
            if entry is None and known.faults > self._inbox.attempts:
                logger.error("update %d is not stored, and not tried again", update.update_id)
                return None
            if entry is not None and not known.counted:
                attempt = known.count(entry)
                if attempt > self._inbox.attempts:
                    await self._set_aside(work, entry)
                if attempt > 1 and not alone:
                    raise _Suspected
                known.counting = attempt
                await self._pending.count_attempt(pending, update.update_id, attempt)
                known.counting, known.counted = None, True
            try:
                await self._process(work, update, give_back)
            except BaseException:
                self._transactions.undo(work)
                raise
        return None

    def _first(self, pending: PendingSlot, done: Collection[int], before: int) -> Update | None:
        """Return the first of the updates that are to be processed before this one."""
        for entry in pending.entries:
            if entry.update_id < before and entry.update_id not in done:
                update = self._pending.open(entry)
                if update is not None and self._pending.of(update).pending.key == pending.key:
                    return update
                if update is not None:  # to whoever wrote it, it was another's: it would be looked for there
                    logger.error("update %d is not its user's, and is kept: %s", entry.update_id, pending.key)
        return None

    async def _tell(self, update: Update, known: InHand, error: Exception) -> None:
        """Tell the error handlers of an update that is not stored; if that is not its own fault, once."""
        known.failures += 1
        passes = _may_pass_by_itself(error)
        known.faults += not passes
        if known.failures == 1 or not passes:
            told = error.error if isinstance(error, _Unreadable) else error
            await self._application.process_error(update, told)
        else:
            logger.debug("update %d is still not processed: %s", update.update_id, error)

    async def _set_aside(self, work: Work, entry: PendingUpdate) -> None:
        key = await self._pending.set_aside(entry)
        await self._transactions.commit(work, entry.update_id)
        raise UpdateSetAside(entry.update_id, entry.attempts, key)

    def _try_again(self, update: Update, failed: InHand, error: Exception) -> None:
        """Queue an update again soon, as it, or one that comes before it, is not processed."""
        if not _may_pass_by_itself(error):
            failed.counted = False  # the next time is counted
        if not self._running:
            self.leave(update)
            return

        doublings = min(failed.failures, 10)
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**doublings)

        async def again() -> None:
            await asyncio.sleep(random.uniform(longest / 2, longest))
            await self._inbox.put_kept(update)

        task = asyncio.get_running_loop().create_task(again())
        self._again.add(task)
        task.add_done_callback(self._again.discard)


class _Suspected(Exception):
    """An update is to be processed alone."""


class _Unreadable(Exception):
    """What is stored of an update's user is not to be taken for nothing: it waits until it can be read."""

    def __init__(self, error: CodecError) -> None:
        super().__init__(str(error))
        self.error = error


def _may_pass_by_itself(error: Exception) -> bool:
    """Whether it is what is stored, or a store that is away, and not the update that is at fault."""
    return isinstance(error, _Unreadable) or (may_pass(error) and not isinstance(error, LeaseLost))
