"""The files that a bot received or sent, and their Telegram JSON."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from sessionkit.testing.botapi.errors import bad_request

DOWNLOAD_LIMIT = 20 * 2**20
UPLOAD_LIMIT = 50 * 2**20


@dataclass(frozen=True)
class Kind:
    """How Telegram treats a kind of file.

    Attributes:
        folder: The first part of its download path.
        suffix: The suffix of a file sent without a name.
        mime_type: The type of a file sent without one.
        id_prefix: How its ``file_id`` starts.
    """

    folder: str
    suffix: str
    mime_type: str
    id_prefix: str


KINDS = {
    "audio": Kind("music", ".mp3", "audio/mpeg", "CQAC"),
    "document": Kind("documents", ".bin", "application/octet-stream", "BQAC"),
    "photo": Kind("photos", ".jpg", "image/jpeg", "AgAC"),
    "voice": Kind("voice", ".oga", "audio/ogg", "AwAC"),
}


@dataclass(frozen=True)
class StoredFile:
    """One file as a bot sees it.

    Attributes:
        kind: A name of ``KINDS``.
        data: Its bytes.
        path: Where below ``base_file_url`` and the token it can be downloaded.
        details: What Telegram tells of it: ``file_id``, ``file_size``, ``duration``, ``title``, ....
    """

    kind: str
    data: bytes = field(repr=False)
    path: str
    details: dict[str, Any]

    def as_content(self) -> dict[str, Any]:
        """Return the message field that carries the file; a photo is a list of sizes."""
        return {self.kind: [self.details] if self.kind == "photo" else self.details}

    def as_file(self) -> dict[str, Any]:
        """Return Telegram's ``File`` object."""
        names = ("file_id", "file_unique_id", "file_size")
        return {name: self.details[name] for name in names} | {"file_path": self.path}


class FileStore:
    """All files of one bot, by ``file_id`` and by download path."""

    def __init__(self) -> None:
        self._by_id: dict[str, StoredFile] = {}
        self._by_path: dict[str, StoredFile] = {}

    def add(
        self,
        kind: str,
        data: bytes,
        *,
        filename: str | None = None,
        mime_type: str | None = None,
        **details: Any,
    ) -> StoredFile:
        """Keep a file and give it a ``file_id`` and a download path.

        Args:
            kind: A name of ``KINDS``.
            data: Its bytes.
            filename: Its name, shown where the kind has one.
            mime_type: Its type; None: the kind's.
            details: More fields of Telegram's object; those that are None are left out.

        Raises:
            ApiError: The file is empty or too big.
        """
        if not data:
            raise bad_request("file must be non-empty")
        if len(data) > UPLOAD_LIMIT:
            raise bad_request("file is too big")
        traits = KINDS[kind]
        number = len(self._by_id)
        digest = hashlib.sha256(data).hexdigest()
        suffix = PurePosixPath(filename or "").suffix or traits.suffix
        shown: dict[str, Any] = {
            "file_id": f"{traits.id_prefix}AgIAAxkBAAI{number:06d}{digest[:32]}",
            "file_unique_id": f"AgAD{digest[:12]}",
            "file_size": len(data),
        }
        if kind == "photo":
            shown |= {"width": 640, "height": 480}
        else:
            shown |= {"mime_type": mime_type or traits.mime_type}
        if kind in {"audio", "voice"}:
            shown |= {"duration": 0}
        if kind in {"audio", "document"} and filename:
            shown |= {"file_name": filename}
        shown |= {name: value for name, value in details.items() if value is not None}
        # A name may hold anything; only its suffix, made harmless, goes into the path.
        safe_suffix = "".join(c for c in suffix if c.isascii() and c.isalnum())
        stored = StoredFile(kind, data, f"{traits.folder}/file_{number}.{safe_suffix}", shown)
        self._by_id[stored.details["file_id"]] = stored
        self._by_path[stored.path] = stored
        return stored

    def by_id(self, file_id: str) -> StoredFile | None:
        """Return the file of that ``file_id``, or None."""
        return self._by_id.get(file_id)

    def by_path(self, path: str) -> StoredFile | None:
        """Return the file of that download path, or None."""
        return self._by_path.get(path)
