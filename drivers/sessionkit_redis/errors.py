"""The one boundary where the server's errors and the network's become ours.

Neither a reply's text nor an exception's is passed on: both may quote a key's value or a password.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple

from sessionkit.errors import (
    Applied,
    CorruptRecord,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from sessionkit_redis.transport import ErrorReply

_LOGIN: Final = "refused the login: set the right user name and password, in the URL or as options"
_SENTINEL_LOGIN: Final = "refused the login: a Sentinel's is set by sentinel_username and sentinel_password"
_CLUSTER: Final = "is a node of a cluster: use redis+cluster:// in its URL"
_TEMPORARY: Final = {
    "LOADING": "is still loading its data",
    "BUSY": "is busy with somebody's script",
    "OOM": "is out of memory (its maxmemory is reached)",
    "MISCONF": "refuses writes because it cannot save to disk",
    "READONLY": "is a read-only replica",
    "MASTERDOWN": "is a replica that lost its primary",
    "NOREPLICAS": "has too few replicas to accept writes",
    "CLUSTERDOWN": "belongs to a cluster that is down",
    "TRYAGAIN": "is moving this key to another node",
}
_LASTING: Final = {
    "NOAUTH": _LOGIN,
    "WRONGPASS": _LOGIN,
    "NOPERM": "does not allow this user this command or key: see its ACL rules",
    "MOVED": _CLUSTER,
    "ASK": _CLUSTER,
    "CROSSSLOT": _CLUSTER,
}
_LOGIN_REFUSALS: Final = (
    ("max number of clients", "has no connection left (see its maxclients)", True),
    (
        "protected mode",
        "is in protected mode: it takes remote clients only with a password (its requirepass), or once its"
        " protected-mode is off",
        False,
    ),
    (
        "hello",
        "does not know HELLO 3: the driver needs Redis 6 or newer, and a proxy in between must pass it",
        False,
    ),
    ("noproto", "does not speak RESP3, which came with Redis 6", False),
    ("db index", "has no database of that number", False),
    ("select is not allowed", "is a cluster, which has database 0 only", False),
)


def from_reply(reply: ErrorReply, where: str) -> StoreUnavailable:
    """Return our error for a server's refusal.

    Args:
        reply: The refusal.
        where: The server's URL without credentials.
    """
    for word in reply.words:
        if word in _TEMPORARY:
            return StoreUnavailable(f"{where} {_TEMPORARY[word]}")
        if word in _LASTING:
            return StoreUnavailable(f"{where} {_LASTING[word]}", temporary=False)
    return StoreUnavailable(f"{where} refused the command ({reply.code})", temporary=False)


def from_login_reply(reply: ErrorReply, where: str, *, sentinel: bool = False) -> StoreUnavailable:
    """Return our error for a server's refusal of a new connection.

    Args:
        reply: The refusal.
        where: The server's URL without credentials.
        sentinel: Whether it is a Sentinel, whose login is given elsewhere.
    """
    if sentinel and _LASTING.get(reply.code) == _LOGIN:
        return StoreUnavailable(f"{where} {_SENTINEL_LOGIN}", temporary=False)
    text = reply.text.lower()
    for sign, meaning, temporary in _LOGIN_REFUSALS:
        if sign in text and reply.code not in _LASTING:
            return StoreUnavailable(f"{where} {meaning}", temporary=temporary)
    return from_reply(reply, where)


class _Meaning(NamedTuple):
    kinds: tuple[type[Exception], ...]
    error: type[StoreError]
    temporary: bool
    text: str


_NO_TLS: Final = (
    "could not agree on TLS: is this its TLS port, and does it want a certificate of the client"
    " (ssl_cert_file and ssl_key_file)?"
)

# The first that fits.
_EXCEPTIONS: Final = (
    _Meaning((TimeoutError,), StoreTimeout, True, "did not answer in time"),
    _Meaning(
        (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError, ConnectionResetError),
        StoreUnavailable,
        True,
        "closed the connection",
    ),
    _Meaning((ssl.SSLError,), StoreUnavailable, False, _NO_TLS),
)

# OpenSSL's codes for a chain that ends at no authority that is trusted.
_UNKNOWN_ISSUER: Final = frozenset({2, 18, 19, 20, 21})


def from_exception(error: Exception, where: str, applied: Applied) -> StoreError:
    """Return our error for an exception met on the way to the server or back.

    Args:
        error: What the network raised.
        where: The server's URL without credentials.
        applied: NO if nothing was sent yet, else MAYBE.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        # OpenSSL's words, e.g. "certificate has expired": about the certificate, and nothing of ours.
        hint = "; a private CA is named by ssl_ca_file" if error.verify_code in _UNKNOWN_ISSUER else ""
        return StoreUnavailable(
            f"{where} showed a certificate that is not accepted: {error.verify_message}{hint}",
            temporary=False,
            applied=applied,
        )
    for meaning in _EXCEPTIONS:
        if isinstance(error, meaning.kinds):
            return meaning.error(f"{where} {meaning.text}", temporary=meaning.temporary, applied=applied)
    if isinstance(error, OSError):
        return StoreUnavailable(
            f"{where} cannot be reached{_reason(error)}: is the server running, and is its address right?",
            applied=applied,
        )
    return StoreUnavailable(
        f"{where} failed in an unforeseen way ({type(error).__name__})", temporary=False, applied=applied
    )


def _reason(error: OSError) -> str:
    if error.errno is None:
        return ""  # several addresses, each with its own
    # asyncio puts an address in strerror's place; the codes of a failed look-up are not the system's.
    text = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno)
    return f" ({text})"


def store_closed(where: str) -> StoreUnavailable:
    """Return the error for a call of a store that was closed."""
    return StoreUnavailable(f"the store at {where} is closed", temporary=False)


def copy_for(error: StoreError, applied: Applied) -> StoreError:
    """Return the same error for one more caller; a shared one would collect the tracebacks of all.

    Args:
        error: What happened.
        applied: Whether this caller's commands may have been applied.
    """
    return type(error)(str(error), temporary=error.temporary, applied=applied)


def corrupt(key: str, where: str) -> CorruptRecord:
    """Return the error for a key that holds something no sessionkit wrote."""
    return CorruptRecord(f"{where} holds something under {key!r} that sessionkit did not write; it is kept")
