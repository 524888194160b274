"""A file of records holds what was written, or says that it does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.errors import ConfigurationError, CorruptRecord
from sessionkit.transfer import Digest, ExportFile, ExportWriter, MovedRecord

if TYPE_CHECKING:
    from pathlib import Path

RECORDS = [
    MovedRecord("bot:a", b"\x00\xff", None),
    MovedRecord("bot:ä\n{", b"", 1_800_000_000.123),
    MovedRecord("bot:c", bytes(range(20)), 1_800_000_000),
]


def digest_of(records: list[MovedRecord]) -> Digest:
    digest = Digest()
    for record in records:
        digest.add(record.key, record.value)
    return digest


def write(path: Path, records: list[MovedRecord], *, finish: bool = True, prefix: str = "bot:") -> None:
    with ExportWriter(path, prefix) as writer:
        writer.append(records)
        if finish:
            writer.finish()


def read(path: Path) -> list[MovedRecord]:
    return [record for page in ExportFile(path).pages() for record in page]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.jsonl"


def test_records_come_back(path: Path) -> None:
    write(path, RECORDS)
    assert read(path) == RECORDS
    checked = ExportFile(path).check()
    assert checked.keys == {record.key for record in RECORDS}
    assert checked.digest == digest_of(RECORDS)
    assert checked.last == (3, str(digest_of(RECORDS)))


def test_the_format_is_as_documented(path: Path) -> None:
    write(path, RECORDS[:1])
    lines = path.read_bytes().splitlines(keepends=True)
    for line in lines:
        assert line.isascii()
        _, after = line.rstrip(b"\n").split(b",", 1)
        assert json.loads(line)["crc"] == f"{crc32(after):08x}"
    head, record, last = (dict(json.loads(line), crc=None) for line in lines)
    assert head == {"crc": None, "format": "sessionkit records", "version": 1, "prefix": "bot:"}
    assert record == {"crc": None, "key": "bot:a", "value": "AP8=", "expires": None}
    assert last == {"crc": None, "records": 1, "digest": str(digest_of(RECORDS[:1]))}


@given(st.lists(st.tuples(st.text(), st.binary()), unique_by=lambda pair: pair[0]), st.randoms())
def test_a_digest_knows_no_order_and_every_byte(pairs: list[tuple[str, bytes]], random: object) -> None:
    records = [MovedRecord(key.encode("utf-8", "replace").decode(), value, None) for key, value in pairs]
    assert digest_of(records) == digest_of(records[::-1])
    for at, record in enumerate(records):
        others = records[:at] + records[at + 1 :]
        assert digest_of(others) != digest_of(records)
        assert digest_of([*others, record._replace(value=record.value + b"\x00")]) != digest_of(records)
        assert digest_of([*others, record._replace(key=record.key + "x")]) != digest_of(records)


def test_a_file_cut_anywhere_is_gone_on_with(path: Path) -> None:
    write(path, RECORDS)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    # Around each line feed, and here and there.
    ends = {end for end in range(first, len(whole)) if end % 16 == 0 or b"\n" in whole[end - 2 : end + 2]}
    for end in sorted(ends):
        path.write_bytes(whole[:end])
        assert ExportFile(path).check().last is None
        with ExportWriter(path, "bot:") as writer:
            writer.append([record for record in RECORDS if record.key not in writer.keys])
            writer.finish()
        assert path.read_bytes() == whole, end


def test_a_file_damaged_anywhere_is_noticed(path: Path) -> None:
    write(path, RECORDS[:2])
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert ExportFile(path).check().last is None
            assert at == len(whole) - 1, "the last line feed is gone, so the file is not finished"
        except (CorruptRecord, ConfigurationError) as error:
            assert str(path) in str(error)


def test_a_missing_line_is_noticed(path: Path) -> None:
    write(path, RECORDS)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(CorruptRecord, match="are not those that its last line tells of"):
        ExportFile(path).check()


def test_nothing_is_appended_to_what_is_something_else(path: Path) -> None:
    write(path, RECORDS, finish=False)
    with pytest.raises(ConfigurationError, match="an export of the prefix 'bot:', not 'shop:'"):
        ExportWriter(path, "shop:")
    write(path, [])
    with pytest.raises(ConfigurationError, match="is a finished export"):
        ExportWriter(path, "bot:")
    for content in (b"something else", b"something\nelse\n"):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match="is no file of `sessionkit export`"):
            ExportWriter(path, "bot:")
        assert path.read_bytes() == content
    with pytest.raises(ConfigurationError, match="cannot be written: No such file"):
        ExportWriter(path.parent / "missing" / "file", "bot:")
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        ExportFile(path.parent / "missing")


@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [
        ({"format": "sessionkit records", "version": 2, "prefix": ""}, ConfigurationError, "newer version"),
        ({"format": "sessionkit records", "version": 1}, ConfigurationError, "is no file of"),
        ({"key": "a", "value": "not base64", "expires": None}, CorruptRecord, "line 2 holds no record"),
        ({"key": "a", "value": "AAAA", "expires": "soon"}, CorruptRecord, "line 2 holds no record"),
        ({"key": 1, "value": "AAAA", "expires": None}, CorruptRecord, "line 2 holds no record"),
    ],
)
def test_whole_lines_of_no_use_are_refused(
    path: Path, content: dict[str, object], error: type[Exception], reason: str
) -> None:
    rest = json.dumps(content)[1:].encode()
    line = b'{"crc":"%08x",%b\n' % (crc32(rest), rest)
    write(path, [], finish=False)
    path.write_bytes(line if "format" in content else path.read_bytes() + line)
    with pytest.raises(error, match=reason):
        ExportFile(path).check()


def test_values_are_not_shown() -> None:
    assert repr(RECORDS[0]) == "MovedRecord(key='bot:a', value=<2 bytes>, expires_at=None)"
