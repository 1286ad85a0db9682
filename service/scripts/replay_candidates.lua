-- Drop stale units and list the complete ones.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 need, 7 max staleness, 8 samples per insert
-- Returns {'ok', version, epoch, text: a line "unit entry" for each in unit order}, {'none'}, {'fenced'}, {'lost'}.
local refused = guard()
if refused then return { refused } end
local current, most = number('version'), tonumber(ARGV[7])

-- All entries at once: a small hash is a list to the server, in which each look-up is a walk.
local entries, flat = {}, redis.call('HGETALL', UNITS)
for i = 1, #flat, 2 do entries[flat[i]] = flat[i + 1] end

local lines = {}
for _, unit in ipairs(redis.call('ZRANGE', READY, 0, -1)) do
  if current - tonumber(string.match(entries[unit], '^%d+')) > most then
    local entry = read_unit(unit)
    drop_unit(unit, entry)
    give_back(1 - entry.uses / tonumber(ARGV[8]))
    wake(ROLLOUTS)
  else
    lines[#lines + 1] = unit .. ' ' .. entries[unit]
  end
end
renew_lifetimes()
if #lines < tonumber(ARGV[6]) then return { 'none' } end
return { 'ok', whole(current), whole(math.max(1, number('epoch'))), table.concat(lines, '\n') }
