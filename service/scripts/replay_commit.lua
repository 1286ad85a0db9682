-- Count a sample; units that are used up leave, and where the plan says so the oldest with them.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 samples per insert, 7 whether the oldest leave (1 or 0), 8 epoch,
--       9… unit, version, uses after which it leaves (0: never), epoch in which it was drawn
-- Returns {'ok'}, {'changed'} (a unit is not there any more: nothing counted), {'fenced'}, {'lost'}.
local refused = guard()
if refused then return { refused } end
local chosen, drawn = {}, (#ARGV - 8) / 4
for i = 9, #ARGV, 4 do
  local entry = read_unit(ARGV[i])
  if not entry or entry.got < entry.parts or entry.version ~= tonumber(ARGV[i + 1]) then return { 'changed' } end
  chosen[ARGV[i]] = entry
end
-- Counted first: a unit that leaves takes its uses along.
count('used', drawn)
count('sampled', drawn)
for i = 9, #ARGV, 4 do
  local entry = chosen[ARGV[i]]
  entry.uses = entry.uses + 1
  entry.epoch = tonumber(ARGV[i + 3])
  if entry.uses == tonumber(ARGV[i + 2]) then
    drop_unit(ARGV[i], entry)
    count('left')
  else
    write_unit(ARGV[i], entry)
  end
end
redis.call('HSET', STATE, 'epoch', ARGV[8])
if ARGV[7] == '1' then
  local due = math.floor(number('sampled') / tonumber(ARGV[6]) + 1e-9) - number('left')
  if due > 0 then
    for _, unit in ipairs(redis.call('ZRANGE', READY, 0, whole(due - 1))) do
      drop_unit(unit, read_unit(unit))
      count('left')
    end
  end
end
wake(ROLLOUTS)
renew_lifetimes()
return { 'ok' }
