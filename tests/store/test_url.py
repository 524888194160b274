from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.errors import ConfigurationError
from sessionkit.store import StoreURL

SECRET = "hunter2"


def test_a_url_is_taken_apart() -> None:
    url = StoreURL.parse("Redis://ada:p%40ss%2Fw%23rd@[::1]:6380/3?timeout=2.5&client_name=my%20bot")
    assert (url.scheme, url.host, url.port, url.path) == ("redis", "::1", 6380, "/3")
    assert (url.username, url.password) == ("ada", "p@ss/w#rd")
    assert url.query == {"timeout": "2.5", "client_name": "my bot"}
    assert str(url) == "redis://***@[::1]:6380/3"


def test_neither_str_nor_repr_shows_what_is_secret() -> None:
    url = StoreURL.parse(f"redis://ada:{SECRET}@host/0?client_name={SECRET}")
    assert SECRET not in f"{url} {url!r}"
    assert "ada" not in f"{url} {url!r}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "redis",
        "redis:/host",
        "://host",
        f"re dis://:{SECRET}@host",
        f"redis://:{SECRET}/x@host",
        f"redis://:{SECRET}#x@host",
        f"redis://:{SECRET}?x@host:port",
        f"redis://:{SECRET}@host:port",
        f"redis://:{SECRET}@host:99999",
        f"redis://:{SECRET}@[::1",
        f"redis://host/0?{SECRET}",
        f"redis://host/0?timeout={SECRET}&timeout=2",
        f"redis://host/0#{SECRET}",
    ],
)
def test_what_is_no_url_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        StoreURL.parse(text)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_a_url_or_refused(scheme: str, rest: str) -> None:
    try:
        url = StoreURL.parse(f"{scheme}://{rest}")
    except ConfigurationError:
        return
    assert url.scheme


def test_options_come_from_the_url_and_from_code() -> None:
    url = StoreURL.parse("redis://host?timeout=2.5")
    given = {"db": 3, "password": SECRET}
    assert url.read_options({"timeout": float, "db": int}, given, {"password"}) == {"timeout": 2.5, **given}


@pytest.mark.parametrize(
    ("query", "options", "says"),
    [
        ("?colour=1", {}, "unknown parameter 'colour'; those of this driver are: db, timeout$"),
        ("", {"colour": 1}, "unknown option 'colour'; those .* are: db, login, password, timeout$"),
        ("?timeot=1", {}, r"unknown parameter 'timeot' \(did you mean 'timeout'\?\); those .* are: "),
        ("", {"pasword": SECRET}, r"unknown option 'pasword' \(did you mean 'password'\?\); those .* are: "),
        (f"?login={SECRET}", {}, "'login' is a security setting"),
        ("?timeout=soon", {}, "'timeout' cannot be read"),
        ("?timeout=1", {"timeout": 1}, "'timeout' is given in the URL and as an option"),
        (f"?password={SECRET}", {}, "'password' is a security setting"),
        (f"?ssl_keyfile={SECRET}", {}, "'ssl_keyfile' is a security setting"),
    ],
)
def test_options_that_cannot_be_are_refused(query: str, options: dict[str, object], says: str) -> None:
    url = StoreURL.parse(f"redis://:{SECRET}@host{query}")
    with pytest.raises(ConfigurationError, match=says) as caught:
        url.read_options({"timeout": float, "db": int}, options, {"password", "login"})
    assert SECRET not in str(caught.value)
