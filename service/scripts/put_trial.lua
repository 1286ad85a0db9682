-- Store one trial of a sweep in the name of a generation.
-- KEYS: 1 record, 2 trials
-- ARGV: 1 generation, 2 trial id, 3 trial (JSON)
-- Returns {'ok'}, {'missing'}, {'fenced', generation}.
local generation = redis.call('HGET', KEYS[1], 'generation')
if not generation then return { 'missing' } end
if generation ~= ARGV[1] then return { 'fenced', generation } end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return { 'ok' }
