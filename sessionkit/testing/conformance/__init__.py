"""One suite that every ``SessionStore`` passes.

Subclass ``SessionStoreConformance`` in a test module, say how to open the store, and pytest does the rest::

    class TestMyStore(SessionStoreConformance):
        def open_store(self) -> SessionStore:
            return MyStore("...")

Tests select themselves by ``store.capabilities``; what a store does not declare is checked to be absent.
"""

from sessionkit.testing.conformance.atomic import AtomicTests
from sessionkit.testing.conformance.base import StoreTests
from sessionkit.testing.conformance.batches import BatchTests
from sessionkit.testing.conformance.concurrency import ConcurrencyTests
from sessionkit.testing.conformance.expiry import ExpiryTests
from sessionkit.testing.conformance.lifecycle import LifecycleTests
from sessionkit.testing.conformance.locks import LockTests
from sessionkit.testing.conformance.model import ModelTests
from sessionkit.testing.conformance.recoding import RecodingTests
from sessionkit.testing.conformance.records import RecordTests
from sessionkit.testing.conformance.scans import ScanTests
from sessionkit.testing.conformance.timing import TimingTests
from sessionkit.testing.conformance.versions import VersionTests

__all__ = [
    "AtomicTests",
    "BatchTests",
    "ConcurrencyTests",
    "ExpiryTests",
    "LifecycleTests",
    "LockTests",
    "ModelTests",
    "RecodingTests",
    "RecordTests",
    "ScanTests",
    "SessionStoreConformance",
    "StoreTests",
    "TimingTests",
    "VersionTests",
]


class SessionStoreConformance(
    RecordTests,
    VersionTests,
    ExpiryTests,
    BatchTests,
    ScanTests,
    LockTests,
    ConcurrencyTests,
    LifecycleTests,
    ModelTests,
    RecodingTests,
    TimingTests,
    AtomicTests,
):
    """Every test of the kit; see ``StoreTests`` for what a subclass provides."""
