"""Every Redis key of Warploom: name, type, only writer, lifetime.

State server (one server, not a Redis Cluster: scripts join a record with its queue)

| key                     | type   | only writer          | lifetime  | holds                                     |
|-------------------------|--------|----------------------|-----------|-------------------------------------------|
| wl:record:{id}          | hash   | lifecycle            | permanent | a job or sweep                            |
| wl:events:{id}          | stream | lifecycle, events    | permanent | its history, capped near 10 000 entries   |
| wl:trials:{id}          | hash   | sweeps               | permanent | trial id -> JSON                          |
| wl:all:<kind>[:tenant]  | zset   | lifecycle            | permanent | ids, all of score 0: ordered by id = time |
| wl:queue:<kind>         | zset   | lifecycle            | permanent | queued ids by creation time (ms)          |
| wl:leases:<kind>        | zset   | lifecycle            | permanent | held ids by end of lease (ms)             |
| wl:models[:tenant]      | zset   | models               | permanent | model names, all of score 0               |
| wl:model:<name>         | hash   | models               | permanent | v:<n>, once:<token>, latest, aliases…     |
| wl:model:<name>:<n>     | string | models               | permanent | encoded model                             |
| wl:once:<kind>:<sha256> | string | lifecycle            | 24 hours  | fingerprint of a request, id that it made |
| wl:ended                | stream | lifecycle, webhooks  | permanent | ended jobs that webhooks are to be told   |
| wl:webhook:<id>         | hash   | webhooks             | permanent | facts (JSON), secret, the one before      |
| wl:webhooks[:tenant]    | zset   | webhooks             | permanent | ids, all of score 0                       |
| wl:webhooks-due         | zset   | webhooks             | permanent | deliveries by the time of the next try    |
| wl:delivery:<id>        | hash   | webhooks             | 7 days    | a message, its state and its tries        |
| wl:deliveries:<webhook> | zset   | webhooks             | 7 days *  | the last 200 messages by creation time    |
| wl:key:<id>             | hash   | auth                 | permanent | an API key's record, with its SHA-256     |
| wl:usage:<key>:<day>    | hash   | usage, lifecycle     | 400 days *| counters of a key on a day since the epoch|
| wl:audit                | stream | audit                | permanent | who did what, capped near 100 000 entries |
| wl:counters             | hash   | counters             | permanent | numbers for monitoring that only grow     |
| wl:active:<kind>:<key>  | set    | lifecycle            | permanent | a key's records, until they are seen ended|
| wl:keys                 | zset   | auth                 | permanent | ids of keys, all of score 0               |

Replay server (keys of one job share a hash tag)

| key                     | type   | only writer          | lifetime  | holds                                     |
|-------------------------|--------|----------------------|-----------|-------------------------------------------|
| wl:logs:{id}            | stream | logs                 | 7 days *  | lines of workers, capped near 5000        |
| wl:fence:{id}           | string | jobs, replay         | 7 days *  | generation that may write                 |
| wl:replay:{id}:state    | hash   | replay               | 7 days *  | generation, version, numbering, counters  |
| wl:replay:{id}:units    | hash   | replay               | 7 days *  | unit -> entry (scripts/_replay.lua)       |
| wl:replay:{id}:ready    | zset   | replay               | 7 days *  | complete units by number                  |
| wl:replay:{id}:claims   | zset   | replay               | 7 days *  | claimed units by end of lease (ms)        |
| wl:replay:{id}:owners   | hash   | replay               | 7 days *  | claimed unit -> worker                    |
| wl:replay:{id}:wake:<s> | stream | replay               | 7 days *  | one entry, written when side s may go on  |
| wl:replay:{id}:c:<u>:<p>| string | replay               | 7 days    | part p of unit u                          |
| wl:replay:{id}:w:<t>    | string | replay               | 1 minute  | a chunk on its way to its place           |
| wl:replay:{id}:m:<v>    | string | replay               | 7 days    | meta-state of version v                   |
| wl:replay:{id}:s<i>:…   |        | replay               |           | as above, of share i (several servers)    |
| wl:adapt:requests       | stream | adaptations          | permanent | waiting requests; entries leave on answer |
| wl:adapt:payload:<id>   | string | adaptations          | deadline  | model, newline, the blob if it is large   |
| wl:adapt:once:<id>      | string | adaptations          | setting   | what a caller's own key stands for        |
| wl:adapt:reply:<id>     | stream | adaptations          | setting   | its answer, the only entry                |
| wl:adapt:inbox:<api>    | stream | adaptations          | 10 min *  | answers for one API process               |
| wl:adapted:<id>         | hash   | kept, adaptations    | setting   | kept parameters: info, blob, member       |
| wl:adapted              | zset   | kept, adaptations    | setting * | <bytes>:<id> by end of life (ms)          |
| wl:adapted:books        | hash   | kept, adaptations    | 7 days *  | bytes kept, how many were dropped early   |
| wl:adapted:same:<sha>   | string | kept, adaptations    | setting   | content of a request -> adaptation        |
| wl:limits:<key>         | hash   | limits               | 1 min *   | bucket -> its level, and when (ms)        |
| wl:fleet                | zset   | fleet                | 1 day *   | live parts by end of life (ms)            |

* renewed by every write. [:tenant]: absent for the default tenant; a model's <name> is `tenant/name` for any other.
"""

from __future__ import annotations

import hashlib
import re

from service.tenancy import DEFAULT_TENANT

REPLAY_TTL_S = 7 * 86400
LOG_TTL_S = 7 * 86400
SENT_TTL_S = 60
REPLY_TTL_S = 600
BOOKS_TTL_S = 7 * 86400
FLEET_TTL_S = 86400
ONCE_TTL_S = 86400
USAGE_TTL_S = 400 * 86400

