-- Put back one complete unit of a snapshot, whose chunks were sent before.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 unit, 7 version, 8 bytes, 9 uses, 10 priority, 11 epoch, 12 byte budget,
--       13… keys of its chunks in order
-- Returns {'ok'}, {'wait'} (no room), {'fenced'}, {'lost'}.
local parts, bytes = #ARGV - 12, tonumber(ARGV[8])

local function put()
  local refused = guard()
  if refused then return refused end
  if number('bytes') + bytes > tonumber(ARGV[12]) then return 'wait' end
  for part = 1, parts do
    if redis.call('EXISTS', ARGV[12 + part]) == 0 then return 'wait' end
  end
  for part = 1, parts do
    local place = chunk_prefix .. ARGV[6] .. ':' .. (part - 1)
    redis.call('RENAME', ARGV[12 + part], place)
    redis.call('EXPIRE', place, ttl)
  end
  write_unit(ARGV[6], { version = tonumber(ARGV[7]), parts = parts, got = parts, bytes = bytes,
    uses = tonumber(ARGV[9]), priority = ARGV[10], epoch = tonumber(ARGV[11]) })
  redis.call('ZADD', READY, ARGV[6], ARGV[6])
  count('bytes', bytes)
  count('used', tonumber(ARGV[9]))
  renew_lifetimes()
  return 'ok'
end

local word = put()
if word ~= 'ok' then
  for part = 1, parts do redis.call('UNLINK', ARGV[12 + part]) end
end
return { word }
