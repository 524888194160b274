"""Random operations, compared one by one with a dictionary."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessionkit.errors import VersionConflict
from sessionkit.store import ABSENT, Put, Record, Version
from sessionkit.testing.conformance.base import StoreTests

if TYPE_CHECKING:
    from sessionkit.store import Absent, SessionStore

_names = st.sampled_from(["a", "b", "c"])
_values = st.binary(max_size=40)
_conditions = st.sampled_from(["any", "absent", "current", "stale"])
_operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _names, _values, _conditions),
        st.tuples(st.just("put_many"), _names, _values, _names),
        st.tuples(st.just("delete"), _names, st.just(b""), _conditions),
        st.tuples(st.just("delete_many"), _names, st.just(b""), _names),
        st.tuples(st.just("touch"), _names, st.just(b""), st.just("")),
        st.tuples(st.just("get"), _names, st.just(b""), st.just("")),
        st.tuples(st.just("scan"), _names, st.just(b""), st.just("")),
    ),
    max_size=30,
)
_STALE = Version(b"\xff" * 8)


class ModelTests(StoreTests):
    """The store against a model of it."""

    @settings(
        deadline=None,
        max_examples=40,
        suppress_health_check=[HealthCheck.differing_executors, HealthCheck.function_scoped_fixture],
    )
    @given(operations=_operations)
    async def test_it_agrees_with_a_dictionary(
        self, prefix: str, operations: list[tuple[str, str, bytes, str]]
    ) -> None:
        async with self.open_store() as store:
            model = _Model(store, f"{prefix}{uuid.uuid4().hex}:")
            for operation in operations:
                await model.apply(*operation)
                await model.check()
            await store.delete_many(list(model.records))


class _Model:
    def __init__(self, store: SessionStore, prefix: str) -> None:
        self.store = store
        self.prefix = prefix
        self.records: dict[str, Record] = {}

    async def apply(self, operation: str, name: str, value: bytes, detail: str) -> None:
        key = self.prefix + name
        await getattr(self, operation)(key, value, detail)

    async def check(self) -> None:
        keys = [self.prefix + name for name in "abc"]
        assert await self.store.get_many(keys) == self.records

    async def put(self, key: str, value: bytes, condition: str) -> None:
        if_version = self._version(key, condition)
        current = self.records[key].version if key in self.records else ABSENT
        try:
            receipt = await self.store.put(key, value, if_version=if_version)
        except VersionConflict as conflict:
            assert if_version is not None
            assert if_version != current
            assert conflict.current == current
        else:
            assert if_version is None or if_version == current
            self.records[key] = Record(value, receipt.version)

    async def put_many(self, key: str, value: bytes, other: str) -> None:
        puts = [Put(key, value), Put(self.prefix + other, value + b"2")]
        for put, receipt in zip(puts, await self.store.put_many(puts), strict=True):
            self.records[put.key] = Record(put.value, receipt.version)

    async def delete(self, key: str, _: bytes, condition: str) -> None:
        if_version = self._version(key, condition)
        if if_version is ABSENT:
            return
        try:
            deleted = await self.store.delete(key, if_version=if_version)
        except VersionConflict as conflict:
            assert conflict.current == self.records[key].version != if_version
        else:
            assert deleted is (self.records.pop(key, None) is not None)

    async def delete_many(self, key: str, _: bytes, other: str) -> None:
        keys = {key, self.prefix + other}
        assert await self.store.delete_many(keys) == len(keys & self.records.keys())
        for gone in keys:
            self.records.pop(gone, None)

    async def touch(self, key: str, _: bytes, __: str) -> None:
        assert await self.store.touch(key, expires_in=1000) is (key in self.records)

    async def get(self, key: str, _: bytes, __: str) -> None:
        assert await self.store.get(key) == self.records.get(key)

    async def scan(self, key: str, _: bytes, __: str) -> None:
        assert {found async for found in self.store.scan(key)} == {key} & self.records.keys()

    def _version(self, key: str, condition: str) -> Version | Absent | None:
        current = self.records[key].version if key in self.records else _STALE
        return {"any": None, "absent": ABSENT, "current": current, "stale": _STALE}[condition]
