from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from sessionkit.testing.certificates import Certificate, Certificates

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_server_and_client_accept_each_other(certificates: Certificates, host: str) -> None:
    client = ssl.create_default_context(cafile=certificates.ca_file)
    client.load_cert_chain(*certificates.client)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca_file)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(*certificates.server)
    _shake_hands(client, server, host)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("expired", "certificate has expired"),
        ("wrong_host", "IP address mismatch"),
        ("stranger", "unable to get local issuer"),
    ],
)
def test_bad_certificate_is_refused_for_its_reason(
    certificates: Certificates, name: str, reason: str
) -> None:
    client = ssl.create_default_context(cafile=certificates.ca_file)
    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        _shake_hands(client, _server(getattr(certificates, name)), "127.0.0.1")


def test_other_authority_vouches_for_the_stranger_only(certificates: Certificates) -> None:
    client = ssl.create_default_context(cafile=certificates.other_ca_file)
    _shake_hands(client, _server(certificates.stranger), "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        _shake_hands(client, _server(certificates.server), "127.0.0.1")


def test_config_names_the_files(certificates: Certificates) -> None:
    config = certificates.server_config()
    assert (config["tls-cert-file"], config["tls-key-file"]) == certificates.server
    assert (config["tls-ca-cert-file"], config["tls-auth-clients"]) == (certificates.ca_file, "no")
    config = certificates.server_config(certificates.expired, auth_clients=True)
    assert (config["tls-cert-file"], config["tls-key-file"]) == certificates.expired
    assert config["tls-auth-clients"] == "yes"


def _server(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> None:
    """Connect the two in memory."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while sides:
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)
