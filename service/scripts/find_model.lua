-- Find a version of a model.
-- KEYS: 1 model
-- ARGV: 1 version, or '' where the alias says it, 2 alias
-- Returns {version, its facts, metadata, aliases, latest}, each false when absent; the version is 0 when there is no
-- such model, and -1 when the model has no such alias.
local latest, aliases, metadata = unpack(redis.call('HMGET', KEYS[1], 'latest', 'aliases', 'metadata'))
local version = ARGV[1]
if version == '' then
  local known = cjson.decode(aliases or '{}')
  version = whole(known[ARGV[2]] or (ARGV[2] == 'latest' and latest) or (latest and -1) or 0)
end
return { version, redis.call('HGET', KEYS[1], 'v:' .. version), metadata, aliases, latest }
