-- The current version.
-- KEYS, ARGV 1-5: see _replay.lua.
-- Returns {'ok', version}, {'fenced'}, {'lost'}.
local refused = guard()
if refused then return { refused } end
return { 'ok', whole(number('version')) }
