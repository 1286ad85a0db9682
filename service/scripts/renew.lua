-- Say that an adapter still works on the requests that it holds.
-- KEYS: 1 requests
-- ARGV: 1 group, 2 adapter, 3 milliseconds that its requests shall have been silent for (0: it is alive; more: it is dead)
-- Returns how many it holds.
local held = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 10000, ARGV[2])
if held.err then return 0 end -- nobody has read anything yet, or the server forgot everything
for _, entry in ipairs(held) do
  redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, entry[1], 'IDLE', ARGV[3], 'JUSTID')
end
return #held
