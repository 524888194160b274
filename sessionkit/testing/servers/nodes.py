"""What a cluster's node knows: the lines of ``CLUSTER NODES``."""

from __future__ import annotations

from typing import Final, NamedTuple

SLOTS: Final = 16_384
"""How many slots a cluster has."""


class Node(NamedTuple):
    """A node, as one node sees it.

    Attributes:
        node_id: Its id.
        port: Where it listens.
        flags: Such as ``master``, ``slave``, ``myself``, ``fail``.
        primary_id: The id of the one it replicates, or ``-``.
        epoch: Of two that claim a slot, the one with the higher epoch has it.
        connected: Whether there is a link to it.
        slots: What it serves.
    """

    node_id: str
    port: int
    flags: frozenset[str]
    primary_id: str
    epoch: int
    connected: bool
    slots: tuple[range, ...]

    def serves(self, slot: int) -> bool:
        """Return whether a slot is among its slots."""
        return any(slot in slots for slots in self.slots)


def read_nodes(text: bytes) -> list[Node]:
    """Return what ``CLUSTER NODES`` replied."""
    return [_read_node(line) for line in text.decode().splitlines()]


def _read_node(line: str) -> Node:
    node_id, address, flags, primary_id, _, _, epoch, link, *slots = line.split(" ")
    return Node(
        node_id,
        port=int(address.partition("@")[0].rpartition(":")[2]),
        flags=frozenset(flags.split(",")),
        primary_id=primary_id,
        epoch=int(epoch),
        connected=link == "connected",
        # What starts with a bracket is on its way from or to another node.
        slots=tuple(_read_slots(text) for text in slots if not text.startswith("[")),
    )


def _read_slots(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)
