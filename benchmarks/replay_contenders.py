"""Who takes part in `benchmarks/replay.py`: a process that writes and samples as one of them when it is told to.

Runs in the interpreter of its contender, so that only the standard library is imported before that is known.

    python replay_contenders.py NAME              a worker: JSON jobs on stdin, answers on stdout
    python replay_contenders.py reverb-server P   Reverb's server on port P, until stdin ends
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

PARTS = 4
UNITS = 8
Job = dict[str, Any]
Work = Callable[[], int]
"""Does what was prepared, and says how many bytes of payload that was."""
Worker = Callable[[Job, int], Work]
"""Prepares (job, number of the writer)."""


def payload(size: int, seed: int) -> bytes:
    """Bytes like weights: float32 from a normal distribution, which do not compress."""
    import numpy as np

    return np.random.default_rng(seed).standard_normal(size // 4, dtype=np.float32).tobytes()


def raw_client(job: Job) -> Any:
    """A plain client of redis-py."""
    import redis

    client = redis.Redis.from_url(job["url"], protocol=2)
    client.ping()
    return client


def raw_keys(job: Job) -> list[str]:
    """As many random keys as were written."""
    keys = [f"raw:{w}:{i}" for w in range(job["writers"]) for i in range(job["count"])]
    return random.Random(0).choices(keys, k=len(keys))  # noqa: S311


def raw_write(job: Job, number: int) -> Work:
    """SET, one at a time."""
    client, blob = raw_client(job), payload(job["size"], number)

    def work() -> int:
        for i in range(job["count"]):
            client.set(f"raw:{number}:{i}", blob)
        return job["count"] * len(blob)

    return work


def raw_sample(job: Job, _number: int) -> Work:
    """GET of random keys, one at a time."""
    client, chosen = raw_client(job), raw_keys(job)
    return lambda: sum(len(client.get(key)) for key in chosen)


def piped_write(job: Job, number: int) -> Work:
    """SET, a unit's chunks in one pipeline."""
    client, blob = raw_client(job), payload(job["size"], number)

    def work() -> int:
        for start in range(0, job["count"], PARTS):
            pipe = client.pipeline(transaction=False)
            for i in range(start, start + PARTS):
                pipe.set(f"raw:{number}:{i}", blob)
            pipe.execute()
        return job["count"] * len(blob)

    return work


