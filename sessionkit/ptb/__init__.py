"""python-telegram-bot on a sessionkit store.

``SessionPersistence`` is a ``BasePersistence`` for any ``Application``. ``SessionApplication`` also loads
before and commits after every update, so that several instances can share the work, and lets a handler say
with ``on_commit`` what may happen only once its changes are safe. ``register_telegram_objects`` has a codec
keep python-telegram-bot's own objects.
"""

from sessionkit.extras import needing

with needing("ptb"):
    from sessionkit.ptb.application import SessionApplication
    from sessionkit.ptb.commits import on_commit
    from sessionkit.ptb.inbox import DurableInbox
    from sessionkit.ptb.jobs import SessionJobQueue
    from sessionkit.ptb.migration import migrate_chat
    from sessionkit.ptb.persistence import SessionPersistence
    from sessionkit.ptb.replayed import merge_records
    from sessionkit.ptb.telegram_objects import register_telegram_objects

__all__ = [
    "DurableInbox",
    "SessionApplication",
    "SessionJobQueue",
    "SessionPersistence",
    "merge_records",
    "migrate_chat",
    "on_commit",
    "register_telegram_objects",
]
