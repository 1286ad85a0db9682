"""Experiences and states as bytes: whole, in parts, and damaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from warploom import chunks, wire
from warploom.codec import (
    pack_experiences,
    pack_meta,
    pack_model,
    unpack_experiences,
    unpack_meta,
    unpack_model,
)
from warploom.errors import WireError
from warploom.learner import LearnerState
from warploom.outer import OuterState
from warploom.spec import JobSpec
from warploom.training import pack_state, unpack_state
from warploom.types import Experience, MetaState, TaskRef


def experience(points=5, index=3):
    gen = torch.Generator().manual_seed(points)
    return Experience(
        ref=TaskRef("train", index, 2**40),
        version=7,
        steps=tuple(range(0, 2 * points, 2)),
        points={"a.w": torch.randn(points, 3, 2, generator=gen), "b": torch.randn(points, 4, generator=gen)}
        if points
        else {},
        gradient={"a.w": torch.randn(3, 2, generator=gen)},
        stats={"n.mean": torch.randn(2, generator=gen)},
        metrics={"support_loss": 0.5},
    )


def same(one, other):
    assert (one.ref, one.version, one.steps, one.metrics) == (other.ref, other.version, other.steps, other.metrics)
    for part in ("points", "gradient", "stats"):
        mine, theirs = getattr(one, part), getattr(other, part)
        assert set(mine) == set(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 400))
def test_any_split_gives_back_the_same(counts, chunk_bytes):
    whole = [experience(count, i) for i, count in enumerate(counts)]
    chunks = pack_experiences(whole, chunk_bytes=chunk_bytes)
    assert len(chunks) >= len(whole)
    for one, other in zip(whole, unpack_experiences(chunks), strict=True):
        same(one, other)


def test_chunks_are_about_as_large_as_asked():
    big = Experience(TaskRef("train", 0, 0), 0, tuple(range(40)), {"w": torch.zeros(40, 1000)})
    sizes = [len(chunk) for chunk in pack_experiences([big], chunk_bytes=16_000)]
    assert len(sizes) == 10
    assert max(sizes) < 17_000


def test_bfloat16_points_are_half_the_size_and_gradients_stay_exact():
    whole = experience(9)
    [back] = unpack_experiences(pack_experiences([whole], dtype="bfloat16"))
    assert torch.equal(back.points["b"], whole.points["b"].bfloat16().float())
    assert torch.equal(back.gradient["a.w"], whole.gradient["a.w"])
    big = Experience(TaskRef("train", 0, 0), 0, (0,), {"w": torch.zeros(1, 100_000)})
    full, half = (len(pack_experiences([big], dtype=d)[0]) for d in ("float32", "bfloat16"))
    assert half < 0.51 * full


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(value):
    bad = experience(3)
    bad.points["b"][1, 2] = value
    with pytest.raises(WireError, match="p/b holds a number that is not finite"):
        unpack_experiences(pack_experiences([bad]))


WAYS = [
    {"dtype": dtype, "delta": delta, "compression": compression}
    for dtype in ("float32", "bfloat16")
    for delta in (False, True)
    for compression in ("none", "lz4")
]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_bytes_never_pass_and_never_crash(data):
    [blob] = pack_experiences([experience(2)], **data.draw(st.sampled_from(WAYS)))
    cut, bit = data.draw(st.integers(0, len(blob) - 1)), data.draw(st.integers(0, 7))
    flipped = bytearray(blob)
    flipped[cut] ^= 1 << bit
    for damaged in (blob[:cut], bytes(flipped), blob + b"x", data.draw(st.binary(max_size=200))):
        with pytest.raises(WireError):
            unpack_experiences([damaged])


def test_a_body_whose_parts_were_lost_or_moved_never_passes():
    blob = chunks.encode({}, {"a": np.random.default_rng(0).standard_normal(12_000)})
    start = len(blob) - 96_000
    rows = [blob[i : i + chunks.ROW] for i in range(start, len(blob), chunks.ROW)]
    moved = [[rows[1], rows[0], *rows[2:]], [rows[0], rows[0], *rows[2:]], [bytes(chunks.ROW), *rows[1:]], rows[:-1]]
    assert chunks.decode(blob[:start] + b"".join(rows))
    for damaged in moved:
        with pytest.raises(WireError, match="checksum"):
            chunks.decode(blob[:start] + b"".join(damaged))


@pytest.mark.parametrize("way", WAYS)
def test_a_path_comes_back_by_any_way_of_storing_it(way):
    whole = experience(40)
    wide = torch.randn(1, 300) + 1e-3 * torch.randn(40, 300)
    whole.points["wide"] = wide
    [back] = unpack_experiences(pack_experiences([whole], chunk_bytes=10_000, **way))
    if way["dtype"] == "float32":
        same(back, whole)
    elif way["delta"]:
        assert torch.equal(back.points["wide"][0], wide[0])
        assert float((back.points["wide"] - wide).abs().max()) < 2**-8 * 5e-3
    else:
        assert torch.equal(back.points["wide"], wide.bfloat16().float())


def test_the_bits_that_differ_from_the_first_point_compress():
    wide = torch.randn(1, 4000) + 1e-4 * torch.randn(20, 4000)
    path = Experience(TaskRef("train", 0, 0), 0, tuple(range(20)), {"w": wide})
    plain, small = (sum(map(len, pack_experiences([path], **way))) for way in (WAYS[0], WAYS[3]))
    assert small < 0.8 * plain


def test_momentum_and_counters_of_the_inner_optimiser_travel():
    state = {"w": torch.randn(3, 20), "state:momentum/w": torch.randn(3, 20), "state:step": torch.tensor([0.0, 1, 257])}
    path = Experience(TaskRef("train", 0, 0), 0, (0, 1, 257), state)
    [back] = unpack_experiences(pack_experiences([path], dtype="bfloat16"))
    assert torch.equal(back.points["state:step"], state["state:step"])
    assert torch.equal(back.points["state:momentum/w"], state["state:momentum/w"].bfloat16().float())


def test_a_chunk_that_is_missing_or_of_another_experience_is_told():
    chunks_of = pack_experiences([experience(6)], chunk_bytes=50)
    assert len(chunks_of) > 1
    with pytest.raises(WireError, match="points of an experience that has 6"):
        unpack_experiences(chunks_of[:-1])
    other = pack_experiences([experience(6, index=4)], chunk_bytes=50)
    with pytest.raises(WireError):
        unpack_experiences([*chunks_of[:-1], other[-1]])


def test_a_foreign_kind_or_layout_is_named():
    with pytest.raises(WireError, match="not a chunk of points"):
        unpack_experiences([pack_meta(MetaState(0, {"w": torch.ones(1)}))])
    [chunk] = pack_experiences([experience(1)])
    with pytest.raises(WireError, match="layout 9"):
        unpack_experiences([chunk[:4] + b"\x09" + chunk[5:]])
    with pytest.raises(WireError, match="not one of an experience"):
        unpack_experiences([chunks.encode({"n": 1}, {})])
    blob = pack_meta(MetaState(0, {"w": torch.ones(1)})).replace(b'"layout":"1"', b'"layout":"9"')
    with pytest.raises(WireError, match="layout '9'"):
        unpack_meta(blob)


def test_meta_state_and_learner_state_come_back_bit_for_bit():
    meta = MetaState(12, {"w": torch.randn(3)}, {"n.var": torch.rand(2)})
    state = LearnerState(meta, OuterState({"w": torch.randn(3)}, {"w": torch.rand(3)}, {"w": 4}), dropped=2)
    back = unpack_state(pack_state(state))
    assert (back.meta.version, back.outer.count, back.dropped) == (12, {"w": 4}, 2)
    for mine, theirs in (
        (meta.params, back.meta.params),
        (meta.stats, back.meta.stats),
        (state.outer.first, back.outer.first),
        (state.outer.second, back.outer.second),
    ):
        assert set(mine) == set(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_model_carries_the_spec_that_made_it():
    spec = JobSpec.parse({"algorithm": "none", "task": "sinusoid", "model": "mlp"})
    back, meta = unpack_model(pack_model(spec, MetaState(3, {"w": torch.ones(2)})))
    assert back == spec
    assert meta.version == 3


def test_npz_bombs_are_refused_before_they_unpack():
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.zeros(4_000_000))
    assert len(buffer.getvalue()) < 100_000
    with pytest.raises(WireError, match="unpacks to"):
        wire.read_npz(buffer.getvalue(), max_bytes=1_000_000)
