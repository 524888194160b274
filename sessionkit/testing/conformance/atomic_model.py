"""What there must be after batches that are written all or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from sessionkit.errors import BatchRefused, VersionConflict
from sessionkit.store import ABSENT, RING_SIZE, Delete, Put, Receipt, Record, Version, new_version

if TYPE_CHECKING:
    from sessionkit.store import Absent, AtomicStore

_CONDITIONS = ("any", "absent", "current", "stale")
atomic_batches = st.lists(
    st.one_of(
        st.dictionaries(
            st.sampled_from("abc"),
            st.tuples(st.sampled_from(["put", "delete"]), st.sampled_from(_CONDITIONS)),
            max_size=3,
        ),
        st.integers(0, 9),  # how many batches ago the one was that comes again
    ),
    max_size=20,
)
"""Batches of puts and deletions, each with its condition; or how long ago the one was that comes again."""
STALE = Version(b"\xff" * 8)
"""A version that no record has."""


class AtomicModel:
    """What there must be: each record with the ids of its last writes, the newest first."""

    def __init__(self, store: AtomicStore, prefix: str) -> None:
        self.store = store
        self.prefix = prefix
        self.records: dict[str, tuple[bytes, list[Version]]] = {}
        self.written: list[tuple[list[Put | Delete], Version]] = []

    async def write(self, batch: dict[str, tuple[str, str]]) -> None:
        writes: list[Put | Delete] = []
        for name, (kind, condition) in batch.items():
            key = self.prefix + name
            if kind == "put":
                value = b"%s %d" % (name.encode(), len(self.written))
                writes.append(Put(key, value, if_version=self._version(key, condition)))
            else:
                version = self._version(key, condition)
                writes.append(Delete(key, if_version=None if version is ABSENT else version))
        self.written.append((writes, new_version()))
        await self.repeat(0)

    async def repeat(self, ago: int) -> None:
        if ago >= len(self.written):
            return
        writes, write_id = self.written[-1 - ago]
        refused = {} if self._is_done(writes, write_id) else self._refused(writes)
        try:
            receipt = await self.store.write_all(writes, write_id=write_id)
        except BatchRefused as error:
            conflicts = {
                key: refusal.current
                for key, refusal in error.refusals.items()
                if isinstance(refusal, VersionConflict)
            }
            assert conflicts == refused != {}
            return
        assert receipt == Receipt(write_id)
        assert refused == {}
        if not self._is_done(writes, write_id):
            self._apply(writes, write_id)

    async def check(self) -> None:
        assert await self.store.get_many([self.prefix + name for name in "abc"]) == {
            key: Record(value, ring[0]) for key, (value, ring) in self.records.items()
        }

    def _is_done(self, writes: list[Put | Delete], write_id: Version) -> bool:
        return any(isinstance(write, Put) and write_id in self._ring(write.key) for write in writes)

    def _refused(self, writes: list[Put | Delete]) -> dict[str, Version | Absent]:
        return {
            write.key: self._current(write.key)
            for write in writes
            if write.if_version not in {None, self._current(write.key)}
            and (isinstance(write, Put) or write.key in self.records)
        }

    def _apply(self, writes: list[Put | Delete], write_id: Version) -> None:
        for write in writes:
            if isinstance(write, Put):
                ring = [write_id, *self._ring(write.key)][:RING_SIZE]
                self.records[write.key] = (write.value, ring)
            else:
                self.records.pop(write.key, None)

    def _version(self, key: str, condition: str) -> Version | Absent | None:
        return {"any": None, "absent": ABSENT, "current": self._current(key), "stale": STALE}[condition]

    def _current(self, key: str) -> Version | Absent:
        return self.records[key][1][0] if key in self.records else ABSENT

    def _ring(self, key: str) -> list[Version]:
        return self.records[key][1] if key in self.records else []
