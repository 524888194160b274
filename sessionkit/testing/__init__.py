"""What users need to test their own bots and drivers.

``sessionkit.testing.botapi`` is a Bot API server with scripted users, ``sessionkit.testing.servers`` runs
real Redis servers; the names below are imported when they are first asked for, as the kit needs pytest.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessionkit.testing.clock import ManualClock
    from sessionkit.testing.conformance import SessionStoreConformance

__all__ = ["ManualClock", "SessionStoreConformance"]

_HOMES = {
    "ManualClock": "sessionkit.testing.clock",
    "SessionStoreConformance": "sessionkit.testing.conformance",
}


def __getattr__(name: str) -> object:
    if name == "SessionStoreConformance":
        import pytest

        pytest.register_assert_rewrite("sessionkit.testing.conformance")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
