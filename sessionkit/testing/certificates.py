"""Certificates for tests of TLS, good ones and bad ones, by authorities that nobody else trusts.

::

    certificates = Certificates(tmp_path)
    with RedisServer(binary, config=certificates.server_config()) as server:
        store = open_driver(server.url(), ssl_ca_file=certificates.ca_file)
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from sessionkit.extras import needing

with needing("testing"):
    import trustme

if TYPE_CHECKING:
    from pathlib import Path

_LOCAL: Final = ("127.0.0.1", "localhost")
_LONG_AGO: Final = (datetime(2001, 1, 1, tzinfo=UTC), datetime(2002, 1, 1, tzinfo=UTC))


class Certificate(NamedTuple):
    """A certificate in PEM files.

    Attributes:
        cert_file: The certificate.
        key_file: Its private key, without a password.
    """

    cert_file: str
    key_file: str


class Certificates:
    """One authority with what it signed, in a directory as PEM files; making them takes some milliseconds.

    Attributes:
        ca_file: The authority that signed all the others.
        other_ca_file: An authority that signed none of them.
        server: Valid, for 127.0.0.1 and localhost.
        client: Valid, for a client that the server wants to know.
        expired: For 127.0.0.1 and localhost, until 2002.
        wrong_host: Valid, for another host.
        stranger: Valid, for 127.0.0.1 and localhost, by the other authority.
    """

    def __init__(self, directory: Path) -> None:
        """Make them.

        Args:
            directory: Where to write them; it exists.
        """
        self._directory = directory
        authority, other = trustme.CA(), trustme.CA()
        self.ca_file = self._write("ca", authority.cert_pem)
        self.other_ca_file = self._write("other-ca", other.cert_pem)
        not_before, not_after = _LONG_AGO
        expired = authority.issue_cert(*_LOCAL, not_before=not_before, not_after=not_after)
        self.server = self._save("server", authority.issue_cert(*_LOCAL))
        self.client = self._save("client", authority.issue_cert("client.test"))
        self.expired = self._save("expired", expired)
        self.wrong_host = self._save("wrong-host", authority.issue_cert("elsewhere.test"))
        self.stranger = self._save("stranger", other.issue_cert(*_LOCAL))

    def server_config(
        self, certificate: Certificate | None = None, *, auth_clients: bool = False
    ) -> dict[str, str]:
        """Return the ``config`` with which a ``RedisServer``, a cluster or a Sentinel group speaks TLS.

        Args:
            certificate: What the server shows; without one it is ``server``.
            auth_clients: Whether a client has to show one, by the same authority.
        """
        certificate = certificate or self.server
        return {
            "tls-cert-file": certificate.cert_file,
            "tls-key-file": certificate.key_file,
            "tls-ca-cert-file": self.ca_file,
            "tls-auth-clients": "yes" if auth_clients else "no",
        }

    def _save(self, name: str, certificate: trustme.LeafCert) -> Certificate:
        return Certificate(
            self._write(name, certificate.cert_chain_pems[0]),
            self._write(f"{name}-key", certificate.private_key_pem),
        )

    def _write(self, name: str, blob: trustme.Blob) -> str:
        path = self._directory / f"{name}.pem"
        blob.write_to_path(path)
        return str(path)
