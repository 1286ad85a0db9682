-- Make a record and put it into the queue.
-- KEYS: 1 record, 2 events, 3 index of all ids, 4 queue, 5 leases, 6 what was made under the caller's own key (may lack)
-- ARGV: 1 now (ms or ''), 2 id, 3 name, 4 spec (JSON), 5 tenant, 6 API key's id or '', 7 fingerprint of the request,
--       8 lifetime of key 6 (s)
-- Returns the id of the record: this one, or the one that the same request made before; '' when it was another request.
local past = KEYS[6] and redis.call('GET', KEYS[6])
if past then
  local fingerprint, id = string.match(past, '^(%x+) (.+)$')
  return fingerprint == ARGV[7] and id or ''
end
if redis.call('EXISTS', KEYS[1]) == 1 then return ARGV[2] end
local now = clock(ARGV[1])
redis.call('HSET', KEYS[1], 'id', ARGV[2], 'name', ARGV[3], 'spec', ARGV[4], 'created_at', whole(now), 'generation', 0,
  'tenant', ARGV[5], 'api_key', ARGV[6])
redis.call('ZADD', KEYS[3], 0, ARGV[2])
enter(KEYS[1], KEYS[2], KEYS[4], KEYS[5], ARGV[2], 'queued', now)
if KEYS[6] then redis.call('SET', KEYS[6], ARGV[7] .. ' ' .. ARGV[2], 'EX', ARGV[8]) end
return ARGV[2]
