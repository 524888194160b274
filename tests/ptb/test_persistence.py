from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import pytest
from telegram.ext import (
    Application,
    ApplicationBuilder,
    ContextTypes,
    ConversationHandler,
    PersistenceInput,
)

from sessionkit.codec import Limits, MsgpackCodec
from sessionkit.errors import (
    ConfigurationError,
    CorruptRecord,
    InvalidKey,
    RecordTooLarge,
    StoreUnavailable,
    UnsupportedType,
)
from sessionkit.ptb import SessionApplication, SessionPersistence
from sessionkit.registry import open_store
from sessionkit.service import SessionService
from sessionkit.store import MAX_VALUE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from sessionkit.testing.botapi import BotApiServer
    from sessionkit.testing.servers import RedisServer
    from tests.ptb.conftest import AnyApplication, UnsteadyStore

DATA = {"n": 1, 2: ("a", None), "amount": Decimal("1.50"), "nested": {"list": [1, {"deep": {3}}]}}
CALLBACKS: Any = ([("uuid", 12.5, {"button": ("a", 1)})], {"query": "uuid"})


@pytest.fixture
def persistence(store: UnsteadyStore) -> SessionPersistence:
    return SessionPersistence(store)


@pytest.fixture
def again(store: UnsteadyStore) -> SessionPersistence:
    """The persistence of the bot's next process."""
    return SessionPersistence(store)


async def test_with_nothing_stored_everything_is_empty(persistence: SessionPersistence) -> None:
    assert await persistence.get_user_data() == {}
    assert await persistence.get_chat_data() == {}
    assert await persistence.get_bot_data() == {}
    assert await persistence.get_callback_data() is None
    assert await persistence.get_conversations("depot") == {}


async def test_what_was_updated_comes_back_in_the_next_process(
    persistence: SessionPersistence, again: SessionPersistence
) -> None:
    await persistence.update_user_data(7, DATA)
    await persistence.update_chat_data(-100, DATA)
    await persistence.update_bot_data(DATA)
    await persistence.update_callback_data(CALLBACKS)
    await persistence.update_conversation("depot", (1, 2), "amount")
    assert await again.get_user_data() == {7: DATA}
    assert await again.get_chat_data() == {-100: DATA}
    assert await again.get_bot_data() == DATA
    assert await again.get_callback_data() == CALLBACKS
    assert await again.get_conversations("depot") == {(1, 2): "amount"}


async def test_conversations_keep_their_keys_and_states_apart(
    persistence: SessionPersistence, again: SessionPersistence
) -> None:
    states: dict[tuple[int | str, ...], object] = {
        (1, 2): 0,
        (1, "2"): "zero",
        ("inline:message", 3): ConversationHandler.END,
        (4,): (1, "nested"),
    }
    for key, state in states.items():
        await persistence.update_conversation("a:b", key, state)
    await persistence.update_conversation("a", ("b", 1), "of another handler")
    assert await again.get_conversations("a:b") == states
    assert await again.get_conversations("a") == {("b", 1): "of another handler"}
    await again.update_conversation("a:b", (1, 2), None)
    assert (1, 2) not in await persistence.get_conversations("a:b")


async def test_keys_read_as_the_guides_have_them(
    persistence: SessionPersistence, store: UnsteadyStore
) -> None:
    await persistence.update_user_data(7, {"a": 1})
    await persistence.update_conversation("deposit", (123, 456), 1)
    await SessionPersistence(store, key_prefix="shop:").update_bot_data({"a": 1})
    assert {key async for key in store.scan("")} == {
        "telegram_bot:user_data:7",
        "telegram_bot:conversation:deposit:123:456",
        "shop:bot_data:all",
    }


async def test_dropped_data_is_gone(persistence: SessionPersistence, again: SessionPersistence) -> None:
    await persistence.update_user_data(7, DATA)
    await persistence.update_chat_data(8, DATA)
    await persistence.drop_user_data(7)
    await persistence.drop_chat_data(8)
    assert await again.get_user_data() == {}
    assert await again.get_chat_data() == {}
    await persistence.update_user_data(7, {"n": 2})
    assert await again.get_user_data() == {7: {"n": 2}}


async def test_what_is_returned_is_not_shared(persistence: SessionPersistence) -> None:
    await persistence.update_user_data(7, {"list": [1]})
    first = await persistence.get_user_data()
    first[7]["list"].append(2)
    assert await persistence.get_user_data() == {7: {"list": [1]}}


