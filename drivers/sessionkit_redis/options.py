"""How to talk to a server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import NoneType
from typing import TYPE_CHECKING, Final, NamedTuple

from sessionkit.errors import ConfigurationError, StoreUnavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from redis.credentials import CredentialProvider


class Login(NamedTuple):
    """Who connects, and how that is proved."""

    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return "Login(...)"


NO_LOGIN: Final = Login()

_KINDS: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "db": ((int,), "a whole number"),
    "username": ((str, NoneType), "text"),
    "password": ((str, NoneType), "text"),
    "timeout": ((int, float), "a number of seconds"),
    "client_name": ((str,), "text"),
}


@dataclass(frozen=True, kw_only=True)
class RedisOptions:
    """How to talk to a server.

    Attributes:
        db: Number of the logical database.
        username: ACL user, or None for the default user.
        password: Password, or None.
        credential_provider: Is asked for both at each connect, instead: for tokens that change.
        timeout: Seconds an operation may take, connecting included, before it raises ``StoreTimeout``.
        client_name: The name the server shows in ``CLIENT LIST``.
        tls: What secures the connection, or None for plain text.
    """

    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    credential_provider: CredentialProvider | None = field(default=None, repr=False)
    timeout: float = 5.0
    client_name: str = "sessionkit"
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, (kinds, wanted) in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise ConfigurationError(f"redis: {name} is {wanted}, not of type {type(value).__name__}")
        if not self.timeout > 0:
            raise ConfigurationError(f"redis: timeout is above 0 seconds, not {self.timeout!r}")
        if self.db < 0:
            raise ConfigurationError(f"redis: a database number is 0 or more, not {self.db!r}")
        if not self.client_name.isascii() or not self.client_name.isprintable() or " " in self.client_name:
            raise ConfigurationError("redis: client_name is printable ASCII without spaces")
        if self.credential_provider is not None and (self.username or self.password):
            raise ConfigurationError(
                "redis: credential_provider is given, and a user name or password too; keep one of them"
            )

    async def login(self, where: str, deadline: float) -> Login:
        """Return the user name and password to connect with.

        Args:
            where: The server's URL without credentials, for errors.
            deadline: When to give up, by the event loop's clock.

        Raises:
            StoreUnavailable: The credential provider failed; temporary if it could not reach what it asks.
        """
        if self.credential_provider is None:
            return Login(self.username, self.password)
        try:
            async with asyncio.timeout_at(deadline):
                given = await self.credential_provider.get_credentials_async()
            username, password = (None, *given) if len(given) == 1 else given
        except Exception as error:
            # Its text may quote what it asked with, so only its name is passed on.
            raise StoreUnavailable(
                f"{where}: its credential_provider failed ({type(error).__name__})",
                temporary=isinstance(error, OSError),
            ) from None
        return Login(username, password)
