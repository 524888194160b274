"""The loop whose time passes only when nothing else can run."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from sessionkit.testing import VirtualTimeLoop, run_in_virtual_time, virtual_clock
from sessionkit.testing.clock import START
from sessionkit_memory import MemoryStore

DAY = 86_400.0


def test_sleeps_end_in_order_and_take_no_real_time() -> None:
    async def main() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        woken: list[tuple[str, float]] = []

        async def sleeper(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append((name, loop.time()))

        async with asyncio.TaskGroup() as group:
            for name, seconds in (("month", 30 * DAY), ("instant", 0.0), ("late", 2.5), ("early", 1.25)):
                group.create_task(sleeper(name, seconds))
            group.create_task(sleeper("late too", 2.5))
        return woken

    assert run_in_virtual_time(main()) == [
        ("instant", 0.0),
        ("early", 1.25),
        ("late", 2.5),
        ("late too", 2.5),
        ("month", 30 * DAY),
    ]


def test_time_stands_still_while_anything_can_run() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        timer = loop.create_task(asyncio.sleep(1e-6))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert (timer.done(), loop.time()) == (False, 0.0)
        await timer
        assert loop.time() == 1e-6

    run_in_virtual_time(main())


def test_timeouts_are_exact() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            await asyncio.sleep(9.875)
        started = loop.time()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 10)
        assert loop.time() - started == 10

    run_in_virtual_time(main())


@pytest.mark.parametrize("years", [1, 50])
def test_timers_come_due_after_years(years: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(years * 365 * DAY)
        assert loop.time() == pytest.approx(years * 365 * DAY, abs=1e-3)
        before = loop.time()
        for _ in range(100):
            await asyncio.sleep(1e-9)
        assert 0 < loop.time() - before < 1e-3

    run_in_virtual_time(main())


def test_records_expire_by_the_virtual_clock() -> None:
    async def main() -> None:
        async with MemoryStore(clock=virtual_clock) as store:
            assert virtual_clock() == START
            await store.put("a", b"v", expires_in=300)
            await asyncio.sleep(299)
            assert await store.get("a") is not None
            await asyncio.sleep(2)
            assert await store.get("a") is None
            assert virtual_clock() == START + 301

    run_in_virtual_time(main())


async def test_there_is_no_virtual_clock_elsewhere() -> None:
    with pytest.raises(RuntimeError, match="run_in_virtual_time"):
        virtual_clock()


def test_what_waits_for_ever_is_named() -> None:
    async def forgotten() -> None:
        await asyncio.Event().wait()

    with (
        asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(patience=0)) as runner,
        pytest.raises(RuntimeError, match=r"forgotten.* wait for ever"),
    ):
        runner.run(forgotten())


def test_after_a_deadlock_the_tasks_are_cancelled() -> None:
    cleaned: list[float] = []

    async def waiting() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(5)
            cleaned.append(asyncio.get_running_loop().time())

    with pytest.raises(RuntimeError, match="waiting"):
        run_in_virtual_time(waiting())
    assert cleaned == [5]


@pytest.mark.parametrize("timer", [False, True], ids=["no timer", "a timer"])
def test_time_stands_still_while_an_executor_works(timer: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        go_on, sleep = threading.Event(), loop.create_task(asyncio.sleep(DAY if timer else 0))
        threading.Timer(0.05, go_on.set).start()
        assert await asyncio.to_thread(go_on.wait, 60)
        assert loop.time() == 0
        await sleep

    run_in_virtual_time(main())


def test_a_call_from_another_thread_wakes_the_loop() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[str] = loop.create_future()
        thread = threading.Timer(0.05, loop.call_soon_threadsafe, [woken.set_result, "from afar"])
        thread.start()
        try:
            return await woken
        finally:
            thread.join()

    assert run_in_virtual_time(main()) == "from afar"


def test_a_ready_socket_comes_before_any_timer() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.sendall(b"hello")
            async with asyncio.timeout(1e-9):
                assert await loop.sock_recv(ours, 100) == b"hello"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(DAY):
                    await loop.sock_recv(ours, 100)
            assert loop.time() == DAY

    run_in_virtual_time(main())


def test_closing_waits_for_the_threads_of_the_executor() -> None:
    finished = threading.Event()

    async def main() -> None:
        started = threading.Event()

        def work() -> None:
            started.set()
            time.sleep(0.05)
            finished.set()

        working = asyncio.get_running_loop().run_in_executor(None, work)
        started.wait()
        working.cancel()

    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(patience=0)) as runner:
        runner.run(main())
    assert finished.is_set()


def test_a_loop_runs_again_where_it_stopped() -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        for expected in (1.5, 3.0):
            runner.run(asyncio.sleep(1.5))
            assert runner.get_loop().time() == expected
