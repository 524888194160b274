"""The parameters of one Bot API call, however they were sent."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qsl

from aiohttp import web

from sessionkit.testing.botapi.errors import bad_request

if TYPE_CHECKING:
    from collections.abc import Mapping

DEPTH_LIMIT = 32

_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,18}(\.[0-9]{1,18})?\s*", re.ASCII)


@dataclass(frozen=True)
class Upload:
    """A file that came as a part of a multipart request.

    Attributes:
        filename: The name the bot gave it.
        mime_type: The type the bot gave it.
        data: Its bytes.
    """

    filename: str
    mime_type: str
    data: bytes = field(repr=False)


class Params:
    """Reads parameters as Telegram does: numbers and JSON may come as text, ``null`` is not given.

    Args:
        values: By name: text and uploads from a form, any JSON value from a JSON body.

    Raises:
        ApiError: A value holds what no parameter can: broken Unicode, or nesting past ``DEPTH_LIMIT``.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        _check_values(dict(values))
        self.values = {name: value for name, value in values.items() if value is not None}

    def text(self, name: str) -> str:
        """Return the parameter as text, or "" where it is not given."""
        value = self.values.get(name, "")
        if isinstance(value, Upload):
            return ""
        return value if isinstance(value, str) else json.dumps(value)

    def integer(self, name: str, default: int = 0) -> int:
        """Return the parameter as an integer, or the default where it is none."""
        text = self.text(name)
        return int(text) if _INTEGER.fullmatch(text) else default

    def number(self, name: str, default: float = 0.0) -> float:
        """Return the parameter as a number, or the default where it is none."""
        text = self.text(name)
        return float(text) if _NUMBER.fullmatch(text) else default

    def flag(self, name: str) -> bool:
        """Return whether the parameter is given and true."""
        return self.text(name).strip().lower() in {"true", "yes", "1"}

    def json(self, name: str, kind: type[list[Any]] | type[dict[str, Any]]) -> Any:
        """Return a list or object parameter, or None where it is not given.

        Raises:
            ApiError: It is not JSON, or of another kind.
        """
        value = self.values.get(name)
        if isinstance(value, str):
            value = parse_json(value, name) if value else None
            _check_values(value)
        if value is not None and not isinstance(value, kind):
            raise bad_request(f"{name} must be a JSON {'array' if kind is list else 'object'}")
        return value

    def upload(self, name: str) -> Upload | None:
        """Return the file sent under this name, or by an ``attach://`` reference from it, or None."""
        value = self.values.get(name)
        if isinstance(value, str) and value.startswith("attach://"):
            value = self.values.get(value.removeprefix("attach://"))
        return value if isinstance(value, Upload) else None


async def read_params(request: web.Request) -> Params:
    """Read the query string and the body: JSON, an urlencoded form or a multipart one.

    Raises:
        ApiError: The body is not what its content type says.
    """
    if request.content_type == "multipart/form-data":
        body = await _read_multipart(request)
    else:
        body = parse_body(request.content_type, await request.read())
    return Params({**request.query, **body})


def parse_body(content_type: str, body: bytes) -> dict[str, Any]:
    """Read a JSON object or an urlencoded form; of any other type nothing is read.

    Raises:
        ApiError: The body is not what its content type says.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        if content_type in {"application/json", "application/x-www-form-urlencoded"}:
            raise bad_request("strings must be encoded in UTF-8") from None
        return {}
    if content_type == "application/json" and text.strip():
        value = parse_json(text, "the request")
        if not isinstance(value, dict):
            raise bad_request("the request must be a JSON object")
        return value
    if content_type == "application/x-www-form-urlencoded":
        try:
            return dict(parse_qsl(text, keep_blank_values=True, errors="strict"))
        except ValueError:
            raise bad_request("strings must be encoded in UTF-8") from None
    return {}


async def _read_multipart(request: web.Request) -> dict[str, Any]:
    try:
        form = await request.post()
    except (web.HTTPException, OSError):
        raise
    except Exception as error:
        # aiohttp has no one error for a malformed form: ValueError, AssertionError, LookupError, …
        raise bad_request(f"can't parse the multipart form: {error}") from None
    return {name: _read_field(value) for name, value in form.items()}


def _read_field(value: str | bytes | bytearray | web.FileField) -> str | Upload:
    if isinstance(value, web.FileField):
        with value.file:
            return Upload(value.filename, value.content_type, value.file.read())
    return value if isinstance(value, str) else bytes(value).decode(errors="replace")


def parse_json(text: str, what: str) -> Any:
    """Parse strict JSON.

    Raises:
        ApiError: It is not JSON.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    def finite(digits: str) -> float:
        number = float(digits)
        return number if math.isfinite(number) else refuse(digits)

    try:
        return json.loads(text, parse_constant=refuse, parse_float=finite)
    except (ValueError, RecursionError):
        raise bad_request(f"can't parse {what}: it is not a valid JSON value") from None


def _check_values(value: object, depth: int = 0) -> None:
    """Refuse lone surrogates, which JSON escapes can smuggle in, and nesting no real parameter has."""
    if depth > DEPTH_LIMIT:
        raise bad_request("the request is nested too deeply")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise bad_request("strings must be encoded in UTF-8") from None
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_values(name, depth + 1)
            _check_values(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_values(item, depth + 1)
