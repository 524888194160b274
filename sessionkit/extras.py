"""The extras of sessionkit, and what is said where the packages of one are missing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'sessionkit[{extra}]'"


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Import in the body what an extra brings.

    Raises:
        ModuleNotFoundError: A package is missing; the message says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name!r} is missing: {how_to_install(extra)}", name=error.name, path=error.path
        ) from error
