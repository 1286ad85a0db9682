from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from tests.support.pictures import picture, told, write_classes
from warploom.build import build
from warploom.errors import DataMissing, InvalidInput, WireError
from warploom.spec import JobSpec
from warploom.tasks import image_folder, pictures
from warploom.tasks.configs.image_folder import ImageFolderConfig
from warploom.tasks.image_folder import ImageFolder
from warploom.types import Split, TaskRef

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FLAT = {f"class{kind:02}": kind for kind in range(25)}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARPLOOM_DATA", str(tmp_path))
    return tmp_path / "mine"


def laid(root: Path) -> None:
    """train: classes 0 to 7, val: 8 to 11, test: 12 to 16."""
    for part, kinds in (("train", range(8)), ("val", range(8, 12)), ("test", range(12, 17))):
        write_classes(root / part, {f"c{kind:02}": kind for kind in kinds})


def family(**fields: Any) -> ImageFolder:
    small = {"folder": "mine", "ways": 3, "shots": 2, "queries": 3, "image_size": 16}
    return ImageFolder(ImageFolderConfig.model_validate({**small, **fields}))


def refs(split: Split, count: int, seed: int = 3) -> list[TaskRef]:
    return [TaskRef(split, i, seed) for i in range(count)]


def classes_of(made: ImageFolder, split: Split, tasks: int = 40) -> set[int]:
    return {kind for ref in refs(split, tasks) for kind, _ in told(made.sample([ref]).support_x[0])}


# --- Splits -----------------------------------------------------------------------------------------------------------


def test_train_val_and_test_folders_are_the_splits(root: Path) -> None:
    laid(root)
    made = family()
    assert classes_of(made, "train") == set(range(8))
    assert classes_of(made, "validation") == set(range(8, 12))
    assert classes_of(made, "test") == set(range(12, 17))


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_the_validation_folder_has_several_names(root: Path, name: str) -> None:
    laid(root)
    (root / "val").rename(root / name)
    assert classes_of(family(), "validation") == set(range(8, 12))


def test_class_folders_alone_are_dealt_by_the_split_seed(root: Path) -> None:
    write_classes(root, FLAT)
    seen = {split: classes_of(family(), split) for split in SPLITS}
    assert [len(seen[split]) for split in SPLITS] == [16, 4, 5]  # shares 0.64, 0.16, 0.2
    assert set().union(*seen.values()) == set(range(25))
    assert seen == {split: classes_of(family(), split) for split in SPLITS}
    assert classes_of(family(split_seed=1), "test") != seen["test"]


def test_seed_deals_all_classes_anew_and_joins_parts_of_one_class(root: Path) -> None:
    write_classes(root / "train", {"a": 0, "b": 1, "c": 2, "d": 3})
    for number in (8, 9):
        (root / "test" / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(0, number)).save(root / "test" / "a" / f"{number:03}.png")
    made = family(splits="seed", test_share=0, validation_share=0, shots=5)
    found = {told for ref in refs("train", 40) for told in _told(made, ref)}
    assert {number for kind, number in found if kind == 0} == set(range(10))
    assert {number for kind, number in found if kind == 1} == set(range(8))


def _told(made: ImageFolder, ref: TaskRef) -> list[tuple[int, int]]:
    tasks = made.sample([ref])
    return told(torch.cat([tasks.support_x[0], tasks.query_x[0]]))


def test_what_is_no_class_is_left_out(root: Path) -> None:
    laid(root)
    write_classes(root / "train", {".thumbs": 20, "__MACOSX": 21})
    (root / "train" / "empty").mkdir()
    (root / "train" / "c00" / "notes.txt").write_text("not a picture")
    (root / "train" / "c00" / "._000.png").write_text("a resource fork")
    (root / "train" / "readme.md").write_text("hello")
    assert classes_of(family(), "train") == set(range(8))


# --- Tasks ------------------------------------------------------------------------------------------------------------


