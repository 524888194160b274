"""A room that many may be in at once, or one alone."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from sessionkit.ptb.room import Room


@given(visitors=st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_who_is_alone_is_alone_and_everybody_gets_in(visitors: list[tuple[bool, int, int]]) -> None:
    async def visit() -> None:
        room = Room()
        inside: list[bool] = []
        seen = 0

        async def enter(alone: bool, before: int, within: int) -> None:
            nonlocal seen
            for _ in range(before):
                await asyncio.sleep(0)
            async with room.enter(alone_for=10 if alone else None):
                assert not any(inside)
                assert not (alone and inside)
                inside.append(alone)
                for _ in range(within):
                    await asyncio.sleep(0)
                inside.remove(alone)
                seen += 1

        async with asyncio.timeout(10):
            await asyncio.gather(*(enter(*visitor) for visitor in visitors))
        assert seen == len(visitors)

    asyncio.run(visit())


async def test_who_gives_up_waiting_to_be_alone_keeps_nobody_out() -> None:
    room = Room()
    async with room.enter():
        impatient = asyncio.create_task(room.enter(alone_for=10).__aenter__())
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait([impatient])
        async with asyncio.timeout(10), room.enter():
            pass


async def test_who_is_not_left_alone_is_inside_with_the_others() -> None:
    room = Room()
    # As one inside may wait for somebody who is kept out.
    async with asyncio.timeout(10), room.enter(), room.enter(alone_for=0.01), room.enter():
        pass


async def test_who_waited_is_let_in_before_who_comes_just_as_the_room_is_free() -> None:
    room, seen = Room(), list[int]()

    async def enter(number: int) -> None:
        async with room.enter():
            seen.append(number)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        async with room.enter(alone_for=10):
            for number in range(3):
                group.create_task(enter(number))
            await asyncio.sleep(0)
        for number in range(3, 6):
            group.create_task(enter(number))
            await asyncio.sleep(0)
    assert seen == [0, 1, 2, 3, 4, 5]


async def test_who_is_alone_for_too_long_keeps_nobody_out() -> None:
    room, entered = Room(), asyncio.Event()

    async def enter() -> None:
        async with room.enter(alone_for=0.01):
            entered.set()

    # As it may wait for somebody who is kept out; and the next one is to be alone for no longer.
    async with asyncio.timeout(10), room.enter(alone_for=0.01), room.enter():
        waiting = asyncio.create_task(enter())
        await entered.wait()
        await waiting


async def test_between_two_who_are_to_be_alone_everybody_gets_in() -> None:
    room, seen = Room(), list[str]()

    async def enter(name: str, alone_for: float | None) -> None:
        async with room.enter(alone_for=alone_for):
            seen.append(name)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group, room.enter(alone_for=10):
        for name, alone_for in (("alone", 10), ("alone too", 10), ("one", None), ("two", None)):
            group.create_task(enter(name, alone_for))
            await asyncio.sleep(0)
    assert seen == ["one", "two", "alone", "alone too"]
