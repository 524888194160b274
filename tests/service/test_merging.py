"""Sessions that two instances went on with: one that both agree on, or the primary's, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.codec import EncryptionKey, Keyring, MsgpackCodec
from sessionkit.resilience import ConflictFound, ResilientStore, State
from sessionkit.resilience.conflicts import merge_dicts
from sessionkit.service import SessionService, merge_sessions
from sessionkit.service.records import SessionRecord
from sessionkit.testing.chaos import ChaosStore
from sessionkit_memory import MemoryStore
from tests.resilience.waiting import became

KEY = "telegram_bot:session:1"
plain = MsgpackCodec()
encrypting = MsgpackCodec(keyring=Keyring([EncryptionKey("k", bytes(32))]))
codecs = pytest.mark.parametrize("codec", [plain, encrypting], ids=["plain", "encrypted"])

datas = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2))
sides = st.tuples(datas, st.sampled_from(["amount", "confirm", "done"]))


def stored(codec: MsgpackCodec, data: dict[Any, Any], state: object, *, created: float = 1.0) -> bytes:
    record = SessionRecord(data, state, created, 2.0, None)
    return codec.wrap(record.pack(codec, "test"), key=KEY)


def merged(codec: MsgpackCodec, *sides: bytes | None) -> tuple[dict[Any, Any], object] | None:
    result = merge_sessions(codec).for_key(KEY)(*sides)
    if result is None:
        return None
    record = SessionRecord.unpack(codec, codec.unwrap(result, key=KEY), "session")
    return record.data, record.state


@codecs
@given(base=sides, mine=sides, theirs=sides)
def test_a_session_is_merged_as_a_whole_or_not_at_all(
    codec: MsgpackCodec, base: Any, mine: Any, theirs: Any
) -> None:
    result = merged(codec, *(stored(codec, *side) for side in (base, mine, theirs)))
    if base == theirs:
        assert result == mine
    assert result is not None
    data, state = result
    if result != theirs:
        agreed = merge_dicts(codec).for_key(KEY)(
            *(codec.encode(side[0], key=KEY) for side in (base, mine, theirs))
        )
        assert agreed is not None
        assert data == codec.decode(agreed, key=KEY)
        assert state == (mine[1] if theirs[1] == base[1] else theirs[1])
        assert mine[1] in {base[1], state}
        for name in {*base[0], *mine[0]}:
            assert mine[0].get(name) in {base[0].get(name), data.get(name)}, "nothing of mine was dropped"


@codecs
def test_another_session_of_the_same_user_stands(codec: MsgpackCodec) -> None:
    base, mine = stored(codec, {}, "amount"), stored(codec, {"a": 1}, "confirm")
    theirs = stored(codec, {"b": 1}, "amount", created=9.0)
    assert merged(codec, base, mine, theirs) == ({"b": 1}, "amount")
    assert merged(codec, None, mine, theirs) == ({"b": 1}, "amount")
    assert merged(codec, base, mine, None) is None
    assert merged(codec, base, None, theirs) == ({"b": 1}, "amount")


@codecs
def test_what_is_no_session_is_merged_as_a_dict(codec: MsgpackCodec) -> None:
    sides = [codec.encode(side, key=KEY) for side in ({"a": 1}, {"a": 1, "b": 2}, {"a": 3})]
    result = merge_sessions(codec).for_key(KEY)(*sides)
    assert result is not None
    assert codec.decode(result, key=KEY) == {"a": 3, "b": 2}


@codecs
async def test_two_instances_and_one_session(codec: MsgpackCodec) -> None:
    shared = MemoryStore()
    link = ChaosStore(shared, seed=1)
    async with ResilientStore(link, on_conflict=merge_sessions(codec)) as cut_off:
        here, there = SessionService(cut_off, codec=codec), SessionService(shared, codec=codec)
        events: list[object] = []
        cut_off.subscribe(events.append)
        await here.create_session(1, {"amount": None})
        link.refuse()
        async with here.edit_session(1) as session:
            session["from_here"] = 1
            session.state = "confirm"
        async with there.edit_session(1) as session:
            session["from_there"] = 2
        link.heal()
        await became(cut_off, State.HEALTHY)
        assert ConflictFound(KEY, "merged") in events
        found = await there.get_session(1)
        assert found is not None
        assert dict(found) == {"amount": None, "from_here": 1, "from_there": 2}
        assert found.state == "confirm"
