"""Reply markup: keyboards under a message and in place of the user's keyboard."""

from __future__ import annotations

from typing import Any

from sessionkit.testing.botapi.errors import bad_request

CALLBACK_DATA_LIMIT = 64

_INLINE_ACTIONS = {
    "callback_data",
    "callback_game",
    "copy_text",
    "login_url",
    "pay",
    "switch_inline_query",
    "switch_inline_query_chosen_chat",
    "switch_inline_query_current_chat",
    "url",
    "web_app",
}


def check_markup(markup: dict[str, Any] | None) -> None:
    """Refuse what Telegram would refuse.

    Raises:
        ApiError: The markup, or a button, is malformed.
    """
    if not markup:
        return
    if "inline_keyboard" in markup:
        for button in _buttons(markup["inline_keyboard"]):
            _check_inline_button(button)
    elif "keyboard" in markup:
        for button in _buttons(markup["keyboard"]):
            _label(button)
    elif not (markup.get("remove_keyboard") or markup.get("force_reply")):
        raise bad_request("object expected as reply markup")


def _check_inline_button(button: object) -> None:
    _label(button)
    if not isinstance(button, dict) or not _INLINE_ACTIONS & button.keys():
        raise bad_request(
            "can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard"
        )
    data = button.get("callback_data", "-")
    if not isinstance(data, str) or not 1 <= len(data.encode()) <= CALLBACK_DATA_LIMIT:
        raise bad_request("BUTTON_DATA_INVALID")


def _buttons(rows: object) -> list[Any]:
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise bad_request("can't parse reply keyboard markup JSON object: an array of arrays is expected")
    return [button for row in rows for button in row]


def _label(button: object) -> str:
    label = button.get("text") if isinstance(button, dict) else button
    if not isinstance(label, str) or not label:
        raise bad_request("can't parse keyboard button: field 'text' must be a non-empty string")
    return label


def labels(markup: dict[str, Any] | None) -> tuple[str, ...]:
    """Return the labels of all buttons of a checked markup, row by row."""
    rows = (markup or {}).get("inline_keyboard") or (markup or {}).get("keyboard") or []
    return tuple(_label(button) for button in _buttons(rows))


def inline_button(markup: dict[str, Any] | None, label: str) -> dict[str, Any] | None:
    """Return the first inline button of that label, or None."""
    rows = (markup or {}).get("inline_keyboard") or []
    return next((button for button in _buttons(rows) if button["text"] == label), None)
