"""The steps that Redis must take as one, each a Lua script with one declared key."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from sessionkit.store import RING_SIZE, VERSION_BYTES
from sessionkit_redis.layout import HEADER_MAX, LAYOUT

if TYPE_CHECKING:
    from sessionkit_redis.transport import Command


class Script:
    """A Lua script and the SHA-1 by which a server that has seen it knows it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def by_name(self, key: str, *arguments: bytes | str | int) -> Command:
        """Return the command that runs it on a server that has seen it."""
        return ("EVALSHA", self._sha, 1, key, *arguments)

    def in_full(self, by_name: Command) -> Command:
        """Return the command that runs it on any server, made from that of ``by_name``."""
        return ("EVAL", self.source, *by_name[2:])


CORRUPT: Final = 2
"""The reply of ``PUT``, ``DELETE_AT`` and ``TOUCH`` for a key that holds something else than a record."""

# Sets `ids`, the record's write ids as one string, '' where there is no record.
_READ_IDS: Final = f"""
local head = redis.call('GETRANGE', KEYS[1], 0, {HEADER_MAX - 1})
local ids = ''
if head ~= '' then
  local layout, count = string.byte(head, 1, 2)
  if layout ~= {LAYOUT} or not count or count < 1 or count > {RING_SIZE} then return {CORRUPT} end
  ids = string.sub(head, 3, 2 + count * {VERSION_BYTES})
  if #ids ~= count * {VERSION_BYTES} then return {CORRUPT} end
elseif redis.call('EXISTS', KEYS[1]) == 1 then
  return {CORRUPT}
end
local current = string.sub(ids, 1, {VERSION_BYTES})
"""

RENEW: Final = Script(
    f"""
-- ARGV: expiry in ms
local stored = redis.call('GET', KEYS[1])
if stored then
  local layout, count = string.byte(stored, 1, 2)
  if layout == {LAYOUT} and count and count >= 1 and count <= {RING_SIZE}
      and #stored >= 2 + count * {VERSION_BYTES} then
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
  end
end
return stored
"""
)
"""Returns what ``GET`` returns, and renews it if that is a record: what is none must not begin to expire."""

PUT: Final = Script(
    f"""{_READ_IDS}
-- ARGV: write id, value, expiry in ms or '', expected version or 'absent' or ''
local from = 1
while true do
  local at = string.find(ids, ARGV[1], from, true)
  if not at then break end
  if at % {VERSION_BYTES} == 1 then return 1 end
  from = at + 1
end
local expected = ARGV[4]
if expected ~= '' and expected ~= current and not (expected == 'absent' and current == '') then
  return current
end
if #ids == {RING_SIZE * VERSION_BYTES} then ids = string.sub(ids, 1, {(RING_SIZE - 1) * VERSION_BYTES}) end
local stored = string.char({LAYOUT}, #ids / {VERSION_BYTES} + 1) .. ARGV[1] .. ids .. ARGV[2]
if ARGV[3] == '' then
  redis.call('SET', KEYS[1], stored)
else
  redis.call('SET', KEYS[1], stored, 'PX', ARGV[3])
end
return 1
"""
)
"""Returns 1 if applied now or before, ``CORRUPT``, or the current version ('' for absent) on a conflict."""

DELETE_AT: Final = Script(
    f"""{_READ_IDS}
-- ARGV: expected version
if current == '' then return 0 end
if current ~= ARGV[1] then return current end
return redis.call('DEL', KEYS[1])
"""
)
"""Returns 1 if deleted, 0 if absent, ``CORRUPT``, or the current version on a conflict."""

TOUCH: Final = Script(
    f"""{_READ_IDS}
-- ARGV: expiry in ms or '', expected version or ''
if current == '' then return 0 end
if ARGV[2] ~= '' and ARGV[2] ~= current then return current end
if ARGV[1] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
"""
)
"""Returns 1 if the expiry is set, 0 if absent, ``CORRUPT``, or the current version on a conflict."""

# A lock is the string '<token>:<fence>'. A freed one stays for a minute as ':<fence>', so that the next fence
# is larger even if the server's clock was set back by up to that much in between.
_FENCE_MEMORY_MS: Final = 60_000
_READ_LOCK: Final = """
local held = redis.call('GET', KEYS[1])
local token, fence = '', 0
if held then
  local text
  token, text = string.match(held, '^(%w*):(%d+)$')
  fence = tonumber(text)
end
"""

TAKE_LEASE: Final = Script(
    f"""{_READ_LOCK}
-- ARGV: token, lease in ms
if token ~= '' and token ~= ARGV[1] then return 0 end
if token == '' then
  local time = redis.call('TIME')
  fence = math.max(fence + 1, time[1] * 1000000 + time[2])
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. string.format('%.0f', fence), 'PX', ARGV[2])
return fence
"""
)
"""Returns the fence, or 0 if another token holds the lock."""

EXTEND_LEASE: Final = Script(
    f"""{_READ_LOCK}
-- ARGV: token, lease in ms
if token ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
)
"""Returns 1 if extended, 0 if the token holds the lock no longer."""

DROP_LEASE: Final = Script(
    f"""{_READ_LOCK}
-- ARGV: token
if token ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ':' .. string.format('%.0f', fence), 'PX', {_FENCE_MEMORY_MS})
return 1
"""
)
"""Returns 1 if freed, 0 if the token did not hold the lock."""
