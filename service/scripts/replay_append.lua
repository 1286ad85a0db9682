-- Store one chunk of a claimed unit.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 unit, 7 part, 8 parts, 9 version, 10 blob, 11 byte budget, 12 mode,
--       13 max staleness
-- Returns {'accepted'}, {'duplicate'}, {'wait'}, {'mismatch', parts}, {'fenced'}, {'lost'}.
local refused = guard()
if refused then return { refused } end
local unit, part, parts, version, blob = ARGV[6], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
local current, entry = number('version'), read_unit(unit)

local function duplicate()
  count('duplicates')
  return { 'duplicate' }
end

-- No claim: complete, round over, or given out before a reset. A version from the future: from before a reset.
if not redis.call('ZSCORE', CLAIMS, unit) or version > current then return duplicate() end
if ARGV[12] == 'sync' then
  if version ~= current then return duplicate() end
elseif current - version > tonumber(ARGV[13]) then
  -- Too old already: whoever is at it need not go on, and the limiter lets another unit take its place.
  if entry and entry.version > version then return duplicate() end
  if entry then drop_unit(unit, entry) end
  drop_claim(unit)
  give_back(1)
  return duplicate()
end
if entry then
  if version < entry.version then return duplicate() end
  if version > entry.version then
    drop_unit(unit, entry)
    entry = nil
  elseif parts ~= entry.parts then
    count('rejected')
    return { 'mismatch', whole(entry.parts) }
  elseif redis.call('EXISTS', chunk_prefix .. unit .. ':' .. part) == 1 then
    return duplicate()
  end
end
if number('bytes') + #blob > tonumber(ARGV[11]) then
  count('waits')
  return { 'wait' }
end
-- The first growing write: on a full server it fails before anything changed.
local stored = redis.pcall('SET', chunk_prefix .. unit .. ':' .. part, blob, 'EX', ttl)
if stored.err then
  if string.find(stored.err, 'OOM', 1, true) then return { 'wait' } end
  return stored
end
entry = entry or { version = version, parts = parts, got = 0, bytes = 0, uses = 0 }
entry.got = entry.got + 1
entry.bytes = entry.bytes + #blob
write_unit(unit, entry)
count('bytes', #blob)
if entry.got == entry.parts then
  redis.call('ZADD', READY, unit, unit)
  drop_claim(unit)
  count('inserted')
end
renew_lifetimes()
return { 'accepted' }
