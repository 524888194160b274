"""How large a record may be; the same bounds hold for writing and for reading."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from sessionkit.errors import ConfigurationError, RecordTooLarge

MAX_DEPTH: Final = 128
"""Keeps our recursion, a few frames per level, well inside the interpreter's default limit of 1000."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a codec. Lower one only with care: records already written above it cannot be read.

    With the defaults, whatever the bytes, a record is decoded or refused in at most eight times
    ``stored_bytes`` of memory, and in less than a tenth of a second of an ordinary machine; on top comes
    what functions of registered types do, and to read the files of time zones that the process has not in
    use, about a tenth of a millisecond each. ``items`` is what both depend on most.

    Attributes:
        stored_bytes: The most bytes of a whole record.
        items: The most elements of a record: every list item, dict key and dict value counts one, every
            container one more, also to say what it is if it is no list or dict; and a value that msgpack has
            no type for, such as a datetime, four more (a Fraction sixteen). A record of fewer bytes than
            this, or of fewer than three times this if it is plain data, is read without being counted.
        depth: The most containers inside one another, at most 128; a registered object counts as one.
        string_bytes: The most bytes of one str in UTF-8, of one bytes, or of any other value that holds no
            others.
        int_bytes: The most bytes of one int that does not fit into 64 bits.
    """

    stored_bytes: int = 4 * 1024 * 1024
    items: int = 50_000
    depth: int = 64
    string_bytes: int = 1024 * 1024
    int_bytes: int = 64 * 1024

    def __post_init__(self) -> None:
        for field in fields(self):
            bound = getattr(self, field.name)
            if type(bound) is not int or bound < 1:
                raise ConfigurationError(f"Limits.{field.name} is a whole number above zero, not {bound!r}")
        if self.depth > MAX_DEPTH:
            raise ConfigurationError(f"Limits.depth is at most {MAX_DEPTH}, not {self.depth}")

    def refusal(self, what: str, name: str) -> RecordTooLarge:
        """Return the error for ``what`` exceeds the limit of that name."""
        return RecordTooLarge(
            f"{what}, and the limit is {getattr(self, name)}:"
            f" to raise it, use the codec Settings.load().codec(limits=Limits({name}=…))"
        )