async def test_what_is_handed_over_is_not_shared(
    persistence: SessionPersistence, store: UnsteadyStore
) -> None:
    store.down = True
    data = {"list": [1]}
    with pytest.raises(StoreUnavailable):
        await persistence.update_user_data(7, data)
    data["list"].append(2)
    store.down = False
    await persistence.commit()
    assert await persistence.get_user_data() == {7: {"list": [1]}}


async def test_unchanged_data_is_not_written(
    persistence: SessionPersistence, again: SessionPersistence, store: UnsteadyStore
) -> None:
    for _ in range(3):
        await persistence.update_user_data(7, {"set": {"a", "b", "c"}})
        await persistence.update_bot_data({"n": 1})
    assert len(store.batches) == 2
    await again.get_user_data()
    await again.get_bot_data()
    await again.update_user_data(7, {"set": {"c", "b", "a"}})
    await again.update_bot_data({"n": 1})
    assert len(store.batches) == 2
    await again.update_bot_data({"n": True})
    assert len(store.batches) == 3


async def test_an_empty_dict_is_written_only_over_something(
    persistence: SessionPersistence, again: SessionPersistence, store: UnsteadyStore
) -> None:
    await persistence.update_user_data(7, {})
    assert store.batches == []
    await persistence.update_user_data(7, {"n": 1})
    await persistence.update_user_data(7, {})
    assert await again.get_user_data() == {7: {}}


async def test_writes_asked_for_together_travel_together(
    persistence: SessionPersistence, store: UnsteadyStore
) -> None:
    await asyncio.gather(
        *(persistence.update_user_data(number, {"n": number}) for number in range(100)),
        persistence.update_bot_data({"n": 1}),
        persistence.update_conversation("depot", (1,), 2),
    )
    assert [len(batch) for batch in store.batches] == [102]


async def test_a_failed_write_is_reported_kept_and_tried_again(
    persistence: SessionPersistence, again: SessionPersistence, store: UnsteadyStore
) -> None:
    store.down = True
    with pytest.raises(StoreUnavailable, match="down"):
        await persistence.update_user_data(7, {"n": 1})
    store.down = False
    async with asyncio.timeout(10):
        await store.saved.wait()
    assert await again.get_user_data() == {7: {"n": 1}}


async def test_the_newest_value_wins_after_failures(
    persistence: SessionPersistence, again: SessionPersistence, store: UnsteadyStore
) -> None:
    store.down = True
    for number in range(3):
        with pytest.raises(StoreUnavailable):
            await persistence.update_user_data(7, {"n": number})
    with pytest.raises(StoreUnavailable):
        await persistence.update_user_data(8, {"n": 1})
    with pytest.raises(StoreUnavailable):
        await persistence.drop_user_data(8)
    store.down = False
    await persistence.commit()
    assert await again.get_user_data() == {7: {"n": 2}}


async def test_going_back_to_the_stored_value_after_a_failure_is_written(
    persistence: SessionPersistence, again: SessionPersistence, store: UnsteadyStore
) -> None:
    await persistence.update_user_data(7, {"n": 1})
    store.down = True
    with pytest.raises(StoreUnavailable):
        await persistence.update_user_data(7, {"n": 2})
    with pytest.raises(StoreUnavailable):
        await persistence.update_user_data(7, {"n": 1})
    store.down = False
    await persistence.commit()
    assert await again.get_user_data() == {7: {"n": 1}}


async def test_commit_says_what_is_not_saved(persistence: SessionPersistence, store: UnsteadyStore) -> None:
    await persistence.commit()
    store.down = True
    with pytest.raises(StoreUnavailable):
        await persistence.update_user_data(7, {"n": 1})
    await persistence.commit(user_id=8, chat_id=7)
    with pytest.raises(StoreUnavailable):
        await persistence.commit(user_id=7, chat_id=8)
    with pytest.raises(StoreUnavailable):
        await persistence.update_conversation("depot", (8, 9), 1)
    with pytest.raises(StoreUnavailable):
        await persistence.commit(user_id=9, chat_id=1)
    with pytest.raises(StoreUnavailable):
        await persistence.update_bot_data({"n": 1})
    with pytest.raises(StoreUnavailable):
        await persistence.commit(user_id=1, chat_id=1)
    store.down = False
    await persistence.commit(user_id=7, chat_id=8)


