"""The Bot API methods that write into chats: send, copy, edit, delete, answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sessionkit.testing.botapi.errors import bad_request
from sessionkit.testing.botapi.files import KINDS
from sessionkit.testing.botapi.markup import check_markup
from sessionkit.testing.botapi.params import Params
from sessionkit.testing.botapi.registry import MethodTable

if TYPE_CHECKING:
    from sessionkit.testing.botapi.bots import BotAccount
    from sessionkit.testing.botapi.chats import Chat

SENDING_METHODS = MethodTable()

TEXT_LIMIT = 4096
CAPTION_LIMIT = 1024

_PARSE_MODES = {"", "html", "markdown", "markdownv2"}
_ACTIONS = {
    "choose_sticker",
    "find_location",
    "record_audio",
    "record_video",
    "record_video_note",
    "record_voice",
    "typing",
    "upload_audio",
    "upload_document",
    "upload_photo",
    "upload_video",
    "upload_video_note",
    "upload_voice",
}
_CONTENT_FIELDS = ("text", "caption", "entities", "caption_entities", *KINDS)


@SENDING_METHODS.add("sendMessage")
def send_message(bot: BotAccount, params: Params) -> object:
    """Post a text."""
    chat = bot.chat(params.text("chat_id"))
    return _post(bot, chat, params, _read_text(params))


def _send_file(kind: str, bot: BotAccount, params: Params) -> object:
    """Post an uploaded file, or one the bot already knows by its ``file_id``."""
    chat = bot.chat(params.text("chat_id"))
    upload = params.upload(kind)
    if upload:
        details: dict[str, Any] = {"filename": upload.filename, "mime_type": upload.mime_type}
        if kind in {"audio", "voice"}:
            details["duration"] = max(params.integer("duration"), 0)
        if kind == "audio":
            details |= {name: params.text(name) or None for name in ("title", "performer")}
        stored = bot.files.add(kind, upload.data, **details)
    elif file_id := params.text(kind):
        known = bot.files.by_id(file_id)
        if known is None:
            raise bad_request(
                "wrong file identifier/HTTP URL specified: this test server takes uploads and known file_ids"
            )
        if known.kind != kind:
            raise bad_request(f"can't use file of type {known.kind.title()} as {kind.title()}")
        stored = known
    else:
        raise bad_request(f"there is no {kind} in the request")
    return _post(bot, chat, params, stored.as_content() | _read_caption(params))


for _kind in KINDS:
    SENDING_METHODS.add(f"send{_kind.title()}")(partial(_send_file, _kind))


@SENDING_METHODS.add("copyMessage")
def copy_message(bot: BotAccount, params: Params) -> object:
    """Post the content of a message anew; a new caption takes the old one's place."""
    chat = bot.chat(params.text("chat_id"))
    content = _content_of(_find_source(bot, params, "copy"))
    if "caption" in params.values and "text" not in content:
        content.pop("caption", None)
        content |= _read_caption(params)
    return {"message_id": _post(bot, chat, params, content)["message_id"]}


@SENDING_METHODS.add("forwardMessage")
def forward_message(bot: BotAccount, params: Params) -> object:
    """Post a message with a note of where it came from."""
    chat = bot.chat(params.text("chat_id"))
    source = _find_source(bot, params, "forward")
    origin = {"type": "user", "date": source["date"], "sender_user": source["from"]}
    return _post(bot, chat, params, _content_of(source) | {"forward_origin": origin})


@SENDING_METHODS.add("editMessageText")
def edit_message_text(bot: BotAccount, params: Params) -> object:
    """Give a bot's message another text; its inline keyboard goes unless it is given again."""
    chat, message_id = _find_edited(bot, params)
    changes = {"entities": None, **_read_text(params), "reply_markup": _read_inline_markup(params)}
    if "text" not in chat.messages.get(message_id, {"text": ""}):
        raise bad_request("there is no text in the message to edit")
    return chat.edit(message_id, changes)


@SENDING_METHODS.add("editMessageCaption")
def edit_message_caption(bot: BotAccount, params: Params) -> object:
    """Give a bot's file another caption; its inline keyboard goes unless it is given again."""
    chat, message_id = _find_edited(bot, params)
    nothing = {"caption": None, "caption_entities": None}
    changes = {**nothing, **_read_caption(params), "reply_markup": _read_inline_markup(params)}
    if "text" in chat.messages.get(message_id, {}):
        raise bad_request("there is no caption in the message to edit")
    return chat.edit(message_id, changes)


