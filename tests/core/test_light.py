"""Specs, errors and seeds: what the door checks without torch."""

from __future__ import annotations

import pickle

import pytest
from pydantic import ValidationError

from warploom import errors
from warploom.errors import InvalidInput, UnfitPair, WarploomError
from warploom.seeding import derive
from warploom.spec import JobSpec, SweepSpec

GOOD = {"algorithm": "warpgrad", "task": "sinusoid", "model": "warp_mlp"}


def leaves(kind):
    """The page's own classes; other folders may refine them."""
    if kind.__module__ == errors.__name__:
        yield kind
        for sub in kind.__subclasses__():
            yield from leaves(sub)


@pytest.mark.parametrize("kind", list(leaves(WarploomError)))
def test_every_error_survives_pickling_and_says_its_status(kind):
    error = kind("wrong", field="/a", rule="at most 1", value=2)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert back.as_problem() == error.as_problem()
    assert back.as_problem()["errors"] == [{"pointer": "/a", "rule": "at most 1", "value": 2, "message": "wrong"}]
    assert 400 <= kind.status < 600


def test_the_page_of_errors_lists_all_of_them():
    for kind in leaves(WarploomError):
        assert f"{kind.__name__} " in (errors.__doc__ or "")
        assert f"{kind.status}  {kind.code}" in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("document", "kind", "words"),
    [
        ({**GOOD, "algorithm": "warpgard"}, InvalidInput, ["/algorithm", "warpgard", "warpgrad"]),
        ({**GOOD, "algorithm": {"name": "warpgrad", "inner_lr": -1}}, InvalidInput, ["/algorithm/inner_lr"]),
        ({**GOOD, "algorithm": {"name": "warpgrad", "iner_lr": 1}}, InvalidInput, ["/algorithm/iner_lr"]),
        ({**GOOD, "algorithm": {"name": "warpgrad", "inner_lr": float("nan")}}, InvalidInput, ["/algorithm/inner_lr"]),
        ({**GOOD, "model": "mlp"}, UnfitPair, ["warp", "'mlp'", "warp_mlp"]),
        ({**GOOD, "model": "warp_conv4"}, UnfitPair, ["images", "warp_mlp"]),
        (
            {"algorithm": "none", "task": {"name": "glyphs", "image_size": 8}, "model": "conv4"},
            UnfitPair,
            ["16 pixels"],
        ),
        ({**GOOD, "training": {"rounds": -1}}, InvalidInput, ["/training/rounds"]),
        ({**GOOD, "training": {"unit": 9, "meta_batch": 5}}, InvalidInput, ["training.unit (9)", "(5)"]),
        ({"algorithm": "none", "task": "sinusoid"}, InvalidInput, ["/model"]),
        ({**GOOD, "name": "../etc"}, InvalidInput, ["/name"]),
        ([], InvalidInput, []),
    ],
)
def test_a_bad_spec_is_refused_with_the_field_and_the_way_out(document, kind, words):
    with pytest.raises(kind) as caught:
        JobSpec.parse(document)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.field


def test_a_spec_written_out_reads_back_the_same():
    spec = JobSpec.parse({**GOOD, "training": {"rounds": 7}})
    assert JobSpec.parse(spec.to_json()) == spec
    assert spec.to_json()["algorithm"]["warp_lr"] == 0.001


def test_a_sweep_names_paths_that_exist_and_makes_valid_trials():
    space = {"algorithm.inner_lr": {"type": "loguniform", "low": 1e-3, "high": 1}}
    sweep = SweepSpec.model_validate({"job": GOOD, "space": space})
    assert sweep.trial({"algorithm.inner_lr": 0.5}).algorithm.inner_lr == 0.5  # type: ignore[attr-defined]
    for bad in (
        {"algorithm.iner_lr": {"type": "uniform", "low": 0, "high": 1}},
        {"algorithm": {"type": "choice", "values": [1]}},
        {"algorithm.inner_lr": {"type": "uniform", "low": 2, "high": 1}},
        {"algorithm.inner_lr": {"type": "loguniform", "low": 0, "high": 1}},
        {"algorithm.inner_lr": {"type": "choice"}},
    ):
        with pytest.raises(ValidationError):
            SweepSpec.model_validate({"job": GOOD, "space": bad})
    with pytest.raises(ValidationError, match="accuracy"):
        SweepSpec.model_validate({"job": GOOD, "space": space, "metric": "accuracy"})


def test_seeds_depend_on_every_part_of_their_path():
    paths = [(1, "a"), (1, "b"), (2, "a"), ("1", "a"), (1, "a", 0), ("a", 1), (11,), (1, 1)]
    seeds = [derive(*path) for path in paths]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive("stable", 1) == 3778061572960327961, "seeds must not change between releases"
