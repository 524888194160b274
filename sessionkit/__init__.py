"""Session storage for Python bots that does not forget.

Open a store with ``open_store``, keep validation sessions in it with ``SessionService``, and
python-telegram-bot's own data with ``sessionkit.ptb``.
"""

from sessionkit.codec import Codec, MsgpackCodec
from sessionkit.errors import (
    Applied,
    Backpressure,
    BatchFailed,
    BatchRefused,
    CircuitOpen,
    CodecError,
    CommitPending,
    ConfigurationError,
    CorruptRecord,
    DecryptionError,
    InvalidExpiry,
    InvalidKey,
    JournalFull,
    LeaseLost,
    LockNotAcquired,
    NestedEdit,
    RecordTooLarge,
    SessionExists,
    SessionExpired,
    SessionKitError,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
    UnsupportedType,
    UpdateSetAside,
    VersionConflict,
)
from sessionkit.keys import KeySpace
from sessionkit.registry import open_driver, open_store
from sessionkit.resilience import ResilientStore
from sessionkit.service import Session, SessionService
from sessionkit.settings import Settings
from sessionkit.store import ABSENT, Put, Receipt, Record, SessionStore, StoreURL, Version, Where

__all__ = [
    "ABSENT",
    "Applied",
    "Backpressure",
    "BatchFailed",
    "BatchRefused",
    "CircuitOpen",
    "Codec",
    "CodecError",
    "CommitPending",
    "ConfigurationError",
    "CorruptRecord",
    "DecryptionError",
    "InvalidExpiry",
    "InvalidKey",
    "JournalFull",
    "KeySpace",
    "LeaseLost",
    "LockNotAcquired",
    "MsgpackCodec",
    "NestedEdit",
    "Put",
    "Receipt",
    "Record",
    "RecordTooLarge",
    "ResilientStore",
    "Session",
    "SessionExists",
    "SessionExpired",
    "SessionKitError",
    "SessionService",
    "SessionStore",
    "Settings",
    "StoreError",
    "StoreTimeout",
    "StoreURL",
    "StoreUnavailable",
    "UnsupportedType",
    "UpdateSetAside",
    "Version",
    "VersionConflict",
    "Where",
    "open_driver",
    "open_store",
]
