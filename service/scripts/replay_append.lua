-- Store chunks of a claimed unit. Each was sent before, to a key of its own, and is only renamed: a script that takes
-- the bytes as an argument copies them twice.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 unit, 7 parts, 8 version, 9 byte budget, 10 most units ('' for any),
--       11 1 to drop the oldest when full, 12 mode, 13 max staleness, 14 samples per insert, 15 priority,
--       16… part, key of the chunk that was sent
-- Returns {'ok', 'accepted' | 'duplicate' | 'wait' for each…} (a wait is the last that was tried),
-- {'mismatch', parts}, {'fenced'}, {'lost'}.
local unit, parts, version = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local entry, known, claimed, current -- of the unit; known: it is in UNITS
local bytes, units -- what is stored in all, once looked up
local changed, added = false, 0 -- whether anything is stored, and bytes that STATE does not count yet

-- Not there: the server had no memory for it (and has none for a count), or it took a minute to come here.
local function arrived(sent, size) return size > 0 or redis.call('EXISTS', sent) == 1 end

-- Whether the unit may grow. No claim: complete, round over, or given out before a reset. A version from the future:
-- from before a reset.
local function wanted()
  if not claimed or version > current or (entry and version < entry.version) then return false end
  if ARGV[12] == 'sync' then return version == current end
  if current - version <= tonumber(ARGV[13]) then return true end
  -- Too old already: whoever is at it need not go on, and the limiter lets another unit take its place.
  if entry then drop_unit(unit, entry) end
  drop_claim(unit)
  claimed, entry = false, nil
  give_back(1)
  return false
end

local function look() bytes, units = number('bytes') + added, redis.call('HLEN', UNITS) end

-- Whether so many bytes fit, once the oldest were dropped where the plan says so.
local function room(size)
  local most = tonumber(ARGV[10])
  if not bytes then look() end
  while bytes + size > tonumber(ARGV[9]) or (most and units + (known and 0 or 1) > most) do
    local oldest = ARGV[11] == '1' and redis.call('ZRANGE', READY, 0, 0)[1]
    if not oldest then return false end
    local old = read_unit(oldest)
    drop_unit(oldest, old)
    redis.call('HINCRBYFLOAT', STATE, 'returned', string.format('%.12f', 1 - old.uses / tonumber(ARGV[14])))
    count('evicted')
    look()
  end
  return true
end

local function store(part, sent)
  local size = redis.call('STRLEN', sent)
  if not arrived(sent, size) then return 'wait' end
  if not wanted() then return 'duplicate' end
  if entry and version > entry.version then
    drop_unit(unit, entry)
    entry, known, bytes = nil, false, nil
  end
  local place = chunk_prefix .. unit .. ':' .. part
  if entry and redis.call('EXISTS', place) == 1 then return 'duplicate' end
  if not room(size) then
    count('waits')
    return 'wait'
  end
  redis.call('RENAME', sent, place)
  redis.call('EXPIRE', place, ttl)
  entry = entry or { version = version, parts = parts, got = 0, bytes = 0, uses = 0, priority = ARGV[15], epoch = 0 }
  entry.got = entry.got + 1
  entry.bytes = entry.bytes + size
  added, bytes = added + size, bytes + size
  changed = true
  if entry.got == entry.parts then
    redis.call('ZADD', READY, unit, unit)
    drop_claim(unit)
    claimed = false
    count('inserted')
    wake(LEARNER)
  end
  return 'accepted'
end

local function append()
  local refused = guard()
  if refused then return { refused } end
  current, entry, claimed = number('version'), read_unit(unit), redis.call('ZSCORE', CLAIMS, unit)
  known = entry ~= nil
  if entry and entry.version == version and entry.parts ~= parts and wanted() then
    count('rejected')
    return { 'mismatch', whole(entry.parts) }
  end
  local reply = { 'ok' }
  for i = 16, #ARGV, 2 do
    local word = store(ARGV[i], ARGV[i + 1])
    reply[#reply + 1] = word
    if word == 'duplicate' then count('duplicates') end
    if word == 'wait' then break end
  end
  if changed then
    count('bytes', added)
    write_unit(unit, entry)
    renew_lifetimes()
  end
  return reply
end

local reply = append()
for i = 16, #ARGV, 2 do
  if reply[(i - 16) / 2 + 2] ~= 'accepted' or reply[1] ~= 'ok' then redis.call('UNLINK', ARGV[i + 1]) end
end
return reply
