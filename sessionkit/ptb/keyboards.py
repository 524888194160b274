"""The data behind keyboards, for a process that did not send them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from telegram import Update
from telegram.ext import CallbackDataCache, ExtBot, InvalidCallbackData

from sessionkit.errors import CodecError

if TYPE_CHECKING:
    from sessionkit.ptb.data_keys import DataKeys
    from sessionkit.ptb.ledger import Ledger
    from sessionkit.ptb.private import AnyApplication
    from sessionkit.ptb.work import Work


class Keyboards:
    """PTB's cache of callback data, with a record for each keyboard behind it.

    Args:
        application: Whose bot's cache.
        keys: Gives the keys of the records.
        ledger: Where they are held.
    """

    def __init__(self, application: AnyApplication, keys: DataKeys, ledger: Ledger) -> None:
        self._application = application
        self._keys = keys
        self._ledger = ledger
        self._known: set[str] = set()

    def add_needed(self, work: Work, update: object) -> None:
        """Add to an update's work the keyboard that its callback query was pressed on, if it is not here."""
        pressed = _not_found(update)
        if pressed is not None and self._cache() is not None:
            uuid, _ = CallbackDataCache.extract_uuids(pressed)
            if uuid:
                work.add(KeyboardSlot(self._keys.keyboards.key(uuid), self, uuid))

    def filled(self, update: object) -> object:
        """Return the update with the data that were loaded for it."""
        cache, bot = self._cache(), self._application.bot
        pressed = _not_found(update)
        if cache is None or pressed is None or not isinstance(update, Update) or not isinstance(bot, ExtBot):
            return update
        if CallbackDataCache.extract_uuids(pressed)[0] not in self._known:
            return update
        again = Update.de_json(_raw(update.to_dict()), bot)
        bot.insert_callback_data(again)
        return again

    def put(self, uuid: str, access_time: float, buttons: dict[str, Any]) -> None:
        """Put a keyboard into PTB's cache."""
        cache = self._cache()
        if cache is not None:
            cache.load_persistence_data(([(uuid, access_time, buttons)], {}))
            self._known.add(uuid)

    def hold(self) -> list[str]:
        """Hold what was sent, and drop what was dropped, since this was asked last; return the keys."""
        cache = self._cache()
        if cache is None:
            return []
        keyboards, _ = cache.persistence_data
        known, self._known = self._known, {uuid for uuid, _, _ in keyboards}
        keys: list[str] = []
        for uuid, access_time, buttons in keyboards:
            if uuid not in known:
                key = self._keys.keyboards.key(uuid)
                keys.append(key)
                with suppress(CodecError):  # the ledger's check tells, as of the other data of an update
                    self._ledger.hold(key, (access_time, buttons))
        # In a full cache the missing ones have made way for others, and are still good.
        if len(keyboards) < cache.maxsize:
            for uuid in known - self._known:
                key = self._keys.keyboards.key(uuid)
                keys.append(key)
                with suppress(CodecError):
                    self._ledger.hold(key, None)
        return keys

    def _cache(self) -> CallbackDataCache | None:
        cache: CallbackDataCache | None = getattr(self._application.bot, "callback_data_cache", None)
        return cache


class KeyboardSlot:
    """The data behind a keyboard, which never change.

    Args:
        key: The record's key.
        keyboards: Where they go.
        uuid: PTB's id of the keyboard.
    """

    __slots__ = ("_keyboards", "_stored", "_uuid", "key")

    def __init__(self, key: str, keyboards: Keyboards, uuid: str) -> None:
        self.key = key
        self._keyboards = keyboards
        self._uuid = uuid
        self._stored: object | None = None

    def read(self) -> object | None:
        """Return what was stored: when a button was last pressed is PTB's own business."""
        return self._stored

    def write(self, value: object | None) -> None:
        """See ``Slot.write``; PTB's cache has its own bound."""
        self._stored = value
        match value:
            case (float(access_time), dict(buttons)):
                self._keyboards.put(self._uuid, access_time, buttons)


def raw_update(update: Update) -> tuple[dict[str, Any], bool]:
    """Return an update as what Telegram sent, and whether the button pressed is in it as Telegram sent it.

    Where PTB's cache knew the button, the object behind it stands in its place.
    """
    fields: dict[str, Any] = _raw(update.to_dict())
    raw = _not_found(update) is not None
    if update.callback_query is not None and not raw:
        fields["callback_query"]["data"] = update.callback_query.data  # which to_dict makes lists of
    return fields, raw


def _not_found(update: object) -> str | None:
    """Return what Telegram sent for a button that PTB's cache does not know."""
    if isinstance(update, Update) and update.callback_query is not None:
        data: object = update.callback_query.data
        if isinstance(data, InvalidCallbackData):
            return data.callback_data
    return None


def _raw(value: Any) -> Any:
    """Return an update's JSON as Telegram sent it."""
    if isinstance(value, InvalidCallbackData):
        return value.callback_data
    if isinstance(value, dict):
        return {name: _raw(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_raw(each) for each in value]
    return value
