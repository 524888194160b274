"""Contents of PTB's persistences arrive in a store, or it is said for each value why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from telegram.ext import ConversationHandler, ExtBot

from sessionkit.codec import Limits, MsgpackCodec
from sessionkit.errors import StoreUnavailable
from sessionkit.ptb import SessionPersistence
from sessionkit.ptb.contents import Contents, Importer, Outcome, count_unreadable, read_contents

if TYPE_CHECKING:
    from tests.ptb.conftest import UnsteadyStore

PREFIX = "shop:"
CALLBACKS: Any = ([("one", 1.5, {"a": (1, 2)}), ("two", 1.25, {"b": "x"})], {"query": "one"})
CONTENTS = Contents(
    {7: {"n": (1, {2})}, 8: {}},
    {-100: {"title": "Ada's"}},
    {"admins": {7}},
    CALLBACKS,
    {"shop": {(-100, 7): "ASK", ("inline", 7): 2, (1, 1): ConversationHandler.END}},
)
KEPT = Contents(
    {7: {"n": (1, {2})}},
    CONTENTS.chats,
    CONTENTS.bot,
    CALLBACKS,
    {"shop": {(-100, 7): "ASK", ("inline", 7): 2}},
)
NOTHING = Contents({}, {}, None, None, {})


class Item:
    pass


def persistence_of(store: UnsteadyStore, codec: MsgpackCodec) -> SessionPersistence:
    persistence = SessionPersistence(store, key_prefix=PREFIX, codec=codec)
    persistence.set_bot(ExtBot("1:own"))
    return persistence


async def put(
    store: UnsteadyStore, contents: Contents, codec: MsgpackCodec | None = None, **how: bool
) -> Outcome:
    """Put contents into a store by a persistence of their own."""
    codec = codec if codec is not None else MsgpackCodec()
    persistence = persistence_of(store, codec)
    outcome = await Importer(persistence, codec, store, PREFIX, **how).run(contents)
    await persistence.flush()
    return outcome


async def kept(store: UnsteadyStore) -> Contents:
    return await read_contents(persistence_of(store, MsgpackCodec()), store, PREFIX)


async def test_contents_arrive_whole(store: UnsteadyStore) -> None:
    outcome = await put(store, CONTENTS)
    assert outcome.complete
    assert outcome.written == {
        "user_data": 1,
        "chat_data": 1,
        "bot_data": 1,
        "callback_data": 1,
        "conversation": 2,
    }
    there = await kept(store)
    assert there._replace(callbacks=None) == KEPT._replace(callbacks=None)
    assert there.callbacks is not None
    assert sorted(map(tuple, there.callbacks[0])) == sorted(CALLBACKS[0])
    assert there.callbacks[1] == CALLBACKS[1]
    assert there.counts() == outcome.written


async def test_a_second_time_changes_nothing(store: UnsteadyStore) -> None:
    await put(store, CONTENTS)
    written = len(store.batches)
    outcome = await put(store, CONTENTS)
    assert (outcome.complete, dict(outcome.written), outcome.unchanged) == (True, {}, 6)
    assert len(store.batches) == written


async def test_what_differs_is_kept_unless_it_is_to_be_overwritten(store: UnsteadyStore) -> None:
    await put(store, CONTENTS)
    other = Contents(
        {7: {"n": 2}}, {}, {"admins": set()}, ([], {"query": "two"}), {"shop": {(-100, 7): "PAY"}}
    )
    outcome = await put(store, other)
    assert not outcome.complete
    assert sorted(outcome.conflicts) == [
        "callback_data",
        "shop:bot_data:all",
        "shop:conversation:shop:-100:7",
        "shop:user_data:7",
    ]
    assert (await kept(store)).users == KEPT.users
    outcome = await put(store, other, overwrite=True)
    assert outcome.complete
    there = await kept(store)
    assert (there.users, there.bot) == (other.users, other.bot)
    assert there.conversations["shop"] == {(-100, 7): "PAY", ("inline", 7): 2}


async def test_an_equal_value_of_another_type_is_a_conflict(store: UnsteadyStore) -> None:
    await put(store, NOTHING._replace(users={7: {"n": 1}}))
    assert (await put(store, NOTHING._replace(users={7: {"n": True}}))).conflicts == ["shop:user_data:7"]


async def test_a_trial_says_the_same_and_writes_nothing(store: UnsteadyStore) -> None:
    contents = CONTENTS._replace(chats={-100: {"item": Item(), "n": 1}})
    trial = await put(store, contents, trial=True)
    assert store.batches == []
    assert [key async for key in store.scan("")] == []
    assert trial == await put(store, contents)


async def test_each_value_that_cannot_be_kept_is_named_and_the_rest_is_kept(store: UnsteadyStore) -> None:
    circle: dict[str, Any] = {"n": 1}
    circle["self"] = circle
    contents = Contents(
        {
            7: {
                "item": Item(),
                "cart": [1, Item()],
                "deep": {"list": [{"item": Item(), "n": 1}], "n": 2},
                "circle": circle,
                Item(): "a key",
                "n": 3,
            },
            8: Item(),
            9: {"item": Item()},
            "9": {"n": 1},  # type: ignore[dict-item]  # what a pickle may well hold
        },
        {},
        {"n": 1},
        ([("one", 1.5, {"a": Item(), "b": 1})], {}),
        {"shop": {(1, 1): Item(), (1, 2): "ASK", (1, None): "ASK", 5: "ASK"}},  # type: ignore[dict-item]  # what a pickle may well hold
    )
    outcome = await put(store, contents)
    there = await kept(store)
    assert there.users == {7: {"deep": {"list": [{"n": 1}], "n": 2}, "circle": {"n": 1}, "n": 3}}
    assert there.callbacks is not None
    assert [data for _, _, data in there.callbacks[0]] == [{"b": 1}]
    assert there.conversations == {"shop": {(1, 2): "ASK"}}
    item = "tests.ptb.test_contents.Item is not a type sessionkit keeps"
    starts = [
        f"user_data.7.item: {item}",
        f"user_data.7.cart, because of user_data.7.cart[1]: {item}",
        f"user_data.7.deep.list[0].item: {item}",
        "user_data.7.circle.self",
        "user_data.7[<Item>], because of user_data.7.keys()[<Item>]: ",
        f"user_data.8: {item}",
        f"user_data.9.item: {item}",
        "user_data: an id is an int, not str",
        f"callback_data[0][0][2].a: {item}",
        f"conversation.shop.1.1: {item}",
        "conversations of 'shop': conversation: an id part is an int or a str, not NoneType",
        "conversations of 'shop'",
    ]
    assert len(outcome.left_out) == len(starts)
    for start in starts:
        assert [line for line in outcome.left_out if line.startswith(start)], (start, outcome.left_out)


async def test_what_is_too_large_is_left_out_whole(store: UnsteadyStore) -> None:
    codec = MsgpackCodec(limits=Limits(stored_bytes=1000))
    outcome = await put(
        store, NOTHING._replace(users={7: {"a": "x" * 600, "b": "y" * 600}, 8: {"n": 1}}), codec
    )
    assert (await kept(store)).users == {8: {"n": 1}}
    [left_out] = outcome.left_out
    assert left_out.startswith("user_data.7: ")


async def test_an_unreadable_record_is_not_overwritten_and_is_counted(store: UnsteadyStore) -> None:
    await store.put("shop:user_data:7", b"damaged")
    outcome = await put(store, CONTENTS, overwrite=True)
    [left_out] = outcome.left_out
    assert "'shop:user_data:7' is not overwritten" in left_out
    assert outcome.written["user_data"] == 0
    await store.put("shop:bot_data:all", b"damaged")
    await store.put("shop:callback_query:all", b"damaged")
    persistence = persistence_of(store, MsgpackCodec())
    there = await read_contents(persistence, store, PREFIX)
    assert (there.users, there.bot) == ({}, {})
    assert count_unreadable(persistence) == 3


async def test_a_store_that_fails_is_an_error(store: UnsteadyStore) -> None:
    codec = MsgpackCodec()
    persistence = persistence_of(store, codec)
    importer = Importer(persistence, codec, store, PREFIX)
    store.lasting = True
    with pytest.raises(StoreUnavailable):
        await importer.run(CONTENTS)
    store.lasting = False
    await persistence.flush()
    assert (await put(store, CONTENTS)).complete
