"""Any supported value as plain data, marked arrays and extension objects, ready to be packed."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from operator import is_, itemgetter
from typing import TYPE_CHECKING, Any, Final, NoReturn

from msgpack import ExtType

from sessionkit.codec.leaves import DUMPERS, KEY_INT_BYTES, dump_int, int_size
from sessionkit.codec.path import Element, Index, Inside, Item, Key, Step, render
from sessionkit.codec.raw import NO_ROOM, pack
from sessionkit.codec.registry import Registration, Registry, name_of, registration_for
from sessionkit.codec.spread import WRITTEN, is_spread, is_spread_set
from sessionkit.codec.wire import Leaf, Mark, extension_items
from sessionkit.errors import CodecError, RecordTooLarge, UnsupportedType, described

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from sessionkit.codec.limits import Limits

_UNTOUCHED: Final = frozenset({type(None), bool, float})
_SHORT: Final = 1024
"""Strings that are no longer are looked at once only."""
_MARKS: Final = {mark: ExtType(mark, b"") for mark in Mark}
_ROOT: Final = Element()
_PACKED: Final = itemgetter(0)


class Lowering:
    """One run over one value. It knows the way it came, so every refusal names the place."""

    def __init__(self, registry: Registry, limits: Limits, name: str) -> None:
        self._registered = registry.by_type
        self._factories = registry.factory_tags
        self._limits = limits
        self._room = limits.items
        self._short = min(_SHORT, limits.string_bytes)
        self._name = name
        self._steps: list[Step] = []
        self._open: set[int] = set()

    def lower(self, value: object) -> object:
        """Return the lowered value; a plain scalar is returned itself.

        Raises:
            UnsupportedType: It holds something that would not come back as it went in, or whose own code
                raised something.
            RecordTooLarge: It exceeds a bound.
        """
        try:
            return self._lower(value)
        except (CodecError, *NO_ROOM):
            raise
        except Exception as error:  # whatever a key's or a factory's __hash__ or __eq__ comes to
            self._refuse(UnsupportedType, f"code of the value's own raised {described(error)}")

    def _lower(self, value: object) -> object:
        if self._is_ready(value):
            return value
        kind = type(value)
        if kind in _SCALARS:
            return _SCALARS[kind](self, value)
        if kind in DUMPERS:
            code, dump = DUMPERS[kind]
            return self._leaf(code, self._string(self._call(dump, value)))
        if kind in self._registered:
            return self._object(value, self._registered[kind])
        if kind in _CONTAINERS:
            self._enter(value)
            lowered = _CONTAINERS[kind](self, value)
            self._open.remove(id(value))
            return lowered
        self._refuse(
            UnsupportedType,
            f"{name_of(kind)} is not a type sessionkit keeps;"
            f" register it with codec.{registration_for(kind)}(...)",
        )

    def _is_ready(self, value: Any) -> bool:
        """Tell, fast and for most scalars, that a value is its own lowered form."""
        kind = type(value)
        if kind is str:
            return bool(value.isascii()) and len(value) <= self._short
        if kind is int:
            return bool(-(2**63) <= value < 2**64)
        return kind in _UNTOUCHED or (kind is bytes and len(value) <= self._short)

    def _text(self, value: Any) -> str:
        text: str = value
        try:
            self._string(text.encode())
        except UnicodeEncodeError as error:
            self._refuse(UnsupportedType, f"a str with a lone surrogate at position {error.start} is no text")
        return text

    def _string(self, data: bytes) -> bytes:
        if len(data) > self._limits.string_bytes:
            self._refuse_size(f"a string of {len(data)} bytes", "string_bytes")
        return data

    def _big_int(self, value: Any) -> object:
        size = int_size(value)
        if size > self._limits.int_bytes:
            self._refuse_size(f"an int of {size} bytes", "int_bytes")
        if size > KEY_INT_BYTES and any(isinstance(step, (Key, Element)) for step in self._steps):
            self._refuse(
                UnsupportedType,
                f"an int of {size} bytes in a key or set, and at most {KEY_INT_BYTES} are kept",
            )
        return self._leaf(Leaf.INT, dump_int(value))

    def _leaf(self, code: Leaf, payload: bytes) -> ExtType:
        self._take(extension_items(code, len(payload)))
        return ExtType(code, payload)

    def _object(self, value: object, registration: Registration) -> object:
        self._enter(value)
        self._count(3)
        made = self._call(registration.to, value)
        self._steps.append(Inside(registration.tag))
        lowered = [_MARKS[Mark.REGISTERED], registration.tag, self._lower(made)]
        self._steps.pop()
        self._open.remove(id(value))
        return lowered

    def _list(self, value: list[object]) -> list[object]:
        return self._sequence(value)

    def _tuple(self, value: tuple[object, ...]) -> list[object]:
        return self._sequence(value, _MARKS[Mark.TUPLE])

    def _deque(self, value: deque[object]) -> list[object]:
        return self._sequence(value, _MARKS[Mark.DEQUE], value.maxlen)

    def _sequence(self, values: Collection[object], *head: object) -> list[object]:
        self._count(len(head) + len(values))
        lowered = list(head)
        self._steps.append(_ROOT)
        for index, value in enumerate(values):
            if self._is_ready(value):
                lowered.append(value)
            else:
                self._steps[-1] = Index(index)
                lowered.append(self._lower(value))
        self._steps.pop()
        return lowered

    def _set(self, value: set[object]) -> list[object]:
        return [_MARKS[Mark.SET], *self._elements(value)]

    def _frozenset(self, value: frozenset[object]) -> list[object]:
        return [_MARKS[Mark.FROZENSET], *self._elements(value)]

    def _elements(self, values: Collection[object]) -> list[object]:
        self._count(1 + len(values))
        self._steps.append(Element())
        lowered = sorted(((pack(made := self._lower(value)), made, value) for value in values), key=_PACKED)
        self._steps.pop()
        # In the order in which they will be added again.
        if not is_spread_set([value for _, _, value in lowered], WRITTEN):
            self._refuse_keys()
        return [made for _, made, _ in lowered]

    def _dict(self, value: dict[object, object]) -> object:
        if not is_spread(value, WRITTEN):
            self._refuse_keys()
        keys = self._keys(value)
        if all(map(is_, keys, value)):
            self._count(2 * len(value))
            return dict(zip(keys, self._values(value), strict=True))
        return [_MARKS[Mark.MAP], *self._flat(keys, value)]

    def _ordered_dict(self, value: OrderedDict[object, object]) -> list[object]:
        if getattr(value, "__dict__", None):
            self._refuse(UnsupportedType, "an OrderedDict with attributes of its own is not kept")
        if not is_spread(value, WRITTEN):
            self._refuse_keys()
        return [_MARKS[Mark.ORDERED_DICT], *self._flat(self._keys(value), value)]

    def _default_dict(self, value: defaultdict[object, object]) -> list[object]:
        if not is_spread(value, WRITTEN):
            self._refuse_keys()
        return [
            _MARKS[Mark.DEFAULT_DICT],
            self._factory_tag(value.default_factory),
            *self._flat(self._keys(value), value),
        ]

    def _factory_tag(self, factory: Callable[[], object] | None) -> str | None:
        self._count(0)
        if factory is None:
            return None
        try:
            return self._factories[factory]
        except (KeyError, TypeError):
            self._refuse(
                UnsupportedType,
                "a defaultdict of a factory that is not known; register it with codec.register_factory(...)",
            )

    def _flat(self, keys: list[object], value: dict[object, object]) -> Iterable[object]:
        self._count(1 + 2 * len(value))
        return (part for pair in zip(keys, self._values(value), strict=True) for part in pair)

    def _keys(self, value: dict[object, object]) -> list[object]:
        lowered = []
        self._steps.append(_ROOT)
        for key in value:
            if self._is_ready(key):
                lowered.append(key)
            else:
                self._steps[-1] = Key(key)
                lowered.append(self._lower(key))
        self._steps.pop()
        return lowered

    def _values(self, value: dict[object, object]) -> list[object]:
        lowered = []
        self._steps.append(_ROOT)
        for key, item in value.items():
            if self._is_ready(item):
                lowered.append(item)
            else:
                self._steps[-1] = Item(key)
                lowered.append(self._lower(item))
        self._steps.pop()
        return lowered

    def _enter(self, value: object) -> None:
        if id(value) in self._open:
            self._refuse(
                UnsupportedType, f"this {type(value).__qualname__} contains itself; only trees are kept"
            )
        if len(self._open) >= self._limits.depth:
            self._refuse_size("too many containers inside one another", "depth")
        self._open.add(id(value))

    def _count(self, elements: int) -> None:
        self._take(1 + elements)

    def _take(self, elements: int) -> None:
        self._room -= elements
        if self._room < 0:
            self._refuse_size("too many elements", "items")

    def _call(self, function: Callable[[Any], Any], value: object) -> Any:
        try:
            return function(value)
        except CodecError as error:
            self._refuse(type(error), str(error))
        except Exception as error:
            raise UnsupportedType(
                f"{self._path()}: the function registered for {name_of(type(value))} raised"
                f" {described(error)}"
            ) from None

    def _refuse(self, error: type[CodecError], reason: str) -> NoReturn:
        raise error(f"{self._path()}: {reason}") from None

    def _refuse_size(self, what: str, limit: str) -> NoReturn:
        self._refuse(RecordTooLarge, str(self._limits.refusal(what, limit)))

    def _refuse_keys(self) -> NoReturn:
        self._refuse(UnsupportedType, "keys or elements whose hashes collide this often are not kept")

    def _path(self) -> str:
        return render(self._name, self._steps)


# Any: each method is only called with the type it stands beside.
_SCALARS: Final[dict[type, Callable[[Lowering, Any], object]]] = {
    str: Lowering._text,
    bytes: Lowering._string,
    int: Lowering._big_int,
}
_CONTAINERS: Final[dict[type, Callable[[Lowering, Any], object]]] = {
    list: Lowering._list,
    dict: Lowering._dict,
    tuple: Lowering._tuple,
    set: Lowering._set,
    frozenset: Lowering._frozenset,
    deque: Lowering._deque,
    OrderedDict: Lowering._ordered_dict,
    defaultdict: Lowering._default_dict,
}
