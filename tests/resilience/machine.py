"""Three instances, one primary, bad luck: a state machine for Hypothesis."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, TypeVarTuple

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sessionkit.errors import StoreUnavailable
from sessionkit.testing.chaos import ChaosStore
from sessionkit.testing.virtual_time import VirtualTimeLoop, virtual_clock
from tests.resilience.actors import Actor
from tests.resilience.asks import KEYS, Ask, asks, faults, keys, meanwhiles, names
from tests.resilience.history import History
from tests.resilience.laws import Laws
from tests.resilience.recording import RecordingStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
_PATIENCE = 3600.0
"""Virtual seconds within which everybody must be at rest once nothing fails any more."""


def merge(_base: bytes | None, mine: bytes | None, theirs: bytes | None) -> bytes | None:
    """Note on theirs what mine was; a deletion takes what is short along."""
    if mine is None:
        return None if theirs is None or len(theirs) < 100 else theirs
    return mine if theirs is None else theirs + b"+" + mine[:10]


class Loop(VirtualTimeLoop):
    """Runs what is for other threads by itself, as threads come back in no certain order."""

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class Machine(RuleBasedStateMachine):
    """See the module; ``totals`` counts what happened in all runs."""

    totals: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.history = History()
        self.directory = tempfile.TemporaryDirectory()
        self.actors: dict[str, Actor] = {}
        self.sound = True
        self.counts: Counter[str] = Counter()

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.counts["steps"] += 1
        self.sound = False  # until it is over
        self.loop.run_until_complete(coroutine)
        self.judge()
        self.sound = True

    def judge(self) -> None:
        for actor in self.actors.values():
            actor.judge_itself()
        if self.laws.broken:
            note("\n".join(self.history.story))
            raise AssertionError("\n".join(self.laws.broken))

    @initialize(
        policy=st.sampled_from(["primary_wins", "primary_wins", "local_wins", "merge"]),
        seed=st.integers(0, 999),
    )
    def start(self, policy: str, seed: int) -> None:
        self.laws = Laws(self.history, () if policy == "primary_wins" else {"small"})

        async def start() -> None:
            self.primary = ChaosStore(RecordingStore(self.laws.tell), seed=seed, clock=virtual_clock)
            await self.checkpoint_now()
            for name, options in {
                "small": {"max_bytes": 1000, "on_conflict": merge if policy == "merge" else policy},
                "raising": {"outage": "raise"},
                "durable": {"lock_path": Path(self.directory.name) / "journal.lock"},
            }.items():
                self.actors[name] = Actor(name, self.primary, seed, self.history, self.laws, **options)  # type: ignore[arg-type]

        self.run(start())

    async def checkpoint_now(self) -> None:
        self.history.checkpoint()
        await self.primary.checkpoint()

    @rule(name=names, ask=asks, meanwhile=meanwhiles)
    def ask(self, name: str, ask: Ask, meanwhile: tuple[float, str] | None) -> None:
        self.run(self._ask(name, ask, meanwhile))

    @rule(name=names, ask=asks)
    def ask_plainly(self, name: str, ask: Ask) -> None:
        self.run(self._ask(name, ask, None))

    @rule(
        name=names,
        before=asks,
        fault=faults,
        mine=st.lists(asks, min_size=1, max_size=4),
        others=st.lists(st.tuples(names, asks), max_size=2),
        seconds=st.sampled_from([0.05, 1.0, 5.0, 50.0]),
        end=st.sampled_from(["heal", "drop", "kill", "stay"]),
    )
    def outage(
        self,
        name: str,
        before: Ask,
        fault: str,
        mine: list[Ask],
        others: list[tuple[str, Ask]],
        seconds: float,
        end: str,
    ) -> None:
        async def outage() -> None:
            actor = self.actors[name]
            await self._ask(name, before, None)
            self._switch(actor, fault)
            for ask in mine:
                await self._ask(name, ask, None)
            for other, ask in others:
                await self._ask(other, ask, None)
            await asyncio.sleep(seconds)
            if end == "kill" and actor.durable:
                await actor.kill()
            if end != "stay":
                actor.link.heal(drop=end == "drop")

        self.run(outage())

    async def _ask(self, name: str, ask: Ask, meanwhile: tuple[float, str] | None) -> None:
        actor = self.actors[name]
        task = asyncio.create_task(actor.perform(ask))
        if meanwhile is not None:
            delay, action = meanwhile
            await asyncio.wait([task], timeout=delay)
            match action:
                case "heal" | "drop":
                    actor.link.heal(drop=action == "drop")
                case "cancel":
                    task.cancel()
                case "kill":
                    if actor.durable:
                        task.cancel()
                        await actor.kill()
                case fault:
                    self._switch(actor, fault)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    @rule(name=names, other=names, key=keys, first=asks, second=asks, gap=st.sampled_from([0, 0.001, 0.5]))
    def together(self, name: str, other: str, key: str, first: Ask, second: Ask, gap: float) -> None:
        async def together() -> None:
            one, two = (ask if ask.kind == "scan" else ask._replace(keys=(key,)) for ask in (first, second))
            task = asyncio.create_task(self._ask(name, one, None))
            await asyncio.sleep(gap)
            await self._ask(other, two, None)
            await task

        self.run(together())

    @rule(names=st.sets(names, min_size=1), fault=faults)
    def break_links(self, names: set[str], fault: str) -> None:
        async def switch() -> None:
            for name in sorted(names):
                self._switch(self.actors[name], fault)

        self.run(switch())

    def _switch(self, actor: Actor, fault: str) -> None:
        match fault:
            case "latency":
                actor.link.latency(0.3, 3.0)
            case "fail_randomly":
                actor.link.fail_randomly(0.4)
            case "lose_one":
                actor.link.lose_replies(1)
            case _:
                getattr(actor.link, fault)()

    @rule(name=names, key=keys)
    def poison(self, name: str, key: str) -> None:
        async def poison() -> None:
            self.actors[name].link.fail_key(key, StoreUnavailable("poison", temporary=False))

        self.run(poison())

    @rule(names=st.sets(names, min_size=1), drop=st.booleans())
    def heal(self, names: set[str], drop: bool) -> None:
        async def heal() -> None:
            for name in sorted(names):
                self.actors[name].link.heal(drop=drop)

        self.run(heal())

    @rule(seconds=st.sampled_from([0.05, 1.0, 1.0, 5.0, 30.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule(
        what=st.sampled_from(["kill", "reopen", "reopen", "checkpoint", "fail_over", "rest", "rest"]),
        name=names,
        drop=st.booleans(),
    )
    def rarely(self, what: str, name: str, drop: bool) -> None:
        match what:
            case "kill":
                self.run(self.actors["durable"].kill())
            case "reopen":
                self.run(self.actors[name].reopen())
            case "checkpoint":
                self.run(self.checkpoint_now())
            case "fail_over":
                self.run(self._fail_over())
            case _:
                self.run(self._come_to_rest(drop=drop))

    async def _fail_over(self) -> None:
        self.counts["rollbacks"] += 1
        self.history.roll_back()
        self.history.tell("failover", virtual_clock())
        await self.primary.roll_back()

    async def _come_to_rest(self, *, drop: bool = False) -> None:
        """Let nothing fail any more; then everything acknowledged must come to an end."""
        for actor in self.actors.values():
            actor.link.heal(drop=drop)
        await asyncio.sleep(0.01)
        for actor in self.actors.values():
            try:
                async with asyncio.timeout(_PATIENCE):
                    while not actor.at_rest():
                        await actor.perform(Ask("get", ("a",)))  # a new process begins with its first call
                        await asyncio.sleep(0.5)
            except TimeoutError:
                self.laws.breach(8, f"{actor.name} never came to rest: {actor.store!r}")
                return
        for actor in self.actors.values():
            await actor.perform(Ask("get_many", KEYS))
            for key in KEYS:
                await actor.perform(Ask("get", (key,)))
                record, there = await actor.store.get(key), await self.primary.get(key)
                if record != there:
                    self.laws.breach(8, f"{actor.name} reads {record}, and the primary holds {there}")
            self.laws.judge_ends(actor.name, virtual_clock())
        self.counts["rests"] += 1

    def teardown(self) -> None:
        try:
            if self.sound and self.actors:
                self.run(self._come_to_rest())
                self.run(self._close())
        finally:
            self.loop.run_until_complete(self._abandon())
            self.loop.close()
            self.directory.cleanup()
            for actor in self.actors.values():
                self.counts.update(actor.counts)
                self.counts.update({f"fault: {fault}": times for fault, times in actor.link.faults.items()})
            self.counts.update(self.laws.exempt if self.actors else ())
            self.counts["examples"] += 1
            self.counts["virtual seconds"] += int(self.loop.time())
            type(self).totals.update(self.counts)

    async def _close(self) -> None:
        for actor in self.actors.values():
            await actor.reopen()
            await actor.store.aclose()

    async def _abandon(self) -> None:
        for actor in self.actors.values():
            await actor.link.aclose()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