def test_a_few_shot_task_has_n_classes_and_no_picture_twice(root: Path) -> None:
    laid(root)
    made = family()
    orders, used = set(), set()
    for ref in refs("train", 40):
        tasks = made.sample([ref])
        support, query = told(tasks.support_x[0]), told(tasks.query_x[0])
        assert len(set(support + query)) == 15
        kinds = [kind for kind, _ in support[::2]]
        assert len(set(kinds)) == 3
        assert [kind for kind, _ in support] == [kinds[y] for y in tasks.support_y[0]]
        assert [kind for kind, _ in query] == [kinds[y] for y in tasks.query_y[0]]
        orders.add(tuple(kinds))
        used |= set(support + query)
    assert len(orders) > 30
    assert len(used) > 60
    assert made.size("train") is made.identity(TaskRef("train", 0, 0)) is None


def test_multi_shot_tasks_are_fixed_groups_with_fixed_pictures(root: Path) -> None:
    laid(root)
    made = family(protocol="multi-shot")
    assert [made.size(split) for split in SPLITS] == [2, 1, 1]
    assert made.config.finite
    assert not family().config.finite
    visits: dict[int | None, list[Any]] = {0: [], 1: []}
    for ref in refs("train", 6) + refs("train", 4, seed=9):
        tasks = made.sample([ref])
        visits[made.identity(ref)].append((told(tasks.support_x[0]), told(tasks.query_x[0])))
    assert [len(found) for found in visits.values()] == [5, 5]
    groups = [found[0][0] for found in visits.values()]
    assert all(visit == found[0] for found in visits.values() for visit in found)
    kinds = Counter(kind for support in groups for kind, _ in support)
    assert len(kinds) == 6  # two groups of three that share no class; two of the eight classes are left over
    assert set(kinds.values()) == {2}
    other = family(protocol="multi-shot", split_seed=5).sample(refs("train", 2))
    assert {kind for i in range(2) for kind, _ in told(other.support_x[i])} != set(kinds)
    moved = family(protocol="multi-shot", augment=True)
    one, later = (moved.sample([TaskRef("validation", i, 3)]) for i in (0, 1))
    assert torch.equal(one.support_x, later.support_x)
    assert not torch.equal(one.query_x, later.query_x)


# --- Pixels -----------------------------------------------------------------------------------------------------------


