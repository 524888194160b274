"""What becomes of a batch of which the primary has taken a part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionkit.errors import Applied, SessionKitError, StoreError
from sessionkit.store import Receipt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sessionkit.store import Put

Result = Receipt | SessionKitError


async def finish_puts(
    batch: Sequence[Put],
    results: Sequence[Result],
    written: Callable[[int, Receipt], Awaitable[Receipt]],
    again: Callable[[int, StoreError], Awaitable[Receipt]],
) -> list[Result]:
    """Return the results of a batch, with what failed for now tried again or journaled.

    Args:
        batch: The puts, each with its write id.
        results: What the primary made of each.
        written: Told of each that succeeded, by its place, and its receipt, which it returns.
        again: Told of one that failed for now and how, puts it again or into the journal.
    """
    ends: list[Result] = []
    last = {put.key: at for at, put in enumerate(batch)}
    succeeded = {
        put.key: at
        for at, (put, result) in enumerate(zip(batch, results, strict=True))
        if isinstance(result, Receipt)
    }
    replaced: list[int] = []
    for at, (put, result) in enumerate(zip(batch, results, strict=True)):
        assert put.write_id is not None
        if isinstance(result, Receipt):
            ends.append(await result_of(written(at, result)))
        elif not isinstance(result, StoreError) or not result.temporary:
            ends.append(result)
        elif last[put.key] > at and batch[last[put.key]].if_version is None:
            # Its successor takes its place; done again, it might come after that.
            replaced.append(at)
            ends.append(result)
        elif succeeded.get(put.key, -1) > at:
            ends.append(Receipt(put.write_id))  # a later put of the batch has replaced it already
        else:
            ends.append(await result_of(again(at, result)))
    for at in replaced:
        end, write_id = ends[last[batch[at].key]], batch[at].write_id
        assert write_id is not None
        # If its successor is not taken either, its own error says whether it may have arrived.
        if isinstance(end, Receipt):
            ends[at] = Receipt(write_id, end.where)
    return ends


async def delete_each(keys: Sequence[str], delete: Callable[[str], Awaitable[bool]]) -> int:
    """Delete one by one and return how many there were; what fails after the first says ``applied=MAYBE``."""
    deleted = 0
    for at, key in enumerate(keys):
        try:
            deleted += await delete(key)
        except StoreError as error:
            if at:
                error.applied = Applied.MAYBE
            raise
    return deleted


async def result_of(write: Awaitable[Receipt]) -> Result:
    """Return a write's receipt, or its error."""
    try:
        return await write
    except SessionKitError as error:
        return error
