"""``SessionStore``: what every driver, and every wrapper around one, must do."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Iterable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from sessionkit.store.locks import Lease
    from sessionkit.store.records import Absent, Capabilities, Delete, Put, Receipt, Record, Version


@runtime_checkable
class SessionStore(Protocol):
    """An asynchronous store of records: bytes under text keys, each with a version and a time to live.

    Rules that hold for every method:

    - "Not there" is a value (``None``, ``False``, a missing entry); "could not ask" is a ``StoreError``. A
      store must never answer the first for the second.
    - Arguments are checked before anything is sent: ``InvalidKey``, ``InvalidExpiry``, ``UnsupportedType``,
      ``RecordTooLarge``.
    - ``StoreUnavailable`` and ``StoreTimeout`` say by ``applied`` whether the operation may have happened.
    - A cancelled call may or may not have happened. It must leave the store usable, and its answer must never
      reach another caller.
    - An expired record is absent for every method from the moment it expires.
    - Construction connects to nothing; the first call does.
    - After ``aclose`` every call raises ``StoreUnavailable`` with ``temporary=False``.
    """

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this store declares of itself."""
        ...

    @abstractmethod
    async def get(self, key: str, *, renew_for: float | None = None) -> Record | None:
        """Must return the record, or None where there is none.

        Args:
            key: The record's key.
            renew_for: Where given, a record that is there must expire this many seconds from now, whatever
                its expiry was, in the same atomic step as the read. It must never create a record.

        Raises:
            CorruptRecord: The backend holds something under this key that no sessionkit wrote.
        """
        ...

    @abstractmethod
    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expires_in: float | None = None,
        if_version: Version | Absent | None = None,
        write_id: Version | None = None,
    ) -> Receipt:
        """Must replace the whole record and its expiry in one atomic step, and return its new version.

        When it returns, the write is as durable as ``capabilities.durable`` says.

        Args:
            key: The record's key.
            value: The bytes to keep; an empty value is a value.
            expires_in: Seconds, above zero; milliseconds count. None: the record does not expire, even if
                the one it replaces did.
            if_version: Write only if the record is at this version now; ``ABSENT``: only if there is none.
            write_id: The version to give the write. A write whose id is among the record's last ``RING_SIZE``
                is already applied: it must be acknowledged again and change nothing, whatever ``if_version``
                says. That makes a retry safe. None: the store makes an id.

        Raises:
            VersionConflict: ``if_version`` was given and is not the record's version; nothing was written.
            CorruptRecord: The backend holds something under this key that no sessionkit wrote; it is kept.
        """
        ...

    @abstractmethod
    async def delete(self, key: str, *, if_version: Version | None = None) -> bool:
        """Must remove the record, and return whether there was one.

        Args:
            key: The record's key.
            if_version: Remove only if the record is at this version now.

        Raises:
            VersionConflict: There is a record, at another version; it is kept.
        """
        ...

    @abstractmethod
    async def touch(self, key: str, *, expires_in: float | None, if_version: Version | None = None) -> bool:
        """Must set the record's expiry and return True, or return False where there is no record.

        It must neither write the value, nor change the version, nor create a record.

        Args:
            key: The record's key.
            expires_in: Seconds from now, or None for a record that does not expire.
            if_version: Only if the record is at this version now.

        Raises:
            VersionConflict: There is a record, at another version; its expiry is left.
        """
        ...

    @abstractmethod
    async def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """Must return the records that are there, in one round trip per node; the others are left out.

        Raises:
            CorruptRecord: As ``get``.
        """
        ...

    @abstractmethod
    async def put_many(self, puts: Iterable[Put]) -> list[Receipt]:
        """Must attempt every put, in one round trip per node, and return the receipts in the order given.

        Each put is atomic; the batch is not. Puts of one key take effect in the order given.

        Raises:
            BatchFailed: Some failed; its ``results`` say which, and the others took effect.
            StoreUnavailable: The batch as a whole could not be sent or answered; see ``applied``.
        """
        ...

    @abstractmethod
    async def delete_many(self, keys: Iterable[str]) -> int:
        """Must remove the records in one round trip per node, and return how many there were."""
        ...

    @abstractmethod
    def scan(self, prefix: str) -> AsyncIterator[str]:
        """Must yield the keys that start with ``prefix``, compared as text: no character is a wildcard.

        A key present throughout must be yielded at least once; one absent throughout must not be. It must
        read in pages, so that neither the server nor the caller holds all keys at once.

        Args:
            prefix: Text, possibly empty: all keys.

        Raises:
            InvalidKey: The prefix is no text.
        """
        ...

    @abstractmethod
    def lock(
        self, key: str, *, lease: float = 30.0, wait: float | None = 10.0
    ) -> AbstractAsyncContextManager[Lease]:
        """Must give one holder at a time, among all that share the records, the lock named ``key``.

        The lock is apart from the record of the same key, and is never yielded by ``scan``. Within one store
        waiters are served in the order they came. While the body runs the lease is renewed. A lock promises
        one *intended* holder: a holder that stalls past its lease may meet another, so correctness rests on
        ``if_version``.

        Args:
            key: The lock's name.
            lease: Seconds after which the lock of a dead holder is free again.
            wait: Seconds to wait for another holder; 0: do not wait; None: for ever.

        Raises:
            InvalidKey: The key is none.
            InvalidExpiry: The lease is not above zero.
            ConfigurationError: The wait is negative.
            LockNotAcquired: Another holder kept it for ``wait`` seconds.
            LeaseLost: Out of the body, which is cancelled: the lock expired, was taken over, or the store was
                closed.
            StoreUnavailable: The store was closed while it waited.
        """
        ...

    @abstractmethod
    async def ping(self) -> float:
        """Must ask the backend for a sign of life and return the seconds it took."""
        ...

    @abstractmethod
    async def aclose(self) -> None:
        """Must finish what was accepted, release everything held, and be harmless when called again."""
        ...

    async def __aenter__(self) -> Self:
        """Return the store itself; a driver inherits this."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the store; a driver inherits this."""
        await self.aclose()


