"""What users need to test their own bots and drivers.

``sessionkit.testing.botapi`` is a Bot API server with scripted users, ``sessionkit.testing.servers`` runs
real Redis servers, ``sessionkit.testing.strategies`` draws values with Hypothesis. The names below are
imported when they are first asked for, as the kit needs pytest.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from sessionkit.extras import needing

if TYPE_CHECKING:
    from sessionkit.testing.clock import ManualClock
    from sessionkit.testing.conformance import SessionStoreConformance
    from sessionkit.testing.equality import exactly_equal
    from sessionkit.testing.virtual_time import VirtualTimeLoop, run_in_virtual_time, virtual_clock

__all__ = [
    "ManualClock",
    "SessionStoreConformance",
    "VirtualTimeLoop",
    "exactly_equal",
    "run_in_virtual_time",
    "virtual_clock",
]

_KIT = "sessionkit.testing.conformance"
_VIRTUAL_TIME = "sessionkit.testing.virtual_time"
_HOMES = {
    "ManualClock": "sessionkit.testing.clock",
    "SessionStoreConformance": _KIT,
    "VirtualTimeLoop": _VIRTUAL_TIME,
    "exactly_equal": "sessionkit.testing.equality",
    "run_in_virtual_time": _VIRTUAL_TIME,
    "virtual_clock": _VIRTUAL_TIME,
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        if _HOMES[name] == _KIT and _KIT not in sys.modules:
            with needing("testing"):
                import pytest

            # Before it is imported: a failing test of the kit then shows the values it compared.
            pytest.register_assert_rewrite(_KIT)
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
