"""Imports point one way: the layers of the architecture, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent

CORE: Final = (
    "errors extras arguments keys store codec quarantine telemetry settings resilience registry service"
)
MAY_IMPORT: Final = {
    "errors": "",
    "extras": "",
    "arguments": "errors",
    "keys": "errors",
    "store": "errors arguments",
    "codec": "errors extras",
    "quarantine": "errors arguments keys store codec",
    "telemetry": "errors store",
    "settings": "errors keys codec",
    "resilience": "errors keys store telemetry",
    "registry": "errors extras keys store telemetry settings resilience",
    "service": "errors arguments keys store codec quarantine telemetry settings resilience",
    "transfer": "errors store",
    "testing": CORE,
    "ptb": CORE,
    "cli": f"{CORE} ptb testing transfer sessionkit",
    "__main__": "cli",
    "sessionkit": CORE,  # sessionkit/__init__.py itself
}
"""What the modules of each part of sessionkit may import of the others."""

DRIVERS_MAY_IMPORT: Final = "errors store"

MAY_NAME_IN_TYPES: Final = {"errors": "store"}
"""What they may import besides, for annotations only."""


class Import(NamedTuple):
    """One import: of which module, on which line, and whether only type checkers perform it."""

    module: str
    line: int
    types_only: bool


def violations(root: Path) -> list[str]:
    """Return each import below ``root`` that points the wrong way, as ``file:line: what imports what``."""
    drivers = sorted(path.name for path in (root / "drivers").iterdir() if path.is_dir())
    found = []
    for source_root, package in (("", "sessionkit"), *(("drivers", driver) for driver in drivers)):
        for path in sorted((root / source_root / package).rglob("*.py")):
            names = path.relative_to(root / source_root).with_suffix("").parts
            part = package if package in drivers or names[1:] == ("__init__",) else names[1]
            where = path.relative_to(root).as_posix()
            if part not in MAY_IMPORT and part not in drivers:
                found.append(f"{where}: {part!r} has no layer yet; give it one in MAY_IMPORT")
                continue
            allowed = {part, *(DRIVERS_MAY_IMPORT if part in drivers else MAY_IMPORT[part]).split()}
            in_types = allowed.union(MAY_NAME_IN_TYPES.get(part, "").split())
            for used in imports(ast.parse(path.read_bytes()), names[:-1]):
                target = part_of(used.module, drivers)
                if target is not None and target not in (in_types if used.types_only else allowed):
                    found.append(f"{where}:{used.line}: {part} imports {used.module}")
    return found


def part_of(module: str, drivers: list[str]) -> str | None:
    """Return which part of this project a module belongs to, or None for a foreign one."""
    top, *rest = module.split(".")
    if top in drivers:
        return top
    if top != "sessionkit":
        return None
    return rest[0] if rest and rest[0] in MAY_IMPORT else "sessionkit"


def imports(tree: ast.AST, package: tuple[str, ...], types_only: bool = False) -> Iterator[Import]:
    """Yield every import below a node of a module of ``package``, at any depth."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(alias.name, node.lineno, types_only)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = [*package[: len(package) - level + 1]] if level else []
                for alias in names:
                    yield Import(
                        ".".join([*base, *filter(None, [module]), alias.name]), node.lineno, types_only
                    )
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield Import(name, node.lineno, types_only)
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body, orelse=orelse):
                yield from imports(ast.Module(body, []), package, types_only=True)
                yield from imports(ast.Module(orelse, []), package, types_only)
            case _:
                yield from imports(node, package, types_only)


def test_imports_point_one_way() -> None:
    assert violations(ROOT) == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, source in {
        "sessionkit/__init__.py": "from sessionkit.store import SessionStore",
        "sessionkit/errors.py": "if TYPE_CHECKING:\n    from sessionkit.store import Version",
        "sessionkit/store/__init__.py": "from sessionkit.store.records import Record\nimport asyncio",
        "sessionkit/store/records.py": "from ..errors import CodecError\nfrom . import url",
        "sessionkit/cli/__init__.py": "from sessionkit.testing import FakeBotAPI\nfrom sessionkit import ptb",
        "drivers/sessionkit_redis/__init__.py": "from sessionkit_redis.lua import PUT\nimport redis",
        "drivers/sessionkit_redis/lua.py": "from sessionkit.errors import StoreError",
        "drivers/sessionkit_memory/__init__.py": "",
    }.items():
        _write(tmp_path / name, source)
    return tmp_path


def _write(path: Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)


def test_clean_tree_has_no_violation(tree: Path) -> None:
    assert violations(tree) == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("sessionkit/errors.py", "import sessionkit.store", ":1: errors imports sessionkit.store"),
        (
            "sessionkit/store/url.py",
            "\nfrom ..codec import Codec",
            ":2: store imports sessionkit.codec",
        ),
        ("sessionkit/store/url.py", "def f():\n from .. import ptb", ":2: store imports sessionkit.ptb"),
        (
            "sessionkit/codec.py",
            "if TYPE_CHECKING:\n import sessionkit.ptb",
            ":2: codec imports sessionkit.ptb",
        ),
        ("sessionkit/errors.py", "if TYPE_CHECKING: 1\nelse: import sessionkit.store", ":2: errors imports"),
        ("sessionkit/codec.py", "from sessionkit import Session", ":1: codec imports sessionkit.Session"),
        ("sessionkit/service.py", "import sessionkit.testing", ":1: service imports sessionkit.testing"),
        ("sessionkit/__init__.py", "import sessionkit.ptb", ":1: sessionkit imports sessionkit.ptb"),
        ("sessionkit/registry.py", "import sessionkit_memory as m", ":1: registry imports sessionkit_memory"),
        (
            "sessionkit/registry.py",
            "x.import_module('sessionkit_redis')",
            ":1: registry imports",
        ),
        ("sessionkit/cli/show.py", "import sessionkit_redis.lua", ":1: cli imports sessionkit_redis.lua"),
        ("sessionkit/novelty.py", "", ": 'novelty' has no layer yet; give it one in MAY_IMPORT"),
        ("drivers/sessionkit_redis/lua.py", "import sessionkit.keys", ":1: sessionkit_redis imports"),
        ("drivers/sessionkit_redis/lua.py", "import sessionkit", ":1: sessionkit_redis imports sessionkit"),
        ("drivers/sessionkit_redis/lua.py", "import sessionkit_memory", ":1: sessionkit_redis imports"),
    ],
)
def test_violation_is_found(tree: Path, file: str, source: str, complaint: str) -> None:
    _write(tree / file, source)
    [found] = violations(tree)
    assert found.startswith(file + complaint)
