"""How large a record may be; the same bounds hold for writing and for reading."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from sessionkit.errors import ConfigurationError

MAX_DEPTH: Final = 128
"""Keeps our recursion, a few frames per level, well inside the interpreter's default limit of 1000."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a codec. Lower one only with care: records already written above it cannot be read.

    Attributes:
        stored_bytes: The most bytes of a whole record, and so of any one string in it.
        depth: The most containers inside one another, at most 128; a registered object counts as one.
        int_bytes: The most bytes of one integer.
        items: The most elements of a record: every list item, dict key and dict value counts one, and every
            container one more. It bounds what a record of many empty containers unpacks to; a record of
            fewer bytes than this is read without being counted.
    """

    stored_bytes: int = 16 * 1024 * 1024
    depth: int = 64
    int_bytes: int = 64 * 1024
    items: int = 1_000_000

    def __post_init__(self) -> None:
        for field in fields(self):
            bound = getattr(self, field.name)
            if type(bound) is not int or bound < 1:
                raise ConfigurationError(f"Limits.{field.name} is a whole number above zero, not {bound!r}")
        if self.depth > MAX_DEPTH:
            raise ConfigurationError(f"Limits.depth is at most {MAX_DEPTH}, not {self.depth}")
