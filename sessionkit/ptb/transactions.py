"""Commits that are all or nothing: an update's data together with the note that it was processed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sessionkit.errors import BatchRefused, CorruptRecord, LeaseLost, VersionConflict
from sessionkit.store import ABSENT, AtomicStore, Delete, Put, new_version

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sessionkit.errors import SessionKitError
    from sessionkit.ptb.bot_copy import BotCopy
    from sessionkit.ptb.cells import Write
    from sessionkit.ptb.pending import UserUpdates
    from sessionkit.ptb.records import Records
    from sessionkit.ptb.work import Work


class Transactions:
    """Writes what a ledger holds for one update, all or none.

    Where the writer keeps what could not be written and tries again, this forgets it: the update itself is
    stored, and will be processed anew.

    Args:
        records: The store and what is known of it.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._ledger = records.ledger
        self._flights = records.flights

    async def commit(self, work: Work, hold: Callable[[], Collection[str]]) -> Collection[str]:
        """Write what an update has changed, and that it was processed, in one atomic step.

        If that fails, PTB holds what was there before.

        Args:
            work: The update's, with its ``inbox``.
            hold: Holds what the update has changed, but for the bot's data, and returns the keys.

        Returns:
            What ``hold`` does.

        Raises:
            LeaseLost: Somebody else has processed an update of the same user, having had the turn.
            SessionKitError: The store did not acknowledge it; see ``applied``.
        """
        inbox = work.inbox
        assert inbox is not None
        bot = work.bot if work.bot is not None and work.bot.changed else None
        spared = {work.bot.key} if work.bot is not None and bot is None else set[str]()
        while away := self._flights.of(work.slots.keys() - spared):
            await asyncio.wait(away)
        # From here to the take-off nothing is waited for: what is held, the writer sends by itself.
        if bot is not None:
            bot.hold()
        keys = hold()
        concerned = {*keys, *([] if bot is None else [bot.key])}
        waiting = concerned & self._ledger.waiting
        ready = [key for key in waiting if self._ledger.cell(key).flight is None]
        if ready:
            flight = self._flights.take_off(ready)
            # Shielded: an update that is cancelled must not leave open what became of it.
            await asyncio.shield(self._flights.start(self._fly(ready, concerned, flight, bot, inbox)))
        return keys

    async def _fly(
        self,
        ready: Sequence[str],
        concerned: Collection[str],
        flight: asyncio.Future[None],
        bot: BotCopy | None,
        inbox: UserUpdates,
    ) -> None:
        try:
            await self._write(ready, inbox)
            if bot is not None:
                bot.stored()
        except BaseException:
            for key in concerned:
                # What has no slot is of messages that were sent, whatever becomes of the update.
                if (bot is None or key != bot.key) and self._ledger.cell(key).slot is not None:
                    self._ledger.revert(key)
            if bot is not None:
                bot.revert()
            raise
        finally:
            self._flights.land(ready, flight)

    async def _write(self, keys: Sequence[str], inbox: UserUpdates) -> None:
        store = self._records.store()
        assert isinstance(store, AtomicStore)
        left = list(keys)
        while left:
            writes = {key: self._newest(key) for key in left}
            batch = [await self._write_of(key, write) for key, write in writes.items()]
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
                self._ledger.drop_waiting(key)
                self._ledger.refused[key] = error
            else:
                raise error
        if conflicts:
            await self._ledger.resolve(conflicts)
