"""The way back: what a body unpacked to, as the value it stands for."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final

from msgpack import ExtType, Timestamp

from sessionkit.codec.leaves import LOADERS
from sessionkit.codec.plain import Pairs, unique, unpack
from sessionkit.codec.spread import is_spread
from sessionkit.codec.wire import LEAF_CODES, MARK_CODES, SCALARS, Leaf, Mark
from sessionkit.errors import CodecError, CorruptRecord, RecordTooLarge, UnsupportedType

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkit.codec.limits import Limits
    from sessionkit.codec.registry import Registry

_TO_LIFT: Final = frozenset({list, tuple, Mark, ExtType, Timestamp})
"""What a body unpacks to where it is not yet a value: arrays, maps (as tuples of pairs) and marks."""


class Lifting:
    """One run over one body."""

    def __init__(self, registry: Registry, limits: Limits) -> None:
        self._registered = registry.by_tag
        self._limits = limits

    def lift(self, body: bytes) -> object:
        """Return the value of a body.

        Raises:
            CodecError: It has none; see ``Codec.decode``.
        """
        return self._value(unpack(body, self._limits, tuple, self._extension), self._limits.depth)

    def _extension(self, code: int, payload: bytes) -> object:
        if code in MARK_CODES and not payload:
            return MARK_CODES[code]
        if code not in LEAF_CODES:
            if code in MARK_CODES:
                raise CorruptRecord("a mark with a payload")
            raise CodecError(f"extension code {code} is unknown: a newer version of sessionkit wrote it")
        leaf = LEAF_CODES[code]
        if leaf is Leaf.INT and len(payload) > self._limits.int_bytes:
            raise RecordTooLarge(
                f"an int of {len(payload)} bytes, and at most {self._limits.int_bytes} are read"
            )
        try:
            return LOADERS[leaf](payload)
        except CodecError:
            raise
        except Exception as error:  # whatever hostile bytes provoke in struct, decimal, datetime, …
            raise CorruptRecord(f"a {leaf.name} that is none ({type(error).__name__})") from None

    def _value(self, node: Any, depth: int) -> object:
        kind = type(node)
        if kind not in _TO_LIFT:
            return node
        if kind is not list and kind is not tuple:
            raise CorruptRecord("a mark or a timestamp where only values are")
        if not depth:
            raise RecordTooLarge(f"more than {self._limits.depth} containers inside one another")
        if kind is tuple:
            return self._map(node, depth - 1)
        if node and type(node[0]) is Mark:
            return self._marked(node[0], node[1:], depth - 1)
        return self._values(node, depth - 1)

    def _values(self, nodes: list[object], depth: int) -> list[object]:
        return [self._value(node, depth) if type(node) in _TO_LIFT else node for node in nodes]

    def _map(self, pairs: Pairs, depth: int) -> dict[object, object]:
        if not SCALARS.issuperset(type(key) for key, _ in pairs):
            raise CorruptRecord("a map with keys that are no scalars")
        return self._dict([(key, self._value(node, depth)) for key, node in pairs])

    def _marked(self, mark: Mark, nodes: list[object], depth: int) -> object:
        if mark is Mark.REGISTERED:
            return self._object(nodes, depth)
        values = self._values(nodes, depth)
        try:
            return _MAKERS[mark](self, values)
        except (TypeError, ValueError, OverflowError) as error:
            raise CorruptRecord(f"a {mark.name} that is none ({type(error).__name__})") from None

    def _object(self, nodes: list[object], depth: int) -> object:
        if len(nodes) != 2 or type(nodes[0]) is not str:
            raise CorruptRecord("a registered object without a tag")
        tag = nodes[0]
        if tag not in self._registered:
            raise UnsupportedType(
                f"the record holds an object of tag {tag[:64]!a}, which is registered nowhere in this codec"
            )
        content = self._value(nodes[1], depth)
        try:
            return self._registered[tag].make(content)
        except CodecError:
            raise
        except Exception as error:
            raise CodecError(
                f"the function registered under {tag!r} raised {type(error).__qualname__}"
            ) from error

    def _tuple(self, values: list[object]) -> object:
        return tuple(values)

    def _set(self, values: list[object]) -> object:
        return set(self._elements(values))

    def _frozenset(self, values: list[object]) -> object:
        return frozenset(self._elements(values))

    def _elements(self, values: list[object]) -> list[object]:
        if not is_spread(values) or len(set(values)) != len(values):
            raise ValueError("elements that collide")
        return values

    def _deque(self, values: list[object]) -> object:
        maxlen: Any = values[0] if values else 0
        if maxlen is not None and (type(maxlen) is not int or maxlen < len(values) - 1):
            raise ValueError("a deque over its greatest length")
        if not values:
            raise ValueError("a deque without a greatest length")
        return deque(values[1:], maxlen)

    def _marked_map(self, values: list[object]) -> object:
        return self._dict(self._pairs(values))

    def _ordered_dict(self, values: list[object]) -> object:
        return OrderedDict(self._dict(self._pairs(values)))

    def _pairs(self, values: list[object]) -> Pairs:
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if not is_spread(values[::2]):
            raise ValueError("keys that collide")
        return pairs

    def _dict(self, pairs: Pairs) -> dict[object, object]:
        try:
            return unique(pairs)
        except (TypeError, ValueError):
            raise CorruptRecord("a key that cannot be one, or is there twice") from None


_MAKERS: Final[dict[Mark, Callable[[Lifting, list[object]], object]]] = {
    Mark.TUPLE: Lifting._tuple,
    Mark.SET: Lifting._set,
    Mark.FROZENSET: Lifting._frozenset,
    Mark.DEQUE: Lifting._deque,
    Mark.MAP: Lifting._marked_map,
    Mark.ORDERED_DICT: Lifting._ordered_dict,
}
