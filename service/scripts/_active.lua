-- How many ids in the set `active` are not at their end; those that are leave it. Costs as much as the set is long,
-- which the limit on its members bounds, and needs no word from whoever ends a record.
local ENDED = { succeeded = true, failed = true, cancelled = true }
local function count_active(active, prefix)
  local count = 0
  for _, id in ipairs(redis.call('SMEMBERS', active)) do
    local state = redis.call('HGET', prefix .. '{' .. id .. '}', 'state')
    if not state or ENDED[state] then redis.call('SREM', active, id) else count = count + 1 end
  end
  return count
end