async def test_commit_says_what_cannot_be_kept(persistence: SessionPersistence) -> None:
    for update in (
        persistence.update_user_data(7, {"a": object()}),
        persistence.update_conversation("depot", (8, 9), object()),
    ):
        with pytest.raises(UnsupportedType):
            await update
    for user_id in (7, 9):
        with pytest.raises(UnsupportedType):
            await persistence.commit(user_id=user_id)
    await persistence.commit(user_id=1)
    await persistence.update_user_data(7, {"a": 1})
    await persistence.commit(user_id=7)


async def test_a_newer_value_does_not_hide_the_failure_of_the_one_that_travels(
    persistence: SessionPersistence, store: UnsteadyStore
) -> None:
    first = asyncio.create_task(persistence.update_user_data(7, {"n": 1}))
    store.down = True
    store.meanwhile = lambda: persistence.records.ledger.hold("telegram_bot:user_data:7", {"n": 2})
    with pytest.raises(StoreUnavailable):
        await first


async def test_a_newer_value_that_waits_does_not_hide_that_the_last_one_failed(
    persistence: SessionPersistence, store: UnsteadyStore
) -> None:
    key = "telegram_bot:user_data:7"
    store.down = True
    with pytest.raises(StoreUnavailable):
        await persistence.update_user_data(7, {"n": 1})
    persistence.records.ledger.hold(key, {"n": 2})
    with pytest.raises(StoreUnavailable):
        persistence.records.check([key], user_id=None, chat_id=None)
    store.down = False
    await persistence.commit()
    persistence.records.check([key], user_id=7, chat_id=None)


