-- Put an adaptation request on the stream, once.
-- KEYS: 1 requests, 2 payload, 3 reply, 4 once, or '', 5 same, or ''
-- ARGV: 1 request (JSON), 2 model, 3 payload, 4 its lifetime (ms), 5 most entries, 6 fingerprint, 7 its lifetime (s),
--       8 most bytes of a payload that travels in the entry
-- Returns 1, 0 when it is there already or answered, -1 when too many wait, -2 when its id stands for another request.
if KEYS[4] ~= '' then
  local print = redis.call('GET', KEYS[4])
  if print and print ~= ARGV[6] then return -2 end
end
if redis.call('EXISTS', KEYS[2]) == 1 or redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[5]) then return -1 end
if KEYS[4] ~= '' then redis.call('SET', KEYS[4], ARGV[6], 'EX', ARGV[7]) end
local before = KEYS[5] ~= '' and redis.call('GET', KEYS[5]) or ''
local inline = #ARGV[3] <= tonumber(ARGV[8])
redis.call('SET', KEYS[2], ARGV[2] .. '\n' .. (inline and '' or ARGV[3]), 'PX', ARGV[4])
if inline then
  redis.call('XADD', KEYS[1], '*', 'request', ARGV[1], 'before', before, 'payload', ARGV[3])
else
  redis.call('XADD', KEYS[1], '*', 'request', ARGV[1], 'before', before)
end
return 1
