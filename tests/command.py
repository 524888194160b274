"""Runs the command in this process, which is faster than in one of its own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from sessionkit.cli import main

if TYPE_CHECKING:
    from pathlib import Path


class Command:
    """The ``sessionkit`` command, run in a folder.

    Args:
        folder: The folder.
        monkeypatch: Puts everything back.
        capsys: Takes what is printed.
    """

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(folder)

    def __call__(self, *arguments: str) -> tuple[object, str, str]:
        """Return its exit status, or the line it ends with, and what it prints."""
        self._monkeypatch.setattr(sys, "argv", ["sessionkit", *arguments])
        self._monkeypatch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code, *self._capsys.readouterr())
