"""The invariants of a degraded store hold, whatever happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from sessionkit.resilience import State
from tests.resilience.machine import Machine

if TYPE_CHECKING:
    import pytest

_REACHED: Final = (
    *(state.value for state in State),
    "conflict: primary",
    "replayed",
    "kills",
    "rollbacks",
    "JournalFull",
    "CircuitOpen",
    "VersionConflict",
    "BatchRefused",
    "write_all journaled",
    "read stale",
    "retries refused",
    "fault: refuse",
    "fault: lose_requests",
    "fault: lose_replies",
    "fault: hang",
    "fault: latency",
    "fault: fail_key",
)
"""What a run must have met, so that it proves something."""


def test_the_invariants_hold(request: pytest.FixtureRequest) -> None:
    heavy = bool(request.config.getoption("heavy"))
    Machine.totals.clear()
    profile = settings(max_examples=3_000 if heavy else 100, stateful_step_count=100 if heavy else 50)
    run_state_machine_as_test(Machine, settings=profile)
    print(dict(sorted(Machine.totals.items())))  # noqa: T201 - for whoever runs it with -s
    assert Machine.totals["steps"] > 4_000
    assert [name for name in _REACHED if not Machine.totals[name]] == []
