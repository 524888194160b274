"""The Bot API methods about the bot itself, its updates, commands, chats and files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sessionkit.testing.botapi.errors import ApiError, bad_request
from sessionkit.testing.botapi.files import DOWNLOAD_LIMIT
from sessionkit.testing.botapi.registry import MethodTable
from sessionkit.testing.botapi.updates import MOST_PER_POLL
from sessionkit.testing.botapi.webhook import Webhook, check_url

if TYPE_CHECKING:
    from sessionkit.testing.botapi.bots import BotAccount
    from sessionkit.testing.botapi.params import Params

LONGEST_POLL = 50.0
MOST_COMMANDS = 100

_SECRET_TOKEN = re.compile(r"[A-Za-z0-9_-]{0,256}", re.ASCII)
_COMMAND_NAME = re.compile(r"[a-z0-9_]{1,32}", re.ASCII)


ACCOUNT_METHODS = MethodTable()


@ACCOUNT_METHODS.add("getMe")
def get_me(bot: BotAccount, _params: Params) -> object:
    """Tell the bot who it is."""
    return bot.me | {
        "can_join_groups": True,
        "can_read_all_group_messages": True,
        "supports_inline_queries": False,
        "can_connect_to_business": False,
        "has_main_web_app": False,
    }


@ACCOUNT_METHODS.add("logOut")
@ACCOUNT_METHODS.add("close")
def leave(_bot: BotAccount, _params: Params) -> object:
    """Say goodbye; the bot may come back at once."""
    return True


@ACCOUNT_METHODS.add("getUpdates")
async def get_updates(bot: BotAccount, params: Params) -> object:
    """Confirm what is before the offset and wait for more; the timeout may be a fraction of a second."""
    if bot.delivery:
        raise ApiError(
            409,
            "Conflict: can't use getUpdates method while webhook is active;"
            " use deleteWebhook to delete the webhook first",
        )
    _set_allowed_updates(bot, params)
    limit = params.integer("limit", MOST_PER_POLL)
    return await bot.updates.poll(
        offset=params.integer("offset"),
        limit=limit if 1 <= limit <= MOST_PER_POLL else MOST_PER_POLL,
        timeout=min(max(params.number("timeout"), 0.0), LONGEST_POLL),
    )


@ACCOUNT_METHODS.add("setWebhook")
def set_webhook(bot: BotAccount, params: Params) -> object:
    """Deliver updates to a URL on this machine, or no longer where the URL is empty."""
    url = params.text("url")
    if not url:
        return delete_webhook(bot, params)
    check_url(url)
    secret_token = params.text("secret_token")
    if not _SECRET_TOKEN.fullmatch(secret_token):
        raise bad_request("secret token contains unallowed characters")
    upload = params.upload("certificate")
    webhook = Webhook(
        url=url,
        secret_token=secret_token,
        max_connections=min(max(params.integer("max_connections", 40), 1), 100),
        certificate=upload.data if upload else b"",
    )
    # Made before anything changes, as a bad certificate is refused here.
    delivery = bot.make_delivery(webhook)
    _set_allowed_updates(bot, params)
    if params.flag("drop_pending_updates"):
        _stop_delivery(bot)
        bot.updates.clear()
    if bot.delivery and bot.delivery.webhook == webhook:
        return True
    _stop_delivery(bot)
    bot.updates.conflict("terminated by setWebhook request")
    bot.delivery = delivery
    delivery.start()
    return True


@ACCOUNT_METHODS.add("deleteWebhook")
def delete_webhook(bot: BotAccount, params: Params) -> object:
    """Go back to polling."""
    _stop_delivery(bot)
    if params.flag("drop_pending_updates"):
        bot.updates.clear()
    return True


@ACCOUNT_METHODS.add("getWebhookInfo")
def get_webhook_info(bot: BotAccount, _params: Params) -> object:
    """Tell how the webhook does."""
    info: dict[str, Any] = {"url": "", "has_custom_certificate": False}
    info["pending_update_count"] = len(bot.updates.pending)
    if bot.updates.allowed:
        info["allowed_updates"] = bot.updates.allowed
    if bot.delivery:
        webhook = bot.delivery.webhook
        info |= {"url": webhook.url, "has_custom_certificate": bool(webhook.certificate)}
        info["max_connections"] = webhook.max_connections
        if bot.delivery.last_error:
            when, what = bot.delivery.last_error
            info |= {"last_error_date": int(when), "last_error_message": what}
    return info


@ACCOUNT_METHODS.add("setMyCommands")
def set_my_commands(bot: BotAccount, params: Params) -> object:
    """Keep the command list of a scope and language."""
    commands = params.json("commands", list)
    if commands is None:
        raise bad_request('parameter "commands" is required')
    if len(commands) > MOST_COMMANDS:
        raise bad_request("BOT_COMMANDS_TOO_MUCH")
    kept = []
    for command in commands:
        name = command.get("command") if isinstance(command, dict) else None
        description = command.get("description") if isinstance(command, dict) else None
        if not isinstance(name, str) or not _COMMAND_NAME.fullmatch(name.removeprefix("/")):
            raise bad_request("BOT_COMMAND_INVALID")
        if not isinstance(description, str) or not 1 <= len(description) <= 256:
            raise bad_request("BOT_COMMAND_DESCRIPTION_INVALID")
        kept.append({"command": name.removeprefix("/"), "description": description})
    bot.commands[_command_scope(params)] = kept
    return True


@ACCOUNT_METHODS.add("getMyCommands")
def get_my_commands(bot: BotAccount, params: Params) -> object:
    """Return the command list of exactly this scope and language."""
    return bot.commands.get(_command_scope(params), [])


@ACCOUNT_METHODS.add("deleteMyCommands")
def delete_my_commands(bot: BotAccount, params: Params) -> object:
    """Drop the command list of a scope and language."""
    bot.commands.pop(_command_scope(params), None)
    return True


@ACCOUNT_METHODS.add("getChat")
def get_chat(bot: BotAccount, params: Params) -> object:
    """Tell of a chat what every chat has."""
    gifts = (
        "unlimited_gifts",
        "limited_gifts",
        "unique_gifts",
        "premium_subscription",
        "gifts_from_channels",
    )
    return bot.chat(params.text("chat_id")).info | {
        "accent_color_id": 0,
        "max_reaction_count": 11,
        "accepted_gift_types": dict.fromkeys(gifts, False),
    }


@ACCOUNT_METHODS.add("getFile")
def get_file(bot: BotAccount, params: Params) -> object:
    """Tell where a file can be downloaded."""
    file_id = params.text("file_id")
    if not file_id:
        raise bad_request("file_id is not specified")
    stored = bot.files.by_id(file_id)
    if stored is None:
        raise bad_request("invalid file_id")
    if len(stored.data) > DOWNLOAD_LIMIT:
        raise bad_request("file is too big")
    return stored.as_file()


def _set_allowed_updates(bot: BotAccount, params: Params) -> None:
    allowed = params.json("allowed_updates", list)
    if allowed is not None:
        bot.updates.allowed = [name for name in allowed if isinstance(name, str)]


def _stop_delivery(bot: BotAccount) -> None:
    if bot.delivery:
        bot.delivery.stop()
        bot.delivery = None


def _command_scope(params: Params) -> tuple[str, str]:
    scope = params.json("scope", dict) or {}
    kind = scope.get("type", "default")
    return f"{kind} {scope.get('chat_id', '')} {scope.get('user_id', '')}", params.text("language_code")
