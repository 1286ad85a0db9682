from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.support.pictures import (
    CIFAR_FILES,
    cifar_bodies,
    cifar_numbers,
    cifar_records,
    write_cifar,
    write_cifar_archive,
)
from warploom.build import build
from warploom.errors import DataMissing, InvalidInput, WireError
from warploom.spec import JobSpec
from warploom.tasks import cifar10, data
from warploom.tasks.cifar10 import Cifar10, load_photographs
from warploom.tasks.configs.cifar10 import Cifar10Config
from warploom.types import Split, TaskRef

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TRAIN, ALL = 300, 360


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing in memory, before and after."""
    cifar10._load.cache_clear()
    yield
    cifar10._load.cache_clear()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARPLOOM_DATA", str(tmp_path))
    return tmp_path / "cifar10"


@pytest.fixture
def files(root: Path) -> Path:
    write_cifar(root / "cifar-10-batches-bin", cifar_bodies())
    return root


def family(**fields: Any) -> Cifar10:
    return Cifar10(Cifar10Config.model_validate({"shots": 2, "queries": 3, **fields}))


def stream(**fields: Any) -> Cifar10:
    return family(
        **{"protocol": "rates", "shots": 3, "queries": 1, "held_out": 0.1, "validation_share": 0.04, **fields}
    )


def refs(split: Split, count: int, seed: int = 3) -> list[TaskRef]:
    return [TaskRef(split, i, seed) for i in range(count)]


# --- Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["unpacked", "flat", "archive"])
def test_every_layout_gives_the_same_images_in_the_published_order(root: Path, layout: str) -> None:
    bodies = cifar_bodies()
    if layout == "archive":
        write_cifar_archive(root / "cifar-10-binary.tar.gz", dict(reversed(bodies.items())))
    else:
        write_cifar(root / "cifar-10-batches-bin" if layout == "unpacked" else root, bodies)
    found = load_photographs()
    assert (found.images.shape, found.images.dtype) == ((ALL, 3, 32, 32), torch.uint8)
    assert (found.labels.dtype, found.train) == (torch.int64, TRAIN)
    assert found.labels.tolist() == [i % 10 for i in range(ALL)]
    assert cifar_numbers(found.images / 255) == list(range(ALL))
    assert load_photographs() is found
    if layout == "archive":
        assert [path.name for path in root.iterdir()] == ["cifar-10-binary.tar.gz"]  # nothing is unpacked beside it


def test_a_record_is_the_label_and_three_planes_row_by_row(files: Path) -> None:
    record = cifar_bodies()["data_batch_2.bin"][7 * 3073 : 8 * 3073]
    found = load_photographs()
    image = found.images[67]
    assert int(found.labels[67]) == record[0] == 7
    for channel, row, column in ((0, 0, 0), (0, 1, 0), (0, 0, 31), (1, 0, 0), (2, 17, 5), (2, 31, 31)):
        assert int(image[channel, row, column]) == record[1 + 1024 * channel + 32 * row + column]


def test_unpacked_files_come_before_the_archive_and_changes_are_seen(files: Path) -> None:
    write_cifar_archive(files / "cifar-10-binary.tar.gz", cifar_bodies(each=10))
    assert len(load_photographs().images) == ALL
    (files / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(cifar_records(0, 5))
    assert len(load_photographs().images) == TRAIN + 5
    shutil.rmtree(files / "cifar-10-batches-bin")
    assert len(load_photographs().images) == 60


def test_missing_files_are_told_with_place_address_checksum_and_command(files: Path) -> None:
    (files / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    with pytest.raises(DataMissing) as caught:
        family()
    message = str(caught.value)
    assert f"data_batch_3.bin missing in {files}/cifar-10-batches-bin" in message
    assert "https://www.cs.toronto.edu/~kriz/cifar.html" in message
    assert "MD5 c32a1d4ab5d03f1284b67883e8d87530" in message
    assert "`warploom data fetch cifar10`" in message
    assert caught.value.field == "WARPLOOM_DATA"
    shutil.rmtree(files)
    with pytest.raises(DataMissing, match=", ".join(CIFAR_FILES)):
        family()


def test_it_is_fetched_from_its_official_address() -> None:
    (archive,) = data.ARCHIVES["cifar10"]
    assert archive == (
        "cifar-10-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (cifar_records(0, 4)[:-1], "has 12291 bytes, not a multiple of 3073 bytes"),
        (b"", "has 0 bytes"),
        (b"\x0a" + bytes(3072), "has label 10, not labels from 0 to 9"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_spoilt_file_is_named(root: Path, body: bytes, words: str, packed: bool) -> None:
    bodies = {**cifar_bodies(), "data_batch_4.bin": body}
    if packed:
        write_cifar_archive(root / "cifar-10-binary.tar.gz", bodies)
    else:
        write_cifar(root, bodies)
    with pytest.raises(WireError, match=words) as caught:
        load_photographs()
    assert re.search(r"data_batch_4\.bin", str(caught.value))
    assert str(root) in str(caught.value)
    assert "`warploom data fetch cifar10`" in str(caught.value)


@pytest.mark.parametrize("how", ["cut", "flip", "one bit", "text", "lacking"])
def test_a_spoilt_archive_is_named(root: Path, how: str) -> None:
    path = root / "cifar-10-binary.tar.gz"
    bodies = cifar_bodies()
    if how == "lacking":
        del bodies["test_batch.bin"]
    write_cifar_archive(path, bodies)
    whole = path.read_bytes()
    if how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "flip":
        path.write_bytes(whole[:5000] + bytes(b ^ 0x55 for b in whole[5000:5400]) + whole[5400:])
    elif how == "one bit":
        path.write_bytes(whole[:50_000] + bytes([whole[50_000] ^ 1]) + whole[50_001:])
    elif how == "text":
        path.write_text("no archive")
    with pytest.raises(WireError, match="lacks test_batch.bin" if how == "lacking" else "cannot be read") as caught:
        load_photographs()
    assert str(path) in str(caught.value)


# --- few-shot ---------------------------------------------------------------------------------------------------------


def test_no_split_shares_a_class_and_all_classes_are_used(files: Path) -> None:
    seen = {split: kinds(family(), split) for split in SPLITS}
    assert [len(seen[split]) for split in SPLITS] == [5, 2, 3]
    assert set().union(*seen.values()) == set(range(10))
    assert seen == {split: kinds(family(), split) for split in SPLITS}
    assert kinds(family(split_seed=1), "test") != seen["test"]
    wider = family(train_classes=7, validation_classes=1)
    assert kinds(wider, "train") > seen["train"]


def kinds(made: Cifar10, split: Split) -> set[int]:
    return {number % 10 for ref in refs(split, 40) for number in cifar_numbers(made.sample([ref]).support_x[0])}


def test_a_few_shot_task_holds_what_its_labels_say_and_no_image_twice(files: Path) -> None:
    made = family(ways=3)
    used: set[int] = set()
    for ref in refs("test", 30):
        tasks = made.sample([ref])
        support, query = cifar_numbers(tasks.support_x[0]), cifar_numbers(tasks.query_x[0])
        assert len(set(support + query)) == 15
        order = [number % 10 for number in support[::2]]
        assert len(set(order)) == 3
        assert [number % 10 for number in support] == [order[y] for y in tasks.support_y[0]]
        assert [number % 10 for number in query] == [order[y] for y in tasks.query_y[0]]
        used |= set(support + query)
    assert min(used) < TRAIN <= max(used)  # classes that are new may be shown by any of their images
    assert made.size("test") is None


# --- rates ------------------------------------------------------------------------------------------------------------


def test_an_epoch_of_the_stream_is_every_image_that_is_not_held_out_once(files: Path) -> None:
    made = stream()  # 300 images: 30 held out, 12 for validation, 258 in the stream: 8 tasks of 30
    assert made.config.outputs == 10
    epochs = []
    for start in (0, 8):
        tasks = [made.sample([TaskRef("train", start + i, 3)]) for i in range(8)]
        seen = [number for task in tasks for number in cifar_numbers(task.support_x[0])]
        assert len(seen) == len(set(seen)) == 240
        assert max(seen) < TRAIN
        for task in tasks:
            assert task.support_y[0].tolist() == [n % 10 for n in cifar_numbers(task.support_x[0])]
            assert task.query_y[0].tolist() == [n % 10 for n in cifar_numbers(task.query_x[0])]
        epochs.append(seen)
    assert epochs[0] != epochs[1]
    assert len(set(epochs[0]) | set(epochs[1])) <= 258
    other = cifar_numbers(made.sample([TaskRef("train", 0, 4)]).support_x[0])
    assert other != epochs[0][:30]


def test_queries_of_the_stream_come_from_parts_that_share_nothing(files: Path) -> None:
    made = stream()
    asked = {split: questions(made, split) for split in SPLITS}
    assert [len(asked[split]) for split in SPLITS] == [30, 12, 60]
    assert asked["test"] == set(range(TRAIN, ALL))
    assert not asked["train"] & asked["validation"]
    learned = {n for split in SPLITS for r in refs(split, 16) for n in cifar_numbers(made.sample([r]).support_x[0])}
    assert not learned & set().union(*asked.values())
    assert learned | asked["train"] | asked["validation"] <= set(range(TRAIN))
    assert questions(stream(split_seed=1), "train") != asked["train"]


def questions(made: Cifar10, split: Split) -> set[int]:
    return {number for ref in refs(split, 60) for number in cifar_numbers(made.sample([ref]).query_x[0])}


def test_queries_are_drawn_without_repetition(files: Path) -> None:
    drawn = Counter(cifar_numbers(stream(queries=3).sample(refs("train", 1)).query_x[0]))
    assert len(drawn) == 30
    assert set(drawn.values()) == {1}


def test_the_setting_of_the_paper_is_one_part_in_a_hundred() -> None:
    config = Cifar10Config(protocol="rates", shots=24, queries=16, validation_share=0)
    rows = cifar10._split_rows(config, cifar10.Photographs(torch.empty(60_000, 0), torch.empty(0), 50_000))
    assert {name: len(found) for name, found in rows.items()} == {
        "train": 500,
        "validation": 0,
        "stream": 49_500,
        "test": 10_000,
    }


# --- Refusals and whole jobs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "split", "field", "words"),
    [
        ({"ways": 4}, "test", "ways", "at most 3, the classes for test"),
        ({"ways": 3}, "validation", "ways", "at most 2, the classes for validation"),
        ({"shots": 30, "queries": 7}, "train", "shots", r"at most 36, the images of class 'airplane'; got 37"),
        ({"protocol": "rates", "shots": 30}, "train", "shots", "10 shots at most 294, the images of the stream"),
        ({"protocol": "rates"}, "train", "held_out", "10 queries at most 3"),
        ({"protocol": "rates", "held_out": 0.2, "validation_share": 0}, "validation", "validation_share", "at most 0"),
        ({"protocol": "rates", "queries": 7, "held_out": 0.3}, "test", "queries", "at most 60"),
    ],
)
def test_what_cannot_be_made_is_refused_with_field_rule_and_value(
    files: Path, fields: dict[str, Any], split: Split, field: str, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        family(**fields).sample(refs(split, 1))
    assert caught.value.field == f"/task/{field}"
    assert "at most" in (caught.value.rule or "")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"train_classes": 8, "validation_classes": 3}, "must be at most 10; got train_classes=8"),
        ({"ways": 6}, "ways must be at most train_classes; got ways=6"),
        ({"held_out": 0.5}, "less than 0.5"),
        ({"std": [1, 2]}, "std must have 1 number or 3"),
    ],
)
def test_configs_refuse_what_cannot_be(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Cifar10Config.model_validate(fields)


@pytest.mark.parametrize(("protocol", "outputs"), [("few-shot", 2), ("rates", 10)])
def test_a_job_learns_from_it(files: Path, protocol: str, outputs: int) -> None:
    document = {
        "algorithm": {"name": "maml", "inner_steps": 2, "inner_batch": 4},
        "task": {"name": "cifar10", "protocol": protocol, "shots": 1, "queries": 1, "held_out": 0.1},
        "model": {"name": "resnet", "widths": [3, 3, 3, 3]},
    }
    algorithm = build(JobSpec.parse(document))
    meta = algorithm.init(0)
    assert meta.params["head.weight"].shape == (outputs, 3)
    (experience,) = algorithm.rollout(meta, algorithm.family.sample(refs("train", 1)), seeds=[1])
    assert all(bool(torch.isfinite(value).all()) for value in experience.gradient.values())
    assert experience.gradient
