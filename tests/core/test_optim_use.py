"""Inner optimisers at the door, and under the algorithms."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch.nn import functional as F

from tests.support.families import Noise, NoiseCurvesConfig, doubled
from warploom.algorithms.configs.maml import MAMLConfig
from warploom.algorithms.configs.none import NoMetaConfig
from warploom.algorithms.configs.warpgrad import WarpGradConfig
from warploom.algorithms.maml import MAML
from warploom.algorithms.none import NoMeta
from warploom.algorithms.warpgrad import WarpGrad
from warploom.errors import InvalidInput
from warploom.models.configs.mlp import MLPConfig, WarpMLPConfig
from warploom.models.mlp import build_mlp, build_warp_mlp
from warploom.optim.build import OPTIMISERS, build_optimiser
from warploom.optim.configs import OPTIMISER_CONFIGS, AnyInnerOptimiser, differentiable
from warploom.spec import JobSpec
from warploom.types import TaskRef

RULE = TypeAdapter(AnyInnerOptimiser)
each_rule = pytest.mark.parametrize("name", OPTIMISERS)


class TestConfigs:
    """What the door takes."""

    def test_tables_agree(self):
        members = set(get_args(get_args(AnyInnerOptimiser)[0]))
        assert members == set(OPTIMISER_CONFIGS.values())
        assert OPTIMISERS.keys() == OPTIMISER_CONFIGS.keys()
        assert [name for name in OPTIMISERS if name not in differentiable()] == ["rprop"]

    @each_rule
    def test_a_name_an_object_and_json_mean_the_same(self, name):
        rule = RULE.validate_python(name)
        assert RULE.validate_python({"name": name}) == rule == RULE.validate_json(RULE.dump_json(rule))
        assert rule.summary
        assert rule.source
        assert set(build_optimiser(rule).settings()) <= set(OPTIMISER_CONFIGS[name].model_fields)

    @each_rule
    def test_defaults_are_those_of_torch(self, name):
        theirs = {"amsgrad": "Adam", "sgd": "SGD", "asgd": "ASGD", "adamw": "AdamW", "rmsprop": "RMSprop"}
        cls = getattr(torch.optim, theirs.get(name, name.capitalize()))
        wanted = {key: p.default for key, p in inspect.signature(cls).parameters.items()}
        if "betas" in wanted:
            wanted["beta1"], wanted["beta2"] = wanted["betas"]
        if "etas" in wanted:
            wanted["eta_minus"], wanted["eta_plus"] = wanted["etas"]
            wanted["step_min"], wanted["step_max"] = wanted["step_sizes"]
        wanted["initial_accumulator"] = wanted.get("initial_accumulator_value")
        for key, value in RULE.validate_python(name).model_dump(exclude={"name"}).items():
            assert value == wanted[key], key

    def test_an_unknown_name_is_answered_with_the_names(self):
        with pytest.raises(ValidationError, match="unknown inner optimiser 'lion'; there are: sgd, adam, adamw"):
            RULE.validate_python("lion")
        with pytest.raises(ValidationError, match="'name', one of: sgd"):
            RULE.validate_python({"beta1": 0.5})

    def test_errors_point_at_the_field(self):
        document = {"algorithm": {"name": "none", "inner_optimiser": {"name": "adam", "beta1": 1}}}
        with pytest.raises(InvalidInput) as error:
            JobSpec.parse({**document, "task": "sinusoid", "model": "mlp"})
        assert error.value.field == "/algorithm/inner_optimiser/beta1"


def adapting(kind, name, lr, steps):
    task = NoiseCurvesConfig()
    rule = RULE.validate_python(name)
    if kind == "warpgrad":
        model = build_warp_mlp(WarpMLPConfig(hidden=(5,), activation="tanh"), task)
        approximate = not rule.differentiable_in_gradient  # Eq 12 asks for no derivative of the inner step
        config = WarpGradConfig(inner_optimiser=rule, inner_lr=lr, inner_steps=steps, approximate=approximate)
        return WarpGrad(config, model, Noise(task))
    model = build_mlp(MLPConfig(hidden=(5,), activation="tanh"), task)
    if kind == "maml":
        return MAML(MAMLConfig(inner_optimiser=rule, inner_lr=lr, inner_steps=steps), model, Noise(task))
    return NoMeta(NoMetaConfig(inner_optimiser=rule, inner_lr=lr, inner_steps=steps), model, Noise(task))


RATES = {"sgd": 0.05, "adagrad": 0.05, "adadelta": 20.0, "asgd": 0.05, "rmsprop": 0.003}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("none", name) for name in OPTIMISERS]
    + [("warpgrad", name) for name in OPTIMISERS]
    + [("maml", name) for name in differentiable()],
)
class TestAdaptation:
    """Every inner optimiser under the algorithms."""

    def test_support_loss_falls_in_a_loop_as_at_once(self, kind, name, monkeypatch):
        algorithm = adapting(kind, name, RATES.get(name, 0.02), 12)
        meta = doubled(algorithm.init(0))
        tasks = algorithm.family.sample([TaskRef("test", i, 0) for i in range(3)])
        found = {}
        for vectorise in (True, False):
            monkeypatch.setattr(algorithm, "_vectorise", lambda x, v=vectorise: v)
            found[vectorise] = algorithm.adapt(meta, tasks, seeds=[1, 2, 3])
        torch.testing.assert_close(found[True].losses_TK, found[False].losses_TK, rtol=1e-9, atol=1e-11)
        for key, value in found[True].params.items():
            torch.testing.assert_close(value, found[False].params[key], rtol=1e-9, atol=1e-11)
        assert bool((found[True].losses_TK[:, -1] < found[True].losses_TK[:, 0]).all())


@pytest.mark.parametrize("name", differentiable())
def test_maml_through_each_inner_optimiser_is_exact(name):
    """The meta-gradient against finite differences of adapting and predicting."""
    algorithm = adapting(
        "maml", {"name": name, **({"eps": 0.1} if "a" in name and name not in {"asgd"} else {})}, 0.1, 3
    )
    meta = doubled(algorithm.init(0))
    tasks = algorithm.family.sample([TaskRef("train", 0, 0)])
    (experience,) = algorithm.rollout(meta, tasks, seeds=[1])

    def value(params):
        moved = type(meta)(version=0, params=params)
        adapted = algorithm.adapt(moved, tasks, seeds=[1])
        return F.mse_loss(algorithm.predict(moved, adapted, tasks.query_x), tasks.query_y)

    gen = torch.Generator().manual_seed(2)
    for _ in range(3):
        way = {n: torch.randn(v.shape, generator=gen, dtype=v.dtype) for n, v in meta.params.items()}
        up, down = ({n: v + sign * 1e-6 * way[n] for n, v in meta.params.items()} for sign in (1, -1))
        wanted = (value(up) - value(down)) / 2e-6
        got = sum((experience.gradient[n] * way[n]).sum() for n in way)
        torch.testing.assert_close(got, wanted, rtol=2e-6, atol=2e-8)
