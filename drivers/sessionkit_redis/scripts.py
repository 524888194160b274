"""The steps that Redis must take as one, each a Lua script that declares its keys."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from sessionkit.store import RING_SIZE, VERSION_BYTES
from sessionkit_redis.layout import HEADER_MAX, IDS_START, LAYOUT

if TYPE_CHECKING:
    from sessionkit_redis.transport import Command


class Script:
    """A Lua script and the SHA-1 by which a server that has seen it knows it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def by_name(self, keys: tuple[str, ...], arguments: tuple[bytes | str | int, ...]) -> Command:
        """Return the command that runs it on a server that has seen it."""
        return ("EVALSHA", self._sha, len(keys), *keys, *arguments)

    def in_full(self, by_name: Command) -> Command:
        """Return the command that runs it on any server, made from that of ``by_name``."""
        return ("EVAL", self.source, *by_name[2:])


CORRUPT: Final = 2
"""The reply of the scripts that write for a key that holds something else than a record."""

_FIRST: Final = IDS_START + 1  # Lua counts from 1

# Of a head and its first two bytes, `layout` and `count`.
_IS_FOREIGN: Final = f"""layout ~= {LAYOUT} or not count or count < 1 or count > {RING_SIZE}
      or #head < {IDS_START} + count * {VERSION_BYTES}"""

# Sets `head`, the first bytes of the record or '', and `count`, how many write ids it has. Redis is given
# numbers as text, which it is slow to make of a Lua number itself.
_READ_HEAD: Final = f"""
local head = redis.call('GETRANGE', KEYS[1], '0', '{HEADER_MAX - 1}')
local count = 0
if head ~= '' then
  local layout
  layout, count = string.byte(head, 1, 2)
  if {_IS_FOREIGN} then return {CORRUPT} end
elseif redis.call('EXISTS', KEYS[1]) == 1 then
  return {CORRUPT}
end
"""
_CURRENT: Final = f"string.sub(head, {_FIRST}, {IDS_START + VERSION_BYTES})"

# Ends the script where `head` has the write id ARGV[1].
_END_IF_APPLIED: Final = f"""
local at = string.find(head, ARGV[1], {_FIRST}, true)
while at and at <= {IDS_START} + count * {VERSION_BYTES} do
  if at % {VERSION_BYTES} == {_FIRST} then return 1 end
  at = string.find(head, ARGV[1], at + 1, true)
end
"""

# Sets `older`, what is kept of the ids of `head` beside one more.
_KEEP_OLDER: Final = f"""
if count == {RING_SIZE} then count = {RING_SIZE - 1} end
local older = string.sub(head, {_FIRST}, {IDS_START} + count * {VERSION_BYTES})
"""
# What stands before the value, with the write id ARGV[1] added.
_IDS: Final = f"string.char({LAYOUT}, count + 1) .. ARGV[1] .. older"

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
    f"""{_READ_HEAD}
-- ARGV: write id, value, expiry in ms or '', and if one is expected, a version or 'absent'
{_END_IF_APPLIED}
local expected = ARGV[4]
if expected then
  local current = {_CURRENT}
  if expected ~= current and not (expected == 'absent' and current == '') then return current end
end
{_KEEP_OLDER}
local stored = {_IDS} .. ARGV[2]
if ARGV[3] == '' then
  redis.call('SET', KEYS[1], stored)
else
  redis.call('SET', KEYS[1], stored, 'PX', ARGV[3])
end
return 1
"""
)
"""Returns 1 if applied now or before, ``CORRUPT``, or the current version ('' for absent) on a conflict."""

WRITE_ALL: Final = Script(
    f"""
-- ARGV: write id, and for each key three: its value, or '' to delete it; expiry in ms, '' or 'delete'; and
-- what is expected, a version, 'absent' or ''
local refusals, puts, deletions = {{}}, {{}}, {{}}
for place, key in ipairs(KEYS) do
  local value, expiry, expected = ARGV[3 * place - 1], ARGV[3 * place], ARGV[3 * place + 1]
  local deletes = expiry == 'delete'
  local head, count = redis.pcall('GETRANGE', key, '0', '{HEADER_MAX - 1}'), 0
  local foreign
  if type(head) == 'table' then
    if not string.find(head.err, 'WRONGTYPE', 1, true) then return head end
    foreign = true
  elseif head ~= '' then
    local layout
    layout, count = string.byte(head, 1, 2)
    foreign = {_IS_FOREIGN}
  else
    foreign = redis.call('EXISTS', key) == 1
  end
  if deletes and expected == '' then
    if foreign or head ~= '' then deletions[#deletions + 1] = key end
  elseif foreign then
    refusals[#refusals + 1] = {{place, {CORRUPT}}}
  else
    local current = {_CURRENT}
    if not deletes then
      {_END_IF_APPLIED}
    end
    if expected ~= '' and expected ~= current
        and not (current == '' and (deletes or expected == 'absent')) then
      refusals[#refusals + 1] = {{place, current}}
    elseif not deletes then
      {_KEEP_OLDER}
      puts[#puts + 1] = {{key, {_IDS} .. value, expiry}}
    elseif current ~= '' then
      deletions[#deletions + 1] = key
    end
  end
end
if refusals[1] then return refusals end
-- A server that allows no SET, or has no room for one, is to refuse before anything is changed: this SET
-- changes nothing, as its key is there. Memory is looked at only before the first write of a script.
if puts[1] and deletions[1] then redis.call('SET', deletions[1], '', 'NX') end
for _, key in ipairs(deletions) do redis.call('DEL', key) end
for _, put in ipairs(puts) do
  if put[3] == '' then
    redis.call('SET', put[1], put[2])
  else
    redis.call('SET', put[1], put[2], 'PX', put[3])
  end
end
return 1
"""
)
"""Returns 1 if applied now or before, or refusals: of each its key's place, and ``CORRUPT`` or the current
version ('' for absent)."""

DELETE_AT: Final = Script(
    f"""{_READ_HEAD}
-- ARGV: expected version
if count == 0 then return 0 end
local current = {_CURRENT}
if current ~= ARGV[1] then return current end
return redis.call('DEL', KEYS[1])
"""
)
"""Returns 1 if deleted, 0 if absent, ``CORRUPT``, or the current version on a conflict."""

RECODE: Final = Script(
    f"""{_READ_HEAD}
-- ARGV: expected version, value
if count == 0 then return 0 end
local current = {_CURRENT}
if current ~= ARGV[1] then return current end
local ids = string.sub(head, 1, {IDS_START} + count * {VERSION_BYTES})
redis.call('SET', KEYS[1], ids .. ARGV[2], 'KEEPTTL')
return 1
"""
)
"""Returns 1 if the value is replaced, 0 if absent, ``CORRUPT``, or the current version on a conflict."""

TOUCH: Final = Script(
    f"""{_READ_HEAD}
-- ARGV: expiry in ms or '', and if one is expected, a version
if count == 0 then return 0 end
if ARGV[2] then
  local current = {_CURRENT}
  if current ~= ARGV[2] then return current end
end
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
