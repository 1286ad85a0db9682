#!/bin/sh
# Writes deploy/redis/users.acl, the users of both Redis servers, from users.rules and the passwords in .env. To be run
# after either changed. The file holds SHA-256 of random passwords, so that the servers' own user may read it.
set -eu
cd "$(dirname "$0")/.."

digest() {
    value=$(sed -n "s/^$1=//p" .env | tail -n 1)
    [ "${#value}" -ge 32 ] || { echo ".env: $1 must be there and have at least 32 characters" >&2; exit 1; }
    printf %s "$value" | sha256sum | cut -d ' ' -f 1
}

operator=$(digest WARPLOOM_REDIS_PASSWORD)
api=$(digest WARPLOOM_REDIS_API_PASSWORD)
workers=$(digest WARPLOOM_REDIS_WORKERS_PASSWORD)
umask 022
sed -e '/^#/d' deploy/redis/users.rules |
    sed -e ':a' -e '$!N' -e 's/\n  */ /' -e 'ta' -e 'P' -e 'D' |
    sed -e "s/@operator@/$operator/" -e "s/@api@/$api/" -e "s/@workers@/$workers/" >deploy/redis/users.draft
# Into the same file: a container that mounts it keeps the one that it was started with.
cat deploy/redis/users.draft >deploy/redis/users.acl
rm deploy/redis/users.draft
echo "wrote $PWD/deploy/redis/users.acl"
