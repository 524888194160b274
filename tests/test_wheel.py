"""What users install: the wheel and the sdist, really built."""

from __future__ import annotations

import configparser
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"sessionkit", "sessionkit_memory", "sessionkit_redis", "sessionkit_sqlite"}
EXAMPLE = "sessionkit/cli/depot_bot.py"


def build(source: Path, target: Path, kind: str) -> Path:
    """Build an sdist, or a standard or editable wheel, as pip would, and return its path."""
    script = f"import sys, hatchling.build as b; print(b.build_{kind}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, target], cwd=source, stdout=subprocess.PIPE, text=True, check=True
    )
    return target / done.stdout.strip()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    [source] = folder.iterdir()
    return source


@pytest.fixture(scope="module", params=["checkout", "sdist"])
def wheel(
    request: pytest.FixtureRequest, unpacked: Path, tmp_path_factory: pytest.TempPathFactory
) -> zipfile.ZipFile:
    source = ROOT if request.param == "checkout" else unpacked
    return zipfile.ZipFile(build(source, tmp_path_factory.mktemp("wheel"), "wheel"))


def test_wheel_has_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_wheel_has_every_module_of_the_checkout(wheel: zipfile.ZipFile) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("sessionkit/**/*.py")}
    modules |= {path.relative_to(ROOT / "drivers").as_posix() for path in ROOT.glob("drivers/*/**/*.py")}
    assert {name for name in wheel.namelist() if name.endswith(".py")} == modules | {EXAMPLE}


def test_wheel_tells_type_checkers_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel.namelist())


def test_wheel_has_the_example_bot(wheel: zipfile.ZipFile) -> None:
    assert wheel.read(EXAMPLE) == (ROOT / "examples" / "depot_bot.py").read_bytes()


def test_wheel_registers_the_drivers_and_the_command(wheel: zipfile.ZipFile) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    entry_points = configparser.ConfigParser(delimiters="=")
    entry_points.read_string(wheel.read(name).decode())
    drivers = entry_points["sessionkit.drivers"]
    assert {"memory", "sqlite", "redis"} <= set(drivers)
    assert {value.partition(":")[0] for value in drivers.values()} == PACKAGES - {"sessionkit"}
    assert entry_points["console_scripts"]["sessionkit"] == "sessionkit.cli:main"


def test_the_extra_for_ptb_brings_what_its_jobs_and_timeouts_need(wheel: zipfile.ZipFile) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    needed = wheel.read(name).decode().splitlines()
    assert "Requires-Dist: python-telegram-bot[job-queue]>=21; extra == 'ptb'" in needed


def test_editable_wheel_puts_only_a_path_into_site_packages(tmp_path: Path) -> None:
    with zipfile.ZipFile(build(ROOT, tmp_path, "editable")) as editable:
        [path] = [name for name in editable.namelist() if ".dist-info/" not in name]
        assert set(editable.read(path).decode().split()) == {str(ROOT), str(ROOT / "drivers")}


def test_sdist_has_what_building_and_testing_need(unpacked: Path) -> None:
    top = {path.name for path in unpacked.iterdir()}
    assert {
        "pyproject.toml",
        "hatch_build.py",
        "LICENSE",
        "README.md",
        "sessionkit",
        "drivers",
        "tests",
    } <= top
    assert ".ci" not in top
