"""From a URL to a store: drivers are found by scheme among the installed packages."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from sessionkit.errors import ConfigurationError
from sessionkit.extras import how_to_install
from sessionkit.resilience import Journal, ResilientStore, StoreFile
from sessionkit.settings import Settings
from sessionkit.store import SessionStore, StoreURL

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkit.resilience import Policy

GROUP: Final = "sessionkit.drivers"
"""The entry-point group: name = URL scheme, value = a callable ``(StoreURL, **options) -> SessionStore``."""


_OF_THE_STACK: Final = frozenset({"outage", "journal", "on_conflict"})
_OF_RESILIENT_STORE: Final = frozenset({"fallback", "retry", "breaker", "deadline"})

_REDIS_EXTRA: Final = how_to_install("redis")


def open_store(
    url: str | None = None,
    *,
    outage: Literal["fallback", "raise"] | None = None,
    journal: str | Journal | None = None,
    on_conflict: Policy | None = None,
    **options: Any,
) -> ResilientStore:
    """Open the store that a bot should use: a driver behind a ``ResilientStore``.

    Nothing is connected to before the first call.

    Args:
        url: Such as ``memory://``, ``sqlite:///bot.db`` or ``redis://localhost:6379/0``. None: what the
            settings say; see ``Settings``. With a URL no setting counts, but for those of keys and
            records, which are not the store's.
        outage: ``"fallback"`` hides an outage, ``"raise"`` does not; see ``ResilientStore``. None: what the
            settings say where they name the store, else ``"fallback"``.
        journal: Where an outage's writes are kept: a file's URL, such as ``sqlite:///outage.db``, of which
            each process needs its own. None: likewise, else in memory.
        on_conflict: See ``ResilientStore``. None: likewise, else ``"primary_wins"``.
        options: Options of the driver, which win over nothing: one given in the URL too is an error.

    Raises:
        ConfigurationError: The URL, its scheme, a setting or an option is wrong.
    """
    named = "journal"
    driver = open_driver(url, **options)
    if url is None:
        settings = Settings.load()
        outage = settings.outage if outage is None else outage
        on_conflict = settings.on_conflict if on_conflict is None else on_conflict
        if settings.journal is not None and journal is None:
            if outage == "raise":
                raise ConfigurationError(
                    "SESSIONKIT_JOURNAL is set, and outage='raise' journals nothing: keep one of them"
                )
            journal, named = settings.journal, "SESSIONKIT_JOURNAL"
    if isinstance(journal, str):
        try:
            journal = open_journal(journal, driver)
        except ConfigurationError as error:
            raise ConfigurationError(f"{named}: {error}") from None
    if journal is not None and not isinstance(journal, Journal):
        raise ConfigurationError(
            f"journal is a URL such as sqlite:///outage.db, or a Journal, not {journal!r}"
        )
    if journal is not None and isinstance(journal.file, StoreFile) and journal.file.lies_in(driver):
        raise ConfigurationError(f"the journal of {driver!r} needs a file of its own, such as outage.db")
    return ResilientStore(
        driver,
        journal=journal,
        outage="fallback" if outage is None else outage,
        on_conflict="primary_wins" if on_conflict is None else on_conflict,
    )


def open_journal(url: str, primary: SessionStore | None = None) -> Journal:
    """Open a journal in a file, which is locked while it is in use: each process needs its own.

    Args:
        url: The file's URL, such as ``sqlite:///outage.db``.
        primary: The store that it is for; a journal that holds writes for another one is refused.

    Raises:
        ConfigurationError: The URL names no file.
    """
    if "://" not in url:
        raise ConfigurationError("a journal is named by a URL, such as sqlite:///outage.db")
    return Journal(file=StoreFile.of(open_driver(url), primary))


def open_driver(url: str | None = None, **options: Any) -> SessionStore:
    """Open the bare driver of a URL; None: what the settings say.

    Raises:
        ConfigurationError: As ``open_store``.
    """
    if url is None:
        target = Settings.load().target()
        try:
            return open_driver(target.url, **{**target.options, **options})
        except ConfigurationError as error:
            raise ConfigurationError(f"{target.source}: {error}") from None
    if not isinstance(url, str):
        raise ConfigurationError(f"a store is named by a URL, not {type(url).__name__}")
    parsed = StoreURL.parse(url)
    if misplaced := sorted(_OF_THE_STACK & parsed.query.keys()):
        raise ConfigurationError(f"{parsed}: {misplaced[0]!r} is an argument of open_store, not of the URL")
    if misplaced := sorted(_OF_RESILIENT_STORE & options.keys()):
        raise ConfigurationError(
            f"{misplaced[0]!r} is an argument of ResilientStore, which takes a driver: "
            f"ResilientStore(open_driver(url), {misplaced[0]}=…)"
        )
    return _load(_find(parsed.scheme))(parsed, **options)


def known_schemes() -> list[str]:
    """Return the URL schemes of the installed drivers, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def _find(scheme: str) -> EntryPoint:
    for point in entry_points(group=GROUP, name=scheme):
        return point
    known = known_schemes()
    # No shorter one of the same family: redis:// for rediss:// would give up its encryption.
    close = [name for name in get_close_matches(scheme, known, n=1) if not scheme.startswith(name)]
    listed = ", ".join(f"{name}://" for name in known)
    raise ConfigurationError(
        f"there is no driver for {scheme}://{f'; did you mean {close[0]}://?' if close else '.'}"
        f" Known are {listed} (those of Redis need {_REDIS_EXTRA}). Another backend needs the package of its"
        " driver."
    )


def _load(point: EntryPoint) -> Callable[..., SessionStore]:
    try:
        return cast("Callable[..., SessionStore]", point.load())
    except ImportError as error:
        extra = _REDIS_EXTRA if point.name.startswith("redis") else ""
        raise ConfigurationError(
            f"the driver of {point.name}:// cannot be imported, as {error.name or 'a package'!r} is missing"
            + (f": {extra}" if extra else "")
        ) from error
