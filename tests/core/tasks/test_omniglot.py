from __future__ import annotations

import io
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from warploom.errors import DataMissing, InvalidInput, WireError
from warploom.tasks import omniglot
from warploom.tasks.configs.omniglot import OmniglotConfig
from warploom.tasks.omniglot import Omniglot, load_drawings
from warploom.types import Split, TaskRef

Writer = Callable[..., None]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def family(**fields: Any) -> Omniglot:
    tiny = {"ways": 4, "shots": 3, "queries": 2, "train_alphabets": 5, "test_alphabets": 3, "augment": False}
    return Omniglot(OmniglotConfig.model_validate({**tiny, **fields}))


def refs(split: Split, count: int, seed: int = 3) -> list[TaskRef]:
    return [TaskRef(split, i, seed) for i in range(count)]


def whence(size: int = 28) -> dict[bytes, tuple[str, int, int]]:
    """Image bytes -> (alphabet, number of the character, number of the drawing)."""
    drawings = load_drawings(size)
    return {
        drawings.images[c.start + d].numpy().tobytes(): (c.alphabet, number, d)
        for number, c in enumerate(drawings.characters)
        for d in range(c.drawings)
    }


def origins(x_N: Tensor, table: dict[bytes, tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    return [table[(image * 255).round().to(torch.uint8).numpy().tobytes()] for image in x_N]


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing in memory, before and after."""
    omniglot._load.cache_clear()
    yield
    omniglot._load.cache_clear()


def test_the_tiny_archives_are_read_whole(tiny_omniglot: Path) -> None:
    drawings = load_drawings(28)
    assert drawings.images.shape == (12 * 6 * 20, 28, 28)
    assert [c.drawings for c in drawings.characters] == [20] * 72
    assert len({c.alphabet for c in drawings.characters}) == 12
    assert len(whence()) == len(drawings.images)
    assert 0.01 < drawings.images.float().mean() / 255 < 0.2  # ink is bright, paper is 0


def test_a_task_is_one_alphabet_with_the_first_drawings_held_out(tiny_omniglot: Path) -> None:
    made, table = family(), whence()
    for ref in refs("train", 10):
        tasks = made.sample([ref])
        support, query = origins(tasks.support_x[0], table), origins(tasks.query_x[0], table)
        assert len({alphabet for alphabet, _, _ in support + query}) == 1
        assert [d for _, _, d in query] == [0, 1] * 4
        assert [d for _, _, d in support] == [2, 3, 4] * 4
        classes = [character for _, character, _ in support][::3]
        assert classes == [character for _, character, _ in query][::2]
        assert len(set(classes)) == 4


def test_the_ref_draws_characters_and_their_order(tiny_omniglot: Path) -> None:
    made, table = family(train_alphabets=1), whence()
    classes = [tuple(c for _, c, _ in origins(made.sample([r]).query_x[0], table)) for r in refs("train", 12)]
    assert len(set(classes)) > 8
    assert len({frozenset(order) for order in classes}) > 3


def test_splits_share_no_alphabet_and_epochs_cover_them(tiny_omniglot: Path) -> None:
    made, table = family(), whence()
    seen: dict[Split, set[str]] = {}
    for split, count in zip(SPLITS, (5, 4, 3), strict=True):
        assert made.size(split) == count
        visited = [origins(made.sample([ref]).query_x[0], table)[0][0] for ref in refs(split, 3 * count)]
        assert all(len(set(visited[i * count : (i + 1) * count])) == count for i in range(3))
        seen[split] = set(visited)
    assert len(set().union(*seen.values())) == sum(map(len, seen.values())) == 12


def test_growing_the_train_part_keeps_what_was_there(tiny_omniglot: Path) -> None:
    table = whence()

    def alphabets(split: Split, **fields: int) -> set[str]:
        made = family(**fields)
        return {origins(made.sample([r]).query_x[0], table)[0][0] for r in refs(split, made.size(split) or 0)}

    few, many = alphabets("train", train_alphabets=2), alphabets("train", train_alphabets=7)
    assert few < many
    assert alphabets("test", train_alphabets=2) == alphabets("test", train_alphabets=7)
    assert alphabets("test") != alphabets("test", split_seed=1)


def test_few_shot_classes_are_turned_characters_and_no_split_shares_one(tiny_omniglot: Path) -> None:
    made, table = family(protocol="few-shot", ways=5, shots=1, queries=3), whence()
    seen: dict[Split, set[int]] = {}
    turns: Counter[int] = Counter()
    for split in SPLITS:
        assert made.size(split) is None
        seen[split] = set()
        for ref in refs(split, 60):
            tasks = made.sample([ref])
            for way in range(5):
                images = torch.cat([tasks.support_x[0, way : way + 1], tasks.query_x[0, 3 * way : 3 * way + 3]])
                turn, found = turned_back(images, table)
                turns[turn] += 1
                assert len({c for _, c, _ in found}) == 1
                assert len({d for _, _, d in found}) == 4
                seen[split].add(found[0][1])
    assert min(turns[turn] for turn in range(4)) > 100
    assert [len(seen[split]) for split in SPLITS] == [49, 4, 19]  # 72 x 1100/1623, 100/1623, 423/1623
    assert len(set().union(*seen.values())) == 72


def turned_back(images: Tensor, table: dict[bytes, Any]) -> tuple[int, list[tuple[str, int, int]]]:
    for turn in range(4):
        upright = torch.rot90(images, -turn, (2, 3)).contiguous()
        try:
            return turn, origins(upright, table)
        except KeyError:
            continue
    raise AssertionError("no turn of a known drawing")


def test_queries_are_mapped_once_if_augment_says_so(tiny_omniglot: Path) -> None:
    ref = refs("test", 1)
    off, kept, moved = (
        family(**fields).sample(ref) for fields in ({}, {"augment": True, "augment_query": False}, {"augment": True})
    )
    assert torch.equal(off.query_x, kept.query_x)
    assert torch.equal(off.support_x, moved.support_x)
    assert (moved.query_x - off.query_x).abs().mean() > 0.01
    assert torch.equal(moved.query_x, family(augment=True).sample(ref).query_x)


@pytest.mark.parametrize(
    ("fields", "split", "field", "words"),
    [
        ({"train_alphabets": 10}, "train", "/task/train_alphabets", "at most 12, the alphabets with 4 characters"),
        ({"ways": 7}, "train", "/task/train_alphabets", "at most 0"),
        ({"train_alphabets": 9}, "validation", "/task/train_alphabets", "validation"),
        ({"protocol": "few-shot", "ways": 200}, "train", "/task/ways", "at most 4 x 49 characters"),
    ],
)
def test_what_cannot_be_made_is_refused_with_field_rule_and_value(
    fields: dict[str, Any], split: Split, field: str, words: str, tiny_omniglot: Path
) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        family(**fields).sample(refs(split, 1))
    assert caught.value.field == field
    assert words in (caught.value.rule or "")
    assert caught.value.value == fields.get(field.rpartition("/")[2], 5)


def test_missing_files_are_told_with_place_address_and_command(
    tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARPLOOM_DATA", str(tmp_path))
    (tmp_path / "omniglot").mkdir()
    shutil.copy(tiny_root / "omniglot" / "images_background.zip", tmp_path / "omniglot")
    with pytest.raises(DataMissing) as caught:
        Omniglot(OmniglotConfig())
    message = str(caught.value)
    assert f"{tmp_path}/omniglot/images_evaluation.zip missing" in message
    assert "https://github.com/brendenlake/omniglot/raw/master/python/images_evaluation.zip" in message
    assert "`warploom data fetch omniglot`" in message


def spoil(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "flip":
        path.write_bytes(whole[:5000] + bytes(b ^ 0x55 for b in whole[5000:5400]) + whole[5400:])
    elif how == "empty":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images_background/readme.txt", "nothing")
    else:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("images_background/Zeta/character01/0001_01.png", b"no picture")


@pytest.mark.parametrize(
    ("how", "words"),
    [("cut", "cannot be read"), ("flip", "cannot be read"), ("empty", "no drawings"), ("picture", "cannot be read")],
)
def test_a_spoilt_archive_is_named(how: str, words: str, tmp_path: Path, tiny_omniglot: Path) -> None:
    shutil.copytree(tiny_omniglot / "omniglot", tmp_path / "omniglot")
    spoil(tmp_path / "omniglot" / "images_background.zip", how)
    with pytest.raises(WireError, match=words) as caught:
        load_drawings(28, tmp_path)
    assert "images_background.zip" in str(caught.value)
    assert "`warploom data fetch omniglot`" in str(caught.value)


def test_the_cache_on_disk_saves_the_reading(
    tiny_omniglot: Path, fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = load_drawings(28)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"]
    omniglot._load.cache_clear()
    monkeypatch.setattr(omniglot, "_read_archives", None)
    again = load_drawings(28)
    assert torch.equal(first.images, again.images)
    assert first.characters == again.characters
    assert load_drawings(28) is again
    with pytest.raises(TypeError):
        load_drawings(20)


def test_a_spoilt_or_forbidden_cache_is_no_error(
    tiny_omniglot: Path, fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = load_drawings(28)
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    omniglot._load.cache_clear()
    assert torch.equal(load_drawings(28).images, first.images)
    assert kept.stat().st_size > 1000
    (tmp_path / "file").touch()
    monkeypatch.setenv("WARPLOOM_CACHE", str(tmp_path / "file" / "below"))
    assert torch.equal(load_drawings(28).images, first.images)


def test_other_archives_are_not_answered_from_the_cache(
    tiny_omniglot: Path, fresh: None, tmp_path: Path, write_archive: Writer
) -> None:
    shutil.copytree(tiny_omniglot / "omniglot", tmp_path / "omniglot")
    before = load_drawings(28, tmp_path)
    write_archive(tmp_path / "omniglot" / "images_evaluation.zip", "images_evaluation", 2)
    assert len(before.images) - len(load_drawings(28, tmp_path).images) == 3 * 6 * 20


def test_characters_with_too_few_drawings_are_left_out(
    tiny_omniglot: Path, fresh: None, tmp_path: Path, write_archive: Writer
) -> None:
    shutil.copytree(tiny_omniglot / "omniglot", tmp_path / "omniglot")
    write_archive(tmp_path / "omniglot" / "images_evaluation.zip", "images_evaluation", 5, drawings=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARPLOOM_DATA", str(tmp_path))
        assert family(train_alphabets=4).size("validation") == 0
        assert family(train_alphabets=4, shots=2).size("validation") == 5


@pytest.mark.parametrize("size", [8, 28, 40, 105])
def test_shrinking_many_is_what_pillow_does_with_each(size: int) -> None:
    ink_MHW = np.random.default_rng(size).random((140, 105, 105)) < 0.2
    ink_MHW[:, 30:60, 40:50] = True
    ours = omniglot.shrink(ink_MHW, size)
    for index in (0, 77, 139):
        paper = Image.fromarray((~ink_MHW[index] * 255).astype(np.uint8))
        theirs = 255 - np.asarray(paper.resize((size, size), Image.Resampling.LANCZOS)).astype(int)
        assert abs(ours[index].astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_any_kind_of_png_is_understood(mode: str) -> None:
    ink = np.random.default_rng(1).random((105, 105)) < 0.3
    file = io.BytesIO()
    Image.fromarray(~ink).convert(mode).save(file, "PNG")
    assert np.array_equal(omniglot._ink(file.getvalue()), ink)


def test_the_real_archives(real_omniglot: Path) -> None:
    drawings = load_drawings(28)
    alphabets = Counter(c.alphabet for c in drawings.characters)
    assert (len(alphabets), len(drawings.characters), len(drawings.images)) == (50, 964 + 659, 32460)
    assert {c.drawings for c in drawings.characters} == {20}
    assert sum(count >= 20 for count in alphabets.values()) == 46
    made = Omniglot(OmniglotConfig())
    assert [made.size(split) for split in SPLITS] == [25, 11, 10]
    tasks = made.sample(refs("train", 2))
    assert tasks.support_x.shape == (2, 300, 1, 28, 28)
    assert 0.03 < tasks.support_x.mean() < 0.2
    lost = 1 - made.augment(tasks.support_x[0], torch.Generator().manual_seed(1)).sum() / tasks.support_x[0].sum()
    assert abs(lost) < 0.15
    few = Omniglot(OmniglotConfig(protocol="few-shot", ways=20, shots=1, augment=False))
    assert few.sample(refs("test", 1)).query_x.shape == (1, 100, 1, 28, 28)


def test_real_drawings_are_what_pillow_reads(real_omniglot: Path) -> None:
    drawings = load_drawings(28)
    with zipfile.ZipFile(real_omniglot / "omniglot" / "images_evaluation.zip") as archive:
        names = sorted(name for name in archive.namelist() if "/Tengwar/character07/" in name and name.endswith("png"))
        pictures = [Image.open(io.BytesIO(archive.read(name))).convert("L") for name in names]
    start = [c.start for c in drawings.characters if c.alphabet == "Tengwar"][6]
    for index, picture in enumerate(pictures):
        small = 255 - np.asarray(picture.resize((28, 28), Image.Resampling.LANCZOS)).astype(int)
        assert abs(drawings.images[start + index].numpy().astype(int) - small).max() <= 1
