"""What secures a connection: one context for all connections of a store."""

from __future__ import annotations

import ssl

from sessionkit.errors import ConfigurationError


def tls_context(
    *,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    key_password: str | None = None,
    check_hostname: bool = True,
) -> ssl.SSLContext:
    """Return a context that verifies the server; making one takes some 20 ms, so it is shared.

    Args:
        ca_file: PEM file with the only authorities to trust; None trusts those of the system.
        cert_file: PEM file with this client's certificate, for a server that asks for one.
        key_file: PEM file with its key; None if ``cert_file`` holds it.
        key_password: What the key is encrypted with.
        check_hostname: Whether the certificate must be for the host that was connected to.

    Raises:
        ConfigurationError: A file cannot be read or does not hold what it should.
    """
    if key_file is not None and cert_file is None:
        raise ConfigurationError("ssl_key_file is given without ssl_cert_file, whose key it is")
    try:
        # Given a CA file, this loads no other authority.
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise _unusable("ssl_ca_file", ca_file, "certificates", error) from None
    context.check_hostname = check_hostname
    if cert_file is not None:
        # Without a password of ours OpenSSL would ask for one on the terminal.
        password = key_password or ""
        try:
            context.load_cert_chain(cert_file, key_file, lambda: password)
        except OSError as error:
            raise _unusable(
                "ssl_cert_file, ssl_key_file or ssl_key_password",
                f"{cert_file!r}, {key_file!r}" if key_file else cert_file,
                "a certificate and its key",
                error,
            ) from None
    return context


def _unusable(option: str, file: str | None, wanted: str, error: OSError) -> ConfigurationError:
    # OpenSSL's own errors are of OSError, too, and say in a word or two what is wrong.
    reason = (isinstance(error, ssl.SSLError) and error.reason) or error.strerror or "unreadable"
    return ConfigurationError(f"{option}: {file!r} cannot be read as PEM of {wanted} ({reason})")