# Keys without a lifetime; the test suite fails on any other key that has none.
PERMANENT = (
    re.compile(r"wl:(record|events|trials):\{(job|sweep)_[0-9a-z]{20}\}"),
    re.compile(r"wl:(queue|leases):(job|sweep)"),
    re.compile(r"wl:all:(job|sweep)(:[a-z0-9-]+)?"),
    re.compile(r"wl:models(:[a-z0-9-]+)?"),
    re.compile(r"wl:model:([a-z0-9-]+/)?[A-Za-z0-9._-]+(:\d+)?"),
    re.compile(r"wl:key:key_[0-9a-z]{20}"),
    re.compile(r"wl:keys"),
    re.compile(r"wl:audit"),
    re.compile(r"wl:counters"),
    re.compile(r"wl:active:(job|sweep):key_[0-9a-z]{20}"),
    re.compile(r"wl:adapt:requests"),
    re.compile(r"wl:ended"),
    re.compile(r"wl:webhook:hook_[0-9a-z]{20}"),
    re.compile(r"wl:webhooks(:[a-z0-9-]+)?"),
    re.compile(r"wl:webhooks-due"),
)

KEYS = "wl:keys"
AUDIT = "wl:audit"
COUNTERS = "wl:counters"
RECORD = "wl:record:"
FLEET = "wl:fleet"
REQUESTS = "wl:adapt:requests"
ADAPTED = "wl:adapted"
ADAPTED_BOOKS = "wl:adapted:books"


ENDED = "wl:ended"
HOOKS_DUE = "wl:webhooks-due"
DELIVERY_TTL_S = 7 * 86400


def webhook(hook_id: str) -> str:
    """A webhook."""
    return f"wl:webhook:{hook_id}"


def webhooks(tenant: str) -> str:
    """All webhooks of a tenant."""
    return "wl:webhooks" if tenant == DEFAULT_TENANT else f"wl:webhooks:{tenant}"


def delivery(message_id: str) -> str:
    """A message to a webhook."""
    return f"wl:delivery:{message_id}"


def deliveries(hook_id: str) -> str:
    """The last messages to a webhook."""
    return f"wl:deliveries:{hook_id}"


def record(owner_id: str) -> str:
    """A job or sweep."""
    return f"{RECORD}{{{owner_id}}}"


def events(owner_id: str) -> str:
    """The history of a job or sweep."""
    return f"wl:events:{{{owner_id}}}"


def trials(sweep_id: str) -> str:
    """The trials of a sweep."""
    return f"wl:trials:{{{sweep_id}}}"


def everything(kind: str, tenant: str) -> str:
    """All ids of a kind (job or sweep) of one tenant."""
    return f"wl:all:{kind}" if tenant == DEFAULT_TENANT else f"wl:all:{kind}:{tenant}"


def queue(kind: str) -> str:
    """Queued ids of a kind."""
    return f"wl:queue:{kind}"


def leases(kind: str) -> str:
    """Held ids of a kind."""
    return f"wl:leases:{kind}"


def models(tenant: str) -> str:
    """The names of a tenant's models."""
    return "wl:models" if tenant == DEFAULT_TENANT else f"wl:models:{tenant}"


def model(full_name: str) -> str:
    """All versions of a model (see `service.tenancy.full_name`)."""
    return f"wl:model:{full_name}"


def model_blob(full_name: str, version: int) -> str:
    """The bytes of one version."""
    return f"wl:model:{full_name}:{version}"


def once(kind: str, api_key: str, key: str) -> str:
    """What was made under a caller's own key, within its API key; hashed, so that any text is a key of one length."""
    return f"wl:once:{kind}:{hashlib.sha256(f'{api_key} {key}'.encode()).hexdigest()}"


def active(kind: str, api_key: str) -> str:
    """The records of a kind that an API key made, until they are seen to have ended."""
    return f"wl:active:{kind}:{api_key}"


def limits(api_key: str) -> str:
    """The buckets of an API key."""
    return f"wl:limits:{api_key}"


def usage(api_key: str, day: int) -> str:
    """What an API key used on a day, in days since the epoch (also named in `_life.lua`)."""
    return f"wl:usage:{api_key}:{day}"


def api_key(key_id: str) -> str:
    """The record of an API key."""
    return f"wl:key:{key_id}"


def logs(job_id: str) -> str:
    """The log of a job's workers."""
    return f"wl:logs:{{{job_id}}}"


def fence(job_id: str) -> str:
    """The generation that may write a job's replay."""
    return f"wl:fence:{{{job_id}}}"


def replay(job_id: str, part: str, share: int | None = None) -> str:
    """A part of a job's replay (state, units, ready, claims, owners…), or of one share of it."""
    return f"wl:replay:{{{job_id}}}:{part if share is None else f's{share}:{part}'}"


def payload(request_id: str) -> str:
    """The blob of an adaptation request."""
    return f"wl:adapt:payload:{request_id}"


def fingerprint(request_id: str) -> str:
    """What a request stands for whose id comes from a caller's own key."""
    return f"wl:adapt:once:{request_id}"


def reply(request_id: str) -> str:
    """The answer to an adaptation request."""
    return f"wl:adapt:reply:{request_id}"


def inbox(api: str) -> str:
    """Answers for one API process."""
    return f"wl:adapt:inbox:{api}"


def same(content: str) -> str:
    """The adaptation that a request of this content made."""
    return f"wl:adapted:same:{content}"


def adapted(adaptation_id: str) -> str:
    """Adapted parameters that are kept."""
    return f"wl:adapted:{adaptation_id}"
