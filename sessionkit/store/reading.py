"""Many records at once, whatever some of them hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessionkit.errors import CorruptRecord

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from sessionkit.store.contract import SessionStore
    from sessionkit.store.records import Record

_PAGE: Final = 500


async def read_all(
    store: SessionStore, prefix: str, damaged: Callable[[str, CorruptRecord], object]
) -> AsyncGenerator[tuple[str, Record]]:
    """Yield each record whose key starts with ``prefix``, once; one that is gone by then is left out.

    Args:
        store: The store.
        prefix: What the keys start with.
        damaged: Told of each key that holds something else than a record; the others are yielded.

    Raises:
        StoreError: The store could not be asked.
    """
    seen: set[str] = set()
    page: list[str] = []
    async for key in store.scan(prefix):
        if key in seen:
            continue
        seen.add(key)
        page.append(key)
        if len(page) == _PAGE:
            for item in (await read_many(store, page, damaged)).items():
                yield item
            page = []
    for item in (await read_many(store, page, damaged)).items():
        yield item


async def read_many(
    store: SessionStore, keys: Sequence[str], damaged: Callable[[str, CorruptRecord], object]
) -> dict[str, Record]:
    """Return the records that are there, in one round trip if all of them are records.

    Args:
        store: The store.
        keys: Their keys.
        damaged: Told of each key that holds something else than a record; the others are returned.

    Raises:
        StoreError: The store could not be asked.
    """
    try:
        return await store.get_many(keys)
    except CorruptRecord:
        pass
    found: dict[str, Record] = {}
    for key in keys:
        try:
            record = await store.get(key)
        except CorruptRecord as error:
            damaged(key, error)
            continue
        if record is not None:
            found[key] = record
    return found
