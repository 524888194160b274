"""python-telegram-bot's objects come back as they were, or are refused by name."""

from __future__ import annotations

import enum
import inspect
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import telegram
from telegram import (
    Bot,
    CallbackQuery,
    Chat,
    ChatMemberOwner,
    ChatMemberUpdated,
    ForceReply,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    InlineQueryResultArticle,
    InputFile,
    InputMediaPhoto,
    InputTextMessageContent,
    KeyboardButton,
    LinkPreviewOptions,
    Location,
    Message,
    MessageEntity,
    MessageOriginUser,
    PhotoSize,
    ReplyKeyboardMarkup,
    ReplyKeyboardRemove,
    TelegramObject,
    Update,
    User,
    Voice,
    constants,
)
from telegram.ext import ExtBot

from sessionkit.codec import MsgpackCodec
from sessionkit.errors import CodecError, ConfigurationError, UnsupportedType
from sessionkit.ptb import SessionPersistence, register_telegram_objects

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ptb.conftest import UnsteadyStore

USER = User(7, "Ada", is_bot=False, api_kwargs={"shoe_size": 38})
CHAT = Chat(-100, constants.ChatType.SUPERGROUP, title="Ada's")
THEN = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=2)))
OWNER = ChatMemberOwner(USER, is_anonymous=False)
MESSAGE = Message(
    1,
    THEN,
    CHAT,
    from_user=USER,
    text="hello",
    entities=[MessageEntity(MessageEntity.BOLD, 0, 5)],
    photo=[PhotoSize("file", "unique", 1, 2)],
    forward_origin=MessageOriginUser(THEN, USER),
    link_preview_options=LinkPreviewOptions(is_disabled=True),
    reply_markup=InlineKeyboardMarkup([[InlineKeyboardButton("pay", callback_data={"sum": (1, 2)})]]),
)

OBJECTS: list[TelegramObject] = [
    USER,
    CHAT,
    MESSAGE,
    Update(3, callback_query=CallbackQuery("1", USER, "instance", message=MESSAGE, data="pay")),
    Update(4, chat_member=ChatMemberUpdated(CHAT, USER, THEN, OWNER, OWNER)),
    LinkPreviewOptions(),
    ReplyKeyboardMarkup([["a", KeyboardButton("b", request_contact=True)]]),
    ReplyKeyboardRemove(),
    ForceReply(selective=True),
    InlineKeyboardMarkup([]),
    InlineQueryResultArticle("1", "title", InputTextMessageContent("text", parse_mode="HTML")),
    Voice("file", "unique", timedelta(seconds=3)),
    Location(1.5, 2.5, live_period=timedelta(seconds=60)),
]


@pytest.fixture
def codec() -> MsgpackCodec:
    codec = MsgpackCodec()
    register_telegram_objects(codec)
    return codec


def state(obj: Any) -> Any:
    """Return what an object is made of, all the way down."""
    if isinstance(obj, TelegramObject):
        content: Any = obj.__getstate__()
        # What python-telegram-bot computes when it is asked for it.
        return type(obj), {name: state(value) for name, value in content.items() if "effective" not in name}
    if isinstance(obj, (list, tuple)):
        return type(obj), [state(item) for item in obj]
    return obj


def public(module: Any, base: type[Any]) -> list[type[Any]]:
    found = [getattr(module, name) for name in module.__all__]
    return [cls for cls in found if isinstance(cls, type) and issubclass(cls, base)]


@pytest.mark.parametrize("obj", OBJECTS, ids=lambda obj: type(obj).__name__)
def test_an_object_comes_back_as_it_was(codec: MsgpackCodec, obj: TelegramObject) -> None:
    record = codec.encode({"kept": [obj]})
    back = codec.decode(record)["kept"][0]
    assert state(back) == state(obj)
    assert codec.encode({"kept": [back]}) == record


def test_every_public_class_has_a_tag(codec: MsgpackCodec) -> None:
    taken = set()
    classes: list[type[Any]] = [*public(telegram, TelegramObject), ExtBot]
    for cls in classes:
        if cls is not TelegramObject:
            with pytest.raises(ConfigurationError, match=f"already registered under 'ptb.{cls.__name__}'"):
                codec.register("own", cls, str, cls)
            taken.add(cls.__name__)
    assert {"User", "Message", "Update", "Bot", "ExtBot"} <= taken


