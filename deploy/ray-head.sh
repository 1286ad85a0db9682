#!/usr/bin/env bash
# The Ray head and the supervisor in one container, which ends when either ends: a half-dead container would look alive
# and never be restarted.
set -euo pipefail

PORT=6379
START_S=90
address="$(hostname -i | cut -d ' ' -f 1)"

rm -rf /tmp/ray # sessions of this container's former lives

ray start --head --block --disable-usage-stats --include-dashboard=false --include-log-monitor=false \
    --node-ip-address="$address" --port="$PORT" \
    --num-cpus="${WARPLOOM_SLOTS:-0}" --object-store-memory="${WARPLOOM_OBJECT_STORE_BYTES:-134217728}" &
ray_pid=$!
supervisor_pid=

end() {
    # The supervisor first: it gives running jobs back to the queue, and needs Ray to end their actors.
    for pid in $supervisor_pid $ray_pid; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}
stopped() {
    trap '' TERM INT
    end
    exit 0
}
trap stopped TERM INT

for ((i = 0; i < START_S; i++)); do
    (exec 3<>"/dev/tcp/$address/$PORT") 2>/dev/null && break
    kill -0 "$ray_pid" 2>/dev/null || { echo "the Ray head did not start" >&2; exit 1; }
    sleep 1 & wait $! # a trap runs only between commands; `wait` lets it in at once
done

RAY_ADDRESS="$address:$PORT" python -m workers &
supervisor_pid=$!

code=0
wait -n "$supervisor_pid" "$ray_pid" || code=$?
trap '' TERM INT
end
echo "the Ray head or the supervisor ended by itself (exit code $code)" >&2
exit 1
