"""How a session stands in a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sessionkit.errors import CodecError, CorruptRecord
from sessionkit.service.session import Session

if TYPE_CHECKING:
    from sessionkit.codec import Codec
    from sessionkit.service.session import SessionId


_LAST: Final = 253_402_300_800.0
"""The first second that a datetime cannot hold, the end of the year 9999."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session's stored form; times in seconds since the Unix epoch.

    Attributes:
        data: The session's data.
        state: Its state.
        created: When it was created.
        renewed: When it was last written.
        ends: When its lifetime is over, or None.
    """

    data: dict[Any, Any]
    state: Any
    created: float
    renewed: float
    ends: float | None

    def encode(self, codec: Codec, session_id: SessionId) -> bytes:
        """Return the record's bytes; an error names the session and the path to the value."""
        return codec.encode(
            {
                "data": self.data,
                "state": self.state,
                "created": self.created,
                "renewed": self.renewed,
                "ends": self.ends,
            },
            name=f"session {session_id!r}",
        )

    @classmethod
    def decode(cls, codec: Codec, value: bytes, session_id: SessionId) -> SessionRecord:
        """Return the record in these bytes.

        Raises:
            CodecError: They cannot be decoded.
            CorruptRecord: They hold something else than a session.
        """
        try:
            decoded = codec.decode(value)
        except CodecError as error:
            raise type(error)(f"session {session_id!r}: {error}") from None
        match decoded:
            case {
                "data": dict(data),
                "state": state,
                "created": float(created),
                "renewed": float(renewed),
                "ends": float() | None as ends,
            } if all(0 <= time < _LAST for time in (created, renewed, 0.0 if ends is None else ends)):
                return cls(data, state, created, renewed, ends)
        raise CorruptRecord(f"session {session_id!r}: the record holds something else than a session")

    def session(
        self, session_id: SessionId, *, renewed: float, idle_timeout: float | None, degraded: bool = False
    ) -> Session:
        """Return the session for a caller to work on."""
        return Session(
            session_id,
            self.data,
            state=self.state,
            created=self.created,
            renewed=renewed,
            ends=self.ends,
            idle_timeout=idle_timeout,
            degraded=degraded,
        )
