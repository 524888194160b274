"""A store that goes on while its backend does not: retries, a circuit breaker, a journal and its replay.

``store`` is the wrapper and ``recovery`` its states. ``journal`` holds what was acknowledged meanwhile and
``copies`` what was last seen; ``local`` answers from both. ``replaying`` writes the journal back, and
``conflicts`` says what wins where others wrote, too.
"""

from sessionkit.resilience.conflicts import KeyedMerge, Merge, Merged, Policy, merge_dicts, merge_three
from sessionkit.resilience.copies import LastKnown
from sessionkit.resilience.entries import Entry, Kind
from sessionkit.resilience.file import StoreFile
from sessionkit.resilience.journal import Journal, JournalFile
from sessionkit.resilience.recovery import CircuitBreaker, Counts
from sessionkit.resilience.retrying import RetryBudget, RetryPolicy
from sessionkit.resilience.states import ConflictFound, Event, Quarantined, State, StateChanged
from sessionkit.resilience.store import ResilientStore

__all__ = [
    "CircuitBreaker",
    "ConflictFound",
    "Counts",
    "Entry",
    "Event",
    "Journal",
    "JournalFile",
    "KeyedMerge",
    "Kind",
    "LastKnown",
    "Merge",
    "Merged",
    "Policy",
    "Quarantined",
    "ResilientStore",
    "RetryBudget",
    "RetryPolicy",
    "State",
    "StateChanged",
    "StoreFile",
    "merge_dicts",
    "merge_three",
]
