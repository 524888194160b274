"""``sessionkit rekey``: every record encrypted by the first key."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from sessionkit.cli.reading import reading_codec
from sessionkit.cli.stores import open_source_driver
from sessionkit.codec import read_info
from sessionkit.codec.envelope import HEADER_BYTES, schema_of, seal
from sessionkit.codec.wrapping import reencrypt
from sessionkit.errors import CodecError, ConfigurationError, InvalidKey, VersionConflict
from sessionkit.quarantine import NAMESPACE, Quarantine
from sessionkit.settings import Settings
from sessionkit.store import RecodingStore, read_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sessionkit.codec import Keyring, MsgpackCodec
    from sessionkit.errors import SessionKitError
    from sessionkit.store import Record

Outcome: TypeAlias = Literal["rekeyed", "current", "gone", "unreadable"]

_AT_ONCE: Final = 64
_ATTEMPTS: Final = 10


async def rekey_records(prefix: str | None, url: str | None) -> bool:
    """Encrypt all records by the first key, print what became of them, and return whether all could be read.

    It may be stopped and started again, and run while bots do: a record keeps its version and its expiry.

    Args:
        prefix: What the keys start with; None: what the settings say.
        url: The store; None: what the settings say.

    Raises:
        ConfigurationError: There are no keys, or the store cannot do it.
        StoreError: The store failed; what was done until then stays done.
    """
    settings = Settings.load()
    keyring = settings.keyring()
    if keyring is None:
        raise ConfigurationError("rekey needs SESSIONKIT_ENCRYPTION_KEYS or SESSIONKIT_ENCRYPTION_KEYS_FILE")
    store = open_source_driver(url)
    async with store:
        if not isinstance(store, RecodingStore):
            raise ConfigurationError(f"{store!r} is of a driver that cannot rekey: it is no RecodingStore")
        rekeying = Rekeying(store, reading_codec(), keyring)
        return await rekeying.run(settings.prefix if prefix is None else prefix)


class Rekeying:
    """One run over the records of a store.

    Args:
        store: The store.
        codec: Reads every record, and encrypts by its first key.
        keyring: Its keys.
    """

    def __init__(self, store: RecodingStore, codec: MsgpackCodec, keyring: Keyring) -> None:
        self._store = store
        self._codec = codec
        self._keyring = keyring
        self._counts: Counter[Outcome] = Counter()
        self._console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)

    async def run(self, prefix: str) -> bool:
        """Rekey the records whose keys start with a prefix; return whether all could be read."""
        self._console.print(
            f"encrypting by {self._keyring.first!r}, the first of the keys;"
            " one that is to take its place has to stand first"
        )
        page: list[tuple[str, Record]] = []
        columns = (SpinnerColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as progress:
            task = progress.add_task(str(self))
            async for item in read_all(self._store, prefix, self._unreadable):
                page.append(item)
                if len(page) == _AT_ONCE:
                    await self._rekey_all(page)
                    page.clear()
                    progress.update(task, description=str(self))
            await self._rekey_all(page)
        Console(soft_wrap=True, highlight=False).print(str(self))
        return not self._counts["unreadable"]

    def __str__(self) -> str:
        counts = self._counts
        return (
            f"rekeyed {counts['rekeyed']}, current before {counts['current']},"
            f" gone meanwhile {counts['gone']}, left as not readable {counts['unreadable']}"
        )

    async def _rekey_all(self, page: Iterable[tuple[str, Record]]) -> None:
        self._counts.update(await asyncio.gather(*(self._rekey(key, record) for key, record in page)))

    async def _rekey(self, key: str, record: Record | None) -> Outcome:
        for _ in range(_ATTEMPTS):
            if record is None:
                return "gone"
            try:
                plain = self._codec.unwrap(record.value, key=key)
                anew = self._rekeyed_inside(key, plain)
                if anew == plain and read_info(record.value).key_id == self._keyring.first:
                    return "current"
                value = self._codec.wrap(anew, key=key)
            except CodecError as error:
                self._tell(key, error)
                return "unreadable"
            try:
                there = await self._store.recode(key, value, if_version=record.version)
            except VersionConflict:  # written meanwhile, by a bot that may encrypt by another key
                record = await self._store.get(key)
            else:
                return "rekeyed" if there else "gone"
        self._console.print(f"left: {key}: others kept writing it; run rekey again")
        return "unreadable"

    def _rekeyed_inside(self, key: str, plain: bytes) -> bytes:
        """Return a plain record; of an entry in quarantine, with what it holds rekeyed if a key opens it."""
        prefix, namespace, _ = key.rpartition(f"{NAMESPACE}:")
        if not namespace:
            return plain
        try:
            quarantine = Quarantine(self._store, self._codec, prefix)
            entry = quarantine.unpack(key, plain)
            if read_info(entry.value).key_id == self._keyring.first:
                return plain
            value = reencrypt(entry.value, self._keyring, entry.record_key)
        except (CodecError, InvalidKey):  # no entry, only named like one, or damaged before decryption
            return plain
        packed = quarantine.pack(entry._replace(value=value))
        return seal(packed[HEADER_BYTES:], schema_of(plain))

    def _unreadable(self, key: str, error: SessionKitError) -> None:
        self._tell(key, error)
        self._counts["unreadable"] += 1

    def _tell(self, key: str, error: SessionKitError) -> None:
        self._console.print(f"left: {key}: {error}")
