-- Point an alias of a model to a version, or forget it.
-- KEYS: 1 model
-- ARGV: 1 alias, 2 version, or '' to forget
-- Returns {'ok'}, {'missing'} (no such model or version).
if redis.call('EXISTS', KEYS[1]) == 0 then return { 'missing' } end
local known = cjson.decode(redis.call('HGET', KEYS[1], 'aliases') or '{}')
if ARGV[2] ~= '' then
  if redis.call('HEXISTS', KEYS[1], 'v:' .. ARGV[2]) == 0 then return { 'missing' } end
  known[ARGV[1]] = tonumber(ARGV[2])
else
  known[ARGV[1]] = nil
end
redis.call('HSET', KEYS[1], 'aliases', cjson.encode(known))
return { 'ok' }
