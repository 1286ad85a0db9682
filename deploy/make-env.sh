#!/bin/sh
# Writes .env with random secrets for docker compose, readable by its owner only. An existing file is left as it is.
set -eu
cd "$(dirname "$0")/.."

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

umask 077
set -C # an existing file stays, even one that another run made just now
{
    cat <<EOF
# The API key that clients send. At least 16 characters; after a change: docker compose up -d api
WARPLOOM_API_KEY=wlk_$(random)
# Redis: the operator's password, and one for each part of ours. They stand in URLs: letters and digits only. After a
# change: deploy/make-users.sh && docker compose up -d --force-recreate
WARPLOOM_REDIS_PASSWORD=$(random)
WARPLOOM_REDIS_API_PASSWORD=$(random)
WARPLOOM_REDIS_WORKERS_PASSWORD=$(random)
# Between the containers of Ray.
RAY_AUTH_TOKEN=$(random)
# Port of the API on this machine.
WARPLOOM_PORT=${WARPLOOM_PORT:-8000}
EOF
} 2>/dev/null >.env || { echo ".env exists already; move it away to make a new one" >&2; exit 1; }
echo "wrote $PWD/.env"
deploy/make-users.sh
