"""Settings from the environment and ``.env``."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from sessionkit.codec import Compression, Keyring, Limits, MsgpackCodec
from sessionkit.errors import ConfigurationError, InvalidKey
from sessionkit.keys import DEFAULT_PREFIX, PREFIX_RULE, KeySpace

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from sessionkit.codec import Migration

DEFAULT_URL: Final = "sqlite:///sessionkit.db"
"""The embedded default: a file in the working directory."""

_ALIKE: Final = 0.85

_DRIVER_OPTIONS: Final = (
    "timeout",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_key_file",
    "ssl_key_password",
    "sentinel_username",
    "sentinel_password",
)


@dataclass(frozen=True)
class Target:
    """A store's URL, the options that go with it, and the variable that named it.

    ``repr`` shows the last only.
    """

    url: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    source: str = "the default"


class Settings(BaseSettings):
    """What the environment says; a variable there wins over the same one in ``.env``.

    Either ``SESSIONKIT_URL`` names the store, or ``REDIS_URL`` with ``REDIS_PASSWORD`` and ``REDIS_DB`` does,
    or it is ``DEFAULT_URL``.

    Attributes:
        url: ``SESSIONKIT_URL``: any store's URL.
        redis_url: ``REDIS_URL``: a Redis URL of any kind, used if ``SESSIONKIT_URL`` is not set.
        redis_password: ``REDIS_PASSWORD``: for ``REDIS_URL``, so that the URL need not hold it.
        redis_db: ``REDIS_DB``: the database number for ``REDIS_URL``.
        prefix: ``SESSIONKIT_PREFIX``: what every key starts with.
        idle_timeout: ``SESSIONKIT_IDLE_TIMEOUT``: seconds of silence that end a session.
        timeout: ``SESSIONKIT_TIMEOUT``: seconds an operation of the store may take.
        outage: ``SESSIONKIT_OUTAGE``: what becomes of operations while the store cannot be reached.
        journal: ``SESSIONKIT_JOURNAL``: the URL of a file that keeps the writes of an outage.
        on_conflict: ``SESSIONKIT_ON_CONFLICT``: which write stands where others wrote during an outage.
        compression: ``SESSIONKIT_COMPRESSION``: how large records are compressed.
        encryption_keys: ``SESSIONKIT_ENCRYPTION_KEYS``: keys as ``id:base64``, separated by commas or white
            space; the first encrypts.
        encryption_keys_file: ``SESSIONKIT_ENCRYPTION_KEYS_FILE``: a file that holds them instead.
        encryption: ``SESSIONKIT_ENCRYPTION``: ``strict`` refuses records that are not encrypted, ``mixed``
            reads them. Set, it demands keys; with keys, ``strict`` is the default.
        ssl_ca_file: ``SESSIONKIT_SSL_CA_FILE``: the only authorities to trust, for a store over TLS.
        ssl_cert_file: ``SESSIONKIT_SSL_CERT_FILE``: this client's certificate, for a store that asks for one.
        ssl_key_file: ``SESSIONKIT_SSL_KEY_FILE``: its key.
        ssl_key_password: ``SESSIONKIT_SSL_KEY_PASSWORD``: what the key is encrypted with.
        sentinel_username: ``SESSIONKIT_SENTINEL_USERNAME``: the Sentinels' user, if they have users.
        sentinel_password: ``SESSIONKIT_SENTINEL_PASSWORD``: the Sentinels' password, if they have one.
    """

    model_config = SettingsConfigDict(
        env_prefix="SESSIONKIT_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    url: SecretStr | None = None
    redis_url: SecretStr | None = Field(default=None, validation_alias="REDIS_URL")
    redis_password: SecretStr | None = Field(default=None, validation_alias="REDIS_PASSWORD")
    redis_db: int | None = Field(default=None, validation_alias="REDIS_DB", ge=0)
    prefix: str = DEFAULT_PREFIX
    idle_timeout: float = Field(default=300.0, gt=0, allow_inf_nan=False)
    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    outage: Literal["fallback", "raise"] = "fallback"
    journal: str | None = None
    on_conflict: Literal["primary_wins", "local_wins"] = "primary_wins"
    compression: Compression = "auto"
    encryption_keys: SecretStr | None = None
    encryption_keys_file: str | None = None
    encryption: Literal["strict", "mixed"] | None = None
    ssl_ca_file: str | None = None
    ssl_cert_file: str | None = None
    ssl_key_file: str | None = None
    ssl_key_password: SecretStr | None = None
    sentinel_username: str | None = None
    sentinel_password: SecretStr | None = None

    @field_validator("prefix")
    @classmethod
    def _check_prefix(cls, prefix: str) -> str:
        """Refuse here what no key can start with: later, the error would not name the variable."""
        try:
            KeySpace("session", prefix)
        except InvalidKey:
            raise PydanticCustomError("prefix", PREFIX_RULE) from None
        return prefix

    @classmethod
    def load(cls) -> Self:
        """Read the settings.

        Raises:
            ConfigurationError: A variable cannot be read, or one is named almost as one of ours. The message
                names it and does not quote its value.
        """
        _check_names({_variable(name) for name in cls.model_fields if not name.startswith("redis_")})
        try:
            return cls()
        except UnicodeDecodeError:
            reason = ".env is not UTF-8 text"
        except ValidationError as error:
            reason = "; ".join(
                f"{_variable(str(fault['loc'][0]))}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_url=False, include_context=False)
            )
        # Out here, as those errors hold what was read, and `from None` would leave them hanging on this one.
        raise ConfigurationError(f"the settings cannot be read; {reason}")

    def target(self) -> Target:
        """Return the store that the settings name.

        Raises:
            ConfigurationError: ``REDIS_URL`` is no Redis URL, or ``REDIS_PASSWORD`` or ``REDIS_DB`` is set
                and nothing that says for which server, or a variable is named almost as one of these that is
                needed and not set.
        """
        options = self._options()
        if self.url is not None:
            return Target(self.url.get_secret_value(), options, "SESSIONKIT_URL")
        if self.redis_password is not None:
            options["password"] = self.redis_password.get_secret_value()
        if self.redis_db is not None:
            options["db"] = self.redis_db
        if self.redis_url is not None:
            url = self.redis_url.get_secret_value()
            if not url.lower().startswith(("redis:", "rediss:", "redis+", "rediss+")):
                raise ConfigurationError("REDIS_URL is no Redis URL; for another store set SESSIONKIT_URL")
            if self.redis_db is None:
                _refuse_misspelt("REDIS_DB")
            return Target(url, options, "REDIS_URL")
        _refuse_misspelt("REDIS_URL", "REDIS_URI", "REDIS_DSN")
        if self.redis_password is not None or self.redis_db is not None:
            raise ConfigurationError(
                "REDIS_PASSWORD or REDIS_DB is set, but neither REDIS_URL nor SESSIONKIT_URL:"
                " set REDIS_URL=redis://host:6379, or SESSIONKIT_URL to the store you want"
            )
        return Target(DEFAULT_URL, options)

    def codec(
        self,
        *,
        limits: Limits | None = None,
        schema: int = 1,
        migrations: Mapping[int, Migration] | None = None,
    ) -> MsgpackCodec:
        """Return a codec that compresses and encrypts as the settings say; a bot registers its types there.

        Args:
            limits: See ``MsgpackCodec``.
            schema: See ``MsgpackCodec``.
            migrations: See ``MsgpackCodec``.

        Raises:
            ConfigurationError: A setting or an argument is wrong, or a package is missing.
        """
        return MsgpackCodec(
            limits=Limits() if limits is None else limits,
            schema=schema,
            migrations=migrations,
            compression=self.compression,
            keyring=self.keyring(),
            strict=self.encryption != "mixed",
        )

    def keyring(self) -> Keyring | None:
        """Return the keys that the settings name, or None.

        Raises:
            ConfigurationError: They are wrong, are named twice, or lack where ``encryption`` demands some.
        """
        if self.encryption_keys is not None and self.encryption_keys_file is not None:
            raise ConfigurationError(
                "SESSIONKIT_ENCRYPTION_KEYS and SESSIONKIT_ENCRYPTION_KEYS_FILE are both set:"
                " keep one of them"
            )
        if self.encryption_keys is not None:
            name, text = "SESSIONKIT_ENCRYPTION_KEYS", self.encryption_keys.get_secret_value()
        elif self.encryption_keys_file is not None:
            name, text = "SESSIONKIT_ENCRYPTION_KEYS_FILE", _read(self.encryption_keys_file)
        elif self.encryption is not None:
            raise ConfigurationError(
                "SESSIONKIT_ENCRYPTION is set, but neither SESSIONKIT_ENCRYPTION_KEYS nor"
                " SESSIONKIT_ENCRYPTION_KEYS_FILE: make a key by `sessionkit keys new`"
            )
        else:
            return None
        try:
            return Keyring.parse(text)
        except ConfigurationError as error:
            reason = str(error)
        # Out here, with neither the text nor the frames that know it: some reporters send local variables.
        del text
        raise ConfigurationError(f"{name}: {reason}")

    def _options(self) -> dict[str, Any]:
        """Return the driver's options that are set; one that it does not know it refuses."""
        options = {name: getattr(self, name) for name in _DRIVER_OPTIONS}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in options.items()
            if value is not None
        }


