from __future__ import annotations

import os
import re
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from sessionkit.errors import Applied, ConfigurationError, StoreTimeout, StoreUnavailable
from sessionkit.registry import open_driver
from sessionkit.testing import SessionStoreConformance
from sessionkit.testing.certificates import Certificates
from sessionkit.testing.servers import RedisCluster, RedisServer, SentinelGroup, find_servers
from sessionkit_redis.tls import tls_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessionkit.store import SessionStore
    from sessionkit.testing.servers import ServerBinary


@pytest.fixture(scope="module")
def tls_binary() -> ServerBinary:
    """The first server here that was built with TLS; none skips the test, or fails it where required."""
    for binary in find_servers():
        if "tls" in binary.features:
            return binary
    if os.environ.get("REQUIRE_TEST_SERVERS") == "1":
        pytest.fail("no server here was built with TLS; install the system's redis-server", pytrace=False)
    pytest.skip("no server here was built with TLS; install the system's redis-server")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_server(tls_binary: ServerBinary, certificates: Certificates) -> Iterator[RedisServer]:
    with RedisServer(tls_binary, config=certificates.server_config()) as server:
        yield server


@pytest.fixture(scope="module")
def mutual_server(tls_binary: ServerBinary, certificates: Certificates) -> Iterator[RedisServer]:
    with RedisServer(tls_binary, config=certificates.server_config(auth_clients=True)) as server:
        yield server


class TestMutualTlsConformance(SessionStoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, mutual_server: RedisServer, certificates: Certificates) -> None:
        self.server = mutual_server
        self.context = tls_context(
            ca_file=certificates.ca_file,
            cert_file=certificates.client.cert_file,
            key_file=certificates.client.key_file,
        )

    def open_store(self) -> SessionStore:
        return open_driver(self.server.url(), ssl_context=self.context)

    async def time_to_live(self, store: SessionStore, key: str) -> float:
        return int(self.server.command("PTTL", key)) / 1000


async def test_a_private_authority_is_the_only_one(
    tls_server: RedisServer, certificates: Certificates
) -> None:
    context = tls_context(ca_file=certificates.ca_file)
    assert len(context.get_ca_certs()) == 1
    async with open_driver(tls_server.url(), ssl_ca_file=certificates.ca_file) as store:
        await store.put("key", b"value")


@pytest.mark.parametrize(
    ("shown", "trusted", "says", "unknown_issuer"),
    [
        ("expired", "ca_file", "certificate has expired", False),
        ("wrong_host", "ca_file", "IP address mismatch", False),
        ("stranger", "ca_file", "unable to get local issuer certificate", True),
        ("server", "other_ca_file", "self-signed certificate in certificate chain", True),
        ("server", None, "self-signed certificate in certificate chain", True),
    ],
)
async def test_a_certificate_that_proves_nothing_is_refused_and_said_why(
    tls_binary: ServerBinary,
    certificates: Certificates,
    shown: str,
    trusted: str | None,
    says: str,
    unknown_issuer: bool,
) -> None:
    config = certificates.server_config(getattr(certificates, shown))
    options = {} if trusted is None else {"ssl_ca_file": getattr(certificates, trusted)}
    with RedisServer(tls_binary, config=config) as server:
        async with open_driver(server.url(), **options) as store:
            with pytest.raises(StoreUnavailable, match="showed a certificate that is not accepted") as caught:
                await store.put("key", b"value")
        assert server.command("DBSIZE") == b"0"
    assert says in str(caught.value)
    assert ("ssl_ca_file" in str(caught.value)) is unknown_issuer
    assert not caught.value.temporary
    assert caught.value.applied is Applied.NO


