-- Helpers that stand before every script.

-- Milliseconds since the epoch: the caller's (tests), or this server's when the argument is empty.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- A whole number as text; tostring() would write 1.7e+12.
local function whole(n) return string.format('%.0f', n) end
