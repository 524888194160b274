"""The nodes of a cluster and the slots they serve, learned from the nodes themselves."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from typing import TYPE_CHECKING, Final

from sessionkit.errors import Applied, SessionKitError, StoreError, StoreTimeout, StoreUnavailable
from sessionkit_redis.dialling import DirectDial
from sessionkit_redis.errors import copy_for, from_reply, store_closed
from sessionkit_redis.multiplexer import Multiplexer
from sessionkit_redis.slots import SLOTS, Claim, SlotMap
from sessionkit_redis.transport import ErrorReply, Servers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionkit_redis.addresses import Address
    from sessionkit_redis.options import RedisOptions
    from sessionkit_redis.transport import Command, Reply

logger = logging.getLogger("sessionkit.redis")

_ASKED_AT_ONCE: Final = 3
_ASKING_SECONDS: Final = 1.0
"""What a node may take to tell of its cluster."""

_PAUSE: Final = (0.05, 0.15)
"""Seconds between two askings: all the bots of one cluster meet its changes at once."""


class Topology:
    """What is known of a cluster.

    Args:
        seeds: Nodes to ask at first, and whenever no other one answers.
        options: How to talk to every node.
        where: The store's URL without credentials, for errors.

    Attributes:
        slots: Which node serves which slot; None until that was learned.
    """

    def __init__(self, seeds: Sequence[Address], options: RedisOptions, where: str) -> None:
        self._seeds = seeds
        self._options = options
        self._where = where
        self._nodes: dict[Address, Multiplexer] = {}
        self._askings: dict[asyncio.AbstractEventLoop, asyncio.Task[SlotMap]] = {}
        self._asked_at = -math.inf
        self._closed = False
        self.slots: SlotMap | None = None

    def node(self, address: Address) -> Multiplexer:
        """Return the way to a node.

        Raises:
            StoreUnavailable: The store is closed.
        """
        node = self._nodes.get(address)
        if node is None:
            if self._closed:
                raise store_closed(self._where)
            where = f"{self._where} (node {address})"
            dial = DirectDial(address, self._options, where)
            node = self._nodes.setdefault(address, Multiplexer(dial, where, self._options.timeout))
        return node

    def ask_again(self) -> None:
        """Learn anew which node serves which slot, soon and without anybody waiting for it."""
        if not self._closed:
            self._asking()

    async def learn(self, deadline: float) -> SlotMap:
        """Learn anew which node serves which slot, and return that.

        Args:
            deadline: When the caller must be told, by the event loop's clock.

        Raises:
            StoreError: No node could be asked by then.
        """
        asking = self._asking()
        # It is everybody's: who gives up waiting for it must not end it.
        await asyncio.wait([asking], timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        if not asking.done():
            raise StoreTimeout(f"no node of {self._where} can be asked in time", applied=Applied.NO)
        if asking.cancelled():
            raise store_closed(self._where)
        error = asking.exception()
        if isinstance(error, StoreError):
            raise copy_for(error, Applied.NO)
        return asking.result()

    async def servers(self, deadline: float) -> Servers:
        """Return which nodes hold the records between them, by what each says of itself.

        Raises:
            StoreError: A node could not be asked, or a slot had none by the deadline.
        """
        unsettled: StoreError | None = None
        while True:
            try:
                slots = await self.learn(deadline)
                nodes = [self.node(address) for address in slots.primaries]
                claims = [Claim.read(await self._ask(node, ("CLUSTER", "NODES"), deadline)) for node in nodes]
            except StoreTimeout as late:
                # What was found before says more than that there was no time to look once more.
                raise unsettled or late from None
            if sum(claim.served for claim in claims) == SLOTS:
                owners = tuple((node.where, claim.slots) for node, claim in zip(nodes, claims, strict=True))
                return Servers(nodes, owners, any(claim.moving for claim in claims))
            unsettled = StoreUnavailable(
                f"{self._where} has slots that no node serves, or that two do: see CLUSTER INFO"
            )

    async def aclose(self) -> None:
        """Close every node's connections."""
        self._closed = True
        asking = self._askings.get(asyncio.get_running_loop())
        if asking is not None:
            asking.cancel()
            await asyncio.wait([asking])
        for node in list(self._nodes.values()):
            await node.aclose()

    def _asking(self) -> asyncio.Task[SlotMap]:
        """Return the one asking that is under way on this event loop."""
        loop = asyncio.get_running_loop()
        asking = self._askings.get(loop)
        if asking is None:
            asking = self._askings[loop] = loop.create_task(self._learn())
            asking.add_done_callback(self._asked)
        return asking

    def _asked(self, asking: asyncio.Task[SlotMap]) -> None:
        del self._askings[asking.get_loop()]
        if not asking.cancelled() and (error := asking.exception()) is not None:
            logger.info("cannot learn of the cluster's nodes: %s", str(error))

    async def _learn(self) -> SlotMap:
        await asyncio.sleep(max(0.0, self._asked_at + random.uniform(*_PAUSE) - time.monotonic()))
        self._asked_at = time.monotonic()
        candidates = list({*(() if self.slots is None else self.slots.primaries), *self._seeds})
        random.shuffle(candidates)
        failures: list[SessionKitError] = []
        for start in range(0, len(candidates), _ASKED_AT_ONCE):
            slots = await self._learn_from(candidates[start : start + _ASKED_AT_ONCE], failures)
            if slots is not None:
                self._take(slots)
                return slots
        # A refusal that lasts says more than that another one is away.
        raise min(failures, key=lambda failure: isinstance(failure, StoreError) and failure.temporary)

    async def _learn_from(
        self, addresses: Sequence[Address], failures: list[SessionKitError]
    ) -> SlotMap | None:
        """Return what the first of the nodes to answer says; add why others did not."""
        questions = [asyncio.ensure_future(self._slots_by(address)) for address in addresses]
        try:
            for answer in asyncio.as_completed(questions):
                try:
                    return await answer
                except SessionKitError as failure:
                    failures.append(failure)
        finally:
            for question in questions:
                question.cancel()
            await asyncio.wait(questions)
        return None

    async def _slots_by(self, address: Address) -> SlotMap:
        deadline = asyncio.get_running_loop().time() + min(_ASKING_SECONDS, self._options.timeout)
        slots = SlotMap.read(await self._ask(self.node(address), ("CLUSTER", "SLOTS"), deadline), address)
        if not slots.primaries:
            raise StoreUnavailable(f"the node {address} of {self._where} knows of no node that serves a slot")
        return slots

    async def _ask(self, node: Multiplexer, question: Command, deadline: float) -> Reply:
        [reply] = await node.call((question,), deadline)
        if isinstance(reply, ErrorReply):
            if "cluster support disabled" in reply.text:
                raise StoreUnavailable(
                    f"{node.where} is a server of no cluster: its URL is redis:// or rediss://",
                    temporary=False,
                )
            raise from_reply(reply, node.where)
        return reply

    def _take(self, slots: SlotMap) -> None:
        self.slots = slots
        asked = {*slots.primaries, *self._seeds}
        for address, node in list(self._nodes.items()):
            if address not in asked:
                node.retire()
