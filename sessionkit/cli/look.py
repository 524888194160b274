"""``sessionkit ls``, ``show`` and ``ping``: a look at a store that changes nothing."""

from __future__ import annotations

from rich.console import Console
from rich.pretty import Pretty

from sessionkit.cli.reading import showing_codec, time_of
from sessionkit.cli.stores import open_source
from sessionkit.codec import read_info
from sessionkit.errors import CodecError


async def list_keys(prefix: str, url: str | None) -> None:
    """Print the keys that start with a prefix, each once."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    async with open_source(url) as store:
        for key in sorted({key async for key in store.scan(prefix)}):
            console.print(key)


async def show_record(key: str, url: str | None, *, header: bool) -> bool:
    """Print the decoded value of a record, or what it says without, and return whether there was one.

    Raises:
        CodecError: It cannot be decoded, or holds types that a bot has registered.
    """
    codec = showing_codec()
    async with open_source(url) as store:
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
        if header:
            _print_header(record.value)
        else:
            Console().print(Pretty(codec.decode(record.value, key=key)))
    except CodecError as error:
        raise type(error)(f"{key}: {error}") from None
    return True


def _print_header(value: bytes) -> None:
    info = read_info(value)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"bytes: {len(value)}")
    console.print(f"schema: {info.schema}")
    console.print(f"compressed: {'yes' if info.compressed else 'no'}")
    if info.key_id is None or info.written is None:
        console.print("encrypted: no")
    else:
        console.print(f"encrypted: by the key {info.key_id!r}, {time_of(info.written)}")


async def ping_store(url: str | None) -> None:
    """Print how long the store takes to answer."""
    async with open_source(url) as store:
        seconds = await store.ping()
    Console().print(f"answered in {seconds * 1000:.1f} ms", highlight=False)
