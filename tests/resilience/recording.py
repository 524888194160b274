"""A primary that writes down every change, and whose call each change was."""

from __future__ import annotations

import math
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from sessionkit.errors import SessionKitError
from sessionkit.store import Absent, Delete, Put, Receipt, Record, Version, receipts_of
from sessionkit.testing.virtual_time import virtual_clock
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.resilience.history import Request


@dataclass(eq=False)
class Call:
    """One call of one instance to the primary.

    Attributes:
        instance: Its name; "" where nobody called, as when a failover takes records back.
        request: What it was made for; None: for a replay.
        began: When it was sent, in seconds.
        late: Whether the network carried it out after its caller had given up.
        answered: Whether the answer reached the instance.
    """

    instance: str
    request: Request | None = None
    began: float = 0.0
    late: bool = False
    answered: bool = False


def shown(version: Version | Absent | None) -> str:
    """Return a version as it stands in reports: the machine's own are numbers."""
    return version[-2:].hex() if isinstance(version, bytes) else str(version)


@dataclass(frozen=True, eq=False, repr=False)
class Change:
    """Something the primary did.

    Attributes:
        tick: Its place among all that happened.
        at: When, in seconds.
        kind: What.
        key: The record's key.
        version: The version it made, removed or renewed.
        replaced: The version that stood there before a put, or None.
        if_version: The condition it was made under.
        expires_at: When the record ends now.
        call: Whose it was.
        epoch: How many failovers there had been.
    """

    tick: int
    at: float
    kind: Literal["put", "delete", "touch"]
    key: str
    version: Version
    replaced: Version | None
    if_version: Version | Absent | None
    expires_at: float
    call: Call
    epoch: int

    def __repr__(self) -> str:
        version, condition = shown(self.version), shown(self.if_version)
        who = self.call.instance or "failover"
        how = " late" if self.call.late else " replay" if self.call.request is None else ""
        return (
            f"<{who}{how}: {self.kind} {self.key} {version} if {condition},"
            f" {self.expires_at - self.at:.3f} s #{self.tick}>"
        )


NOBODY: Final = Call("")
CALL: ContextVar[Call] = ContextVar("CALL", default=NOBODY)
REQUEST: ContextVar[Request | None] = ContextVar("REQUEST", default=None)


class RecordingStore(MemoryStore):
    """A memory store that tells of each change.

    Args:
        tell: Called with all of a ``Change`` but its tick and epoch.
    """

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__(clock=virtual_clock)
        self._tell = tell

    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        record = await super().get(key, renew_for=renew_for)
        if record is not None and renew_for is not None:
            self._note("touch", key, record.version, None, None, renew_for)
        return record

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expires_in: float | None = None,
        if_version: Version | Absent | None = None,
        write_id: Version | None = None,
    ) -> Receipt:
        before = await super().get(key)
        receipt = await super().put(
            key, value, expires_in=expires_in, if_version=if_version, write_id=write_id
        )
        after = await super().get(key)
        assert after is not None
        if after.version == receipt.version and (before is None or before.version != receipt.version):
            replaced = None if before is None else before.version
            self._note("put", key, receipt.version, replaced, if_version, expires_in)
        return receipt

    async def delete(self, key: str, *, if_version: Version | None = None) -> bool:
        before = await super().get(key)
        deleted = await super().delete(key, if_version=if_version)
        if before is not None:
            self._note("delete", key, before.version, None, if_version, None)
        return deleted

    async def touch(self, key: str, *, expires_in: float | None, if_version: Version | None = None) -> bool:
        there = await super().touch(key, expires_in=expires_in, if_version=if_version)
        record = await super().get(key)
        if record is not None:
            self._note("touch", key, record.version, None, if_version, expires_in)
        return there

    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        results: list[Receipt | SessionKitError] = []
        for key, value, expires_in, if_version, write_id in puts:
            try:
                results.append(
                    await self.put(
                        key, value, expires_in=expires_in, if_version=if_version, write_id=write_id
                    )
                )
            except SessionKitError as error:
                results.append(error)
        return receipts_of(results)

    async def write_all(self, writes: Iterable[Put | Delete], *, write_id: Version | None = None) -> Receipt:
        batch = list(writes)
        before = {write.key: await super(RecordingStore, self).get(write.key) for write in batch}
        receipt = await super().write_all(batch, write_id=write_id)
        for write in batch:
            old, new = before[write.key], await super().get(write.key)
            if new is not None and new.version == receipt.version and new != old:
                replaced = None if old is None else old.version
                expires_in = write.expires_in if isinstance(write, Put) else None
                self._note("put", write.key, new.version, replaced, write.if_version, expires_in)
            elif old is not None and new is None:
                self._note("delete", write.key, old.version, None, write.if_version, None)
        return receipt

    async def delete_many(self, keys: Iterable[str]) -> int:
        return sum([await self.delete(key) for key in keys])

    def _note(
        self,
        kind: str,
        key: str,
        version: Version,
        replaced: Version | None,
        if_version: Version | Absent | None,
        expires_in: float | None,
    ) -> None:
        now = virtual_clock()
        expires_at = math.inf if expires_in is None else now + expires_in
        self._tell(now, kind, key, version, replaced, if_version, expires_at, CALL.get())