def test_every_enumeration_comes_back(codec: MsgpackCodec) -> None:
    enumerations = public(constants, enum.Enum)
    members = [member for cls in enumerations for member in cls]
    assert constants.ChatType.PRIVATE in members
    back = codec.decode(codec.encode(members))
    assert all(one is other for one, other in zip(back, members, strict=True))


def test_arguments_of_other_versions_become_api_kwargs(codec: MsgpackCodec) -> None:
    class Newer:
        """A user as a newer python-telegram-bot may know one."""

    writer = MsgpackCodec()
    arguments = {
        "id": 7,
        "first_name": "Ada",
        "is_bot": False,
        "mood": "fine",
        "api_kwargs": {"shoe_size": 38},
    }
    writer.register("ptb.User", Newer, lambda _: arguments, lambda _: Newer())
    back = codec.decode(writer.encode(Newer()))
    assert back == USER
    assert back.api_kwargs == {"mood": "fine", "shoe_size": 38}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the arguments of a User are none"),
        ({"api_kwargs": 1}, "the arguments of a User are none"),
        ({"id": 7}, "'ptb.User' raised TypeError"),
        ({1: 2}, "'ptb.User' raised TypeError"),
    ],
)
def test_hostile_arguments_are_refused(codec: MsgpackCodec, arguments: Any, message: str) -> None:
    class Forged:
        pass

    writer = MsgpackCodec()
    writer.register("ptb.User", Forged, lambda _: arguments, lambda _: Forged())
    with pytest.raises(CodecError, match=message):
        codec.decode(writer.encode(Forged()))


def test_no_record_makes_python_telegram_bot_read_a_file(codec: MsgpackCodec, tmp_path: Path) -> None:
    class Forged:
        pass

    secret = tmp_path / "secret"
    secret.write_text("secret")

    def forge(arguments: dict[str, str]) -> Callable[[Forged], object]:
        return lambda _: arguments

    made = 0
    for cls in public(telegram, TelegramObject):
        if cls is TelegramObject:
            continue
        arguments = {name: str(secret) for name in inspect.signature(cls).parameters if name != "api_kwargs"}
        writer = MsgpackCodec()
        writer.register(f"ptb.{cls.__name__}", Forged, forge(arguments), lambda _: Forged())
        try:
            back = codec.decode(writer.encode(Forged()))
        except CodecError:
            continue
        made += 1
        content = back.__getstate__()
        assert not [name for name, value in content.items() if isinstance(value, InputFile)], cls
    assert made > 100


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Bot("1:a"), r"^user_data\.7\.x: a bot is not kept; handlers have theirs as context\.bot$"),
        (ExtBot("1:a"), r"^user_data\.7\.x: a bot is not kept"),
        (InputMediaPhoto("file id"), r"^user_data\.7\.x: what describes a file to be sent is not kept"),
        (
            InlineKeyboardMarkup([[InlineKeyboardButton("a", callback_data=object())]]),
            r"^user_data\.7\.x<ptb\.InlineKeyboardMarkup>\.inline_keyboard\[0\]\[0\]"
            r"<ptb\.InlineKeyboardButton>\.callback_data: builtins\.object is not a type",
        ),
    ],
    ids=["bot", "ext bot", "upload", "object in an object"],
)
def test_what_is_refused_is_named(codec: MsgpackCodec, value: object, reason: str) -> None:
    with pytest.raises(UnsupportedType, match=reason):
        codec.encode({"x": value}, name="user_data.7")


def test_an_argument_that_a_class_changes_is_refused(codec: MsgpackCodec) -> None:
    markup = InlineKeyboardMarkup([])
    markup._unfreeze()
    setattr(markup, "inline_keyboard", [])  # noqa: B010  # its type is a tuple, and so it comes back
    with pytest.raises(
        UnsupportedType, match="InlineKeyboardMarkup would come back with another 'inline_key"
    ):
        codec.encode(markup)


async def test_loaded_objects_work_with_a_bot(store: UnsteadyStore) -> None:
    own, other = ExtBot("1:own"), ExtBot("2:other")
    codec = MsgpackCodec()
    register_telegram_objects(codec, other)
    assert codec.decode(codec.encode(USER)).get_bot() is other
    for persistence in (SessionPersistence(store), SessionPersistence(store, codec=codec)):
        persistence.set_bot(own)
        await persistence.update_user_data(7, {"me": USER, "message": MESSAGE})
        loaded = (await persistence.get_user_data())[7]
        assert loaded["me"].get_bot() is own
        assert loaded["message"].from_user.get_bot() is own
        await persistence.flush()
