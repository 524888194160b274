"""One running server."""

from __future__ import annotations

import ctypes
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import quote

from sessionkit.errors import ConfigurationError, StoreUnavailable
from sessionkit.testing.servers.wire import ask, ask_array

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from sessionkit.testing.servers.binaries import ServerBinary

DURABLE: Final[Mapping[str, str]] = {"appendonly": "yes", "appendfsync": "always"}
"""A ``config`` under which every acknowledged write is on disk, so that it survives ``kill()``."""

_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 10.0
_REPLY_SECONDS: Final = 10.0
_PROBE_SECONDS: Final = 0.5
_POLL_SECONDS: Final = 0.005
# Below every system's range of ephemeral ports, so that no outgoing connection takes a stopped server's port.
_PORTS: Final = range(20_000, 32_000)
_BUS_OFFSET: Final = 10_000
_OURS: Final = frozenset({"bind", "daemonize", "dir", "logfile", "port", "requirepass", "tls-port"})
_PR_SET_PDEATHSIG: Final = 1

_Reply = TypeVar("_Reply", bytes, list[bytes])


class RedisServer:
    """One server process, as a context manager of either kind, or by ``start()`` and ``stop()``.

    It keeps its data in memory only (see ``DURABLE``) and takes no snapshots. It is killed when
    the thread that started it ends, however that comes about (elsewhere than on Linux: when the interpreter
    exits); so start it in a thread that outlives it.

    Attributes:
        binary: What runs.
        data_dir: Where its data, its ``redis.conf`` and its ``server.log`` are.
        port: Where it listens, on 127.0.0.1; settled once it has started.
        tls_port: The same for TLS, or None where ``config`` names no ``tls-cert-file``.
        log_path: What it logged, over all its starts.
    """

    def __init__(
        self,
        binary: ServerBinary,
        *,
        data_dir: Path | None = None,
        password: str | None = None,
        config: Mapping[str, str | Sequence[str]] | None = None,
        sentinel: bool = False,
    ) -> None:
        """Prepare a server; nothing runs yet.

        Args:
            binary: What to run.
            data_dir: A directory to keep when it stops; without one it gets its own, which goes with it.
            password: The default user's password, also given to a primary that it replicates.
            config: Directives of ``redis.conf``, each with its value as it stands there, or with several for
                one that recurs. The default user must stay able to ``PING`` and to ask for ``INFO``.
            sentinel: Run as a Sentinel.

        Raises:
            ConfigurationError: ``config`` has a directive that is ours to set.
        """
        config = {name.lower(): values for name, values in (config or {}).items()}
        if ours := sorted(_OURS.intersection(config)):
            raise ConfigurationError(f"config: {ours[0]!r} is set by RedisServer; leave it out")
        self.binary = binary
        self.data_dir = (data_dir or Path(tempfile.mkdtemp(prefix="sessionkit-"))).resolve()
        self._own_dir = self.data_dir if data_dir is None else None
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.log_path = self.data_dir / "server.log"
        self._conf = self.data_dir / "redis.conf"
        self._config = config
        self._password = password
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None
        self._end = weakref.finalize(self, _end, None, self._own_dir)
        self.port = 0
        self.tls_port: int | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._end()

    async def __aenter__(self) -> Self:
        # Starting takes some ten milliseconds, and must not move to a thread: see the class.
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process's id.

        Raises:
            ConfigurationError: It is not running.
        """
        return self._running_process().pid

    def url(self, db: int = 0) -> str:
        """Return the ``redis://`` URL of one of its databases, ``rediss://`` where it has a TLS port."""
        credentials = "" if self._password is None else f":{quote(self._password, safe='')}@"
        scheme, port = ("redis", self.port) if self.tls_port is None else ("rediss", self.tls_port)
        return f"{scheme}://{credentials}127.0.0.1:{port}/{db}"

    def start(self) -> Self:
        """Run it, and return itself once it answers; blocks for some ten milliseconds.

        Raises:
            ConfigurationError: It is running already.
            StoreUnavailable: It did not start; the message ends with the tail of its log.
        """
        if self.running:
            raise ConfigurationError(f"{self._name} is running already")
        deadline = time.monotonic() + _START_SECONDS
        new = self._process is None
        while True:
            if new:
                self._write_conf()
            log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
            process = self._spawn()
            if self._wait_until_ready(process, deadline):
                return self
            with self.log_path.open("rb") as log:
                log.seek(log_start)
                taken = b"Address already in use" in log.read()
            if not taken or time.monotonic() > deadline:
                raise self._failed(f"ended with exit status {process.wait()}")
            if new:
                self._process = None
            else:
                time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """End it as an operator would (SIGTERM); without effect where it is not running."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End it at once and unprepared (SIGKILL).

        Raises:
            ConfigurationError: It is not running.
        """
        process = self._running_process()
        process.kill()
        process.wait()

    def restart(self) -> None:
        """Start it on the same port and data directory; where it still runs, stop it first.

        Raises:
            StoreUnavailable: As ``start``.
        """
        self.stop()
        self.start()

    def command(self, *words: str | bytes, timeout: float = _REPLY_SECONDS) -> bytes:
        """Send one command over a connection of its own.

        Args:
            words: The command, and its arguments.
            timeout: Seconds within which it replies.

        Returns:
            The reply, where it is a status, a number or a string.

        Raises:
            StoreUnavailable: It cannot be reached, replies with an error, or with anything else.
        """
        return self._ask(ask, words, timeout)

    def array(self, *words: str | bytes, timeout: float = _REPLY_SECONDS) -> list[bytes]:
        """Send one command as ``command`` does, and return its reply, where it is an array without arrays.

        Raises:
            StoreUnavailable: As ``command``.
        """
        return self._ask(ask_array, words, timeout)

    def _ask(self, how: Callable[..., _Reply], words: Sequence[str | bytes], timeout: float) -> _Reply:
        try:
            return how(self.port, self._password, timeout, *words)
        except OSError as error:
            raise StoreUnavailable(f"{self._name}: no reply to {words[0]!s}: {error}") from None

    @property
    def _name(self) -> str:
        return f"{self.binary.name} {self.binary.version} on port {self.port}"

    def _running_process(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise ConfigurationError(f"{self._name} is not running; start() it first")
        return self._process

    def _write_conf(self) -> None:
        find_port = _free_port_with_bus if self._config.get("cluster-enabled") == "yes" else _free_port
        self.port = find_port()
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"dir {quoted(str(self.data_dir))}",
        ]
        if not self._sentinel:
            lines.append('save ""')
        if self._password is not None:
            lines.append(f"requirepass {quoted(self._password)}")
            if not self._sentinel:
                lines.append(f"masterauth {quoted(self._password)}")
        if "tls-cert-file" in self._config:
            self.tls_port = find_port()
            lines.append(f"tls-port {self.tls_port}")
        for name, values in self._config.items():
            lines += [f"{name} {value}" for value in ([values] if isinstance(values, str) else values)]
        self._conf.touch(mode=0o600)
        self._conf.write_text("\n".join(lines) + "\n")

    def _spawn(self) -> subprocess.Popen[bytes]:
        mode = ["--sentinel"] if self._sentinel else []
        with self.log_path.open("ab") as log:
            try:
                process = subprocess.Popen(  # noqa: S603 - a server that was found, no text of anybody's
                    [self.binary.path, self._conf, *mode],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.data_dir,
                    process_group=0,  # an interrupt from the keyboard is for the tests, not for their servers
                    preexec_fn=_die_with_parent(),  # noqa: PLW1509 - it calls one C function, and starts no thread
                )
            except OSError as error:
                raise ConfigurationError(f"{self.binary.path} does not run: {error.strerror}") from None
        self._process = process
        self._end.detach()
        self._end = weakref.finalize(self, _end, process, self._own_dir)
        return process

    def _wait_until_ready(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        """Return whether it answers; False: it ended instead."""
        try:
            while process.poll() is None:
                if self._answers(process.pid):
                    return True
                if time.monotonic() > deadline:
                    raise self._failed(f"did not answer within {_START_SECONDS:.0f} seconds")
                time.sleep(_POLL_SECONDS)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return False

    def _answers(self, pid: int) -> bool:
        try:
            # Until ours has the port, another process's server may answer on it.
            info = ask(self.port, self._password, _PROBE_SECONDS, "INFO", "server")
            if b"process_id:%d\r" % pid not in info:
                return False
            return ask(self.port, self._password, _PROBE_SECONDS, "PING") == b"PONG"
        except (OSError, StoreUnavailable):
            return False

    def _failed(self, what: str) -> StoreUnavailable:
        tail = self.log_path.read_text(errors="replace").splitlines()[-15:]
        message = "\n".join([f"{self._name} {what}; the end of its log:", *tail])
        return StoreUnavailable(message.replace(self._password, "***") if self._password else message)


def _free_port() -> int:
    return _find_port(_PORTS, (0,))


def _free_port_with_bus() -> int:
    # A cluster's nodes talk to each other on a second port, which should be below the ephemeral ones, too.
    return _find_port(range(_PORTS.start, _PORTS.stop - _BUS_OFFSET), (0, _BUS_OFFSET))


def _find_port(ports: Sequence[int], offsets: Sequence[int]) -> int:
    """Return one that is free, as are those at each of the offsets from it."""
    # Not the shared generator: tests seed it, and then all their processes would try the same ports.
    system_random = random.SystemRandom()
    while True:
        port = system_random.choice(ports)
        if all(_is_free(port + offset) for offset in offsets):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def quoted(text: str) -> str:
    """Return any text as a value of ``redis.conf``."""
    plain = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_.-")
    return '"' + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in text.encode()) + '"'


def _end(process: subprocess.Popen[bytes] | None, own_dir: Path | None) -> None:
    if process is not None and process.poll() is None:
        process.kill()
        process.wait()
    if own_dir is not None:
        shutil.rmtree(own_dir, ignore_errors=True)


def _die_with_parent() -> Callable[[], Any] | None:
    """What a child calls before it becomes the server."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here: between fork and exec a child should do next to nothing
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
