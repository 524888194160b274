"""Where the packages of an extra are missing, the error says how to get them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("sessionkit.ptb", "telegram", "ptb"),
        ("sessionkit.testing.botapi", "aiohttp", "testing"),
        ("sessionkit.testing.strategies", "hypothesis", "testing"),
        ("sessionkit.testing.certificates", "trustme", "testing"),
        ("sessionkit.testing.SessionStoreConformance", "pytest", "testing"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(module: str, missing: str, extra: str) -> None:
    package, _, name = module.rpartition(".")
    script = f"import sys; sys.modules[{missing!r}] = None; from {package} import {name}"
    done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: {missing!r} is missing: pip install 'sessionkit[{extra}]'"
    )


def test_the_package_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sessionkit", "ls", "--url", "memory://"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
