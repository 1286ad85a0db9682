-- One move of the state machine: pause, resume, stop, cancel, release, finish.
-- KEYS: 1 record, 2 events, 3 queue, 4 leases
-- ARGV: 1 now (ms or ''), 2 id, 3 generation ('' when anyone may), 4 moves ("running>failed,…"),
--       5 '1' to give the lease up, 6 '1' when a run was lost, 7 further members of the event (JSON object or ''),
--       8… field, value to set
-- Returns {'ok', state} after a move or a repeat that changes nothing, {'missing'}, {'fenced', generation},
-- {'illegal', state}.
local now = clock(ARGV[1])
local state, generation = unpack(redis.call('HMGET', KEYS[1], 'state', 'generation'))
if not state then return { 'missing' } end
if ARGV[3] ~= '' and ARGV[3] ~= generation then return { 'fenced', generation } end
local to = target(ARGV[4], state)
if not to then return { 'illegal', state } end
if ARGV[5] == '1' and (to == 'cancelling' or to == 'stopping') then redis.call('ZADD', KEYS[4], 0, ARGV[2]) end
if to == state then return { 'ok', state } end
if ARGV[6] == '1' then lose(KEYS[1]) end
for i = 8, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
local extra = nil
if ARGV[7] ~= '' then extra = cjson.decode(ARGV[7]) end
enter(KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[2], to, now, extra)
return { 'ok', to }