async def test_what_ends_stays_while_what_it_gives_cannot_be_stored(
    persistence: SessionPersistence, again: SessionPersistence, store: UnsteadyStore
) -> None:
    await persistence.update_conversation("depot", (7, 7), "confirm")
    store.refused = "telegram_bot:user_data:7"
    results = await asyncio.gather(
        persistence.update_conversation("depot", (7, 7), None),
        persistence.update_user_data(7, {"deposit": 1}),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [StoreUnavailable, StoreUnavailable]
    assert await again.get_conversations("depot") == {(7, 7): "confirm"}
    store.refused = ""
    await persistence.flush()
    assert await again.get_conversations("depot") == {}
    assert await again.get_user_data() == {7: {"deposit": 1}}


async def test_a_cancelled_update_loses_nothing(
    persistence: SessionPersistence, again: SessionPersistence
) -> None:
    update = asyncio.create_task(persistence.update_user_data(7, {"n": 1}))
    await asyncio.sleep(0)
    update.cancel()
    with pytest.raises(asyncio.CancelledError):
        await update
    await persistence.commit()
    assert await again.get_user_data() == {7: {"n": 1}}


async def test_a_value_that_cannot_be_kept_stops_no_other(
    persistence: SessionPersistence, again: SessionPersistence
) -> None:
    await persistence.update_user_data(7, {"n": 1})
    refused, kept = await asyncio.gather(
        persistence.update_user_data(7, {"cart": [1, object()]}),
        persistence.update_user_data(8, {"n": 2}),
        return_exceptions=True,
    )
    assert isinstance(refused, UnsupportedType)
    assert str(refused).startswith("user_data.7.cart[1]: ")
    assert kept is None
    assert await again.get_user_data() == {7: {"n": 1}, 8: {"n": 2}}


async def test_a_record_that_cannot_be_read_is_kept_and_stops_no_other(
    persistence: SessionPersistence,
    again: SessionPersistence,
    store: UnsteadyStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await store.put("telegram_bot:user_data:7", b"damaged")
    await persistence.update_user_data(8, {"n": 2})
    assert await again.get_user_data() == {8: {"n": 2}}
    assert "telegram_bot:user_data:7 is not readable and is kept" in caplog.text
    with pytest.raises(CorruptRecord, match="not overwritten"):
        await again.update_user_data(7, {"n": 1})
    record = await store.get("telegram_bot:user_data:7")
    assert record is not None
    assert record.value == b"damaged"
    await again.drop_user_data(7)
    await again.update_user_data(7, {"n": 1})
    assert await persistence.get_user_data() == {7: {"n": 1}, 8: {"n": 2}}


async def test_a_key_that_holds_no_record_stops_no_other(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis_server.command("SET", "telegram_bot:user_data:5", '{"a": 1}')
    redis_server.command("SET", "telegram_bot:bot_data:all", '{"a": 1}')
    redis_server.command("RPUSH", "telegram_bot:conversation:depot:1", "x")
    async with open_store(redis_server.url()) as store:
        persistence = SessionPersistence(store)
        await persistence.update_user_data(7, {"n": 1})
        assert await persistence.get_user_data() == {7: {"n": 1}}
        assert await persistence.get_bot_data() == {}
        assert await persistence.get_conversations("depot") == {}
        await persistence.update_bot_data({})
        await persistence.commit(user_id=7)
        with pytest.raises(CorruptRecord):
            await persistence.update_user_data(5, {"n": 1})
    for key in ("user_data:5", "bot_data:all", "conversation:depot:1"):
        assert f"record telegram_bot:{key} is not readable and is kept" in caplog.text
    assert redis_server.command("GET", "telegram_bot:user_data:5") == b'{"a": 1}'


async def test_a_value_the_store_is_too_small_for_stops_no_other(again: SessionPersistence) -> None:
    codec = MsgpackCodec(limits=Limits(stored_bytes=10**8), compression="off")
    persistence = SessionPersistence(again.records.store(), codec=codec)
    refused, kept = await asyncio.gather(
        persistence.update_user_data(7, {"large": bytes(MAX_VALUE_BYTES)}),
        persistence.update_user_data(8, {"n": 2}),
        return_exceptions=True,
    )
    assert isinstance(refused, RecordTooLarge)
    assert kept is None
    assert await again.get_user_data() == {8: {"n": 2}}


async def test_keys_of_somebody_else_under_our_prefix_are_passed_over(
    persistence: SessionPersistence, store: UnsteadyStore
) -> None:
    value = MsgpackCodec().encode({"n": 1})
    for key in ("user_data:name", "user_data:1:2", "user_data:%zz", "conversation:depot:%zz"):
        await store.put(f"telegram_bot:{key}", value)
    await persistence.update_user_data(7, {"n": 1})
    await persistence.update_conversation("depot", (1,), 2)
    assert await persistence.get_user_data() == {7: {"n": 1}}
    assert await persistence.get_conversations("depot") == {(1,): 2}


@dataclass
class Profile:
    """Somebody's own type of user data."""

    visits: int = 0
    tags: list[str] = field(default_factory=list)


async def test_own_types_of_data(store: UnsteadyStore) -> None:
    codec = MsgpackCodec()
    codec.register_dataclass("profile", Profile)
    types: Any = ContextTypes(user_data=Profile, bot_data=Profile)

    def opened() -> SessionPersistence:
        return SessionPersistence(store, context_types=types, codec=codec)

    assert await opened().get_bot_data() == Profile()
    await opened().update_user_data(7, Profile(3, ["a"]))
    await opened().update_bot_data(Profile(4))
    assert await opened().get_user_data() == {7: Profile(3, ["a"])}
    assert await opened().get_bot_data() == Profile(4)


async def test_an_own_type_that_is_not_registered_is_refused_by_name(
    persistence: SessionPersistence,
) -> None:
    with pytest.raises(UnsupportedType, match=r"user_data\.7: .*Profile.*register"):
        await persistence.update_user_data(7, Profile())


async def test_a_store_passed_in_is_not_closed(persistence: SessionPersistence, store: UnsteadyStore) -> None:
    await persistence.update_user_data(7, {"n": 1})
    await persistence.flush()
    assert await store.get("telegram_bot:user_data:7") is not None


async def test_a_store_opened_by_url_is_closed_and_opened_again(tmp_path: Path) -> None:
    persistence = SessionPersistence(f"sqlite:///{tmp_path / 'bot.db'}")
    await persistence.update_user_data(7, {"n": 1})
    await persistence.flush()
    await persistence.flush()
    assert await persistence.get_user_data() == {7: {"n": 1}}
    await persistence.flush()


async def test_flush_waits_for_a_store_that_comes_back(
    persistence: SessionPersistence, again: SessionPersistence, store: UnsteadyStore
) -> None:
    store.down = True
    with pytest.raises(StoreUnavailable):
        await persistence.update_user_data(7, {"n": 1})
    store.failed.clear()
    flushing = asyncio.create_task(persistence.flush())
    await store.failed.wait()
    store.down = False
    await flushing
    assert await again.get_user_data() == {7: {"n": 1}}


def test_bad_arguments_are_refused_at_once(store: UnsteadyStore) -> None:
    with pytest.raises(ConfigurationError, match="does not know prefix"):
        SessionPersistence(store, prefix="shop:")
    with pytest.raises(ConfigurationError, match="no driver"):
        SessionPersistence("nothing://")
    with pytest.raises(ConfigurationError, match="unknown option 'colour'"):
        SessionPersistence("memory://", colour="red")
    for prefix in ("a*", 3):
        with pytest.raises(InvalidKey, match="a key prefix is made of"):
            SessionPersistence("memory://", key_prefix=cast("Any", prefix))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"codec": 1}, "codec is a Codec or None, not 1"),
        ({"codec": MsgpackCodec}, "codec is a Codec or None, not <class"),
        ({"update_interval": "1"}, "update_interval is a number above 0, not '1'"),
        ({"update_interval": -1}, "update_interval is a number above 0, not -1"),
        ({"callback_ttl": 0}, "callback_ttl is a number above 0 and at most 3162240000, not 0"),
        ({"callback_ttl": "x"}, "callback_ttl is a number above 0 and at most 3162240000, not 'x'"),
        ({"callback_ttl": 1e10}, "callback_ttl is a number above 0 and at most 3162240000, not 1"),
        ({"store_data": 3}, "store_data is a PersistenceInput or None, not 3"),
        ({"context_types": 3}, "context_types is a ContextTypes or None, not 3"),
        ({"on_corrupt": "drop"}, "on_corrupt is 'raise' or 'quarantine', not 'drop'"),
    ],
)
def test_an_argument_of_another_type_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{says}"):
        SessionPersistence("memory://", **arguments)


