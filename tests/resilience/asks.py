"""What clients ask for, and what goes wrong: drawn by Hypothesis."""

from __future__ import annotations

from typing import Final, NamedTuple

from hypothesis import strategies as st

KEYS = ("a", "b", "c")


class Ask(NamedTuple):
    """What a client asks for: an operation, on keys, with what it needs.

    Attributes:
        condition: "any"; "seen": the version the client had in its hands last; "absent".
        deletes: How many of the keys, the last ones, are deleted by a ``write_all``.
    """

    kind: str
    keys: tuple[str, ...]
    size: int = 0
    expires_in: float | None = None
    condition: str = "any"
    deletes: int = 0


_sizes = st.sampled_from([0, 50, 200])
_lives = st.sampled_from([None, None, 4.0, 40.0, 250.0])
keys = st.sampled_from(["a", "a", "a", "b", "c"])
_several = st.lists(keys, min_size=1, max_size=3).map(tuple)
_conditions = st.sampled_from(["any", "seen", "seen", "absent"])
_one = keys.map(lambda key: (key,))


_NOTHING: Final = st.just(0)
_FOR_EVER: Final = st.none()
_ANY: Final = st.just("any")


def _asking(
    kind: str,
    keys: st.SearchStrategy[tuple[str, ...]],
    *,
    size: st.SearchStrategy[int] = _NOTHING,
    life: st.SearchStrategy[float | None] = _FOR_EVER,
    condition: st.SearchStrategy[str] = _ANY,
    deletes: st.SearchStrategy[int] = _NOTHING,
) -> st.SearchStrategy[Ask]:
    return st.builds(Ask, st.just(kind), keys, size, life, condition, deletes)


_write_alls = _asking(
    "write_all", _several, size=_sizes, life=_lives, condition=_conditions, deletes=st.integers(0, 2)
)
_puts = _asking("put", _one, size=_sizes, life=_lives, condition=_conditions)
asks = st.one_of(
    _puts,
    _puts,
    _puts,
    _asking("get", _one, life=_lives),
    _asking("get", _one),
    _asking("delete", _one, condition=_conditions),
    _asking("touch", _one, life=_lives),
    _asking("put_many", _several, size=_sizes, life=_lives, condition=_conditions),
    _write_alls,
    _write_alls,
    _asking("get_many", _several),
    _asking("delete_many", _several),
    _asking("scan", st.just(KEYS)),
)
names = st.sampled_from(["small", "raising", "durable"])
faults = st.sampled_from(
    ["refuse", "lose_requests", "lose_replies", "lose_one", "latency", "hang", "fail_randomly"]
)
meanwhiles = st.one_of(
    st.none(),
    st.none(),
    st.tuples(
        st.sampled_from([0.001, 0.003, 0.1, 1.0, 2.5]),
        st.sampled_from(["heal", "drop", "cancel", "kill", "refuse", "lose_replies", "hang"]),
    ),
)
