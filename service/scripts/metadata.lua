-- Change the metadata of a record or a model.
-- KEYS: 1 record or model
-- ARGV: 1 changes (JSON object; null removes), 2 most pairs
-- Returns {'ok'}, {'missing'}, {'full', pairs that there would be}.
if redis.call('EXISTS', KEYS[1]) == 0 then return { 'missing' } end
local kept = cjson.decode(redis.call('HGET', KEYS[1], 'metadata') or '{}')
for name, value in pairs(cjson.decode(ARGV[1])) do
  if value == cjson.null then kept[name] = nil else kept[name] = value end
end
local count = 0
for _ in pairs(kept) do count = count + 1 end
if count > tonumber(ARGV[2]) then return { 'full', count } end
redis.call('HSET', KEYS[1], 'metadata', cjson.encode(kept))
return { 'ok' }