def build(api: BotApiServer, persistence: SessionPersistence, kind: type[AnyApplication]) -> AnyApplication:
    builder = ApplicationBuilder().application_class(kind).token(api.token).base_url(api.base_url)
    application: AnyApplication = builder.persistence(persistence).build()
    return application


@pytest.mark.parametrize("kind", [Application, SessionApplication])
async def test_two_applications_need_two_persistences(
    store: UnsteadyStore, api: BotApiServer, kind: type[AnyApplication]
) -> None:
    persistence = SessionPersistence(store)
    async with build(api, persistence, kind):
        with pytest.raises(ConfigurationError, match="is in use by another application"):
            build(api, persistence, kind)
    async with build(api, persistence, kind):
        pass


@pytest.mark.parametrize("kind", [Application, SessionApplication])
async def test_an_application_that_could_not_start_uses_no_persistence(
    api: BotApiServer, kind: type[AnyApplication]
) -> None:
    persistence = SessionPersistence("redis://127.0.0.1:1/0", outage="raise")
    application = build(api, persistence, kind)
    with pytest.raises(StoreUnavailable):
        await application.initialize()
    await application.bot.shutdown()
    assert build(api, persistence, kind).bot is persistence.bot
    await persistence.flush()


async def test_the_second_of_two_that_were_built_is_refused(store: UnsteadyStore, api: BotApiServer) -> None:
    persistence = SessionPersistence(store)
    one, two = (build(api, persistence, SessionApplication) for _ in range(2))
    async with one:
        assert persistence.bot is one.bot
        with pytest.raises(ConfigurationError, match="is in use by another application"):
            await two.initialize()
    async with two:
        assert persistence.bot is two.bot


async def test_the_prefix_is_a_setting(monkeypatch: pytest.MonkeyPatch, store: UnsteadyStore) -> None:
    monkeypatch.setenv("SESSIONKIT_PREFIX", "shop:")
    await SessionPersistence(store).update_bot_data({"a": 1})
    await SessionService(store).create_session(7)
    assert {key async for key in store.scan("")} == {"shop:bot_data:all", "shop:session:7"}


async def test_a_failure_that_lasts_is_not_tried_for_ever(
    persistence: SessionPersistence, store: UnsteadyStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.lasting = True
    with pytest.raises(StoreUnavailable):
        await persistence.update_user_data(7, {"n": 1})
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailable):
            await persistence.flush()
    assert "trying again" not in caplog.text


def test_ptb_options_are_passed_on() -> None:
    kept = PersistenceInput(bot_data=False)
    persistence = SessionPersistence("memory://", store_data=kept, update_interval=5)
    assert persistence.store_data is kept
    assert persistence.update_interval == 5
