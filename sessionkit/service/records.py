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

    def pack(self, codec: Codec, session_id: SessionId) -> bytes:
        """Return the plain record; an error names the session and the path to the value."""
        return codec.pack(
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
    def unpack(cls, codec: Codec, plain: bytes, kind: str) -> SessionRecord:
        """Return the session in a plain record.

        Its data are migrated, being the bot's; what stands around them is ours.

        Args:
            codec: What packed it.
            plain: The record.
            kind: What kind of data the codec's migrations take them for.

        Raises:
            CodecError: It cannot be unpacked, or its data not be migrated.
            CorruptRecord: It holds something else than a session.
        """
        match codec.unpack(plain):
            case {
                "data": dict(data),
                "state": state,
                "created": float(created),
                "renewed": float(renewed),
                "ends": float() | None as ends,
            } if all(0 <= time < _LAST for time in (created, renewed, 0.0 if ends is None else ends)):
                pass
            case _:
                raise CorruptRecord("the record holds something else than a session")
        migrated = codec.migrate(data, plain, kind=kind)
        if not isinstance(migrated, dict):
            raise CodecError(
                f"the migrations made {type(migrated).__name__} of the session's data, and no dict"
            )
        return cls(migrated, state, created, renewed, ends)

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
