-- Drop stale units and list the complete ones.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 need, 7 max staleness, 8 samples per insert
-- Returns {'ok', version, epoch, unit, its entry, unit, …} in unit order, {'none'}, {'fenced'}, {'lost'}.
local refused = guard()
if refused then return { refused } end
local current = number('version')
local reply = { 'ok', whole(current), whole(math.max(1, number('epoch'))) }
for _, unit in ipairs(redis.call('ZRANGE', READY, 0, -1)) do
  local entry = read_unit(unit)
  if current - entry.version > tonumber(ARGV[7]) then
    drop_unit(unit, entry)
    give_back(1 - entry.uses / tonumber(ARGV[8]))
    wake(ROLLOUTS)
  else
    reply[#reply + 1] = unit
    reply[#reply + 1] = entry.text
  end
end
renew_lifetimes()
if (#reply - 3) / 2 < tonumber(ARGV[6]) then return { 'none' } end
return reply
