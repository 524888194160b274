"""The way back: what a body unpacked to, as the value it stands for."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, Any, Final

from msgpack import ExtType, Timestamp

from sessionkit.codec.leaves import KEY_INT_BYTES, LOADERS, int_size
from sessionkit.codec.raw import NO_ROOM, unpack
from sessionkit.codec.registry import name_of
from sessionkit.codec.spread import FEW, is_spread, is_spread_set
from sessionkit.codec.wire import LEAF_CODES, MARK_CODES, SCALARS, Leaf, Mark
from sessionkit.errors import CodecError, CorruptRecord, UnsupportedType, described

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkit.codec.limits import Limits
    from sessionkit.codec.raw import Pairs
    from sessionkit.codec.registry import Registry

_TO_LIFT: Final = frozenset({list, tuple, Mark, ExtType, Timestamp})
"""What a body unpacks to where it is not yet a value: arrays, maps (as tuples of pairs) and marks."""


class Lifting:
    """One run over one body."""

    def __init__(self, registry: Registry, limits: Limits) -> None:
        self._registered = registry.by_tag
        self._factories = registry.factories
        self._limits = limits
        self._has_huge_ints = False
        self._has_objects = False
        self._keys_around = 0

    def lift(self, body: bytes) -> object:
        """Return the value of a body whose lengths were checked.

        Raises:
            CodecError: It has none; see ``Codec.decode``.
        """
        return self._value(unpack(body, self._extension), self._limits.depth)

    def _extension(self, code: int, payload: bytes) -> object:
        if code in MARK_CODES and not payload:
            return MARK_CODES[code]
        if code not in LEAF_CODES:
            if code in MARK_CODES:
                raise CorruptRecord("a mark with a payload")
            raise CodecError(f"extension code {code} is unknown: a newer version of sessionkit wrote it")
        leaf = LEAF_CODES[code]
        bound = "int_bytes" if leaf is Leaf.INT else "string_bytes"
        if len(payload) > getattr(self._limits, bound):
            raise self._limits.refusal(f"an extension {leaf.name} of {len(payload)} bytes", bound)
        if leaf is Leaf.INT and len(payload) > KEY_INT_BYTES:
            self._has_huge_ints = True
        try:
            return LOADERS[leaf](payload)
        except (CodecError, *NO_ROOM):
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
            raise self._limits.refusal("too many containers inside one another", "depth")
        if kind is tuple:
            return self._map(node, depth - 1)
        if node and type(node[0]) is Mark:
            return self._marked(node[0], node[1:], depth - 1)
        return self._values(node, depth - 1)

    def _values(self, nodes: list[object], depth: int) -> list[object]:
        if self._keys_around and self._has_huge_ints and any(map(_is_huge, nodes)):
            raise CorruptRecord("a key or an element with an int that is too long for one")
        return [self._value(node, depth) if type(node) in _TO_LIFT else node for node in nodes]

    def _map(self, pairs: Pairs, depth: int) -> dict[object, object]:
        try:
            spread = len(pairs) <= FEW or is_spread([key for key, _ in pairs])
            made: dict[object, object] = dict(pairs) if spread else {}
        except TypeError:  # a list is no key
            made = {}
        if len(made) != len(pairs) or not SCALARS.issuperset(map(type, made)):
            raise CorruptRecord("a map with keys that are no scalars, are there twice or collide too often")
        for key, node in pairs:
            if type(node) in _TO_LIFT:
                made[key] = self._value(node, depth)
        return made

    def _marked(self, mark: Mark, nodes: list[object], depth: int) -> object:
        if mark is Mark.REGISTERED:
            return self._object(nodes, depth)
        try:
            return _MAKERS[mark](self, nodes, depth)
        except (CodecError, *NO_ROOM):
            raise
        except Exception as error:
            # It may be the hash or the comparison of an object, which says nothing of the bytes.
            if self._has_objects:
                raise CodecError(f"a {mark.name} with registered objects raised {described(error)}") from None
            raise CorruptRecord(f"a {mark.name} that is none ({type(error).__name__})") from None

    def _object(self, nodes: list[object], depth: int) -> object:
        if len(nodes) != 2 or type(nodes[0]) is not str:
            raise CorruptRecord("a registered object without a tag")
        tag = nodes[0]
        if tag not in self._registered:
            raise UnsupportedType(
                f"the record holds an object of tag {tag[:64]!a}, which is registered nowhere in this codec"
            )
        self._has_objects = True
        registration = self._registered[tag]
        content = self._value(nodes[1], depth)
        try:
            made = registration.make(content)
        except CodecError:
            raise
        except Exception as error:
            # `from None`: its text may hold what was stored.
            raise CodecError(f"the function registered under {tag!r} raised {described(error)}") from None
        if type(made) is not registration.type:
            raise CodecError(
                f"the function registered under {tag!r} made an object of {name_of(type(made))},"
                f" and the tag is that of {name_of(registration.type)}"
            )
        return made

    def _tuple(self, nodes: list[object], depth: int) -> object:
        return tuple(self._values(nodes, depth))

    def _set(self, nodes: list[object], depth: int) -> set[object]:
        elements = self._hashables(nodes, depth)
        made = set(elements) if is_spread_set(elements) else set()
        if len(made) != len(elements):
            raise ValueError("elements that collide")
        return made

    def _frozenset(self, nodes: list[object], depth: int) -> object:
        return frozenset(self._set(nodes, depth))

    def _deque(self, nodes: list[object], depth: int) -> object:
        maxlen: Any = nodes[0] if nodes else 0
        if maxlen is not None and (type(maxlen) is not int or maxlen < len(nodes) - 1):
            raise ValueError("a deque over its greatest length")
        if not nodes:
            raise ValueError("a deque without a greatest length")
        return deque(self._values(nodes[1:], depth), maxlen)

    def _marked_map(self, nodes: list[object], depth: int) -> dict[object, object]:
        return self._dict(self._hashables(nodes[::2], depth), self._values(nodes[1::2], depth))

    def _ordered_dict(self, nodes: list[object], depth: int) -> object:
        return OrderedDict(self._marked_map(nodes, depth))

    def _default_dict(self, nodes: list[object], depth: int) -> object:
        tag: Any = nodes[0] if nodes else 0
        if tag is None:
            return defaultdict(None, self._marked_map(nodes[1:], depth))
        if type(tag) is not str:
            raise ValueError("a defaultdict without a factory")
        if tag not in self._factories:
            raise UnsupportedType(
                f"the record holds a defaultdict of factory {tag[:64]!a}, which is registered nowhere here"
            )
        return defaultdict(self._factories[tag], self._marked_map(nodes[1:], depth))

    def _hashables(self, nodes: list[object], depth: int) -> list[object]:
        self._keys_around += 1
        values = self._values(nodes, depth)
        self._keys_around -= 1
        return values

    def _dict(self, keys: list[object], values: list[object]) -> dict[object, object]:
        made = dict(zip(keys, values, strict=True)) if is_spread(keys) else {}
        if len(made) != len(keys):
            raise ValueError("a key that is there twice, or keys whose hashes collide too often")
        return made


def _is_huge(node: object) -> bool:
    return type(node) is int and int_size(node) > KEY_INT_BYTES


_MAKERS: Final[dict[Mark, Callable[[Lifting, list[object], int], object]]] = {
    Mark.TUPLE: Lifting._tuple,
    Mark.SET: Lifting._set,
    Mark.FROZENSET: Lifting._frozenset,
    Mark.DEQUE: Lifting._deque,
    Mark.MAP: Lifting._marked_map,
    Mark.ORDERED_DICT: Lifting._ordered_dict,
    Mark.DEFAULT_DICT: Lifting._default_dict,
}
