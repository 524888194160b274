"""Every key of the servers, at least once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sessionkit_redis.server import Server
    from sessionkit_redis.transport import Node, Reply

_PAGE: Final = 500


async def scan_keys(server: Server, prefix: str) -> AsyncIterator[str]:
    """Yield each key that starts with ``prefix``, at least once if it is there throughout.

    A key that moves between the nodes of a cluster while they are asked in turn may be met on neither. So a
    pass during which slots changed hands is followed by another; and while a slot is on its way, by one more:
    its keys move in one direction only, so that the second pass meets on the new node what the first missed.

    Raises:
        StoreError: A server could not be asked.
    """
    pattern = "".join(f"\\{c}" if c in "*?[]\\^" else c for c in prefix) + "*"
    settled = None
    while True:
        before = await server.servers()
        for node in before.nodes:
            async for raw in _scan_node(server, node, pattern):
                if (key := _key_of_record(raw)) is not None:
                    yield key
        after = await server.servers()
        if after == before and (not after.moving or after == settled):
            return
        settled = after


async def _scan_node(server: Server, node: Node, pattern: str) -> AsyncIterator[Reply]:
    cursor = b"0"
    connections_made = 0
    while True:
        [reply] = await node.call([("SCAN", cursor, "MATCH", pattern, "COUNT", _PAGE)])
        if cursor != b"0" and node.connections_made != connections_made:
            # A cursor is worth something only to the process that gave it, and another one may have answered.
            cursor = b"0"
            continue
        connections_made = node.connections_made
        match server.accept(reply):
            case [bytes(cursor), list(found)]:
                for raw in found:
                    yield raw
            case _:
                raise server.unexpected()
        if cursor == b"0":
            return


def _key_of_record(raw: Reply) -> str | None:
    """Return the key, or None for a driver's own key and for one that no sessionkit made."""
    try:
        key = raw.decode() if isinstance(raw, bytes) else ""
    except UnicodeDecodeError:
        return None
    return None if "#" in key else key or None