async def test_a_host_name_may_go_unchecked_the_authority_may_not(
    tls_binary: ServerBinary, certificates: Certificates
) -> None:
    config = certificates.server_config(certificates.wrong_host)
    with RedisServer(tls_binary, config=config) as server:
        trusting = {"ssl_ca_file": certificates.ca_file, "ssl_check_hostname": False}
        async with open_driver(server.url(), **trusting) as store:
            await store.ping()
        misled = {**trusting, "ssl_ca_file": certificates.other_ca_file}
        async with open_driver(server.url(), **misled) as store:
            with pytest.raises(StoreUnavailable, match="certificate that is not accepted"):
                await store.ping()


async def test_a_server_that_asks_for_a_certificate_is_told_of_none(
    mutual_server: RedisServer, certificates: Certificates
) -> None:
    async with open_driver(mutual_server.url(), ssl_ca_file=certificates.ca_file) as store:
        with pytest.raises(StoreUnavailable, match="ssl_cert_file") as caught:
            await store.put("key", b"value")
    assert caught.value.applied is Applied.NO


async def test_a_certificate_of_another_authority_is_refused(
    mutual_server: RedisServer, certificates: Certificates
) -> None:
    options = {
        "ssl_ca_file": certificates.ca_file,
        "ssl_cert_file": certificates.stranger.cert_file,
        "ssl_key_file": certificates.stranger.key_file,
    }
    async with open_driver(mutual_server.url(), **options) as store:
        with pytest.raises(StoreUnavailable, match="ssl_cert_file") as caught:
            await store.put("key", b"value")
    assert caught.value.applied is Applied.NO


async def test_tls_and_plain_text_that_are_mixed_up_say_so(
    tls_server: RedisServer, certificates: Certificates
) -> None:
    for url in ("redis://{}", "redis+sentinel://{}/mymaster", "redis+cluster://{}"):
        over_tls = f"{url.partition(':')[0].replace('redis', 'rediss')}://"
        async with open_driver(url.format(f"127.0.0.1:{tls_server.tls_port}"), timeout=4.0) as store:
            with pytest.raises(StoreUnavailable, match=rf"does it want TLS \({re.escape(over_tls)}\)\?"):
                await store.ping()
    secured = f"rediss://127.0.0.1:{tls_server.port}?timeout=1"
    async with open_driver(secured, ssl_ca_file=certificates.ca_file) as store:
        with pytest.raises((StoreUnavailable, StoreTimeout), match="is this its TLS port"):
            await store.ping()


async def test_a_server_without_a_connection_left_says_nothing_over_tls(
    tls_binary: ServerBinary, certificates: Certificates
) -> None:
    with RedisServer(tls_binary, config=certificates.server_config()) as server:
        async with (
            open_driver(server.url(), ssl_ca_file=certificates.ca_file) as first,
            open_driver(server.url(), ssl_ca_file=certificates.ca_file) as second,
        ):
            await first.ping()
            server.command("CONFIG", "SET", "maxclients", "1")
            for _ in range(5):
                with pytest.raises(StoreUnavailable, match="closed the connection") as caught:
                    await second.put("key", b"value")
                assert "TLS" not in str(caught.value)
                assert "ssl_" not in str(caught.value)
                assert caught.value.temporary
                assert caught.value.applied is Applied.NO


