"""The three requirements for learning through the inner loop: which one fails, and where it is said."""

from __future__ import annotations

import pytest
import torch

from tests.support.families import Noise, NoiseCurvesConfig, NoiseImagesConfig
from warploom.algorithms.configs.maml import MAMLConfig
from warploom.algorithms.maml import MAML
from warploom.build import build
from warploom.errors import DataMissing, InvalidInput, UnfitPair
from warploom.functional import forward
from warploom.models.configs.conv4 import Conv4Config
from warploom.models.configs.mlp import MLPConfig
from warploom.models.conv4 import build_conv4
from warploom.models.mlp import build_mlp
from warploom.optim import gimli
from warploom.optim.build import OPTIMISERS
from warploom.optim.configs import OPTIMISER_CONFIGS, AdamConfig, RpropConfig, SGDConfig, differentiable
from warploom.optim.sgd import SGD
from warploom.spec import JobSpec
from warploom.types import TaskRef

REFUSED = "requirement {} for that fails"


def make(kind=MAML, family=None, **options):
    task = NoiseCurvesConfig()
    return kind(MAMLConfig(**options), build_mlp(MLPConfig(hidden=(5,)), task), (family or Single)(task))


def document(algorithm, **options):
    return {
        "algorithm": {"name": algorithm, **options},
        "task": "sinusoid",
        "model": {"name": "mlp", "hidden": [6]},
    }


class Single(Noise):
    """In the precision that models start in."""

    dtype = torch.float32


class Rounded(Single):
    """A family whose loss goes by rounded predictions."""

    def loss(self, model, params, x_B, y_B, stats):
        return (forward(model, params, x_B, stats).round() - y_B).square().mean()


class Accuracy(Single):
    """A loss of queries that counts hits."""

    def loss(self, model, params, x_B, y_B, stats):
        return (forward(model, params, x_B, stats).sign() == y_B.sign()).sum()


class SlopeOfSign(SGD):
    """SGD on the gradient's sign, which forgets to say so."""

    def step(self, theta, gradient, state, settings):
        return super().step(theta, {name: g.sign() for name, g in gradient.items()}, state, settings)


class Forgetful(SGD):
    """Jumps to the gradient, wherever it was."""

    def step(self, theta, gradient, state, settings):
        return super().step({name: torch.zeros_like(v) for name, v in theta.items()}, gradient, state, settings)


class Late(SGD):
    """Moves by the gradient before."""

    def init(self, theta):
        return {f"before/{name}": torch.zeros_like(value) for name, value in theta.items()}

    def step(self, theta, gradient, state, settings):
        last = {name: state[f"before/{name}"] for name in theta}
        moved, _ = super().step(theta, last, {}, settings)
        return moved, {f"before/{name}": value for name, value in gradient.items()}


class FixedStart(MAML):
    """MAML from a start that is no function of what is learned."""

    def start(self, learned):
        return {name: value.detach() for name, value in super().start(learned).items()}


class StartAtOnes(FixedStart):
    """The same, and nothing of the model is learned but what no step sees."""

    def start(self, learned):
        return {name: torch.ones_like(value) for name, value in super().start(learned).items()}

    def learns(self):
        return ["layer0.weight"]


class Learned(StartAtOnes):
    """A step size is learned."""

    def also_learned(self, params, seed):
        return {"lr:all": torch.tensor(0.0)}

    def inner_settings(self, learned, k, lr):
        return {**super().inner_settings(learned, k, lr), "lr": lr * learned["lr:all"].exp()}

    def learns(self):
        return ["lr:all"]


class LearnedLoss(Learned):
    """The same parameter acts as the weight of the support loss."""

    def inner_settings(self, learned, k, lr):
        return MAML.inner_settings(self, learned, k, lr)

    def support_loss(self, learned, theta, x_B, y_B, stats):
        return super().support_loss(learned, theta, x_B, y_B, stats) * learned["lr:all"].exp()


class OnlyInTheEnd(LearnedLoss):
    """The same parameter scales the loss of queries alone."""

    def support_loss(self, learned, theta, x_B, y_B, stats):
        return MAML.support_loss(self, learned, theta, x_B, y_B, stats)

    def outer_loss(self, learned, *rest):
        return super().outer_loss(learned, *rest) * learned["lr:all"].exp()


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setattr(gimli, "_KNOWN", {})


@pytest.mark.parametrize("name", differentiable())
def test_maml_meets_them_with_every_optimiser_that_says_so(name):
    gimli.refuse_unfit(make(inner_optimiser=name))
    assert build(JobSpec.parse(document("maml", inner_optimiser=name))).optimiser.differentiable_in_gradient


def test_rprop_is_refused_at_the_door():
    with pytest.raises(UnfitPair) as error:
        JobSpec.parse(document("maml", inner_optimiser="rprop"))
    assert "algorithm 'maml' learns through the inner loop" in error.value.message
    assert "requirement II for that fails: rprop moves by the gradient's sign alone" in error.value.message
    assert "fit: sgd, adam" in error.value.message
    assert "rprop" not in error.value.message.partition("fit:")[2]


def test_rprop_is_refused_when_built():
    with pytest.raises(UnfitPair, match=REFUSED.format("II")):
        make(inner_optimiser="rprop")


