-- Set fields of a record in the name of a generation.
-- KEYS: 1 record
-- ARGV: 1 generation, 2… field, value
-- Returns {'ok', ''}, {'missing'}, {'fenced', generation}.
local generation = redis.call('HGET', KEYS[1], 'generation')
if not generation then return { 'missing' } end
if generation ~= ARGV[1] then return { 'fenced', generation } end
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return { 'ok', '' }
