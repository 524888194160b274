"""The bot's data as one update sees and changes them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sessionkit.errors import CodecError

if TYPE_CHECKING:
    from sessionkit.ptb.ledger import Ledger
    from sessionkit.ptb.slots import BotSlot
    from sessionkit.ptb.values import Values


class BotCopy:
    """A copy of the bot's data, made when it is first asked for, and merged when its update is stored.

    Several updates change the bot's data at once, and each is stored by itself: what one has changed must not
    be stored with another, or it would be changed twice where only the other is stored.

    Args:
        slot: Where the bot's data live, as last stored.
        ledger: What is known of the record.
        values: Turns values into bytes and back.

    Attributes:
        key: The record's key.
        error: Why the data cannot be stored, though nothing is wrong with what the update changed.
    """

    def __init__(self, slot: BotSlot, ledger: Ledger, values: Values) -> None:
        self.key = slot.key
        self.error: CodecError | None = None
        self._slot = slot
        self._ledger = ledger
        self._values = values
        self._copied: bytes | None = None
        self._replaced = b""
        self._stored: bytes | None = None
        self._value: Any = None

    @property
    def value(self) -> Any:
        """The copy; the data themselves where they hold what cannot be stored, and so not be copied."""
        if self._copied is None:
            shared: Any = self._slot.read()
            try:
                # What another update is about to store may yet be taken back.
                self._copied = self._slot.before or self._values.pack(self.key, shared).plain
            except CodecError as error:
                self.error = error
                return shared
            self._value = self._values.unpack(self._copied)
        return self._value

    def is_changed(self) -> bool:
        """Return whether there is something to store.

        Raises:
            CodecError: It cannot be stored.
        """
        return self._copied is not None and self._values.pack(self.key, self._value).plain != self._copied

    def hold_others(self) -> None:
        """Have stored by themselves what others have changed, if they have: it is not to be undone."""
        with suppress(CodecError):
            self._ledger.hold(self.key, self._slot.read())

    def hold(self) -> bool:
        """Have stored what was changed, with what others have changed since; return whether it can be."""
        shared, merged = self._slot.read(), self._merged()
        try:
            replaced = self._values.pack(self.key, shared).plain
            self._ledger.hold(self.key, merged)
        except CodecError as error:
            self.error = error
            return False
        if not self._ledger.cell(self.key).waiting:  # it is what is stored already
            self._slot.write(merged)
            return False
        self._replaced = self._slot.before = replaced
        self._stored = self._ledger.cell(self.key).stored
        self._slot.write(merged)
        return True

    def stored(self) -> None:
        """Take note that what was changed is stored."""
        self._slot.before = None

    def keep(self) -> None:
        """Have everybody see what was changed, where something else keeps it from being stored for now."""
        self._slot.write(self._merged())

    def revert(self) -> None:
        """Take back what was changed, from what everybody sees, too; what others have changed since stays.

        What was held may have been merged with what another instance has stored meanwhile, which stays, too.
        """
        cell = self._ledger.cell(self.key)
        held = self._opened(cell.stored if cell.newest is None else cell.newest.value)
        self._ledger.drop_waiting(self.key)
        before, replaced = self._opened(self._stored), self._values.unpack(self._replaced)
        others = self._ledger.merging.merge(
            self.key, before, replaced, self._opened(cell.stored), known=before is not None, quiet=True
        )
        self._slot.write(self._ledger.merging.merge(self.key, held, self._slot.read(), others, quiet=True))
        self._slot.before = None
        self.hold_others()

    def _merged(self) -> Any:
        assert self._copied is not None
        base = self._values.unpack(self._copied)
        return self._ledger.merging.merge(self.key, base, self._value, self._slot.read())

    def _opened(self, stored: bytes | None) -> Any:
        return None if stored is None else self._values.open(self.key, stored).value
