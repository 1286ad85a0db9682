"""The Redis users of a deployment, on a real server: each can do its own work, and not what is not its own."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from api.mailbox import TRIM_EVERY, Mailbox
from service import scripts
from service.adaptations import AdaptationQueue, AdaptationRequest, Outcome
from service.auth import KeyRing
from service.connection import Connections, RoleClient, connect
from service.counters import Counters
from service.embedded import find_server
from service.events import EventLog
from service.fleet import Fleet
from service.jobs import JobStore
from service.logs import LogStore
from service.models import ModelStore
from service.processes import free_port, spawn
from service.replay import RedisReplay
from service.replay_totals import totals
from service.settings import Settings
from tests.support.waiting import wait_until
from warploom.errors import Unavailable
from warploom.replay import Chunk, ReplayPlan
from warploom.spec import JobSpec

DEPLOY = Path(__file__).parents[2] / "deploy"
SECRETS = {
    "operator": "WARPLOOM_REDIS_PASSWORD",
    "api": "WARPLOOM_REDIS_API_PASSWORD",
    "workers": "WARPLOOM_REDIS_WORKERS_PASSWORD",
}
JOB = "job_00000000000000000000"
HOOK = "hook_00000000000000000000"
KEY = "key_00000000000000000000"


class Server:
    """One server for both roles, with the users that the deployment's own scripts make, and its settings."""

    def __init__(self, home: Path) -> None:
        self._home = home
        shutil.copytree(DEPLOY, home / "deploy", ignore=shutil.ignore_patterns("users.acl"))
        subprocess.run(["sh", "deploy/make-env.sh"], cwd=home, check=True, capture_output=True)
        env = dict(line.split("=", 1) for line in (home / ".env").read_text().splitlines() if not line.startswith("#"))
        self._port, self._acl = free_port(), home / "deploy/redis/users.acl"
        assert not any(env[secret] in self._acl.read_text() for secret in SECRETS.values())
        self.urls = {user: f"redis://{user}:{env[secret]}@127.0.0.1:{self._port}/0" for user, secret in SECRETS.items()}
        self.start()

    def start(self) -> None:
        """Once more, with the same folder."""
        options = {"port": self._port, "bind": "127.0.0.1", "dir": self._home, "aclfile": self._acl}
        words = (str(word) for name, value in options.items() for word in (f"--{name}", value))
        config = self._home / "state.conf"
        config.write_text((DEPLOY / "redis/state.conf").read_text().replace("dir /data", ""))
        argv = [str(find_server()), str(config), *words]
        self.process = spawn(argv, log=self._home / "server.log")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A durable server."""
    found = Server(tmp_path_factory.mktemp("users"))
    yield found
    found.process.stop(5)


@pytest.fixture
def urls(server: Server) -> dict[str, str]:
    """By user."""
    return server.urls


@pytest.fixture
def users(urls: dict[str, str]) -> Iterator[dict[str, Connections]]:
    """Connections of each user to an empty server."""
    found = {user: connect(Settings(state_url=url, replay_url=url)) for user, url in urls.items()}
    found["operator"].state.flushall()
    yield found
    for connections in found.values():
        connections.close()


@pytest.fixture
def api(users: dict[str, Connections]) -> Connections:
    """As the API connects."""
    return users["api"]


@pytest.fixture
def workers(users: dict[str, Connections]) -> Connections:
    """As the supervisor and all actors connect."""
    return users["workers"]


def test_a_job_from_submission_to_its_model(api: Connections, workers: Connections, spec: JobSpec) -> None:
    job = JobStore(api).create(spec)
    claim = JobStore(workers).claim("w", 10)
    assert claim is not None
    assert claim.job.id == job.id
    EventLog(workers).append(job.id, "round", {"step": 1}, generation=1)
    assert totals(api)["units"] == 0
    Counters(workers).add("gradients_dropped")
    assert Counters(api).read() == {"gradients_dropped": 1}
    JobStore(workers).heartbeat(job.id, 1, 10, phase="training")
    LogStore(workers).append(job.id, "learner", 1, [("info", "hello")])
    JobStore(workers).finish(job.id, 1, "succeeded", model="m")
    assert [event.kind for event in EventLog(api).list(job.id)][-1] == "state"
    assert [line.message for line in LogStore(api).tail(job.id, 5)] == ["hello"]
    assert JobStore(api).get(job.id).state == "succeeded"
    Fleet(workers).beat("supervisor", "a", 10)
    assert Fleet(api).alive() == {"supervisor": 1}
    assert ModelStore(api).list().data == []


def test_what_was_acknowledged_is_there_after_a_restart(
    server: Server, users: dict[str, Connections], spec: JobSpec
) -> None:
    """Redis 7 reads its file as the default user, and leaves out of each transaction what that user may not do."""
    job = JobStore(users["api"]).create(spec)
    assert JobStore(users["workers"]).claim("w", 600)
    EventLog(users["workers"]).append(job.id, "round", {"step": 1}, generation=1)
    before = content(users["operator"])
    server.process.kill()
    server.start()
    wait_until(lambda: answers(users["operator"]), 20, what="the server")
    assert content(users["operator"]) == before
    assert not users["operator"].state.execute_command("ACL", "LOG")
    assert JobStore(users["api"]).get(job.id).state == "running"


def answers(connections: Connections) -> bool:
    """Whether the server is there and has read its file."""
    try:
        return bool(connections.state.ping())
    except Unavailable:
        return False


def content(connections: Connections) -> dict[bytes, object]:
    """All that is stored."""
    state = connections.state
    readers: dict[bytes, Callable[[bytes], object]] = {
        b"string": state.get,
        b"hash": state.hgetall,
        b"set": state.smembers,
        b"zset": lambda key: state.zrange(key, 0, -1, withscores=True),
        b"stream": state.xrange,
    }
    return {key: readers[state.type(key)](key) for key in state.scan_iter()}


def test_replay_from_claim_to_sample(workers: Connections) -> None:
    plan = ReplayPlan(mode="async", units_per_round=1, rounds=1, max_bytes=10_000, lease_s=10)
    replay = RedisReplay(workers, JOB, 1, plan)
    replay.reset(0)
    replay.publish(0, b"meta")
    claim = replay.claim("w")
    assert claim is not None
    replay.append(Chunk(claim.unit, 0, 1, 0, b"chunk"))
    assert [unit.parts for unit in replay.sample(1, 0) or []] == [[b"chunk"]]
    assert replay.snapshot()


def adapting() -> AdaptationRequest:
    return AdaptationRequest(
        id=AdaptationQueue.new_id(),
        op="adapt",
        model="m",
        version=1,
        steps=1,
        lr=0.1,
        seed=0,
        payload=b"support",
        deadline=time.time() + 60,
    )


def test_an_adaptation_from_request_to_answer(api: Connections, workers: Connections) -> None:
    asking, answering = AdaptationQueue(api), AdaptationQueue(workers)
    request = adapting()
    asking.submit(request)
    (got,) = answering.read("a", 1, 0)
    answering.renew("a")
    assert answering.finish([Outcome(got, b"done")]) == [True]
    assert asking.wait(request.id, 5) == b"done"
    answering.kept.keep(request.id, {"model": "m"}, b"weights", content="c")
    assert asking.kept.get(request.id)[1] == b"weights"
    asking.kept.forget(request.id)


def test_the_mailbox_of_an_api_process(urls: dict[str, str], api: Connections, workers: Connections) -> None:
    asking, answering, count = AdaptationQueue(api), AdaptationQueue(workers), 2 * TRIM_EVERY

    async def ask() -> list[bytes | None]:
        mailbox = Mailbox(urls["api"])
        mailbox.open()
        asked = [replace(adapting(), inbox=mailbox.address, seed=seed) for seed in range(count)]
        waiting = [asyncio.create_task(mailbox.ask(asking, one, 20)) for one in asked]
        await asyncio.to_thread(answer, count)
        said = [await one for one in waiting]
        await asyncio.to_thread(wait_until, lambda: not api.replay.xlen(mailbox.address), what="an empty inbox")
        await mailbox.close()
        return said

    def answer(left: int) -> None:
        while left:
            got = answering.read("a", count, 1000)
            left -= sum(answering.finish([Outcome(one, b"%d" % one.seed) for one in got]))

    assert asyncio.run(ask()) == [b"%d" % seed for seed in range(count)]


def test_keys_are_the_apis_alone(api: Connections, workers: Connections) -> None:
    made = KeyRing(api).create("a", scopes=("admin",))
    assert KeyRing(api).check(made.secret)
    KeyRing(api).revoke(made.id)
    with pytest.raises(redis.exceptions.NoPermissionError):
        KeyRing(workers).get(made.id)


@pytest.mark.parametrize("user", ["api", "workers"])
@pytest.mark.parametrize(
    "command",
    [
        "CONFIG GET dir",
        "CONFIG SET dir /",
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "SCAN 0",
        "ACL LIST",
        "SHUTDOWN NOSAVE",
        "DEBUG SLEEP 0",
        "REPLICAOF NO ONE",
        "SAVE",
        "MONITOR",
        "SCRIPT FLUSH",
        "CLIENT KILL ID 1",
        "MIGRATE 127.0.0.1 1 wl:fleet 0 1",
        "PUBLISH a b",
        "GET other",
        "SET other 1",
    ],
)
def test_nobody_but_the_operator_governs_the_server(users: dict[str, Connections], user: str, command: str) -> None:
    assert refused(users[user].state, *command.split())


@pytest.mark.parametrize(
    ("user", "key"),
    [
        ("workers", f"wl:key:{KEY}"),
        ("workers", "wl:keys"),
        ("workers", "wl:audit"),
        ("workers", f"wl:webhook:{HOOK}"),
        ("workers", "wl:webhooks-due"),
        ("workers", "wl:delivery:msg_0"),
        ("workers", "wl:once:job:0"),
        ("workers", f"wl:limits:{KEY}"),
        ("workers", f"wl:active:job:{KEY}"),
        ("workers", "wl:all:job"),
        ("api", f"wl:fence:{{{JOB}}}"),
        ("api", f"wl:replay:{{{JOB}}}:units"),
        ("api", f"wl:replay:{{{JOB}}}:c:0:0"),
    ],
)
def test_what_belongs_to_another_part_cannot_be_touched(users: dict[str, Connections], user: str, key: str) -> None:
    client = users[user].state
    assert refused(client, "DEL", key)
    assert refused(client, "EVAL", "return 1", 1, key), "named to a script"
    assert refused(client, "EVAL", f"return redis.call('DEL', '{key}')", 0), "and by the script itself"


def test_who_says_no_name_is_nobody(urls: dict[str, str]) -> None:
    with redis.Redis.from_url(re.sub(r"//.*@", "//", urls["api"])) as client, pytest.raises(redis.AuthenticationError):
        client.execute_command("PING")


def test_nobody_is_the_default_user_who_may_do_all(urls: dict[str, str], users: dict[str, Connections]) -> None:
    """So that Redis 7 leaves nothing out as it reads its file; 6.2 does not ask."""
    with redis.Redis.from_url(re.sub(r"//.*@", "//", urls["api"])) as client:
        for words in (("AUTH", ""), ("AUTH", "default", ""), ("AUTH", "default", "x")):
            with pytest.raises(redis.AuthenticationError):
                client.execute_command(*words)
    (default,) = (rule for rule in users["operator"].state.acl_list() if rule.split()[1] == "default")
    assert {"off", "~*", "&*", "+@all"} <= set(default.split())


def test_every_command_of_the_scripts_is_granted() -> None:
    said = {
        name.lower()
        for file in scripts.FOLDER.glob("*.lua")
        for name in re.findall(r"redis\.p?call\('(\w+)'", file.read_text())
    }
    granted = set(re.findall(r"\+(\w+)", (DEPLOY / "redis/users.rules").read_text()))
    assert said <= granted


def refused(client: RoleClient, *command: str | int) -> bool:
    """Whether the server says that this user may not."""
    try:
        client.execute_command(*command)
    except redis.exceptions.NoPermissionError:
        return True
    except redis.ResponseError as error:  # said within a script
        return (
            "can't run this command" in str(error)
            or "not allowed" in str(error)
            or "NOPERM" in str(error)
            or "can't access" in str(error)
        )
    return False
