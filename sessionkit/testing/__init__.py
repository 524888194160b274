"""What users need to test their own bots and drivers."""

from sessionkit.testing.clock import ManualClock
from sessionkit.testing.conformance import SessionStoreConformance

__all__ = ["ManualClock", "SessionStoreConformance"]
