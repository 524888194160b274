"""What the readme tells people to run works: its commands are the ones that are tested, its code compiles."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^<!-- command: (\w+) -->\n```bash\n(.*)\n```$", re.MULTILINE)


def test_two_commands_of_one_line_each() -> None:
    commands = COMMAND.findall(README)
    assert [name for name, _ in commands] == ["demo", "test"]
    assert [text for kind, text in BLOCK.findall(README) if kind == "bash"] == [f"{c}\n" for _, c in commands]


def test_ci_runs_the_test_command() -> None:
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("the sdist has no .ci/run")
    shown = subprocess.run([script, "--show"], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert shown == dict(COMMAND.findall(README))["test"] + "\n"


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_compile(page: Path) -> None:
    for kind, source in BLOCK.findall(page.read_text()):
        if kind == "python":
            compile(source, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("marker", ["ApplicationBuilder()", "asyncio.run("])
def test_python_blocks_run(tmp_path: Path, marker: str) -> None:
    [source] = [text for kind, text in BLOCK.findall(README) if kind == "python" and marker in text]
    subprocess.run([sys.executable, "-c", source], cwd=tmp_path, check=True, timeout=60)


def test_examples_of_what_you_can_store_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    examples = [
        text for kind, text in BLOCK.findall((ROOT / "docs" / "codec.md").read_text()) if kind == "python"
    ]
    assert len(examples) == 6
    for source in examples:
        exec(compile(source, "codec.md", "exec", dont_inherit=True), {"__name__": "codec_md"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
