-- Make a record and put it into the queue.
-- KEYS: 1 record, 2 events, 3 index of all ids, 4 queue, 5 leases, 6 ids of the API key's records that have not ended,
--       7 what was made under the caller's own key (may lack)
-- ARGV: 1 now (ms or ''), 2 id, 3 name, 4 spec (JSON), 5 tenant, 6 API key's id or '', 7 most records that have not
--       ended or '', 8 what stands before an id in a record's key, 9 fingerprint of the request, 10 lifetime of key 7
--       (s), 11… field, value to set
-- Returns {'made', id}: this one, or the one that the same request made before; {'other'} when it was another request;
-- {'full', count} when the API key has too many already.
local past = KEYS[7] and redis.call('GET', KEYS[7])
if past then
  local fingerprint, id = string.match(past, '^(%x+) (.+)$')
  if fingerprint == ARGV[9] then return { 'made', id } end
  return { 'other' }
end
if redis.call('EXISTS', KEYS[1]) == 1 then return { 'made', ARGV[2] } end
if ARGV[7] ~= '' then
  local count = count_active(KEYS[6], ARGV[8])
  if count >= tonumber(ARGV[7]) then return { 'full', whole(count) } end
  redis.call('SADD', KEYS[6], ARGV[2])
end
local now = clock(ARGV[1])
redis.call('HSET', KEYS[1], 'id', ARGV[2], 'name', ARGV[3], 'spec', ARGV[4], 'created_at', whole(now), 'generation', 0,
  'tenant', ARGV[5], 'api_key', ARGV[6])
for i = 11, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', KEYS[3], 0, ARGV[2])
enter(KEYS[1], KEYS[2], KEYS[4], KEYS[5], ARGV[2], 'queued', now)
count_usage(ARGV[6], now, string.match(ARGV[2], '^%a+') .. 's', 1)
if KEYS[7] then redis.call('SET', KEYS[7], ARGV[9] .. ' ' .. ARGV[2], 'EX', ARGV[10]) end
return { 'made', ARGV[2] }
