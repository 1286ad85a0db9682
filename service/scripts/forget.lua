-- Drop adapted parameters before they expire.
-- KEYS: 1 adaptation, 2 index, 3 books, 4 reply
-- ARGV: none
-- Returns 1, or 0 when there were none.
local member = redis.call('HGET', KEYS[1], 'member')
if not member then return 0 end
redis.call('UNLINK', KEYS[1], KEYS[4])
settle(KEYS[2], KEYS[3], clock(''))
if redis.call('ZREM', KEYS[2], member) == 1 then redis.call('HINCRBY', KEYS[3], 'bytes', -split(member)) end
return 1
