"""The memory driver (``memory://``): records of one process, gone with it."""

from sessionkit_memory.opening import open_driver
from sessionkit_memory.store import MemoryStore

__all__ = ["MemoryStore", "open_driver"]
