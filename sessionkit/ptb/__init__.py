"""python-telegram-bot on a sessionkit store.

``SessionPersistence`` is a ``BasePersistence`` for any ``Application``. ``SessionApplication`` also commits
after every update, and lets a handler say with ``on_commit`` what may happen only once its changes are safe.
"""

from sessionkit.ptb.application import SessionApplication
from sessionkit.ptb.commits import on_commit
from sessionkit.ptb.persistence import SessionPersistence

__all__ = ["SessionApplication", "SessionPersistence", "on_commit"]
