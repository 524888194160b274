"""Which sessions the running task is editing, so that an edit inside itself is noticed."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from sessionkit.errors import NestedEdit

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Edit:
    __slots__ = ("key", "open", "store")

    def __init__(self, store: object, key: str) -> None:
        self.store = store
        self.key = key
        self.open = True


# A context variable, so that a task started inside an edit, which would wait for its parent, is noticed too.
_edits: ContextVar[tuple[_Edit, ...]] = ContextVar("sessionkit_edits", default=())


@contextmanager
def editing(store: object, key: str) -> Iterator[None]:
    """Mark the key of this store as being edited while the body runs.

    Raises:
        NestedEdit: It is marked already, here or in the task that started this one.
    """
    outer = _edits.get()
    if any(edit.open and edit.store is store and edit.key == key for edit in outer):
        raise NestedEdit(
            f"{key!r} is edited inside its own edit, which would wait for itself:"
            " use the session that the outer edit gave"
        )
    edit = _Edit(store, key)
    token = _edits.set((*outer, edit))
    try:
        yield
    finally:
        edit.open = False
        _edits.reset(token)
