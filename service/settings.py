"""What an operator may set, by environment variable (`WARPLOOM_…`) or Docker secret."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.urls import MOST_SHARDS, checked_urls, split_urls

SECRETS = Path("/run/secrets")


class Settings(BaseSettings):
    """Frozen settings of one process.

    A secret file of the same name as the variable (`/run/secrets/warploom_api_key`) works too; the variable wins.
    """

    model_config = SettingsConfigDict(
        env_prefix="WARPLOOM_",
        frozen=True,
        extra="ignore",
        secrets_dir=SECRETS if SECRETS.is_dir() else None,
    )

    state_url: str = Field("redis://127.0.0.1:6379/0", description="durable Redis: records, events, models, keys")
    replay_url: str = Field(
        "redis://127.0.0.1:6380/0",
        description="memory-only Redis: trajectories, adaptations; several servers, joined by commas, share the work",
    )
    redis_ca: Path | None = Field(None, description="certificates to check rediss:// servers by; null: the system's")
    home: Path = Field(Path.home() / ".warploom", description="directory for checkpoints and logs")
    checkpoint_url: str | None = Field(
        None, description="directory or fsspec URL (s3://bucket/path) for checkpoints; null: home/jobs"
    )
    checkpoints_kept: int = Field(3, ge=1, le=1000, description="newest checkpoints of a job that stay; the best too")
    api_host: str = "127.0.0.1"
    api_port: int = Field(8000, ge=0, le=65535)
    api_key: SecretStr | None = Field(None, description="the API key to accept; null: one is made on first start")
    max_body_bytes: int = Field(32 * 2**20, ge=1024)
    max_steps: int = Field(1000, ge=0, description="most adaptation steps that a request may ask for")
    max_support_rows: int = Field(20_000, ge=1)
    body_wait_s: float = Field(20, gt=0, description="seconds for a body, and one more for each 16 KiB of it")
    max_json_parts: int = Field(1_000_000, ge=1, description="most arrays and objects in one JSON body")
    limit_requests_per_minute: int = Field(60_000, ge=0, description="for a key without limits of its own, as below")
    limit_rows_per_minute: int = Field(10_000_000, ge=0, description="rows of support sets and queries")
    limit_bytes_per_minute: int = Field(8 * 2**30, ge=0, description="bytes of bodies")
    limit_jobs: int = Field(1000, ge=0, description="jobs that have not ended")
    limit_sweeps: int = Field(100, ge=0, description="sweeps that have not ended")
    limit_sweep_trials: int = Field(1000, ge=1, description="trials of one sweep")
    adaptation_ttl_s: int = Field(3600, ge=1, description="seconds that an adapted model is kept")
    adaptation_budget_bytes: int = Field(2**28, ge=1024, description="of all adapted models kept; the oldest make room")
    adapt_queue: int = Field(2000, ge=1, description="adaptation requests without an answer beyond which none is taken")
    adapter_models_bytes: int = Field(2**29, ge=1, description="of the models that an adapter keeps ready")
    adapt_batch: int = Field(32, ge=1, le=1024, description="most requests that an adapter adapts at once")
    adapt_wait_s: float = Field(60, gt=0, description="seconds that a request waits for its answer")
    allowed_hosts: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(), description="hosts that webhooks and data sets may name although they are not public; a,b,c"
    )
    plugins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="installed distributions whose algorithms, tasks and models are offered too (a,b,c); no other "
        "code than theirs is imported through entry points",
    )
    adapt_sync_s: float = Field(
        20, gt=0, description="seconds after which a request that still waits is told to come back"
    )
    adapt_sync_work: int = Field(
        10_000_000, ge=0, description="support rows times steps above which a request is told to come back at once"
    )
    adapt_later_s: float = Field(900, gt=0, description="seconds within which such a request must have been begun")
    adapt_tasks: int = Field(64, ge=1, description="tasks in one call")
    lease_s: float = Field(15, gt=0, description="seconds without heartbeat after which a job is claimed anew")
    heartbeat_s: float = Field(3, gt=0, description="seconds between two heartbeats")
    rollout_cpus: int | None = Field(
        None,
        ge=1,
        description="rollouts, trials and Ray Train learners that an own Ray runs at once; null: cores, at least 16",
    )
    adapters: int = Field(1, ge=0, le=1024, description="adapter actors; the least when adapters_most is larger")
    adapters_most: int | None = Field(
        None, ge=0, le=1024, description="adapter actors while many requests wait; null: always as many as adapters"
    )
    jobs_at_once: int = Field(4, ge=1, le=1024, description="jobs and sweeps that one supervisor runs at a time")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_json: bool = False

    @field_validator("state_url", "replay_url")
    @classmethod
    def _servers(cls, value: str, info: ValidationInfo) -> str:
        return checked_urls(f"{info.field_name}", value, most=MOST_SHARDS if info.field_name == "replay_url" else 1)

    @field_validator("allowed_hosts", "plugins", mode="before")
    @classmethod
    def _commas(cls, value: object) -> object:
        return [part.strip().lower() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _with_ca(cls, values: Any) -> Any:
        # In the URL, because every client is made from one.
        if isinstance(values, dict) and values.get("redis_ca"):
            for name in ("state_url", "replay_url"):
                if name in values:
                    urls = split_urls(str(values[name]))
                    values = {**values, name: ",".join(_with_certificates(url, values["redis_ca"]) for url in urls)}
        return values

    @property
    def replay_urls(self) -> tuple[str, ...]:
        """The servers in `replay_url`."""
        return split_urls(self.replay_url)

    @property
    def jobs_dir(self) -> Path:
        """Directory of what jobs leave on this machine: `home/jobs`."""
        return self.home.expanduser() / "jobs"

    @property
    def checkpoints_at(self) -> str:
        """Directory or URL that holds the checkpoints of all jobs."""
        if self.checkpoint_url and "://" in self.checkpoint_url:
            return self.checkpoint_url
        return str(Path(self.checkpoint_url).expanduser() if self.checkpoint_url else self.jobs_dir)


def _with_certificates(url: str, path: object) -> str:
    if not url.startswith("rediss://") or "ssl_ca_certs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode({'ssl_ca_certs': str(path)})}"
