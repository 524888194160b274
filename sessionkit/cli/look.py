"""``sessionkit ls``, ``show`` and ``ping``: a look at a store that changes nothing."""

from __future__ import annotations

from rich.console import Console
from rich.pretty import Pretty

from sessionkit.codec import MsgpackCodec
from sessionkit.errors import CodecError
from sessionkit.registry import open_store


async def list_keys(prefix: str, url: str | None) -> None:
    """Print the keys that start with a prefix, each once."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    async with open_store(url, outage="raise") as store:
        for key in sorted({key async for key in store.scan(prefix)}):
            console.print(key)


async def show_record(key: str, url: str | None) -> bool:
    """Print the decoded value of a record, and return whether there was one.

    Raises:
        CodecError: It cannot be decoded, or holds types that a bot has registered.
    """
    async with open_store(url, outage="raise") as store:
        record = await store.get(key)
    if record is None:
        Console(stderr=True).print(
            f"there is no record {key!r}; sessionkit ls lists the keys",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return False
    try:
        value = MsgpackCodec().decode(record.value)
    except CodecError as error:
        raise type(error)(f"{key}: {error}") from None
    Console().print(Pretty(value))
    return True


async def ping_store(url: str | None) -> None:
    """Print how long the store takes to answer."""
    async with open_store(url, outage="raise") as store:
        seconds = await store.ping()
    Console().print(f"answered in {seconds * 1000:.1f} ms", highlight=False)