async def test_all_connections_share_one_context(
    tls_server: RedisServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    create = ssl.create_default_context

    def counted(*, cafile: str | None = None) -> ssl.SSLContext:
        made.append(cafile)
        return create(cafile=cafile)

    monkeypatch.setattr(ssl, "create_default_context", counted)
    async with open_driver(tls_server.url(), ssl_ca_file=certificates.ca_file) as store:
        await store.put("key", b"short")
        await store.put("key", bytes(1_000_000))
        tls_server.restart()
        with suppress(StoreUnavailable):
            await store.ping()
        await store.put("key", b"over a new connection")
    assert made == [certificates.ca_file]


async def test_a_key_with_a_password(
    mutual_server: RedisServer, certificates: Certificates, tmp_path: Path
) -> None:
    key_file = tmp_path / "key.pem"
    _lock(Path(certificates.client.key_file), key_file, b"hunter2")
    options = {
        "ssl_ca_file": certificates.ca_file,
        "ssl_cert_file": certificates.client.cert_file,
        "ssl_key_file": str(key_file),
    }
    async with open_driver(mutual_server.url(), **options, ssl_key_password="hunter2") as store:
        await store.ping()
    for wrong in ({"ssl_key_password": "not-hunter2"}, {}):
        with pytest.raises(ConfigurationError, match="ssl_key_password") as caught:
            open_driver(mutual_server.url(), **options, **wrong)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ssl_ca_file": "missing.pem"}, "ssl_ca_file: 'missing.pem' cannot be read as PEM of certificates"),
        ({"ssl_key_file": "key.pem"}, "ssl_key_file is given without ssl_cert_file"),
        ({"ssl_cert_file": "missing.pem"}, "cannot be read as PEM of a certificate and its key"),
        ({"ssl_context": ssl.create_default_context(), "ssl_ca_file": "ca.pem"}, "keep one of them"),
        ({"ssl_verify": False}, "unknown option 'ssl_verify'"),
        ({"ssl_cafile": "ca.pem"}, r"unknown option 'ssl_cafile' \(did you mean 'ssl_ca_file'\?\)"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        open_driver("rediss://host", **options)


def test_security_is_no_parameter_of_a_url() -> None:
    with pytest.raises(ConfigurationError, match="'ssl_check_hostname' is a security setting"):
        open_driver("rediss://host?ssl_check_hostname=false")
    with pytest.raises(ConfigurationError, match="'ssl_ca_file' is for a connection over TLS: rediss://"):
        open_driver("redis://host", ssl_ca_file="ca.pem")


async def test_the_example_of_the_docs_opens(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")
    [source] = re.findall(r"^```python\n(.*?)^```$", docs, re.MULTILINE | re.DOTALL)
    for file, real in (
        ("ca.pem", certificates.ca_file),
        ("client.pem", certificates.client.cert_file),
        ("client.key", certificates.client.key_file),
    ):
        assert f"/etc/bot/{file}" in source
        source = source.replace(f"/etc/bot/{file}", real)
    monkeypatch.chdir(tmp_path)
    for name in ("BOT_REDIS_PASSWORD", "BOT_SENTINEL_PASSWORD"):
        monkeypatch.setenv(name, "hunter2")
    names: dict[str, Any] = {}
    exec(compile(source, "configuration.md", "exec"), names)
    opened = names["store"].primary
    assert repr(opened) == "RedisStore('rediss+sentinel://s1.example,s2.example,s3.example/mymaster/0')"
    await names["store"].aclose()


async def test_a_cluster_over_mutual_tls(tls_binary: ServerBinary, certificates: Certificates) -> None:
    config = certificates.server_config(auth_clients=True)
    async with RedisCluster(tls_binary, replicas_per_primary=0, config=config) as cluster:
        options = {
            "ssl_ca_file": certificates.ca_file,
            "ssl_cert_file": certificates.client.cert_file,
            "ssl_key_file": certificates.client.key_file,
        }
        assert cluster.url().startswith("rediss+cluster://")
        async with open_driver(cluster.url(), **options) as store:
            keys = [f"key{number}" for number in range(30)]
            for key in keys:
                await store.put(key, key.encode())
            assert {key async for key in store.scan("key")} == set(keys)


async def test_sentinels_over_tls(tls_binary: ServerBinary, certificates: Certificates) -> None:
    config = certificates.server_config()
    async with SentinelGroup(tls_binary, config=config, password="hunter2") as group:
        assert group.url().startswith("rediss+sentinel://")
        async with open_driver(group.url(), ssl_ca_file=certificates.ca_file) as store:
            await store.put("key", b"value")
        async with open_driver(group.url()) as store:
            with pytest.raises(StoreUnavailable, match="certificate that is not accepted"):
                await store.ping()


def _lock(key_file: Path, locked_file: Path, password: bytes) -> None:
    key = load_pem_private_key(key_file.read_bytes(), password=None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
    locked_file.write_bytes(locked)
