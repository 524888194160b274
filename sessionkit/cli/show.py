"""``sessionkit show`` and ``sessionkit ping``."""

from __future__ import annotations

from rich.console import Console
from rich.pretty import Pretty

from sessionkit.codec import MsgpackCodec
from sessionkit.registry import open_store


async def show_record(key: str, url: str | None) -> bool:
    """Print the decoded value of a record, and return whether there was one."""
    async with open_store(url) as store:
        record = await store.get(key)
    if record is None:
        Console(stderr=True).print(f"there is no record {key!r}", highlight=False, markup=False)
        return False
    Console().print(Pretty(MsgpackCodec().decode(record.value)))
    return True


async def check_store(url: str | None) -> None:
    """Print how long the store takes to answer."""
    async with open_store(url) as store:
        seconds = await store.ping()
    Console().print(f"answered in {seconds * 1000:.1f} ms", highlight=False)
