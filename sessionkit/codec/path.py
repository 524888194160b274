"""Where in a value something is, in the words of who wrote it: ``user_data.cart[2]``."""

from __future__ import annotations

from typing import Final, NamedTuple

_SHOWN: Final = 40
_SHOWN_STEPS: Final = 8
"""How many are shown of either end of a path that is longer."""


class Index(NamedTuple):
    """An item of a list, tuple or deque."""

    at: int


class Item(NamedTuple):
    """The value under a key."""

    key: object


class Key(NamedTuple):
    """A key itself."""

    key: object


class Element(NamedTuple):
    """An element of a set."""


class Inside(NamedTuple):
    """What the function registered under a tag made of an object."""

    tag: str


Step = Index | Item | Key | Element | Inside


def render(name: str, steps: list[Step]) -> str:
    """Return the path as text: printable, and short whatever the keys are and however deep it leads."""
    if len(steps) > 2 * _SHOWN_STEPS:
        return f"{render(name, steps[:_SHOWN_STEPS])}…{render('', steps[-_SHOWN_STEPS:])}"
    return name + "".join(map(_step, steps))


def _step(step: Step) -> str:
    match step:
        case Index(at):
            return f"[{at}]"
        case Item(key) if isinstance(key, str) and key.isidentifier() and len(key) <= _SHOWN:
            return f".{key}"
        case Item(key):
            return f"[{_shown(key)}]"
        case Key(key):
            return f".keys()[{_shown(key)}]"
        case Element():
            return "{…}"
        case Inside(tag):
            return f"<{tag}>"


def _shown(key: object) -> str:
    if type(key) is tuple and len(key) <= 4:
        return f"({', '.join(map(_atom, key))})"
    return _atom(key)


def _atom(key: object) -> str:
    if key is None or type(key) in (bool, float):
        return repr(key)
    if type(key) is int:
        return repr(key) if key.bit_length() <= 128 else "<int>"
    if isinstance(key, (str, bytes)) and type(key) in (str, bytes):
        return ascii(key) if len(key) <= _SHOWN else f"{key[:_SHOWN]!a}…"
    return f"<{type(key).__qualname__}>"
