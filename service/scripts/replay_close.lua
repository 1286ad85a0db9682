-- Delete everything of the job.
-- KEYS, ARGV 1-5: see _replay.lua.
-- Returns {'ok'}, {'fenced'}.
if guard() == 'fenced' then return { 'fenced' } end
drop_everything()
redis.call('DEL', FENCE)
return { 'ok' }
