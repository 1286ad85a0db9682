-- Store one trial of a sweep in the name of a generation, and tell the sweep's history.
-- KEYS: 1 record, 2 trials, 3 events
-- ARGV: 1 now (ms or ''), 2 generation, 3 trial id, 4 trial (JSON), 5 what the event says (JSON)
-- Returns {'ok'}, {'missing'}, {'fenced', generation}.
local generation = redis.call('HGET', KEYS[1], 'generation')
if not generation then return { 'missing' } end
if generation ~= ARGV[2] then return { 'fenced', generation } end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
emit(KEYS[3], clock(ARGV[1]), 'trial', ARGV[5])
return { 'ok' }
