#!/usr/bin/env bash
# A Ray node that joins the head. It ends when its raylet ends, for example because the head came back as a new cluster;
# the restart policy then starts it again, and it joins the new one.
set -euo pipefail

rm -rf /tmp/ray # sessions of this container's former lives

# The fixed port is what the health check knocks at.
exec ray start --block --disable-usage-stats --include-log-monitor=false \
    --address="${RAY_HEAD:-ray-head:6379}" --node-ip-address="$(hostname -i | cut -d ' ' -f 1)" \
    --node-manager-port="${RAYLET_PORT:-6400}" \
    --num-cpus="${WARPLOOM_SLOTS:-4}" --object-store-memory="${WARPLOOM_OBJECT_STORE_BYTES:-134217728}"
