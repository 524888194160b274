"""Every fault of ChaosStore, over a store in memory that a test can also ask directly."""

from __future__ import annotations

import asyncio
import traceback
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from sessionkit.errors import (
    Applied,
    BatchFailed,
    ConfigurationError,
    CorruptRecord,
    InvalidKey,
    LockNotAcquired,
    RecordTooLarge,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
    VersionConflict,
)
from sessionkit.store import (
    ABSENT,
    AtomicStore,
    Capabilities,
    Delete,
    Put,
    Receipt,
    Record,
    SessionStore,
    Version,
    new_version,
)
from sessionkit.testing import ManualClock, SessionStoreConformance, run_in_virtual_time, virtual_clock
from sessionkit.testing.chaos import ChaosStore
from sessionkit_memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine


class TestChaosStoreConformance(SessionStoreConformance):
    virtual_time = True

    @pytest.fixture(autouse=True)
    def _clock(self) -> None:
        self.clock = ManualClock()

    def open_store(self) -> SessionStore:
        return ChaosStore(MemoryStore(clock=self.clock), seed=7)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


async def _scan(store: SessionStore) -> list[str]:
    return [key async for key in store.scan("")]


async def _lock(store: SessionStore) -> None:
    async with store.lock("a", wait=0):
        pass


async def _write_all(store: SessionStore) -> None:
    assert isinstance(store, AtomicStore)
    await store.write_all([Put("b", b"new"), Delete("a")])


OPERATIONS: dict[str, Callable[[SessionStore], Coroutine[Any, Any, object]]] = {
    "get": lambda store: store.get("a", renew_for=60),
    "put": lambda store: store.put("a", b"new"),
    "delete": lambda store: store.delete("a"),
    "touch": lambda store: store.touch("a", expires_in=60),
    "get_many": lambda store: store.get_many(["a"]),
    "put_many": lambda store: store.put_many([Put("a", b"new")]),
    "delete_many": lambda store: store.delete_many(["a"]),
    "write_all": _write_all,
    "scan": _scan,
    "lock": _lock,
    "ping": lambda store: store.ping(),
}
every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


