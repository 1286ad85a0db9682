-- Answer an adaptation request, once, and keep what it made.
-- KEYS: 1 reply, 2 payload, 3 requests, 4 inbox, or '', 5 adaptation, 6 index, 7 books, 8 same, or ''
-- ARGV: 1 answer, 2 lifetime (ms), 3 group, 4 stream entry or '', 5 id, 6 life of the inbox (s), 7 info (JSON) or '',
--       8 parameters, 9 their lifetime (ms), 10 budget (bytes), 11 prefix of adaptations, 12 life of the books (s),
--       13 model
-- Returns 1, or 0 when it had been answered before.
local first = redis.call('EXISTS', KEYS[1]) == 0
if first then
  redis.call('XADD', KEYS[1], '*', 'reply', ARGV[1], 'model', ARGV[13])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  if KEYS[4] ~= '' then
    redis.call('XADD', KEYS[4], '*', 'id', ARGV[5], 'reply', ARGV[1])
    redis.call('EXPIRE', KEYS[4], ARGV[6])
  end
  if ARGV[7] ~= '' then
    keep({key = KEYS[5], index = KEYS[6], books = KEYS[7], same = KEYS[8], info = ARGV[7], blob = ARGV[8],
          ttl_ms = tonumber(ARGV[9]), budget = tonumber(ARGV[10]), prefix = ARGV[11], books_ttl_s = ARGV[12]})
  end
end
redis.call('UNLINK', KEYS[2])
if ARGV[4] ~= '' then
  redis.call('XACK', KEYS[3], ARGV[3], ARGV[4])
  redis.call('XDEL', KEYS[3], ARGV[4])
end
if first then return 1 end
return 0
