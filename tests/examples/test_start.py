"""The example bot where it cannot start: one clear line, and an exit status that is not zero."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sessionkit.cli.child import example_bot

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"SESSIONKIT_URL": "redis://ada:hunter2@127.0.0.1:1/0"},
            "redis://***@127.0.0.1:1/0 cannot be reached (Connection refused): is the server running",
        ),
        (
            {"REDIS_URL": "redis://127.0.0.1:1", "REDIS_PASSWORD": "hunter2", "REDIS_DB": "3"},
            "redis://127.0.0.1:1 cannot be reached",
        ),
        ({"SESSIONKIT_URL": "sqlite:////nowhere/at/all/bot.db"}, "/nowhere/at/all"),
        ({"SESSIONKIT_URL": "redis://:hunter2#@127.0.0.1"}, "percent-encode"),
        ({"SESSIONKIT_URL": "mysql://ada:hunter2@host"}, "no driver for mysql://"),
        ({"SESSIONKIT_URL": "redis://host?colour=hunter2"}, "unknown parameter 'colour'"),
        ({"REDIS_PASSWORD": "hunter2"}, "REDIS_URL"),
        ({"SESSIONKIT_URL": "memory://", "TELEGRAM_BOT_TOKEN": ""}, "TELEGRAM_BOT_TOKEN"),
    ],
)
def test_it_says_in_one_line_why_it_cannot_start(tmp_path: Path, settings: dict[str, str], says: str) -> None:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "SESSIONKIT_"))
    }
    done = subprocess.run(
        [sys.executable, example_bot()],
        env={**inherited, "TELEGRAM_BOT_TOKEN": "123456:token", **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("depot_bot: ")
    assert says in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
