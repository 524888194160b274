"""``SessionService``: create, read, change and end validation sessions."""

from __future__ import annotations

import inspect
import logging
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sessionkit.codec import MsgpackCodec
from sessionkit.errors import CodecError, InvalidKey, SessionExists, SessionExpired, VersionConflict
from sessionkit.keys import DEFAULT_PREFIX, KeySpace
from sessionkit.service.edits import editing
from sessionkit.service.records import SessionRecord
from sessionkit.store import ABSENT, milliseconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from sessionkit.codec import Codec
    from sessionkit.service.session import Session, SessionId
    from sessionkit.store import Clock, Record, SessionStore, Version

logger = logging.getLogger("sessionkit.service")

DEFAULT_IDLE_TIMEOUT: Final = 300.0
_PAGE: Final = 200
_UPDATE_ATTEMPTS: Final = 100


class SessionService:
    """Validation sessions in a store.

    Args:
        store: Where they are kept. The service does not close it.
        namespace: The kind part of their keys; another bot feature takes another.
        idle_timeout: Silence that ends a session: seconds or a timedelta; None: silence does not end it.
            Creating, editing, updating and ``get_session`` count as signs of life.
        lifetime: The longest a session may live from its creation, whatever renews it; None: no bound.
        prefix: What every key starts with.
        codec: What turns data into bytes.
        clock: Gives the time in seconds since the Unix epoch; tests pass their own.

    Raises:
        InvalidExpiry: A timeout is not above zero.
        InvalidKey: The namespace or the prefix cannot be part of a key.
    """

    def __init__(
        self,
        store: SessionStore,
        namespace: str = "session",
        *,
        idle_timeout: float | timedelta | None = DEFAULT_IDLE_TIMEOUT,
        lifetime: float | timedelta | None = None,
        prefix: str = DEFAULT_PREFIX,
        codec: Codec | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._store = store
        self._keys = KeySpace(namespace, prefix)
        self._idle_timeout = _seconds(idle_timeout)
        self._lifetime = _seconds(lifetime)
        self._codec = codec if codec is not None else MsgpackCodec()
        self._clock = clock

    async def create_session(
        self,
        session_id: SessionId,
        data: Mapping[Any, Any] | None = None,
        *,
        state: Any = None,
        replace: bool = False,
    ) -> Session:
        """Create a session and return it.

        Args:
            session_id: A user's id, or a tuple of parts.
            data: What it holds at first.
            state: The state it is in at first.
            replace: Whether to end a live session of that id in favour of this one.

        Raises:
            SessionExists: There is a live session of that id, and ``replace`` is false.
            UnsupportedType: The data holds a value that the codec does not keep; the message has its path.
            StoreError: It is not certain that the session was created; see ``applied``.
        """
        key = self._key(session_id)
        now = self._clock()
        ends = None if self._lifetime is None else now + self._lifetime
        record = SessionRecord(dict(data or {}), state, now, now, ends)
        value = record.encode(self._codec, session_id)
        try:
            await self._store.put(
                key, value, expires_in=self._expiry(now, ends), if_version=None if replace else ABSENT
            )
        except VersionConflict:
            raise SessionExists(
                f"session {session_id!r} exists; end it first, or create it with replace=True"
            ) from None
        logger.info("session created", extra=_facts(session_id, state))
        return record.session(session_id, renewed=now, idle_timeout=self._idle_timeout)

    async def get_session(self, session_id: SessionId, *, renew: bool = True) -> Session | None:
        """Return a copy of the session, or None if there is none.

        Args:
            session_id: A user's id, or a tuple of parts.
            renew: Whether this counts as a sign of life that starts the idle timeout anew.

        Raises:
            CorruptRecord: What is stored is damaged; it is kept as it is.
            StoreError: The store could not be asked. None is never returned for that.
        """
        loaded = await self._load(self._key(session_id), session_id, renew=renew)
        return None if loaded is None else loaded[0]

    @asynccontextmanager
    async def edit_session(
        self, session_id: SessionId, *, wait: float | None = 10.0
    ) -> AsyncIterator[Session]:
        """Give the session to change while nobody else edits it; keep the changes when the body ends well.

        If the body raises, nothing is kept. If it changes nothing, nothing is sent.

        Args:
            session_id: A user's id, or a tuple of parts.
            wait: Seconds to wait for another edit to end; None: for ever.

        Raises:
            SessionExpired: There is no such session.
            NestedEdit: This task is editing it already.
            LockNotAcquired: Another edit kept it for ``wait`` seconds.
            VersionConflict: Somebody wrote or ended the session without an edit; nothing is kept.
            UnsupportedType: A value cannot be kept; the message has its path; nothing is kept.
            StoreError: It is not certain that the changes were kept; see ``applied``.
        """
        key = self._key(session_id)
        with editing(key):
            async with self._store.lock(key, wait=wait):
                session, record = await self._load_live(key, session_id)
                yield session
                await self._save(key, session, record)

    async def update_session(
        self, session_id: SessionId, change: Callable[[Session], Awaitable[None] | None]
    ) -> Session:
        """Change the session without a lock: read it, call ``change``, and write it if nobody else did.

        Args:
            session_id: A user's id, or a tuple of parts.
            change: Changes the session it is given, in place; may be a coroutine function. It is called again
                on a fresh copy if somebody else wrote in between, so it should do nothing else.

        Returns:
            The session as it was written.

        Raises:
            SessionExpired: There is no such session.
            VersionConflict: Others kept writing in between, a hundred times.
            UnsupportedType: As ``edit_session``.
            StoreError: As ``edit_session``.
        """
        key = self._key(session_id)
        for attempt in range(1, _UPDATE_ATTEMPTS + 1):
            session, record = await self._load_live(key, session_id)
            result = change(session)
            if inspect.isawaitable(result):
                await result
            try:
                await self._save(key, session, record)
            except VersionConflict:
                if attempt == _UPDATE_ATTEMPTS:
                    raise
            else:
                return session
        raise AssertionError("the loop returns or raises")

    async def cleanup_session(
        self, session_id: SessionId, reference: str | None = None, *, reason: str = "completed"
    ) -> bool:
        """End the session and return whether there was one.

        Args:
            session_id: A user's id, or a tuple of parts.
            reference: What the bot calls the transaction; it goes to the log with the reason.
            reason: Why: ``completed``, ``cancelled``, or the bot's own word.

        Raises:
            StoreError: It is not certain that the session ended; see ``applied``.
        """
        ended = await self._store.delete(self._key(session_id))
        logger.info(
            "session ended" if ended else "no session to end",
            extra={"session_id": session_id, "reason": reason, "reference": reference},
        )
        return ended

    async def active_sessions(self) -> AsyncIterator[Session]:
        """Yield every live session, without renewing any; damaged ones are logged and passed over.

        A session's ``deadline`` is then the earliest it can be, as a renewal by reading is not written down.

        Raises:
            StoreError: The store could not be asked.
        """
        page: list[str] = []
        async for key in self._store.scan(self._keys.start):
            page.append(key)
            if len(page) == _PAGE:
                for session in await self._read_page(page):
                    yield session
                page = []
        for session in await self._read_page(page):
            yield session

    async def count_sessions(self) -> int:
        """Return how many live sessions there are, counted by their keys.

        Raises:
            StoreError: The store could not be asked.
        """
        return len({key async for key in self._store.scan(self._keys.start)})

    def _key(self, session_id: SessionId) -> str:
        return self._keys.key(*session_id) if isinstance(session_id, tuple) else self._keys.key(session_id)

    def _id(self, key: str) -> SessionId:
        parts = self._keys.parts(key)
        return parts[0] if len(parts) == 1 else parts

    def _expiry(self, now: float, ends: float | None) -> float | None:
        left = [] if ends is None else [ends - now]
        if self._idle_timeout is not None:
            left.append(self._idle_timeout)
        return min(left) if left else None

    async def _load(self, key: str, session_id: SessionId, *, renew: bool) -> tuple[Session, Record] | None:
        record = await self._store.get(key, renew_for=self._idle_timeout if renew else None)
        if record is None:
            return None
        stored = SessionRecord.decode(self._codec, record.value, session_id)
        now = self._clock()
        if stored.ends is not None:
            if now >= stored.ends:
                return None
            if renew and self._expiry(now, stored.ends) != self._idle_timeout:
                # The renewal reached past the end of the session's lifetime.
                await self._store.touch(key, expires_in=stored.ends - now)
        session = stored.session(
            session_id, renewed=now if renew else stored.renewed, idle_timeout=self._idle_timeout
        )
        return session, record

    async def _load_live(self, key: str, session_id: SessionId) -> tuple[Session, Record]:
        loaded = await self._load(key, session_id, renew=True)
        if loaded is None:
            raise SessionExpired(f"there is no session {session_id!r}: it timed out, ended, or never was")
        return loaded

    async def _save(self, key: str, session: Session, base: Record) -> Version:
        before = SessionRecord.decode(self._codec, base.value, session.id)
        unchanged = SessionRecord(session.data, session.state, before.created, before.renewed, before.ends)
        if unchanged.encode(self._codec, session.id) == base.value:
            return base.version
        now = self._clock()
        after = SessionRecord(session.data, session.state, before.created, now, before.ends)
        receipt = await self._store.put(
            key,
            after.encode(self._codec, session.id),
            expires_in=self._expiry(now, before.ends),
            if_version=base.version,
        )
        logger.debug("session saved", extra=_facts(session.id, session.state))
        return receipt.version

    async def _read_page(self, keys: list[str]) -> list[Session]:
        sessions = []
        for key, record in (await self._store.get_many(keys)).items():
            try:
                session_id = self._id(key)
                stored = SessionRecord.decode(self._codec, record.value, session_id)
            except (CodecError, InvalidKey) as error:
                logger.error("session not readable", extra={"key": key, "error": str(error)})
                continue
            if stored.ends is None or self._clock() < stored.ends:
                sessions.append(
                    stored.session(session_id, renewed=stored.renewed, idle_timeout=self._idle_timeout)
                )
        return sessions


def _seconds(timeout: float | timedelta | None) -> float | None:
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if seconds is not None:
        milliseconds(seconds)
    return seconds


def _facts(session_id: SessionId, state: Any) -> dict[str, Any]:
    return {"session_id": session_id, "state": state}
