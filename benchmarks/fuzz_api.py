"""Schemathesis over the whole OpenAPI document, against a real API process with two Redis servers and an adapter.

    python benchmarks/fuzz_api.py [--cases 20000] [--seed 1] [--out docs/results]

Runs with the seeds `seed`, `seed` + 1, … until so many cases were sent: examples, coverage of the schema's borders,
random cases, and sequences in which what one call answers goes into the next (stateful). Every second run names objects
that exist, so that cases come past the 404. Ends with 1 when an answer was a 5xx or outside its schema.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from service.auth import KeyRing
from service.connection import Connections, connect
from service.embedded import EmbeddedRedis
from service.events import EventLog
from service.fleet import Fleet
from service.jobs import JobStore
from service.processes import free_port
from service.settings import Settings
from service.sweeps import SweepStore
from service.tenancy import SCOPES
from warploom.records import Trial
from warploom.spec import JobSpec, SweepSpec

ROOT = Path(__file__).resolve().parent.parent
START_S = 60.0
# A disk would make every write of the durable server wait.
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
# Not negative_data_rejection: a lone value in a query is a list of one to us, and a violation to it.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
PHASES = "examples,coverage,fuzzing,stateful"
JOB = {"algorithm": "warpgrad", "task": "sinusoid", "model": "warp_mlp", "training": {"rounds": 0}}
SPACE = {"algorithm.inner_lr": {"type": "uniform", "low": 0.1, "high": 0.2}}


class Target(NamedTuple):
    """An API that runs, a key of it, and objects that exist, by the name of their parameter."""

    url: str
    key: str
    own_key: str
    spare_key: str
    objects: dict[str, str]


def _serve(settings: dict[str, Any]) -> None:
    from workers.adapter import Adapter

    Adapter(settings, "fuzz").run()


@contextmanager
def running(home: Path, *, adapter: bool = True) -> Iterator[Target]:
    """The API in a process of its own, from the start of the block to its end.

    Args:
        home: a new folder.
        adapter: whether one answers adaptation requests; it needs torch, and some seconds.
    """
    with EmbeddedRedis(home / "redis") as servers:
        port = free_port("127.0.0.1")
        settings = Settings(state_url=servers.state_url, replay_url=servers.replay_url, home=home, adapt_wait_s=20)
        chosen = {
            "WARPLOOM_STATE_URL": servers.state_url,
            "WARPLOOM_REPLAY_URL": servers.replay_url,
            "WARPLOOM_HOME": str(home),
            "WARPLOOM_API_PORT": str(port),
            "PYTHONPATH": str(ROOT),
        }
        connections = connect(settings)
        helper = multiprocessing.get_context("spawn").Process(target=_serve, args=(settings.model_dump(mode="json"),))
        with (home / "api.log").open("wb") as log:
            api = subprocess.Popen([sys.executable, "-m", "api"], env={**os.environ, **chosen}, stderr=log)
        try:
            if adapter:
                helper.start()
            target = prepared(connections, settings, f"http://127.0.0.1:{port}", model=adapter)
            _wait_for(target.url, api, home)
            yield target
        finally:
            api.kill()
            api.wait()
            if adapter:
                helper.kill()
                helper.join()
            connections.close()


def _wait_for(url: str, api: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and api.poll() is None:
        try:
            httpx.get(f"{url}/livez", trust_env=False)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit((home / "api.log").read_text())


def prepared(connections: Connections, settings: Settings, url: str, *, model: bool) -> Target:
    """Keys and objects of a running API.

    Args:
        connections, settings, url: the service.
        model: whether a model is made, which needs torch.
    """
    ring = KeyRing(connections)
    ring.ensure_first(None)
    # Nobody runs jobs here; the service is to think that somebody does, so that /readyz does not answer with 503.
    Fleet(connections).beat("supervisor", "fuzz", 86400)
    own, spare = ring.create("fuzz", scopes=SCOPES), ring.create("spare", scopes=SCOPES)
    caller = ring.identify(own.secret)
    jobs, spec = JobStore(connections, caller=caller), JobSpec.parse(JOB)
    job = jobs.create(spec)
    claim = jobs.claim("fuzz", 60)
    assert claim is not None
    EventLog(connections).append(job.id, "round", {"meta_step": 1, "loss": 0.5}, generation=claim.generation)
    sweep = SweepStore(connections, caller=caller).create(
        SweepSpec.model_validate({"job": JOB, "metric": "loss", "space": SPACE})
    )
    objects = {"job_id": job.id, "sweep_id": sweep.id, "key_id": spare.id}
    if model:
        objects["name"] = _model(connections, spec, job.id)
        _trial(connections, sweep.id, spec, settings)
    return Target(url, own.secret, own.id, spare.id, objects)


def _trial(connections: Connections, sweep_id: str, spec: JobSpec, settings: Settings) -> None:
    """A sweep that runs, with a trial that can be promoted."""
    from service.trials import TrialFiles
    from warploom.build import build
    from warploom.codec import pack_model

    store = SweepStore(connections)
    claim = store.claim("fuzz", 60)
    assert claim is not None
    curve = [{"meta_step": 0.0, "loss": 0.5}]
    trial = Trial(id="00000", state="running", parameters={}, curve=curve, best=0.5)
    store.put_trial(sweep_id, claim.generation, trial)
    TrialFiles(settings, sweep_id, trial.id).put_best(pack_model(spec, build(spec).init(0)))


def _model(connections: Connections, spec: JobSpec, job: str) -> str:
    from service.models import ModelStore
    from warploom.build import build
    from workers.evaluator import Origin, register

    algorithm = build(spec)
    meta = algorithm.init(0)
    return register(
        ModelStore(connections), "waves", spec, algorithm, meta, {"loss": 0.5}, Origin(once=job, job=job)
    ).name


def fuzz(target: Target, folder: Path, *, seed: int, examples: int, known: bool, phases: str = PHASES) -> Counter[str]:
    """One run of Schemathesis; how many cases were sent and how many failures there were.

    Args:
        target: what to test.
        folder: where configuration, report and output go.
        seed: of all cases.
        examples: most cases for each operation and phase.
        known: whether parameters name objects that exist.
        phases: of Schemathesis.
    """
    folder.mkdir(parents=True)
    parameters = [f'"path.{name}" = "{value}"' for name, value in target.objects.items()] if known else []
    (folder / "schemathesis.toml").write_text("\n".join(["[parameters]", *parameters]) + "\n")
    report = folder / "report.ndjson"
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(folder / "schemathesis.toml"), "run",
        f"{target.url}/openapi.json", "--header", f"Authorization: Bearer {target.key}", "--checks", ",".join(CHECKS),
        "--phases", phases, "--seed", str(seed), "--max-examples", str(examples), "--continue-on-failure",
        "--report-ndjson-path", str(report), "--suppress-health-check", "all", "--request-timeout", "30",
        "--exclude-path", "/metrics", "--warnings", "off", "--no-color",
    ]  # fmt: skip
    chosen = {"SCHEMATHESIS_HOOKS": "benchmarks.fuzz_hooks", "FUZZ_OWN": target.own_key, "FUZZ_SPARE": target.spare_key}
    env = {**os.environ, **chosen, "PYTHONPATH": str(ROOT), "NO_PROXY": "*", "PYTHONWARNINGS": "ignore"}
    with (folder / "output.txt").open("wb") as output:
        done = subprocess.run(command, env=env, cwd=folder, stdout=output, stderr=output, check=False)  # noqa: S603
    if not report.exists():
        raise SystemExit((folder / "output.txt").read_text()[-5000:])
    counts = counted(report)
    counts["runs that failed"] = int(done.returncode != 0)
    return counts


def counted(report: Path) -> Counter[str]:
    """What a report of Schemathesis says: cases, those of sequences, answers by status, failed checks."""
    counts: Counter[str] = Counter()
    with report.open(encoding="utf-8") as lines:
        for line in lines:
            finished = json.loads(line).get("ScenarioFinished", {})
            recorder = finished.get("recorder", {})
            if "interactions" not in recorder:
                continue
            counts["cases"] += len(recorder["interactions"])
            if finished["phase"].lower().startswith("stateful"):
                counts["stateful cases"] += len(recorder["interactions"])
            for interaction in recorder["interactions"].values():
                answer = interaction.get("response")
                counts[f"status {answer['status_code'] if answer else 'none'}"] += 1
            for checks in recorder["checks"].values():
                counts["failed checks"] += sum(check["status"] == "failure" for check in checks)
    return counts


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=100, help="most cases for each operation and phase of one run")
    parser.add_argument("--out", type=Path, help="folder for fuzz.md")
    parser.add_argument("--keep", type=Path, help="folder for reports")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    begun, seed = time.monotonic(), options.seed
    with tempfile.TemporaryDirectory(prefix="warploom-fuzz-", dir=IN_MEMORY) as temporary:
        kept = options.keep or Path(temporary) / "reports"
        home = Path(temporary) / "home"
        home.mkdir()
        with running(home) as target:
            while total["cases"] < options.cases:
                known = (seed - options.seed) % 2 == 1
                counts = fuzz(target, kept / str(seed), seed=seed, examples=options.examples, known=known)
                total += counts
                sys.stdout.write(f"seed {seed}: {dict(counts)}\n")
                sys.stdout.flush()
                if counts["runs that failed"]:
                    sys.stdout.write((kept / str(seed) / "output.txt").read_text()[-20_000:])
                seed += 1
    seconds = time.monotonic() - begun
    if options.out:
        _write(options, total, list(range(options.seed, seed)), seconds)
    return int(total["runs that failed"] > 0 or total["failed checks"] > 0)


def _write(options: argparse.Namespace, total: Counter[str], seeds: list[int], seconds: float) -> None:
    statuses = {name.removeprefix("status "): n for name, n in sorted(total.items()) if name.startswith("status ")}
    lines = [
        "# Fuzzing the API",
        "",
        "```sh",
        f"python benchmarks/fuzz_api.py --cases {options.cases} --seed {options.seed} --examples {options.examples}",
        "```",
        "",
        f"{total['cases']} cases with the seeds {', '.join(map(str, seeds))}, {total['stateful cases']} of them in"
        f" sequences (stateful), in {seconds / 60:.0f} minutes: **{total['failed checks']} failed checks**. The API as"
        " a process of its own, two Redis servers, one adapter with a real model; every second run names objects that"
        f" exist. Python {platform.python_version()}, {os.cpu_count()} cores.",
        "",
        f"Checks: {', '.join(CHECKS)}.",
        "",
        "| status | answers |",
        "|---|---|",
        *(f"| {status} | {count} |" for status, count in statuses.items()),
        "",
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fuzz.md").write_text("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
