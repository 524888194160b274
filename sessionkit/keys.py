"""Keys: ``<prefix><namespace>:<id>[:<id>…]``, reversible and safe whatever the ids hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from sessionkit.errors import InvalidKey

KeyPart: TypeAlias = int | str
"""A part of a key's id. An int and the str of its digits are different parts, and stay so."""

DEFAULT_PREFIX: Final = "telegram_bot:"

PREFIX_RULE: Final = "a key prefix is made of letters, digits and _ . ~ : -"

_INT: Final = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)
_MAX_DIGITS: Final = 100
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.~:-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class KeySpace:
    """The keys of one namespace.

    Args:
        namespace: The kind part, such as ``session`` or ``user_data``.
        prefix: What all keys of the bot start with; letters, digits and ``_ . ~ : -``.

    Raises:
        InvalidKey: The namespace is empty or holds a separator, or the prefix holds other characters.
    """

    namespace: str
    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        if not _is_plain(self.namespace) or not self.namespace or ":" in self.namespace:
            raise InvalidKey(f"{self.namespace!r}: a namespace is made of letters, digits and _ . ~ -")
        if not _is_plain(self.prefix):
            raise InvalidKey(f"{self.prefix!r}: {PREFIX_RULE}")

    @property
    def start(self) -> str:
        """What every key of the namespace starts with, and no key of another does."""
        return f"{self.prefix}{self.namespace}:"

    def key(self, *parts: KeyPart) -> str:
        """Return the key of an id.

        Args:
            parts: One or more ints or non-empty strings.

        Raises:
            InvalidKey: A part is empty, of another type, or text that UTF-8 cannot hold.
        """
        if not parts:
            raise InvalidKey(f"{self.namespace}: a key needs at least one id part")
        try:
            return self.start + ":".join([_encode(part) for part in parts])
        except InvalidKey as error:
            raise InvalidKey(f"{self.namespace}: {error}") from None

    def parts(self, key: str) -> tuple[KeyPart, ...]:
        """Return the parts that ``key`` was made of.

        Raises:
            InvalidKey: It is no key of this namespace, or not one that ``key`` would have made.
        """
        if not key.startswith(self.start):
            raise InvalidKey(f"{key!r} does not start with {self.start!r}")
        return tuple(_decode(part) for part in key[len(self.start) :].split(":"))


def _is_plain(text: object) -> bool:
    return isinstance(text, str) and _PREFIX.fullmatch(text) is not None


def _encode(part: KeyPart) -> str:
    if isinstance(part, bool) or not isinstance(part, (int, str)):
        raise InvalidKey(f"an id part is an int or a str, not {type(part).__name__}")
    if isinstance(part, int):
        if abs(part) >= 10**_MAX_DIGITS:
            raise InvalidKey(f"an int in a key has at most {_MAX_DIGITS} digits")
        return int.__str__(part)
    if not part:
        raise InvalidKey("an id part is not empty")
    try:
        text = quote(part, safe="")
    except UnicodeEncodeError:
        raise InvalidKey(f"{part!a}: an id part holds no lone surrogates") from None
    # The text of an int gets an escaped first character, so that it is not taken for the int.
    return f"%{ord(text[0]):02X}{text[1:]}" if _INT.fullmatch(text) else text


def _decode(text: str) -> KeyPart:
    if _INT.fullmatch(text):
        if len(text) > _MAX_DIGITS + 1:
            raise _foreign(text)
        return int(text)
    try:
        part = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise _foreign(text) from None
    if not part or _encode(part) != text:
        raise _foreign(text)
    return part


def _foreign(text: str) -> InvalidKey:
    return InvalidKey(f"{text[:80]!r} is not an id part that sessionkit wrote")
