"""Scripts that run in the engine.

Each script is atomic, declares its keys and uses the engine's clock.

KEYS[1] is the hash `head`, KEYS[2] the stream `events`, whose entry ids are seqs. Answers are text and numbers.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Script(NamedTuple):
    """A script and its SHA-1, the name of the script in the engine."""

    text: str
    digest: str
    is_read_only: bool = False

    @classmethod
    def of(cls, text: str, *, is_read_only: bool = False) -> Script:
        """Return *text* with its digest."""
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), is_read_only)


_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
_PLACE = """
local function place(info)
    local found = {}
    for i = 1, #info, 2 do found[info[i]] = info[i + 1] end
    local position = tonumber(string.match(found['last-generated-id'], '^(%d+)'))
    local first = found['first-entry'] and tonumber(string.match(found['first-entry'][1], '^(%d+)')) or position + 1
    return position, first, found['last-entry']
end
"""

# ARGV: origin, new owner, ms. An owner is `origin.random`. Take the lease for the new owner if it is free, expired, or
# owned by that origin or by the new owner. Flag `allow-oom`: at `maxmemory` an origin must own the engine to trim it.
# Answers: 'owned', owner, end of the lease, epoch · 'empty' · 'mine', epoch, position, target, seq and checksum of the
# last entry, rules, erasures.
CLAIM = Script.of(
    "#!lua flags=allow-oom"
    + _NOW
    + _PLACE
    + """
local head = redis.call('HMGET', KEYS[1], 'owner', 'until', 'epoch', 'target', 'rules', 'erasures')
local owner, ends = head[1], tonumber(head[2] or '0')
if owner and owner ~= ARGV[2] and string.match(owner, '^[^.]*') ~= ARGV[1] and ends > now then
    return {'owned', owner, ends, head[3] or ''}
end
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'until', now + tonumber(ARGV[3]))
if not head[3] or redis.call('EXISTS', KEYS[2]) == 0 then return {'empty'} end
local position, _, last = place(redis.call('XINFO', 'STREAM', KEYS[2]))
local seq, checksum = '0', ''
if last then
    seq = string.match(last[1], '^(%d+)')
    for i = 1, #last[2], 2 do if last[2][i] == 'c' then checksum = last[2][i + 1] end end
end
return {'mine', head[3], position, head[4] or '0', seq, checksum, head[5] or '', head[6] or ''}
"""
)

# ARGV: owner, epoch, seq, target, rules, erasures. Empty the stream, and continue it after *seq*. Answers 1, or 0 if
# the owner is another one.
BEGIN = Script.of(
    _NOW
    + """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[2])
redis.call('XGROUP', 'CREATE', KEYS[2], 'none', '0', 'MKSTREAM')
redis.call('XGROUP', 'DESTROY', KEYS[2], 'none')
if ARGV[3] ~= '0' then redis.call('XSETID', KEYS[2], ARGV[3] .. '-0') end
redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'target', ARGV[4], 'rules', ARGV[5], 'erasures', ARGV[6],
    'appended_at', now)
return 1
"""
)

# ARGV: owner, epoch, position before, position after, most events, first seq, ms of the lease, shortages of memory, and
# for each event its seq, JSON, time and checksum. Without events: a heartbeat, which trims before it writes anything,
# so that it succeeds at `maxmemory`. Answers 'ok' · 'fenced', owner · 'lost' · 'at', position.
APPEND = Script.of(
    _NOW
    + _PLACE
    + """
local head = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if head[1] ~= ARGV[1] then return {'fenced', head[1] or ''} end
if head[2] ~= ARGV[2] or redis.call('EXISTS', KEYS[2]) == 0 then return {'lost'} end
local position = place(redis.call('XINFO', 'STREAM', KEYS[2]))
if position ~= tonumber(ARGV[3]) then return {'at', position} end
for i = 9, #ARGV, 4 do
    redis.call('XADD', KEYS[2], ARGV[i] .. '-0', 'e', ARGV[i + 1], 't', ARGV[i + 2], 'c', ARGV[i + 3])
    position = tonumber(ARGV[i])
end
redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', ARGV[5])
redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[6])
if position < tonumber(ARGV[4]) then redis.call('XSETID', KEYS[2], ARGV[4] .. '-0') end
redis.call('HSET', KEYS[1], 'until', now + tonumber(ARGV[7]), 'appended_at', now)
if ARGV[8] ~= '0' then redis.call('HINCRBY', KEYS[1], 'shortages', ARGV[8]) end
return {'ok'}
"""
)

# ARGV: owner, epoch, erasures, seqs. Remove these events. Flag `allow-oom`: without seqs it writes the head first, and
# at `maxmemory` an origin that cannot erase would append nothing more. Answers 'ok' · 'fenced', owner · 'lost'.
ERASE = Script.of(
    """#!lua flags=allow-oom
local head = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if head[1] ~= ARGV[1] then return {'fenced', head[1] or ''} end
if head[2] ~= ARGV[2] or redis.call('EXISTS', KEYS[2]) == 0 then return {'lost'} end
for i = 4, #ARGV do redis.call('XDEL', KEYS[2], ARGV[i] .. '-0') end
redis.call('HSET', KEYS[1], 'erasures', ARGV[3])
return {'ok'}
"""
)

# ARGV: 'after' or 'before', seq, most events, most bytes. Read until one of both is reached. The last event may exceed
# the bytes. Answers nothing if there is no head or no stream, else epoch, target, rules, erasures, rights, types, first
# seq, position, ms since the origin last wrote, whether there is more, the earliest time of an event, the seqs and the
# sizes of the events, each joined by commas, and their JSON, joined: three texts cost less than an array.
READ = Script.of(
    "#!lua flags=no-writes"
    + _NOW
    + _PLACE
    + """
local head = redis.call('HMGET', KEYS[1], 'epoch', 'target', 'rules', 'erasures', 'rights', 'types', 'appended_at')
if not head[1] or redis.call('EXISTS', KEYS[2]) == 0 then return {} end
local position, first = place(redis.call('XINFO', 'STREAM', KEYS[2]))
local is_forward, seq, left, room = ARGV[1] == 'after', ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local seqs, sizes, events, written, has_more = {}, {}, {}, '', 0
while left > 0 and room >= 0 do
    local count = math.min(left, 500)
    local chunk
    if is_forward then chunk = redis.call('XRANGE', KEYS[2], '(' .. seq .. '-0', '+', 'COUNT', count)
    else chunk = redis.call('XREVRANGE', KEYS[2], '(' .. seq .. '-0', '-', 'COUNT', count) end
    for _, entry in ipairs(chunk) do
        if room < 0 then break end
        local fields = entry[2]
        seq = string.match(entry[1], '^(%d+)')
        seqs[#seqs + 1], sizes[#sizes + 1], events[#events + 1] = seq, #fields[2], fields[2]
        if fields[4] ~= '' and (written == '' or fields[4] < written) then written = fields[4] end
        room, left = room - #fields[2], left - 1
    end
    has_more = #chunk == count and 1 or 0
    if #chunk < count then break end
end
if room < 0 then has_more = 1 end
return {head[1], head[2] or '0', head[3] or '', head[4] or '', head[5] or '', head[6] or '', first, position,
    head[7] and now - tonumber(head[7]) or -1, has_more, written, table.concat(seqs, ','), table.concat(sizes, ','),
    table.concat(events)}
""",
    is_read_only=True,
)

# KEYS[1] is `grants`. ARGV: a grant and its principal. Add it, unless the grants are lost: then the origin writes all.
GRANT = Script.of(
    """
if redis.call('HEXISTS', KEYS[1], '_') == 0 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""
)
