"""Checks of constructors' arguments, so that all of them refuse alike."""

from __future__ import annotations

import inspect
import math
from difflib import get_close_matches
from typing import TYPE_CHECKING

from sessionkit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuse what is neither None nor an object of a class.

    Args:
        name: What the argument is called.
        value: What was given.
        kind: The class; a protocol that is inherited from will do, too.

    Raises:
        ConfigurationError: It is something else.
    """
    if value is not None and kind not in type(value).__mro__:
        raise ConfigurationError(f"{name} is a {kind.__name__} or None, not {value!r:.80}")


def check_number(name: str, value: object, *, at_most: float = math.inf) -> None:
    """Refuse what is no number above 0.

    Args:
        name: What the argument is called.
        value: What was given.
        at_most: The largest that will do.

    Raises:
        ConfigurationError: It is none, or too large.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= at_most:
        bound = "" if at_most == math.inf else f" and at most {at_most}"
        raise ConfigurationError(f"{name} is a number above 0{bound}, not {value!r:.80}")


def check_whole(name: str, value: object) -> None:
    """Refuse what is no whole number above 0.

    Args:
        name: What the argument is called.
        value: What was given.

    Raises:
        ConfigurationError: It is none.
    """
    if type(value) is not int or value <= 0:
        raise ConfigurationError(f"{name} is a whole number above 0, not {value!r:.80}")


def check_names(kind: type, given: Iterable[str]) -> None:
    """Refuse arguments that no constructor of a class and its bases takes.

    Args:
        kind: The class.
        given: The arguments' names.

    Raises:
        ConfigurationError: One is unknown.
    """
    known = {
        parameter.name
        for base in kind.__mro__
        if "__init__" in vars(base)
        for parameter in inspect.signature(vars(base)["__init__"]).parameters.values()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    for name in given:
        if name not in known:
            raise ConfigurationError(f"{kind.__name__} does not know {name!r}{suggestion(name, known)}")


def suggestion(name: str, known: Collection[str]) -> str:
    """Return what to add to an error about an unknown name: the one that is probably meant, or nothing."""
    meant = get_close_matches(name, known, n=1)
    return f" (did you mean {meant[0]!r}?)" if meant else ""
