"""The Redis driver (``redis://``): records on a Redis or Valkey server, shared by all that reach it."""

from sessionkit_redis.opening import open_driver
from sessionkit_redis.store import RedisStore

__all__ = ["RedisStore", "open_driver"]
