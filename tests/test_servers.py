from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from sessionkit.errors import ConfigurationError, StoreUnavailable
from sessionkit.testing.certificates import Certificates
from sessionkit.testing.servers import (
    DURABLE,
    SERVER_NAMES,
    RedisServer,
    ServerBinary,
    find_servers,
    missing_servers,
    process,
)

TESTS = Path(__file__).parent


def test_every_name_is_found_or_missing_with_a_reason() -> None:
    names = [found.name for found in find_servers()] + [missing.name for missing in missing_servers()]
    assert sorted(names) == sorted(SERVER_NAMES)
    assert all(missing.reason for missing in missing_servers())


def test_what_does_not_run_or_is_no_server_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no redis-server on PATH" in _why_missing("redis-system")
    fake = tmp_path / "redis-server"
    fake.write_text("#!/bin/sh\necho nothing known\n")
    fake.chmod(0o755)
    assert "does not tell" in _why_missing("redis-system")
    fake.write_text("no program\n")
    assert "does not run" in _why_missing("redis-system")


def test_shared_server_answers_and_is_empty(redis_server: RedisServer) -> None:
    assert redis_server.command("DBSIZE") == b"0"
    assert redis_server.command("SET", "left", "behind") == b"OK"


def test_shared_server_is_empty_after_another_test(redis_server: RedisServer) -> None:
    assert redis_server.command("DBSIZE") == b"0"
    assert redis_server.command("SET", "left", "behind") == b"OK"


async def test_async_context_ends_process_and_removes_directory(server_binary: ServerBinary) -> None:
    async with RedisServer(server_binary) as server:
        assert server.running
        assert server.url(3) == f"redis://127.0.0.1:{server.port}/3"
        assert f"process_id:{server.pid}\r\n".encode() in server.command("INFO", "server")
        connection = socket.create_connection(("127.0.0.1", server.port))
    with connection:
        assert _ended(connection)
    assert not server.running
    assert not server.data_dir.exists()


def test_killed_server_comes_back_on_its_port_without_its_data(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary) as server:
        server.command("SET", "key", "value")
        port, pid = server.port, server.pid
        server.kill()
        with pytest.raises(ConfigurationError, match="not running"):
            server.kill()
        with pytest.raises(StoreUnavailable, match="no reply to PING"):
            server.command("PING")
        server.restart()
        assert (server.port, server.command("DBSIZE")) == (port, b"0")
        assert server.pid != pid


def test_durable_server_keeps_acknowledged_writes_when_killed(
    server_binary: ServerBinary, tmp_path: Path
) -> None:
    with RedisServer(server_binary, data_dir=tmp_path / "data", config=DURABLE) as server:
        for number in range(100):
            server.command("SET", str(number), "value")
        server.kill()
        server.restart()
        assert server.command("DBSIZE") == b"100"
    assert server.log_path.exists()


def test_restart_of_a_running_server_is_a_new_process(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary) as server:
        port, pid = server.port, server.pid
        server.restart()
        assert server.port == port
        assert server.pid != pid
        with pytest.raises(ConfigurationError, match="already"):
            server.start()


def test_any_password_works_and_is_percent_encoded(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary, password="p/w @:\"'\\ü") as server:
        assert server.command("PING") == b"PONG"
        assert server.url() == f"redis://:p%2Fw%20%40%3A%22%27%5C%C3%BC@127.0.0.1:{server.port}/0"


def test_command_raises_what_the_server_refuses(redis_server: RedisServer) -> None:
    with pytest.raises(StoreUnavailable, match=r"NOSUCH.*unknown command"):
        redis_server.command("NOSUCH")
    with pytest.raises(StoreUnavailable, match="GET"):
        redis_server.command("GET", "absent")


def test_array_returns_its_items_in_order(redis_server: RedisServer) -> None:
    assert redis_server.array("LRANGE", "absent", "0", "-1") == []
    redis_server.command("RPUSH", "list", b"\r\n", "", b"\xff", "last")
    assert redis_server.array("LRANGE", "list", "0", "-1") == [b"\r\n", b"", b"\xff", b"last"]


def test_array_raises_what_is_none(redis_server: RedisServer) -> None:
    with pytest.raises(StoreUnavailable, match=r"NOSUCH.*unknown command"):
        redis_server.array("NOSUCH")
    with pytest.raises(StoreUnavailable, match="PONG"):
        redis_server.array("PING")
    with pytest.raises(StoreUnavailable, match="MGET"):
        redis_server.array("MGET", "absent")


