"""The memory driver (``memory://``): records of one process, gone with it."""

from sessionkit_memory.store import MemoryStore, open_driver

__all__ = ["MemoryStore", "open_driver"]
