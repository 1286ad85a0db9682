-- Take messages whose time has come; nobody else gets them until the lease is over.
-- KEYS: 1 due
-- ARGV: 1 now (ms or ''), 2 most, 3 lease (ms), 4 what stands before an id in a message's key
-- Returns id, number of this try, id, …
local now = clock(ARGV[1])
local reply = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  if redis.call('EXISTS', ARGV[4] .. id) == 0 then
    redis.call('ZREM', KEYS[1], id)
  else
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), id)
    reply[#reply + 1] = id
    reply[#reply + 1] = whole(redis.call('HINCRBY', ARGV[4] .. id, 'tries', 1))
  end
end
return reply