def test_failure_to_start_shows_the_log_but_no_password(server_binary: ServerBinary) -> None:
    server = RedisServer(server_binary, password="hunter2", config={"maxmemory": "hunter2"})
    with pytest.raises(StoreUnavailable, match="FATAL CONFIG FILE ERROR") as caught:
        server.start()
    assert "maxmemory ***" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert not server.running


def test_binary_that_is_not_there_is_named(tmp_path: Path) -> None:
    server = RedisServer(ServerBinary("valkey", "0", tmp_path / "gone"))
    with pytest.raises(ConfigurationError, match="gone does not run"):
        server.start()


def test_directives_that_are_ours_are_refused(server_binary: ServerBinary) -> None:
    with pytest.raises(ConfigurationError, match="'port' is set by RedisServer"):
        RedisServer(server_binary, config={"Port": "6379"})


def test_port_taken_since_it_was_chosen_is_replaced(
    redis_server: RedisServer, server_binary: ServerBinary, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = process._free_port()
    ports = iter([redis_server.port, free])
    monkeypatch.setattr(process, "_free_port", lambda: next(ports))
    with RedisServer(server_binary) as server:
        assert server.port == free
        assert server.pid != redis_server.pid


def test_restart_on_a_port_taken_for_good_fails(
    server_binary: ServerBinary, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer(server_binary) as server, socket.socket() as thief:
        server.kill()
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", server.port))
        thief.listen()
        monkeypatch.setattr(process, "_START_SECONDS", 0.0)
        with pytest.raises(StoreUnavailable, match=r"Address already in use|did not answer"):
            server.restart()
        assert not server.running


def test_sentinel_watches_a_server(redis_server: RedisServer, server_binary: ServerBinary) -> None:
    watch = {
        "sentinel": [
            f"monitor depot 127.0.0.1 {redis_server.port} 1",
            "down-after-milliseconds depot 1234",
        ]
    }
    with RedisServer(server_binary, sentinel=True, config=watch) as sentinel:
        assert b"name=depot,status=ok" in sentinel.command("INFO", "sentinel")
        assert "down-after-milliseconds depot 1234" in (sentinel.data_dir / "redis.conf").read_text()
        sentinel.restart()
        assert b"name=depot" in sentinel.command("INFO", "sentinel")


def test_cluster_mode(server_binary: ServerBinary) -> None:
    with RedisServer(server_binary, config={"cluster-enabled": "yes"}) as server:
        assert b"cluster_state:fail" in server.command("CLUSTER", "INFO")


def test_tls(server_binary: ServerBinary, tmp_path: Path) -> None:
    if "tls" not in server_binary.features:
        pytest.skip(f"{server_binary.name} {server_binary.version} was built without TLS")
    certificates = Certificates(tmp_path)
    context = ssl.create_default_context(cafile=certificates.ca_file)
    with RedisServer(server_binary, config=certificates.server_config()) as server:
        assert server.tls_port is not None
        assert server.url() == f"rediss://127.0.0.1:{server.tls_port}/0"
        with (
            socket.create_connection(("127.0.0.1", server.tls_port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            secured.sendall(b"PING\r\n")
            assert secured.recv(16) == b"+PONG\r\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_server_dies_with_a_killed_parent(server_binary: ServerBinary, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from sessionkit.testing.servers import RedisServer, ServerBinary\n"
        "binary, data_dir = map(pathlib.Path, sys.argv[1:])\n"
        "server = RedisServer(ServerBinary('it', '0', binary), data_dir=data_dir).start()\n"
        "print(server.port, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, server_binary.path, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        port = parent.stdout.readline()
        with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as connection:
            parent.send_signal(signal.SIGKILL)
            assert _ended(connection)


@pytest.mark.parametrize(("required", "outcome"), [("0", "1 skipped"), ("1", "1 error")])
def test_missing_server_skips_by_name_or_fails_where_required(required: str, outcome: str) -> None:
    done = _pytest("-k", "answers and redis-system", "-p", "no:xdist", PATH="", REQUIRE_TEST_SERVERS=required)
    assert outcome in done.splitlines()[-1]
    assert "no server redis-system: there is no redis-server on PATH" in done


def test_header_tells_how_to_draw_the_same_examples_again() -> None:
    done = _pytest("--collect-only", "--heavy", "--hypothesis-seed=7")
    assert "examples: heavy; again: --heavy --hypothesis-seed=7\n" in done


def _why_missing(name: str) -> str:
    [reason] = [missing.reason for missing in missing_servers() if missing.name == name]
    return reason


def _ended(connection: socket.socket) -> bool:
    """Wait until the server closes the connection, in whichever way its end does that."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def _pytest(*options: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", *options, __file__],
        cwd=TESTS.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout
