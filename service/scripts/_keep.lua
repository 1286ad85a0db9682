-- Keeping adapted parameters within a budget of bytes. The index (a sorted set) holds `<bytes>:<id>` by the time (ms) at
-- which each expires, which is the order in which they came; the books (a hash) say how many bytes there are (`bytes`)
-- and how many had to go before their time (`dropped`).

local function split(member)
  local colon = string.find(member, ':', 1, true)
  return tonumber(string.sub(member, 1, colon - 1)), string.sub(member, colon + 1)
end

-- Take out of the books what expired by itself.
local function settle(index, books, now)
  if redis.call('EXISTS', index) == 0 then redis.call('HSET', books, 'bytes', 0) end
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', whole(now))) do
    redis.call('ZREM', index, member)
    redis.call('HINCRBY', books, 'bytes', -split(member))
  end
end

-- Keep one; the oldest make room. Returns 1, or 0 when it is larger than the whole budget.
local function keep(what)
  local now = clock('')
  settle(what.index, what.books, now)
  redis.call('EXPIRE', what.books, what.books_ttl_s)
  local size = #what.info + #what.blob
  local held = tonumber(redis.call('HGET', what.books, 'bytes') or '0')
  if size > what.budget then
    redis.call('HINCRBY', what.books, 'dropped', 1)
    return 0
  end
  while held + size > what.budget do
    local oldest = redis.call('ZPOPMIN', what.index)
    if #oldest == 0 then break end
    local bytes, id = split(oldest[1])
    redis.call('UNLINK', what.prefix .. id)
    held = held - bytes
    redis.call('HINCRBY', what.books, 'dropped', 1)
  end
  local member = size .. ':' .. string.sub(what.key, #what.prefix + 1)
  redis.call('HSET', what.key, 'info', what.info, 'blob', what.blob, 'member', member)
  redis.call('PEXPIRE', what.key, what.ttl_ms)
  redis.call('ZADD', what.index, whole(now + what.ttl_ms), member)
  redis.call('PEXPIRE', what.index, what.ttl_ms)
  redis.call('HSET', what.books, 'bytes', held + size)
  if what.same ~= '' then redis.call('SET', what.same, string.sub(what.key, #what.prefix + 1), 'PX', what.ttl_ms) end
  return 1
end
