-- Store chunks of a claimed unit. Each was sent before, to a key of its own, and is only renamed: a script that takes
-- the bytes as an argument copies them twice.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 unit, 7 parts, 8 version, 9 byte budget, 10 mode, 11 max staleness,
--       12 priority, 13… part, key of the chunk that was sent
-- Returns {'ok', 'accepted' | 'duplicate' | 'wait' for each…} (a wait is the last that was tried),
-- {'mismatch', parts}, {'fenced'}, {'lost'}.
local unit, parts, version = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local entry, claimed, current, changed

-- Not there: the server had no memory for it (and has none for a count), or it took a minute to come here.
local function arrived(sent, size) return size > 0 or redis.call('EXISTS', sent) == 1 end

-- Whether the unit may grow. No claim: complete, round over, or given out before a reset. A version from the future:
-- from before a reset.
local function wanted()
  if not claimed or version > current or (entry and version < entry.version) then return false end
  if ARGV[10] == 'sync' then return version == current end
  if current - version <= tonumber(ARGV[11]) then return true end
  -- Too old already: whoever is at it need not go on, and the limiter lets another unit take its place.
  if entry then drop_unit(unit, entry) end
  drop_claim(unit)
  claimed, entry = false, nil
  give_back(1)
  return false
end

local function store(part, sent)
  local size = redis.call('STRLEN', sent)
  if not arrived(sent, size) then return 'wait' end
  if not wanted() then return 'duplicate' end
  if entry and version > entry.version then
    drop_unit(unit, entry)
    entry = nil
  end
  local place = chunk_prefix .. unit .. ':' .. part
  if entry and redis.call('EXISTS', place) == 1 then return 'duplicate' end
  if number('bytes') + size > tonumber(ARGV[9]) then
    count('waits')
    return 'wait'
  end
  redis.call('RENAME', sent, place)
  redis.call('EXPIRE', place, ttl)
  entry = entry or { version = version, parts = parts, got = 0, bytes = 0, uses = 0, priority = ARGV[12], epoch = 0 }
  entry.got = entry.got + 1
  entry.bytes = entry.bytes + size
  count('bytes', size)
  changed = true
  if entry.got == entry.parts then
    redis.call('ZADD', READY, unit, unit)
    drop_claim(unit)
    claimed = false
    count('inserted')
  end
  return 'accepted'
end

local function append()
  local refused = guard()
  if refused then return { refused } end
  current, entry, claimed = number('version'), read_unit(unit), redis.call('ZSCORE', CLAIMS, unit)
  if claimed and entry and entry.version == version and entry.parts ~= parts then
    count('rejected')
    return { 'mismatch', whole(entry.parts) }
  end
  local reply = { 'ok' }
  for i = 13, #ARGV, 2 do
    local word = store(ARGV[i], ARGV[i + 1])
    reply[#reply + 1] = word
    if word == 'duplicate' then count('duplicates') end
    if word == 'wait' then break end
  end
  if changed and entry then write_unit(unit, entry) end
  if changed then renew_lifetimes() end
  return reply
end

local reply = append()
for i = 13, #ARGV, 2 do
  if reply[(i - 13) / 2 + 2] ~= 'accepted' or reply[1] ~= 'ok' then redis.call('UNLINK', ARGV[i + 1]) end
end
return reply
