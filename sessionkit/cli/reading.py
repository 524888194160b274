"""How the commands read records: whatever the bots' schema, and encrypted or not."""

from __future__ import annotations

from datetime import UTC, datetime

from sessionkit.codec import MAX_SCHEMA, Limits, MsgpackCodec
from sessionkit.codec.limits import MAX_DEPTH
from sessionkit.settings import Settings
from sessionkit.store import MAX_VALUE_BYTES


def reading_codec() -> MsgpackCodec:
    """Return a codec with the settings' keys that reads what any bot with these keys wrote.

    Raises:
        ConfigurationError: The settings are wrong.
    """
    settings = Settings.load()
    return MsgpackCodec(
        limits=Limits(
            stored_bytes=MAX_VALUE_BYTES,
            items=MAX_VALUE_BYTES,
            depth=MAX_DEPTH,
            string_bytes=MAX_VALUE_BYTES,
            int_bytes=MAX_VALUE_BYTES,
        ),
        schema=MAX_SCHEMA,
        compression=settings.compression,
        keyring=settings.keyring(),
        strict=False,
    )


def showing_codec() -> MsgpackCodec:
    """Return a codec as ``reading_codec`` does, that also reads python-telegram-bot's own objects.

    Raises:
        ConfigurationError: The settings are wrong.
    """
    # Here, as importing python-telegram-bot takes longer than most commands.
    from sessionkit.ptb import register_telegram_objects

    codec = reading_codec()
    register_telegram_objects(codec)
    return codec


def time_of(seconds: float) -> str:
    """Return a time since the Unix epoch as text, in UTC."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return "at no time there is"
