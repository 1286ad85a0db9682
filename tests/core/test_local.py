"""The loop in one process: it learns, it repeats itself exactly, and it fails with reasons."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from warploom.adaptation import ServedModel, Support
from warploom.codec import pack_experiences
from warploom.errors import InvalidInput, ReplayCorrupt, TrainingFailed
from warploom.evaluation import evaluate, held_out, student_t_975
from warploom.local import train
from warploom.local_replay import LocalReplay
from warploom.spec import JobSpec
from warploom.types import Experience, TaskRef


def sine(**changes):
    document = {
        "algorithm": {
            "name": "warpgrad",
            "inner_lr": 0.01,
            "inner_steps": 5,
            "outer": "adam",
            "warp_lr": 3e-3,
            "init_lr": 3e-3,
            "points_per_update": 25,
        },
        "task": "sinusoid",
        "model": "warp_mlp",
        "training": {"rounds": 25, "meta_batch": 10, "unit": 10},
        "evaluation": {"every": 25, "tasks": 40},
    }
    for path, value in changes.items():
        section, _, field = path.partition("__")
        document[section] = {**document.get(section, {}), field: value}
    return JobSpec.parse(document)


def test_meta_training_lowers_the_held_out_loss_far_below_the_start():
    result = train(sine())
    first, last = result.curve[0], result.curve[-1]
    assert last["meta_step"] == 25
    assert last["loss"] < 0.7 * first["loss"]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not():
    one, same = train(sine(training__rounds=3)), train(sine(training__rounds=3))
    other = train(sine(training__rounds=3, training__seed=1))
    assert all(torch.equal(one.meta.params[name], same.meta.params[name]) for name in one.meta.params)
    assert any(not torch.equal(one.meta.params[name], other.meta.params[name]) for name in one.meta.params)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_both_modes_reach_the_last_round(mode):
    events = []
    result = train(sine(training__mode=mode, training__rounds=4), lambda kind, data: events.append((kind, data)))
    assert result.meta.version == 4
    assert [data["meta_step"] for kind, data in events if kind == "round"] == [1, 2, 3, 4]


def test_units_that_do_not_divide_the_meta_batch_use_every_task():
    whole = train(sine(training__rounds=2, training__unit=4, training__meta_batch=10))
    assert whole.meta.version == 2


class Spoiler(LocalReplay):
    """Damages chunks on their way in."""

    def __init__(self, plan, spoil):
        super().__init__(plan)
        self.spoil = spoil

    def append(self, chunk):
        return super().append(replace(chunk, blob=self.spoil(chunk)))


def with_spoiled(monkeypatch, spec, spoil):
    events = []
    monkeypatch.setattr("warploom.local.LocalReplay", lambda plan: Spoiler(plan, spoil))
    result = train(spec, lambda kind, data: events.append((kind, data)))
    return result, [data for kind, data in events if kind == "rejected"], events[-2][1]


@pytest.mark.parametrize("kind", ["corrupt", "truncated", "foreign", "of another unit", "not finite"])
def test_units_that_cannot_be_read_are_done_again_and_change_nothing(monkeypatch, kind):
    spec = sine(training__rounds=3, training__unit=2)
    expected = train(spec).meta.params
    other = pack_experiences([Experience(TaskRef("train", 9, 0), 1, (0,), {"w": torch.ones(1, 2)})])
    nan = pack_experiences([Experience(TaskRef("train", 9, 0), 1, (0,), {"w": torch.tensor([[1, float("nan")]])})])
    spoils = {
        "corrupt": lambda blob: blob[:-9] + b"\xff" + blob[-8:],
        "truncated": lambda blob: blob[:-1],
        "foreign": lambda blob: b"PK" + blob,
        "of another unit": lambda blob: other[0],
        "not finite": lambda blob: nan[0],
    }
    spoilt = set()

    def spoil(chunk):
        if chunk.unit in {3, 7} and chunk.unit not in spoilt:
            spoilt.add(chunk.unit)
            return spoils[kind](chunk.blob)
        return chunk.blob

    result, rejected, last = with_spoiled(monkeypatch, spec, spoil)
    assert [(data["unit"], data["times"]) for data in rejected] == [(3, 1), (7, 1)]
    assert last["rejected"] == 2
    assert all(torch.equal(result.meta.params[name], value) for name, value in expected.items())


def test_a_unit_that_stays_unreadable_fails_the_job_with_the_reason(monkeypatch):
    spec = sine(training__rounds=3, training__unit=2, replay__max_rejections=2)
    with pytest.raises(ReplayCorrupt, match=r"unit 3 .* unreadable 2 times, .* checksum"):
        with_spoiled(monkeypatch, spec, lambda chunk: chunk.blob[:-1] if chunk.unit == 3 else chunk.blob)


def test_an_async_round_goes_on_without_a_bad_unit(monkeypatch):
    spec = sine(training__mode="async", training__rounds=4, training__unit=2)
    spoilt = []

    def spoil(chunk):
        if chunk.unit == 2 and not spoilt:
            spoilt.append(chunk.unit)
            return b""
        return chunk.blob

    result, rejected, _ = with_spoiled(monkeypatch, spec, spoil)
    assert result.meta.version == 4
    assert len(rejected) == 1


def test_ways_of_storing_that_are_exact_change_nothing():
    expected = train(sine(training__rounds=2)).meta.params
    exact = train(sine(training__rounds=2, replay__delta=True, replay__compression="lz4")).meta.params
    assert all(torch.equal(exact[name], value) for name, value in expected.items())
    rounded = train(sine(training__rounds=2, replay__delta=True, replay__dtype="bfloat16")).meta.params
    assert not all(torch.equal(rounded[name], value) for name, value in expected.items())


def test_storage_settings_that_fit_nothing_are_refused():
    document = {"algorithm": "maml", "task": "sinusoid", "model": "mlp"}
    for setting in ({"delta": True}, {"dtype": "bfloat16"}):
        with pytest.raises(InvalidInput, match="stores none") as caught:
            JobSpec.parse({**document, "replay": setting})
        assert caught.value.field == f"/replay/{next(iter(setting))}"
    with pytest.raises(InvalidInput):
        JobSpec.parse({**document, "replay": {"compression": "zstd"}})


def test_the_floor_does_not_move():
    spec = JobSpec.parse(
        {"algorithm": "none", "task": "sinusoid", "model": "mlp", "training": {"rounds": 3}, "evaluation": {"tasks": 5}}
    )
    result = train(spec)
    assert result.meta.version == 3
    assert result.curve[0]["loss"] == result.curve[-1]["loss"]


def test_a_job_that_diverges_fails_with_a_hint():
    spec = sine(algorithm__warp_lr=100.0, algorithm__outer="sgd", algorithm__points_per_update=1)
    with pytest.raises(TrainingFailed, match=r"not finite.*smaller"):
        train(spec)


def test_a_saved_model_answers_as_the_one_that_was_measured(tmp_path):
    spec = sine(training__rounds=2)
    result = train(spec, out=tmp_path)
    served = ServedModel.load((tmp_path / "model.safetensors").read_bytes())
    tasks = served.algorithm.family.sample([TaskRef("test", i, 0) for i in range(3)])
    requests = [
        Support(tasks.support_x[t], tasks.support_y[t], tasks.query_x[t], steps=5, lr=0.01, seed=t) for t in range(3)
    ]
    together = served.adapt(requests)
    adapted = served.algorithm.adapt(result.meta, tasks, seeds=[0, 1, 2])
    expected = served.algorithm.predict(result.meta, adapted, tasks.query_x)
    for t, answer in enumerate(together):
        torch.testing.assert_close(answer.outputs_Q, expected[t], rtol=1e-5, atol=1e-6)
        again = served.predict(answer.params, answer.stats, tasks.query_x[t])
        torch.testing.assert_close(again, expected[t], rtol=1e-5, atol=1e-6)
    assert len(together[0].losses) == 6


def test_evaluation_reports_mean_and_interval():
    served = train(sine(training__rounds=0))
    from warploom.build import build

    spec = sine()
    metrics = evaluate(build(spec), served.meta, held_out(spec))
    assert metrics["tasks"] == 40
    assert 0 < metrics["loss_ci95"] < metrics["loss"] * 2
    assert "accuracy" not in metrics


def test_diverged_tasks_are_counted_and_left_out_of_the_mean():
    from warploom.build import build

    spec = sine(algorithm__inner_lr=100.0, algorithm__inner_steps=30)
    algorithm = build(spec)
    metrics = evaluate(algorithm, algorithm.init(0), held_out(spec))
    assert metrics["diverged"] > 0
    assert metrics["diverged"] == metrics["tasks"] or metrics["loss"] < float("inf")


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042), (999, 1.962)]
)
def test_student_t(degrees, quantile):
    assert student_t_975(degrees) == pytest.approx(quantile, rel=5e-3)
