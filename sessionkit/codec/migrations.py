"""From what a value meant when it was written to what it means today."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final, TypeAlias

from sessionkit.codec.envelope import MAX_SCHEMA
from sessionkit.errors import CodecError, ConfigurationError, described

Migration: TypeAlias = Callable[[Any], Any] | Mapping[str, Callable[[Any], Any]]
"""Takes a value of one schema and returns that of the next; it may change the value in place and return it.

A function is applied to values of every kind. A mapping has a function for some kinds, and leaves the others
as they are. The kinds are the namespaces of keys: ``session``, ``user_data``, ``chat_data``, ``bot_data``.
"""


KINDS: Final = ("session", "user_data", "chat_data", "bot_data")
"""The kinds that sessionkit itself has; a ``SessionService`` may have a namespace of another name."""

_NEVER_MIGRATED: Final = ("conversation", "callback_data")


class Migrations:
    """The steps from every schema up to a codec's own.

    Args:
        schema: The codec's schema.
        steps: For every schema from 1 to the one before it, the step to the next. Empty: values of older
            schemas are read as they are.

    Raises:
        ConfigurationError: The schema is none, or a step is missing, too many or no function.
    """

    def __init__(self, schema: int, steps: Mapping[int, Migration]) -> None:
        if not isinstance(steps, Mapping):
            raise ConfigurationError(
                f"migrations are a mapping of schema numbers to functions, not {type(steps).__name__}"
            )
        if type(schema) is not int or not 1 <= schema <= MAX_SCHEMA:
            raise ConfigurationError(
                f"a schema version is a whole number from 1 to {MAX_SCHEMA}, not {schema!r}"
            )
        if steps and set(steps) != set(range(1, schema)):
            if schema == 1:
                raise ConfigurationError(
                    "there are migrations, and the schema is 1: say which one they lead to, schema=…"
                )
            missing = sorted(set(range(1, schema)) - set(steps))
            others = [number for number in steps if number not in range(1, schema)]
            raise ConfigurationError(
                f"migrations to schema {schema} are one for each schema from 1 to {schema - 1}, and "
                + (f"{missing[0]} has none" if missing else f"{others[0]!r} is none of these")
            )
        for number, step in steps.items():
            functions = list(step.values()) if isinstance(step, Mapping) else [step]
            if not all(map(callable, functions)):
                raise ConfigurationError(
                    f"the migration from schema {number} is a function, or a mapping of kinds to functions"
                )
            if isinstance(step, Mapping):
                _check_kinds(number, step)
        self.schema = schema
        self._steps = dict(steps)

    def apply(self, value: Any, schema: int, kind: str | None) -> Any:
        """Return a value of an older schema as one of the codec's own.

        Raises:
            CodecError: A step raised, or returned None for something.
        """
        if not self._steps:
            return value
        for number in range(schema, self.schema):
            value = _step(self._steps[number], value, number, kind)
        return value


def _check_kinds(number: int, step: Mapping[str, object]) -> None:
    """Refuse a mapping that migrates nothing: what it leaves is written as if it were migrated."""
    if not step:
        raise ConfigurationError(f"the migration from schema {number} names no kind")
    for kind in step:
        if not isinstance(kind, str):
            raise ConfigurationError(
                f"the migration from schema {number}: a kind is a str, not {type(kind).__name__}"
            )
        if kind in _NEVER_MIGRATED:
            raise ConfigurationError(f"the migration from schema {number}: {kind} is never migrated")
        meant = get_close_matches(kind, KINDS, n=1, cutoff=0.8)
        # One that goes on after a kind, such as sessions, is a service's namespace rather than misspelt.
        if meant and not kind.startswith(meant[0]):
            raise ConfigurationError(
                f"the migration from schema {number}: {kind!r} is no kind; did you mean {meant[0]!r}?"
            )


def _step(migration: Migration, value: Any, number: int, kind: str | None) -> Any:
    if isinstance(migration, Mapping):
        if kind is None or kind not in migration:
            return value
        migration = migration[kind]
    try:
        migrated = migration(value)
    except CodecError:
        raise
    except Exception as error:
        # `from None`: its text may hold what was stored.
        raise CodecError(f"the migration from schema {number} raised {described(error)}") from None
    if migrated is None and value is not None:
        raise CodecError(f"the migration from schema {number} returned None: it returns the migrated value")
    return migrated