@runtime_checkable
class AtomicStore(SessionStore, Protocol):
    """A store that can write several records all or none, where its ``capabilities.atomic`` says so."""

    @abstractmethod
    async def write_all(self, writes: Iterable[Put | Delete], *, write_id: Version | None = None) -> Receipt:
        """Must do all of the writes in one atomic step, or none.

        Nobody sees some of them done and others not, whoever dies in between. It takes one round trip, and
        no pages: the writes are to be few.

        Args:
            writes: Puts without a ``write_id`` of their own, and deletions, each of another key. A deletion
                of what is not there is done; one without a condition removes whatever stands there.
            write_id: The version that every put makes. Where one of their records has it among its last
                ``RING_SIZE`` write ids, all is done already: it must be acknowledged again and change
                nothing, whatever the conditions say. Deletions alone leave no record that could remember
                them, and are carried out again. None: the store makes an id.

        Returns:
            The version of every put, and where the writes are.

        Raises:
            BatchRefused: Records are not at the version expected, or are none that a sessionkit wrote; its
                ``refusals`` say which. Nothing was written.
            ConfigurationError: A key stands twice, a put has an id of its own, or the store cannot write
                these records together: ``capabilities.atomic`` is False.
            RecordTooLarge: A value is over its bound, or all together are over ``MAX_VALUE_BYTES``.
        """
        ...


@runtime_checkable
class RecodingStore(SessionStore, Protocol):
    """A store that can put other bytes in the place of a record's that say the same, as when keys change."""

    @abstractmethod
    async def recode(self, key: str, value: bytes, *, if_version: Version) -> bool:
        """Must replace a record's bytes and return True, or return False where there is no record.

        It must change neither the version nor the expiry: who holds the record's version goes on as if
        nothing had happened. So the bytes must decode to the same value.

        Args:
            key: The record's key.
            value: The bytes to keep instead.
            if_version: Only if the record is at this version now.

        Raises:
            VersionConflict: There is a record, at another version; it is left.
            CorruptRecord: As ``put``.
        """
        ...


@runtime_checkable
class TimedStore(SessionStore, Protocol):
    """A store that can tell when its records expire, as who copies them elsewhere needs to know."""

    @abstractmethod
    async def time_left(self, keys: Iterable[str]) -> dict[str, float | None]:
        """Must return the seconds until each record expires, or None for one that does not.

        Of a key without a record there must be no entry. It takes one round trip per node, and renews
        nothing.
        """
        ...


@runtime_checkable
class FileStore(SessionStore, Protocol):
    """A store that lies in one file on this machine's disk, and so can keep a journal, if it is atomic.

    Each write is synced to the disk before it is acknowledged; the writes of one key take effect in the order
    in which they were asked, also when several are asked without waiting.
    """

    @property
    @abstractmethod
    def path(self) -> str | os.PathLike[str]:
        """The file."""
        ...


@runtime_checkable
class PlacedStore(SessionStore, Protocol):
    """A store that can tell where its records are."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Must be the same text wherever these records are opened, and another one for others.

        It has no credentials, and does not tell whether the way there is encrypted.
        """
        ...