def test_rprop_is_fine_where_nothing_flows_through_the_loop():
    assert build(JobSpec.parse(document("none", inner_optimiser="rprop"))).config.inner_optimiser == RpropConfig()


@pytest.mark.parametrize("family", [Rounded, Accuracy])
def test_a_loss_of_queries_without_slope_fails_the_first(family):
    with pytest.raises(UnfitPair, match=REFUSED.format("I") + ": the loss of the queries"):
        gimli.refuse_unfit(make(family=family))


@pytest.mark.parametrize(("rule", "of"), [(SlopeOfSign, "gradient"), (Forgetful, "parameters")])
def test_an_optimiser_without_slope_fails_the_second_whatever_it_says(rule, of):
    algorithm = make()
    algorithm.optimiser = rule(SGDConfig())
    with pytest.raises(UnfitPair, match=REFUSED.format("II") + f": the step of sgd .* with the {of}"):
        gimli.refuse_unfit(algorithm)


def test_an_optimiser_that_acts_a_step_later_meets_the_second():
    algorithm = make()
    algorithm.optimiser = Late(SGDConfig())
    gimli.refuse_unfit(algorithm)


def test_the_numbers_find_what_the_configs_state():
    """Each optimiser's stated fact against its own derivative."""
    for name, kind in OPTIMISERS.items():
        algorithm = make()
        algorithm.optimiser = kind(OPTIMISER_CONFIGS[name]())
        meta = algorithm.init(0)
        tasks = algorithm.family.sample([TaskRef("train", 0, 0)])
        reason = gimli.why_unfit(
            algorithm,
            meta.params,
            algorithm.learns(),
            tasks.support_x[0],
            tasks.support_y[0],
            outer_loss=lambda learned, theta, a=algorithm, t=tasks: a.outer_loss(
                learned, theta, t.support_x[0], t.query_x[0], t.query_y[0], {}
            ),
        )
        assert (reason is None) == algorithm.optimiser.differentiable_in_gradient, name
        assert reason is None or REFUSED.format("II") in reason


@pytest.mark.parametrize("kind", [StartAtOnes, OnlyInTheEnd])
def test_what_never_reaches_the_path_fails_the_third(kind):
    algorithm = make(kind)
    with pytest.raises(
        UnfitPair, match=REFUSED.format("III") + rf": nothing that is learned \({algorithm.learns()[0]}\)"
    ):
        gimli.refuse_unfit(algorithm)


def test_learning_nothing_fails_the_third(monkeypatch):
    algorithm = make()
    monkeypatch.setattr(algorithm, "learns", list)
    with pytest.raises(UnfitPair, match="no parameter at all"):
        gimli.refuse_unfit(algorithm)


def test_adapting_nothing_fails_the_third(monkeypatch):
    algorithm = make()
    monkeypatch.setattr(algorithm, "start", lambda learned: {})
    with pytest.raises(UnfitPair, match=REFUSED.format("III") + ": no parameter adapts"):
        gimli.refuse_unfit(algorithm)


@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize("kind", [MAML, Learned, LearnedLoss])
def test_a_start_a_setting_or_a_loss_is_enough_for_the_third(kind, rule):
    gimli.refuse_unfit(make(kind, inner_optimiser=rule))


def test_a_start_cut_off_from_the_parameters_fails_the_third():
    gimli.refuse_unfit(make(MAML))
    with pytest.raises(UnfitPair, match=REFUSED.format("III")):
        gimli.refuse_unfit(make(FixedStart))


@pytest.mark.parametrize("mode", ["task", "transductive", "running"])
def test_nets_with_batch_normalisation_meet_them(mode):
    task = NoiseImagesConfig()
    model = build_conv4(Conv4Config(layers=2, filters=3, bn_mode=mode), task)
    gimli.refuse_unfit(MAML(MAMLConfig(inner_optimiser=AdamConfig()), model, Noise(task)))


def test_a_family_without_its_files_is_taken_on_trust():
    class Absent(Rounded):
        def sample(self, refs):
            raise DataMissing("not here")

    gimli.refuse_unfit(make(family=Absent))


def test_what_was_found_is_kept_for_equal_configs(monkeypatch):
    gimli.refuse_unfit(make())
    monkeypatch.setattr(gimli, "_tried", None)
    gimli.refuse_unfit(make())
    with pytest.raises(TypeError):
        gimli.refuse_unfit(make(inner_lr=0.3))


@pytest.mark.parametrize(
    ("part", "change", "field", "rule"),
    [
        ("algorithm", {"name": "maml", "inner_optimiser": "rprop"}, "/algorithm/inner_optimiser", "unfit_pair"),
        ("algorithm", {"name": "warpgrad"}, "/model", "unfit_pair"),
        ("training", {"unit": 3, "meta_batch": 2}, "/training/unit", "at most training.meta_batch"),
    ],
)
def test_a_refusal_points_at_the_field_that_mends_it(part, change, field, rule):
    document = {"algorithm": {"name": "maml"}, "task": {"name": "sinusoid"}, "model": {"name": "mlp"}, part: change}
    with pytest.raises(InvalidInput) as refused:
        JobSpec.parse(document)
    assert (refused.value.field, refused.value.rule) == (field, rule)
