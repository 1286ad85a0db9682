-- Count a sample; units that are used up leave, and below one sample per insert the oldest with them.
-- KEYS, ARGV 1-5: see _replay.lua. ARGV: 6 samples per insert, 7… unit, version, uses before it leaves
-- Returns {'ok'}, {'changed'} (a unit is not there any more: nothing counted), {'fenced'}, {'lost'}.
local refused = guard()
if refused then return { refused } end
for i = 7, #ARGV, 3 do
  local entry = read_unit(ARGV[i])
  if not entry or entry.got < entry.parts or entry.version ~= tonumber(ARGV[i + 1]) then return { 'changed' } end
end
for i = 7, #ARGV, 3 do
  local entry = read_unit(ARGV[i])
  entry.uses = entry.uses + 1
  count('used')
  count('sampled')
  if entry.uses >= tonumber(ARGV[i + 2]) then
    drop_unit(ARGV[i], entry)
    count('left')
  else
    write_unit(ARGV[i], entry)
  end
end
local rate = tonumber(ARGV[6])
while rate < 1 and number('left') < math.floor(number('sampled') / rate + 1e-9) do
  local oldest = redis.call('ZRANGE', READY, 0, 0)[1]
  if not oldest then break end
  drop_unit(oldest, read_unit(oldest))
  count('left')
end
renew_lifetimes()
return { 'ok' }
