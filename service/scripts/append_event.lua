-- Add one event in the name of a generation.
-- KEYS: 1 record, 2 events
-- ARGV: 1 now (ms or ''), 2 generation, 3 kind, 4 data (JSON)
-- Returns {'ok', event id, at (ms)}, {'missing'}, {'fenced', generation}.
local now = clock(ARGV[1])
local generation = redis.call('HGET', KEYS[1], 'generation')
if not generation then return { 'missing' } end
if generation ~= ARGV[2] then return { 'fenced', generation } end
return { 'ok', emit(KEYS[2], now, ARGV[3], ARGV[4]), whole(now) }
