"""The actors of one run of a job: starting them, and counting their deaths."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from warploom.spec import JobSpec
from workers import placement
from workers.context import Assignment
from workers.evaluator import Evaluator
from workers.learner import LearnerGroup, LearnerWorker
from workers.rollout import RolloutWorker

LEARNER, EVALUATOR, ROLLOUT = "learner", "evaluator", "rollout"
CRASHES_IN_A_MINUTE = 10


@dataclass
class Part:
    """One actor of the run; without `restart` its death ends the run."""

    role: str
    ident: str
    actor: Any
    future: Any
    restart: Callable[[], Part] | None = None


@dataclass
class Crashes:
    """Deaths of replaceable actors; too many in a minute end the run.

    A node that vanishes takes many actors at once, and that is no crash loop: three deaths of each are allowed.
    """

    actors: int
    times: deque[float] = field(default_factory=deque)

    @property
    def most(self) -> int:
        """Deaths in a minute that are not yet too many."""
        return max(CRASHES_IN_A_MINUTE, 3 * self.actors)

    def too_many(self) -> bool:
        """Count one more."""
        now = time.monotonic()
        self.times.append(now)
        while self.times and now - self.times[0] > 60:
            self.times.popleft()
        return len(self.times) > self.most


class Cast:
    """Starts the actors of one run.

    Args:
        assignment: what each of them is given.
        spec: the job.
    """

    def __init__(self, assignment: Assignment, spec: JobSpec) -> None:
        self._assignment, self._spec = assignment, spec

    @property
    def rollouts(self) -> int:
        """How many rollouts the run has."""
        return self._spec.training.rollouts if self._spec.training.rounds else 0

    def all(self) -> list[Part]:
        """Learner, evaluator, rollouts."""
        return [self.learner(), self.evaluator(), *(self.rollout(f"rollout-{i}") for i in range(self.rollouts))]

    def learner(self) -> Part:
        """The learner, or what drives a group of them."""
        kind = LearnerWorker if self._spec.training.learners == 1 else LearnerGroup
        gpus = self._spec.resources.learner_gpus if kind is LearnerWorker else 0.0
        return self._start(LEARNER, LEARNER, kind, 0.0, gpus, max_concurrency=2)

    def evaluator(self) -> Part:
        """The evaluator."""
        part = self._start(EVALUATOR, EVALUATOR, Evaluator, 0.0, 0.0)
        part.restart = self.evaluator
        return part

    def rollout(self, ident: str) -> Part:
        """One rollout."""
        resources = self._spec.resources
        part = self._start(ROLLOUT, ident, RolloutWorker, resources.rollout_cpus, resources.rollout_gpus, ident)
        part.restart = lambda: self.rollout(ident)
        return part

    def _start(self, role: str, ident: str, kind: type, cpus: float, gpus: float, *more: Any, **options: Any) -> Part:
        gpus = placement.available_gpus(gpus)
        actor = placement.start_actor(kind, self._assignment, *more, cpus=cpus, gpus=gpus, **options)
        return Part(role, ident, actor, placement.call(actor, "run"))
