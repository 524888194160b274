"""Scans: complete for what stays, silent about what never was."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import pytest

from sessionkit.errors import InvalidKey
from sessionkit.store import Put, SessionStore
from sessionkit.testing.conformance.base import StoreTests

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class ScanTests(StoreTests):
    """scan."""

    async def test_a_scan_of_many_pages_yields_every_key(self, store: SessionStore, prefix: str) -> None:
        keys = {f"{prefix}{number}" for number in range(3000)}
        await store.put_many(Put(key, b"v") for key in keys)
        await store.put(f"{prefix[:-1]}!outside", b"v")
        assert {key async for key in store.scan(prefix)} == keys
        assert keys <= {key async for key in store.scan("")}

    async def test_a_scan_of_nothing_is_empty(self, store: SessionStore, prefix: str) -> None:
        assert [key async for key in store.scan(prefix)] == []

    @pytest.mark.parametrize("bad", [None, b"bytes", 5, "\ud800"], ids=ascii)
    async def test_what_is_no_prefix_is_refused(self, store: SessionStore, key: str, bad: str) -> None:
        await store.put(key, b"v")
        with pytest.raises(InvalidKey):
            async for _ in store.scan(bad):
                pytest.fail("a key was yielded")

    async def test_a_prefix_is_text_and_no_pattern(self, store: SessionStore, prefix: str) -> None:
        for part in ("*", "?", "[ab]", "a", "b", "%", "_", "\\", "\\*", "é", "\U0010ffff"):
            await store.put(f"{prefix}{part}:1", b"v")
        for part in ("*", "?", "[ab]", "a", "%", "_", "\\", "é", "\U0010ffff"):
            expected = {f"{prefix}{part}:1"} | ({f"{prefix}\\*:1"} if part == "\\" else set())
            assert {key async for key in store.scan(f"{prefix}{part}")} == expected

    async def test_keys_that_stay_are_yielded_while_others_come_and_go(
        self, store: SessionStore, prefix: str
    ) -> None:
        staying = {f"{prefix}stays{number}" for number in range(1500)}
        going = [f"{prefix}goes{number}" for number in range(1500)]
        await store.put_many(Put(key, b"v") for key in (*staying, *going))
        seen = set()
        async for key in store.scan(prefix):
            seen.add(key)
            if going and len(seen) % 5 == 0:
                await store.delete(going.pop())
                await store.put(f"{prefix}comes{len(seen)}", b"v")
        assert staying <= seen
        assert all(key.startswith((f"{prefix}stays", f"{prefix}goes", f"{prefix}comes")) for key in seen)

    async def test_a_scan_may_be_left_early(self, store: SessionStore, prefix: str) -> None:
        await store.put_many(Put(f"{prefix}{number}", b"v") for number in range(2000))
        async with aclosing(cast("AsyncGenerator[str]", store.scan(prefix))) as keys:
            async for key in keys:
                assert key.startswith(prefix)
                break
        assert await store.get(f"{prefix}0") is not None

    async def test_a_scan_yields_no_lock(self, store: SessionStore, prefix: str) -> None:
        async with store.lock(f"{prefix}locked"):
            assert [key async for key in store.scan(prefix)] == []
            assert await store.get(f"{prefix}locked") is None
        assert [key async for key in store.scan(prefix)] == []
