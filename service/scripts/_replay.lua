-- The replay of one job: shared by all replay scripts.
-- KEYS: 1 fence, 2 state, 3 units, 4 ready, 5 claims, 6 owners, 7 and 8 streams that wake the learner and rollouts
-- ARGV: 1 now (ms or ''), 2 generation, 3 lifetime of every key (s), 4 prefix of chunk keys, 5 prefix of meta keys,
--       6… the script's own
-- A unit's entry is "version parts got bytes uses priority epoch"; the priority is text that only clients read.
local FENCE, STATE, UNITS, READY, CLAIMS, OWNERS, LEARNER, ROLLOUTS = unpack(KEYS)
local now = clock(ARGV[1])
local generation = tonumber(ARGV[2])
local ttl, chunk_prefix, meta_prefix = ARGV[3], ARGV[4], ARGV[5]

local function number(field) return tonumber(redis.call('HGET', STATE, field) or '0') end

local function count(field, by)
  by = by or 1
  -- A difference of -0 would be sent as "-0", which is no integer to Redis.
  if by ~= 0 then redis.call('HINCRBY', STATE, field, whole(by)) end
end

-- 'fenced' when a newer generation owns the job, 'lost' when this one was not reset here, else nil.
local function guard()
  local own = number('generation')
  if math.max(tonumber(redis.call('GET', FENCE) or '0'), own) > generation then return 'fenced' end
  if own < generation then return 'lost' end
  return nil
end

-- Wake whoever rests on this stream. On a full server nobody is woken: they look again by themselves.
local function wake(stream) redis.pcall('XADD', stream, 'MAXLEN', 1, '*', 'at', whole(now)) end

local function renew_lifetimes()
  for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ttl) end
end

local function read_unit(unit)
  local text = redis.call('HGET', UNITS, unit)
  if not text then return nil end
  local version, parts, got, bytes, uses, priority, epoch =
    string.match(text, '(%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%d+)')
  return { version = tonumber(version), parts = tonumber(parts), got = tonumber(got), bytes = tonumber(bytes),
    uses = tonumber(uses), priority = priority, epoch = tonumber(epoch), text = text }
end

local function write_unit(unit, entry)
  redis.call('HSET', UNITS, unit, string.format('%.0f %.0f %.0f %.0f %.0f %s %.0f', entry.version, entry.parts, entry.got,
    entry.bytes, entry.uses, entry.priority, entry.epoch))
end

local function drop_unit(unit, entry)
  for part = 0, entry.parts - 1 do redis.call('UNLINK', chunk_prefix .. unit .. ':' .. part) end
  redis.call('HDEL', UNITS, unit)
  redis.call('ZREM', READY, unit)
  count('bytes', -entry.bytes)
  count('used', -entry.uses)
end

local function drop_claim(unit)
  redis.call('ZREM', CLAIMS, unit)
  redis.call('HDEL', OWNERS, unit)
end

-- A unit left unused, or used less than it should: its share of the limiter's credit comes back.
local function give_back(share)
  count('dropped_stale')
  redis.call('HINCRBYFLOAT', STATE, 'returned', string.format('%.12f', share))
end

local function drop_everything()
  for _, unit in ipairs(redis.call('HKEYS', UNITS)) do drop_unit(unit, read_unit(unit)) end
  for _, field in ipairs({ 'version', 'previous' }) do
    local version = redis.call('HGET', STATE, field)
    if version then redis.call('UNLINK', meta_prefix .. version) end
  end
  redis.call('DEL', STATE, UNITS, READY, CLAIMS, OWNERS, LEARNER, ROLLOUTS)
end
