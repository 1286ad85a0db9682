-- Register the next version of a model.
-- KEYS: 1 index of names, 2 model
-- ARGV: 1 name, 2 token, 3 facts (JSON without the version), 4 blob, 5 prefix of blob keys
-- Returns the version: a new one, or the one that this token made before.
local before = redis.call('HGET', KEYS[2], 'once:' .. ARGV[2])
if before then return tonumber(before) end
-- A new version is the latest one, wherever that alias was moved before.
local aliases = redis.call('HGET', KEYS[2], 'aliases')
if aliases then
  local known = cjson.decode(aliases)
  known.latest = nil
  redis.call('HSET', KEYS[2], 'aliases', cjson.encode(known))
end
local version = tonumber(redis.call('HGET', KEYS[2], 'latest') or '0') + 1
redis.call('SET', ARGV[5] .. version, ARGV[4])
redis.call('HSET', KEYS[2], 'latest', version, 'once:' .. ARGV[2], version, 'v:' .. version, ARGV[3])
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return version
