"""A store's URL, taken apart once and never shown with its credentials."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from sessionkit.arguments import suggestion
from sessionkit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping


@dataclass(frozen=True)
class StoreURL:
    """The parts of a store's URL, percent-decoded. ``str()`` and ``repr()`` hide user, password and query.

    Attributes:
        scheme: What selects the driver, in lower case.
        host: Host name or address, or "".
        port: Port, or None.
        hosts: Every host with its port: several may be given, separated by commas; the first is ``host``.
        path: What follows the host, with its leading slash.
        username: User name, or None.
        password: Password, or None.
        query: Parameters, as text.
    """

    scheme: str
    host: str = ""
    port: int | None = None
    hosts: tuple[tuple[str, int | None], ...] = ()
    path: str = ""
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> StoreURL:
        """Take a URL apart.

        Raises:
            ConfigurationError: It is not a URL. The message never quotes it past the scheme, as what follows
                may hold a password.
        """
        scheme, colon, rest = text.partition("://")
        scheme = scheme.strip().lower()
        if not colon or not scheme or not all(c.isalnum() or c in "+-." for c in scheme):
            raise ConfigurationError(
                "a store's URL looks like sqlite:///bot.db or redis://localhost:6379/0;"
                " this one has no scheme followed by '://'"
            )
        hint = f"the {scheme}:// URL cannot be read"
        try:
            # The scheme is replaced because urlsplit treats unknown ones by other rules.
            authority = re.split("[/?#]", rest, maxsplit=1)[0]
            userinfo, at, names = authority.rpartition("@")
            hosts = tuple(_host_and_port(name) for name in names.split(","))
            parts = urlsplit(f"http://{userinfo}{at}host{rest[len(authority) :]}")
            query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError:
            raise ConfigurationError(
                f"{hint}: a port is a number up to 65535, parameters read name=value, and in a user name or"
                " password the characters : / ? # [ ] @ must be percent-encoded"
            ) from None
        if parts.fragment or "#" in rest or "@" in parts.path:
            raise ConfigurationError(
                f"{hint}: it has a '#', or an '@' after a '/'; in a user name, password or path"
                " percent-encode them (# as %23, / as %2F, @ as %40)"
            )
        names = [name for name, _ in query]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigurationError(f"{hint}: the parameter {twice[0]!r} is given twice")
        return cls(
            scheme=scheme,
            host=hosts[0][0],
            port=hosts[0][1],
            hosts=hosts,
            path=unquote(parts.path),
            username=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
            query=dict(query),
        )

    def __str__(self) -> str:
        credentials = "***@" if self.username or self.password else ""
        hosts = ",".join(
            (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
            for host, port in self.hosts or ((self.host, self.port),)
        )
        return f"{self.scheme}://{credentials}{hosts}{self.path}"

    def read_options(
        self,
        parameters: Mapping[str, Callable[[str], object]],
        given: Mapping[str, Any],
        options_only: Collection[str] = (),
    ) -> dict[str, Any]:
        """Merge the URL's parameters with keyword options, and refuse what the driver does not know.

        Args:
            parameters: What may be a parameter or an option: each name, and how to read it from text.
            given: Options passed in code; they are taken as they are, and win over nothing: an option given
                both ways is an error.
            options_only: What may be an option and is no parameter, such as a password.

        Returns:
            The options given, by name.

        Raises:
            ConfigurationError: A name is unknown, given both ways, secret (``ssl_*``, ``password``) yet in
                the URL's query, or its text cannot be read.
        """
        known = {*parameters, *options_only}
        for name in given:
            if name not in known:
                raise self._unknown("option", name, known)
        options = dict(given)
        for name, text in self.query.items():
            if name in options_only or _is_secret(name):
                raise ConfigurationError(
                    f"{self}: {name!r} is a security setting and is not taken from a URL's parameters;"
                    " pass it as an option or a setting"
                )
            if name not in parameters:
                raise self._unknown("parameter", name, parameters)
            if name in given:
                raise ConfigurationError(f"{self}: {name!r} is given in the URL and as an option")
            try:
                options[name] = parameters[name](text)
            except ValueError:
                raise ConfigurationError(
                    f"{self}: the parameter {name!r} cannot be read from {text[:40]!r}"
                ) from None
        return options

    def _unknown(self, kind: str, name: str, known: Collection[str]) -> ConfigurationError:
        return ConfigurationError(
            f"{self}: unknown {kind} {name!r}{suggestion(name, known)}; those of this driver are:"
            f" {', '.join(sorted(known)) or 'none'}"
        )


def _host_and_port(text: str) -> tuple[str, int | None]:
    parts = urlsplit(f"http://{text}")
    return unquote(parts.hostname or ""), parts.port


def _is_secret(name: str) -> bool:
    return name.startswith("ssl_") or name.endswith(("password", "username", "credential_provider"))
