"""What ``import`` promises: the public names of every module that has some."""

from __future__ import annotations

import ast
import difflib
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PINNED = ROOT / "tests" / "data" / "public_names.txt"
ADVICE = """the public names differ from tests/data/public_names.txt:
{difference}
Removing or renaming one breaks users. If the change is meant, note it in CHANGELOG.md and run
    pytest tests/test_public_names.py --pin-public-names"""


def modules() -> list[str]:
    """Return the modules that say by ``__all__`` what is public; the others are private."""
    sources = [*ROOT.glob("sessionkit/**/*.py"), *ROOT.glob("drivers/*/**/*.py")]
    found = []
    for path in sources:
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.Assign) and "__all__" in {ast.unparse(target) for target in node.targets}:
                names = path.relative_to(ROOT).with_suffix("").parts
                found.append(".".join(name for name in names if name not in {"drivers", "__init__"}))
    return sorted(found)


def test_public_names_are_pinned(request: pytest.FixtureRequest) -> None:
    names = [
        f"{module}: {name}\n" for module in modules() for name in importlib.import_module(module).__all__
    ]
    if request.config.getoption("pin_public_names"):
        PINNED.write_text("".join(names))
    pinned = PINNED.read_text().splitlines(keepends=True)
    difference = "".join(difflib.unified_diff(pinned, names, "pinned", "public", n=0))
    assert pinned == names, ADVICE.format(difference=difference)


@pytest.mark.parametrize("module", modules())
def test_public_names_are_sorted_and_there(module: str) -> None:
    imported = importlib.import_module(module)
    # The order that the linter keeps: constants, classes, the rest.
    names = sorted(imported.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert imported.__all__ == names
    assert not [name for name in names if not hasattr(imported, name)]
