-- The life of a record (job or sweep): shared by create, claim, move.
local EVENTS_KEPT = 10000
local HELD = { running = true, pausing = true, stopping = true, cancelling = true }

local function emit(events, now, kind, data)
  return redis.call('XADD', events, 'MAXLEN', '~', EVENTS_KEPT, '*', 'at', whole(now), 'kind', kind, 'data', data)
end

-- Add a line to the record's transitions: "state time", or "state time phase" for a phase within the state.
local function note(record, state, now, phase)
  local line = state .. ' ' .. whole(now)
  if phase then line = line .. ' ' .. phase end
  local past = redis.call('HGET', record, 'transitions')
  if past then line = past .. '\n' .. line end
  redis.call('HSET', record, 'transitions', line)
end

-- Count for the API key that made the record; named as in service/keys.py.
local function count_usage(api_key, now, name, amount)
  if not api_key or api_key == '' or amount == 0 then return end
  local counters = 'wl:usage:' .. api_key .. ':' .. whole(math.floor(now / 86400000))
  redis.call('HINCRBY', counters, name, whole(amount))
  redis.call('EXPIRE', counters, 400 * 86400)
end

-- Enter `state`: field, transition, event, place in queue or leases. `extra`: further members of the event.
local function enter(record, events, queue, leases, id, state, now, extra)
  redis.call('HSET', record, 'state', state)
  note(record, state, now)
  extra = extra or {}
  extra.state = state
  extra.generation = tonumber(redis.call('HGET', record, 'generation'))
  emit(events, now, 'state', cjson.encode(extra))
  if state == 'queued' then
    redis.call('ZADD', queue, redis.call('HGET', record, 'created_at'), id)
    redis.call('ZREM', leases, id)
  else
    redis.call('ZREM', queue, id)
    -- Nobody held it: somebody is to take it at once.
    if HELD[state] then redis.call('ZADD', leases, 'NX', 0, id) end
    if not HELD[state] then redis.call('ZREM', leases, id) end
    if not HELD[state] and state ~= 'paused' then
      redis.call('HSET', record, 'ended_at', whole(now))
      local api_key, progress = unpack(redis.call('HMGET', record, 'api_key', 'progress'))
      count_usage(api_key, now, 'tasks', tonumber(string.match(progress or '', '"tasks_done":(%d+)') or '0'))
      -- For webhooks; sweeps have none.
      if queue == 'wl:queue:job' then redis.call('XADD', 'wl:ended', 'MAXLEN', '~', 100000, '*', 'id', id, 'state', state) end
    end
  end
end

-- A run of it was lost. `lost_in_a_row` counts from the last loss that came further than all before.
local function lose(record)
  redis.call('HINCRBY', record, 'retries', 1)
  local far, progress = unpack(redis.call('HMGET', record, 'lost_at', 'progress'))
  local step = tonumber(string.match(progress or '', '"meta_step":(%d+)') or '0')
  if step > tonumber(far or '0') then
    redis.call('HSET', record, 'lost_at', whole(step), 'lost_in_a_row', 1)
  else
    redis.call('HINCRBY', record, 'lost_in_a_row', 1)
  end
end

-- The state that `moves` ("queued>running,…") leads to from `state`, or nil.
local function target(moves, state)
  return string.match(',' .. moves .. ',', ',' .. state .. '>(%a+),')
end
