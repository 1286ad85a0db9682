"""`arrays`: files written here in npz and Parquet, every split and refusal."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.support.tasks import check_function_of_the_ref, make
from warploom.build import build
from warploom.errors import DataMissing, InvalidInput, SetupError, WireError
from warploom.evaluation import evaluate, held_out
from warploom.local import train
from warploom.spec import JobSpec
from warploom.tasks.configs.arrays import ArraysConfig
from warploom.types import TaskRef

REGRESSION = {"name": "arrays", "file": "own.npz", "features": [3], "values": 2, "shots": 4, "queries": 2}
CLASSES = {"name": "arrays", "file": "own.npz", "target": "class", "features": [3], "ways": 3, "shots": 1, "queries": 2}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("WARPLOOM_DATA", str(tmp_path))
    return tmp_path


def columns(tasks=20, rows=12, labels=4):
    """Row i has x = (i, task, 0), so that a test can tell where a drawn row came from; y = (i, -i), or a class."""
    number = np.arange(tasks * rows)
    task = number % tasks
    x = np.stack([number, task, 0 * number], 1).astype(np.float64)
    label = np.array(["a", "b", "c", "d"])[(number // tasks) % labels]
    return {"task": task, "x": x, "y": np.stack([number, -number], 1), "label": label}


def save(root, name="own.npz", **changes):
    np.savez(root / name, **{**columns(), **changes})


def test_a_task_is_a_function_of_its_ref(root):
    save(root)
    check_function_of_the_ref(REGRESSION)
    check_function_of_the_ref({**CLASSES, "y_columns": ["label"]})


def test_regression_rows_are_those_of_one_task_and_none_is_drawn_twice(root):
    save(root)
    family = make(REGRESSION)
    assert [family.size(split) for split in ("train", "validation", "test")] == [14, 2, 4]
    tasks = family.sample([TaskRef("train", i, 1) for i in range(14)])
    assert tasks.support_x.shape == (14, 4, 3)
    assert tasks.query_y.shape == (14, 2, 2)
    assert tasks.support_x.dtype == tasks.support_y.dtype == torch.float32
    x, y = torch.cat([tasks.support_x, tasks.query_x], 1), torch.cat([tasks.support_y, tasks.query_y], 1)
    assert torch.equal(y[..., 0], x[..., 0])
    assert torch.equal(y[..., 1], -x[..., 0])
    assert bool((x[..., 1] == x[:, :1, 1]).all())
    assert bool((x[..., 0] % 20 == x[..., 1]).all())
    assert all(len(set(numbers.tolist())) == 6 for numbers in x[..., 0])


def seen(family, split):
    count = family.size(split)
    tasks = family.sample([TaskRef(split, i, 0) for i in range(count)])
    assert [family.identity(ref) for ref in tasks.refs] != [0] * count
    return set(tasks.support_x[:, 0, 1].tolist())


def test_splits_are_disjoint_complete_and_by_name_alone(root):
    save(root)
    first = {split: seen(make(REGRESSION), split) for split in ("train", "validation", "test")}
    assert sum(len(names) for names in first.values()) == 20
    assert set.union(*first.values()) == set(range(20))
    order = np.random.default_rng(0).permutation(240)
    np.savez(root / "own.npz", **{name: value[order] for name, value in columns().items()})
    assert {split: seen(make(REGRESSION), split) for split in first} == first
    other = make({**REGRESSION, "split_seed": 1})
    assert seen(other, "test") != first["test"]


def test_a_column_may_say_the_split(root):
    where = np.array(["train", "validation", "test", "train", "train"])[columns()["task"] % 5]
    save(root, part=where)
    family = make({**REGRESSION, "split_column": "part"})
    assert {n % 5 for n in seen(family, "train")} == {0, 3, 4}
    assert {n % 5 for n in seen(family, "test")} == {2}
    torn = where.copy()
    torn[45] = "test"
    save(root, part=torn)
    with pytest.raises(
        InvalidInput, match=r"own\.npz, column 'part', row 46: puts task '5' into test too, after train"
    ):
        make({**REGRESSION, "split_column": "part"})
    torn[45] = "training"
    save(root, part=torn)
    with pytest.raises(InvalidInput, match=r"column 'part', row 46: must be one of train, .*got 'training'"):
        make({**REGRESSION, "split_column": "part"})


@pytest.mark.parametrize("labels", ["text", "whole", "float"])
def test_classes_are_drawn_and_numbered_anew(root, labels):
    named = columns()["label"]
    codes = np.unique(named, return_inverse=True)[1] + 7
    save(root, label={"text": named, "whole": codes, "float": codes.astype(np.float64)}[labels])
    family = make({**CLASSES, "y_columns": ["label"]})
    assert (family.config.kind, family.config.outputs) == ("classification", 3)
    tasks = family.sample([TaskRef("train", i, 0) for i in range(40)])
    assert tasks.support_x.shape == (40, 3, 3)
    assert tasks.query_x.shape == (40, 6, 3)
    assert torch.equal(tasks.support_y, torch.arange(3).expand(40, -1))
    assert torch.equal(tasks.query_y, torch.tensor([0, 0, 1, 1, 2, 2]).expand(40, -1))
    truth = torch.from_numpy(codes - 7)
    support, query = (truth[x[..., 0].long()] for x in (tasks.support_x, tasks.query_x))
    assert torch.equal(query, support.repeat_interleave(2, 1))
    assert len({tuple(row) for row in support.tolist()}) > 15
    assert all(len(set(row)) == 3 for row in support.tolist())


def test_all_rows_can_be_used(root):
    save(root)
    tasks = make({**REGRESSION, "shots": None, "queries": 5}).sample([TaskRef("test", i, 0) for i in range(4)])
    assert tasks.support_x.shape == (4, 7, 3)
    by_class = make({**CLASSES, "y_columns": ["label"], "shots": None, "queries": 1, "ways": 4})
    assert by_class.sample([TaskRef("test", 0, 0)]).support_x.shape == (1, 8, 3)
    short = {name: value[1:] for name, value in columns().items()}
    np.savez(root / "own.npz", **short)
    with pytest.raises(InvalidInput, match=r"task '0' has 11 rows, '\d+' 12; set shots"):
        make({**REGRESSION, "shots": None})


def test_standardised_by_the_training_tasks_alone(root):
    save(root)
    plain, scaled = make(REGRESSION), make({**REGRESSION, "standardise": True})
    train = [number for number in range(240) if number % 20 in seen(plain, "train")]
    mean, std = np.mean(train), np.std(train)
    refs = [TaskRef("test", i, 0) for i in range(4)]
    raw, found = plain.sample(refs), scaled.sample(refs)
    torch.testing.assert_close(found.query_x[..., 0], (raw.query_x[..., 0] - mean) / std, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.support_y[..., 1], (raw.support_y[..., 1] + mean) / std, rtol=1e-5, atol=1e-5)
    assert bool((found.query_x[..., 2] == 0).all())


def test_several_columns_are_joined_and_images_keep_their_shape(root):
    number = columns()["task"].astype(np.float32)
    pixels = np.arange(240 * 6, dtype=np.uint8).reshape(240, 2, 3)
    save(root, width=number, pair=np.stack([number + 1, number + 2], 1), pixels=pixels, y=number)
    base = {**REGRESSION, "values": 1}
    x = make({**base, "x_columns": ["pair", "width"]}).sample([TaskRef("train", 0, 0)]).support_x[0]
    torch.testing.assert_close(x - x[:, 2:], torch.tensor([1.0, 2.0, 0.0]).expand(4, -1))
    for shape in ([2, 3], [1, 2, 3]):
        tasks = make({**base, "x_columns": ["pixels"], "features": shape}).sample([TaskRef("train", 0, 0)])
        assert tasks.support_x.shape == (1, 4, *shape)
        assert {tuple(row.flatten().tolist()) for row in tasks.support_x[0]} <= {
            tuple(p.ravel().tolist()) for p in pixels
        }
    with pytest.raises(InvalidInput, match=r"column 'pixels': has shape \[2, 3\] in each row, features is \[3, 2\]"):
        make({**base, "x_columns": ["pixels"], "features": [3, 2]})


def parquet(root, name="own.parquet", **changes):
    arrow, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    plain = columns()
    table = {
        "task": arrow.array([f"t{n:02}" for n in plain["task"]]),
        "x": arrow.array(plain["x"].tolist()),
        "y": arrow.array([row.tolist() for row in plain["y"]], arrow.list_(arrow.int64(), 2)),
        "label": arrow.array(plain["label"].tolist()).dictionary_encode(),
        **changes,
    }
    pq.write_table(arrow.table(table), root / name, row_group_size=50)
    return arrow


def test_parquet_gives_the_same_rows_as_npz(root):
    parquet(root)
    save(root, task=np.array([f"t{n:02}" for n in columns()["task"]]))
    for document in (REGRESSION, {**CLASSES, "y_columns": ["label"]}):
        refs = [TaskRef("train", i, 0) for i in range(5)]
        one, other = make(document).sample(refs), make({**document, "file": "own.parquet"}).sample(refs)
        for column in ("support_x", "support_y", "query_x", "query_y"):
            assert torch.equal(getattr(one, column), getattr(other, column))


def test_nested_parquet_lists_are_images(root):
    arrow = parquet(root)
    images = [[[float(i), 1.0], [2.0, 3.0], [4.0, 5.0]] for i in range(240)]
    parquet(root, x=arrow.array(images))
    family = make({**REGRESSION, "file": "own.parquet", "features": [3, 2]})
    x = family.sample([TaskRef("train", 0, 0)]).support_x[0]
    assert torch.equal(x[:, 1:], torch.tensor([[2.0, 3.0], [4.0, 5.0]]).expand(4, -1, -1))


def test_parquet_refusals_name_column_and_row(root):
    arrow = parquet(root)
    numbers = list(range(240))
    ragged = [[1.0, 2.0, 3.0]] * 16 + [[1.0]] + [[1.0, 2.0, 3.0]] * 223
    cases = {
        "column 'x', row 18: is empty": arrow.array([None if i == 17 else [1.0, 2.0, 3.0] for i in numbers]),
        "column 'x', row 19: is empty": arrow.array([[1.0, None if i == 18 else 2.0, 3.0] for i in numbers]),
        "column 'x', row 17: holds 1 values where row 1 holds 3": arrow.array(ragged),
        "column 'x': must be numbers or text, not": arrow.array([b"abc"] * 240),
        "column 'x', row 1: must be a number, got 'a'": arrow.array(["a"] * 240),
    }
    for words, x in cases.items():
        parquet(root, x=x)
        with pytest.raises(InvalidInput, match=rf"own\.parquet, {words}"):
            make({**REGRESSION, "file": "own.parquet"})
    (root / "own.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(WireError, match=r"own\.parquet is not a Parquet file"):
        make({**REGRESSION, "file": "own.parquet"})


def test_without_pyarrow_the_extra_is_named(root, monkeypatch):
    (root / "own.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SetupError, match=r"pip install 'warploom\[parquet\]'"):
        make({**REGRESSION, "file": "own.parquet"})


def spoiled(name, row, value):
    column = columns()[name].astype(np.float64)
    column[row] = value
    return {name: column}


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({}, {"x_columns": ["pixel"]}, r"column 'pixel': is not there; the file has: 'task', 'x', 'y', 'label'"),
        (spoiled("x", 30, np.nan), {}, r"column 'x', row 31: must be finite float32 numbers"),
        (spoiled("y", 2, 1e300), {}, r"column 'y', row 3: must be finite float32 numbers"),
        (spoiled("task", 4, 0.5), {}, r"column 'task', row 5: must be text or a whole number, got 0\.5"),
        (spoiled("task", 4, np.nan), {}, r"column 'task', row 5: must be text or a whole number"),
        ({"y": np.arange(239)}, {}, r"columns differ in length: .*'y' has 239 rows"),
        ({}, {"features": [4]}, r"column 'x': gives 3 numbers in each row, features \[4\] asks for 4"),
        ({}, {"values": 1}, r"column 'y': gives 2 numbers in each row, values \[1\] asks for 1"),
        ({"x": np.array([None] * 240)}, {}, r"column 'x': holds Python objects, which are not read"),
        ({"x": np.zeros(240, dtype=complex)}, {}, r"column 'x': must be numbers or text, not complex128"),
        ({"x": np.float64(3)}, {}, r"column 'x': must have a row for each example"),
        ({"task": columns()["x"]}, {}, r"column 'task': must hold one value in each row"),
        ({"x": np.zeros((0, 3)), "y": np.zeros((0, 2)), "task": np.zeros(0)}, {}, "has no rows"),
        ({}, {"shots": 11}, r"column 'task', row 1: task 0 has 12 rows; shots \+ queries ask for 13, got '0'"),
        (
            {},
            {"validation_share": 0.9, "test_share": 0.09},
            "leaves no task for training; it has 20 usable tasks of 20",
        ),
    ],
)
def test_refusals_name_file_column_and_row(root, changes, options, words):
    save(root, **changes)
    with pytest.raises(InvalidInput, match=words) as caught:
        make({**REGRESSION, **options})
    assert caught.value.message.startswith("own.npz")
    assert caught.value.field == "/task/file"


def test_a_task_with_too_few_classes_is_refused_or_dropped(root):
    label = columns()["label"]
    label[columns()["task"] == 7] = "a"
    save(root, label=label)
    document = {**CLASSES, "y_columns": ["label"]}
    words = r"row 8: task 7 has 1 classes with at least 3 rows \(shots \+ queries\); ways asks for 3"
    with pytest.raises(InvalidInput, match=words):
        make(document)
    family = make({**document, "short_tasks": "drop"})
    assert sum(family.size(split) for split in ("train", "validation", "test")) == 19


def test_files_that_are_not_there_or_not_what_they_claim(root):
    with pytest.raises(DataMissing, match=r"own\.npz is not under the data folder .*WARPLOOM_DATA"):
        make(REGRESSION)
    for content in (b"", b"hello", b"PK\x03\x04 cut"):
        (root / "own.npz").write_bytes(content)
        with pytest.raises(WireError, match=r"own\.npz is not an npz file"):
            make(REGRESSION)


def test_an_empty_split_is_refused_when_it_is_asked_for(root):
    save(root)
    family = make({**REGRESSION, "validation_share": 0})
    with pytest.raises(InvalidInput, match="leaves no task for validation; raise validation_share"):
        family.sample([TaskRef("validation", 0, 0)])


def test_a_file_that_changed_is_read_again(root):
    save(root)
    assert make(REGRESSION).sample([TaskRef("test", 0, 0)]).support_x.max() > 0
    save(root, x=np.zeros((240, 3)), extra=np.zeros(3))
    assert make(REGRESSION).sample([TaskRef("test", 0, 0)]).support_x.max() == 0


@pytest.mark.parametrize("file", ["/etc/passwd.npz", "../own.npz", "a/../../b.npz", "own.csv", "c:\\own.npz", "own"])
def test_paths_stay_under_the_data_folder(file):
    with pytest.raises(ValidationError, match=r"must be a path under the data folder|must end in"):
        ArraysConfig(file=file)


def test_configs_refuse_what_cannot_be():
    for options, words in (
        ({"target": "class", "y_columns": ("a", "b")}, "target class takes one y column"),
        ({"x_columns": ("x", "task")}, "each column can be used once"),
        ({"validation_share": 0.5, "test_share": 0.5}, "must leave tasks for training"),
        ({"features": (3, 0)}, "must be sizes from 1"),
    ):
        with pytest.raises(ValidationError, match=words):
            ArraysConfig(**options)


@pytest.mark.parametrize(
    ("task", "score"),
    [(REGRESSION, "nrmse"), ({**CLASSES, "y_columns": ["label"]}, "accuracy")],
    ids=["value", "class"],
)
def test_both_kinds_go_through_a_job(root, task, score):
    """The kind is an option here: job, model, evaluation and the record of a model all take it from the config."""
    save(root)
    spec = JobSpec.parse(
        {
            "algorithm": {"name": "maml", "inner_steps": 2},
            "task": {**task, "standardise": True},
            "model": {"name": "mlp", "hidden": [6]},
            "training": {"rounds": 2, "meta_batch": 2, "unit": 2},
            "evaluation": {"every": 1, "tasks": 2},
        }
    )
    assert JobSpec.parse(spec.to_json()) == spec
    algorithm = build(spec)
    assert algorithm.model.kind == spec.task.kind
    found = evaluate(algorithm, train(spec).meta, held_out(spec))
    assert score in found
    assert found["diverged"] == 0
