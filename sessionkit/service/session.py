"""A session: what the service hands out and keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from sessionkit.keys import KeyPart

SessionId: TypeAlias = KeyPart | tuple[KeyPart, ...]
"""What names a session: a user's id, or several parts such as ``(chat_id, user_id)``."""


class Session(MutableMapping[Any, Any]):
    """One user's validation session: a mutable mapping of its data, and a few facts about it.

    This is a copy: changes are kept only inside ``SessionService.edit_session`` and ``update_session``.

    Attributes:
        id: What names it.
        state: Where in its steps it is, as the bot calls it; None at the start.
        data: Its data, a plain dict; ``session[name]`` is short for ``session.data[name]``.
        created_at: When it was created, in UTC.
        renewed_at: When it was last written or read with renewal, in UTC, as far as this copy knows.
        deadline: When it ends if nothing renews it, in UTC; None if never.
        degraded: Whether this copy may be stale because the backend could not be asked.
    """

    __slots__ = ("_created", "_ends", "_idle_timeout", "_renewed", "data", "degraded", "id", "state")

    def __init__(
        self,
        session_id: SessionId,
        data: Mapping[Any, Any],
        *,
        state: Any = None,
        created: float,
        renewed: float,
        ends: float | None = None,
        idle_timeout: float | None = None,
        degraded: bool = False,
    ) -> None:
        self.id = session_id
        self.data = dict(data)
        self.state = state
        self.degraded = degraded
        self._created = created
        self._renewed = renewed
        self._ends = ends
        self._idle_timeout = idle_timeout

    @property
    def created_at(self) -> datetime:
        """When the session was created, in UTC."""
        return datetime.fromtimestamp(self._created, UTC)

    @property
    def renewed_at(self) -> datetime:
        """When the session was last written, or read with renewal, in UTC."""
        return datetime.fromtimestamp(self._renewed, UTC)

    @property
    def deadline(self) -> datetime | None:
        """When the session ends if nothing renews it, in UTC; None if never."""
        ends = [] if self._ends is None else [self._ends]
        if self._idle_timeout is not None:
            ends.append(self._renewed + self._idle_timeout)
        return datetime.fromtimestamp(min(ends), UTC) if ends else None

    def __getitem__(self, name: Any) -> Any:
        return self.data[name]

    def __setitem__(self, name: Any, value: Any) -> None:
        self.data[name] = value

    def __delitem__(self, name: Any) -> None:
        del self.data[name]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        # A session that holds nothing yet is there all the same: `if session` asks for that.
        return True

    def __repr__(self) -> str:
        # Data may be personal; a repr ends up in logs.
        return f"<Session {self.id!r} state={self.state!r} of {len(self.data)} entries>"
