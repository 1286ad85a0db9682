"""A synchronous run that goes on from the checkpoint of any round ends with the same bytes as one never interrupted.

The checkpoint is all that goes over: the algorithm, the family and the buffer are made anew, as after a kill.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from warploom import registry
from warploom.build import build
from warploom.errors import InvalidInput, Unavailable
from warploom.learner import LearnerState
from warploom.local_replay import LocalReplay
from warploom.plan import plan_of
from warploom.rollout import RolloutLoop
from warploom.spec import JobSpec
from warploom.training import LearnerLoop, pack_state, unpack_state

ROUNDS = 4
# Algorithms with the outer optimiser, schedule or statistics that their state must carry; all others by their defaults.
VARIANTS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"name": "warpgrad", "outer": "adam", "points_per_update": 4}, {"schedule": "cosine"}, {}),
    (
        {"name": "warpgrad", "outer": "sgd", "initialisation": "leap", "points_per_update": 4},
        {"schedule": "linear"},
        {},
    ),
    ({"name": "maml", "outer": "adam"}, {"schedule": "linear"}, {}),
    ({"name": "maml", "outer": "sgd"}, {"unit": 2}, {}),
    ({"name": "reptile", "outer": "adam"}, {"seed": 7}, {}),
    ({"name": "maml++"}, {"schedule": "cosine"}, {}),
    ({"name": "multi-head"}, {}, {"task": {"name": "cosmixture", "tasks": 4}}),
    (
        {"name": "warpgrad", "outer": "adam", "points_per_update": 4},
        {"meta_batch": 2},
        {
            "task": {"name": "glyphs", "ways": 2, "shots": 2, "queries": 2, "image_size": 16, "alphabets": 4},
            "model": {"name": "warp_conv4", "layers": 2, "filters": 3, "bn_mode": "running"},
        },
    ),
]


def documents() -> Iterator[dict[str, Any]]:
    plain = [({"name": name}, {}, {}) for name in registry.ALGORITHMS]
    for algorithm, training, others in [*plain, *VARIANTS]:
        yield {
            "algorithm": {"inner_steps": 2, "inner_lr": 0.02, **algorithm},
            "task": {"name": "sinusoid", "shots": 4, "queries": 4},
            "training": {"rounds": ROUNDS, "meta_batch": 3, **training},
            **others,
        }


def specs() -> Iterator[Any]:
    """The first model that fits, for each."""
    for number, document in enumerate(documents()):
        for model in ("warp_mlp", "mlp"):
            try:
                spec = JobSpec.parse({"model": {"name": model, "hidden": [5]}, **document})
            except InvalidInput:
                continue
            yield pytest.param(spec, id=f"{number}-{document['algorithm']['name']}")
            break


def finish(spec: JobSpec, files: dict[str, bytes] | None = None) -> tuple[LearnerState, list[dict[str, bytes]]]:
    """The end of a run from a checkpoint or from the start, and a checkpoint of every round on the way."""
    algorithm, replay = build(spec), LocalReplay(plan_of(spec))
    state = unpack_state(files) if files else LearnerState(algorithm.init(spec.training.seed))
    kept = [pack_state(state)]

    def keep(state: LearnerState) -> bool:
        kept.append(pack_state(state))
        return True

    learner = LearnerLoop(algorithm, spec, replay, state, report=lambda _kind, _data: None, checkpoint=keep)
    rollout = RolloutLoop(algorithm, spec, replay, "local")
    learner.start()
    while not learner.done:
        if not learner.step():
            rollout.step()
    return learner.state, kept


@pytest.mark.parametrize("spec", list(specs()))
def test_any_round_is_a_place_to_go_on_from(spec: JobSpec) -> None:
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"checkpoint_every": 1})})
    whole, kept = finish(spec)
    assert len(kept) == ROUNDS + 1
    for files in kept[:-1]:
        resumed, _ = finish(spec, files)
        assert resumed.meta.version == whole.meta.version == ROUNDS
        for one, other in (
            (resumed.meta.params, whole.meta.params),
            (resumed.meta.stats, whole.meta.stats),
            (resumed.outer.first, whole.outer.first),
            (resumed.outer.second, whole.outer.second),
        ):
            assert set(one) == set(other)
            assert all(torch.equal(one[name], other[name]) for name in one)
        assert (resumed.outer.count, resumed.dropped) == (whole.outer.count, whole.dropped)


def test_a_round_is_told_before_it_is_saved() -> None:
    """Killed in between, a run does the round again; the other way round its event would never come."""
    (spec,) = (param.values[0] for param in specs() if param.id.endswith("-leap"))
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"checkpoint_every": 1})})
    algorithm, replay, told = build(spec), LocalReplay(plan_of(spec)), list[int]()

    def save(state: LearnerState) -> bool:
        assert state.meta.version in told
        return True

    def report(kind: str, data: dict[str, Any]) -> None:
        told.extend([data["meta_step"]] if kind == "round" else [])

    state = LearnerState(algorithm.init(spec.training.seed))
    learner = LearnerLoop(algorithm, spec, replay, state, report=report, checkpoint=save)
    rollout = RolloutLoop(algorithm, spec, replay, "local")
    learner.start()
    while not learner.done:
        if not learner.step():
            rollout.step()
    assert told == list(range(1, ROUNDS + 1))


class Forgetful(LocalReplay):
    """Is away for some publications, and has lost everything when it comes back."""

    away = False

    def publish(self, version: int, blob: bytes) -> None:
        if self.away:
            raise Unavailable("the server is away")
        super().publish(version, blob)


def test_a_buffer_that_goes_and_forgets_changes_nothing() -> None:
    (spec,) = (param.values[0] for param in specs() if param.id.endswith("-leap"))
    whole, _ = finish(spec)
    algorithm, replay, told = build(spec), Forgetful(plan_of(spec)), []
    learner = LearnerLoop(
        algorithm,
        spec,
        replay,
        LearnerState(algorithm.init(spec.training.seed)),
        report=lambda kind, data: told.append(data["meta_step"]) if kind == "round" else None,
        checkpoint=lambda _state: True,
    )
    rollout = RolloutLoop(algorithm, spec, replay, "local")
    learner.start()
    while not learner.done:
        replay.away = learner.state.meta.version % 2 == 0
        try:
            if not learner.step():
                rollout.step()
        except Unavailable:
            with pytest.raises(Unavailable):
                learner.reopen()
            replay.away = False
            replay.close()
            learner.reopen()
    assert told == list(range(1, ROUNDS + 1))
    assert all(torch.equal(value, learner.state.meta.params[name]) for name, value in whole.meta.params.items())


def test_every_algorithm_of_the_table_is_here() -> None:
    assert {spec.values[0].algorithm.name for spec in specs()} == set(registry.ALGORITHMS)
