"""Non-finite meta-gradients are dropped, counted, and end a job when there are too many; what a job raises ends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from warploom.build import build
from warploom.errors import DataMissing, OutOfMemory, TrainingFailed
from warploom.guard import job_code
from warploom.learner import LearnerState, learn_round
from warploom.local import train
from warploom.outer import Outer
from warploom.spec import JobSpec
from warploom.tasks.sinusoid import Sinusoid
from warploom.training import pack_state, unpack_state
from warploom.types import Experience, Gradient, MetaState, TaskRef

NAN = float("nan")


class Told:
    """An algorithm whose meta-gradients the test says, one per minibatch."""

    def __init__(self, *values: float) -> None:
        self._values = values

    def outer(self, version: int) -> Outer:
        return Outer("sgd", {"w": 1.0})

    def minibatches(self, experiences: Sequence[Experience], *, seed: int) -> list[list[Experience]]:
        return [[_experience(value)] for value in self._values]

    def meta_gradient(self, meta: MetaState, experiences: Sequence[Experience], *, seed: int) -> Gradient:
        return Gradient({"w": torch.tensor([experiences[0].metrics["value"]])}, 1.0)


def _experience(value: float, diverged: float = 0.0) -> Experience:
    return Experience(TaskRef("train", 0, 0), 0, metrics={"value": value, "diverged": diverged})


def learn(state: LearnerState, *values: float, max_bad: int = 3) -> LearnerState:
    algorithm: Any = Told(*values)
    return learn_round(algorithm, state, [_experience(0.0)], seed=0, max_bad=max_bad)[0]


@pytest.fixture
def fresh() -> LearnerState:
    return LearnerState(MetaState(0, {"w": torch.zeros(1)}))


def test_a_non_finite_meta_gradient_is_dropped_and_counted(fresh: LearnerState) -> None:
    state = learn(fresh, 1.0, NAN, 2.0, float("inf"))
    assert state.meta.params["w"].item() == -3.0
    assert (state.dropped, state.bad_in_a_row, state.meta.version) == (2, 1, 1)


def test_too_many_in_a_row_fail_the_job_over_rounds_and_restarts(fresh: LearnerState) -> None:
    state = learn(fresh, NAN)
    state = unpack_state(pack_state(learn(state, NAN)))
    assert (state.dropped, state.bad_in_a_row) == (2, 2)
    assert learn(state, 1.0).bad_in_a_row == 0
    with pytest.raises(TrainingFailed, match="3 meta-gradients in a row were not finite") as caught:
        learn(state, NAN)
    assert caught.value.field == "/training/max_bad_updates"


def test_a_round_in_which_every_task_diverged_is_bad_too(fresh: LearnerState) -> None:
    algorithm: Any = Told()
    state, sick = fresh, [_experience(0.0, diverged=1.0)]
    for _ in range(2):
        state, _ = learn_round(algorithm, state, sick, seed=0, max_bad=3)
    with pytest.raises(TrainingFailed):
        learn_round(algorithm, state, sick, seed=0, max_bad=3)
    assert learn_round(algorithm, state, [*sick, _experience(0.0)], seed=0, max_bad=3)[0].dropped == 2


def poison(**algorithm: Any) -> JobSpec:
    return JobSpec.parse(
        {
            "algorithm": {"name": "maml", "inner_lr": 0.01, "inner_steps": 2, **algorithm},
            "task": "sinusoid",
            "model": {"name": "mlp", "hidden": [8]},
            "training": {"rounds": 50, "meta_batch": 2, "unit": 2, "max_bad_updates": 4},
            "evaluation": {"every": 50, "tasks": 2},
        }
    )


def test_a_huge_rate_fails_with_the_number_that_is_allowed() -> None:
    """Every task of such a job diverges: without the guard it would end well, having learned nothing."""
    rounds: list[float] = []
    with pytest.raises(TrainingFailed, match="4 meta-gradients in a row"):
        train(
            poison(inner_lr=100.0, inner_steps=40),
            lambda kind, data: rounds.append(data["dropped"]) if kind == "round" else None,
        )
    assert rounds == [1, 2, 3]


RAISED: list[tuple[Exception, type[Exception], str]] = [
    (KeyError("colour"), TrainingFailed, "the rollout of unit 0 raised KeyError: 'colour'"),
    (MemoryError(), OutOfMemory, "the rollout of unit 0 needs more memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), OutOfMemory, "can't allocate"),
    (DataMissing("no archive"), DataMissing, "no archive"),
]


@pytest.mark.parametrize(("raised", "seen", "message"), RAISED)
def test_what_a_family_raises_ends_the_job_with_its_kind(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, seen: type[Exception], message: str
) -> None:
    sample = Sinusoid.sample

    def sick(self: Sinusoid, refs: Sequence[TaskRef]) -> Any:
        if refs[0].split == "train":
            raise raised
        return sample(self, refs)

    monkeypatch.setattr(Sinusoid, "sample", sick)
    with pytest.raises(seen, match=message):
        train(poison())


def test_an_allocation_that_cannot_be_is_out_of_memory() -> None:
    with pytest.raises(OutOfMemory), job_code("this test"):
        torch.empty(2**60)
    assert build(poison()).model is not None
