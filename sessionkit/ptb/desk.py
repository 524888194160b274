"""Where units of work are done: each in its turn, with its records loaded before and held after."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from sessionkit.errors import CodecError, SessionKitError
from sessionkit.ptb.keyboards import Keyboards
from sessionkit.ptb.locking import StoreLocks
from sessionkit.ptb.private import Marks, mark_again, take_marks, unmark
from sessionkit.ptb.slots import ChatSlot, ConversationSlot, UserSlot
from sessionkit.ptb.timeouts import TimeoutSlot
from sessionkit.ptb.turns import Turns
from sessionkit.ptb.work import WorkPlan, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence

    from sessionkit.ptb.persistence import SessionPersistence
    from sessionkit.ptb.private import AnyApplication
    from sessionkit.ptb.slots import BotSlot
    from sessionkit.ptb.timeouts import Timeouts
    from sessionkit.ptb.work import Work


class Desk:
    """Does work on PTB's memory, of which every value is a cached record.

    Args:
        application: Whose memory.
        persistence: Where the records are, and which kinds of data are kept.
        timeouts: The deadlines of conversations.
        bot: Where the bot's data live.
        max_cached: How many records to keep in memory.
        lease: Seconds after which the turns of a process that was killed are free again.

    Attributes:
        plan: Says what each work needs.
        keyboards: The data behind keyboards.
        dropped: The keys of data that were dropped and are not held as such yet.
    """

    def __init__(
        self,
        application: AnyApplication,
        persistence: SessionPersistence,
        timeouts: Timeouts,
        bot: BotSlot,
        *,
        max_cached: int,
        lease: float,
    ) -> None:
        records = persistence.records
        self._application = application
        self._records = records
        self._ledger = records.ledger
        self._keeps_callbacks = persistence.store_data.callback_data
        self._timeouts = timeouts
        self._max_cached = max_cached
        self._turns = Turns()
        self._locks = StoreLocks(records.store, lease)
        self._late: set[asyncio.Task[None]] = set()
        self.plan = WorkPlan(application, persistence, timeouts, bot)
        self.keyboards = Keyboards(application, records.keys, records.ledger)
        self.dropped: set[str] = set()

    @asynccontextmanager
    async def turn(self, work: Work, wait: float | None) -> AsyncIterator[Callable[[], None]]:
        """Run the body in the work's turn, with its data loaded.

        Once it calls what it is given, other instances may go on; this one waits for the body's end.
        """
        async with self._turns.take(work.turns, wait), self._locks.hold(work.turns, wait) as give_back:
            own = list(work.slots)
            self._pin_for(work, own)
            interrupted = False
            try:
                await self._ledger.load(list(work.slots.values()))
                interrupted = True
                with working(work):
                    yield give_back
                interrupted = False
            finally:
                self.pin(work.pinned, -1)
                work.pinned.clear()
                if interrupted and not work.undone:  # what was half done is not to be stored
                    for key in own:
                        self._ledger.forget(key)
        self._ledger.evict(self._max_cached)

    def check_readable(self, work: Work) -> None:
        """Make sure that a work's data and states could be read: what is there is not to be taken for none.

        The bot's data are not looked at: one record must not stop everybody.

        Raises:
            CodecError: Something could not, and is kept.
        """
        for key, slot in work.slots.items():
            error = self._ledger.unreadable.get(key)
            if error is not None and isinstance(slot, (UserSlot, ChatSlot, ConversationSlot)):
                raise error

    def hold(self, work: Work, *, but: str = "") -> list[str]:
        """Hold what a work's records are now, but one of them, and return their keys.

        The bot's data are passed over while an update stores what it has changed of them, as that may be
        taken back. So are data that were marked here, and whose turn it is in another work by now: what that
        has half done is not to be stored. They stay marked.
        """
        keys: list[str] = []
        others = self.of_others(work)
        for key, slot in work.slots.items():
            if key in others or key == but or (slot is self.plan.bot and self.plan.bot.before is not None):
                continue
            if isinstance(slot, TimeoutSlot):
                self._timeouts.drop_ended(slot)
            value = slot.read()
            if key in work.gone and not value:
                slot.write(value := None)
            if value is None and self._ledger.cell(key).version is None and key not in self.dropped:
                continue  # nobody has looked what is there
            keys.append(key)
            self._ledger.cell(key).slot = slot
            with suppress(CodecError):  # `check` tells
                self._ledger.hold(key, value)
        self.dropped.difference_update(work.slots)
        unmark(
            self._application,
            [number for number in work.users if self._records.keys.users.key(number) not in others],
            [number for number in work.chats if self._records.keys.chats.key(number) not in others],
        )
        if self._keeps_callbacks:
            keys += self.keyboards.hold()
        return keys

    async def commit(self, work: Work) -> None:
        """Have stored what a work's records are now.

        Raises:
            SessionKitError: Something is not stored; it is kept and tried again.
        """
        self._records.check(await self.send(work), user_id=None, chat_id=None)

    async def send(self, work: Work) -> list[str]:
        """Send what a work's records are now, and return their keys; ``Records.check`` tells of failures."""
        await self.bot_stored()
        keys = self.hold(work)
        await self._records.writer.commit(keys)
        return keys

    async def bot_stored(self) -> None:
        """Return once no update stores what it has changed of the bot's data: then they can be held."""
        bot = self.plan.bot
        while bot.before is not None and (away := self._records.flights.of([bot.key])):
            await asyncio.wait(away)

    def marked(self) -> Work:
        """Return what PTB has marked outside of any turn; what somebody works on is left to them."""
        marks, keys = take_marks(self._application), self._records.keys
        left = Marks(set(), set(), set())
        work = self.plan.ids()

        def busy(*numbers: int | str) -> bool:
            return any(self._turns.taken(keys.turns.key(number)) for number in numbers if number)

        for taken, ours, theirs in (
            (marks.users, work.users, left.users),
            (marks.chats, work.chats, left.chats),
        ):
            for number in taken:
                (theirs if busy(number) else ours).add(number)
        self.plan.add_data(work, work.users, work.chats)
        for name, key in marks.conversations:
            if busy(*key):
                left.conversations.add((name, key))
            else:
                work.add(self.plan.conversation(name, key))
        mark_again(self._application, left)
        return work

    def add_data(self, work: Work, users: Iterable[int], chats: Iterable[int]) -> None:
        """Add the data of more users and chats to a work that is being done."""
        before = set(work.slots)
        self.plan.add_data(work, users, chats)
        self._pin_for(work, [key for key in work.slots if key not in before])

    def of_others(self, work: Work) -> set[str]:
        """Return the keys of a work's data of which it is the turn in another work."""
        keys = self._records.keys
        return {
            space.key(number)
            for space, numbers in ((keys.users, work.users), (keys.chats, work.chats))
            for number in numbers
            if self.busy(work, number)
        }

    def busy(self, work: Work, number: int) -> bool:
        """Whether it is the turn of this user or chat in another work than this."""
        name = self._records.keys.turns.key(number)
        return self._turns.taken(name) and name not in work.held

    def pin(self, keys: Iterable[str], by: int) -> None:
        """Keep these records in memory by so many more users of them."""
        for cell in self._ledger.concerned(keys):
            cell.pins += by

    def _pin_for(self, work: Work, keys: Sequence[str]) -> None:
        self.pin(keys, 1)
        work.pinned += keys

    def ended_late(self, work: Work, pinned: Collection[str]) -> None:
        """Commit what a task of this work has changed later; these records were pinned for it."""
        if work.open:  # it is committed with its update
            self.pin(pinned, -1)
            return
        task = asyncio.get_running_loop().create_task(self._commit_late(work, pinned))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _commit_late(self, work: Work, pinned: Collection[str]) -> None:
        late = work.again()
        try:
            async with self.turn(late, None):
                await self.commit(late)
        except SessionKitError as error:
            await self._application.process_error(None, error)
        finally:
            self.pin(pinned, -1)

    async def settle_late(self) -> None:
        """Wait until what late tasks changed is committed."""
        while self._late:
            await asyncio.wait(self._late)

    async def aclose(self) -> None:
        """Wait until the last turn is given back."""
        await self.settle_late()
        await self._locks.aclose()
