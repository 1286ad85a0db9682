-- Put an adaptation request on the stream, once.
-- KEYS: 1 requests, 2 payload, 3 reply, 4 once, or ''
-- ARGV: 1 request (JSON), 2 payload, 3 its lifetime (ms), 4 most entries, 5 fingerprint, 6 its lifetime (s)
-- Returns 1, 0 when it is there already or answered, -1 when too many wait, -2 when its id stands for another request.
if KEYS[4] ~= '' then
  local print = redis.call('GET', KEYS[4])
  if print and print ~= ARGV[5] then return -2 end
end
if redis.call('EXISTS', KEYS[2]) == 1 or redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[4]) then return -1 end
if KEYS[4] ~= '' then redis.call('SET', KEYS[4], ARGV[5], 'EX', ARGV[6]) end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('XADD', KEYS[1], '*', 'request', ARGV[1])
return 1
