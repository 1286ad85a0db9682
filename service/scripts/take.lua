-- Take from the buckets of one key: from all of them or from none.
-- KEYS: 1 buckets
-- ARGV: 1 now (ms or ''), 2 window (ms), then for each bucket: name, limit, amount
-- Returns {number of the bucket that has too little or 0, wait (ms), level of each bucket…}; levels as text.
local now, window = clock(ARGV[1]), tonumber(ARGV[2])
local levels, short, wait = {}, 0, 0
for i = 3, #ARGV, 3 do
  local number, limit, amount = (i - 3) / 3 + 1, tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local level, at = limit, redis.call('HGET', KEYS[1], ARGV[i])
  if at then
    local past, stamp = string.match(at, '^(%S+) (%S+)$')
    level = math.min(limit, tonumber(past) + math.max(0, now - tonumber(stamp)) * limit / window)
  end
  levels[number] = level
  if amount > level and short == 0 then
    short = number
    wait = limit > 0 and math.ceil((amount - level) * window / limit) or window
  end
end
local reply, changed = { short, wait }, false
for i = 3, #ARGV, 3 do
  local number, amount = (i - 3) / 3 + 1, tonumber(ARGV[i + 2])
  if short == 0 and amount > 0 then
    levels[number] = levels[number] - amount
    redis.call('HSET', KEYS[1], ARGV[i], string.format('%.3f', levels[number]) .. ' ' .. whole(now))
    changed = true
  end
  reply[number + 2] = string.format('%.3f', levels[number])
end
-- An idle bucket is full after one window, which is what an absent one says too.
if changed then redis.call('PEXPIRE', KEYS[1], window + 1000) end
return reply