class Inner(MemoryStore):
    """Counts the calls that reach it."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.reached = 0

    def _check_open(self) -> None:
        super()._check_open()
        self.reached += 1


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def inner(clock: ManualClock) -> Inner:
    inner = Inner(clock)
    await inner.put("a", b"old")
    inner.reached = 0
    return inner


@pytest.fixture
async def store(inner: Inner, clock: ManualClock) -> AsyncIterator[ChaosStore]:
    async with ChaosStore(inner, seed=7, clock=clock) as store:
        yield store


async def value(store: SessionStore, key: str) -> bytes | None:
    record = await store.get(key)
    return None if record is None else record.value


async def turns() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


@every_operation
async def test_refused_operations_reach_nothing(
    store: ChaosStore, inner: Inner, operation: Callable[[SessionStore], Awaitable[object]]
) -> None:
    store.refuse()
    with pytest.raises(StoreUnavailable) as caught:
        await operation(store)
    assert (caught.value.temporary, caught.value.applied) == (True, Applied.NO)
    assert (store.operations, store.faults, inner.reached) == (1, {"refuse": 1}, 0)
    store.heal()
    await operation(store)
    assert (store.operations, store.faults["refuse"], inner.reached) == (2, 1, 1)


@every_operation
async def test_lost_requests_reach_nothing_and_say_maybe(
    store: ChaosStore, inner: Inner, operation: Callable[[SessionStore], Awaitable[object]]
) -> None:
    store.lose_requests(1)
    with pytest.raises(StoreTimeout) as caught:
        await operation(store)
    assert (caught.value.temporary, caught.value.applied) == (True, Applied.MAYBE)
    assert (store.faults, inner.reached) == ({"lose_requests": 1}, 0)
    await operation(store)


@every_operation
async def test_lost_replies_are_of_applied_operations_and_say_maybe(
    store: ChaosStore, inner: Inner, operation: Callable[[SessionStore], Awaitable[object]]
) -> None:
    store.lose_replies(1)
    with pytest.raises(StoreTimeout) as caught:
        await operation(store)
    assert (caught.value.temporary, caught.value.applied) == (True, Applied.MAYBE)
    assert (store.faults, inner.reached) == ({"lose_replies": 1}, 1)
    await operation(store)


@every_operation
async def test_what_hangs_goes_on_once_it_is_healed(
    store: ChaosStore, inner: Inner, operation: Callable[[SessionStore], Coroutine[Any, Any, object]]
) -> None:
    store.hang()
    hanging = asyncio.create_task(operation(store))
    await turns()
    assert (hanging.done(), inner.reached, store.faults) == (False, 0, {"hang": 1})
    store.heal()
    await hanging
    assert inner.reached == 1


@every_operation
async def test_what_hangs_may_be_dropped(
    store: ChaosStore, inner: Inner, operation: Callable[[SessionStore], Coroutine[Any, Any, object]]
) -> None:
    store.hang()
    hanging = asyncio.create_task(operation(store))
    await turns()
    store.heal(drop=True)
    with pytest.raises(StoreTimeout) as caught:
        await hanging
    assert (caught.value.temporary, caught.value.applied) == (True, Applied.MAYBE)
    assert inner.reached == 0
    await operation(store)


@pytest.mark.parametrize("drop", [False, True])
@every_operation
async def test_a_cancel_ends_what_hangs_and_leaves_nothing_held(
    store: ChaosStore, operation: Callable[[SessionStore], Coroutine[Any, Any, object]], drop: bool
) -> None:
    store.hang()
    hanging = asyncio.create_task(operation(store))
    await turns()
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    store.heal(drop=drop)
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await operation(store)


async def test_a_write_that_was_given_up_while_it_hung_arrives_late(store: ChaosStore, inner: Inner) -> None:
    store.hang()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await store.put("a", b"late")
    assert await value(inner, "a") == b"old"
    store.heal()
    assert await value(store, "a") == b"old"  # not yet
    await turns()
    assert await value(store, "a") == b"late"


async def test_a_write_that_was_given_up_is_dropped_with_the_others(store: ChaosStore, inner: Inner) -> None:
    store.hang()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await store.put("a", b"late")
    store.heal(drop=True)
    await turns()
    assert await value(inner, "a") == b"old"


async def test_what_hung_is_applied_in_the_order_it_came(store: ChaosStore) -> None:
    store.hang()
    tasks = [asyncio.create_task(store.put("a", b"%d" % number)) for number in range(20)]
    await turns()
    for task in tasks[::3]:
        task.cancel()
    store.heal()
    receipts = await asyncio.gather(*tasks, return_exceptions=True)
    assert await value(store, "a") == b"19"
    assert [isinstance(receipt, Receipt) for receipt in receipts] == [number % 3 != 0 for number in range(20)]


async def test_a_late_write_that_conflicts_is_lost_in_silence(store: ChaosStore, inner: Inner) -> None:
    store.hang()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await store.put("a", b"late", if_version=ABSENT)
    store.heal()
    await turns()
    assert await value(inner, "a") == b"old"


async def test_closing_drops_what_hangs(inner: Inner) -> None:
    store = ChaosStore(inner)
    store.hang()
    hanging = asyncio.create_task(store.put("a", b"new"))
    await turns()
    await store.aclose()
    with pytest.raises(StoreTimeout):
        await hanging
    with pytest.raises(StoreUnavailable) as caught:
        await store.get("a")
    assert caught.value.temporary is False


async def test_closing_waits_for_late_writes(inner: Inner) -> None:
    store = ChaosStore(inner)
    store.hang()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await store.put("a", b"late")
    store.heal()
    await store.aclose()
    assert inner.reached == 1


async def test_a_lost_reply_hides_a_conflict(store: ChaosStore) -> None:
    with pytest.raises(VersionConflict):
        await store.put("a", b"new", if_version=ABSENT)
    store.lose_replies()
    for _ in range(3):
        with pytest.raises(StoreTimeout):
            await store.put("a", b"new", if_version=ABSENT)
    store.lose_replies(0)
    with pytest.raises(VersionConflict):
        await store.put("a", b"new", if_version=ABSENT)


async def test_a_write_whose_reply_was_lost_is_repeated_safely(store: ChaosStore, inner: Inner) -> None:
    write_id = new_version()
    store.lose_replies(1)
    with pytest.raises(StoreTimeout):
        await store.put("b", b"new", if_version=ABSENT, write_id=write_id)
    assert await inner.get("b") == Record(b"new", write_id)
    assert await store.put("b", b"new", if_version=ABSENT, write_id=write_id) == Receipt(write_id)


async def test_a_lock_whose_reply_was_lost_is_free_again(store: ChaosStore) -> None:
    store.lose_replies(1)
    with pytest.raises(StoreTimeout):
        await _lock(store)
    await _lock(store)


async def test_a_lock_is_held_through_an_outage(store: ChaosStore, inner: Inner) -> None:
    async with store.lock("a"):
        store.refuse()
        with pytest.raises(LockNotAcquired):
            await _lock(inner)
    await _lock(inner)


async def test_faults_add_up(store: ChaosStore, inner: Inner) -> None:
    store.lose_replies(1)
    store.lose_requests(1)
    store.refuse()
    with pytest.raises(StoreUnavailable):
        await store.put("a", b"refused")
    store.heal()
    store.lose_replies(1)
    store.lose_requests(1)
    for expected in (b"old", b"applied"):
        with pytest.raises(StoreTimeout):
            await store.put("a", b"applied")
        assert await value(inner, "a") == expected
    assert store.faults == {"refuse": 1, "lose_requests": 1, "lose_replies": 1}


def test_latency_comes_before_the_operation() -> None:
    async def main() -> None:
        async with ChaosStore(MemoryStore(clock=virtual_clock), clock=virtual_clock) as store:
            store.latency(2.5)
            assert await store.ping() == 2.5
            await store.put("a", b"v", expires_in=1)
            store.heal()
            await asyncio.sleep(0.75)
            assert await value(store, "a") == b"v"
            assert store.faults == {"latency": 2}

    run_in_virtual_time(main())


def test_a_caller_that_does_not_wait_for_latency_has_applied_nothing() -> None:
    async def main() -> None:
        async with ChaosStore(MemoryStore(clock=virtual_clock)) as store:
            store.latency(60)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(59):
                    await store.put("a", b"v")
            store.heal()
            await asyncio.sleep(60)
            assert await store.get("a") is None

    run_in_virtual_time(main())


def test_what_latency_holds_back_may_hang_after_it() -> None:
    async def main() -> None:
        async with ChaosStore(MemoryStore(clock=virtual_clock)) as store:
            store.latency(60)
            late = asyncio.create_task(store.put("a", b"late"))
            await asyncio.sleep(30)
            store.hang()
            await asyncio.sleep(60)
            assert not late.done()
            store.heal()
            await late

    run_in_virtual_time(main())


def test_jitter_follows_from_the_seed() -> None:
    async def main(seed: int) -> list[float]:
        async with ChaosStore(MemoryStore(clock=virtual_clock), seed=seed) as store:
            store.latency(10, jitter=5)
            return [await store.ping() for _ in range(50)]

    delays = run_in_virtual_time(main(1))
    assert all(10 <= delay <= 15 for delay in delays)
    assert max(delays) - min(delays) > 4
    assert run_in_virtual_time(main(1)) == delays
    assert run_in_virtual_time(main(2)) != delays


async def outcomes(seed: int) -> list[str]:
    """Return what became of each of many operations."""
    met = []
    async with ChaosStore(MemoryStore(), seed=seed) as store:
        store.fail_randomly(0.5)
        for number in range(200):
            before = store.faults.copy()
            try:
                await store.put(f"{number}", b"v", if_version=ABSENT)
            except StoreError as error:
                [kind] = store.faults - before
                assert (error.applied is Applied.NO) is (kind == "refuse")
                met.append(kind)
            else:
                met.append("none")
        store.heal()
        applied = [await store.get(f"{number}") is not None for number in range(200)]
    assert applied == [kind in {"none", "lose_replies"} for kind in met]
    return met


async def test_random_faults_follow_from_the_seed() -> None:
    met = await outcomes(seed=1)
    assert set(met) == {"none", "refuse", "lose_requests", "lose_replies"}
    assert 60 < met.count("none") < 140
    assert await outcomes(seed=1) == met
    assert await outcomes(seed=2) != met


def test_random_faults_do_not_depend_on_who_is_faster() -> None:
    async def main(jitter: float) -> list[str]:
        async with ChaosStore(MemoryStore(clock=virtual_clock), seed=3) as store:
            store.fail_randomly(0.5)
            store.latency(1, jitter=jitter)
            results = await asyncio.gather(
                *(store.put(f"{number}", b"v") for number in range(50)), return_exceptions=True
            )
        return [type(result).__name__ for result in results]

    assert run_in_virtual_time(main(jitter=0)) == run_in_virtual_time(main(jitter=10))


async def test_a_batch_is_half_applied_at_random(store: ChaosStore, inner: Inner) -> None:
    puts = [Put(f"{number}", b"v", None, None, new_version()) for number in range(100)]
    store.fail_randomly(0.5)
    with pytest.raises(BatchFailed) as caught:
        await store.put_many(puts)
    assert (caught.value.temporary, caught.value.applied) == (True, Applied.MAYBE)
    assert len(caught.value.results) == len(puts)
    found = await inner.get_many(put.key for put in puts)
    for put, result in zip(puts, caught.value.results, strict=True):
        if isinstance(result, Receipt):
            assert found[put.key] == Record(b"v", result.version)
        elif isinstance(result, StoreUnavailable):
            assert (result.applied, put.key in found) == (Applied.NO, False)
        else:
            assert isinstance(result, StoreTimeout)
            assert result.applied is Applied.MAYBE
    receipts = sum(isinstance(result, Receipt) for result in caught.value.results)
    assert (len(found), 100) == (receipts + store.faults["lose_replies"], receipts + store.faults.total())
    store.heal()
    assert await store.put_many(puts) == [Receipt(cast("Version", put.write_id)) for put in puts]


@pytest.mark.parametrize(
    "operation", ["get", "put", "delete", "touch", "get_many", "delete_many", "write_all", "lock"]
)
async def test_a_poisoned_key_fails_what_names_it(store: ChaosStore, inner: Inner, operation: str) -> None:
    store.fail_key("a", CorruptRecord("poison"))
    with pytest.raises(CorruptRecord, match="poison"):
        await OPERATIONS[operation](store)
    assert (store.faults, inner.reached) == ({"fail_key": 1}, 0)
    await store.put("b", b"v")
    assert await _scan(store) == ["a", "b"]


async def test_a_poisoned_key_fails_alone_in_a_batch(store: ChaosStore, inner: Inner) -> None:
    store.fail_key("b", RecordTooLarge("poison"))
    taken = await store.put("d", b"theirs")
    with pytest.raises(BatchFailed) as caught:
        await store.put_many([Put(key, b"v", None, ABSENT) for key in "bcdb"])
    first, receipt, conflict, last = caught.value.results
    assert isinstance(first, RecordTooLarge)
    assert isinstance(last, RecordTooLarge)
    assert first is not last
    assert isinstance(conflict, VersionConflict)
    assert conflict.current == taken.version
    assert isinstance(receipt, Receipt)
    assert await inner.get_many(["b", "c"]) == {"c": Record(b"v", receipt.version)}


@pytest.mark.parametrize(
    "error",
    [
        StoreUnavailable("out", temporary=False, applied=Applied.MAYBE),
        VersionConflict("a", current=ABSENT),
        BatchFailed([StoreTimeout("late"), Receipt(new_version())]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_errors_are_raised_as_copies(store: ChaosStore, error: StoreError) -> None:
    store.refuse(error)
    caught: list[StoreError] = []
    for _ in range(2):
        with pytest.raises(type(error)) as met:
            await store.get("a")
        caught.append(met.value)
    first, second = caught
    assert error is not first is not second is not error
    assert error.__traceback__ is None
    depths = [len(traceback.extract_tb(copy.__traceback__)) for copy in caught]
    assert depths[0] == depths[1]
    for copy in caught:
        assert (str(copy), copy.args, vars(copy)) == (str(error), error.args, vars(error))


async def test_a_scan_fails_midway(store: ChaosStore) -> None:
    await store.put_many(Put(f"{number}", b"v") for number in range(500))
    store.operations = 0
    seen = []
    with pytest.raises(StoreUnavailable):
        async for key in store.scan(""):
            seen.append(key)
            if len(seen) == 150:
                store.refuse()
    assert (len(seen), store.operations) == (200, 3)


async def test_a_scan_that_is_left_leaves_the_inner_one(store: ChaosStore, inner: Inner) -> None:
    closed = asyncio.Event()

    async def scan(prefix: str) -> AsyncIterator[str]:
        try:
            while True:
                yield prefix
        finally:
            closed.set()

    inner.scan = scan  # type: ignore[method-assign]
    async with aclosing(cast("AsyncGenerator[str]", store.scan("a"))) as keys:
        async for _ in keys:
            break
    assert closed.is_set()


async def test_arguments_are_checked_before_any_fault(store: ChaosStore) -> None:
    store.refuse()
    with pytest.raises(InvalidKey):
        await store.get("")
    with pytest.raises(InvalidKey):
        await store.put_many([Put("a", b"v"), Put("#", b"v")])
    with pytest.raises(InvalidKey):
        await _scan_from(store, "\ud800")
    assert store.operations == 0


async def _scan_from(store: SessionStore, prefix: str) -> None:
    async for _ in store.scan(prefix):
        pass


@pytest.mark.parametrize(
    "switch",
    [
        lambda store: store.lose_replies(-1),
        lambda store: store.lose_requests(-1),
        lambda store: store.latency(-1),
        lambda store: store.latency(float("inf")),
        lambda store: store.latency(0, jitter=float("nan")),
        lambda store: store.fail_randomly(1.1),
        lambda store: store.fail_randomly(-0.1),
    ],
)
async def test_what_no_switch_takes_is_refused(
    store: ChaosStore, switch: Callable[[ChaosStore], None]
) -> None:
    with pytest.raises(ConfigurationError):
        switch(store)
    await store.ping()
    assert store.faults == {}


def test_its_repr_shows_the_seed() -> None:
    assert repr(ChaosStore(MemoryStore(), seed=7)).endswith(", seed=7)")
    drawn = ChaosStore(MemoryStore())
    assert repr(drawn).endswith(f", seed={drawn.seed})")


async def test_without_a_checkpoint_nothing_is_rolled_back(store: ChaosStore) -> None:
    with pytest.raises(ConfigurationError, match="checkpoint"):
        await store.roll_back()


async def test_a_rollback_undoes_puts_and_deletes(store: ChaosStore, inner: Inner) -> None:
    before = {
        "a": await store.put("a", b"1"),
        "b": await store.put("b", b"2"),
        "c": await store.put("c", b"3"),
    }
    await store.checkpoint()
    for _ in range(2):
        await store.put("a", b"lost")
        await store.delete("b")
        await store.put("d", b"lost")
        store.refuse()
        await store.roll_back()
        store.heal()
        assert await inner.get_many(["a", "b", "c", "d"]) == {
            "a": Record(b"1", before["a"].version),
            "b": Record(b"2", before["b"].version),
            "c": Record(b"3", before["c"].version),
        }


async def test_a_rollback_undoes_what_was_written_together(store: ChaosStore, clock: ManualClock) -> None:
    write_id = new_version()
    writes = [Put("b", b"v", 10), Put("c", b"v")]
    await store.write_all(writes, write_id=write_id)
    clock.advance(5)
    await store.write_all(writes, write_id=write_id)  # changes nothing, and so prolongs nothing
    await store.checkpoint()
    await store.write_all([Put("b", b"lost"), Put("d", b"lost"), Delete("a"), Delete("c")])
    await store.roll_back()
    found = await store.get_many(["a", "b", "c", "d"])
    assert {key: record.value for key, record in found.items()} == {"a": b"old", "b": b"v", "c": b"v"}
    assert found["b"].version == found["c"].version == write_id
    clock.advance(5)
    assert sorted(await _scan(store)) == ["a", "c"]


async def test_a_store_in_front_of_one_that_is_not_atomic_is_not_either() -> None:
    class OneByOne(MemoryStore):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, atomic=False)

    async with ChaosStore(OneByOne(), seed=7) as store:
        assert store.capabilities.atomic is False
        with pytest.raises(ConfigurationError, match="all or none"):
            await store.write_all([Put("a", b"")])
        assert await _scan(store) == []


async def test_after_a_rollback_the_last_write_id_is_known(store: ChaosStore) -> None:
    write_id = new_version()
    await store.put("a", b"kept", write_id=write_id)
    await store.checkpoint()
    await store.put("a", b"lost")
    await store.roll_back()
    assert await store.put("a", b"kept", if_version=ABSENT, write_id=write_id) == Receipt(write_id)


async def test_a_record_that_was_not_written_since_keeps_all_its_write_ids(store: ChaosStore) -> None:
    write_id = new_version()
    await store.put("a", b"older", write_id=write_id)
    newest = await store.put("a", b"newest")
    await store.checkpoint()
    await store.roll_back()
    await store.put("a", b"older", write_id=write_id)
    assert await store.get("a") == Record(b"newest", newest.version)


async def test_a_rollback_restores_expiries(store: ChaosStore, clock: ManualClock) -> None:
    await store.put("put", b"v", expires_in=10)
    await store.put_many([Put("many", b"v", 10), Put("touched", b"v"), Put("renewed", b"v")])
    await store.put("kept", b"v", expires_in=10)
    await store.put("kept for ever", b"v")
    await store.touch("touched", expires_in=10)
    await store.get("renewed", renew_for=10)
    await store.checkpoint()
    clock.advance(4)
    for key in ("put", "many", "touched", "renewed"):
        await store.put(key, b"lost")
    await store.touch("kept", expires_in=60)
    await store.touch("kept for ever", expires_in=1)
    await store.roll_back()
    clock.advance(5.9)
    assert len(await store.get_many(["put", "many", "touched", "renewed", "kept"])) == 5
    clock.advance(0.2)
    assert await _scan(store) == ["a", "kept for ever"]
    await store.roll_back()
    assert sorted(await _scan(store)) == ["a", "kept for ever"]


async def test_a_repeated_write_does_not_prolong_its_record(store: ChaosStore, clock: ManualClock) -> None:
    write_id = new_version()
    await store.put("b", b"v", expires_in=10, write_id=write_id)
    await store.put("b", b"v", expires_in=10)
    clock.advance(5)
    await store.put("b", b"v", expires_in=10, write_id=write_id)
    await store.checkpoint()
    await store.delete("b")
    await store.roll_back()
    clock.advance(5)
    assert await store.get("b") is None


async def test_an_id_of_a_record_that_expired_is_new_again(store: ChaosStore, clock: ManualClock) -> None:
    write_id = new_version()
    for _ in range(2):
        await store.put("b", b"v", expires_in=10, write_id=write_id)
        clock.advance(10)
    await store.put("b", b"v", expires_in=10, write_id=write_id)
    await store.checkpoint()
    await store.delete("b")
    clock.advance(9)
    await store.roll_back()
    assert await store.get("b") == Record(b"v", write_id)


async def test_an_expiry_that_passed_by_is_lost_only_where_it_must_be(
    store: ChaosStore, inner: Inner, clock: ManualClock
) -> None:
    await inner.put("kept", b"v", expires_in=10)
    await inner.put("written", b"v", expires_in=10)
    await store.put("overwritten", b"v", expires_in=5)
    await inner.put("overwritten", b"v", expires_in=10)
    await inner.put("renewed", b"v")
    await store.touch("renewed", expires_in=10)
    await store.checkpoint()
    for key in ("written", "overwritten", "renewed"):
        await store.put(key, b"lost")
    await store.roll_back()
    clock.advance(10)
    assert sorted(await _scan(store)) == ["a", "overwritten", "written"]