def test_pixels_are_those_of_the_file_normalised(root: Path) -> None:
    laid(root)
    plain = family().sample(refs("test", 1)).support_x[0]
    expected = torch.stack([torch.from_numpy(picture(*found)).permute(2, 0, 1) / 255 for found in told(plain)])
    assert torch.equal(plain, expected)
    shifted = family(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]).sample(refs("test", 1)).support_x[0]
    mean, std = (torch.tensor(n).view(3, 1, 1) for n in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(shifted, (expected - mean) / std)
    assert torch.equal(family(mean=[0.5]).sample(refs("test", 1)).support_x[0], expected - 0.5)


@pytest.mark.parametrize("size", [8, 16, 24])
@pytest.mark.parametrize("colour", [True, False])
def test_sizes_and_grey_are_as_pillow_makes_them(root: Path, size: int, colour: bool) -> None:
    laid(root)
    made = family(image_size=size, colour=colour)
    x = made.sample(refs("test", 1)).support_x[0]
    assert x.shape == (6, 3 if colour else 1, size, size)
    mode = "RGB" if colour else "L"
    ours = {(image * 255).round().byte().numpy().tobytes() for image in x}
    every = [Image.open(path).convert(mode) for path in sorted((root / "test").glob("*/*.png"))]
    resized = [np.asarray(image.resize((size, size), Image.Resampling.LANCZOS)) for image in every]
    theirs = {np.moveaxis(a.reshape(size, size, -1), -1, 0).tobytes() for a in resized}
    assert ours <= theirs


def test_crop_takes_the_middle_and_squash_keeps_all(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert pictures.decode(tmp_path / "wide.png", (1, 20, 20), "crop").min() == 255
    squashed = pictures.decode(tmp_path / "wide.png", (1, 20, 20), "squash")
    assert 0.3 < float((squashed > 127).float().mean()) < 0.37
    assert squashed[0, :, 0].max() < 60


def test_jpeg_orientation_and_transparency(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", quality=95, exif=exif)
    turned = pictures.decode(tmp_path / "turned.jpg", (3, 16, 16), "squash").float()
    assert turned[:, :6].mean() < 20
    assert turned[:, 10:].mean() > 235
    clear = np.zeros((16, 16, 4), dtype=np.uint8)
    clear[:4, :, 3] = 255
    Image.fromarray(clear).save(tmp_path / "clear.png")
    seen = pictures.decode(tmp_path / "clear.png", (3, 16, 16), "squash")
    assert seen[:, :4].max() == 0
    assert seen[:, 4:].min() == 255


def test_augmentation_moves_queries_once_and_batches_by_their_generator(root: Path) -> None:
    laid(root)
    off, on = family().sample(refs("test", 1)), family(augment=True)
    moved = on.sample(refs("test", 1))
    assert torch.equal(off.support_x, moved.support_x)
    assert not torch.equal(off.query_x, moved.query_x)
    kept = family(augment=True, augment_query=False).sample(refs("test", 1))
    assert torch.equal(off.query_x, kept.query_x)
    one, same = (on.augment(off.support_x[0], torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, same)
    assert not torch.equal(one, off.support_x[0])


# --- The cache --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("room", "again"), [(1000, 0), (10, 30 - 10), (0, 30)])
def test_pictures_are_decoded_once_as_far_as_there_is_room(room: int, again: int) -> None:
    made: list[int] = []

    def make(number: int) -> torch.Tensor:
        made.append(number)
        return torch.full((1, 4, 4), number, dtype=torch.uint8)

    cache = pictures.PictureCache(make, 30, (1, 4, 4), room * 16 + 15)
    numbers = list(range(30))
    first, second = cache.take(numbers), cache.take(numbers[::-1])
    assert torch.equal(first, second.flip(0))
    assert first[:, 0, 0, 0].tolist() == numbers
    assert made[:30] == numbers
    assert len(made) == 30 + again
    first.zero_()
    assert cache.take([7]).max() == 7


def test_the_limit_of_the_cache_changes_nothing_but_the_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid(root)
    calls: list[Path] = []

    def counted(path: Path, *args: Any) -> torch.Tensor:
        calls.append(path)
        return pictures.decode(path, *args)

    monkeypatch.setattr(image_folder, "decode", counted)
    counts, tasks = [], []
    for cache_bytes in (2**30, 0):
        made = family(cache_bytes=cache_bytes)
        assert not calls  # a family is there at once; pictures are read when they are asked for
        tasks.append([made.sample(refs("train", 10)).support_x for _ in range(2)][1])
        counts.append(len(calls))
        assert len(set(calls)) <= 64
        calls.clear()
    assert torch.equal(*tasks)
    assert counts[0] <= 64 < counts[1] == 300


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_named_with_the_layout(root: Path) -> None:
    with pytest.raises(DataMissing, match=r"as train/<class>/\*.png") as caught:
        family()
    assert str(root) in str(caught.value)
    assert caught.value.value == "mine"
    assert "WARPLOOM_DATA" in str(caught.value)


@pytest.mark.parametrize("splits", ["auto", "folders", "seed"])
def test_no_classes(root: Path, splits: str) -> None:
    (root / "empty").mkdir(parents=True)
    with pytest.raises(DataMissing, match="no classes to train with") as caught:
        family(splits=splits)
    assert str(root) in str(caught.value)
    assert "*.png|jpg" in (caught.value.rule or "")


def test_too_few_pictures_name_the_class(root: Path) -> None:
    laid(root)
    for number in range(3, 8):
        (root / "val" / "c09" / f"{number:03}.png").unlink()
    with pytest.raises(InvalidInput, match=r"class 'c09' under .*/mine has 3 pictures") as caught:
        family()
    assert caught.value.field == "/task/shots"
    assert caught.value.rule == "at least shots + queries = 5 pictures in each class"
    assert caught.value.value == 3
    assert family(shots=1, queries=2).sample(refs("validation", 1)).count == 1


def test_more_ways_than_classes(root: Path) -> None:
    laid(root)
    made = family(ways=5)
    assert made.sample(refs("test", 1)).count == 1
    with pytest.raises(InvalidInput, match="at most 4, the validation classes") as caught:
        made.sample(refs("validation", 1))
    assert (caught.value.field, caught.value.value) == ("/task/ways", 5)
    with pytest.raises(InvalidInput, match="at most 4"):
        family(ways=5, protocol="multi-shot").sample(refs("validation", 1))


def test_a_class_in_two_splits_is_refused(root: Path) -> None:
    laid(root)
    write_classes(root / "test", {"c03": 3})
    with pytest.raises(InvalidInput, match="class 'c03' lies in train and in test") as caught:
        family()
    assert (caught.value.field, caught.value.rule) == ("/task/splits", "no class lies in two splits")
    assert "'seed'" in str(caught.value)
    assert family(splits="seed").sample(refs("train", 1)).count == 1


@pytest.mark.parametrize("how", ["cut", "text", "deep", "gone"])
def test_an_unreadable_picture_is_named(root: Path, how: str) -> None:
    write_classes(root, {"a": 0, "b": 1, "c": 2}, pictures=5, side=64)
    made = family(test_share=0, validation_share=0)
    path = root / "b" / "003.png"
    if how == "cut":
        path.write_bytes(path.read_bytes()[:80])
    elif how == "text":
        path.write_text("no picture")
    elif how == "deep":
        Image.fromarray(np.full((64, 64), 40_000, dtype=np.uint16)).save(path)
    else:
        path.unlink()
    with pytest.raises(WireError, match=r"/b/003\.png is not a picture") as caught:
        made.sample(refs("train", 1))
    assert caught.value.field == str(path)
    assert "8 bits a channel" in (caught.value.rule or "")
    assert caught.value.value == "003.png"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"folder": "../elsewhere"}, "under the data folder"),
        ({"folder": "/etc"}, "under the data folder"),
        ({"folder": "a\\b"}, "under the data folder"),
        ({"mean": [0.1, 0.2]}, "mean must have 1 number or 3"),
        ({"std": [0.0]}, "greater than 0"),
        ({"std": [1, 1, 1], "colour": False}, "std must have 1 number or 1"),
        ({"test_share": 0.6, "validation_share": 0.4}, "must be below 1; got test_share=0.6"),
        ({"image_size": 4}, "greater than or equal to 8"),
    ],
)
def test_configs_refuse_what_cannot_be(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ImageFolderConfig.model_validate(fields)


# --- Whole jobs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["conv4", "vgg", "resnet", "densenet"])
@pytest.mark.parametrize("algorithm", ["maml", "none"])
def test_the_defaults_of_mini_imagenet_go_with_the_nets(algorithm: str, model: str) -> None:
    spec = JobSpec.parse({"algorithm": algorithm, "task": "image-folder", "model": model})
    assert spec.task.input_shape == (3, 84, 84)
    assert spec.task.outputs == 5


def test_a_job_learns_from_a_folder(root: Path) -> None:
    laid(root)
    task = {"name": "image-folder", "folder": "mine", "ways": 3, "shots": 2, "queries": 3, "image_size": 16}
    algorithm = build(
        JobSpec.parse(
            {
                "algorithm": {"name": "maml", "inner_steps": 2},
                "task": task,
                "model": {"name": "vgg", "layers": 2, "filters": 4},
            }
        )
    )
    meta = algorithm.init(0)
    (experience,) = algorithm.rollout(meta, algorithm.family.sample(refs("train", 1)), seeds=[1])
    assert experience.gradient
    assert all(bool(torch.isfinite(value).all()) for value in experience.gradient.values())
