"""The step that an update takes: it is handled, what it changed is stored, and its answers are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from telegram import Update

from sessionkit.errors import Applied, CommitPending
from sessionkit.ptb.answers import Answers, HeldBack
from sessionkit.ptb.commits import collecting
from sessionkit.ptb.migration import migrated_ids
from sessionkit.ptb.work import whose
from sessionkit.ptb.writes import may_pass

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sessionkit.errors import SessionKitError
    from sessionkit.ptb.desk import Desk
    from sessionkit.ptb.migration import Migration
    from sessionkit.ptb.private import AnyApplication
    from sessionkit.ptb.records import Records
    from sessionkit.ptb.transactions import Transactions
    from sessionkit.ptb.work import Work


class Steps:
    """Takes the steps of updates whose turn it is.

    Args:
        application: Whose updates.
        records: The store and what is known of it.
        desk: Where updates have their turn.
        transactions: Stores what an update with an inbox has changed.
        migration: Moves chats that have got another id.
        handle: Has an update handled as PTB does.
    """

    def __init__(
        self,
        application: AnyApplication,
        records: Records,
        desk: Desk,
        transactions: Transactions,
        migration: Migration,
        handle: Callable[[object], Coroutine[Any, Any, None]],
    ) -> None:
        self._application = application
        self._records = records
        self._writer = records.writer
        self._desk = desk
        self._transactions = transactions
        self._migration = migration
        self._handle = handle
        self._held_back = HeldBack(self._check, self._send_late, self._give_up)
        self._writer.when_sent(self._held_back.wake)

    async def take(self, work: Work, update: object, give_back: Callable[[], None]) -> None:
        """Have an update handled, store what it changed, and send its answers.

        Args:
            work: The update's work, whose turn it is.
            update: The update.
            give_back: Lets other instances go on.

        Raises:
            SessionKitError: Nothing was handled; or of an update with an inbox nothing is stored. Whatever
                else fails goes to the error handlers.
        """
        ids = migrated_ids(update)
        if ids is not None:
            await self._migration.move(work, *ids)
        await self.take_by(self._handle, work, self._desk.keyboards.filled(update), give_back)

    async def take_by(
        self,
        handle: Callable[[Any], Coroutine[Any, Any, None]],
        work: Work,
        update: object,
        give_back: Callable[[], None],
    ) -> None:
        """Do as ``take`` does, with an update that is handled in another way."""
        with collecting() as commit:
            await handle(update)
            callbacks = commit.close()
        for move in work.moves:
            await self._migration.move(work, *move)
        answers = Answers(update, callbacks, (), *whose(update))
        try:
            await self._commit(work, answers)
            self._check(answers)
        except Exception as error:  # whatever it is, PTB's error handlers are told, as for a handler's
            if work.inbox is not None:
                raise  # nothing is stored, and all of it is done again
            if callbacks and may_pass(error):
                self._held_back.add(answers)
                error = CommitPending(f"answers are held back: {error}", applied=Applied.MAYBE)
            await self._application.process_error(update, error)
        else:
            if callbacks and self._held_back.follows(answers):
                self._held_back.add(answers)
            elif callbacks:
                give_back()  # no other instance need wait for the answers
                await self._send(answers)
                # They may have changed something themselves, such as the data behind the buttons they sent.
                await self._desk.send(work)

    async def drop_answers(self) -> None:
        """Send none of the answers that are held back."""
        await self._held_back.drop()

    async def _commit(self, work: Work, answers: Answers) -> None:
        """Have stored what an update's records are now.

        Raises:
            CodecError: Something cannot be stored; the rest is.
            SessionKitError: Nothing is stored yet.
        """
        if work.inbox is None:
            answers.keys = await self._desk.send(work)
            return
        assert isinstance(answers.update, Update)
        copy = work.bot
        answers.keys = await self._transactions.commit(work, answers.update.update_id)
        work.inbox = None  # whatever fails from now on, it is not done again
        if copy is not None and copy.error is not None:
            raise copy.error

    def _check(self, answers: Answers) -> None:
        self._records.check(answers.keys, user_id=answers.user, chat_id=answers.chat)

    async def _send(self, answers: Answers) -> None:
        for callback in answers.callbacks:
            try:
                await callback()
            except Exception as error:  # one that fails must not keep back the others
                await self._application.process_error(answers.update, error)

    async def _send_late(self, answers: Answers) -> None:
        await self._send(answers)
        await self._application.update_persistence()

    async def _give_up(self, answers: Answers, error: SessionKitError) -> None:
        await self._application.process_error(answers.update, error)
