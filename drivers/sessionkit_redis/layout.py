"""How a record stands in a Redis string.

::

    byte 0        layout, 1
    byte 1        n, how many write ids follow: 1 to 4
    n x 8 bytes   write ids, the newest first; the newest is the record's version
    the rest      the value

The ids stand beside the value because a retried write must be recognised without state elsewhere on the
server. The Lua scripts build the same layout.
"""

from __future__ import annotations

from typing import Final

from sessionkit.store import RING_SIZE, VERSION_BYTES, Record, Version

LAYOUT: Final = 1
IDS_START: Final = 2
_VALUE_STARTS: Final = {
    bytes((LAYOUT, count)): IDS_START + count * VERSION_BYTES for count in range(1, RING_SIZE + 1)
}
HEADER_MAX: Final = IDS_START + RING_SIZE * VERSION_BYTES


def read_record(stored: bytes) -> Record | None:
    """Return the record in a stored string, or None if it is not of this layout."""
    value_start = _VALUE_STARTS.get(stored[:IDS_START])
    if value_start is None or len(stored) < value_start:
        return None
    return Record(stored[value_start:], Version(stored[IDS_START : IDS_START + VERSION_BYTES]))
