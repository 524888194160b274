"""Commits that are all or nothing: an update's data together with the note that it was processed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sessionkit.errors import BatchRefused, CodecError, CorruptRecord, LeaseLost, VersionConflict
from sessionkit.ptb.slots import ConversationSlot
from sessionkit.store import ABSENT, AtomicStore, Delete, Put, new_version

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sessionkit.errors import SessionKitError
    from sessionkit.ptb.bot_copy import BotCopy
    from sessionkit.ptb.cells import Slot, Write
    from sessionkit.ptb.desk import Desk
    from sessionkit.ptb.records import Records
    from sessionkit.ptb.user_updates import UserUpdates
    from sessionkit.ptb.work import Work


_ROUNDS: Final = 8
"""How often what others change of the bot's data is stored before an update's share of them is."""


class Transactions:
    """Writes what a ledger holds for one update, all or none.

    Where the writer keeps what could not be written and tries again, this forgets it: the update itself is
    stored, and will be processed anew.

    Args:
        records: The store and what is known of it.
        desk: Holds what an update has changed.
    """

    def __init__(self, records: Records, desk: Desk) -> None:
        self._records = records
        self._desk = desk
        self._writer = records.writer
        self._ledger = records.ledger
        self._flights = records.flights

    async def begin(self, work: Work) -> None:
        """Have stored what others have changed of an update's records, as it is not to be undone with it.

        Raises:
            CodecError: Its data cannot be read here, or which updates were processed; and may be elsewhere.
            SessionKitError: The store did not acknowledge it.
        """
        assert work.inbox is not None
        handled = work.inbox.handled.key
        for state in work.passing:
            state.note()
        await self._ledger.drop_damaged(handled)
        if handled in self._ledger.unreadable:
            raise self._ledger.unreadable[handled]
        self._desk.check_readable(work)
        unsettled: list[Slot] = []
        for key, slot in work.slots.items():
            if slot is self._desk.plan.bot:
                continue
            cell = self._ledger.cell(key)
            if cell.pins > 1 and cell.version is not None:  # a task has it, too
                self._hold(key)
            if cell.waiting or cell.flight:
                unsettled.append(slot)
            if isinstance(slot, ConversationSlot) and slot.running:
                work.running.add(key)
        if unsettled:
            await self._settle([slot.key for slot in unsettled])
            await self._ledger.load(unsettled)

    def undo(self, work: Work) -> None:
        """Have PTB hold what it held before an update that is not stored, whoever uses it, too."""
        if work.inbox is None:
            return
        for state in work.passing:
            state.put_back()
        others = self._desk.of_others(work)
        for key, slot in work.slots.items():
            if slot is self._desk.plan.bot or key in work.running or key in others:
                continue
            if not self._ledger.cell(key).waiting:  # what travels is undone if it does not arrive
                self._ledger.revert(key)
        work.undone = True

    async def commit(self, work: Work, update_id: int) -> list[str]:
        """Write what an update has changed, and that it was processed, in one atomic step.

        If that fails, PTB holds what was there before. What others have changed is written before, by itself.

        Args:
            work: The update's, with its ``inbox``.
            update_id: Telegram's number of it.

        Returns:
            The keys of its records, but for the bot's data.

        Raises:
            CodecError: It has changed something to what cannot be stored.
            LeaseLost: Somebody else has processed an update of the same user, having had the turn.
            SessionKitError: The store did not acknowledge it; see ``applied``.
        """
        inbox, shared = work.inbox, self._desk.plan.bot.key
        assert inbox is not None
        # What a task changes from now on is its own.
        copy, work.bot = work.bot, None
        bot = copy if copy is not None and copy.is_changed() else None
        if bot is not None:
            await self._settle([shared])  # what another update has changed is not to be held by this one
            bot.hold_others()
        mine = [key for key in work.slots if key != shared or bot is not None]
        await self._settle(mine)
        if bot is not None:
            bot.hold_others()
            for _ in range(_ROUNDS):
                if shared not in self._ledger.waiting:
                    break
                await self._settle(mine)  # they have gone on meanwhile
                bot.hold_others()
            else:  # they go on faster than it is stored: what they have changed last goes with this
                await self._settle(mine)
        # From here to the take-off nothing is waited for: what is held, the writer sends by itself.
        # The bot's data come first, as merging runs code of the user's: what that raises finds nothing held.
        unstored = bot if bot is not None and not bot.hold() else None
        if unstored is not None:
            bot = None
        inbox.settle(update_id)
        keys = self._desk.hold(work, but=shared)
        concerned = {*keys, *([] if bot is None else [bot.key])}
        # What travels already is of messages that others have sent.
        cells = dict(zip(concerned, self._ledger.concerned(concerned), strict=True))
        ready = [key for key, cell in cells.items() if cell.waiting and cell.flight is None]
        undone = concerned - work.running
        refusal = self._refusal(key for key in keys if key in undone)
        if refusal is not None:
            self._take_back(ready, undone, bot)
            raise refusal
        if ready:
            flight = self._flights.take_off(ready)
            flying = self._fly(ready, undone, flight, bot, inbox)
            # Shielded: an update that is cancelled must not leave open what became of it.
            await asyncio.shield(self._flights.start(flying))
        if unstored is not None and unstored.error is not None:
            unstored.keep()
        return keys

    async def _settle(self, keys: Collection[str]) -> None:
        """Return once nothing travels or waits for these keys.

        Raises:
            SessionKitError: The store did not acknowledge it.
        """
        while True:
            left = [key for key in keys if key in self._ledger.waiting]
            if flights := self._flights.of(keys):
                await asyncio.wait(flights)
            elif left:
                await self._writer.commit(left)
                failures = self._writer.failures()
                for key in left:
                    if key in failures:
                        raise failures[key]
            else:
                return

    async def _fly(
        self,
        ready: Sequence[str],
        undone: Collection[str],
        flight: asyncio.Future[None],
        bot: BotCopy | None,
        inbox: UserUpdates,
    ) -> None:
        try:
            await self._write(ready, inbox)
            if bot is not None:
                bot.stored()
        except BaseException:
            self._take_back(ready, undone, bot)
            raise
        finally:
            self._flights.land(ready, flight)

    def _refusal(self, keys: Iterable[str]) -> CodecError | None:
        """Return why one of these values cannot be stored.

        Not of messages, which were sent whatever becomes of the update, and have no slot; nor of what is
        refused for the record that is there, which is somebody else's.
        """
        for key in keys:
            refusal = self._ledger.refused.get(key)
            if refusal and key not in self._ledger.unreadable and self._ledger.cell(key).slot is not None:
                return refusal
        return None

    def _take_back(self, ready: Collection[str], undone: Collection[str], bot: BotCopy | None) -> None:
        """Have PTB hold what it held before an update, of what was to be written and of what is its own."""
        for key in {*ready, *undone}:
            if (bot is not None and key == bot.key) or self._ledger.cell(key).slot is None:
                continue
            if key not in undone:
                self._ledger.drop_waiting(key)
            elif key in ready or key in self._ledger.refused:
                self._ledger.revert(key)
            else:  # the update left it alone: what has become of it is a task's
                self._hold(key)
        if bot is not None:
            bot.revert()

    async def _write(self, keys: Sequence[str], inbox: UserUpdates) -> None:
        store = self._records.store()
        assert isinstance(store, AtomicStore)
        left = list(keys)
        while left:
            writes = {key: self._newest(key) for key in left}
            batch: list[Put | Delete] = []
            for key, write in list(writes.items()):
                try:
                    batch.append(await self._write_of(key, write))
                except CodecError as error:  # one must not cost the others
                    self._refuse(key, error)
                    del writes[key]
            write_id = new_version()
            try:
                await store.write_all(batch, write_id=write_id)
            except BatchRefused as refused:
                if inbox.handled.key in refused.refusals:
                    raise LeaseLost(
                        "the turn was lost: another instance has processed an update of the same user or chat"
                        " meanwhile, and nothing of this one is stored"
                    ) from refused
                await self._make_way(refused.refusals, inbox)
                left = [key for key in left if key in self._ledger.waiting]
            else:
                for key, write in writes.items():
                    write.write_id = write_id
                    self._ledger.cell(key).arrived(write)
                return

    def _hold(self, key: str) -> None:
        slot = self._ledger.cell(key).slot
        with suppress(CodecError):  # ``refused`` tells
            self._ledger.hold(key, None if slot is None else slot.read())

    def _newest(self, key: str) -> Write:
        waiting = self._ledger.cell(key).waiting
        if waiting[0].in_doubt and waiting[0].error is not None:
            raise waiting[0].error  # what it did could not be told from what this does
        return waiting[-1]

    async def _write_of(self, key: str, write: Write) -> Put | Delete:
        version = self._ledger.cell(key).version
        if write.value is not None:
            return Put(key, write.value, self._records.expiry(key), ABSENT if version is None else version)
        if version is None:  # it must not be one that can be read elsewhere
            version = await self._ledger.look_at(key)
        return Delete(key, version if isinstance(version, bytes) else None)

    async def _make_way(self, refusals: Mapping[str, SessionKitError], inbox: UserUpdates) -> None:
        """Merge what others have written into what is to be written."""
        conflicts: list[str] = []
        for key, error in refusals.items():
            if key == inbox.pending.key:  # more have come; what is processed may be dropped later
                self._ledger.revert(key)
            elif isinstance(error, VersionConflict):
                conflicts.append(key)
            elif isinstance(error, CorruptRecord):
                self._ledger.keep_unreadable(key, error)
                self._refuse(key, error)
            else:
                raise error
        if conflicts:
            await self._ledger.resolve(conflicts)

    def _refuse(self, key: str, error: CodecError) -> None:
        self._ledger.drop_waiting(key)
        self._ledger.refused[key] = error