@SENDING_METHODS.add("editMessageReplyMarkup")
def edit_message_reply_markup(bot: BotAccount, params: Params) -> object:
    """Replace or remove the inline keyboard of a bot's message."""
    chat, message_id = _find_edited(bot, params)
    return chat.edit(message_id, {"reply_markup": _read_inline_markup(params)})


@SENDING_METHODS.add("deleteMessage")
def delete_message(bot: BotAccount, params: Params) -> object:
    """Remove a message."""
    bot.chat(params.text("chat_id")).delete(_read_message_id(params, "message_id"))
    return True


@SENDING_METHODS.add("answerCallbackQuery")
def answer_callback_query(bot: BotAccount, params: Params) -> object:
    """Answer a pressed button, once."""
    query_id = params.text("callback_query_id")
    chat = bot.callback_queries.pop(query_id, None)
    if chat is None:
        raise bad_request("query is too old and response timeout expired or query ID is invalid")
    if text := params.text("text"):
        chat.note("bot", f"({'alert' if params.flag('show_alert') else 'notice'}) {text}")
    return True


@SENDING_METHODS.add("sendChatAction")
def send_chat_action(bot: BotAccount, params: Params) -> object:
    """Show that the bot is busy."""
    bot.chat(params.text("chat_id"))
    if params.text("action") not in _ACTIONS:
        raise bad_request("wrong parameter action in request")
    return True


def _post(bot: BotAccount, chat: Chat, params: Params, content: dict[str, Any]) -> dict[str, Any]:
    markup = params.json("reply_markup", dict)
    check_markup(markup)
    return chat.post(bot.compose(chat, bot.me, content | _read_reply(chat, params)), markup)


def _read_text(params: Params) -> dict[str, Any]:
    text = params.text("text")
    if not text.strip():
        raise bad_request("message text is empty")
    if len(text) > TEXT_LIMIT:
        raise bad_request("message is too long")
    return {"text": text, **_read_entities(params, "entities")}


def _read_caption(params: Params) -> dict[str, Any]:
    caption = params.text("caption")
    if len(caption) > CAPTION_LIMIT:
        raise bad_request("message caption is too long")
    return {"caption": caption, **_read_entities(params, "caption_entities")} if caption else {}


def _read_entities(params: Params, name: str) -> dict[str, Any]:
    if params.text("parse_mode").lower() not in _PARSE_MODES:
        raise bad_request("unsupported parse_mode")
    entities = params.json(name, list)
    if not entities:
        return {}
    for entity in entities:
        numbers = [entity.get("offset"), entity.get("length")] if isinstance(entity, dict) else []
        if not numbers or not all(isinstance(number, int) for number in numbers):
            raise bad_request("can't parse MessageEntity: 'offset' and 'length' must be numbers")
        if not isinstance(entity.get("type"), str):
            raise bad_request("can't parse MessageEntity: 'type' must be a string")
    return {name: entities}


def _read_reply(chat: Chat, params: Params) -> dict[str, Any]:
    """Return the message that is replied to, given in the new way or the old one."""
    reply = params.json("reply_parameters", dict)
    source = Params(reply) if reply else params
    message_id = source.integer("message_id" if reply else "reply_to_message_id")
    if not message_id:
        return {}
    if message := chat.messages.get(message_id):
        nested = {name: value for name, value in message.items() if name != "reply_to_message"}
        return {"reply_to_message": nested}
    if source.flag("allow_sending_without_reply"):
        return {}
    raise bad_request("message to be replied not found")


def _read_inline_markup(params: Params) -> dict[str, Any] | None:
    markup = params.json("reply_markup", dict)
    check_markup(markup)
    if markup and "inline_keyboard" not in markup:
        raise bad_request("inline keyboard expected")
    return markup if markup and markup["inline_keyboard"] else None


def _read_message_id(params: Params, name: str) -> int:
    message_id = params.integer(name)
    if message_id <= 0:
        raise bad_request("message identifier is not specified")
    return message_id


def _find_edited(bot: BotAccount, params: Params) -> tuple[Chat, int]:
    if params.text("inline_message_id"):
        raise bad_request("MESSAGE_ID_INVALID")
    return bot.chat(params.text("chat_id")), _read_message_id(params, "message_id")


def _find_source(bot: BotAccount, params: Params, what: str) -> dict[str, Any]:
    source = bot.chat(params.text("from_chat_id")).messages.get(_read_message_id(params, "message_id"))
    if source is None:
        raise bad_request(f"message to {what} not found")
    return source


def _content_of(message: dict[str, Any]) -> dict[str, Any]:
    return {name: message[name] for name in _CONTENT_FIELDS if name in message}
