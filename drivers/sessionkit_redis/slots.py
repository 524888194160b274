"""Which node of a cluster serves which key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from sessionkit_redis.addresses import MAX_PORT, Address, read_number

if TYPE_CHECKING:
    from sessionkit_redis.transport import ErrorReply, Reply

SLOTS: Final = REDIS_CLUSTER_HASH_SLOTS


def slot_of(key: bytes | str) -> int:
    """Return the slot of a key."""
    return key_slot(key.encode() if isinstance(key, str) else key)


class SlotMap:
    """The node that serves each slot, as far as is known.

    Args:
        owners: For each of the ``SLOTS`` slots its primary's address, or None.
    """

    def __init__(self, owners: list[Address | None]) -> None:
        self._owners = owners

    @classmethod
    def read(cls, reply: Reply, asked: Address) -> SlotMap:
        """Read a reply to ``CLUSTER SLOTS``.

        Args:
            reply: The reply; what is not of its form is left out.
            asked: Whose reply it is: a node that does not know its own host name leaves it empty.
        """
        owners: list[Address | None] = [None] * SLOTS
        for part in reply if isinstance(reply, list) else ():
            match part:
                case [int(first), int(last), primary, *_] if 0 <= first <= last < SLOTS:
                    owners[first : last + 1] = [_address(primary, asked)] * (last + 1 - first)
                case _:
                    pass
        return cls(owners)

    @property
    def primaries(self) -> list[Address]:
        """The nodes that serve slots, in a settled order."""
        return sorted({owner for owner in self._owners if owner is not None})

    def owner(self, slot: int) -> Address | None:
        """Return the node that serves the slot, or None if none is known to."""
        return self._owners[slot]

    def move(self, slot: int, owner: Address) -> None:
        """Take note of the slot's new node."""
        self._owners[slot] = owner


class Redirection(NamedTuple):
    """A node's word that another one takes the command.

    Attributes:
        slot: The slot it is about.
        address: The other node.
        lasting: Whether the slot has moved, and not only this key of it.
    """

    slot: int
    address: Address
    lasting: bool


def read_redirection(reply: ErrorReply, asked: Address) -> Redirection | None:
    """Return what a ``MOVED`` or ``ASK`` says, or None if the reply is something else.

    Args:
        reply: A refusal.
        asked: Whose it is.
    """
    match reply.text.split():
        case ["MOVED" | "ASK" as code, number, place]:
            host, _, digits = place.rpartition(":")
            slot, port = read_number(number, SLOTS - 1), read_number(digits, MAX_PORT)
            if slot is not None and port is not None:
                return Redirection(slot, Address(host or asked.host, port), code == "MOVED")
        case _:
            pass
    return None


class Claim(NamedTuple):
    """What a node says of itself.

    Attributes:
        slots: The ranges it serves, such as ``0-5460``.
        moving: Whether any of its slots is on its way to or from another node.
    """

    slots: tuple[str, ...] = ()
    moving: bool = False

    @classmethod
    def read(cls, reply: Reply) -> Claim:
        """Read a reply to ``CLUSTER NODES``."""
        text = reply.decode(errors="replace") if isinstance(reply, bytes) else ""
        for line in text.splitlines():
            match line.split():
                case [_, _, flags, _, _, _, _, _, *words] if "myself" in flags.split(","):
                    slots = tuple(word for word in words if not word.startswith("["))
                    return cls(slots, len(slots) < len(words))
                case _:
                    pass
        return cls()

    @property
    def served(self) -> int:
        """How many slots it serves."""
        total = 0
        for part in self.slots:
            start, _, end = part.partition("-")
            first, last = read_number(start, SLOTS - 1), read_number(end or start, SLOTS - 1)
            if first is not None and last is not None:
                total += last - first + 1
        return total


def _address(node: Reply, asked: Address) -> Address | None:
    match node:
        case [bytes(b"?"), *_]:
            return None  # it is to be reached by a name that it was not given
        case [bytes(host), int(port), *_] if host.isascii():
            return Address(host.decode() or asked.host, port)
        case [None, int(port), *_]:
            return Address(asked.host, port)
        case _:
            return None
