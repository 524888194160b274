"""Two changes of one record, brought together."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sessionkit.errors import CodecError
from sessionkit.resilience import ConflictFound, merge_three

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkit.ptb.values import Values

logger = logging.getLogger("sessionkit.ptb")

_PLAIN: Final = (int, str, bytes)
"""Types whose values are the same if they are equal, so that no bytes need be made of them."""


class Merging:
    """Merges dicts key by key, and reports what is given up.

    Counters add up, see ``merge_three``. Of what both sides changed otherwise, and of all that is no dict,
    theirs stands.

    Args:
        values: Turns values into bytes, to compare them.
        report: Told of every conflict in which something of this side's was given up.
    """

    def __init__(self, values: Values, report: Callable[[ConflictFound], object]) -> None:
        self._values = values
        self._report = report

    def merge(
        self, key: str, before: Any, mine: Any, theirs: Any, *, known: bool = True, quiet: bool = False
    ) -> Any | None:
        """Return what is to stand of a record that was changed on two sides; None: nothing.

        Args:
            key: The record's key.
            before: What both sides began with.
            mine: What this side made of it.
            theirs: What the other side made of it.
            known: Whether ``before`` was read, and not just assumed.
            quiet: Whether what is given up is told elsewhere.
        """
        if theirs is None and not known:
            return mine
        clashes: list[Any] = []
        value = theirs
        if all(side is None or isinstance(side, dict) for side in (before, mine, theirs)):
            if theirs is None:  # what was deleted stays deleted
                clashes = [] if not mine else ["all"]
            else:
                value, clashes = merge_three(
                    before or {}, mine or {}, theirs, add_ints=True, equal=partial(self._same, key)
                )
                if mine is None and not value:
                    value = None
        elif not self._same(key, mine, theirs):
            if self._same(key, theirs, before):
                value = mine
            else:
                clashes = ["all"]
        if clashes and not quiet:
            logger.warning(
                "conflict on %s: %d values changed here were changed elsewhere too, and theirs are kept",
                key,
                len(clashes),
                extra={"key": key, "kept": "primary"},
            )
            self._report(ConflictFound(key, "primary"))
        return value

    def _same(self, key: str, one: Any, other: Any) -> bool:
        # Not by ==: many classes do not define it, and PTB's objects are equal by their ids alone.
        if type(one) is not type(other) or one is other:
            return one is other
        if type(one) in _PLAIN:  # not one derived from these, which may compare as it likes
            return bool(one == other)
        try:
            return self._values.pack(key, one).plain == self._values.pack(key, other).plain
        except CodecError:
            return False