def piped_sample(job: Job, _number: int) -> Work:
    """MGET of as many chunks as a sample of units has, or of 16 MB."""
    client, chosen = raw_client(job), raw_keys(job)
    step = max(1, min(PARTS * UNITS, 16 * 10**6 // job["size"]))

    def work() -> int:
        groups = (client.mget(chosen[start : start + step]) for start in range(0, len(chosen), step))
        return sum(len(value) for group in groups for value in group)

    return work


def our_replay(job: Job) -> Any:
    """The service's buffer for a job whose window holds everything."""
    from service.connection import connect
    from service.replay import RedisReplay
    from service.settings import Settings
    from warploom.replay import ReplayPlan

    units = job["count"] * job["writers"] // PARTS
    plan = ReplayPlan(
        mode="async", units_per_round=UNITS, rounds=10**6, max_bytes=2**36, samples_per_insert=4.0,
        ahead=max(1, -(-units // UNITS)),
    )  # fmt: skip
    connections = connect(Settings(state_url=job["url"], replay_url=job["url"]))
    replay = RedisReplay(connections, "job_00000000000000000000", 1, plan)
    if job["what"] == "write" and job["number"] == 0:
        replay.reset(0)
        replay.publish(0, b"meta")
    return replay


def append_units(replay: Any, job: Job, number: int, blobs: Callable[[], list[bytes]]) -> int:
    """Claim units and append what `blobs` makes for each."""
    from warploom.replay import Chunk

    for _ in range(job["count"] // PARTS):
        unit = replay.claim(f"w{number}").unit
        answers = replay.extend([Chunk(unit, part, PARTS, 0, blob) for part, blob in enumerate(blobs())])
        if answers != ["accepted"] * PARTS:
            raise RuntimeError(f"chunks were not accepted: {answers}")
    return int(job["count"] * job["size"])


def sample_units(replay: Any, job: Job, use: Callable[[list[bytes]], int]) -> int:
    """Samples of so many units that as many bytes are read as were written."""
    read, seed = 0, 0
    while read < job["count"] * job["writers"] * job["size"]:
        taken = replay.sample(UNITS, seed)
        if taken is None:
            raise RuntimeError("nothing to sample")
        read += sum(use(unit.parts) for unit in taken)
        seed += 1
    return read


def chunks_write(job: Job, number: int) -> Work:
    """Claim and extend, of bytes that are there already."""
    replay, blob = our_replay(job), payload(job["size"], number)
    return lambda: append_units(replay, job, number, lambda: [blob] * PARTS)


def chunks_sample(job: Job, _number: int) -> Work:
    """Samples, as bytes."""
    replay = our_replay(job)
    return lambda: sample_units(replay, job, lambda parts: sum(map(len, parts)))


def warploom_write(job: Job, number: int) -> Work:
    """Claim, pack with header and checksum, extend."""
    import numpy as np
    import torch

    from warploom.codec import pack_experiences
    from warploom.types import Experience, TaskRef

    torch.set_num_threads(1)
    replay = our_replay(job)
    point = np.frombuffer(payload(job["size"], number), np.float32)
    points = {"theta": torch.from_numpy(np.stack([point] * PARTS))}
    own = Experience(ref=TaskRef("train", 0, 1), version=0, steps=tuple(range(PARTS)), points=points)
    return lambda: append_units(replay, job, number, lambda: pack_experiences([own], chunk_bytes=job["size"]))


def warploom_sample(job: Job, _number: int) -> Work:
    """Samples, checked and unpacked into tensors."""
    import torch

    from warploom.codec import unpack_experiences

    torch.set_num_threads(1)
    replay = our_replay(job)

    def use(parts: list[bytes]) -> int:
        (experience,) = unpack_experiences(parts)
        return experience.points["theta"].numel() * 4

    return lambda: sample_units(replay, job, use)


def torchrl_buffer(job: Job, number: int, batch: int) -> Any:
    """TorchRL's buffer over its storage on a Redis-compatible server, and as many items as are written at once."""
    import torch
    from tensordict import TensorDict
    from torchrl.data import ReplayBuffer, StoreStorage

    torch.set_num_threads(1)
    where = {"unix_socket_path": job["url"].removeprefix("unix://")}
    if not job["url"].startswith("unix:"):
        host, port = job["url"].removeprefix("redis://").split(":")
        where = {"host": host, "port": int(port)}
    buffer = ReplayBuffer(storage=StoreStorage(job["count"], prefix=f"torchrl{number}", **where), batch_size=batch)
    values = torch.frombuffer(bytearray(payload(job["size"], number)), dtype=torch.float32)
    item = TensorDict({"theta": values}, [])
    return buffer, item, torch.stack([item] * PARTS)


def torchrl_add_write(job: Job, number: int) -> Work:
    """ReplayBuffer.add."""
    buffer, item, _ = torchrl_buffer(job, number, 1)
    buffer.add(item)  # makes the storage

    def work() -> int:
        for _ in range(job["count"]):
            buffer.add(item)
        return int(job["count"] * job["size"])

    return work


def torchrl_extend_write(job: Job, number: int) -> Work:
    """ReplayBuffer.extend by as many items as a unit has."""
    buffer, _, items = torchrl_buffer(job, number, 1)
    buffer.extend(items)

    def work() -> int:
        for _ in range(job["count"] // PARTS):
            buffer.extend(items)
        return int(job["count"] * job["size"])

    return work


def torchrl_sample(job: Job, number: int, batch: int) -> Work:
    """ReplayBuffer.sample of what this process wrote before: the buffer's length is known to its process only."""
    buffer, _, items = torchrl_buffer(job, number, batch)
    for _ in range(job["count"] // PARTS):
        buffer.extend(items)
    return lambda: sum(buffer.sample()["theta"].numel() * 4 for _ in range(max(1, job["count"] // batch)))


def torchrl_add_sample(job: Job, number: int) -> Work:
    """One item at a time."""
    return torchrl_sample(job, number, 1)


def torchrl_extend_sample(job: Job, number: int) -> Work:
    """As many items at a time as eight units have chunks."""
    return torchrl_sample(job, number, PARTS * UNITS)


def reverb_client(job: Job, number: int) -> Any:
    """A client, and what it inserts."""
    import numpy as np
    import reverb

    client = reverb.Client(f"localhost:{job['port']}")
    if job["what"] == "write" and number == 0:
        client.reset("replay")
    client.server_info()
    return client, np.frombuffer(payload(job["size"], number), np.float32)


def reverb_insert_write(job: Job, number: int) -> Work:
    """Client.insert."""
    client, array = reverb_client(job, number)

    def work() -> int:
        for _ in range(job["count"]):
            client.insert([array], {"replay": 1.0})
        return int(job["count"] * array.nbytes)

    return work


def reverb_writer_write(job: Job, number: int) -> Work:
    """One TrajectoryWriter, flushed after every unit of items, so that they are on the server."""
    client, array = reverb_client(job, number)

    def work() -> int:
        with client.trajectory_writer(num_keep_alive_refs=1) as writer:
            for i in range(job["count"]):
                writer.append({"theta": array})
                writer.create_item("replay", 1.0, {"theta": writer.history["theta"][-1:]})
                if i % PARTS == PARTS - 1:
                    writer.flush()
        return int(job["count"] * array.nbytes)

    return work


def reverb_insert_sample(job: Job, number: int) -> Work:
    """Client.sample, as many items as were written, in one call that prefetches."""
    client, _ = reverb_client(job, number)
    wanted = job["count"] * job["writers"]
    return lambda: sum(item.data[0].nbytes for sample in client.sample("replay", wanted) for item in sample)


def reverb_writer_sample(job: Job, number: int) -> Work:
    """The same of items that the writer made."""
    return reverb_insert_sample(job, number)


def reverb_server(port: int) -> None:
    """A uniform table, until stdin ends."""
    import reverb

    table = reverb.Table(
        "replay", sampler=reverb.selectors.Uniform(), remover=reverb.selectors.Fifo(), max_size=10**6,
        rate_limiter=reverb.rate_limiters.MinSize(1),
    )  # fmt: skip
    server = reverb.Server([table], port=port)
    sys.stdin.read()
    server.stop()


def serve(name: str) -> None:
    """Do jobs: prepare, say so, wait for the word, work, say what was done."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # libraries print as they like

        def say(value: Any) -> None:
            answers.write(json.dumps(value) + "\n")
            answers.flush()

        for line in sys.stdin:
            job = json.loads(line)
            make: Worker = globals()[f"{name.replace('-', '_')}_{job['what']}"]
            work = make(job, job["number"])
            say("ready")
            sys.stdin.readline()
            start = time.monotonic()
            size = work()
            say([start, time.monotonic(), size])
            del work


if __name__ == "__main__":
    if sys.argv[1] == "reverb-server":
        reverb_server(int(sys.argv[2]))
    else:
        serve(sys.argv[1])
