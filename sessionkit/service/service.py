"""``SessionService``: create, read, change and end validation sessions."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sessionkit.arguments import check_kind
from sessionkit.codec import Codec
from sessionkit.errors import (
    CodecError,
    ConfigurationError,
    CorruptRecord,
    InvalidExpiry,
    InvalidKey,
    SessionExists,
    SessionExpired,
    StoreError,
    UnsupportedType,
    VersionConflict,
)
from sessionkit.keys import KeySpace
from sessionkit.quarantine import Quarantine, check_on_corrupt
from sessionkit.service.edits import editing
from sessionkit.service.records import SessionRecord
from sessionkit.settings import Settings
from sessionkit.store import ABSENT, Absent, SessionStore, check_expiry, read_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sessionkit.errors import SessionKitError
    from sessionkit.quarantine import OnCorrupt
    from sessionkit.service.session import Session, SessionId
    from sessionkit.store import Clock, Record, Version

logger = logging.getLogger("sessionkit.service")

DEFAULT_IDLE_TIMEOUT: Final = 300.0
_UPDATE_ATTEMPTS: Final = 100


class SessionService:
    """Validation sessions in a store.

    Args:
        store: Where they are kept. The service does not close it.
        namespace: The kind part of their keys; another bot feature takes another.
        idle_timeout: Silence that ends a session: seconds or a timedelta; None: silence does not end it.
            Creating, editing, updating and ``get_session`` count as signs of life.
        lifetime: The longest a session may live from its creation, whatever renews it; None: no bound.
        prefix: What every key starts with; None: what the settings say, ``telegram_bot:`` by default.
        codec: What turns data into bytes; its migrations take data for the kind ``namespace``. None: one that
            compresses and encrypts as the settings say. Build one with types of your own by
            ``Settings.load().codec()``.
        on_corrupt: What becomes of a damaged record that is met: ``"raise"`` keeps it and raises
            ``CorruptRecord``; ``"quarantine"`` moves it aside for thirty days, and the session reads as
            absent. A record that can be read elsewhere, of a newer schema or by a key that is missing here,
            is never moved.
        clock: Gives the time in seconds since the Unix epoch; tests pass their own.

    Raises:
        ConfigurationError: The store, the codec or ``on_corrupt`` is none, or the settings cannot be read.
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
        prefix: str | None = None,
        codec: Codec | None = None,
        on_corrupt: OnCorrupt = "raise",
        clock: Clock = time.time,
    ) -> None:
        if not isinstance(store, SessionStore):
            raise ConfigurationError(
                f"SessionService works on a store, not on {type(store).__name__}: pass it open_store(url)"
            )
        check_kind("codec", codec, Codec)
        check_on_corrupt(on_corrupt)
        self._store = store
        self._keys = KeySpace(namespace, Settings.load().prefix if prefix is None else prefix)
        self._idle_timeout = _seconds("idle_timeout", idle_timeout)
        self._lifetime = _seconds("lifetime", lifetime)
        self._codec = codec if codec is not None else Settings.load().codec()
        self._clock = clock
        self._quarantine = (
            Quarantine(store, self._codec, self._keys.prefix, clock=clock)
            if on_corrupt == "quarantine"
            else None
        )

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
            replace: Whether to end a live session of that id in favour of this one. A damaged record is
                replaced, too; one that can be read elsewhere is not.

        Raises:
            SessionExists: There is a live session of that id, and ``replace`` is false.
            UnsupportedType: The data holds a value that the codec does not keep; the message has its path.
            CodecError: What is stored there cannot be read here, such as a record of a newer schema or of a
                key that is missing; it is kept as it is.
            StoreError: It is not certain that the session was created; see ``applied``.
        """
        key = self._key(session_id)
        now = self._clock()
        ends = None if self._lifetime is None else now + self._lifetime
        if data is not None and not isinstance(data, Mapping):
            raise UnsupportedType(f"session {session_id!r}: data is a mapping, not {type(data).__name__}")
        record = SessionRecord(dict(data or {}), state, now, now, ends)
        value = self._codec.wrap(record.pack(self._codec, session_id), key=key)
        expires_in = self._expiry(now, ends)
        if replace:
            await self._replace(key, session_id, value, expires_in)
        else:
            await self._create(key, session_id, value, expires_in)
        logger.info("session created", extra=_facts(session_id, state))
        return record.session(session_id, renewed=now, idle_timeout=self._idle_timeout)

    async def get_session(self, session_id: SessionId, *, renew: bool = True) -> Session | None:
        """Return a copy of the session, or None if there is none.

        Args:
            session_id: A user's id, or a tuple of parts.
            renew: Whether this counts as a sign of life that starts the idle timeout anew.

        Raises:
            CorruptRecord: What is stored is damaged; it is kept as it is. Not with
                ``on_corrupt="quarantine"``.
            CodecError: What is stored cannot be read here; it is kept as it is.
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
            SessionExpired: There is no such session, or it ended while it was edited.
            NestedEdit: This task is editing it already.
            LockNotAcquired: Another edit kept it for ``wait`` seconds.
            VersionConflict: Somebody wrote the session without an edit; nothing is kept.
            UnsupportedType: A value cannot be kept; the message has its path; nothing is kept.
            StoreError: It is not certain that the changes were kept; see ``applied``.
        """
        key = self._key(session_id)
        with editing(self._store, key):
            async with self._store.lock(key, wait=wait):
                session, base = await self._load_live(key, session_id)
                yield session
                await self._save(key, session, base)

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
        for _ in range(_UPDATE_ATTEMPTS - 1):
            with suppress(VersionConflict):
                return await self._change(key, session_id, change)
        return await self._change(key, session_id, change)

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
        async for key, record in read_all(self._store, self._keys.start, self._pass_over):
            session = self._read(key, record)
            if session is not None:
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

    async def _create(self, key: str, session_id: SessionId, value: bytes, expires_in: float | None) -> None:
        try:
            await self._store.put(key, value, expires_in=expires_in, if_version=ABSENT)
        except VersionConflict as conflict:
            # A record past its session's lifetime is in nobody's way; looking at it removes it.
            if isinstance(conflict.current, Absent) or await self.get_session(session_id, renew=False):
                raise _exists(session_id) from None
            try:
                await self._store.put(key, value, expires_in=expires_in, if_version=ABSENT)
            except VersionConflict:
                raise _exists(session_id) from None

    async def _replace(self, key: str, session_id: SessionId, value: bytes, expires_in: float | None) -> None:
        for _ in range(_UPDATE_ATTEMPTS - 1):
            with suppress(VersionConflict):
                await self._put_over(key, session_id, value, expires_in)
                return
        await self._put_over(key, session_id, value, expires_in)

    async def _put_over(
        self, key: str, session_id: SessionId, value: bytes, expires_in: float | None
    ) -> None:
        there: Version | Absent = ABSENT
        failure: StoreError | None = None
        try:
            record = await self._store.get(key)
        except StoreError as error:
            if not error.temporary:
                raise
            failure = error
        else:
            if record is not None:
                try:
                    self._open(key, record, session_id)
                except CorruptRecord as error:
                    if await self._moved(key, record, error):
                        record = None
            there = ABSENT if record is None else record.version
        try:
            await self._store.put(key, value, expires_in=expires_in, if_version=there)
        except VersionConflict:
            if failure is None:
                raise
            # What cannot be looked at is not overwritten: it may be of a newer schema.
            raise failure from None

    async def _load(self, key: str, session_id: SessionId, *, renew: bool) -> tuple[Session, _Base] | None:
        record = await self._store.get(key, renew_for=self._idle_timeout if renew else None)
        if record is None:
            return None
        try:
            stored, plain = self._open(key, record, session_id)
        except CorruptRecord as error:
            if self._quarantine is None or record.stale:
                raise
            if await self._moved(key, record, error):
                return None
            return await self._load(key, session_id, renew=renew)
        now = self._clock()
        if stored.ends is not None:
            if now >= stored.ends:
                with suppress(VersionConflict):
                    await self._store.delete(key, if_version=record.version)
                return None
            if renew and self._expiry(now, stored.ends) != self._idle_timeout:
                # The renewal reached past the end of the session's lifetime. A session that has taken its
                # place meanwhile has an expiry of its own.
                with suppress(VersionConflict):
                    await self._store.touch(key, expires_in=stored.ends - now, if_version=record.version)
        session = stored.session(
            session_id,
            renewed=now if renew else stored.renewed,
            idle_timeout=self._idle_timeout,
            degraded=record.stale,
        )
        return session, _Base(stored, plain, record.version)

    async def _load_live(self, key: str, session_id: SessionId) -> tuple[Session, _Base]:
        loaded = await self._load(key, session_id, renew=True)
        if loaded is None:
            raise _expired(session_id)
        return loaded

    async def _change(
        self, key: str, session_id: SessionId, change: Callable[[Session], Awaitable[None] | None]
    ) -> Session:
        session, base = await self._load_live(key, session_id)
        result = change(session)
        if inspect.isawaitable(result):
            await result
        await self._save(key, session, base)
        return session

    async def _save(self, key: str, session: Session, base: _Base) -> Version:
        before = base.session
        unchanged = replace(before, data=session.data, state=session.state)
        if unchanged.pack(self._codec, session.id) == base.plain:
            return base.version
        now = self._clock()
        after = replace(unchanged, renewed=now)
        value = self._codec.wrap(after.pack(self._codec, session.id), key=key)
        if before.ends is not None and now >= before.ends:
            raise _expired(session.id)
        try:
            receipt = await self._store.put(
                key, value, expires_in=self._expiry(now, before.ends), if_version=base.version
            )
        except VersionConflict as conflict:
            if conflict.current is ABSENT:
                raise _expired(session.id) from None
            raise
        logger.debug("session saved", extra=_facts(session.id, session.state))
        return receipt.version

    def _open(self, key: str, record: Record, session_id: SessionId) -> tuple[SessionRecord, bytes]:
        try:
            plain = self._codec.unwrap(record.value, key=key)
            return SessionRecord.unpack(self._codec, plain, self._keys.namespace), plain
        except CodecError as error:
            raise type(error)(f"session {session_id!r}: {error}") from None

    async def _moved(self, key: str, record: Record, error: CorruptRecord) -> bool:
        if self._quarantine is None or record.stale:
            return False
        return await self._quarantine.take(key, record, error)

    def _pass_over(self, key: str, error: SessionKitError) -> None:
        logger.error("session %s is not readable, passed over: %s", key, error, extra={"key": key})

    def _read(self, key: str, record: Record) -> Session | None:
        try:
            session_id = self._id(key)
            stored, _ = self._open(key, record, session_id)
        except (CodecError, InvalidKey) as error:
            self._pass_over(key, error)
            return None
        if stored.ends is not None and self._clock() >= stored.ends:
            return None
        return stored.session(
            session_id, renewed=stored.renewed, idle_timeout=self._idle_timeout, degraded=record.stale
        )


class _Base(NamedTuple):
    """What a session was loaded from."""

    session: SessionRecord
    plain: bytes
    version: Version


def _seconds(name: str, timeout: float | timedelta | None) -> float | None:
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    try:
        check_expiry(seconds)
    except InvalidExpiry as error:
        raise InvalidExpiry(f"{name}: {error}") from None
    return seconds


def _exists(session_id: SessionId) -> SessionExists:
    return SessionExists(f"session {session_id!r} exists; end it first, or create it with replace=True")


def _expired(session_id: SessionId) -> SessionExpired:
    return SessionExpired(f"there is no session {session_id!r}: it timed out, ended, or never was")


def _facts(session_id: SessionId, state: Any) -> dict[str, Any]:
    return {"session_id": session_id, "state": state}
