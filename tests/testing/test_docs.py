"""The examples of docs/testing.md are tests that pass as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "testing.md"
SETTINGS = '[pytest]\nasyncio_mode = "auto"\nasyncio_default_fixture_loop_scope = "function"\n'


def test_its_examples_pass(tmp_path: Path) -> None:
    examples = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    # Those that run every server there is take as long as that many failovers; others test the same calls.
    quick = [example for example in examples if "parametrize" not in example]
    assert len(quick) >= 4
    for number, example in enumerate(quick):
        (tmp_path / f"test_{number}.py").write_text(example)
    (tmp_path / "pytest.ini").write_text(SETTINGS.replace('"', ""))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(quick)} passed" in done.stdout
