"""The transport to a cluster: every command to the node that serves its key, wherever that is now.

The rules are those of "Redis cluster specification" in Redis's documentation, under "Redirection and
resharding": ``MOVED`` teaches where a slot is from now on, ``ASK`` sends this one command elsewhere. A
command that was redirected was not run, so that sending it on is safe; nothing else is ever sent twice.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final, NamedTuple

from sessionkit.errors import Applied, Backpressure, StoreError, StoreUnavailable
from sessionkit_redis.errors import copy_for
from sessionkit_redis.slots import read_redirection, slot_of
from sessionkit_redis.topology import Topology
from sessionkit_redis.transport import ErrorReply, keys_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sessionkit_redis.addresses import Address
    from sessionkit_redis.options import RedisOptions
    from sessionkit_redis.slots import SlotMap
    from sessionkit_redis.transport import Command, Reply, Servers, Watched

_MAX_HOPS: Final = 16
_HOPS_AT_ONCE: Final = 3
_FIRST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 0.2

_ASKING: Final[Command] = ("ASKING",)
_STALE: Final = frozenset({"CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY"})
"""Refusals after which another node may serve the slot."""


class _Way(NamedTuple):
    """Where a command goes next, and whether its ASKING goes with it."""

    address: Address
    asking: bool = False


class Cluster:
    """A ``Transport`` to the nodes of a cluster.

    Args:
        seeds: Nodes to ask for the others.
        options: How to talk to every node.
        where: The store's URL without credentials, for errors.
    """

    def __init__(self, seeds: Sequence[Address], options: RedisOptions, where: str) -> None:
        self._topology = Topology(seeds, options, where)
        self._timeout = options.timeout
        self._where = where

    async def call(self, commands: Sequence[Command], deadline: float | None = None) -> list[Reply]:
        """See ``Transport.call``: one write for each node, in the order given."""
        if deadline is None:
            deadline = self.deadline()
        replies: list[Reply] = [None] * len(commands)
        slots = self._topology.slots or await self._topology.learn(deadline)
        ways = {at: self._way_of(command, slots) for at, command in enumerate(commands)}
        for hop in range(_MAX_HOPS):
            await self._send(commands, ways, replies, deadline)
            ways = self._ways_on(ways, replies)
            if not ways:
                return replies
            await self._pause(hop, deadline)
        error = StoreUnavailable(f"{self._where} sends a command from node to node: its slots are unsettled")
        raise _for_call(error, Applied.NO, replies)

    def deadline(self) -> float:
        """See ``Transport.deadline``."""
        return asyncio.get_running_loop().time() + self._timeout

    async def watch(self, key: str) -> Watched:
        """See ``Transport.watch``."""
        slots = self._topology.slots or await self._topology.learn(self.deadline())
        return await self._topology.node(self._way_of(("GET", key), slots).address).watch(key)

    async def servers(self) -> Servers:
        """See ``Transport.servers``."""
        return await self._topology.servers(self.deadline())

    async def aclose(self) -> None:
        """See ``Transport.aclose``."""
        await self._topology.aclose()

    def _way_of(self, command: Command, slots: SlotMap) -> _Way:
        keys = keys_of(command)
        if not keys:
            return _Way(random.choice(slots.primaries))
        owner = slots.owner(slot := slot_of(keys[0]))
        if owner is None:
            self._topology.ask_again()
            raise StoreUnavailable(f"{self._where} has no node that serves slot {slot}")
        return _Way(owner)

    async def _send(
        self, commands: Sequence[Command], ways: dict[int, _Way], replies: list[Reply], deadline: float
    ) -> None:
        """Send each command its way and fill in the replies.

        Raises:
            StoreError: A node could not be asked.
        """
        by_node: dict[Address, list[int]] = {}
        for at, way in ways.items():
            replies[at] = None
            by_node.setdefault(way.address, []).append(at)
        sendings = [
            self._send_to(address, [(at, commands[at], ways[at].asking) for at in places], replies, deadline)
            for address, places in by_node.items()
        ]
        # Alone it needs no task of its own.
        failed = [await sendings[0]] if len(sendings) == 1 else await asyncio.gather(*sendings)
        failures = [failure for failure in failed if failure is not None]
        if not failures:
            return
        if not all(isinstance(failure, Backpressure) for failure in failures):
            self._topology.ask_again()
        sent = any(failure.applied is not Applied.NO for failure in failures)
        applied = Applied.MAYBE if sent else Applied.NO
        raise _for_call(min(failures, key=lambda failure: failure.temporary), applied, replies)

    async def _send_to(
        self,
        address: Address,
        wanted: Iterable[tuple[int, Command, bool]],
        replies: list[Reply],
        deadline: float,
    ) -> StoreError | None:
        """Send one node its commands in one write and fill in its replies; return why it cannot be asked."""
        commands: list[Command] = []
        places: list[int | None] = []
        for at, command, asking in wanted:
            if asking:
                commands.append(_ASKING)
                places.append(None)
            commands.append(command)
            places.append(at)
        try:
            answers = await self._topology.node(address).call(commands, deadline)
        except StoreError as error:
            return error
        except asyncio.CancelledError:
            # Whoever gives up before the deadline would never learn that the node has been replaced.
            self._topology.ask_again()
            raise
        for place, answer in zip(places, answers, strict=True):
            if place is not None:
                replies[place] = answer
        return None

    def _ways_on(self, ways: dict[int, _Way], replies: list[Reply]) -> dict[int, _Way]:
        """Return the further way of each command that was redirected, or must be sent again."""
        further: dict[int, _Way] = {}
        for at, way in ways.items():
            reply = replies[at]
            if not isinstance(reply, ErrorReply):
                continue
            if reply.code == "TRYAGAIN":
                further[at] = way
            elif (to := read_redirection(reply, way.address)) is not None:
                further[at] = _Way(to.address, asking=not to.lasting)
                if to.lasting and self._topology.slots is not None:
                    self._topology.slots.move(to.slot, to.address)
                    self._topology.ask_again()
            elif reply.code in _STALE:
                self._topology.ask_again()
        return further

    async def _pause(self, hop: int, deadline: float) -> None:
        """Give nodes that send a command to one another the time to agree."""
        if hop < _HOPS_AT_ONCE:
            return
        pause = random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**hop))
        left = deadline - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, min(pause, left)))


def _for_call(error: StoreError, applied: Applied, replies: Sequence[Reply]) -> StoreError:
    """Return the error of a whole call, of which some commands may have been run all the same."""
    if any(reply is not None for reply in replies):
        applied = Applied.MAYBE
    return copy_for(error, applied)
