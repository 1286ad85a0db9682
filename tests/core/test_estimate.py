"""What a dry run reckons, against what is really built and sent."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from tests.contract.test_tables import SPECS
from warploom.build import build
from warploom.errors import InvalidInput
from warploom.estimate import estimate, sizes
from warploom.optim.build import build_optimiser
from warploom.optim.configs import OPTIMISER_CONFIGS
from warploom.rollout import collect
from warploom.spec import JobSpec

GLYPHS = {"name": "glyphs", "ways": 3, "shots": 1, "image_size": 28}
WIDE = {"name": "glyphs", "ways": 3, "shots": 1, "image_size": 37}
MODELS = [
    ("sinusoid", {"name": "mlp", "hidden": [7, 5]}),
    *(
        ("sinusoid", {"name": "warp_mlp", "hidden": [7, 5], "warp_kind": kind, "warp_residual": residual})
        for kind, residual in itertools.product(("linear", "film", "gate"), (True, False))
    ),
    (WIDE, {"name": "conv4", "filters": 5, "layers": 3}),
    (WIDE, {"name": "conv4", "filters": 5, "downsample": "stride"}),
    *(
        (GLYPHS, {"name": "warp_conv4", "filters": 5, "layers": 2, "warp_kind": kind, **more})
        for kind, more in itertools.product(
            ("conv", "film", "gate"),
            (
                {},
                {"warp_kernel": 1, "warp_layers": 2, "warp_batch_norm": True},
                {"warp_residual": True, "warp_batch_norm": True, "warp_final_head": True},
            ),
        )
    ),
    (WIDE, {"name": "vgg", "filters": 6}),
    *((GLYPHS, {"name": "resnet", "depth": depth, "widths": [3, 4, 5, 6]}) for depth in (4, 8, 12)),
    (WIDE, {"name": "densenet", "growth": 5, "compression": 0.3}),
    ("maze", {"name": "rnn", "hidden": 6}),
    *(("maze", {"name": "plastic_rnn", "hidden": 6, "modulation": m}) for m in ("none", "simple", "retroactive")),
    ("maze", {"name": "warp_rnn", "hidden": 6, "warp_hidden": 4}),
    ("surfaces", {"name": "point"}),
    ("surfaces", {"name": "warp_point", "warp_hidden": 4}),
]


@pytest.mark.parametrize(("task", "model"), MODELS)
def test_every_parameter_has_the_size_that_its_configuration_says(task, model):
    spec = JobSpec.parse({"algorithm": "none", "task": task, "model": model})
    built = build(spec).model
    told = spec.model.sizes(spec.task.input_shape, spec.task.outputs)
    assert told == {name: value.numel() for name, value in built.module.named_parameters()}
    assert {name: spec.model.role(name) for name in told} == dict(built.roles)


@pytest.mark.parametrize("spec", SPECS)
def test_bytes_of_what_is_learned_and_sent(spec):
    algorithm, told, counted = build(spec), estimate(spec), sizes(spec)
    meta = algorithm.init(0)
    learned = sum(value.numel() for value in meta.params.values())
    assert counted.adapted == sum(meta.params[name].numel() for name in algorithm.adaptable)
    if counted.beside is None:
        assert told.meta_state_bytes is None and told.notes
    else:
        assert told.meta_state_bytes == learned * 4
    sent = [
        sum(value.numel() for value in (*experience.points.values(), *experience.gradient.values())) * 4
        for experience in collect(algorithm, spec, meta, 0)
    ]
    assert told.trajectory_bytes is not None
    assert max(sent) <= told.trajectory_bytes
    if spec.algorithm.points:
        assert max(sent) > 0.5 * told.trajectory_bytes, "an upper bound, and not a wild one"


@pytest.mark.parametrize("name", OPTIMISER_CONFIGS)
@pytest.mark.parametrize("more", [{}, {"momentum": 0.5}, {"amsgrad": True}, {"centered": True}])
def test_the_state_of_an_inner_optimiser(name, more):
    kind = OPTIMISER_CONFIGS[name]
    if not set(more) <= set(kind.model_fields):
        return
    import torch

    config = kind(**more)
    state = build_optimiser(config).init({"a": torch.zeros(3), "b": torch.zeros(2, 2)})
    assert config.state_size(7) == sum(value.numel() for value in state.values())


def test_counts_of_a_job():
    spec = JobSpec.parse(
        {
            "algorithm": {"name": "warpgrad", "inner_steps": 10, "record_every": 3},
            "task": "sinusoid",
            "model": "warp_mlp",
            "training": {"rounds": 21, "meta_batch": 4, "unit": 2},
            "evaluation": {"every": 10, "tasks": 5},
        }
    )
    told = estimate(spec)
    assert (told.tasks, told.inner_steps) == (84, 840)
    assert (told.evaluations, told.evaluation_inner_steps) == (4, 200)
    assert told.parameters == 1761 + 2 * (1600 + 40)
    assert told.adapted_parameters == 1761
    per_task = 4 * 1761 * 4 + told.parameters * 4
    assert told.trajectory_bytes == per_task
    assert told.replay_bytes == 4 * per_task
    assert told.replay_bytes_written == 84 * per_task
    assert told.learner_bytes == 3 * told.parameters * 4
    assert told.notes == []


def test_what_would_not_work_is_said():
    document = {"algorithm": "warpgrad", "task": "sinusoid", "model": "warp_mlp"}
    tight = JobSpec.parse({**document, "replay": {"max_bytes": 2**20}, "training": {"meta_batch": 64}})
    told = estimate(tight)
    assert told.replay_bytes == 2**20
    assert "replay.max_bytes" in told.notes[0]
    stuck = JobSpec.parse({**document, "training": {"mode": "async"}, "replay": {"min_trajectories": 1000}})
    with pytest.raises(InvalidInput, match="wait for ever"):
        estimate(stuck)


def test_an_estimate_loads_no_torch():
    code = (
        "import sys; from warploom.estimate import estimate; from warploom.spec import JobSpec;"
        "estimate(JobSpec.parse({'algorithm': 'warpgrad', 'task': 'glyphs', 'model': 'warp_conv4'}));"
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
