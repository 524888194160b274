"""A file of records.

JSON Lines: each line is one JSON object, in ASCII, whose first entry ``crc`` is the CRC-32, in eight
hexadecimal digits, of all that follows the comma after it up to the line feed.

========== ======================================================================================
line       entries besides ``crc``
========== ======================================================================================
the first  ``format``: ``"sessionkit records"``, ``version``: 1, ``prefix``: what the keys start with
each other ``key``, ``value``: the bytes in base64, ``expires``: seconds since the Unix epoch, or null
the last   ``records``: how many there are, ``digest``: their digest, see ``Digest``
========== ======================================================================================

It is written from its begin to its end and nowhere else. A file without its last line is not finished; what
follows the last line feed of such a file was being written when the writer was killed.
"""

from __future__ import annotations

import json
import os
import re
from base64 import b64decode, b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self
from zlib import crc32

from sessionkit.errors import ConfigurationError, CorruptRecord
from sessionkit.store import MAX_VALUE_BYTES
from sessionkit.transfer.records import Digest, MovedRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedRandom
    from pathlib import Path
    from types import TracebackType

FORMAT: Final = "sessionkit records"
VERSION: Final = 1

_LINE: Final = re.compile(rb'\{"crc":"([0-9a-f]{8})",(.+)\n', re.DOTALL)
_LONGEST: Final = MAX_VALUE_BYTES // 3 * 4 + 1024 * 1024
_PAGE: Final = 100


class ExportFile:
    """A file of records, to be read.

    Args:
        path: The file.

    Attributes:
        prefix: What its keys start with.

    Raises:
        ConfigurationError: There is no such file, or it is no export, or one of a newer sessionkit.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _reading(path), path.open("rb") as file:
            head = _content(file.readline(_LONGEST))
        if head is None or head.get("format") != FORMAT or not isinstance(head.get("prefix"), str):
            raise ConfigurationError(f"{path} is no file of `sessionkit export`")
        if head.get("version") != VERSION:
            raise ConfigurationError(f"{path} is of a newer version of sessionkit")
        self.prefix: str = head["prefix"]

    def check(self) -> Checked:
        """Read the whole file, and return what is in it.

        Raises:
            CorruptRecord: It is damaged.
            ConfigurationError: It cannot be read.
        """
        checked = Checked()
        for record in self._records(checked):
            checked.digest.add(record.key, record.value)
            checked.keys.add(record.key)
        if checked.last is not None and checked.last != (checked.digest.count, str(checked.digest)):
            raise CorruptRecord(f"{self._path}: its records are not those that its last line tells of")
        return checked

    def pages(self) -> Iterator[list[MovedRecord]]:
        """Yield the records, some at a time, those of an unfinished file, too.

        Raises:
            CorruptRecord: The file is damaged.
            ConfigurationError: It cannot be read.
        """
        page: list[MovedRecord] = []
        for record in self._records(Checked()):
            page.append(record)
            if len(page) == _PAGE:
                yield page
                page = []
        if page:
            yield page

    def _records(self, checked: Checked) -> Iterator[MovedRecord]:
        with _reading(self._path), self._path.open("rb") as file:
            checked.end = len(file.readline(_LONGEST))
            number = 1
            while line := file.readline(_LONGEST):
                number += 1
                if not line.endswith(b"\n") and len(line) < _LONGEST and checked.last is None:
                    return  # its writer was killed
                content = _content(line)
                if content is None or checked.last is not None:
                    raise CorruptRecord(f"{self._path}: line {number} is damaged")
                checked.end += len(line)
                if "digest" in content:
                    checked.last = (content.get("records"), content["digest"])
                    continue
                record = _record(content)
                if record is None:
                    raise CorruptRecord(f"{self._path}: line {number} holds no record")
                yield record


class Checked:
    """What a whole file of records holds.

    Attributes:
        keys: The keys.
        digest: The number and digest of the records.
        end: How many bytes of the file are whole lines.
        last: What its last line tells of: how many records there are, and their digest. None: it is not
            finished.
    """

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.digest = Digest()
        self.end = 0
        self.last: tuple[object, object] | None = None


class ExportWriter:
    """Writes a file of records, or goes on with one that is not finished.

    Args:
        path: The file.
        prefix: What the keys start with.

    Attributes:
        keys: The keys of the records that are in the file.
        digest: Their number and digest.

    Raises:
        ConfigurationError: There is a finished file, or one of another prefix, or something else; or it
            cannot be written.
        CorruptRecord: There is one, and it is damaged.
    """

    def __init__(self, path: Path, prefix: str) -> None:
        self._path = path
        checked = Checked()
        begun = path.exists() and path.stat().st_size > 0
        if begun:
            file = ExportFile(path)
            checked = file.check()
            if checked.last is not None:
                raise ConfigurationError(f"{path} is a finished export; choose another file")
            if file.prefix != prefix:
                raise ConfigurationError(
                    f"{path} is an export of the prefix {file.prefix!r}, not {prefix!r}; choose another file"
                )
        self.keys = checked.keys
        self.digest = checked.digest
        with self._writing():
            self._file: BufferedRandom = path.open("r+b" if begun else "w+b")
            self._file.truncate(checked.end)
            self._file.seek(checked.end)
            if not begun:
                self._file.write(_line({"format": FORMAT, "version": VERSION, "prefix": prefix}))
                self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._writing():
            self._file.close()

    def append(self, records: Sequence[MovedRecord]) -> None:
        """Write records that are not in the file yet.

        Raises:
            ConfigurationError: It cannot be written.
        """
        with self._writing():
            for record in records:
                value = b64encode(record.value).decode("ascii")
                expires = None if record.expires_at is None else round(record.expires_at, 3)
                self._file.write(_line({"key": record.key, "value": value, "expires": expires}))
                self.digest.add(record.key, record.value)
                self.keys.add(record.key)
            self._file.flush()

    def finish(self) -> None:
        """Write the last line, and have the file on the disk.

        Raises:
            ConfigurationError: It cannot be written.
        """
        with self._writing():
            self._file.write(_line({"records": self.digest.count, "digest": str(self.digest)}))
            self._file.flush()
            os.fsync(self._file.fileno())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigurationError(f"{self._path} cannot be written: {error.strerror}") from None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None


def _line(content: dict[str, Any]) -> bytes:
    rest = json.dumps(content, separators=(",", ":"))[1:].encode("ascii")
    return b'{"crc":"%08x",%b\n' % (crc32(rest), rest)


def _content(line: bytes) -> dict[str, Any] | None:
    """Return what a line says, or None if it is not whole."""
    found = _LINE.fullmatch(line)
    if found is None or int(found[1], 16) != crc32(found[2]):
        return None
    try:
        content: dict[str, Any] = json.loads(b"{" + found[2])
    except ValueError:
        return None
    return content


def _record(content: dict[str, Any]) -> MovedRecord | None:
    """Return the record of a line, or None if it holds none."""
    match content:
        case {"key": str(key), "value": str(value), "expires": (int() | float() | None) as expires}:
            try:
                return MovedRecord(key, b64decode(value, validate=True), expires)
            except ValueError:
                pass
    return None
