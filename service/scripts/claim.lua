-- Take a queued record, or one whose lease ran out, as its next generation.
-- KEYS: 1 record, 2 events, 3 queue, 4 leases
-- ARGV: 1 now (ms or ''), 2 id, 3 generation that the caller saw, 4 token of this claim, 5 owner, 6 lease (ms), 7 moves
-- Returns the new generation, or 0 when another was faster.
local now = clock(ARGV[1])
local seen = tonumber(ARGV[3])
local state, generation, token = unpack(redis.call('HMGET', KEYS[1], 'state', 'generation', 'token'))
if not state then return 0 end
-- The same token: the caller's first try worked and only its answer was lost.
if token == ARGV[4] and tonumber(generation) == seen + 1 then return seen + 1 end
local to = target(ARGV[7], state)
if not to or tonumber(generation) ~= seen then return 0 end
if state ~= 'queued' then
  local lease = redis.call('ZSCORE', KEYS[4], ARGV[2])
  if lease and tonumber(lease) > now then return 0 end
  -- A lease of 0 was given up in good order; any other ran out, because its owner was lost.
  if lease and tonumber(lease) > 0 then lose(KEYS[1]) end
end
redis.call('HSET', KEYS[1], 'generation', seen + 1, 'token', ARGV[4], 'owner', ARGV[5], 'phase', 'starting')
redis.call('HSETNX', KEYS[1], 'started_at', whole(now))
enter(KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[2], to, now, { owner = ARGV[5] })
if to == 'running' then note(KEYS[1], to, now, 'starting') end
redis.call('ZADD', KEYS[4], now + tonumber(ARGV[6]), ARGV[2])
return seen + 1
