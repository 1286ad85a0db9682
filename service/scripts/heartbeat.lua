-- Renew the lease and report.
-- KEYS: 1 record, 2 events, 3 leases
-- ARGV: 1 now (ms or ''), 2 id, 3 generation, 4 lease (ms), 5 phase or '', 6 progress (JSON) or ''
-- Returns {'ok', state}, {'missing'}, {'fenced', generation} (also when nobody holds the record).
local RANK = { starting = 1, training = 2, evaluating = 3, exporting = 4 }
local now = clock(ARGV[1])
local state, generation, phase = unpack(redis.call('HMGET', KEYS[1], 'state', 'generation', 'phase'))
if not state then return { 'missing' } end
if generation ~= ARGV[3] or not HELD[state] then return { 'fenced', generation } end
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[4]), ARGV[2])
redis.call('HSET', KEYS[1], 'heartbeat_at', whole(now))
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'progress', ARGV[6]) end
-- Several actors tell the phase; a late word of one does not take it back.
if (RANK[ARGV[5]] or 0) > (RANK[phase] or 0) then
  redis.call('HSET', KEYS[1], 'phase', ARGV[5])
  note(KEYS[1], state, now, ARGV[5])
  emit(KEYS[2], now, 'phase', cjson.encode({ phase = ARGV[5] }))
end
return { 'ok', state }
