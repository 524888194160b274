"""Batches that travel in pages: each entry keeps its own outcome, whatever becomes of its page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionkit.errors import Applied, BatchFailed, SessionKitError, StoreError
from sessionkit.store.records import Receipt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from sessionkit.store.records import Put


def cut_puts(puts: Sequence[Put], most: int, most_bytes: int) -> Iterator[Sequence[Put]]:
    """Cut puts into pages, so that none keeps other callers waiting for long.

    Args:
        puts: The puts.
        most: Of how many puts a page may be.
        most_bytes: How many bytes their values may have; a larger one is a page of its own.
    """
    start = size = 0
    for at, put in enumerate(puts):
        if at > start and (at - start == most or size + len(put.value) > most_bytes):
            yield puts[start:at]
            start, size = at, 0
        size += len(put.value)
    if start < len(puts):
        yield puts[start:]


async def put_in_pages(
    pages: Iterable[Sequence[Put]],
    write: Callable[[Sequence[Put]], Awaitable[Sequence[Receipt | SessionKitError]]],
) -> list[Receipt]:
    """Write page by page and return the receipts; after a page that fails as a whole, write no more.

    Args:
        pages: The batch, cut into pages.
        write: Writes one page and returns each put's outcome, or raises where the page failed as a whole.

    Raises:
        BatchFailed: Some puts failed or were not attempted; its ``results`` say which.
        SessionKitError: The first page failed as a whole, so nothing of the batch is known to be written.
    """
    results: list[Receipt | SessionKitError] = []
    failure: SessionKitError | None = None
    for page in pages:
        if failure is not None:
            again = isinstance(failure, StoreError) and failure.temporary
            results += [StoreError(f"not attempted: {failure}", temporary=again)] * len(page)
            continue
        try:
            results += await write(page)
        except SessionKitError as error:
            if not results:
                raise
            failure = error
            results += [error] * len(page)
    return receipts_of(results)


async def delete_in_pages(
    pages: Iterable[Sequence[str]], delete: Callable[[Sequence[str]], Awaitable[int]]
) -> int:
    """Delete page by page and return how many records there were.

    Raises:
        StoreError: A page failed; ``applied`` is MAYBE if an earlier one was deleted.
    """
    deleted = 0
    for page in pages:
        try:
            deleted += await delete(page)
        except StoreError as error:
            if deleted:
                error.applied = Applied.MAYBE
            raise
    return deleted


def receipts_of(results: Sequence[Receipt | SessionKitError]) -> list[Receipt]:
    """Return the receipts.

    Raises:
        BatchFailed: Some of the results are errors.
    """
    receipts = [result for result in results if isinstance(result, Receipt)]
    if len(receipts) < len(results):
        raise BatchFailed(results)
    return receipts