def _check_names(known: Set[str]) -> None:
    """Refuse a misspelt variable: passed over, it would send the sessions to another store."""
    try:
        named = _variables()
    except UnicodeDecodeError:
        return  # reading the settings will say so
    for name in sorted(named):
        meant = get_close_matches(name.upper(), known, n=1, cutoff=_ALIKE)
        if name.upper().startswith("SESSIONKIT_") and {"KEY", "KEYS"} & {*name.upper().split("_")}:
            meant = meant or ["SESSIONKIT_ENCRYPTION_KEYS"]  # passed over, it would leave records plain
        if meant and name.upper() not in known:
            raise ConfigurationError(f"{name} is no setting; did you mean {meant[0]}?")


def _refuse_misspelt(wanted: str, *alike: str) -> None:
    """Refuse what is probably meant to be a variable that is not set.

    Unlike ours, such a name may be another program's: one in use, or a numbered one, is let be.
    """
    for name, value in sorted(_variables().items()):
        upper = name.upper()
        if not value or upper == wanted or not upper.startswith("REDIS") or upper[-1].isdigit():
            continue
        if upper in alike or get_close_matches(upper, [wanted], cutoff=_ALIKE):
            raise ConfigurationError(
                f"{name} is no setting; did you mean {wanted}? If it is not meant for this bot,"
                " name the store by SESSIONKIT_URL"
            )


def _read(file: str) -> str:
    try:
        content = Path(file).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = (isinstance(error, OSError) and error.strerror) or "it is no path"
    else:
        if content.isascii():
            return content.decode("ascii")
        reason = "it is not ASCII text; write it without a byte order mark, as id:base64, one a line"
        # With neither the content nor an error that knows it: some reporters send all there is.
        del content
    raise ConfigurationError(f"SESSIONKIT_ENCRYPTION_KEYS_FILE cannot be read: {reason}")


def _variables() -> Mapping[str, str | None]:
    return {**dotenv_values(".env"), **os.environ}


def _variable(location: str) -> str:
    return location if location.isupper() else f"SESSIONKIT_{location.upper()}"
