"""The contract between everything above a store and every store below.

``contract`` is the protocol, ``records`` its data, ``checks`` the argument checks and ``locks`` the lock that
each driver shares, ``url`` the parsed store URL. A driver imports this package and ``sessionkit.errors`` and
nothing else of sessionkit.
"""

from sessionkit.store.checks import (
    MAX_EXPIRY_SECONDS,
    MAX_KEY_BYTES,
    check_key,
    check_keys,
    check_put,
    check_version,
    milliseconds,
)
from sessionkit.store.contract import SessionStore
from sessionkit.store.locks import Lease, LeaseKeeper, Locks
from sessionkit.store.records import (
    ABSENT,
    MAX_VALUE_BYTES,
    RING_SIZE,
    VERSION_BYTES,
    Absent,
    Capabilities,
    Clock,
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
    "Capabilities",
    "Clock",
    "Lease",
    "LeaseKeeper",
    "Locks",
    "Put",
    "Receipt",
    "Record",
    "Scope",
    "SessionStore",
    "StoreURL",
    "Version",
    "Where",
    "check_key",
    "check_keys",
    "check_put",
    "check_version",
    "milliseconds",
    "new_version",
]
