"""The contract between everything above a store and every store below.

``contract`` is the protocol and ``records`` its data; ``checks``, ``batches`` and ``locks`` are what drivers
share; ``reading`` reads all records, ``url`` is the parsed store URL. A driver imports this package and
``sessionkit.errors`` and nothing else of sessionkit.
"""

from sessionkit.store.batches import cut_puts, delete_in_pages, put_in_pages, receipts_of
from sessionkit.store.checks import (
    MAX_EXPIRY_SECONDS,
    MAX_KEY_BYTES,
    check_expiry,
    check_key,
    check_keys,
    check_keys_in_turns,
    check_prefix,
    check_put,
    check_puts,
    check_puts_in_turns,
    check_recode,
    check_version,
    check_write,
    check_writes,
    milliseconds,
)
from sessionkit.store.contract import (
    AtomicStore,
    FileStore,
    PlacedStore,
    RecodingStore,
    SessionStore,
    TimedStore,
)
from sessionkit.store.leases import LocalLeases
from sessionkit.store.locks import Lease, LeaseKeeper, Locks, look_again_soon
from sessionkit.store.reading import read_all, read_many
from sessionkit.store.records import (
    ABSENT,
    MAX_VALUE_BYTES,
    RING_SIZE,
    VERSION_BYTES,
    Absent,
    Capabilities,
    Clock,
    Delete,
    Put,
    Receipt,
    Record,
    Scope,
    Version,
    Where,
    new_version,
)
from sessionkit.store.url import StoreURL

__all__ = [
    "ABSENT",
    "MAX_EXPIRY_SECONDS",
    "MAX_KEY_BYTES",
    "MAX_VALUE_BYTES",
    "RING_SIZE",
    "VERSION_BYTES",
    "Absent",
    "AtomicStore",
    "Capabilities",
    "Clock",
    "Delete",
    "FileStore",
    "Lease",
    "LeaseKeeper",
    "LocalLeases",
    "Locks",
    "PlacedStore",
    "Put",
    "Receipt",
    "RecodingStore",
    "Record",
    "Scope",
    "SessionStore",
    "StoreURL",
    "TimedStore",
    "Version",
    "Where",
    "check_expiry",
    "check_key",
    "check_keys",
    "check_keys_in_turns",
    "check_prefix",
    "check_put",
    "check_puts",
    "check_puts_in_turns",
    "check_recode",
    "check_version",
    "check_write",
    "check_writes",
    "cut_puts",
    "delete_in_pages",
    "look_again_soon",
    "milliseconds",
    "new_version",
    "put_in_pages",
    "read_all",
    "read_many",
    "receipts_of",
]
